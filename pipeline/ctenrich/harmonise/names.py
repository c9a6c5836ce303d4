"""Find the rows of mappings/segments.csv that others' labels denote: by a published task, or by a table of the user."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ctenrich.codes.mappings import find_segment
from ctenrich.codes.tasks import TaskClass, load_tasks, task_classes
from ctenrich.errors import InputError, UsageError, did_you_mean
from ctenrich.reasons import Reason

__all__ = ["MAKERS", "LabelTable", "find_name", "names_beside", "read_labels", "task_of"]

MAKERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "totalsegmentator": ("TotalSegmentator", "totalsegmentator:total"),
        "moose": ("MOOSE", "moose:clin_ct_organs"),
        "lungmask": ("lungmask", "lungmask:R231"),
    }
)
"""Programs whose label tables are known: key -> (name, task that is meant where none is named)."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """A user's table of labels: label in the files -> name of a row, empty for a label that is left out."""

    names: Mapping[str, str]
    place: str
    """Name of its file."""

    @property
    def values(self) -> dict[int, str]:
        """The labels that are whole numbers."""
        return {int(label): name for label, name in self.names.items() if label.isdigit()}


def task_of(text: str) -> tuple[str, tuple[TaskClass, ...]]:
    """Find the program and the label table that ``--as`` names.

    Parameters
    ----------
    text : str
        ``MAKER`` or ``MAKER:TASK``.

    Returns
    -------
    name, classes : str and tuple of TaskClass
        Name of the program; the classes of its answer in the order of their labels.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another program or task.
    """
    maker, _, task = text.partition(":")
    if maker not in MAKERS:
        hint = did_you_mean(maker, MAKERS, f"known: {', '.join(MAKERS)}; for others, give --labels or --meta")
        raise UsageError(Reason.BAD_PARAMETER, f"the labels of {maker!r} are not known", hint)
    title, usual = MAKERS[maker]
    wanted = f"{maker}:{task}" if task else usual
    tasks = [name for name in load_tasks() if name.startswith(f"{maker}:")]
    if wanted not in tasks:
        raise UsageError(Reason.BAD_PARAMETER, f"{title} has no task {task!r}", did_you_mean(wanted, tasks))
    return title, tuple(item for item in task_classes(wanted) if not item.auxiliary)


def read_labels(path: Path) -> LabelTable:
    """Read a table of labels: a CSV with the columns ``label`` and ``name``.

    ``label`` is a label value, the name of a file without its ending, of an ROI or of a segment; ``name`` is a row of
    mappings/segments.csv or one of its other names, and empty for a label that is left out.

    Raises
    ------
    UsageError
        BAD_PARAMETER, with the line, for a table of another form or a label that occurs twice; UNMAPPED_LABEL for a
        name that no row has.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [c.strip().lower() for c in reader.fieldnames or ()]
            rows = [(reader.line_num, [*row.values()]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a CSV file in UTF-8") from error
    if not {"label", "name"} <= set(columns):
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} lacks the columns label and name")
    names: dict[str, str] = {}
    for line, cells in rows:
        if len(cells) != len(columns) or not all(isinstance(cell, str) for cell in cells):
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name}, line {line}: the number of columns is another")
        row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
        if not row["label"] or row["label"] in names:
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name}, line {line}: the label is empty or occurs twice")
        names[row["label"]] = find_name(row["name"], f"{path.name}, line {line}") if row["name"] else ""
    if not any(names.values()):
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} names no structure")
    return LabelTable(names=names, place=path.name)


def find_name(label: str, place: str) -> str:
    """Return the row of a structure's name.

    Parameters
    ----------
    label : str
        A name.
    place : str
        For the message.

    Raises
    ------
    UsageError
        UNMAPPED_LABEL.
    """
    row = find_segment(label)
    if row is None:
        message = f"{place}: no row of mappings/segments.csv knows {label!r}"
        raise UsageError(Reason.UNMAPPED_LABEL, message, "use a name of a row, or add one in a folder for --mappings")
    return row.name


def names_beside(folder: Path) -> dict[int, str]:
    """Label value -> name, from nnU-Net's dataset.json, or segments.json of ``ctenrich export``, in the folder.

    Raises
    ------
    InputError
        BAD_DESCRIPTION if such a file does not describe labels.
    """
    for name, read in _DESCRIPTIONS.items():
        try:
            found = json.loads((folder / name).read_bytes())
            return {int(value): str(label) for label, value in read(found) if int(value) != 0}
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(Reason.BAD_DESCRIPTION, f"{name} does not describe labels") from error
    return {}


_DESCRIPTIONS: dict[str, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    "dataset.json": lambda found: iter(found["labels"].items()),
    "segments.json": lambda found: ((s["label"], s["number"]) for s in found["segments"]),
}

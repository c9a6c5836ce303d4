"""Label tables of published models: which structure each label number of a task denotes, and how parts are merged.

Two files of ``mappings/`` hold them:

* ``tasks.csv``: task, label number, the model's own class name, and the row of ``segments.csv`` that it denotes (empty:
  the row of the same name). A class whose role is ``auxiliary`` is predicted, and removed from the answer.
* ``parts.csv``: for tasks that several networks answer together, the label numbers of each network.

Numbers and class names are those of the models' own tables. Task names start with the family:
``totalsegmentator:total``, ``moose:clin_ct_organs``, ``lungmask:R231``, ``monai:wholeBody_ct_segmentation``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.resources import folder

__all__ = ["TaskClass", "load_parts", "load_tasks", "task_classes", "task_parts"]

_ROLES = ("", "auxiliary")


@dataclass(frozen=True, kw_only=True)
class TaskClass:
    """One label of a task."""

    task: str
    """E.g. ``totalsegmentator:total``."""
    label: int
    """Label number in the answer of the task; the segment number in a SEG."""
    class_name: str
    """The model's own name of the class."""
    segment: str
    """Row of segments.csv; empty for an auxiliary class."""
    auxiliary: bool
    """Whether the network predicts the class, and the task removes it from its answer."""


def load_tasks(path: Path | None = None) -> dict[str, tuple[TaskClass, ...]]:
    """Load the label tables of all tasks, in the order of the file.

    Raises
    ------
    UsageError
        BAD_MAPPING, with file and line, if a number is no number from 1, occurs twice, or a role is unknown.
    """
    return dict(_load_task_table(path or folder("mappings") / "tasks.csv"))


def load_parts(path: Path | None = None) -> dict[str, dict[int, dict[int, str]]]:
    """Load the label tables of the networks that answer a task together.

    Returns
    -------
    dict
        Task -> number of the network's data set -> label number of the network -> class name of the task. The order of
        the networks is that of the file: the answer of a later one is painted over that of an earlier one.

    Raises
    ------
    UsageError
        BAD_MAPPING, with file and line.
    """
    return dict(_load_part_table(path or folder("mappings") / "parts.csv"))


def task_classes(task: str) -> tuple[TaskClass, ...]:
    """Return the classes of a task in the order of their label numbers, auxiliary classes included.

    Raises
    ------
    UsageError
        NOT_FOUND if no table has the task.
    """
    tasks = load_tasks()
    if task not in tasks:
        message = f"no label table has the task {task!r}"
        raise UsageError(Reason.NOT_FOUND, message, did_you_mean(task, tasks, "see mappings/tasks.csv"))
    return tuple(sorted(tasks[task], key=lambda item: item.label))


def task_parts(task: str) -> dict[int, dict[int, int]]:
    """Return how the labels of the networks of a task become labels of the task.

    Returns
    -------
    dict
        Number of the network's data set -> label number of the network -> label number of the task, in the order of
        painting. Empty for a task that one network answers: its labels are those of the task.

    Raises
    ------
    UsageError
        NOT_FOUND if no table has the task; BAD_MAPPING if a network has a class that the task has not.
    """
    numbers = {item.class_name: item.label for item in task_classes(task)}
    parts = load_parts().get(task, {})
    for model, labels in parts.items():
        lost = sorted(set(labels.values()) - set(numbers))
        if lost:
            raise UsageError(
                Reason.BAD_MAPPING, f"parts.csv: model {model} of {task} has the unknown class {lost[0]!r}"
            )
    return {model: {label: numbers[name] for label, name in labels.items()} for model, labels in parts.items()}


@cache
def _load_task_table(path: Path) -> Mapping[str, tuple[TaskClass, ...]]:
    tasks: dict[str, dict[int, TaskClass]] = {}
    for place, row in _table_rows(path, ("task", "label", "class_name", "segment", "role")):
        if row["role"] not in _ROLES:
            raise UsageError(Reason.BAD_MAPPING, f"{place}: unknown role {row['role']!r}")
        auxiliary = row["role"] == "auxiliary"
        item = TaskClass(
            task=row["task"],
            label=_label_number(place, row["label"]),
            class_name=row["class_name"],
            segment="" if auxiliary else row["segment"] or row["class_name"],
            auxiliary=auxiliary,
        )
        classes = tasks.setdefault(item.task, {})
        if item.label in classes:
            raise UsageError(Reason.BAD_MAPPING, f"{place}: label {item.label} of {item.task} occurs twice")
        classes[item.label] = item
    return {task: tuple(classes.values()) for task, classes in tasks.items()}


@cache
def _load_part_table(path: Path) -> Mapping[str, dict[int, dict[int, str]]]:
    parts: dict[str, dict[int, dict[int, str]]] = {}
    for place, row in _table_rows(path, ("task", "model", "label", "class_name")):
        labels = parts.setdefault(row["task"], {}).setdefault(_label_number(place, row["model"]), {})
        label = _label_number(place, row["label"])
        if label in labels:
            raise UsageError(Reason.BAD_MAPPING, f"{place}: label {label} of model {row['model']} occurs twice")
        labels[label] = row["class_name"]
    return parts


def _table_rows(path: Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    if not path.is_file():
        raise UsageError(Reason.BAD_MAPPING, f"there is no mapping file {path.name}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            for row in reader:
                place = f"{path.name}:{reader.line_num}"
                missing = [column for column in columns if not isinstance(row.get(column), str)]
                if missing:
                    raise UsageError(Reason.BAD_MAPPING, f"{place}: column {missing[0]} is missing")
                yield place, {column: row[column].strip() for column in columns}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_MAPPING, f"{path.name} is not a CSV file in UTF-8") from error


def _label_number(place: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(Reason.BAD_MAPPING, f"{place}: {text!r} is not a number from 1")
    return int(text)

"""Write the data of the first page as script files that it loads when it needs them, from disk or from a server."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.report.data import CohortData, Group
from ctenrich.workspace import write_bytes

__all__ = ["FLAGS", "PAGE", "DataFiles", "SeriesMarks", "display_unit", "natural_key", "write_features", "write_series"]

Row = dict[str, Any]

PAGE = 1000
"""Series in one script file."""
FLAGS = ("error of quality", "finding of quality", "unusual value", "absent organ or lung end", "error of a check")
"""Flags of a series, in the order of their bits."""
_UNITS = {"mm3": ("mL", 1e-3), "mm2": ("cm2", 1e-2), "1": ("", 1.0)}
_DENSE = 0.6
"""Share of series with a value from which the values of all series are written, absent ones as NaN."""


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Key by which ``rib 2`` comes before ``rib 10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", text) if part]


def display_unit(unit: str) -> tuple[str, float]:
    """Unit in which values are shown, and the factor from `unit` to it: mL for mm3, cm2 for mm2."""
    return _UNITS.get(unit, (unit, 1.0))


class DataFiles:
    """Script files of one report; each calls ``ctenrich.put(NAME, DATA)``.

    Parameters
    ----------
    folder : Path
        ``report/data``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()
        self.size = 0
        """Bytes of all files."""

    def put(self, name: str, data: Any) -> int:
        """Write one file unless it is there with the same content; return its bytes."""
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        content = f'ctenrich.put("{name}",{safe});\n'.encode()
        path = self._folder / f"{name}.js"
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
        self._names.add(path.name)
        self.size += len(content)
        return len(content)

    def remove_others(self) -> None:
        """Delete the files of an earlier report that this one has not written."""
        for path in self._folder.glob("*.js"):
            if path.name not in self._names:
                path.unlink()


@dataclass(frozen=True, kw_only=True)
class SeriesMarks:
    """What is known about the series beside their rows, by Series Instance UID."""

    scores: Mapping[str, float] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    """Bits of :data:`FLAGS`."""
    thumbnails: frozenset[str] = frozenset()
    reviews: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(Series, product) -> state of the review."""


def write_series(files: DataFiles, data: CohortData, marks: SeriesMarks) -> Row:
    """Write the rows of all series in files of :data:`PAGE`, column by column.

    Parameters
    ----------
    files : DataFiles
        The report's data.
    data : CohortData
        The cohort.
    marks : SeriesMarks
        Scores, flags, thumbnails and reviews.

    Returns
    -------
    dict
        The lists to which the columns refer by position, and the number of files.
    """
    lists = {name: _Numbered() for name in ("collections", "states", "reasons", "sets", "reviews")}
    count = 0
    for start in range(0, len(data.series), PAGE):
        files.put(f"series-{count}", _columns(data.series.part(start, PAGE), lists, marks))
        count += 1
    return {name: found.values for name, found in lists.items()} | {"pages": count, "count": len(data.series)}


class _Numbered:
    """Numbers distinct values in the order in which they come."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, value: Any) -> int:
        found = self._places.get(value)
        if found is None:
            found = self._places[value] = len(self.values)
            self.values.append(value)
        return found


def _columns(found: Mapping[str, Sequence[Any]], lists: Mapping[str, _Numbered], marks: SeriesMarks) -> Row:
    uids, products, reviews = found["SeriesInstanceUID"], found["products"], marks.reviews
    none = lists["reviews"].place("")
    reviewed = {uid for uid, _ in reviews}
    return {
        "uid": uids,
        "patient": [patient or "" for patient in found["PatientID"]],
        "study": [(s or "") if v else "" for s, v in zip(found["StudyInstanceUID"], found["viewer_url"], strict=True)],
        "collection": [lists["collections"].place(name or "") for name in found["collection_id"]],
        "slices": [count or 0 for count in found["slices"]],
        "spacing": [float(f"{spacing:.4g}") if spacing else 0 for spacing in found["slice_spacing"]],
        "state": [lists["states"].place(state) for state in found["state"]],
        "reason": [lists["reasons"].place(reason) for reason in found["reason"]],
        "objects": found["objects"],
        "seconds": [round(seconds, 1) if seconds is not None else -1 for seconds in found["seconds"]],
        "set": [lists["sets"].place(tuple(names)) for names in products],
        "score": [round(marks.scores.get(uid, 0.0), 1) for uid in uids],
        "flags": [marks.flags.get(uid, 0) for uid in uids],
        "picture": [int(uid in marks.thumbnails) for uid in uids],
        "versions": found["versions"],
        "review": [
            [lists["reviews"].place(reviews.get((uid, p), "")) for p in names]
            if uid in reviewed
            else [none] * len(names)
            for uid, names in zip(uids, products, strict=True)
        ],
    }


def write_features(files: DataFiles, number: int, groups: Sequence[Group], total: int) -> list[Row]:
    """Write the values of one quantity, a file per organ.

    Parameters
    ----------
    files : DataFiles
        The report's data.
    number : int
        Number of the quantity; part of the names of the files.
    groups : sequence of Group
        Its values.
    total : int
        Number of series of the cohort.

    Returns
    -------
    list of dict
        Organ, name of its file, and number of values of each file, in natural order of the organs.
    """
    by_organ: dict[str, list[Group]] = {}
    for group in groups:
        by_organ.setdefault(group.organ, []).append(group)
    out = []
    for place, organ in enumerate(sorted(by_organ, key=natural_key)):
        name = f"feature-{number}-{place}"
        parts = [_group_data(group, total) for group in by_organ[organ]]
        files.put(name, parts)
        out.append({"organ": organ, "file": name, "n": sum(int(g.values.size) for g in by_organ[organ])})
    return out


def _group_data(group: Group, total: int) -> Row:
    values = (group.values * display_unit(group.unit)[1]).astype("<f4")
    if group.series.size >= _DENSE * total and np.unique(group.series).size == group.series.size:
        every = np.full(total, np.nan, "<f4")
        every[group.series] = values
        return {"product": group.product, "values": _encoded(every)}
    return {"product": group.product, "values": _encoded(values), "series": _encoded(group.series.astype("<u4"))}


def _encoded(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()

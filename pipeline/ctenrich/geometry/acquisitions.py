"""Attributes that tell the acquisitions of one series apart, and whether they divide its slices into mixed groups.

Two acquisitions, contrast phases, kernels, energies, gated phases or reconstructions in one series can together form a
stack that is regular by position alone. They show where the slices, in order along the normal, change to and fro
between the values of an attribute.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["MARKS", "TIMES", "AcquisitionSplit", "SliceMarks", "find_splits", "slice_marks"]

MARKS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "KVP",
    "FilterType",
    "ImageType3",
    "ImageType4",
    "ImageType5",
    "SeriesDescription",
    "SeriesNumber",
    "SliceThickness",
    "PatientPosition",
    "ManufacturerModelName",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "NominalPercentageOfRespiratoryPhase",
    "TemporalPositionIndex",
    "MultienergyCTAcquisition",
    "IrradiationEventUID",
)
"""Attributes whose values are compared for equality; a missing value is a value of its own. ImageType3 and ImageType4
are single values of Image Type, ImageType5 is the fifth and all later ones. IDC's table has no column for those after
ManufacturerModelName, so that the queries do not judge them."""

TIMES = ("AcquisitionTime", "ContentTime", "AcquisitionDateTime")
"""Attributes that may be different for every slice; the queries judge the first two."""

_SHARE = 5
"""A fifth of the span of a series' times is a step between acquisitions; smaller ones are those of one acquisition."""
_THOROUGH = 3
"""Times that come back more often than this are mixed, however small the steps between them."""


@dataclass(frozen=True, kw_only=True)
class SliceMarks:
    """Values of one instance that tell acquisitions apart."""

    texts: tuple[tuple[str, str], ...] = ()
    """(attribute, value) of those in `MARKS` that have a value, in capitals and without padding."""
    times: tuple[tuple[str, int], ...] = ()
    """(attribute, microseconds since midnight, or since 1970) of those in `TIMES` that have a valid value."""


@dataclass(frozen=True, kw_only=True)
class AcquisitionSplit:
    """Groups of slices that an attribute makes."""

    attribute: str
    groups: tuple[tuple[str, int], ...]
    """(value, number of slices), in order along the normal of their first slices."""
    interleaved: bool
    """Whether the positions of the groups interleave; otherwise one group follows the other."""

    def __str__(self) -> str:
        shown = [f"{value or '(none)'} ({count})" for value, count in self.groups[:4]]
        return f"{self.attribute}: {', '.join(shown)}" + (", ..." if len(self.groups) > 4 else "")


def slice_marks(texts: Mapping[str, str], image_type: Sequence[str], times: Mapping[str, int]) -> SliceMarks:
    """Values of one instance in the form in which they are compared.

    Parameters
    ----------
    texts : mapping
        Text by attribute; several values are joined by a backslash. KVP is rounded to whole kilovolts, Slice
        Thickness to hundredths of a millimetre.
    image_type : sequence of str
        Values of Image Type.
    times : mapping
        Microseconds by attribute, of valid times only.

    Returns
    -------
    SliceMarks
        Without empty values.
    """
    types = [value.strip(" ").upper() for value in image_type]
    values = {name: text.strip(" ").upper() for name, text in texts.items()}
    values |= {"ImageType3": "".join(types[2:3]), "ImageType4": "".join(types[3:4]), "ImageType5": "\\".join(types[4:])}
    values["KVP"] = _whole_kilovolts(values.get("KVP", ""))
    values["SliceThickness"] = _hundredths(values.get("SliceThickness", ""))
    return SliceMarks(
        texts=tuple((name, values[name]) for name in MARKS if values.get(name)),
        times=tuple((name, times[name]) for name in TIMES if name in times),
    )


def _whole_kilovolts(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return str(math.floor(value + 0.5)) if abs(value) < 1e9 else text


def _hundredths(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.2f}" if abs(value) < 1e9 else text


def find_splits(slices: Sequence[SliceMarks]) -> tuple[AcquisitionSplit, ...]:
    """Attributes that divide the slices into groups.

    The groups of an attribute interleave where a value comes back after another one. Where every slice has a value of
    its own there are no groups, so nothing interleaves. Times interleave if

    * some slices between others have no time, or
    * a time comes back, and the slices step both forwards and backwards by at least a fifth of the span of all times,
      or there are at least three times as many changes as times (smaller steps are those of a reconstruction that works
      on several slices at once), or
    * a pause of at least a fifth of the span, in the middle of the span, divides them into an early and a late half,
      and these come back (every slice of two acquisitions may have a time of its own).

    Parameters
    ----------
    slices : sequence of SliceMarks
        In order along the normal, each at a position of its own.

    Returns
    -------
    tuple of AcquisitionSplit
        In the order of `MARKS`, then `TIMES`; without times that do not interleave.
    """
    splits = []
    texts = [dict(s.texts) for s in slices]
    for attribute in MARKS:
        values = [t.get(attribute, "") for t in texts]
        groups = _groups(values)
        if 1 < len(groups) < len(values):
            mixed = _comes_back(values)
            splits.append(AcquisitionSplit(attribute=attribute, groups=groups, interleaved=mixed))
    stamps = [dict(s.times) for s in slices]
    for attribute in TIMES:
        times = [t.get(attribute) for t in stamps]
        if _times_interleave(times):
            groups = _groups([_clock(t) for t in times])
            splits.append(AcquisitionSplit(attribute=attribute, groups=groups, interleaved=True))
    return tuple(splits)


def _groups(values: Sequence[str]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return tuple(counts.items())


def _changes(values: Sequence[object]) -> int:
    return sum(a != b for a, b in pairwise(values))


def _comes_back(values: Sequence[object]) -> bool:
    return _changes(values) + 1 > len(set(values))


def _times_interleave(times: Sequence[int | None]) -> bool:
    if _changes([t is None for t in times]) >= 2:
        return True
    present = [t for t in times if t is not None]
    if len(present) < 3:
        return False
    steps = [b - a for a, b in pairwise(present)]
    first, last = min(present), max(present)
    span = last - first
    if _comes_back(present):
        both_ways = _SHARE * min(max(steps), -min(steps)) >= span
        if both_ways or _changes(present) + 1 >= _THOROUGH * len(set(present)):
            return True
    late = [2 * t >= first + last for t in present]
    if _changes(late) < 2:
        return False
    pause = min(t for t, x in zip(present, late, strict=True) if x) - max(
        t for t, x in zip(present, late, strict=True) if not x
    )
    return _SHARE * pause >= span


def _clock(micros: int | None) -> str:
    if micros is None:
        return ""
    return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros)).strftime("%H:%M:%S")

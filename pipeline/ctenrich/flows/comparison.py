"""Compare the results of two versions of a flow on one case: masks by Dice, doses, and measured values."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import RTDoseStorage

from ctenrich.dicom.references import read_object_header
from ctenrich.dicom.seg import DecodedSeg, read_seg
from ctenrich.dicom.sop_classes import SEGMENTATION_CLASSES, is_structured_report
from ctenrich.dicom.sr import read_sr, rows_of
from ctenrich.evaluate.other_segs import structure_name
from ctenrich.masks import dice_of_counts
from ctenrich.settings import SegSettings
from ctenrich.workspace import write_bytes

__all__ = ["COMPARISON", "ComparedResult", "compare_results", "lowest_dice", "read_comparison", "write_comparison"]

COMPARISON = "comparison.csv"
"""Name of the table in the folder of a flow."""
_DECIMALS = 2
"""Of a position in mm by which slices are found again."""
_DIRECTION = 1e-4


@dataclass(frozen=True, kw_only=True)
class ComparedResult:
    """A mask, dose or value of one version beside that of the other."""

    flow: str
    """Name of the flow whose results are the new ones."""
    other: str
    """Name of the flow whose results are the old ones."""
    series: str
    """Series Instance UID of the images; of a dose, of the dose."""
    structure: str
    quantity: str
    """``mask`` (volumes), ``dose`` (maxima), ``objects`` (numbers), or what was measured."""
    unit: str
    old: float | None
    """None: only the new version has it."""
    new: float | None
    """None: only the old version has it."""
    difference: float | None
    """New minus old; of a dose the largest difference of a voxel."""
    dice: float | None = None
    """Of masks on one grid; None also where both are empty."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one version has."""

    value: float
    seg: DecodedSeg | None = None
    number: int = 0
    dose: NDArray[np.float64] | None = None
    place: tuple[float, ...] = ()
    """Of a dose: position, orientation and spacing."""


_Key = tuple[str, str, str, str, int]
"""Series, structure, quantity, unit, and a number where there are several."""


def compare_results(
    old: Sequence[Path], new: Sequence[Path], names: tuple[str, str], *, limits: SegSettings | None = None
) -> tuple[ComparedResult, ...]:
    """Compare the objects of two versions of a flow.

    Masks of SEGs are paired by the images that they refer to and their structure, values of SRs by images, finding,
    site and quantity, doses in their order. Other objects are counted.

    Parameters
    ----------
    old, new : sequence of Path
        DICOM objects.
    names : tuple of str
        Names of the flows: of the new results, and of the old ones.
    limits : SegSettings, optional
        Limits of the grid and the masks of a SEG.

    Returns
    -------
    tuple of ComparedResult
        One per mask, dose and value that either version has.

    Raises
    ------
    InputError
        An object cannot be read.
    """
    before, after = _found(old, limits or SegSettings()), _found(new, limits or SegSettings())
    keys = sorted({**before, **after})
    return tuple(_compared(key, before.get(key), after.get(key), names) for key in keys)


def _compared(key: _Key, old: _Found | None, new: _Found | None, names: tuple[str, str]) -> ComparedResult:
    series, structure, quantity, unit, number = key
    difference = new.value - old.value if old is not None and new is not None else None
    dice, note = None, "" if difference is not None else "only in one version"
    if old is not None and new is not None and old.seg is not None and new.seg is not None:
        counts = _overlap(old.seg, old.number, new.seg, new.number)
        dice = None if counts is None else dice_of_counts(*counts)
        note = "on another grid" if counts is None else ""
    if old is not None and new is not None and old.dose is not None and new.dose is not None:
        same = old.place == new.place and old.dose.shape == new.dose.shape
        difference = float(np.abs(new.dose - old.dose).max(initial=0.0)) if same else None
        note = "" if same else "on another grid"
    return ComparedResult(
        flow=names[0],
        other=names[1],
        series=series,
        structure=structure if number == 1 else f"{structure}#{number}",
        quantity=quantity,
        unit=unit,
        old=None if old is None else old.value,
        new=None if new is None else new.value,
        difference=difference,
        dice=dice,
        note=note,
    )


def _found(files: Iterable[Path], limits: SegSettings) -> dict[_Key, _Found]:
    seen: Counter[tuple[str, str, str, str]] = Counter()
    found: dict[_Key, _Found] = {}
    others: Counter[str] = Counter()
    for path in sorted(files):
        head = read_object_header(path)
        if head is None:
            continue
        if head.sop_class in SEGMENTATION_CLASSES:
            rows = _masks(path, limits)
        elif is_structured_report(head.sop_class):
            rows = _values(path)
        elif head.sop_class == RTDoseStorage:
            rows = _dose(path)
        else:
            others[head.sop_class] += 1
            continue
        for key, one in rows:
            seen[key] += 1
            found[(*key, seen[key])] = one
    for sop_class, number in others.items():
        found["", sop_class, "objects", "", 1] = _Found(value=number)
    return found


def _masks(path: Path, limits: SegSettings) -> Iterator[tuple[tuple[str, str, str, str], _Found]]:
    seg = read_seg(path, max_voxels=limits.max_voxels, max_bytes=limits.max_bytes)
    voxel = float(np.prod(seg.grid.spacing)) / 1000
    for segment in seg.segments:
        count = sum(int(seg.mask_plane(segment.number, k).sum()) for k in range(seg.grid.shape[0]))
        key = (seg.source_series_uid, structure_name(segment), "mask", "mL")
        yield key, _Found(value=count * voxel, seg=seg, number=segment.number)


def _values(path: Path) -> Iterator[tuple[tuple[str, str, str, str], _Found]]:
    for row in rows_of(read_sr(path)):
        value = row.get("value")
        if not isinstance(value, int | float):
            continue
        places = [
            str(row.get(name) or "") for name in ("finding", "finding_site", "laterality", "topographical_modifier")
        ]
        structure = " ".join(filter(None, places)) or str(row.get("tracking_id") or "")
        quantity = " ".join(filter(None, (str(row.get("quantity") or ""), str(row.get("derivation") or ""))))
        yield (
            (str(row.get("source_series_uid") or ""), structure, quantity, str(row.get("unit") or "")),
            _Found(value=float(value)),
        )


def _dose(path: Path) -> Iterator[tuple[tuple[str, str, str, str], _Found]]:
    data = dcmread(path)
    dose = data.pixel_array.astype(np.float64) * float(data.DoseGridScaling)
    place = [*data.ImagePositionPatient, *data.ImageOrientationPatient, *data.PixelSpacing]
    offsets = data.get("GridFrameOffsetVector") or []
    key = ("", str(data.get("DoseSummationType", "")), "dose", str(data.get("DoseUnits", "")))
    yield key, _Found(value=float(dose.max(initial=0.0)), dose=dose, place=tuple(map(float, [*place, *offsets])))


def _overlap(one: DecodedSeg, number: int, other: DecodedSeg, other_number: int) -> tuple[int, int, int] | None:
    """Voxels in both masks and in each, slice by slice; None if they are not on one grid.

    A SEG that is read without its images has only the slices that it has frames of.
    """
    directions = np.array(one.grid.affine_lps)[:3, :2], np.array(other.grid.affine_lps)[:3, :2]
    if one.grid.shape[1:] != other.grid.shape[1:] or np.abs(directions[0] - directions[1]).max() > _DIRECTION:
        return None
    first, second = _slices(one), _slices(other)
    if not first.keys() & second.keys() and not _parallel_slices(one, other):
        return None
    counts: defaultdict[str, int] = defaultdict(int)
    for place in first.keys() | second.keys():
        masks = [
            None if place not in places else seg.mask_plane(n, places[place])
            for seg, n, places in ((one, number, first), (other, other_number, second))
        ]
        for name, mask in zip(("one", "other"), masks, strict=True):
            counts[name] += 0 if mask is None else int(mask.sum())
        if masks[0] is not None and masks[1] is not None:
            counts["both"] += int((masks[0] & masks[1]).sum())
    return counts["both"], counts["one"], counts["other"]


def _slices(seg: DecodedSeg) -> dict[tuple[float, ...], int]:
    return {tuple(round(x, _DECIMALS) + 0.0 for x in position): k for k, position in enumerate(seg.grid.positions)}


def _parallel_slices(one: DecodedSeg, other: DecodedSeg) -> bool:
    """Whether two SEGs without a common slice could have one: a line along the normal goes through their origins."""
    step = np.subtract(one.grid.positions[0], other.grid.positions[0])
    along = np.array(one.grid.affine_lps)[:3, :2]
    along = along / np.linalg.norm(along, axis=0)
    return bool(np.abs(along.T @ step).max() < 10.0**-_DECIMALS)


def lowest_dice(rows: Iterable[ComparedResult]) -> float | None:
    """Smallest Dice; None if no mask was compared."""
    return min((one.dice for one in rows if one.dice is not None), default=None)


def write_comparison(path: Path, rows: Iterable[ComparedResult]) -> None:
    """Write a comparison as CSV.

    Parameters
    ----------
    path : Path
        The file.
    rows : iterable of ComparedResult
        Its rows.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([one.name for one in fields(ComparedResult)])
    writer.writerows(["" if value is None else value for value in astuple(one)] for one in rows)
    write_bytes(path, text.getvalue().encode())


def read_comparison(path: Path) -> tuple[ComparedResult, ...]:
    """Read what `write_comparison` wrote."""
    with path.open(encoding="utf-8", newline="") as handle:
        return tuple(
            ComparedResult(
                flow=row["flow"],
                other=row["other"],
                series=row["series"],
                structure=row["structure"],
                quantity=row["quantity"],
                unit=row["unit"],
                old=_number(row["old"]),
                new=_number(row["new"]),
                difference=_number(row["difference"]),
                dice=_number(row["dice"]),
                note=row["note"],
            )
            for row in csv.DictReader(handle)
        )


def _number(text: str) -> float | None:
    return float(text) if text else None

"""The tidy tables ``organs`` and ``cohort_series``: one row per organ of a product, and one per series."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctenrich.errors import CtenrichError
from ctenrich.masks import crop_of
from ctenrich.records import (
    Box,
    Product,
    ProductKind,
    Quantity,
    SegmentMasks,
    SegmentShape,
    ShapeMeasurements,
    Volume,
)
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.treated_side import UNKNOWN, TreatedSide, name_columns
from ctenrich.workspace import load_array, write_bytes

__all__ = ["cohort_rows", "flag_organs", "organ_rows"]

Row = dict[str, Any]

_MEAN = "original_firstorder_Mean"
"""pyradiomics' name of the mean intensity, HU in a CT."""
_LOW_DICE = 0.5
"""Agreement with the expert below which an organ is to be reviewed."""
_FROM_SERIES = (
    "PatientID",
    "StudyInstanceUID",
    "collection_id",
    "StudyDate",
    "age_years",
    "sex",
    "scanner",
    "lung_start",
    "lung_end",
)
"""Columns that the rows of organs repeat from their series."""


# ---------------------------------------------------------------- series


def cohort_rows(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Make the table ``cohort_series`` from the other run tables.

    Parameters
    ----------
    rows : mapping
        Run table -> rows, of ``series``, ``outcomes``, ``objects``, ``landmarks`` and ``slices`` at least.

    Returns
    -------
    list of dict
        One row per series, in the order of the table ``series``.
    """
    ends = _lung_ends(rows["landmarks"])
    outcomes = {r["SeriesInstanceUID"]: r for r in rows["outcomes"] if not r["product"]}
    objects: dict[str, int] = defaultdict(int)
    for row in rows["objects"]:
        objects[row["SeriesInstanceUID"]] += 1
    return [
        _cohort_row(
            series,
            outcomes.get(series["SeriesInstanceUID"], {}),
            ends.get(series["SeriesInstanceUID"], {}),
            objects[series["SeriesInstanceUID"]],
        )
        for series in rows["series"]
    ]


def _cohort_row(series: Row, outcome: Row, ends: Mapping[str, float | None], objects: int) -> Row:
    start, end = ends.get("lung_start"), ends.get("lung_end")
    scanner = " ".join(filter(None, (series.get("Manufacturer"), series.get("ManufacturerModelName"))))
    return {
        **{name: series.get(name) for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "collection_id")},
        **{name: series.get(name) for name in ("StudyDate", "age_years", "SeriesDescription", "ConvolutionKernel")},
        **{name: series.get(name) for name in ("slices", "slice_spacing", "SliceThickness", "body_part_examined")},
        "sex": series.get("PatientSex"),
        "scanner": scanner or None,
        "lung_start": start is not None if ends else None,
        "lung_end": end is not None if ends else None,
        "treated_side": series.get("treated_side") or None,
        "treated_side_source": series.get("treated_side_source") or None,
        "lung_height_mm": abs(end - start) if start is not None and end is not None else None,
        "state": outcome.get("state"),
        "reason": outcome.get("reason") or None,
        "objects": objects,
    }


def _lung_ends(landmarks: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Positions of both ends of the lungs, mm; None where a body part model scored the series and found no slice."""
    found: dict[str, dict[str, float | None]] = defaultdict(dict)
    for row in landmarks:
        if row["landmark"] in ("lung_start", "lung_end"):
            ends = found[row["SeriesInstanceUID"]]
            position = row["position"] if row["slice_index"] is not None else None
            ends[row["landmark"]] = position if position is not None else ends.get(row["landmark"])
    return found


# ---------------------------------------------------------------- organs


def organ_rows(store: SeriesStore, uid: str, products: Sequence[Product], treated: TreatedSide = UNKNOWN) -> list[Row]:
    """Make the rows of ``organs`` of one series, without the columns of the series and the flags.

    Parameters
    ----------
    store : SeriesStore
        Records of the run.
    uid : str
        Series Instance UID.
    products : sequence of Product
        The products of the series.
    treated : TreatedSide
        Of the series.

    Returns
    -------
    list of dict
        One row per segment that a segmenter can find, absent ones included.
    """
    found = {p: masks for p in products if (masks := store.find_valid(SegmentMasks, uid, p)) is not None}
    expert = next((masks for p, masks in found.items() if p.kind == ProductKind.EXPERT), None)
    volume = store.find_valid(Volume, uid)
    unit = float(np.prod(volume.spacing)) / 1000 if volume else None
    out: list[Row] = []
    for product, masks in found.items():
        shape = store.find_valid(ShapeMeasurements, uid, product)
        shapes = {segment.number: segment for segment in shape.segments} if shape else {}
        agreement = _agreement(store, masks, expert) if expert is not None and masks is not expert else {}
        means = _mean_values(store, masks, volume)
        for segment in masks.segments:
            measured = shapes.get(segment.number)
            out.append(
                {
                    "SeriesInstanceUID": uid,
                    "product": str(product),
                    "organ": segment.name,
                    **name_columns(segment.name, treated),
                    "segment_number": segment.number,
                    "absent": segment.absent,
                    "volume_ml": None if segment.absent else _volume(segment.voxels, unit, measured),
                    "mean_hu": (measured.radiomics.get(_MEAN) if measured else None) or means.get(segment.name),
                    "expert_dice": agreement.get(segment.name),
                }
            )
    return out


def _volume(voxels: int, unit: float | None, measured: SegmentShape | None) -> float | None:
    """mL: voxels times the volume of one, as measured, or counted where nothing was measured."""
    if measured is not None and "VoxelVolume" in measured.values:
        return measured.values["VoxelVolume"] / 1000
    return voxels * unit if unit is not None else None


def _mean_values(store: SeriesStore, masks: SegmentMasks, volume: Volume | None) -> dict[str, float]:
    """Mean Hounsfield unit of every organ, kept beside the masks for the next tables."""
    if volume is None or volume.quantity is not Quantity.HU:
        return {}
    return _kept(
        store.folder(masks.series_instance_uid, masks.product) / "mean_hu.json",
        f"{volume.sha256} {masks.sha256}",
        "mean_hu",
        lambda: _means_of_organs(store, masks, volume),
    )


def _means_of_organs(store: SeriesStore, masks: SegmentMasks, volume: Volume) -> dict[str, float]:
    array = load_array(store.workspace.resolve(volume.series_instance_uid, volume.array_path))
    found = {}
    for segment in masks.segments:
        crop = crop_of(masks, segment.number, store.workspace)
        if crop is not None:
            mask, box = crop
            part = array[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1]
            found[segment.name] = float(part[mask].mean(dtype=np.float64))
    return found


def _agreement(store: SeriesStore, masks: SegmentMasks, expert: SegmentMasks) -> dict[str, float]:
    """Dice of every organ that the expert drew, kept beside the masks for the next tables."""
    return _kept(
        store.folder(masks.series_instance_uid, masks.product) / "expert_dice.json",
        f"{expert.sha256} {masks.sha256}",
        "dice",
        lambda: _dice_of_organs(store, masks, expert),
    )


def _kept(path: Path, key: str, name: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Values of organs that were kept under the hashes of their arrays; computed and kept if there are none."""
    try:
        kept = json.loads(path.read_bytes())
        if kept["masks"] == key:
            return {str(organ): float(value) for organ, value in kept[name].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    try:
        found = compute()
    except (CtenrichError, OSError, ValueError):
        return {}  # an array was removed
    write_bytes(path, json.dumps({"masks": key, name: found}, indent=1, sort_keys=True).encode() + b"\n")
    return found


def _dice_of_organs(store: SeriesStore, masks: SegmentMasks, expert: SegmentMasks) -> dict[str, float]:
    if tuple(masks.shape) != tuple(expert.shape):
        return {}
    numbers = {segment.name: segment.number for segment in masks.segments}
    found = {}
    for drawn in expert.segments:
        if drawn.name in numbers and not drawn.absent:
            ours = crop_of(masks, numbers[drawn.name], store.workspace)
            theirs = crop_of(expert, drawn.number, store.workspace)
            assert theirs is not None
            found[drawn.name] = _dice(ours, theirs) if ours is not None else 0.0
    return found


def _dice(first: tuple[Any, Box], second: tuple[Any, Box]) -> float:
    """Dice of two masks that are cropped to boxes of one grid."""
    (a, p), (b, q) = first, second
    k = max(p.k0, q.k0), min(p.k1, q.k1)
    j = max(p.j0, q.j0), min(p.j1, q.j1)
    i = max(p.i0, q.i0), min(p.i1, q.i1)
    both = 0
    if k[0] < k[1] and j[0] < j[1] and i[0] < i[1]:
        ours = a[k[0] - p.k0 : k[1] - p.k0, j[0] - p.j0 : j[1] - p.j0, i[0] - p.i0 : i[1] - p.i0]
        theirs = b[k[0] - q.k0 : k[1] - q.k0, j[0] - q.j0 : j[1] - q.j0, i[0] - q.i0 : i[1] - q.i0]
        both = int(np.count_nonzero(ours & theirs))
    return 2 * both / (int(np.count_nonzero(a)) + int(np.count_nonzero(b)))


# ---------------------------------------------------------------- flags


def flag_organs(organs: list[Row], cohort: Sequence[Row], issues: Sequence[Row]) -> None:
    """Add the columns of the series, and what there is to review, to the rows of ``organs`` of some series.

    Outliers among the volumes are added when the volumes of the whole cohort are known.

    Parameters
    ----------
    organs : list of dict
        Changed in place.
    cohort : sequence of dict
        Rows of ``cohort_series``.
    issues : sequence of dict
        Rows of ``issues``: warnings and errors of ctenrich's own checks of the product before it was encoded count.
    """
    series = {row["SeriesInstanceUID"]: row for row in cohort}
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for issue in issues:
        if issue["severity"] in ("warning", "error") and issue["stage"] in ("segment", "measure"):
            found[issue["SeriesInstanceUID"], issue["product"]].append(issue)
    names: dict[str, set[str]] = defaultdict(set)
    for row in organs:
        names[row["SeriesInstanceUID"]].add(row["organ"])
    for row in organs:
        others = names[row["SeriesInstanceUID"]] - {row["organ"]}
        row |= {name: series.get(row["SeriesInstanceUID"], {}).get(name) for name in _FROM_SERIES}
        own = [i for i in found[row["SeriesInstanceUID"], row["product"]] if i["object"] not in others]
        reasons = ["absent"] if row["absent"] else []
        dice = row["expert_dice"]
        reasons += [f"Dice {dice:.2f} against the expert"] if dice is not None and dice < _LOW_DICE else []
        reasons += sorted({issue["rule"] for issue in own})
        row |= {"needs_review": bool(reasons), "review_reasons": "; ".join(reasons) or None}

"""The treated side of a series, by its targets and doses, and the sides of organs relative to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ctenrich.codes.describe import side_of
from ctenrich.codes.mappings import codes_of
from ctenrich.records import DoseMeasurements, Product, SegmentMasks, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.evidence import find_side, midline
from ctenrich.structure_names.parse import parse_name
from ctenrich.structure_names.standard import (
    Side,
    StandardName,
    find_standard,
    relative_base,
    standard_name_of,
    standard_names,
    standard_of,
)

__all__ = [
    "UNKNOWN",
    "RelativeSide",
    "TreatedSide",
    "combine_sides",
    "dose_side",
    "find_treated_side",
    "midline_of",
    "name_columns",
    "relative_side",
    "target_side",
]

_TARGETS = ("PTV", "CTV", "ITV", "GTV")
"""Kinds of targets; the first of which a series has ROIs decides."""
_MEAN = "Mean[Gy]"
_SIDED = 1.2
"""Ratio of the mean doses of a pair of organs from which the dose has a side, as for ``dose.side``."""
_WORDS = {Side.LEFT: "Left", Side.RIGHT: "Right"}


class RelativeSide(StrEnum):
    """Side of an organ relative to the treated side."""

    IPSILATERAL = "ipsilateral"
    CONTRALATERAL = "contralateral"


@dataclass(frozen=True, kw_only=True)
class TreatedSide:
    """The side that is treated, and what shows it."""

    side: Side = Side.NONE
    """L or R; empty if it is not known, or if neither side is treated alone."""
    source: str = ""
    """``target and dose``, ``target``, ``dose``, ``target and dose differ``, or empty."""

    @property
    def word(self) -> str:
        """``Left``, ``Right`` or empty."""
        return _WORDS.get(self.side, "")


UNKNOWN = TreatedSide()
"""No treated side."""


def combine_sides(target: str, dose: str) -> TreatedSide:
    """Return the treated side by those of the targets and of the dose.

    Parameters
    ----------
    target : str
        L, R, or empty: no target, or one that crosses the midline.
    dose : str
        The same of the dose.

    Returns
    -------
    TreatedSide
        Without a side if the two differ: nothing is guessed.
    """
    if target and dose and target != dose:
        return TreatedSide(source="target and dose differ")
    source = "target and dose" if target and dose else "target" if target else "dose" if dose else ""
    return TreatedSide(side=Side(target or dose), source=source)


def find_treated_side(store: SeriesStore, series_instance_uid: str, products: Iterable[Product]) -> TreatedSide:
    """Find the treated side of a series in the records of a run.

    Parameters
    ----------
    store : SeriesStore
        Records of the run.
    series_instance_uid : str
        Of the CT.
    products : iterable of Product
        Those of the series; their targets and doses are used.

    Returns
    -------
    TreatedSide
    """
    wanted = tuple(products)
    series = store.find_valid(SortedSeries, series_instance_uid)
    found = [store.find_valid(SegmentMasks, series_instance_uid, product) for product in wanted]
    masks = [one for one in found if one is not None]
    target = target_side(masks, series) if series is not None else ""
    doses = [store.find_valid(DoseMeasurements, series_instance_uid, product) for product in wanted]
    return combine_sides(target, dose_side([one for one in doses if one is not None]))


def target_side(masks: Sequence[SegmentMasks], series: SortedSeries) -> str:
    """Return the side of the targets: the PTVs, else the CTVs, ITVs or GTVs, all of a kind together.

    The voxels of a target count as if they were spread evenly over its box, so that the records suffice.

    Parameters
    ----------
    masks : sequence of SegmentMasks
        Of the products of a series.
    series : SortedSeries
        Gives the direction of the columns.

    Returns
    -------
    str
        L or R of the patient; empty without a target, and if the targets are on both sides or at the midline.
    """
    step = series.row_cosines[0] * series.pixel_spacing[1]
    for kind in _TARGETS:
        counts = np.zeros(series.columns)
        for one in masks:
            for segment in one.segments:
                box = segment.box
                if box is not None and parse_name(segment.source_label or segment.name).target == kind:
                    counts[box.i0 : box.i1] += segment.voxels / (box.i1 - box.i0)
        if counts.any():
            return find_side(counts, column_step=step, middle=midline_of(masks, series.columns))
    return ""


def midline_of(masks: Iterable[SegmentMasks], columns: int) -> float:
    """Return the column of the patient's midline by the boxes of organs, see :func:`evidence.midline`.

    Parameters
    ----------
    masks : iterable of SegmentMasks
        Of the products of a series.
    columns : int
        Columns of the images.
    """
    centres = {
        segment.name: (segment.box.i0 + segment.box.i1 - 1) / 2
        for one in masks
        for segment in one.segments
        if segment.box is not None
    }
    return midline(centres, columns)


def dose_side(doses: Iterable[DoseMeasurements]) -> str:
    """Return the side of the dose, by the pair of organs that gets the highest mean dose.

    Parameters
    ----------
    doses : iterable of DoseMeasurements
        Of the products of a series.

    Returns
    -------
    str
        L or R where the mean dose of one side is at least 1.2 times that of the other; else empty.
    """
    means: dict[tuple[str, str], dict[str, float]] = {}
    for one in doses:
        for segment in one.segments:
            standard = find_standard(standard_name_of(segment.name))
            mean = next((value.value for value in segment.values if value.metric == _MEAN), None)
            if standard is not None and standard.side in _WORDS and mean is not None:
                means.setdefault((str(one.product), standard.base), {})[standard.side.value] = mean
    pairs = [pair for pair in means.values() if len(pair) == 2]
    best = max(pairs, key=lambda pair: (max(pair.values()), sorted(pair.items())), default=None)
    if best is None or max(best.values()) < _SIDED * min(best.values()) or not max(best.values()):
        return ""
    return max(best, key=lambda side: best[side])


def relative_side(side: str, treated: TreatedSide) -> RelativeSide | None:
    """Return the side of an organ relative to the treated side; None if one of the two has no side.

    Parameters
    ----------
    side : str
        L or R of the organ; anything else has no side.
    treated : TreatedSide
        Of the series.
    """
    if treated.side not in _WORDS or side not in _WORDS:
        return None
    return RelativeSide.IPSILATERAL if side == treated.side else RelativeSide.CONTRALATERAL


def name_columns(segment: str, treated: TreatedSide) -> Mapping[str, str | None]:
    """Return the columns ``standard_name``, ``laterality`` and ``relative_side`` of a segment.

    Parameters
    ----------
    segment : str
        Name of the segment: a row of mappings/segments.csv, or the name of an ROI.
    treated : TreatedSide
        Of the series.

    Returns
    -------
    dict
        Column -> value. An organ named relative to the treated side (``Lung^Ipsi``) has the side that this means in its
        series; without a treated side it has none.
    """
    name = standard_name_of(segment)
    relative = relative_base(segment)
    if relative is not None:
        own = RelativeSide.IPSILATERAL if relative.ipsilateral else RelativeSide.CONTRALATERAL
        other = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
        side = treated.side if relative.ipsilateral else other.get(treated.side, Side.NONE)
        return {"standard_name": name or None, "laterality": _WORDS.get(side), "relative_side": own.value}
    laterality = _laterality(segment, standard_of(name) if name else None)
    found = relative_side(laterality[:1], treated)
    return {
        "standard_name": name or None,
        "laterality": laterality or None,
        "relative_side": found.value if found is not None else None,
    }


def _laterality(segment: str, standard: StandardName | None) -> str:
    code = codes_of(segment)
    coded = side_of(code) if code is not None else ""
    if coded or standard is None or standard.name not in standard_names():
        return coded
    return _WORDS.get(standard.side, "")

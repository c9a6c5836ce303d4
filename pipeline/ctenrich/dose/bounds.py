"""Dose metrics with the bounds that follow from the sampling of the structure and from the steepness of the dose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctenrich.dose.grid import DoseSampler
from ctenrich.dose.metrics import DoseSamples, Metric, lower_bound_of_incomplete, metric_value
from ctenrich.dose.sampling import (
    Refinement,
    Region,
    SamplingRule,
    divide_pixels,
    planes_of,
    refine_region,
    sample_dose,
    sorted_samples,
)
from ctenrich.reasons import Reason

__all__ = ["BoundedValue", "SampledStructure", "bounded_values", "sample_structure"]

Floats = NDArray[np.float64]

_UNIFORM_DEVIATION = 12**-0.5
"""Standard deviation of a number that is uniform between 0 and 1."""
_MOST_SAMPLES = 16_000_000
"""Samples of the half step, beyond which only the steps along the normal are halved."""


@dataclass(frozen=True, kw_only=True)
class BoundedValue:
    """A metric of a structure."""

    metric: Metric
    value: float | None
    """None where the metric has no value: see `reason`."""
    lower: float | None
    """What the metric has at least; None where it is not known."""
    upper: float | None
    """What the metric has at most; None where it is not known."""
    reason: Reason | None = None


class _Ends(NamedTuple):
    """Volumes that a structure may have, mm3."""

    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class SampledStructure:
    """Doses in a structure, and in the variants of it that bound its metrics."""

    samples: DoseSamples
    refinement: Refinement
    step: tuple[float, float, float]
    """mm between sampling points along (normal, column direction, row direction)."""
    half_step: DoseSamples | None = None
    """At half the step; None where no bounds are asked for."""
    short_ends: DoseSamples | None = None
    """With half of the first and of the last slice."""
    colder: tuple[DoseSamples, ...] = ()
    """Every sample with the lowest dose within half a step of it; its ends whole, shortened and extended."""
    hotter: tuple[DoseSamples, ...] = ()
    """Every sample with the highest dose within half a step of it; likewise."""
    shift: float = 0.0
    """Gy by which the mean changes at most where the structure is moved by half a step along each axis."""
    ends: _Ends = field(default_factory=lambda: _Ends(0.0, 0.0))


def sample_structure(
    region: Region, sampler: DoseSampler, rule: SamplingRule, *, bounds: bool = True
) -> SampledStructure:
    """Sample the dose in a structure.

    Parameters
    ----------
    region : Region
        On whole voxels.
    sampler : DoseSampler
        Of planes with the region's orientation.
    rule : SamplingRule
    bounds : bool
        Whether to sample the variants that bound the metrics.

    Returns
    -------
    SampledStructure
    """
    fine, refinement = refine_region(region, rule)
    thickness = float(region.thickness.max(initial=0.0))
    step = (thickness / refinement.within_slice, *fine.pixel)
    if not bounds or not fine.mask.any():
        samples = sample_dose(fine, sampler, refinement.within_slice)
        return SampledStructure(samples=samples, refinement=refinement, step=step)
    found = _Variants(fine, sampler, refinement.within_slice)
    count = int(np.count_nonzero(region.mask)) * refinement.parts
    halved = count * 8 <= _MOST_SAMPLES
    finer = divide_pixels(region, 2 * refinement.rows, 2 * refinement.columns) if halved else fine
    half = sample_dose(finer, sampler, 2 * refinement.within_slice, dtype=np.float32)
    volume = found.samples.volume
    width = max(_end_volume(region), abs(half.volume - volume)) + _pixel_volume(fine)
    return SampledStructure(
        samples=found.samples,
        refinement=refinement,
        step=step,
        half_step=half,
        short_ends=found.short_ends,
        colder=found.colder,
        hotter=found.hotter,
        shift=found.shift,
        ends=_Ends(max(volume - width, 0.0), volume + width),
    )


class _Variants:
    """Samples of a region, with the lowest and the highest dose within half a step of each."""

    def __init__(self, region: Region, sampler: DoseSampler, within_slice: int) -> None:
        filled = np.flatnonzero(region.mask.any(axis=(1, 2)))
        self._ends = {int(filled[0]), int(filled[-1])}
        doses: list[Floats] = []
        spreads: list[Floats] = []
        sizes: list[float] = []
        ends: list[bool] = []
        outside = 0.0
        moved = np.zeros(3)
        area = region.pixel[0] * region.pixel[1]
        for plane in planes_of(region, within_slice):
            mask = region.mask[plane.slice_index]
            if not mask.any():
                continue
            own = sampler.plane(plane.height, region.lattice)
            steps = _half_steps(own, region, sampler, plane.height)
            found = own[mask]
            known = ~np.isnan(found)
            size = area * plane.part
            outside += (found.size - int(np.count_nonzero(known))) * size
            doses.append(found[known])
            inside = [np.nan_to_num(one[mask][known]) for one in steps]
            spreads.append(np.abs(inside[0]) + np.abs(inside[1]) + np.abs(inside[2]))
            moved += size * np.array([float(one.sum()) for one in inside])
            sizes.append(size)
            ends.append(plane.slice_index in self._ends)
        rounding = 0.5 * sampler.resolution
        short, long = (
            [(part * size if end else size) for size, end in zip(sizes, ends, strict=True)] for part in (0.5, 1.5)
        )
        self.samples, self.short_ends = sorted_samples(doses, [sizes, short], outside)
        cold = [d - s - rounding for d, s in zip(doses, spreads, strict=True)]
        self.colder = sorted_samples(cold, [sizes, short, long], outside)
        hot = [d + s + rounding for d, s in zip(doses, spreads, strict=True)]
        self.hotter = sorted_samples(hot, [sizes, short, long], outside)
        inside_volume = self.samples.inside
        self.shift = float(np.abs(moved).sum() / inside_volume) + rounding if inside_volume else 0.0


def _half_steps(own: Floats, region: Region, sampler: DoseSampler, height: float) -> tuple[Floats, Floats, Floats]:
    """Change of the dose over half a step along (normal, column direction, row direction), signed, [row, column]."""
    normal, down, across = region.boundary
    above, below = (sampler.plane(height + sign * normal, region.lattice) for sign in (1, -1))
    up, low = above - own, own - below
    # the larger change of the two sides; where one side is outside the dose grid, that of the other
    along = np.where(np.isnan(low) | (np.abs(up) >= np.abs(low)), up, low)
    rows = np.gradient(own, axis=0) * (down / region.pixel[0]) if own.shape[0] > 1 else np.zeros_like(own)
    columns = np.gradient(own, axis=1) * (across / region.pixel[1]) if own.shape[1] > 1 else np.zeros_like(own)
    return along, rows, columns


def _end_volume(region: Region) -> float:
    """mm3 by which the volume is uncertain because a structure ends somewhere between two planes.

    Half a slice at either end, with the area there between that of the last plane and that half a step further.
    """
    areas = np.count_nonzero(region.mask, axis=(1, 2)) * (region.pixel[0] * region.pixel[1])
    filled = np.flatnonzero(areas)
    if not filled.size:
        return 0.0
    first, last = int(filled[0]), int(filled[-1])
    total = 0.0
    for end, step in ((first, 1), (last, -1)):
        near = areas[end + step] if first < last else 0.0
        total += 0.5 * float(region.thickness[end]) * (float(areas[end]) + 0.5 * abs(float(areas[end]) - float(near)))
    return total


def _pixel_volume(region: Region) -> float:
    """mm3 by which the volume is uncertain because a pixel is inside or outside as a whole.

    Twice the standard deviation of the area of every slice: the share of a boundary pixel that is inside is uniform
    between 0 and 1, and independent of its neighbours'; slices may all err in the same direction.
    """
    mask = region.mask
    sides = np.count_nonzero(mask[:, 1:] != mask[:, :-1], axis=(1, 2)) + np.count_nonzero(
        mask[:, :, 1:] != mask[:, :, :-1], axis=(1, 2)
    )
    area = region.pixel[0] * region.pixel[1]
    return float(2 * _UNIFORM_DEVIATION * area * (np.sqrt(sides) @ region.thickness))


def bounded_values(sampled: SampledStructure, metrics: Sequence[Metric], maximum: float) -> list[BoundedValue]:
    """Metrics of a sampled structure.

    Parameters
    ----------
    sampled : SampledStructure
    metrics : sequence of Metric
    maximum : float
        Largest dose of the grid, Gy: no interpolated dose is above it.

    Returns
    -------
    list of BoundedValue
        One per metric. A structure that the dose grid does not cover has values only for its volume, and lower bounds
        where one follows.
    """
    return [_bounded(sampled, metric, maximum) for metric in metrics]


def _bounded(sampled: SampledStructure, metric: Metric, maximum: float) -> BoundedValue:
    value = metric_value(sampled.samples, metric)
    if isinstance(value, Reason):
        lower = lower_bound_of_incomplete(sampled.samples, metric) if value is Reason.DOSE_INCOMPLETE else None
        return BoundedValue(metric=metric, value=None, lower=lower, upper=None, reason=value)
    half, short = sampled.half_step, sampled.short_ends
    if half is None or short is None:
        return BoundedValue(metric=metric, value=value, lower=None, upper=None)
    if metric.quantity == "volume":
        return BoundedValue(
            metric=metric, value=value, lower=sampled.ends.lower / 1000, upper=sampled.ends.upper / 1000
        )
    width = max(abs(value - other) for other in _values((half, short), metric, value))
    if metric.quantity == "mean":
        low, high = value - sampled.shift, value + sampled.shift
    else:
        low = min(value, *_values(sampled.colder, metric, value))
        high = max(value, *_values(sampled.hotter, metric, value))
    low, high = low - width, high + width
    ceiling = {"Gy": maximum, "%": 100.0}.get(metric.unit, float("inf"))
    return BoundedValue(metric=metric, value=value, lower=max(low, 0.0), upper=max(min(high, ceiling), value))


def _values(variants: Sequence[DoseSamples], metric: Metric, otherwise: float) -> list[float]:
    """Metric of every variant; `otherwise` for one that is too small for it."""
    out = []
    for one in variants:
        value = metric_value(one, metric)
        out.append(otherwise if isinstance(value, Reason) else value)
    return out

"""Add doses and multiply them by factors: on one grid, in float64, independent of their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctenrich.dose.choice import ChosenDoses, ScaledDose
from ctenrich.dose.grid import DoseGrid, DoseSampler, Lattice
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason

__all__ = ["CombinedDose", "combine_doses", "quantise"]

Floats = NDArray[np.float64]

_BOUNDARY = 0.01
"""Share of its maximum that a dose may have at the boundary of its grid to count as zero beyond."""
_DIGITS = 10
_STORED = 2**32 - 1
_LARGEST = 2**28
_SAME = 1e-4
"""mm by which the voxels of two grids may differ to be the same."""


@dataclass(frozen=True, kw_only=True)
class CombinedDose:
    """A sum of doses."""

    grid: DoseGrid
    """Quantised: 32-bit values with the scaling that is written."""
    scaling: str
    """Dose Grid Scaling, at most 16 characters (VR DS)."""
    sources: tuple[ScaledDose, ...]
    notes: tuple[str, ...]


class _Span(NamedTuple):
    low: Floats
    high: Floats


def combine_doses(chosen: ChosenDoses) -> CombinedDose:
    """Add doses, each multiplied by its factor.

    The result is on the grid with the smallest voxels, extended to the extents of all doses at the finest spacing of
    every axis; one dose, or doses of one grid, keep their grid. Outside its grid a dose counts as zero only where it is
    below 1 % of its maximum on the whole boundary; otherwise the result is cut to that grid, so that no dose is missing
    anywhere in it.

    Parameters
    ----------
    chosen : ChosenDoses

    Returns
    -------
    CombinedDose
        The same for every order of the doses.

    Raises
    ------
    InputError
        DOSE_OFFSETS for a single frame, DOSE_OTHER_FRAME where the grids do not overlap, DOSE_VALUES where the sum is
        zero.
    UnsafeInputError
        DECOMPRESSION_BOMB where the grid of the sum would be larger than any dose.
    """
    doses = sorted(chosen.doses, key=lambda one: one.uid)
    if any(min(one.dose.grid.shape) < 2 for one in doses):
        raise InputError(Reason.DOSE_OFFSETS, "a dose has a single plane, row or column")
    notes = list(chosen.notes)
    first = doses[0].dose.grid
    if all(_same_grid(one.dose.grid, first) for one in doses):
        total = np.zeros(first.shape)
        for one in doses:
            total += float(one.factor) * one.dose.grid.values()
        target = first
    else:
        target = _target(doses, notes)
        total = np.zeros(target.shape)
        lattice = Lattice(target.coordinates[2], target.coordinates[1])
        for one in doses:
            sampler = DoseSampler(one.dose.grid, np.asarray(target.row), np.asarray(target.column))
            for k, height in enumerate(target.coordinates[0].tolist()):
                total[k] += float(one.factor) * np.nan_to_num(sampler.plane(height, lattice))
    stored, scaling = quantise(total)
    grid = DoseGrid(
        stored=stored,
        scaling=float(scaling),
        origin=target.origin,
        row=target.row,
        column=target.column,
        pixel_spacing=target.pixel_spacing,
        offsets=target.offsets,
    )
    return CombinedDose(grid=grid, scaling=scaling, sources=tuple(doses), notes=tuple(notes))


def quantise(dose: Floats) -> tuple[NDArray[np.uint32], str]:
    """Store doses in 32 bits.

    Parameters
    ----------
    dose : array
        Gy, not negative.

    Returns
    -------
    stored : array of uint32
    scaling : str
        Dose Grid Scaling with at most 16 characters, rounded up before the values are divided by it: no value is off
        by more than half of it.

    Raises
    ------
    InputError
        DOSE_VALUES where all doses are zero.
    """
    top = float(dose.max())
    if not top > 0:
        raise InputError(Reason.DOSE_VALUES, "the sum of the doses is zero")
    exact = Decimal(top) / _STORED
    step = Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1)
    scaling = f"{exact.quantize(step, rounding=ROUND_UP):.{_DIGITS - 1}e}"
    assert len(scaling) <= 16
    stored = np.rint(dose / float(scaling))
    return np.minimum(stored, _STORED).astype(np.uint32), scaling


def _same_grid(one: DoseGrid, other: DoseGrid) -> bool:
    if one.shape != other.shape or not np.allclose(one.axes, other.axes, atol=1e-6):
        return False
    pairs = zip((*one.coordinates,), (*other.coordinates,), strict=True)
    return all(float(np.abs(a - b).max()) <= _SAME for a, b in pairs)


def _target(doses: Sequence[ScaledDose], notes: list[str]) -> DoseGrid:
    """Grid of the sum: that of the smallest voxels, with the finest spacings, over all extents."""
    grids = [one.dose.grid for one in doses]
    finest = min(grids, key=lambda grid: round(float(np.prod(grid.spacing)), 6))
    spans = [_span(grid, finest) for grid in grids]
    low = np.min([span.low for span in spans], axis=0)
    high = np.max([span.high for span in spans], axis=0)
    for one, span in zip(doses, spans, strict=True):
        share = _boundary_share(one.dose.grid)
        if share >= _BOUNDARY and ((span.low > low + _SAME).any() or (span.high < high - _SAME).any()):
            notes.append(
                f"dose {one.uid} has {100 * share:.1f} % of its maximum at the boundary of its grid: "
                "the sum is cut to that grid"
            )
            low, high = np.maximum(low, span.low), np.minimum(high, span.high)
    spacing = np.min([_spacing_along(grid, finest) for grid in grids], axis=0)
    start = np.array([places[0] for places in finest.coordinates])
    below = np.floor((start - low) / spacing + 1e-6)
    above = np.floor((high - start) / spacing + 1e-6)
    counts = (above + below + 1).astype(int)
    if (counts < 2).any():
        raise InputError(Reason.DOSE_OTHER_FRAME, "the grids of the doses do not overlap")
    if int(np.prod(counts)) > _LARGEST:
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"the sum would have {int(np.prod(counts))} voxels")
    corner = (start - below * spacing) @ finest.axes
    return DoseGrid(
        stored=np.zeros(tuple(counts.tolist()), np.uint8),
        scaling=1.0,
        origin=(float(corner[0]), float(corner[1]), float(corner[2])),
        row=finest.row,
        column=finest.column,
        pixel_spacing=(float(spacing[1]), float(spacing[2])),
        offsets=tuple((spacing[0] * np.arange(counts[0])).tolist()),
    )


def _span(grid: DoseGrid, frame: DoseGrid) -> _Span:
    """Extent of a grid along the axes of another one, (3,) each."""
    ends = [[places[0], places[-1]] for places in grid.coordinates]
    corners = np.array([[k, j, i] for k in ends[0] for j in ends[1] for i in ends[2]]) @ grid.axes
    along = corners @ frame.axes.T
    return _Span(along.min(axis=0), along.max(axis=0))


def _spacing_along(grid: DoseGrid, frame: DoseGrid) -> Floats:
    """Spacing of a grid along the axis of another one that is nearest to each of its own."""
    nearest = np.abs(frame.axes @ grid.axes.T).argmax(axis=1)
    spacing: Floats = np.asarray(grid.spacing)[nearest]
    return spacing


def _boundary_share(grid: DoseGrid) -> float:
    """Largest value on the boundary of a grid, as a share of its maximum."""
    stored = grid.stored
    faces = (stored[0], stored[-1], stored[:, 0], stored[:, -1], stored[:, :, 0], stored[:, :, -1])
    return max(float(face.max()) for face in faces) / float(stored.max())

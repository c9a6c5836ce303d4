"""A phantom as arrays: HU, ground truth masks and landmark positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctenrich.phantom.anatomy import SEGMENTS, Canvas, paint_body
from ctenrich.phantom.grid import Grid, make_grid
from ctenrich.phantom.options import PhantomOptions
from ctenrich.phantom.patient import SCORES, Patient, draw_patient

__all__ = ["Phantom", "make_phantom"]


@dataclass(frozen=True, eq=False)
class Phantom:
    """A generated chest CT with its truth."""

    options: PhantomOptions
    array: npt.NDArray[np.int16]
    """HU, axes [slice k, row j, column i]; k grows along row x column."""
    labels: npt.NDArray[np.uint8]
    """Truth on the same grid: 0, or the place in `SEGMENTS` from 1. Truth does not overlap."""
    affine_lps: npt.NDArray[np.float64]
    """(i, j, k, 1) of voxel centres -> mm, LPS."""
    positions: npt.NDArray[np.float64]
    """Centre of the first pixel of every slice, shape (slices, 3), mm, LPS."""
    landmarks: dict[str, float]
    """Patient z (mm, LPS) of every landmark inside the field of view, from feet to head."""
    grid: Grid
    patient: Patient

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Truth by segment name, each of the array's shape."""
        return {name: self.labels == number for number, name in enumerate(SEGMENTS, start=1)}

    def score(self, z: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """True body part regression score at a patient z (mm): linear between the landmarks, and beyond them."""
        known = self.patient.landmarks()
        heights, scores = np.array(list(known.values())), np.array([SCORES[name] for name in known])
        places = np.asarray(z, dtype=float)
        slope = (scores[-1] - scores[0]) / (heights[-1] - heights[0])
        inside = np.interp(places, heights, scores)
        beyond = np.minimum(places - heights[0], 0) + np.maximum(places - heights[-1], 0)
        return np.asarray(inside + beyond * slope)


def make_phantom(options: PhantomOptions) -> Phantom:
    """Generate the phantom of these options.

    Returns
    -------
    Phantom
        Array int16 [k, j, i] in HU, truth, affine (mm, LPS) and landmarks.
    """
    grid, patient = make_grid(options), draw_patient(options)
    canvas = Canvas(grid, patient)
    paint_body(canvas)
    hu = _blur_in_plane(canvas.hu)
    noise = np.random.default_rng([options.seed, 2]).standard_normal(grid.shape, dtype=np.float32)
    hu += noise * np.float32(patient.noise)
    array = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return Phantom(
        options, array, canvas.labels, grid.affine_lps, grid.positions, _visible_landmarks(grid, patient), grid, patient
    )


def _blur_in_plane(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Smooth within the slices, as a reconstruction kernel does (weights 1 2 1)."""
    for axis in (1, 2):
        if hu.shape[axis] < 3:
            continue
        moved = np.moveaxis(hu, axis, 2)
        inner = (moved[..., :-2] + moved[..., 2:]) * np.float32(0.25) + moved[..., 1:-1] * np.float32(0.5)
        moved[..., 1:-1] = inner
    return hu


def _visible_landmarks(grid: Grid, patient: Patient) -> dict[str, float]:
    last = np.array(grid.shape[::-1]) - 1
    corners = [
        grid.origin[2] + a * grid.along_row[2] + b * grid.along_column[2] + c * grid.step[2]
        for a in (0, last[0])
        for b in (0, last[1])
        for c in (0.0, grid.offsets[-1])
    ]
    low, high = min(corners), max(corners)
    return {name: z for name, z in patient.landmarks().items() if low <= z <= high}

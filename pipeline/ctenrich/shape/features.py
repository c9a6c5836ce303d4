"""Shape features from a mask's primitives, or the reason why one is undefined."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SHAPE_FEATURES", "ShapePrimitives", "shape_features"]


@dataclass(frozen=True)
class ShapePrimitives:
    """Measurements of one mask from which all shape features are computed."""

    voxels: int
    voxel_volume: float
    """mm3 of one voxel."""
    area: float
    """Of the surface, mm2."""
    volume: float
    """Enclosed by the surface, mm3."""
    diameter: float
    """Largest distance between two vertices of the surface, mm."""
    plane_diameters: tuple[float, float, float]
    """The same within planes of one slice, one row, one column, mm."""
    variances: tuple[float, float, float]
    """Of the voxel centres along their principal axes, mm2, from small to large."""
    dimensions: int
    """That the voxel centres span: 0 point, 1 line, 2 plane, 3 body."""


def _axis_length(b: ShapePrimitives, rank: int) -> float:
    return 4 * math.sqrt(max(b.variances[rank], 0.0))


def _axis_ratio(b: ShapePrimitives, rank: int) -> float:
    return math.sqrt(max(b.variances[rank], 0.0) / b.variances[2])


def _sphere_area(b: ShapePrimitives) -> float:
    """Surface of the sphere of the same volume, mm2."""
    return float((36 * math.pi * b.volume**2) ** (1 / 3))


_FORMULAS: dict[str, Callable[[ShapePrimitives], float]] = {
    "Elongation": lambda b: _axis_ratio(b, 1),
    "Flatness": lambda b: _axis_ratio(b, 0),
    "LeastAxisLength": lambda b: _axis_length(b, 0),
    "MajorAxisLength": lambda b: _axis_length(b, 2),
    "Maximum3DDiameter": lambda b: b.diameter,
    "MeshVolume": lambda b: b.volume,
    "MinorAxisLength": lambda b: _axis_length(b, 1),
    "Sphericity": lambda b: _sphere_area(b) / b.area,
    "SurfaceArea": lambda b: b.area,
    "SurfaceVolumeRatio": lambda b: b.area / b.volume,
    "VoxelVolume": lambda b: b.voxels * b.voxel_volume,
    "Compactness1": lambda b: b.volume / (b.area**1.5 * math.sqrt(math.pi)),
    "Compactness2": lambda b: 36 * math.pi * b.volume**2 / b.area**3,
    "SphericalDisproportion": lambda b: b.area / _sphere_area(b),
    "Maximum2DDiameterSlice": lambda b: b.plane_diameters[0],
    "Maximum2DDiameterColumn": lambda b: b.plane_diameters[1],
    "Maximum2DDiameterRow": lambda b: b.plane_diameters[2],
}

SHAPE_FEATURES: tuple[str, ...] = tuple(_FORMULAS)
"""pyradiomics' names of the 14 features and the three diameters in planes."""

EMPTY = "the segment has no voxel"
_NEEDS = {"Elongation": 2, "Flatness": 3, "LeastAxisLength": 3, "MajorAxisLength": 1, "MinorAxisLength": 2}
_NEEDS_VOLUME = ("SurfaceVolumeRatio", "Sphericity", "Compactness1", "Compactness2", "SphericalDisproportion")
_FLAT = (
    "one voxel has no axes",
    "all voxels lie on one line",
    "all voxels lie in one plane",
)


def shape_features(primitives: ShapePrimitives | None) -> tuple[dict[str, float], dict[str, str]]:
    """Values of the features, and why the others have none.

    A mask in one plane has no least axis, one on a line only a major one, a single voxel none. The mesh of a mask
    whose voxels touch only along edges may enclose no volume: ratios with it are undefined.

    Parameters
    ----------
    primitives : ShapePrimitives or None
        None for an empty segment.

    Returns
    -------
    (dict, dict)
        Feature -> finite value, in the units of mappings/features.csv; feature -> reason.
    """
    values: dict[str, float] = {}
    omitted: dict[str, str] = {}
    for name, formula in _FORMULAS.items():
        reason = _why_undefined(name, primitives)
        if reason:
            omitted[name] = reason
            continue
        assert primitives is not None
        values[name] = formula(primitives)
    return values, omitted


def _why_undefined(name: str, b: ShapePrimitives | None) -> str:
    if b is None:
        return EMPTY
    if b.dimensions < _NEEDS.get(name, 0):
        return _FLAT[b.dimensions]
    if name in _NEEDS_VOLUME and not b.volume > 0:
        return "the surface mesh encloses no volume"
    return ""

"""Formulas of the shape features from a mask's primitives, worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ctenrich.shape.features import SHAPE_FEATURES, ShapePrimitives, shape_features

UNIT = ShapePrimitives(
    voxels=50,
    voxel_volume=2.0,
    area=94.0,
    volume=60.0,
    diameter=7.0,
    plane_diameters=(5.0, 4.0, 3.0),
    variances=(1.0, 4.0, 9.0),
    dimensions=3,
)


def test_formulas() -> None:
    values, omitted = shape_features(UNIT)
    assert omitted == {}
    assert tuple(values) == SHAPE_FEATURES
    sphere = (36 * math.pi * 60.0**2) ** (1 / 3)
    wanted = {
        "VoxelVolume": 100.0, "MeshVolume": 60.0, "SurfaceArea": 94.0, "SurfaceVolumeRatio": 94 / 60,
        "Sphericity": sphere / 94, "SphericalDisproportion": 94 / sphere, "Maximum3DDiameter": 7.0,
        "Maximum2DDiameterSlice": 5.0, "Maximum2DDiameterColumn": 4.0, "Maximum2DDiameterRow": 3.0,
        "LeastAxisLength": 4.0, "MinorAxisLength": 8.0, "MajorAxisLength": 12.0, "Elongation": 2 / 3, "Flatness": 1 / 3,
        "Compactness1": 60 / (94**1.5 * math.sqrt(math.pi)), "Compactness2": 36 * math.pi * 60**2 / 94**3,
    }  # fmt: skip
    assert values == pytest.approx(wanted)


def test_a_sphere_has_sphericity_one() -> None:
    r = 3.0
    sphere = replace(UNIT, area=4 * math.pi * r**2, volume=4 / 3 * math.pi * r**3)
    values, _ = shape_features(sphere)
    assert values["Sphericity"] == pytest.approx(1)
    assert values["SphericalDisproportion"] == pytest.approx(1)
    assert values["Compactness2"] == pytest.approx(1)
    assert values["Compactness1"] == pytest.approx(1 / (6 * math.pi))


@pytest.mark.parametrize(
    ("dimensions", "missing"),
    [
        (3, set()),
        (2, {"LeastAxisLength", "Flatness"}),
        (1, {"LeastAxisLength", "Flatness", "MinorAxisLength", "Elongation"}),
        (0, {"LeastAxisLength", "Flatness", "MinorAxisLength", "Elongation", "MajorAxisLength"}),
    ],
)
def test_axes_that_a_flat_mask_does_not_have(dimensions: int, missing: set[str]) -> None:
    values, omitted = shape_features(replace(UNIT, dimensions=dimensions))
    assert set(omitted) == missing
    assert set(values) == set(SHAPE_FEATURES) - missing


@pytest.mark.parametrize("volume", [0.0, -1e-9])
def test_a_mesh_without_volume_has_no_ratios(volume: float) -> None:
    values, omitted = shape_features(replace(UNIT, volume=volume))
    assert set(omitted) == {
        "SurfaceVolumeRatio", "Sphericity", "Compactness1", "Compactness2", "SphericalDisproportion",
    }  # fmt: skip
    assert values["MeshVolume"] == volume


def test_an_empty_segment_has_no_feature() -> None:
    values, omitted = shape_features(None)
    assert values == {}
    assert set(omitted) == set(SHAPE_FEATURES)

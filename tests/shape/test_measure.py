"""Shape features: the fast engine against pyradiomics, against IBSI, against solids that can be worked out."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import need_package

from ctenrich.errors import UsageError
from ctenrich.masks import bounding_box, masks_from_label_map
from ctenrich.records import Product, ProductKind, SegmentMasks, Volume
from ctenrich.settings import MeasureSettings, Settings
from ctenrich.shape.engine import measure_primitives
from ctenrich.shape.features import SHAPE_FEATURES, shape_features
from ctenrich.shape.measure import measure_mask, measure_shape

DIAMETERS = ("Maximum3DDiameter", "Maximum2DDiameterSlice", "Maximum2DDiameterColumn", "Maximum2DDiameterRow")


def crop(mask: np.ndarray) -> np.ndarray:
    box = bounding_box(mask)
    assert box is not None
    return mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1]


def features(mask: np.ndarray, spacing, engine: str = "fast") -> dict[str, float]:
    return shape_features(measure_mask(crop(mask), tuple(spacing), engine))[0]


def compare(mask: np.ndarray, spacing, relative: float = 1e-9) -> None:
    """Both engines: the same features, the same numbers, the diameters to the bit."""
    fast, slow = features(mask, spacing), features(mask, spacing, "pyradiomics")
    assert fast.keys() == slow.keys()
    for name, value in fast.items():
        if name in DIAMETERS:
            assert value == slow[name], name
        else:
            assert value == pytest.approx(slow[name], rel=relative), name


def blob(rng: np.random.Generator, shape) -> np.ndarray:
    """A smooth random body, sometimes in pieces."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal(shape), rng.uniform(0.6, 2.5, 3))
    return field > np.quantile(field, rng.uniform(0.3, 0.95))


def test_300_random_anisotropic_masks_equal_pyradiomics():
    need_package("pyradiomics", "radiomics")
    rng = np.random.default_rng(20240501)
    for number in range(300):
        shape = rng.integers(1, 15, 3)
        mask = rng.random(shape) < rng.uniform(0.05, 0.95) if number % 2 else blob(rng, shape + 6)
        if mask.any():
            compare(mask, rng.uniform(0.3, 5.0, 3))


def test_masks_of_one_voxel_a_line_and_a_plane_leave_out_what_is_undefined():
    box = np.zeros((4, 5, 6), bool)
    box[2, 3, 1] = True
    _, omitted = shape_features(measure_mask(crop(box), (3, 1, 1)))
    assert set(omitted) == {"Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength", "MinorAxisLength"}
    assert set(omitted.values()) == {"one voxel has no axes"}
    box[2, 3, 1:5] = True
    _, omitted = shape_features(measure_mask(crop(box), (3, 1, 1)))
    assert set(omitted) == {"Elongation", "Flatness", "LeastAxisLength", "MinorAxisLength"}
    assert set(omitted.values()) == {"all voxels lie on one line"}
    box[2] = True
    _, omitted = shape_features(measure_mask(crop(box), (3, 1, 1)))
    assert omitted == dict.fromkeys(("Flatness", "LeastAxisLength"), "all voxels lie in one plane")
    slanted = np.zeros((3, 3, 3), bool)
    for n in range(3):
        slanted[n, n, :] = True
    _, omitted = shape_features(measure_mask(slanted, (3, 1.1, 0.7)))
    assert set(omitted) == {"Flatness", "LeastAxisLength"}


@pytest.mark.parametrize("engine", ["fast", "pyradiomics"])
def test_no_value_is_ever_nan(engine):
    rng = np.random.default_rng(7)
    for shape in [(1, 1, 1), (1, 1, 4), (1, 3, 4), (3, 1, 4), (2, 2, 2), (1, 7, 1)]:
        for _ in range(20):
            mask = rng.random(shape) < 0.6
            if not mask.any():
                continue
            values, omitted = shape_features(measure_mask(crop(mask), (2.5, 0.9, 0.8), engine))
            assert all(math.isfinite(v) for v in values.values())
            assert set(values) | set(omitted) == set(SHAPE_FEATURES)


def test_ratios_with_a_volume_that_is_not_positive_are_left_out():
    """pyradiomics' mesh is open where voxels touch along an edge only: its volume is no promise."""
    found = measure_mask(np.ones((2, 3, 4), bool), (1.0, 1.0, 1.0))
    for volume in (0.0, -1.5):
        values, omitted = shape_features(replace(found, volume=volume))
        assert set(omitted) == {
            "Compactness1",
            "Compactness2",
            "SphericalDisproportion",
            "Sphericity",
            "SurfaceVolumeRatio",
        }
        assert values["MeshVolume"] == volume


def test_the_feature_extractor_crops_as_we_do():
    """The mesh volume of an open surface depends on the crop, so the crop is part of the definition."""
    need_package("pyradiomics", "radiomics")
    import SimpleITK
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    mask = np.random.default_rng(5).random((9, 10, 11)) < 0.4
    spacing = (2.5, 1.25, 0.75)
    image = SimpleITK.GetImageFromArray(np.pad(mask, ((4, 3), (2, 6), (5, 1))).astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    extractor = RadiomicsFeatureExtractor(additionalInfo=False)
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(shape=list(SHAPE_FEATURES))
    result = extractor.execute(SimpleITK.Cast(image, SimpleITK.sitkFloat32), image)
    for name, value in features(mask, spacing).items():
        assert value == pytest.approx(float(result[f"original_shape_{name}"]), rel=1e-12), name


def test_a_box_and_a_sphere_come_near_geometry():
    box = features(np.ones((10, 20, 30), bool), (2.0, 1.0, 0.5))
    assert box["VoxelVolume"] == 20 * 20 * 15
    assert box["MeshVolume"] == pytest.approx(20 * 20 * 15, rel=0.02)
    assert box["Maximum3DDiameter"] == pytest.approx(math.sqrt(20**2 + 20**2 + 15**2), rel=0.03)
    k, j, i = np.mgrid[-20:21, -40:41, -40:41]
    ball = features((k * 2.0) ** 2 + j**2 + i**2 < 30**2, (2.0, 1.0, 1.0))
    assert ball["MeshVolume"] == pytest.approx(4 / 3 * math.pi * 30**3, rel=0.01)
    assert 0.88 < ball["Sphericity"] < 1  # a stepped surface is larger than a smooth one
    assert ball["Maximum3DDiameter"] == pytest.approx(60, abs=2)
    for name in ("MajorAxisLength", "MinorAxisLength", "LeastAxisLength"):
        assert ball[name] == pytest.approx(4 * 30 / math.sqrt(5), rel=0.01)


# ---------------------------------------------------------------- the stage


def volume_of(shape, spacing=(3.0, 0.9, 0.8)) -> Volume:
    affine = ((0.8, 0, 0, 0), (0, 0.9, 0, 0), (0, 0, 3.0, 0), (0, 0, 0, 1))
    return Volume("2.25.3", "volume/ct.npy", shape, affine, spacing, "2.25.4", "")


def label_masks(workspace) -> SegmentMasks:
    labels = np.zeros((8, 20, 20), np.uint8)
    labels[2:6, 4:12, 5:15] = 1
    labels[0, 0, 0] = 3
    template = SegmentMasks(Product(ProductKind.NNUNET, "m", "2d", ("0",)), "2.25.3", labels.shape, (), None, "")
    path = workspace.product_dir("2.25.3", template.product) / "masks" / "labels.npy"
    names = [(1, "heart", "heart"), (2, "aorta", "aorta"), (3, "trachea", "trachea")]
    return masks_from_label_map(labels, names, template, path, workspace)


@pytest.mark.parametrize("engine", ["fast", "pyradiomics"])
def test_the_stage_measures_all_segments_absent_ones_too(workspace, engine):
    settings = replace(Settings(), measure=MeasureSettings(engine=engine))
    masks = label_masks(workspace)
    shape = measure_shape(masks, volume_of(masks.shape), settings=settings, workspace=workspace)
    heart, aorta, trachea = shape.segments
    assert heart.values["VoxelVolume"] == pytest.approx(4 * 8 * 10 * 3.0 * 0.9 * 0.8)
    assert not heart.omitted
    assert not aorta.values
    assert set(aorta.omitted.values()) == {"the segment has no voxel"}
    assert len(trachea.values) == len(SHAPE_FEATURES) - 5
    assert [i.object for i in shape.issues] == ["trachea"]
    assert shape.engine == engine
    assert len(shape.settings_sha256) == len(shape.sha256) == 64
    again = measure_shape(masks, volume_of(masks.shape), settings=settings, workspace=workspace)
    assert again == shape


def test_wrong_engine_and_wrong_grid_are_refused(workspace):
    masks = label_masks(workspace)
    wrong = replace(Settings(), measure=MeasureSettings(engine="magic"))
    with pytest.raises(UsageError, match="engine"):
        measure_shape(masks, volume_of(masks.shape), settings=wrong, workspace=workspace)
    with pytest.raises(UsageError, match="grid"):
        measure_shape(masks, volume_of((8, 20, 21)), settings=Settings(), workspace=workspace)


def test_a_ragged_mask_takes_a_few_bytes_a_voxel() -> None:
    """Noise has about as many surface vertices as voxels."""
    mask = np.random.default_rng(5).random((60, 150, 150)) < 0.5
    measure_primitives(mask[:2], (3.0, 0.8, 0.8))
    tracemalloc.start()
    try:
        found = measure_primitives(mask, (3.0, 0.8, 0.8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * mask.size
    corner = np.array(mask.shape) * (3.0, 0.8, 0.8)
    assert 0.95 * np.linalg.norm(corner) < found.diameter < np.linalg.norm(corner)

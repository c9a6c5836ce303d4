"""Published numbers: IBSI's digital phantom, pyradiomics' own baseline, a published row of a real tumour."""

from __future__ import annotations

import csv
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import skip_or_fail
from tests.support.contours import sorted_real

from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import load_contours
from ctenrich.masks import bounding_box
from ctenrich.shape.engine import surface
from ctenrich.shape.features import shape_features
from ctenrich.shape.measure import measure_mask

IBSI = {
    "MeshVolume": "morph_volume",
    "VoxelVolume": "morph_vol_approx",
    "SurfaceArea": "morph_area_mesh",
    "SurfaceVolumeRatio": "morph_av",
    "Compactness1": "morph_comp_1",
    "Compactness2": "morph_comp_2",
    "SphericalDisproportion": "morph_sph_dispr",
    "Sphericity": "morph_sphericity",
    "Maximum3DDiameter": "morph_diam",
    "MajorAxisLength": "morph_pca_maj_axis",
    "MinorAxisLength": "morph_pca_min_axis",
    "LeastAxisLength": "morph_pca_least_axis",
    "Elongation": "morph_pca_elongation",
    "Flatness": "morph_pca_flatness",
}
CASES = ("brain1", "brain2", "breast1", "lung1", "lung2")
OLDER_MESH = ("MeshVolume", "Sphericity", "SurfaceArea", "SurfaceVolumeRatio")
"""brain1 was written by version 2.0.1b1, whose mesh features were others (by up to 9e-4)."""
OUTSIDE = {"MinorAxisLength", "LeastAxisLength"}
"""pyradiomics divides the covariance by N, the reference by N - 1."""


def crop(mask: np.ndarray) -> np.ndarray:
    box = bounding_box(mask)
    assert box is not None
    return mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1]


def measured(path: Path, label: int = 1) -> tuple[dict[str, float], int]:
    """Features of a label in an image file, and its voxels."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    mask = SimpleITK.GetArrayFromImage(image) == label
    return shape_features(measure_mask(crop(mask), tuple(image.GetSpacing()[::-1])))[0], int(mask.sum())


@pytest.mark.parametrize("engine", ["fast", "pyradiomics"])
def test_the_ibsi_digital_phantom(real_data, engine):
    """12 of 14 within tolerance; the two axis lengths differ by exactly sqrt(N / (N - 1))."""
    import SimpleITK

    folder = real_data("ibsi")
    (phantom,) = folder.rglob("digital_phantom/nifti/mask/mask.nii.gz")
    (table,) = folder.rglob("ibsi_1_dig_phantom.csv")
    with table.open() as handle:
        rows = {r["tag"]: r for r in csv.DictReader(handle, delimiter=";")}
    image = SimpleITK.ReadImage(str(phantom))
    mask = crop(SimpleITK.GetArrayFromImage(image) == 1)
    values, _ = shape_features(measure_mask(mask, tuple(image.GetSpacing()[::-1]), engine))
    assert mask.sum() == 74
    outside = set()
    for name, tag in IBSI.items():
        reference, tolerance = float(rows[tag]["reference value"]), float(rows[tag]["tolerance"])
        if abs(values[name] - reference) > tolerance:
            outside.add(name)
            assert abs(values[name] * np.sqrt(74 / 73) - reference) <= tolerance, name
    assert outside == OUTSIDE


def gtv_of_lung1_002(folder: Path):
    series = sorted_real(folder)
    structures = load_contours(Path(series.companions[0]))
    roi = next(r for r in structures.rois if r.name == "GTV-1")
    spacing = (round(series.slice_spacing, 9), *series.pixel_spacing)
    return rasterise(roi.contours, grid_of(series)).mask, spacing


def test_the_published_row_of_a_tumour(real_data):
    """pyradiomics 2.2.0, from the RTSTRUCT: all 14 published shape features of it come out, mesh volume too."""
    folder = real_data("LUNG1-002-RT")
    mask, spacing = gtv_of_lung1_002(folder)
    assert mask.sum() == 125_204
    (table,) = folder.rglob("*pyradiomics.csv")
    with table.open() as handle:
        (row,) = csv.DictReader(handle)
    values, _ = shape_features(measure_mask(crop(mask), spacing))
    compared = 0
    for name, value in values.items():
        published = row.get(f"original_shape_{name}")
        if published:
            compared += 1
            assert value == pytest.approx(float(published), rel=1e-9), name
    assert compared == 14


def test_the_mesh_volume_depends_on_the_crop_that_it_is_seen_from(real_data):
    """Not cropping to the bounding box, as calling the shape class on a whole image does, moves it by 3e-4."""
    mask, spacing = gtv_of_lung1_002(real_data("LUNG1-002-RT"))
    area, volume = surface(np.pad(crop(mask), 1).astype(np.uint8), spacing)
    whole_area, whole_volume = surface(np.pad(mask, 1).astype(np.uint8), spacing)
    assert whole_area == pytest.approx(area, rel=1e-12)
    assert whole_volume / volume - 1 == pytest.approx(3.0106e-4, abs=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_pyradiomics_own_baseline(real_data, case, baseline_images):
    """The five cases of pyradiomics' source distribution beside the numbers that its tests expect."""
    (table,) = real_data("ibsi").rglob("pyradiomics_baseline_shape.csv")
    with table.open() as handle:
        rows = {r["featureName"]: r[case] for r in csv.DictReader(handle)}
    values, voxels = measured(baseline_images[case])
    assert voxels == int(rows["diagnostics_Mask-original_VoxelNum"])
    for name, value in values.items():
        expected = rows.get(f"original_shape_{name}")
        if expected and not (case == "brain1" and name in OLDER_MESH):
            assert value == pytest.approx(float(expected), rel=1e-9), name


@pytest.fixture(scope="module")
def baseline_images(tmp_path_factory) -> dict[str, Path]:
    """Label images of the source distribution of pyradiomics 3.0.1, through pip."""
    folder = tmp_path_factory.mktemp("sdist")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "-q", "-d", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "pyradiomics==3.0.1", *options], capture_output=True, check=False
    )
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        skip_or_fail("pypi", "the source distribution of pyradiomics 3.0.1 cannot be fetched here")
    with tarfile.open(archives[0]) as tar:
        tar.extractall(folder, filter="data")
    return {case: next(folder.rglob(f"{case}_label.nrrd")) for case in CASES}

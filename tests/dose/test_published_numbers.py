"""Doses of real plans: LUNG1-002 by other people's code, and Eclipse's own DVHs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from ctenrich.contours.raster import Grid, grid_of
from ctenrich.contours.rtstruct import StructureSet, load_contours
from ctenrich.dicom.reader import open_dataset
from ctenrich.dose.bounds import BoundedValue
from ctenrich.dose.metrics import parse_metric
from ctenrich.dose.reader import Dose, read_dose
from ctenrich.dose.structures import VOXEL_CENTRES, DoseOptions, StructureDose, structure_doses
from ctenrich.dose.vendor_dvh import VendorDvh, check_vendor_dvhs, read_vendor_dvhs
from ctenrich.reasons import Reason
from tests.support.contours import sorted_real

NAMES = ("volume", "mean", "max", "D98%", "D95%", "D50%", "D2%", "D2cc", "V5Gy[%]", "V20Gy[%]", "V45Gy[%]")
METRICS = tuple(parse_metric(name) for name in NAMES)
# Trilinear at the centres of voxels; by SciPy on masks, and six of them by SimpleITK with scikit-image's polygons.
LUNG1_002 = {
    "GTV-1": (358.533, 71.348, 75.155, 68.705, 69.023, 71.280, 74.206, 74.541, 100, 100, 100),
    "PTV-1": (994.784, 71.259, 75.577, 67.269, 68.341, 71.278, 74.635, 75.220, 100, 100, 100),
    "CTV-1": (544.952, 71.480, 75.447, 68.696, 69.079, 71.381, 74.515, 74.974, 100, 100, 100),
    "Spinal cord": (63.612, 6.977, 30.808, 0.052, 0.090, 1.943, 20.706, 19.896, 39.42, 2.96, 0),
    "Esophagus": (55.073, 16.133, 68.797, 0.127, 0.190, 13.843, 63.987, 60.426, 57.43, 32.79, 9.48),
    "Heart": (1068.822, 23.640, 74.487, 1.022, 1.229, 14.517, 72.181, 73.609, 64.38, 36.78, 27.48),
    "Lung L": (1965.371, 5.598, 19.078, 0.386, 0.499, 2.073, 14.067, 15.291, 41.30, 0.00, 0),
    "Lung R": (1885.592, 34.778, 75.577, 0.586, 0.818, 44.432, 73.919, 75.216, 63.57, 56.32, 49.56),
    "Patient": (20017.965, 13.602, 75.577, 0.043, 0.078, 1.870, 72.048, 75.220, 39.07, 19.95, 14.25),
}
# dicompyler-core 0.5.6 (pydicom 2) with its defaults: the centres of the voxels of the dose, 5 mm, in bins of 0.01 Gy.
# cm3, mean, D98, D95, D50, D2.
DICOMPYLER = {
    "GTV-1": (358.875, 71.3474, 68.68, 69.00, 71.29, 74.27),
    "PTV-1": (994.800, 71.2882, 67.32, 68.37, 71.31, 74.69),
    "CTV-1": (544.500, 71.4754, 68.67, 69.06, 71.38, 74.54),
    "Spinal cord": (64.875, 7.1522, 0.05, 0.09, 1.97, 20.62),
    "Esophagus": (53.700, 15.6072, 0.13, 0.20, 12.04, 64.54),
    "Heart": (1067.100, 23.6118, 1.02, 1.22, 14.48, 72.26),
    "Lung L": (1816.950, 5.2409, 0.38, 0.49, 1.90, 13.99),
    "Lung R": (1887.750, 34.7961, 0.59, 0.82, 44.50, 73.98),
}
DICOMPYLER_DIFFERS = {
    ("Spinal cord", "volume"): "a structure of few voxels of 5 mm",
    ("Esophagus", "volume"): "a structure of few voxels of 5 mm",
    ("Esophagus", "mean"): "the same",
    ("Esophagus", "D50%"): "the same, in a dose that falls by 2 Gy within a voxel",
    ("Lung L", "volume"): "repeated contours cancel each other (exclusive or)",
}
# With three times as many rows and columns: cm3, mean, maximum, D2cc.
REFINED = {
    "GTV-1": (358.608, 71.348, 75.175, 74.542),
    "PTV-1": (994.681, 71.258, 75.582, 75.220),
    "CTV-1": (545.028, 71.481, 75.449, 74.977),
    "Spinal cord": (63.586, 6.974, 31.910, 19.865),
    "Esophagus": (55.075, 16.099, 68.953, 60.368),
    "Heart": (1068.670, 23.633, 74.545, 73.611),
    "Lung L": (1964.427, 5.597, 19.078, 15.301),
    "Lung R": (1885.962, 34.779, 75.582, 75.215),
    "Patient": (20021.792, 13.601, 75.582, 75.220),
}
Lung1 = tuple[Dose, StructureSet, Grid]


@pytest.fixture(scope="module")
def lung1(real_data: Callable[[str], Path]) -> Lung1:
    folder = real_data("LUNG1-002-RT")
    found: dict[str, Path] = {}
    for path in folder.rglob("*.dcm"):
        found[str(pydicom.dcmread(path, specific_tags=["Modality"], stop_before_pixels=True).Modality)] = path
    return read_dose(found["RTDOSE"]), load_contours(found["RTSTRUCT"]), grid_of(sorted_real(folder))


@pytest.fixture(scope="module")
def at_voxel_centres(lung1: Lung1) -> dict[str, StructureDose]:
    dose, structures, grid = lung1
    options = DoseOptions(metrics=METRICS, rule=VOXEL_CENTRES, bounds=False, second=False)
    return {one.name: one for one in structure_doses(structures, dose, options, grid=grid)}


def test_the_grid_of_lung1_002(lung1: Lung1) -> None:
    dose, _, _ = lung1
    assert dose.grid.shape == (68, 63, 83)
    assert dose.grid.spacing == (5.0, 5.0, 5.0)
    assert dose.grid.maximum == pytest.approx(75.6118396, abs=1e-6)


@pytest.mark.parametrize("name", list(LUNG1_002))
def test_lung1_002_at_voxel_centres(name: str, at_voxel_centres: dict[str, StructureDose]) -> None:
    found = at_voxel_centres[name]
    assert found.coverage == 1.0
    for one, expected in zip(found.values, LUNG1_002[name], strict=True):
        assert one.value is not None
        if one.metric.quantity == "volume":
            assert one.value == pytest.approx(expected, rel=0.0005)
        else:
            assert one.value == pytest.approx(expected, abs=0.01), one.metric.name


@pytest.mark.parametrize("name", list(DICOMPYLER))
def test_dicompyler_core_on_lung1_002(name: str, at_voxel_centres: dict[str, StructureDose]) -> None:
    """Volumes within 1 % or 1 cm3, doses within 2 % or 0.5 Gy, the rule of CORDIAL-RT; and exceptions with a cause."""
    values = {one.metric.quantity + f"{one.metric.at:g}": one.value for one in at_voxel_centres[name].values}
    keys = ("volume0", "mean0", "dose_at_share98", "dose_at_share95", "dose_at_share50", "dose_at_share2")
    labels = ("volume", "mean", "D98%", "D95%", "D50%", "D2%")
    for key, label, expected in zip(keys, labels, DICOMPYLER[name], strict=True):
        share, absolute = (0.01, 1.0) if label == "volume" else (0.02, 0.5)
        agrees = values[key] == pytest.approx(expected, rel=share, abs=absolute)
        assert agrees != ((name, label) in DICOMPYLER_DIFFERS), (label, values[key], expected)


def test_points_have_no_metrics_but_a_reason(at_voxel_centres: dict[str, StructureDose]) -> None:
    assert at_voxel_centres["Isocenter 1"].reason is Reason.EMPTY_STRUCTURE
    assert all(one.value is None for one in at_voxel_centres["Isocenter 1"].values)


def by_name(found: StructureDose) -> dict[str, BoundedValue]:
    return {one.metric.name: one for one in found.values}


@pytest.mark.parametrize(
    ("ct", "names"),
    [
        (True, ("Spinal cord", "Esophagus")),
        pytest.param(True, ("?TV-1", "Heart", "Lung ?", "Patient"), marks=pytest.mark.long),
        pytest.param(False, ("GTV-1", "Spinal cord", "Esophagus", "Heart", "Lung ?"), marks=pytest.mark.long),
    ],
)
def test_refined_sampling_of_lung1_002_is_inside_the_bounds(lung1: Lung1, ct: bool, names: tuple[str, ...]) -> None:
    dose, structures, grid = lung1
    options = DoseOptions(metrics=METRICS, rois=names)
    for found in structure_doses(structures, dose, options, grid=grid if ct else None):
        values = by_name(found)
        for metric, expected in zip(
            ("Volume[cc]", "Mean[Gy]", "Max[Gy]", "D2cc[Gy]"), REFINED[found.name], strict=True
        ):
            one = values[metric]
            assert one.lower - 1e-3 <= expected <= one.upper + 1e-3, (found.name, metric)  # type: ignore[operator]
        for one, second in zip(found.values, found.second, strict=True):
            assert second is not None
            assert one.lower - 1e-6 <= second <= one.upper + 1e-6, (found.name, one.metric.name)  # type: ignore[operator]


# Eclipse: cm3, D95, D50, D2 from its curve in Gy, mean (which the file states in percent of 14 Gy).
ECLIPSE = {
    "Heart": (437.462, 0.033, 0.113, 2.698, 0.6475),
    "Lt Lung": (2008.949, 0.041, 0.256, 5.044, 0.9093),
    "Breast": (396.229, 0.075, 3.075, 14.45, 5.614),
    "Tumor Bed": (12.809, 14.138, 14.280, 14.469, 14.291),
    "Tumor Bed Block": (62.883, 13.826, 14.305, 14.534, 14.265),
}
# dicompyler-core 0.5.6 with its defaults on the same files: cm3, mean, D95, D50, D2; its own tests have the heart.
DICOMPYLER_ON_ECLIPSE = {
    "Heart": (440.23124999, 0.6475329, 0.04, 0.12, 2.71),
    "Breast": (400.3875, 5.5820, 0.08, 2.94, 14.47),
    "Tumor Bed": (13.0687, 14.2917, 14.13, 14.29, 14.48),
    "Tumor Bed Block": (63.3375, 14.2813, 13.85, 14.32, 14.56),
}
Eclipse = tuple[dict[str, StructureDose], tuple[VendorDvh, ...], str]


@pytest.fixture(scope="module")
def eclipse(real_data: Callable[[str], Path]) -> Eclipse:
    folder = next(real_data("ref_objects").rglob("dicompyler_rt"))
    dose, structures = read_dose(folder / "rtdose.dcm"), load_contours(folder / "rtss.dcm")
    metrics = tuple(parse_metric(name) for name in ("volume", "D95%", "D50%", "D2%", "mean", "D2cc"))
    options = DoseOptions(metrics=metrics, second=False, rois=(*ECLIPSE, "Scar", "Borders", "Nodes", "Areola"))
    found = {one.name: one for one in structure_doses(structures, dose, options)}
    return found, read_vendor_dvhs(open_dataset(folder / "rtdose.dcm")), dose.sop_instance_uid


@pytest.mark.parametrize("name", list(ECLIPSE))
def test_eclipses_own_dvhs(name: str, eclipse: Eclipse) -> None:
    volume, d95, d50, d2, mean, _ = eclipse[0][name].values
    expected = ECLIPSE[name]
    if name in ("Heart", "Lt Lung", "Breast"):
        assert volume.value == pytest.approx(expected[0], rel=0.011)
    else:  # few planes: Eclipse ends a structure within its last slices, which the bound allows for
        assert volume.lower <= expected[0] <= volume.upper  # type: ignore[operator]
    for one, dose in zip((d95, d50, d2), expected[1:4], strict=True):
        assert one.value == pytest.approx(dose, rel=0.02, abs=0.15), one.metric.name
    assert mean.value == pytest.approx(expected[4], rel=0.01)


@pytest.mark.parametrize("name", list(DICOMPYLER_ON_ECLIPSE))
def test_dicompyler_core_on_the_same_files(name: str, eclipse: Eclipse) -> None:
    volume, d95, d50, d2, mean, _ = eclipse[0][name].values
    expected = DICOMPYLER_ON_ECLIPSE[name]
    assert volume.value == pytest.approx(expected[0], rel=0.01)
    for one, dose in zip((mean, d95, d50, d2), expected[1:], strict=True):
        assert one.value == pytest.approx(dose, rel=0.01, abs=0.05), one.metric.name


def test_thin_structures_have_wide_bounds(eclipse: Eclipse) -> None:
    """Scar, Nodes and Borders have six, four and two planes; Eclipse cuts the slices at their ends."""
    scar, borders, nodes = (eclipse[0][name].values for name in ("Scar", "Borders", "Nodes"))
    assert nodes[0].lower <= 0.566 <= nodes[0].upper  # type: ignore[operator]
    assert nodes[4].lower <= 0.1075 <= nodes[4].upper  # type: ignore[operator]
    assert scar[4].lower <= 6.320 <= scar[4].upper  # type: ignore[operator]
    assert borders[0].lower <= 0.745 <= borders[0].upper  # type: ignore[operator]
    assert scar[5].reason is Reason.BEYOND_VOLUME


def test_an_roi_without_contours(eclipse: Eclipse) -> None:
    assert eclipse[0]["Areola"].reason is Reason.EMPTY_STRUCTURE


def test_means_in_percent_labelled_gy_are_found(eclipse: Eclipse) -> None:
    _, dvhs, uid = eclipse
    (issue,) = check_vendor_dvhs(dvhs, uid)
    assert issue.rule == "dose.vendor_dvh"
    assert "9 of 9" in issue.message
    assert "percent of 13.99 Gy" in issue.message
    assert all(dvh.means_agree is False for dvh in dvhs)

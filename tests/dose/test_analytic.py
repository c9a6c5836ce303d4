"""Bodies in doses of known formulas: every metric is inside its bounds, wherever the contours' planes are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctenrich.contours.rtstruct import Contour
from ctenrich.dose.bounds import SampledStructure, bounded_values, sample_structure
from ctenrich.dose.grid import DoseGrid, DoseSampler
from ctenrich.dose.metrics import parse_metric
from ctenrich.dose.planes import contour_grid, find_contour_planes
from ctenrich.dose.sampling import Region, SamplingRule, region_of_contours
from ctenrich.dose.second_path import second_values
from tests.support.doses import circle, grid_of_function, roi_of

NAMES = ("volume", "mean", "D98%", "D95%", "D50%", "D2%", "D1cc", "V25Gy[%]")
METRICS = [parse_metric(name) for name in NAMES]
# 20 Gy + 1 Gy/mm along z or x; closed formulas of the volumes above a dose (spherical caps, segments, cones)
TRUTH = {
    ("sphere", "z"): (4.188790, 20, 11.6808, 12.7070, 20, 28.3192, 23.6450, 15.6250),
    ("sphere", "x"): (4.188790, 20, 11.6808, 12.7070, 20, 28.3192, 23.6450, 15.6250),
    ("cylinder", "z"): (10.857344, 20, 8.4800, 9.2000, 20, 31.5200, 29.7895, 29.1667),
    ("cylinder", "x"): (10.857344, 20, 9.2559, 10.3354, 20, 30.7441, 28.4518, 24.2630),
    ("cone", "z"): (3.619115, 14, 8.1611, 8.4069, 12.9512, 25.4854, 16.3681, 2.4812),
    ("cone", "x"): (3.619115, 20, 10.9376, 12.2957, 20, 29.0624, 22.9913, 15.7110),
}


@pytest.fixture(scope="module")
def doses() -> dict[str, DoseGrid]:
    return {"z": grid_of_function(lambda x, y, z: 20 + z), "x": grid_of_function(lambda x, y, z: 20 + x)}


def contours_of(body: str, gap: float, offset: float) -> list[Contour]:
    """Radius 10 mm; cylinder and cone (tip up) radius 12 mm and height 24 mm; around the origin."""
    out = []
    for z in offset + gap * np.arange(-15, 16):
        if body == "sphere" and abs(z) < 10:
            out.append(circle(float(np.sqrt(100 - z * z)), z))
        elif body == "cylinder" and abs(z) <= 12 + 1e-9:
            out.append(circle(12.0, z))
        elif body == "cone" and -12 - 1e-9 <= z < 12:
            out.append(circle(0.5 * (12 - z), z))
    return out


def region(contours: list[Contour]) -> Region:
    planes = find_contour_planes([roi_of(contours)])
    found = contour_grid(contours, planes, 1.0)
    return region_of_contours(contours, found.grid, faces=found.faces)[0]


def sampled(contours: list[Contour], dose: DoseGrid) -> SampledStructure:
    own = region(contours)
    return sample_structure(own, DoseSampler(dose, own.row, own.column), SamplingRule())


@pytest.mark.parametrize(("body", "axis"), list(TRUTH))
def test_every_metric_is_inside_its_bounds(body: str, axis: str, doses: dict[str, DoseGrid]) -> None:
    for gap in (1.0, 2.0, 3.0):
        for offset in (0.0, 0.35 * gap, 0.7 * gap):
            found = bounded_values(sampled(contours_of(body, gap, offset), doses[axis]), METRICS, doses[axis].maximum)
            for one, truth in zip(found, TRUTH[body, axis], strict=True):
                assert one.lower is not None
                assert one.upper is not None
                assert one.lower - 1e-3 <= truth <= one.upper + 1e-3, (one.metric.name, gap, offset)


def test_bounds_become_narrower_with_the_distance_of_the_planes(doses: dict[str, DoseGrid]) -> None:
    widths = []
    for gap in (3.0, 1.0):
        found = bounded_values(sampled(contours_of("sphere", gap, 0.3), doses["z"]), METRICS, doses["z"].maximum)
        widths.append([one.upper - one.lower for one in found])  # type: ignore[operator]
    assert all(fine < 0.5 * coarse for coarse, fine in zip(*widths, strict=True))


GAUSSIAN = (60.0, 12.0)
"""Dose at the centre in Gy, and standard deviation in mm: D(r) = A exp(-r^2 / 2 s^2)."""


def truth_in_gaussian(name: str) -> float:
    """Metric of a sphere of 10 mm around the centre: the volume above a dose is a sphere too."""
    top, width = GAUSSIAN
    whole = 4 / 3 * np.pi * 10.0**3 / 1000

    def dose_of(volume: float) -> float:
        return float(top * np.exp(-((10 * (volume / whole) ** (1 / 3)) ** 2) / (2 * width**2)))

    if name == "mean":  # 3 / R^3 times the integral of r^2 D(r) from 0 to R
        part = width**3 * math.sqrt(math.pi / 2) * math.erf(10 / (width * math.sqrt(2)))
        return float(3 / 1000 * top * (part - width**2 * 10 * math.exp(-100 / (2 * width**2))))
    if name == "volume":
        return float(whole)
    metric = parse_metric(name)
    if metric.quantity == "dose_at_share":
        return dose_of(whole * metric.at / 100)
    if metric.quantity == "dose_at_volume":
        return dose_of(metric.at)
    volume = 4 / 3 * np.pi * (width * np.sqrt(2 * np.log(top / metric.at))) ** 3 / 1000
    return float(volume if metric.unit == "cm3" else 100 * volume / whole)


@pytest.mark.parametrize("gap", [1.0, 2.0, 3.0])
def test_a_gaussian_dose(gap: float) -> None:
    """The voxels of the dose are small: what is lost by linear interpolation between them is not part of the bounds."""
    top, width = GAUSSIAN
    dose = grid_of_function(
        lambda x, y, z: top * np.exp(-(x**2 + y**2 + z**2) / (2 * width**2)), spacing=0.25, reach=16.0
    )
    names = ("volume", "mean", "D98%", "D95%", "D50%", "D2%", "D1cc", "V50Gy[cc]", "V55Gy[cc]", "V45Gy[%]")
    metrics = [parse_metric(name) for name in names]
    found = bounded_values(sampled(contours_of("sphere", gap, 0.35 * gap), dose), metrics, dose.maximum)
    for name, one in zip(names, found, strict=True):
        truth = truth_in_gaussian(name)
        assert one.lower - 0.02 <= truth <= one.upper + 0.02, (name, truth, one)  # type: ignore[operator]
    assert found[7].value == pytest.approx(truth_in_gaussian("V50Gy[cc]"), rel=0.05)


@pytest.mark.parametrize(("body", "axis"), list(TRUTH))
def test_the_second_way_agrees(body: str, axis: str, doses: dict[str, DoseGrid]) -> None:
    contours = contours_of(body, 2.0, 0.35)
    found = bounded_values(sampled(contours, doses[axis]), METRICS, doses[axis].maximum)
    second = second_values(region(contours), doses[axis], METRICS, contours=contours)
    for one, other in zip(found, second, strict=True):
        assert other is not None
        assert one.lower - 1e-6 <= other <= one.upper + 1e-6  # type: ignore[operator]


def test_an_ROI_on_the_edges_of_voxels_is_not_empty(doses: dict[str, DoseGrid]) -> None:
    """A contour through the centres of dose voxels; dicompyler-core's DVH of such an ROI was empty."""
    corners = [(-5.0, -5.0), (5.0, -5.0), (5.0, 5.0), (-5.0, 5.0)]
    contours = [Contour(np.array([(x, y, z) for x, y in corners])) for z in (-5.0, -2.5, 0.0, 2.5, 5.0)]
    found = bounded_values(sampled(contours, doses["x"]), METRICS[:2], doses["x"].maximum)
    assert found[0].value == pytest.approx(1.25, rel=0.01)
    assert found[1].value == pytest.approx(20.0, abs=0.2)


def test_a_skipped_plane_is_left_empty(doses: dict[str, DoseGrid]) -> None:
    contours = [one for one in contours_of("cylinder", 2.0, 1.0) if abs(one.points[0, 2] - 3.0) > 0.1]
    found = contour_grid(contours, find_contour_planes([roi_of(contours)]), 1.0)
    assert found.skipped == 1
    assert region(contours).volume == pytest.approx(np.pi * 144 * 22, rel=0.01)


def test_one_plane_has_the_thickness_of_the_other_structures() -> None:
    body, flat = contours_of("sphere", 3.0, 0.0), [circle(5.0, 0.0)]
    planes = find_contour_planes([roi_of(body), roi_of(flat, number=2)])
    found = contour_grid(flat, planes, 0.5)
    own = region_of_contours(flat, found.grid, faces=found.faces)[0]
    assert own.volume == pytest.approx(np.pi * 25 * 3, rel=0.02)

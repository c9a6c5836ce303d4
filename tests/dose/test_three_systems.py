"""Metrics of Eclipse, CERR and SlicerRT for the same doses and contours: prostate, and head and neck."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctenrich.dose.bounds import BoundedValue, bounded_values, sample_structure
from ctenrich.dose.grid import DoseGrid, DoseSampler
from ctenrich.dose.metrics import parse_metric
from ctenrich.dose.planes import contour_grid, find_contour_planes
from ctenrich.dose.sampling import SamplingRule, region_of_contours
from tests.support.doses import roi_of
from tests.support.surfaces import read_nrrd_dose, read_vtk_contours

SHARES = (98, 95, 50, 2)
METRICS = [parse_metric(name) for name in ("volume", *(f"D{share}%" for share in SHARES))]


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold().replace("_dvharray", ""))


def curves_of(path: Path) -> dict[str, tuple[float, np.ndarray, np.ndarray]]:
    """Structure -> volume in cm3, doses in Gy, and percent of the volume with at least each dose."""
    with path.open(newline="") as handle:
        header, *rows = list(csv.reader(handle))
    out = {}
    for n in range(0, len(header) - 1, 2):
        volume = float(re.findall(r"of ([\d.]+) cc", header[n + 1])[0])
        pairs = [(float(row[n]), float(row[n + 1])) for row in rows if len(row) > n + 1 and row[n] and row[n + 1]]
        doses, shares = np.array(pairs).T
        out[plain(header[n].rsplit(" Dose", 1)[0])] = (volume, doses, shares)
    return out


def ours(contours_file: Path, dose: DoseGrid) -> tuple[str, list[BoundedValue]]:
    name, contours = read_vtk_contours(contours_file)
    found = contour_grid(contours, find_contour_planes([roi_of(contours)]), 1.0)
    region, _ = region_of_contours(contours, found.grid, faces=found.faces)
    sampled = sample_structure(region, DoseSampler(dose, region.row, region.column), SamplingRule())
    return plain(name), bounded_values(sampled, METRICS, dose.maximum)


@pytest.mark.parametrize(
    ("case", "left_out"),
    [
        ("EclipseProstate", {"body"}),
        pytest.param("EclipseEnt", {"body", "brain", "optbrain", "optoptic"}, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("system", ["Eclipse", pytest.param("CERR", marks=pytest.mark.long)])
def test_doses_agree(real_data: Callable[[str], Path], case: str, left_out: set[str], system: str) -> None:
    """D_x within 2 %, 0.15 Gy or a bin, or inside the bounds; volumes from 10 cm3 within 1.1 % or inside them."""
    folder = next(real_data("slicerrt_dvh").rglob("slicerrt_dvh"), real_data("slicerrt_dvh"))
    curves = curves_of(folder / f"{case}_DvhTable_{system}.csv")
    dose = read_nrrd_dose(folder / f"{case}_Dose.nrrd")
    compared = 0
    for file in sorted((folder / f"{case}_Structures.seg").glob("*.vtp")):
        if plain(read_vtk_contours(file)[0]) in left_out:
            continue
        name, (volume, *metrics) = ours(file, dose)
        theirs, doses, shares = curves[name]
        if theirs >= 10:
            assert volume.value == pytest.approx(theirs, rel=0.011) or volume.lower <= theirs <= volume.upper, name  # type: ignore[operator]
        for share, one in zip(SHARES, metrics, strict=True):
            expected = float(np.interp(-share, -shares, doses))
            bin_width = 1.5 * float(np.median(np.diff(doses)))  # CERR's bins are 0.2 Gy wide, and stated at the middle
            close = one.value == pytest.approx(expected, rel=0.02, abs=max(0.15, bin_width))
            assert close or one.lower <= expected <= one.upper, (name, share, expected, one)  # type: ignore[operator]
            compared += 1
    assert compared >= 20


def test_means_and_volumes_of_slicerrt(real_data: Callable[[str], Path]) -> None:
    folder = next(real_data("slicerrt_dvh").rglob("slicerrt_dvh"), real_data("slicerrt_dvh"))
    dose = read_nrrd_dose(folder / "EclipseProstate_Dose.nrrd")
    with (folder / "EclipseProstate_DvhMetrics_SlicerRT.csv").open(newline="") as handle:
        rows = {plain(row["Structure"]): row for row in csv.DictReader(handle)}
    metrics = [parse_metric(name) for name in ("mean", "D2cc", "V20Gy[%]")]
    for file in sorted((folder / "EclipseProstate_Structures.seg").glob("*.vtp"))[1:]:
        name, contours = read_vtk_contours(file)
        found = contour_grid(contours, find_contour_planes([roi_of(contours)]), 1.0)
        region, _ = region_of_contours(contours, found.grid, faces=found.faces)
        sampled = sample_structure(region, DoseSampler(dose, region.row, region.column), SamplingRule())
        mean, hot, share = bounded_values(sampled, metrics, dose.maximum)
        row = rows[plain(name)]
        assert mean.value == pytest.approx(float(row["Mean dose (GY)"]), abs=0.06), name
        assert hot.value == pytest.approx(float(row["D2cc (GY)"]), abs=0.07), name
        assert share.value == pytest.approx(float(row["V20 (%)"]), abs=0.5), name

"""Lungs by threshold as evidence for the names of a run that has only an expert's contours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.cohorts import TINY, make_cohort

from ctenrich import steps
from ctenrich.geometry.patient_axes import PatientAxes
from ctenrich.lungs import find_lungs
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.lung_evidence import LEFT_LUNG, RIGHT_LUNG, find_lung_sides, split_lungs
from ctenrich.structure_names.propose import propose_name
from ctenrich.structure_names.run_masks import evidence_of_run

COLUMNS = 101
X = np.arange(COLUMNS)


def body() -> NDArray[np.int16]:
    """HU [z, y, x] of a body with a large left and a smaller right lung; x grows to the patient's left."""
    z, y, x = np.meshgrid(np.arange(40), np.arange(100), X, indexing="ij")
    hu = np.where(((x - 50) / 45) ** 2 + ((y - 50) / 35) ** 2 < 1, 40, -1000)
    for centre, radius in ((70, 14), (30, 11)):
        hu[((x - centre) / radius) ** 2 + ((y - 50) / 20) ** 2 + ((z - 20) / 15) ** 2 < 1] = -800
    return hu.astype(np.int16)


@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (False, True, True)])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)], ids=["axial", "coronal"])
def test_sides_are_those_of_the_patient(order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    hu = body()
    axes = PatientAxes(order, flips)

    def stored(array: NDArray[np.bool_]) -> NDArray[np.bool_]:
        unflipped = array[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
        return unflipped.transpose(np.argsort(order))

    found = split_lungs(find_lungs(hu, (5.0, 3.0, 3.0)), axes, COLUMNS)
    assert found is not None
    assert found.middle == pytest.approx(50, abs=1)
    for name, other, mask in (
        (LEFT_LUNG, RIGHT_LUNG, (hu == -800) & (X > 50)),
        (RIGHT_LUNG, LEFT_LUNG, (hu == -800) & (X < 50)),
    ):
        roi = stored(mask)
        assert np.array_equal(axes.apply(roi), mask)
        overlaps = found.overlaps(roi)
        assert overlaps[name].shared == pytest.approx(mask.sum(), rel=0.05)
        assert overlaps[name].voxels == pytest.approx(mask.sum(), rel=0.05)
        assert overlaps[other].shared == 0


def test_a_body_without_lungs_is_no_evidence() -> None:
    hu = np.where(body() == -800, 40, body()).astype(np.int16)
    assert split_lungs(find_lungs(hu, (5.0, 3.0, 3.0)), PatientAxes((0, 1, 2), (False,) * 3), COLUMNS) is None


def test_lungs_of_a_run_with_contours_alone_have_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    options = replace(
        TINY, slices=40, slice_spacing=8.0, row_cosines=(-1.0, 0.0, 0.0), rows=80, columns=80, pixel_spacing=(5.0, 5.0)
    )
    run = steps.start(make_cohort(tmp_path, 1, options=options), tmp_path / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
        stage(run)
    found = {one.name: one.evidence for one in evidence_of_run(run.workspace.root)}
    lungs = {name: evidence for name, evidence in found.items() if "lung" in name.lower()}
    assert len(lungs) == 2
    for name, evidence in lungs.items():
        organ, dice = evidence.organs[0]
        assert dice > 0.8
        assert (evidence.side, organ) == (("L", LEFT_LUNG) if "left" in name.lower() else ("R", RIGHT_LUNG))
        assert propose_name("ROI 7", evidence).candidates[0].name == f"Lung_{evidence.side}"
        swapped = "Lung_L" if evidence.side == "R" else "Lung_R"
        assert propose_name(swapped, evidence).warnings
        assert not propose_name(f"Lung_{evidence.side}", evidence).warnings
    (uid,) = SeriesStore(run.workspace).series()
    sides = find_lung_sides(SeriesStore(run.workspace), uid)
    assert sides is not None
    assert sides.middle == pytest.approx((options.columns - 1) / 2, abs=2)

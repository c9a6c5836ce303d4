"""Objects of a run, checked against what was written and proven; objects of others, checked alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from tests.support.cohorts import make_cohort

from ctenrich import steps
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import Severity
from ctenrich.runner.object_check import check_files, check_run, instances_below
from ctenrich.runner.run import Run
from ctenrich.settings import Settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("objects")
    run = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    assert steps.run_all(run).exit_code == 0
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    shutil.copytree(made.root, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.mark.parametrize("again", [False, True])
def test_objects_that_nobody_touched_are_valid_and_proven(run: Run, again: bool) -> None:
    reports = list(check_run(run, again=again))
    assert {Path(r.file).name for r in reports} == {"seg.dcm", "shape_sr.dcm"}
    assert all((run.root / r.file).is_file() for r in reports)
    assert [(r.valid, r.proven) for r in reports] == [(True, True)] * 2


def test_an_object_with_other_bytes_is_reported_and_only_that_one(run: Run) -> None:
    (seg,) = run.root.rglob("seg.dcm")
    data = pydicom.dcmread(seg)
    data.SeriesDescription = "edited"
    data.save_as(seg)
    reports = {Path(r.file).name: r for r in check_run(run)}
    assert [i.rule for i in reports["seg.dcm"].issues if i.severity is Severity.ERROR] == ["file.changed"]
    assert not reports["seg.dcm"].valid
    assert reports["shape_sr.dcm"].valid
    seg.unlink()
    assert not {Path(r.file).name: r for r in check_run(run)}["seg.dcm"].valid


def test_a_run_without_objects_is_not_prepared(made: Run, tmp_path: Path) -> None:
    run = steps.start(made.root / "cohort.parquet", tmp_path / "new", segmenters=["expert"])
    steps.fetch(run)
    with pytest.raises(InputError) as caught:
        list(check_run(run))
    assert caught.value.reason is Reason.NOT_PREPARED


def test_files_of_others_have_no_proof_and_their_references_are_looked_up(made: Run, tmp_path: Path) -> None:
    (seg,) = made.root.rglob("seg.dcm")
    shutil.copy(seg, tmp_path / "a.dcm")
    (tmp_path / "notes.txt").write_text("not DICOM")
    (report,) = check_files([tmp_path], settings=Settings())
    assert (report.file, report.proven, report.valid) == ("a.dcm", None, True)
    assert report.sop_instance_uid == str(pydicom.dcmread(seg, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    (without,) = check_files([tmp_path], settings=Settings(), sources=frozenset({"1.2.3"}))
    assert not without.valid
    sources = instances_below(made.root.parent / "dicom")
    assert len(sources) == 17, "16 slices and the contours"
    (known,) = check_files([tmp_path], settings=Settings(), sources=sources)
    assert known.valid


def test_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    with pytest.raises(InputError) as caught:
        check_files([tmp_path], settings=Settings())
    assert caught.value.reason is Reason.NOT_FOUND

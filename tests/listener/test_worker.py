"""Closed cases run like any cohort: the same bytes, outcomes as states, and resumption after interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.listener.test_intake import Desk
from tests.listener.test_listen import storescu
from tests.support.cohorts import TINY, result_hashes
from tests.support.listeners import CONFIG, receiving, study_files

from ctenrich import steps
from ctenrich.errors import InputError
from ctenrich.flows import running
from ctenrich.listener import cases
from ctenrich.listener.cases import CaseState
from ctenrich.listener.config import CloseRule, Peer, RunRequest, StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.intake import Intake
from ctenrich.listener.worker import CaseWorker
from ctenrich.phantom import Quirk, write_phantom_study
from ctenrich.reasons import Reason
from ctenrich.runner.recorder import RunEnd, RunSummary
from ctenrich.runner.run import INPUT
from ctenrich.select.sources import make_cohort

EXPERT = StationConfig(run=RunRequest(segmenters=("expert",)))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "station")
    yield made
    made.close()


def close_case(desk: Desk, *paths: Path) -> None:
    """Receive files, and let the quiet time pass."""
    desk.put(*paths)
    desk.pass_time(1)
    desk.pass_time(60)


@pytest.mark.long
def test_a_case_gives_the_bytes_of_a_run_on_the_same_folder(desk: Desk, tmp_path: Path) -> None:
    write_phantom_study(tmp_path / "dicom", TINY)
    cohort = make_cohort(str(tmp_path / "dicom"), tmp_path / "run" / INPUT)
    steps.run_all(steps.start(cohort.path, tmp_path / "run", segmenters=["expert"]))
    close_case(desk, *sorted((tmp_path / "dicom").rglob("*.dcm"), reverse=True))
    assert CaseWorker(desk.station, desk.database, EXPERT).run_next() is True
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.DONE, "")
    found = result_hashes(desk.station.revision(1, 1) / "run")
    assert found == result_hashes(tmp_path / "run")
    assert len(found) > 2


def masks_and_numbers(run: Path) -> tuple[bytes, list[float]]:
    """Frames of the SEG, and numbers of the SR, of the one series of a run."""
    folder = next(run.glob("series/*/*/objects"))
    numbers = [
        float(item.value) for item in dcmread(folder / "shape_sr.dcm").iterall() if item.keyword == "NumericValue"
    ]
    return dcmread(folder / "seg.dcm").PixelData, numbers


@pytest.mark.long
def test_a_study_sent_by_storescu_gives_the_masks_and_numbers_of_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("pynetdicom")
    write_phantom_study(tmp_path / "dicom", TINY)
    anyone = replace(CONFIG, peers=(Peer(aet="*", host="127.0.0.1"),))
    with receiving(tmp_path / "station", anyone) as receiver:
        storescu(receiver.ports["dicom"], tmp_path / "dicom")
        assert receiver.rows("SELECT 1 FROM instances")
    with StationDatabase(receiver.station.database) as database:
        intake = Intake(receiver.station, database, CloseRule(when="association"))
        intake.run_once()
        intake.run_once()
        assert CaseWorker(receiver.station, database, EXPERT).run_next() is True
    cohort = make_cohort(str(tmp_path / "dicom"), tmp_path / "run" / INPUT)
    steps.run_all(steps.start(cohort.path, tmp_path / "run", segmenters=["expert"]))
    frames, numbers = masks_and_numbers(receiver.station.revision(1, 1) / "run")
    assert (frames, numbers) == masks_and_numbers(tmp_path / "run")
    assert any(frames)
    assert len(numbers) > 10


def test_a_case_without_a_usable_ct_is_skipped_with_the_reason(desk: Desk, tmp_path: Path) -> None:
    write_phantom_study(tmp_path / "dicom", replace(TINY, rtstruct=False, quirks=frozenset({Quirk.MISSING_SLICE})))
    close_case(desk, *(tmp_path / "dicom").rglob("*.dcm"))
    assert CaseWorker(desk.station, desk.database, EXPERT).run_next() is True
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.SKIPPED, "EMPTY_COHORT")
    assert "MISSING_SLICE" in row.message
    assert str(tmp_path) not in row.message


def test_a_case_is_frozen_if_nothing_is_to_run(desk: Desk) -> None:
    close_case(desk, *study_files())
    assert CaseWorker(desk.station, desk.database, StationConfig()).run_next() is True
    assert cases.case_of(desk.database, 1)[0].state is CaseState.DONE
    images = desk.station.revision(1, 1) / "images"
    assert {path.read_bytes() for path in images.iterdir()} == {path.read_bytes() for path in study_files()}
    assert all(path.stat().st_nlink == 2 for path in images.iterdir())
    assert CaseWorker(desk.station, desk.database, StationConfig()).run_next() is False


def test_errors_of_a_case_end_that_case_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputError(Reason.BAD_COHORT, "a message")

    monkeypatch.setattr(running, "make_cohort", fail)
    close_case(desk, *study_files())
    assert CaseWorker(desk.station, desk.database, EXPERT).run_next() is True
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.FAILED, "BAD_COHORT")


def test_a_full_disk_puts_the_case_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(running, "make_cohort", full)
    close_case(desk, *study_files())
    assert CaseWorker(desk.station, desk.database, EXPERT).run_next() is None
    assert cases.case_of(desk.database, 1)[0].state is CaseState.CLOSED


def test_an_image_after_a_full_disk_opens_the_next_revision(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of the first revision may be half made of its images already."""
    *first, last = study_files()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    close_case(desk, *first)
    with monkeypatch.context() as patch:
        patch.setattr(running.steps, "run_all", full)
        assert CaseWorker(desk.station, desk.database, EXPERT).run_next() is None
    close_case(desk, last)
    worker = CaseWorker(desk.station, desk.database, EXPERT)
    assert [worker.run_next(), worker.run_next()] == [True, True]
    found = cases.case_of(desk.database, 1)
    assert {row.reason for row in found} == {"NO_EXPERT"}, "each has a run of its own images, which have no contours"
    assert [row.images for row in found] == [len(first) + 1, len(first)]


def test_an_interrupted_case_runs_first_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object, **__: object) -> RunSummary:
        return RunSummary(ended=RunEnd.INTERRUPTED, states={}, reasons={}, ran=0, seconds=0.0)

    close_case(desk, *study_files())
    with monkeypatch.context() as patch:
        patch.setattr(running.steps, "run_all", interrupted)
        assert CaseWorker(desk.station, desk.database, EXPERT).run_next() is None
    assert cases.case_of(desk.database, 1)[0].state is CaseState.RUNNING
    row = cases.next_to_run(desk.database)
    assert row is not None
    assert row.case == 1


def test_a_case_that_ends_its_process_is_given_up(desk: Desk) -> None:
    close_case(desk, *study_files())
    for _ in range(3):
        row = cases.next_to_run(desk.database)
        assert row is not None
        assert cases.start_revision(desk.database, row)
        cases.count_death(desk.database)
    assert CaseWorker(desk.station, desk.database, EXPERT).run_next() is True
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.FAILED, "WORKER_DIED")


def test_kills_of_the_whole_listener_do_not_count_against_a_case(desk: Desk) -> None:
    close_case(desk, *study_files())
    for _ in range(10):
        row = cases.next_to_run(desk.database)
        assert row is not None
        assert cases.start_revision(desk.database, row)
    assert CaseWorker(desk.station, desk.database, StationConfig()).run_next() is True
    assert cases.case_of(desk.database, 1)[0].state is CaseState.DONE

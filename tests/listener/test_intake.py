"""When cases open, close, reopen and are held, and what a person can decide about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.support.listeners import LIMITS, TINY, study_files, wait_until_settled

from ctenrich.errors import UsageError
from ctenrich.listener import cases
from ctenrich.listener.cases import CaseState
from ctenrich.listener.catalog import StationCatalog
from ctenrich.listener.config import CloseRule, KeepRule, Peer
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.incoming import FileMeta, read_meta
from ctenrich.listener.intake import Intake
from ctenrich.listener.retention import delete_old_objects
from ctenrich.listener.station import Station
from ctenrich.listener.store import ObjectStore
from ctenrich.phantom import write_phantom_study
from ctenrich.select.sources import make_cohort

QUIET = CloseRule(when="quiet", seconds=60)


class Desk:
    """A station with a clock of its own."""

    def __init__(self, root: Path) -> None:
        self.station = Station.create(root)
        self.database = StationDatabase(self.station.database)
        self.rows = StationDatabase(self.station.database)
        self.store = ObjectStore(self.station, self.rows, LIMITS, settle_seconds=0)
        self.now = 1000.0
        self.intake: Intake
        self.use(QUIET)

    def use(self, rule: CloseRule, *peers: Peer) -> None:
        """Start with a rule, as a listener does."""
        self.intake = Intake(self.station, self.database, rule, peers=peers, clock=lambda: self.now)

    def put(self, *paths: Path, association: int = 1) -> None:
        """Store files."""
        for path in paths:
            incoming = self.store.begin()
            incoming.write(path.read_bytes())
            meta = read_meta(incoming.head)
            assert isinstance(meta, FileMeta)
            self.store.commit(incoming, meta, association)
        wait_until_settled(self.database)

    def ended(self, association: int, ending: str | None, at: float = 1.0, *, deadline: float | None = None) -> None:
        """Write the row of an association; None: it is still open."""
        with self.database.transaction() as db:
            values = (association, 3, deadline, 0.0, at if ending else None, ending or "")
            db.execute("INSERT OR REPLACE INTO associations VALUES (?, 'dicom', 'S', '::1', ?, ?, ?, ?, ?)", values)

    def pass_time(self, seconds: float) -> list[tuple[int, str]]:
        """Let time pass and the intake run; returns revision and state of case 1, the last first."""
        self.now += seconds
        self.intake.run_once()
        return [(row.revision, row.state.value) for row in cases.cases_of(self.database) if row.case == 1]

    def close(self) -> None:
        self.store.close()
        self.rows.close()
        self.database.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "station")
    yield made
    made.close()


def totals_hold(database: StationDatabase) -> bool:
    found = cases.totals(database)
    return found.planned == found.done + found.skipped + found.failed + found.open


def test_a_case_closes_after_its_quiet_time(desk: Desk) -> None:
    desk.put(*study_files()[:2])
    assert desk.pass_time(1) == [(1, "open")]
    assert desk.pass_time(59) == [(1, "open")]
    desk.put(study_files()[2])
    assert desk.pass_time(59) == [(1, "open")]
    assert desk.pass_time(59) == [(1, "open")]
    assert desk.pass_time(1) == [(1, "closed")]
    assert totals_hold(desk.database)


@pytest.mark.parametrize(("quiet", "closes_after"), [(300, 300), (10, 10)])
def test_a_sender_can_have_a_quiet_time_of_its_own(desk: Desk, quiet: float, closes_after: float) -> None:
    desk.use(QUIET, Peer(aet="S", host="::1", quiet=quiet), Peer(aet="FAST", host="::1"))
    desk.ended(1, "released")
    desk.put(study_files()[0])
    desk.pass_time(1)
    assert desk.pass_time(closes_after - 1) == [(1, "open")]
    assert desk.pass_time(1) == [(1, "closed")]


def test_a_wall_clock_that_jumps_closes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put(study_files()[0])
    desk.pass_time(1)
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert desk.pass_time(1) == [(1, "open")]


def test_the_quiet_time_begins_anew_with_a_new_listener(desk: Desk) -> None:
    desk.put(study_files()[0])
    desk.pass_time(50)
    desk.use(QUIET)
    assert desk.pass_time(59) == [(1, "open")]
    assert desk.pass_time(1) == [(1, "closed")]


def test_an_image_before_the_run_reopens_the_revision(desk: Desk) -> None:
    desk.put(study_files()[0])
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "closed")]
    desk.put(study_files()[1])
    assert desk.pass_time(1) == [(1, "open")]


@pytest.mark.parametrize("state", [CaseState.RUNNING, CaseState.DONE, CaseState.FAILED, CaseState.SKIPPED])
def test_an_image_after_the_start_of_the_run_opens_the_next_revision(desk: Desk, state: CaseState) -> None:
    desk.put(study_files()[0])
    desk.pass_time(1)
    desk.pass_time(60)
    row = cases.next_to_run(desk.database)
    assert row is not None
    assert cases.start_revision(desk.database, row)
    if state is not CaseState.RUNNING:
        cases.end_revision(desk.database, row, state)
    desk.put(study_files()[1])
    assert desk.pass_time(1) == [(2, "open"), (1, state.value)]
    last, first = cases.case_of(desk.database, 1)
    assert (last.images, first.images) == (2, 1)
    assert totals_hold(desk.database)


def test_the_same_image_again_changes_nothing(desk: Desk) -> None:
    desk.put(study_files()[0])
    desk.pass_time(1)
    desk.pass_time(60)
    desk.put(study_files()[0])
    assert desk.pass_time(1) == [(1, "closed")]


def test_an_abort_never_closes_and_the_release_of_its_repetition_does(desk: Desk) -> None:
    desk.use(CloseRule(when="association"))
    desk.ended(1, None)
    desk.put(*study_files()[:3], association=1)
    assert desk.pass_time(1000) == [(1, "open")]
    desk.ended(1, "aborted", at=1.0)
    assert desk.pass_time(1000) == [(1, "open")]
    desk.ended(2, "released", at=2.0)
    desk.put(*study_files()[:3], association=2)  # the same objects again
    assert desk.pass_time(1) == [(1, "closed")]


def test_a_case_does_not_close_before_the_last_image_of_its_association_is_on_disk(desk: Desk) -> None:
    desk.use(CloseRule(when="association"))
    desk.put(*study_files()[:2])
    desk.ended(1, "released")
    with desk.database.transaction() as db:
        db.execute("INSERT INTO unsettled SELECT max(id) FROM instances")
    assert desk.pass_time(1) == [(1, "open")]
    assert [row.images for row in cases.cases_of(desk.database)] == [1]
    with desk.database.transaction() as db:
        db.execute("DELETE FROM unsettled")
    assert desk.pass_time(1) == [(1, "closed")]
    assert [row.images for row in cases.cases_of(desk.database)] == [2]


def test_one_of_two_associations_that_is_open_keeps_the_case_open(desk: Desk) -> None:
    desk.use(CloseRule(when="association"))
    desk.put(study_files()[0], association=1)
    desk.put(study_files()[1], association=2)
    desk.ended(1, "released", at=1.0)
    desk.ended(2, None)
    assert desk.pass_time(1) == [(1, "open")]
    desk.ended(2, "released", at=2.0)
    assert desk.pass_time(1) == [(1, "closed")]


def test_expected_modalities_close_a_case_once_all_are_there(desk: Desk, tmp_path: Path) -> None:
    desk.use(CloseRule(when="expect", roles=("CT", "MR"), seconds=10))
    desk.put(*study_files())
    assert desk.pass_time(1000) == [(1, "open")]
    other = dcmread(study_files()[0])
    other.Modality, other.SeriesInstanceUID = "MR", "1.2.3.4"
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.5"
    other.save_as(tmp_path / "other.dcm")
    desk.put(tmp_path / "other.dcm")
    assert desk.pass_time(9) == [(1, "open")]
    assert desk.pass_time(10) == [(1, "closed")]


@pytest.mark.parametrize(("then", "state"), [("run", "closed"), ("discard", "skipped"), ("wait", "waiting")])
def test_what_follows_after_the_longest_time(desk: Desk, then: str, state: str) -> None:
    desk.use(replace(CloseRule(when="expect", roles=("PT",), at_most=600), then=then))
    desk.put(study_files()[0])
    assert desk.pass_time(1) == [(1, "open")]
    for _ in range(20):
        desk.pass_time(29)
    assert desk.pass_time(30) == [(1, state)]
    assert cases.case_of(desk.database, 1)[0].reason == "AT_MOST"
    assert totals_hold(desk.database)


def test_held_cases_neither_close_nor_run(desk: Desk) -> None:
    desk.put(study_files()[0])
    desk.pass_time(1)
    cases.hold(desk.database, 1)
    assert desk.pass_time(1000) == [(1, "open")]
    cases.release(desk.database, 1)
    assert desk.pass_time(1) == [(1, "closed")]
    cases.hold(desk.database, 1)
    assert cases.next_to_run(desk.database) is None
    assert [row.held for row in cases.cases_of(desk.database, states=("held",))] == ["BY_HAND"]


def test_a_drop_and_a_replay(desk: Desk) -> None:
    desk.put(study_files()[0])
    desk.pass_time(1)
    with pytest.raises(UsageError, match="it runs anyway"):
        cases.replay(desk.database, 1)
    cases.drop(desk.database, 1)
    assert desk.pass_time(1) == [(1, "skipped")]
    with pytest.raises(UsageError, match="cannot be dropped"):
        cases.drop(desk.database, 1)
    assert cases.replay(desk.database, 1) == 2
    row = cases.next_to_run(desk.database)
    assert row is not None
    assert (row.revision, row.images) == (2, 1)
    with pytest.raises(UsageError, match="NOT_FOUND"):
        cases.hold(desk.database, 99)


def test_cases_of_a_higher_priority_run_first(desk: Desk) -> None:
    for number, seed in enumerate((1, 2, 3), 1):
        desk.ended(number, "released")
        desk.put(study_files(seed)[0], association=number)
    with desk.database.transaction() as db:
        db.execute("UPDATE associations SET priority = 5 WHERE id = 2")
    desk.pass_time(1)
    desk.pass_time(60)
    row = cases.next_to_run(desk.database)
    assert row is not None
    assert (row.case, row.priority) == (2, 5)


def test_of_one_priority_the_earliest_deadline_runs_first(desk: Desk) -> None:
    for number, (seed, deadline) in enumerate([(1, None), (2, 900.0), (3, 500.0)], 1):
        desk.ended(number, "released", deadline=deadline)
        desk.put(study_files(seed)[0], association=number)
    desk.pass_time(1)
    desk.pass_time(60)
    order = []
    while (row := cases.next_to_run(desk.database)) is not None:
        order.append(row.case)
        cases.start_revision(desk.database, row)
        cases.end_revision(desk.database, row, CaseState.DONE)
    assert order == [3, 2, 1]


def test_an_object_without_a_study_is_held(desk: Desk, tmp_path: Path) -> None:
    other = dcmread(study_files()[0])
    del other.StudyInstanceUID
    other.save_as(tmp_path / "other.dcm")
    desk.put(tmp_path / "other.dcm")
    desk.pass_time(1)
    assert [row.held for row in cases.cases_of(desk.database)] == ["NO_STUDY"]


def contours_of_another_study(folder: Path) -> tuple[list[Path], Path]:
    """Slices, and their structure set with a study of its own."""
    write_phantom_study(folder, replace(TINY, rtstruct=True))
    paths = {path: dcmread(path, stop_before_pixels=True).Modality for path in sorted(folder.rglob("*.dcm"))}
    contours = next(path for path, modality in paths.items() if modality == "RTSTRUCT")
    dataset = dcmread(contours)
    dataset.StudyInstanceUID = "1.2.3.4"
    dataset.save_as(contours)
    return [path for path, modality in paths.items() if modality == "CT"], contours


def cases_and_objects(desk: Desk) -> list[tuple[int, str, str, int]]:
    return [(row.case, row.state.value, row.reason, row.images) for row in reversed(cases.cases_of(desk.database))]


def test_contours_of_another_study_go_to_the_case_of_their_images(desk: Desk, tmp_path: Path) -> None:
    slices, contours = contours_of_another_study(tmp_path / "dicom")
    desk.use(CloseRule(when="expect", roles=("CT", "RTSTRUCT"), seconds=10))
    desk.put(*slices)
    desk.pass_time(1)
    assert desk.pass_time(1000) == [(1, "open")]
    desk.put(contours)
    desk.pass_time(1)
    desk.pass_time(10)
    assert cases_and_objects(desk) == [(1, "closed", "", 7)]
    assert totals_hold(desk.database)


@pytest.mark.parametrize("restart", [False, True])
def test_contours_that_come_before_their_images_move_to_their_case(desk: Desk, tmp_path: Path, restart: bool) -> None:
    slices, contours = contours_of_another_study(tmp_path / "dicom")
    desk.put(contours)
    desk.pass_time(1)
    if restart:
        desk.use(QUIET)
    desk.put(*study_files(3)[:1])
    desk.put(*slices)
    desk.pass_time(1)
    assert cases_and_objects(desk) == [(1, "skipped", "MOVED", 0), (2, "open", "", 1), (3, "open", "", 7)]
    assert '"event": "companion moved", "case": 3, "before": 1' in desk.station.audit.read_text()
    assert totals_hold(desk.database)


def test_contours_stay_in_a_case_that_is_held(desk: Desk, tmp_path: Path) -> None:
    slices, contours = contours_of_another_study(tmp_path / "dicom")
    desk.put(contours)
    desk.pass_time(1)
    cases.hold(desk.database, 1)
    desk.put(*slices)
    desk.pass_time(1)
    assert cases_and_objects(desk) == [(1, "open", "", 1), (2, "open", "", 6)]


def test_headers_go_to_the_catalog_and_can_be_selected_from(desk: Desk, tmp_path: Path) -> None:
    import duckdb

    desk.put(*study_files())
    desk.pass_time(1)
    catalog = StationCatalog(desk.station, desk.database, clock=lambda: desk.now)
    assert catalog.update() == len(study_files())
    desk.now += 10
    assert catalog.update() == 0
    with duckdb.connect(str(desk.station.catalog), read_only=True) as connection:
        found = connection.execute("SELECT count(*), count(DISTINCT SeriesInstanceUID) FROM dicom_all").fetchone()
    assert found == (len(study_files()), 1)
    selected = make_cohort(f"folder:{desk.station.catalog}", tmp_path / "selected")
    assert (selected.selected, selected.excluded) == (1, ())


def test_old_objects_are_deleted_and_can_come_again(desk: Desk) -> None:
    desk.put(study_files()[0])
    desk.pass_time(1)
    assert delete_old_objects(desk.station, desk.database, KeepRule(days=1)) == []
    cases.drop(desk.database, 1)
    with desk.database.transaction() as db:
        db.execute("UPDATE revisions SET ended = ended - 100000")
    assert delete_old_objects(desk.station, desk.database, KeepRule(days=1)) == [1]
    assert [path for path in desk.station.received.rglob("*.dcm") if path.stat().st_size] == []
    desk.put(study_files()[0])
    assert desk.pass_time(1) == [(2, "open"), (1, "skipped")]

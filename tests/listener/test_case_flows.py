"""Flows decide when a case closes and what runs on it: each rule, late images, bad files, replays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from textwrap import dedent

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from tests.listener.test_intake import Desk
from tests.support.cohorts import TINY, result_hashes
from tests.support.listeners import study_files
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.flows import running
from ctenrich.flows.running import End, EndState
from ctenrich.listener import cases
from ctenrich.listener.case_flows import CaseFlows, case_flows
from ctenrich.listener.cases import CaseState
from ctenrich.listener.config import CloseRule, Peer, RunRequest, StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.flow_rows import flow_rows
from ctenrich.listener.intake import Intake
from ctenrich.listener.worker import CaseWorker
from ctenrich.phantom import write_phantom_study
from ctenrich.runner.run import INPUT
from ctenrich.select.sources import make_cohort

QUIET = CloseRule(when="quiet", seconds=60)
CT = "triggers: [{Modality: [^CT$]}]\nmodels: [{use: expert}]\n"
PET_CT = """
roles:
  CT: {Modality: [^CT$]}
  PET: {Modality: [^PT$]}
close: {expect: [CT, PET], seconds: 30, at_most: 6h, then: %s}
models: [{use: expert}]
"""


@cache
def other_series(modality: str, description: str = "") -> Path:
    """A file of another modality in the study of `study_files`."""
    data = dcmread(study_files()[0])
    data.Modality, data.SeriesDescription, data.SpecificCharacterSet = modality, description, "ISO_IR 192"
    data.SeriesInstanceUID, data.SOPInstanceUID = generate_uid(), generate_uid()
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path = Path(mkdtemp(prefix="ctenrich-series-")) / "one.dcm"
    data.save_as(path)
    return path


class FlowDesk(Desk):
    """A station whose flows are files of a folder."""

    def __init__(self, root: Path, flows: dict[str, str]) -> None:
        self.folder = root.parent / "flows"
        self.folder.mkdir(exist_ok=True)
        for name, text in flows.items():
            self.write(name, text)
        super().__init__(root)

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.yaml").write_text(dedent(text))

    def config(self, **values: object) -> StationConfig:
        return StationConfig(flows=str(self.folder), close=self.rule, **values)

    def case_flows(self) -> CaseFlows:
        flows = case_flows(self.station, self.database, self.config())
        assert flows is not None
        return flows

    def use(self, rule: CloseRule) -> None:
        self.rule = rule
        self.flows = self.case_flows()
        self.intake = Intake(self.station, self.database, rule, flows=self.flows, clock=lambda: self.now)

    def worker(self, config: StationConfig | None = None) -> CaseWorker:
        return CaseWorker(self.station, self.database, config or self.config(), self.case_flows())

    def states(self, revision: int = 1) -> dict[str, str]:
        return {row.flow: row.state.value for row in flow_rows(self.database, 1, revision)}


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[object]:
    made: list[FlowDesk] = []

    def make(**flows: str) -> FlowDesk:
        made.append(FlowDesk(tmp_path / "station", flows))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Runs that end at once; returns the folders of their images."""
    ran: list[Path] = []

    def run(images: Path, out: Path, request: RunRequest) -> End:
        ran.append(images)
        assert request.segmenters == ("expert",)
        return End(EndState.DONE, "", "ran")

    monkeypatch.setattr(running, "run_products", run)
    return ran


def test_a_flow_closes_the_case_after_the_stations_quiet_time(make_desk, quick_runs: list[Path]) -> None:
    desk = make_desk(lungs=CT)
    desk.put(*study_files(), other_series("PT"))
    assert desk.pass_time(1) == [(1, "open")]
    assert desk.pass_time(59) == [(1, "open")]
    assert desk.pass_time(1) == [(1, "closed")]
    assert desk.states() == {"lungs": "planned"}
    assert desk.worker().run_next() is True
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.message) == (CaseState.DONE, "lungs: done (ran)")
    (images,) = quick_runs
    assert images == desk.station.revision(1, 1) / "flows/lungs/images/src"
    ct_files = {path.read_bytes() for path in study_files() if dcmread(path).Modality == "CT"}
    assert {path.read_bytes() for path in images.iterdir()} == ct_files


def test_a_flow_that_waits_for_a_role_does_not_delay_another(make_desk, quick_runs: list[Path]) -> None:
    desk = make_desk(lungs=CT, petct=PET_CT % "discard")
    desk.put(*study_files())
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "closed")]
    assert desk.states() == {"lungs": "planned", "petct": "not fired"}
    assert desk.worker().run_next() is True
    assert cases.case_of(desk.database, 1)[0].message == "lungs: done (ran); petct: not fired (no match: role PET)"
    desk.put(other_series("PT"))
    desk.pass_time(1)
    assert desk.pass_time(30)[0] == (2, "open"), "the flow of the CT may still get images"
    assert desk.pass_time(30)[0] == (2, "closed")
    assert desk.states(2) == {"lungs": "unchanged", "petct": "planned"}
    assert desk.worker().run_next() is True
    assert [path.parent.parent.name for path in quick_runs] == ["lungs", "petct"]
    assert cases.case_of(desk.database, 1)[0].state is CaseState.DONE


def test_a_flow_runs_again_when_its_input_has_grown(make_desk, quick_runs: list[Path]) -> None:
    desk = make_desk(lungs=CT)
    desk.put(*study_files()[:3])
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.worker().run_next() is True
    desk.put(*study_files()[3:])
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.states(2) == {"lungs": "planned"}
    assert desk.worker().run_next() is True
    assert len(quick_runs) == 2


def test_each_flow_has_its_own_quiet_time_and_the_longest_counts(make_desk) -> None:
    desk = make_desk(quick="close: {seconds: 5}\n" + CT, slow="close: {seconds: 90}\n" + CT)
    desk.put(*study_files())
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "open")]
    assert desk.pass_time(30) == [(1, "closed")]
    assert desk.states() == {"quick": "planned", "slow": "planned"}


def test_roles_come_over_several_associations(make_desk, quick_runs: list[Path]) -> None:
    desk = make_desk(petct=PET_CT % "wait")
    desk.put(*study_files(), association=1)
    desk.ended(1, "released")
    desk.pass_time(1)
    assert desk.pass_time(3600) == [(1, "open")]
    desk.put(other_series("PT"), association=2)
    desk.pass_time(1)
    assert desk.pass_time(29) == [(1, "open")]
    assert desk.pass_time(1) == [(1, "closed")]
    (row,) = flow_rows(desk.database, 1, 1)
    assert len(row.roles["PET"]) == 1
    assert set(row.files) == set(row.roles["CT"]) | set(row.roles["PET"])


@pytest.mark.parametrize(("then", "state"), [("discard", "skipped"), ("wait", "waiting"), ("run", "closed")])
def test_what_follows_when_a_role_does_not_come(make_desk, then: str, state: str, quick_runs: list[Path]) -> None:
    desk = make_desk(petct=PET_CT % then)
    desk.put(*study_files())
    desk.pass_time(1)
    assert desk.pass_time(6 * 3600 - 2) == [(1, "open")]
    assert desk.pass_time(2) == [(1, state)]
    if then == "run":
        assert desk.worker().run_next() is True
        row = cases.case_of(desk.database, 1)[0]
        assert (row.state, row.reason, row.message) == (
            CaseState.SKIPPED, "NO_FLOW", "petct: not fired (no match: role PET)",
        )  # fmt: skip
        assert not quick_runs, "a flow never runs without a role"


def test_never_excludes_the_case_and_a_fallback_takes_what_is_left(make_desk, quick_runs: list[Path]) -> None:
    desk = make_desk(
        lungs="never: [{SeriesDescription: ['(?i)qa phantom']}]\n" + CT,
        rest="fallback: true\n" + CT.replace("^CT$", "."),
    )
    desk.put(*study_files(), other_series("CT", "QA Phantom"))
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "closed")]
    assert desk.states() == {"lungs": "not fired", "rest": "planned"}
    (failure,) = next(row for row in flow_rows(desk.database, 1, 1) if row.flow == "lungs").failures
    assert (failure["part"], failure["text"]) == ("never 1", "QA Phantom")


def test_a_study_that_no_flow_wants_ends_by_the_rule_of_the_station(make_desk, quick_runs: list[Path]) -> None:
    desk = make_desk(mr=CT.replace("CT", "MR"))
    desk.put(*study_files())
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "closed")]
    assert desk.worker().run_next() is True
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason, row.message) == (CaseState.SKIPPED, "NO_FLOW", "no flow wants it")
    assert not quick_runs


def test_the_rule_association_of_a_flow(make_desk) -> None:
    desk = make_desk(lungs="close: association\n" + CT)
    desk.put(*study_files(), association=4)
    desk.ended(4, None)
    assert desk.pass_time(30) == [(1, "open")]
    desk.ended(4, "aborted")
    assert desk.pass_time(1) == [(1, "open")]
    desk.ended(5, "released", at=2.0)
    desk.put(other_series("PT"), association=5)
    assert desk.pass_time(1) == [(1, "closed")]


def test_a_slow_pattern_fails_its_flow_alone(make_desk, quick_runs: list[Path], monkeypatch) -> None:
    monkeypatch.setattr("ctenrich.flows.patterns.SEARCH_SECONDS", 0.05)
    slow = "triggers: [{SeriesDescription: ['^(?:[\u0101]+)+C']}]\nmodels: [{use: expert}]\n"
    desk = make_desk(lungs=CT, slow=slow)
    desk.put(*study_files(), other_series("PT", "\u0101" * 60))
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "closed")]
    assert desk.states() == {"lungs": "planned", "slow": "failed"}
    assert desk.worker().run_next() is True
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.FAILED, "SLOW_PATTERN")
    assert len(quick_runs) == 1


def test_an_interrupted_flow_goes_on_and_what_has_ended_is_not_repeated(make_desk, monkeypatch) -> None:
    ends = iter([EndState.DONE, EndState.INTERRUPTED, EndState.DONE])
    ran: list[str] = []

    def run(images: Path, out: Path, request: RunRequest) -> End:
        ran.append(images.parent.parent.name)
        return End(next(ends))

    monkeypatch.setattr(running, "run_products", run)
    desk = make_desk(first="priority: 4\n" + CT, second=CT)
    desk.put(*study_files())
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.worker().run_next() is None
    assert desk.states() == {"first": "done", "second": "running"}
    assert desk.worker().run_next() is True
    assert ran == ["first", "second", "second"]
    assert cases.case_of(desk.database, 1)[0].state is CaseState.DONE


def test_a_replay_runs_the_flows_of_today(make_desk, quick_runs: list[Path]) -> None:
    desk = make_desk(lungs=CT)
    desk.put(*study_files())
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.worker().run_next() is True
    desk.write("bones", CT)
    assert cases.replay(desk.database, 1) == 2
    assert desk.worker().run_next() is True
    assert desk.states(2) == {"bones": "done", "lungs": "done"}
    assert len(quick_runs) == 3


def test_a_file_that_changes_is_used_from_then_on(make_desk, monkeypatch) -> None:
    monkeypatch.setattr("ctenrich.listener.case_flows._RELOAD_SECONDS", 0.0)
    desk = make_desk(lungs=CT)
    desk.put(*study_files())
    desk.pass_time(1)
    desk.write("lungs", CT.replace("CT", "MR"))
    desk.pass_time(1)
    desk.write("lungs", "triggers: []\n")
    assert desk.pass_time(60) == [(1, "closed")]
    assert desk.states() == {"lungs": "not fired"}, "a bad file keeps its last good version"


def test_flows_and_segmenters_exclude_each_other(tmp_path: Path) -> None:
    config = StationConfig(flows=str(tmp_path), peers=(Peer(aet="*", host="127.0.0.1"),))
    config.check()
    with pytest.raises(UsageError, match="flows state what runs"):
        replace(config, run=RunRequest(segmenters=("expert",))).check()
    with pytest.raises(UsageError, match="there is no folder"):
        replace(config, flows=str(tmp_path / "none")).check()


@pytest.mark.long
def test_a_flow_gives_the_bytes_of_a_run_on_its_images(make_desk, tmp_path: Path) -> None:
    desk = make_desk()
    write_phantom_study(tmp_path / "dicom", TINY)
    cohort = make_cohort(str(tmp_path / "dicom"), tmp_path / "run" / INPUT)
    desk.write("lungs", CT.replace("^CT$", "^(CT|RTSTRUCT)$"))
    steps.run_all(steps.start(cohort.path, tmp_path / "run", segmenters=["expert"]))
    desk.use(QUIET)
    desk.put(*sorted((tmp_path / "dicom").rglob("*.dcm")), other_series("PT"))
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.worker().run_next() is True
    assert desk.states() == {"lungs": "done"}, flow_rows(desk.database, 1, 1)
    found = result_hashes(desk.station.revision(1, 1) / "flows/lungs/run")
    assert found == result_hashes(tmp_path / "run")
    assert len(found) > 2
    flow = str(desk.folder / "lungs.yaml")
    for name in (str(tmp_path / "dicom"), str(cohort.path)):
        out = tmp_path / "out"
        done = CliRunner().invoke(app, ["flow", "run", flow, name, "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert {**found} == result_hashes(next((out / "studies").iterdir()) / "run")
        assert (out / "studies.csv").read_text().splitlines()[1].split(",")[1] == "done"
        out.rename(tmp_path / f"out-{Path(name).name}")


def test_a_station_of_an_earlier_version_gets_the_tables_of_flows(make_desk) -> None:
    desk = make_desk(lungs=CT)
    with desk.database.transaction() as db:
        db.execute("DROP TABLE case_flows")
        db.execute("DROP TABLE flow_files")
        db.execute("PRAGMA user_version = 1")
    with StationDatabase(desk.station.database) as database:
        assert flow_rows(database, 1, 1) == []
        assert database.value("PRAGMA user_version") == 3

"""Shadows and replays: flows that run on a case, send nothing, and are compared with what the case has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.listener.test_case_flows import CT, QUIET, FlowDesk, other_series
from tests.support.cohorts import TINY
from tests.support.listeners import study_files
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.delivery.decisions import delivery_rows
from ctenrich.delivery.destination import Destination, Hook
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.errors import UsageError
from ctenrich.evaluate.evaluation import RunSource, compare_sources
from ctenrich.flows import running
from ctenrich.flows.comparison import COMPARISON, compare_results, read_comparison
from ctenrich.flows.errors import BadFlowError
from ctenrich.flows.reader import parse_flow
from ctenrich.flows.request import RunRequest
from ctenrich.flows.running import End, EndState, results_of
from ctenrich.listener import cases
from ctenrich.listener.cases import CaseState
from ctenrich.listener.config import StationConfig
from ctenrich.listener.flow_rows import flow_rows
from ctenrich.listener.replays import replay_with_flows
from ctenrich.phantom import write_phantom_study
from ctenrich.runner.run import Run

SHADOW = "shadow: true\npriority: 5\n" + CT
EVERYTHING = CT.replace("^CT$", "^(CT|RTSTRUCT)$")


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
def ends(monkeypatch: pytest.MonkeyPatch) -> dict[str, EndState]:
    """Runs that make two objects; how those of a flow end is set by its name."""
    found: dict[str, EndState] = {}

    def run(images: Path, out: Path, asked: RunRequest) -> End:
        folder = out / "series" / "1.2.3" / "expert" / "objects"
        folder.mkdir(parents=True, exist_ok=True)
        for path in study_files(78)[:2]:
            shutil.copy(path, folder)
        return End(found.get(images.parent.parent.name, EndState.DONE))

    monkeypatch.setattr(running, "run_products", run)
    return found


def config_that_sends(desk: FlowDesk) -> StationConfig:
    pacs = Destination(name="pacs", address="dicom://10.9.9.9:104/PACS", hold=False)
    hook = Hook(name="chat", address="https://chat.example.org/", events=("done", "failed"))
    return desk.config(destinations=(pacs,), hooks=(hook,), return_to_sender_on_ports=(104,))


def close_and_run(desk: FlowDesk, config: StationConfig) -> None:
    desk.put(*study_files())
    desk.ended(1, "released")
    desk.pass_time(1)
    assert desk.pass_time(60) == [(1, "closed")]
    assert desk.worker(config).run_next() is True


def sent(desk: FlowDesk) -> set[str]:
    """Flows of which something is sent, held or announced."""
    if not desk.station.deliveries.exists():
        return set()
    with DeliveryQueue(desk.station.deliveries) as queue:
        messages = queue.database.rows("SELECT message FROM notifications")
        return {row.flow for row in delivery_rows(queue)} | {name for row in messages for name in ("shade", "lungs")
                                                             if f'"{name}"' in row["message"]}  # fmt: skip


@pytest.mark.parametrize("end", [EndState.DONE, EndState.FAILED])
def test_a_shadow_sends_nothing_and_does_not_decide_how_the_case_ends(make_desk, ends, end: EndState) -> None:
    ends["shade"] = end
    desk = make_desk(lungs=CT, shade=SHADOW)
    close_and_run(desk, config_that_sends(desk))
    assert cases.case_of(desk.database, 1)[0].state is CaseState.DONE
    assert desk.states() == {"lungs": "done", "shade": end.value}
    assert sent(desk) == {"lungs"}
    if end is EndState.DONE:
        row = next(one for one in flow_rows(desk.database, 1, 1) if one.flow == "shade")
        assert "shadow, compared with lungs" in row.message
        (compared,) = read_comparison(desk.station.revision(1, 1) / "flows/shade" / COMPARISON)
        assert (compared.quantity, compared.old, compared.new) == ("objects", 2, 2)


def test_a_shadow_neither_keeps_a_fallback_from_firing_nor_takes_a_case_alone(make_desk, ends) -> None:
    desk = make_desk(shade=SHADOW, rest="fallback: true\n" + CT)
    close_and_run(desk, config_that_sends(desk))
    assert desk.states() == {"rest": "done", "shade": "done"}
    assert sent(desk) == {"rest"}


def test_a_case_that_only_a_shadow_wants_is_skipped(make_desk, ends) -> None:
    desk = make_desk(shade=SHADOW)
    close_and_run(desk, config_that_sends(desk))
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.SKIPPED, "NO_FLOW")
    assert desk.states() == {"shade": "done"}
    assert sent(desk) == set()


@pytest.mark.parametrize(
    "key", ["destinations: [{folder: /a}]", "return_to_sender_on_ports: [1]", "close: quiet", "fallback: true"]
)
def test_what_a_shadow_never_does_is_refused(key: str) -> None:
    with pytest.raises(BadFlowError, match=r"line 5, column .* of a flow with shadow: true has no effect"):
        parse_flow(f"{SHADOW}{key}".encode(), Path("shade.yaml"))


def test_a_replay_with_other_flows_changes_nothing_of_the_case(make_desk, ends, tmp_path: Path) -> None:
    desk = make_desk(lungs=CT)
    close_and_run(desk, config_that_sends(desk))
    before = sent(desk), cases.case_of(desk.database, 1), flow_rows(desk.database, 1, 1)
    new = tmp_path / "new"
    new.mkdir()
    (new / "lungs.yaml").write_text("version: 2\ndestinations: [{folder: /out}]\n" + CT)
    (new / "bones.yaml").write_text(CT)
    (new / "mr.yaml").write_text(CT.replace("CT", "MR"))
    found = list(replay_with_flows(desk.station, desk.database, 1, new, RunRequest()))
    assert [(one.flow, one.end.state, one.table is not None) for one in found] == [
        ("bones", EndState.DONE, False), ("lungs", EndState.DONE, True),
    ]  # fmt: skip
    assert (sent(desk), cases.case_of(desk.database, 1), flow_rows(desk.database, 1, 1)) == before
    (new / "bad.yaml").write_text("triggers: []\n")
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        list(replay_with_flows(desk.station, desk.database, 1, new, RunRequest()))
    (new / "bad.yaml").unlink()
    desk.put(other_series("PT"))
    desk.pass_time(1)
    with pytest.raises(UsageError, match="may still come"):
        list(replay_with_flows(desk.station, desk.database, 1, new, RunRequest()))


@pytest.mark.long
def test_a_new_version_beside_the_old_one_with_the_demonstration_model(make_desk, tmp_path: Path) -> None:
    desk = make_desk(lungs=EVERYTHING)
    desk.use(QUIET)
    write_phantom_study(tmp_path / "dicom", TINY)
    desk.put(*sorted((tmp_path / "dicom").rglob("*.dcm")))
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.worker().run_next() is True
    old = desk.station.revision(1, 1) / "flows/lungs"
    same = compare_results(results_of(old), results_of(old), ("new", "old"))
    assert {one.dice for one in same if one.quantity == "mask"} == {1.0}
    assert {one.difference for one in same} == {0.0}
    assert len({one.quantity for one in same}) > 5
    new = tmp_path / "new"
    new.mkdir()
    (new / "lungs.yaml").write_text(EVERYTHING.replace("use: expert", "use: 'nnunet:demo-organs'"))
    done = CliRunner().invoke(app, ["cases", str(desk.station.root), "replay", "1", "--flows", str(new)])
    assert done.exit_code == 0, done.output
    assert "Compared results" in done.output
    (table,) = desk.station.cases.glob("*/replays/1/lungs/comparison.csv")
    rows = read_comparison(table)
    dice = {one.structure: one.dice for one in rows if one.dice is not None}
    sources = [
        RunSource(workspace=run.workspace, settings=run.config.settings, cohort=run.cohort)
        for run in map(Run.open, (old / "run", table.parent / "run"))
    ]
    expected = {one.segment: one.metrics.dice for one in compare_sources(sources).masks}
    assert dice == pytest.approx(expected)
    assert len(dice) > 1
    done = CliRunner().invoke(app, ["cases", str(desk.station.root), "compare", "1", "--csv"])
    assert done.output.count("\n") == 1 + len(rows)
    assert len(cases.case_of(desk.database, 1)) == 1
    assert sent(desk) == set()

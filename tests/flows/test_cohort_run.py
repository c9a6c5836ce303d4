"""A flow on a folder, catalog or cohort: which studies it runs on, that it goes on, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import need_package
from tests.listener.test_case_flows import CT, other_series
from tests.runner.test_ray import cluster
from tests.support.cohorts import make_cohort
from tests.support.listeners import study_files, wait_for
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.flows import cohort_run
from ctenrich.flows.cohort_run import StudyEnd, run_on_cohort
from ctenrich.flows.reader import parse_flow
from ctenrich.flows.records import Flow
from ctenrich.flows.running import End, EndState, FlowEnd, RunRequest
from ctenrich.workspace import sha256_of_file

__all__ = ["cluster"]

CONTOURS = "triggers: [{Modality: [^CT$]}, {Modality: [^RTSTRUCT$]}]\nmodels: [{use: expert}]\n"
PETCT = "roles: {CT: {Modality: [^CT$]}, PET: {Modality: [^PT$]}}\nmodels: [{use: expert}]\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, path in enumerate([*study_files(), other_series("PT")]):
        (folder / f"{number}.dcm").write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Flows that end at once; returns the number of files of each source."""
    found: list[dict[str, int]] = []

    def run(flow: Flow, sources: Mapping[str, Mapping[str, Path]], folder: Path, request: RunRequest) -> FlowEnd:
        found.append({name: len(files) for name, files in sources.items()})
        return FlowEnd(end=End(EndState.DONE, "", "ran"))

    monkeypatch.setattr(cohort_run, "run_flow", run)
    return found


def run_on(text: str, source: str, out: Path, request: RunRequest | None = None) -> list[StudyEnd]:
    content = text.encode()
    flow = parse_flow(content, Path("lungs.yaml"))
    return list(run_on_cohort(flow, content, source, out, request or RunRequest()))


def test_sources_and_roles_of_a_study(images: Path, tmp_path: Path, ran: list[dict[str, int]]) -> None:
    number = len(study_files())
    (end,) = run_on(PETCT, str(images), tmp_path / "out")
    assert (end.state, end.images, end.message) == ("done", number + 1, "ran")
    assert ran == [{"src": number + 1, "CT": number, "PET": 1}]
    (again,) = run_on(PETCT, f"folder:{tmp_path / 'out' / 'catalog.duckdb'}", tmp_path / "again")
    assert again == end
    assert ran[1] == ran[0]
    (other,) = run_on(CT.replace("CT", "MR"), str(images), tmp_path / "mr")
    assert (other.state, other.message) == ("not fired", "trigger 1")
    assert len(ran) == 2
    assert "not fired" in (tmp_path / "mr" / "studies.csv").read_text()


def test_results_of_other_input_are_never_taken_for_those_of_this_one(
    images: Path, tmp_path: Path, ran: list[dict[str, int]]
) -> None:
    out = tmp_path / "out"
    run_on(CT, str(images), out)
    assert run_on(CT, str(images), out)[0].state == "done"
    with pytest.raises(UsageError, match="another flow"):
        run_on(PETCT, str(images), out)
    (images / "0.dcm").write_bytes((images / "1.dcm").read_bytes())
    with pytest.raises(UsageError, match="have changed"):
        run_on(CT, str(images), out)
    with pytest.raises(UsageError, match="other files"):
        run_on(CT, str(images), images)
    with pytest.raises(UsageError, match="inside the folder"):
        run_on(CT, str(images), images / "out")
    with pytest.raises(UsageError, match="no cohort or folder"):
        run_on(CT, str(tmp_path / "none"), tmp_path / "other")


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 1), ("interrupted", 3)])
def test_the_exit_code(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, code: int) -> None:
    def run(*_: object) -> FlowEnd:
        return FlowEnd(end=End(EndState(state), "NO_CT" if state == "failed" else ""))

    monkeypatch.setattr(cohort_run, "run_flow", run)
    (tmp_path / "lungs.yaml").write_text(CT)
    words = ["flow", "run", str(tmp_path / "lungs.yaml"), str(images), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output
    assert f"1 {state}" in result.output


def test_a_flow_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lungs.yaml").write_text("triggers: []\n")
    words = ["flow", "run", str(tmp_path / "lungs.yaml"), str(tmp_path), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words).exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_two_nodes_of_ray_of_which_one_is_killed_give_the_bytes_of_this_machine(tmp_path: Path, cluster: Any) -> None:
    need_package("ray", "ray")
    cohort = make_cohort(tmp_path / "cohort", 2)
    local, out = tmp_path / "local", tmp_path / "out"
    assert [(one.state, one.reason) for one in run_on(CONTOURS, str(cohort), local)] == [("done", "")] * 2
    second = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    killed = threading.Event()

    def kill_once_it_runs() -> None:
        wait_for(lambda: any(out.glob("studies/*/run/log.jsonl")), 300)
        cluster.remove_node(second, allow_graceful=False)
        killed.set()

    thread = threading.Thread(target=kill_once_it_runs)
    thread.start()
    ended = run_on(CONTOURS, str(cohort), out, RunRequest(executor="ray", address=cluster.address))
    thread.join()
    assert killed.is_set()
    assert [(one.state, one.reason) for one in ended] == [("done", "")] * 2
    assert objects(out) == objects(local)
    assert len(objects(local)) >= 4


def objects(out: Path) -> dict[str, str]:
    """Path of each object of a run of a flow -> its hash."""
    found = sorted(out.glob("studies/*/run/series/*/*/objects/*.dcm"))
    return {str(path.relative_to(out)): sha256_of_file(path) for path in found}

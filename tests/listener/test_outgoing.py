"""Results of cases on their way out: queued with the end of the case, held, returned to their senders, released."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import need_program
from tests.listener.test_intake import Desk
from tests.listener.test_listen import listener, storescu
from tests.listener.test_worker import close_case
from tests.publish.test_objects import free_port, program
from tests.support.listener_kills import SLICES, kill_all
from tests.support.listeners import study_files, uid_of, wait_for
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.delivery.decisions import delivery_rows, delivery_totals, release
from ctenrich.delivery.destination import Destination
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.errors import UsageError
from ctenrich.flows import running
from ctenrich.listener import cases
from ctenrich.listener.cases import CaseState
from ctenrich.listener.config import KeepRule, RunRequest, StationConfig, load_config
from ctenrich.listener.retention import delete_old_objects
from ctenrich.listener.worker import CaseWorker
from ctenrich.phantom import write_phantom_study
from ctenrich.runner.recorder import RunEnd, RunSummary
from ctenrich.runner.run import Run

PACS = Destination(name="pacs", address="dicom://10.1.2.3:104/PACS")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "station")
    yield made
    made.close()


def make_two_objects(run: Run, *, failed: bool = False) -> RunSummary:
    """Stand in for a run: two objects as results."""
    folder = run.workspace.root / "series" / "1.2.3" / "expert" / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    for path in study_files(78)[:2]:
        shutil.copy(path, folder)
    states = {"failed": 1} if failed else {"done": 1}
    return RunSummary(ended=RunEnd.DONE, states=states, reasons={}, ran=1, seconds=0.0)


def run_case(desk: Desk, config: StationConfig, monkeypatch: pytest.MonkeyPatch, *, failed: bool = False) -> None:
    monkeypatch.setattr(running.steps, "run_all", lambda run, **_: make_two_objects(run, failed=failed))
    request = replace(config, run=RunRequest(segmenters=("expert",)))
    assert CaseWorker(desk.station, desk.database, request).run_next() is True


def outgoing(desk: Desk) -> set[tuple[int, str, str, str, int]]:
    with DeliveryQueue(desk.station.deliveries) as queue:
        rows = delivery_rows(queue)
    return {(row.revision, row.destination, row.state.value, row.reason, row.objects) for row in rows}


def test_the_results_of_a_case_are_queued_for_each_destination_and_its_senders(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_case(desk, *study_files())
    desk.ended(1, "released")
    folder = Destination(name="research", address=(tmp_path / "out").as_uri())
    config = StationConfig(destinations=(PACS, folder), return_to_sender_on_ports=(104,))
    run_case(desk, config, monkeypatch)
    assert outgoing(desk) == {
        (1, "pacs", "held", "", 2),
        (1, "research", "queued", "", 2),
        (1, "sender S@[::1]:104", "held", "", 2),
    }
    assert '"results queued"' in desk.station.audit.read_text()
    cases.replay(desk.database, 1)
    run_case(desk, config, monkeypatch)
    assert {(row[0], row[2]) for row in outgoing(desk)} == {(2, "held"), (2, "queued")}


def test_results_of_a_failed_case_are_held_everywhere(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_case(desk, *study_files())
    folder = Destination(name="research", address=(tmp_path / "out").as_uri())
    run_case(desk, StationConfig(destinations=(folder,)), monkeypatch, failed=True)
    assert cases.case_of(desk.database, 1)[0].state is CaseState.FAILED
    assert outgoing(desk) == {(1, "research", "held", "CASE_FAILED", 2)}


def test_received_objects_are_kept_until_the_results_are_delivered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    close_case(desk, *study_files())
    run_case(desk, StationConfig(destinations=(PACS,)), monkeypatch)
    now = KeepRule(days=1e-9)
    assert delete_old_objects(desk.station, desk.database, now) == []
    result = CliRunner().invoke(app, ["deliveries", str(desk.station.root), "drop", "1"])
    assert result.exit_code == 0
    assert delete_old_objects(desk.station, desk.database, now) == [1]


def test_deliveries_from_the_command_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(desk.station.root)

    def deliveries(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["deliveries", name, *words])
        return result.exit_code, result.output

    assert deliveries()[0] == 0
    close_case(desk, *study_files())
    run_case(desk, StationConfig(destinations=(PACS,)), monkeypatch)
    assert "2 objects = 2 held + 0 queued" in deliveries()[1]
    assert "pacs" in deliveries("--state", "held", "--csv")[1]
    assert deliveries("release", "1", "--destination", "pcas")[0] == 2
    assert deliveries("release", "1", "--destination", "pacs")[0] == 0
    assert outgoing(desk) == {(1, "pacs", "queued", "", 2)}
    assert '"results release"' in desk.station.audit.read_text()
    assert deliveries("release", "1")[0] == deliveries("retry")[0] == deliveries("--state", "lost")[0] == 2
    assert deliveries("drop", "1")[0] == 0


def test_destinations_and_hooks_in_the_station_file(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text(
        "return_to_sender_on_ports = [104]\n"
        '[[destinations]]\nname = "pacs"\naddress = "dicom://10.1.2.3:104/PACS"\nhold = false\n'
        '[[hooks]]\nname = "chat"\naddress = "https://chat.example.org/hook"\nevents = ["failed"]\n'
    )
    config = load_config(path)
    config.check()
    assert (config.destinations[0].holds, config.hooks[0].events) == (False, ("failed",))
    path.write_text('[[destinations]]\nname = "pacs"\nadress = "dicom://10.1.2.3:104/PACS"\n')
    with pytest.raises(UsageError, match=r"destinations\.adress"):
        load_config(path)
    for wrong in (
        StationConfig(destinations=(PACS, PACS)),
        StationConfig(destinations=(replace(PACS, address="pacs"),)),
        StationConfig(return_to_sender_on_ports=(0,)),
    ):
        with pytest.raises(UsageError, match=r"destination|port"):
            wrong.check()


@pytest.mark.long
@pytest.mark.slowest
def test_a_listener_sends_results_after_kills_once_each(tmp_path: Path) -> None:
    """From storescu to storescp, with kills after the release; the node has each object of the run once."""
    write_phantom_study(tmp_path / "dicom", replace(SLICES, slices=12))
    station, port, pacs = tmp_path / "station", free_port(), free_port()
    station.mkdir()
    (station / "station.toml").write_text(
        f'[[destinations]]\nname = "pacs"\naddress = "dicom://127.0.0.1:{pacs}/PACS"\nretry_seconds = 0.5\n'
    )
    options = ("--peer", "STORESCU@127.0.0.1", "--close", "quiet:1s", "--segmenter", "expert")
    with listener(station, port, *options) as process:
        storescu(port, tmp_path / "dicom")
        wait_for((station / "deliveries.sqlite").exists, 400)
        with DeliveryQueue(station / "deliveries.sqlite") as queue:
            held = wait_for(lambda: delivery_totals(queue).held, 20)
            release(queue, 1)
        kill_all(process)  # type: ignore[arg-type]
    inbox = tmp_path / "in"
    inbox.mkdir()
    storescp = [need_program("dcmtk", "storescp"), "-od", str(inbox), "-aet", "PACS", str(pacs)]
    with program(storescp, pacs), listener(station, port, *options) as process:
        wait_for(lambda: len(list(inbox.iterdir())), 60)
        kill_all(process)  # type: ignore[arg-type]
        with listener(station, port, *options) as last, DeliveryQueue(station / "deliveries.sqlite") as queue:
            wait_for(lambda: delivery_totals(queue).sent == held, 60)
            last.send_signal(signal.SIGTERM)
            assert last.wait(20) == 3
    made = {uid_of(path) for path in (station / "cases").rglob("objects/*.dcm")}
    assert len(made) == held
    assert {uid_of(path) for path in inbox.iterdir()} == made

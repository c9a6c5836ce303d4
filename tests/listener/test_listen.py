"""The whole listener as its users start it: one command, from storescu to proven objects; kills and signals."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from pydicom import dcmread
from tests.conftest import need_program
from tests.publish.test_objects import free_port
from tests.support.listener_kills import campaign
from tests.support.listeners import wait_for
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.demo import BODYPART, SEGMENTER, write_demo_study
from ctenrich.ledger.reader import LedgerReader
from ctenrich.listener import listen
from ctenrich.listener.cases import CaseState, case_of, cases_of
from ctenrich.listener.config import StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.intake import Intake
from ctenrich.listener.listen import Ports
from ctenrich.records import Proof
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore

pytest.importorskip("pynetdicom")


@contextmanager
def listener(station: Path, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command, started, until the end of the block."""
    command = [sys.executable, "-m", "ctenrich.cli.main", "listen", str(station), "--dicom", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl+C" in line:
                break
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def storescu(port: int, folder: Path) -> None:
    program = need_program("dcmtk", "storescu")
    environment = {**os.environ, "TCP_NODELAY": "1"}
    command = [program, "-R", "+sd", "+r", "-aec", "CTENRICH", "127.0.0.1", str(port), str(folder)]
    subprocess.run(command, check=True, env=environment, capture_output=True)


@pytest.mark.long
def test_a_study_that_is_sent_ends_in_proven_objects(tmp_path: Path) -> None:
    write_demo_study(tmp_path / "dicom")
    station, port = tmp_path / "station", free_port()
    options = ["--peer", "STORESCU@127.0.0.1", "--close", "quiet:1s"]
    options += ["--segmenter", SEGMENTER, "--bodypart", BODYPART]
    with listener(station, port, *options) as process:
        storescu(port, tmp_path / "dicom" / "patient_1")
        database = StationDatabase(station / "station.sqlite", read_only=True)
        row = wait_for(lambda: next((r for r in cases_of(database) if r.ended), None), 400)
        assert (row.state, row.reason) == (CaseState.DONE, "")
        database.close()
        second = CliRunner().invoke(app, ["listen", str(station), "--dicom", "none"])
        assert second.exit_code == 2
        assert "STATION_BUSY" in second.output
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 3
        assert time.monotonic() - started < 10
    patient = dcmread(next((tmp_path / "dicom").rglob("*.dcm")), stop_before_pixels=True)
    written = (station / "listener.log").read_text() + (station / "audit.jsonl").read_text()
    written += "".join(str(path.relative_to(station)) for path in (station / "received").rglob("*"))
    for identifier in (patient.PatientName, patient.PatientID, patient.StudyInstanceUID):
        assert str(identifier) not in written
    run = Run.open(station / "cases" / "000001" / "r1" / "run")
    store, uid = SeriesStore(run.workspace), run.cohort.series[0].series_instance_uid
    for requested in run.config.products:
        proof = store.find(Proof, uid, requested.product)
        assert proof is not None
        assert proof.passed
        assert proof.not_proven == ()
    with LedgerReader(run.ledger_path) as ledger:
        assert {outcome.state.value for outcome in ledger.outcomes()} == {"done"}


def test_cases_from_the_command_line(tmp_path: Path) -> None:
    from tests.listener.test_intake import Desk
    from tests.support.listeners import study_files

    desk = Desk(tmp_path / "station")
    desk.put(study_files()[0])
    desk.pass_time(1)
    name = str(tmp_path / "station")

    def cases(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["cases", name, *words])
        return result.exit_code, result.output

    assert "1 planned = 0 done + 0 skipped + 0 failed + 1 open; 0 held" in cases()[1]
    assert cases("hold", "1")[0] == 0
    assert "BY_HAND" in cases("--state", "held", "--csv")[1]
    assert cases("release", "1")[0] == 0
    assert "is not held" in cases("release", "1")[1]
    assert cases("drop", "1")[0] == 0
    assert case_of(desk.database, 1)[0].state is CaseState.SKIPPED
    assert cases("replay", "1")[0] == 0
    assert "r2" in cases("show", "1")[1]
    assert cases("show", "9")[0] == cases("show")[0] == cases("--state", "lost")[0] == 2
    assert cases("audit")[0] == 0
    (tmp_path / "station" / "audit.jsonl").write_text("{}\n")
    assert cases("audit")[0] == 1
    desk.close()


def test_wrong_requests_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    def refused(*words: str) -> int:
        return CliRunner().invoke(app, ["listen", str(tmp_path / "station"), *words]).exit_code

    assert refused("--dicom", "0.0.0.0:11112") == 2
    assert refused("--close", "sometime") == 2
    assert refused("--then", "later") == 2
    assert refused("--peer", "SCANNER1") == 2
    assert refused("--segmenter", "nnunet:no-such-model") == 2
    assert CliRunner().invoke(app, ["cases", str(tmp_path)]).exit_code == 2
    assert not (tmp_path / "station").exists()


class NoProcesses:
    """Stands in for the processes of a listener."""

    started: ClassVar[list[str]] = []

    def __init__(self, *_: object) -> None:
        """Nothing runs."""

    def start(self) -> Ports:
        return Ports()

    def start_once(self, name: str) -> None:
        self.started.append(name)

    def restart_dead(self) -> bool:
        return False

    def end(self) -> None:
        """Nothing ran."""


def test_a_full_disk_does_not_end_the_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def run_once(_: Intake) -> int:
        passes.append(len(passes))
        if len(passes) == 1:
            raise OSError(28, "No space left on device")
        if len(passes) == 2:
            raise sqlite3.OperationalError("database or disk is full")
        return 0

    monkeypatch.setattr(listen, "_Processes", NoProcesses)
    monkeypatch.setattr(listen, "_FULL_SECONDS", 0.0)
    monkeypatch.setattr(Intake, "run_once", run_once)
    listen.listen(tmp_path / "station", StationConfig(), stop=lambda: len(passes) == 4)
    assert len(passes) == 4


def test_the_worker_starts_once_no_object_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    NoProcesses.started.clear()

    def run_once(_: Intake) -> int:
        passes.append(0)
        if len(passes) == 1:
            with StationDatabase(tmp_path / "station" / "station.sqlite") as database, database.transaction() as db:
                db.execute("INSERT INTO revisions (case_id, revision, state, created) VALUES (1, 1, 'open', 0)")
        return 5 if len(passes) < 3 else 0  # objects that were assigned

    monkeypatch.setattr(listen, "_Processes", NoProcesses)
    monkeypatch.setattr(listen, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(Intake, "run_once", run_once)
    listen.listen(tmp_path / "station", StationConfig(), stop=lambda: bool(NoProcesses.started))
    assert (len(passes), NoProcesses.started) == (3, ["worker"])


@pytest.mark.long
@pytest.mark.slowest
def test_fifteen_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    result = campaign(tmp_path, kills=15, rng=random.Random(3), images=60)
    assert result.kills == 15
    assert result.while_receiving >= 4
    assert result.acknowledged > 0
    assert (result.lost, result.different, result.twice, result.unfinished, result.failed) == (0, 0, 0, 0, 0), result
    ended = {text.partition(" ")[0] for text in result.states}  # each with its reason behind it
    assert "done" in ended  # a kill may part a study: its first revision then lacks the contours

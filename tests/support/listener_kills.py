"""Kills of a whole listener at random moments, with senders that keep logs of their own."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil
from pydicom import dcmread

from ctenrich.listener.cases import CaseState, cases_of
from ctenrich.listener.database import StationDatabase
from ctenrich.phantom import write_phantom_study
from tests.publish.test_objects import free_port
from tests.support.listeners import TINY, uid_of

_QUIET = "1s"
_AFTER_SENDING = 8
"""Kills of a station after all its objects are acknowledged; then its cases run to their end."""
SLICES = replace(TINY, rows=96, columns=96, pixel_spacing=(4.0, 4.0), slice_spacing=5.0, rtstruct=True)


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Result of :func:`campaign`."""

    kills: int
    while_receiving: int
    """Kills that broke a connection of a sender off with objects on their way."""
    while_running: int
    """Kills while a case was running."""
    while_closing: int
    """Kills while cases were open or closed, and no sender was cut off and no case running."""
    while_starting: int
    """Kills within a second after the start of a listener."""
    acknowledged: int
    """Objects that a sender had seen acknowledged."""
    lost: int
    """Acknowledged objects that are not there."""
    different: int
    """Acknowledged objects whose data set has other bytes."""
    twice: int
    """Studies with more than one case, and objects with more than one row."""
    unfinished: int
    """Cases that did not end."""
    failed: int
    """Cases that ended as failed, for which the studies that are sent give no reason."""
    states: dict[str, int]
    """State of a case, with its reason and message if it did not end as done -> number of cases."""


class Sender(threading.Thread):
    """Sends the objects of a study until each is acknowledged, and notes which were and when it was cut off."""

    def __init__(self, files: list[Path], *, dicom: int, web: int, token: Path) -> None:
        super().__init__(daemon=True)
        self._files, self._dicom, self._web, self._token = files, dicom, web, token
        self.acknowledged: set[str] = set()
        self.cut = 0
        """How often a connection that was open broke off."""
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            rest = [path for path in self._files if uid_of(path) not in self.acknowledged]
            if not rest:
                return
            (self._post if self._web else self._c_store)(rest)
            time.sleep(0.05)

    def _c_store(self, rest: list[Path]) -> None:
        """One association for all that is left; storescu prints the response to each object."""
        command = ["storescu", "-v", "-R", "-aet", "SENDER", "-aec", "CTENRICH", "127.0.0.1", str(self._dicom)]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        done = subprocess.run([*command, *map(str, rest)], env=environment, capture_output=True, check=False, text=True)
        sending = ""
        for line in (done.stdout + done.stderr).splitlines():
            if "Sending file: " in line:
                sending = line.split("Sending file: ", 1)[1].strip()
            elif "Received Store Response (Success)" in line:
                self.acknowledged.add(uid_of(Path(sending)))
        self.cut += bool(sending) and done.returncode != 0

    def _post(self, rest: list[Path]) -> None:
        """One request for the next three objects; its answer names those that are stored."""
        part = b"\r\n--XX\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(part + path.read_bytes() for path in rest[:3]) + b"\r\n--XX--\r\n"
        connection = http.client.HTTPConnection("127.0.0.1", self._web, timeout=10)
        try:
            connection.connect()
        except OSError:
            return
        try:
            headers = {
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=XX',
                "Authorization": f"Bearer {self._token.read_text().strip()}",
            }
            connection.request("POST", "/dicom-web/studies", body, headers)
            answer = json.loads(connection.getresponse().read())
            stored = answer.get("00081199", {}).get("Value", ())
            self.acknowledged |= {item["00081155"]["Value"][0] for item in stored}
        except (OSError, ValueError, http.client.HTTPException):
            self.cut += 1
        finally:
            connection.close()


def sent_hash(path: Path) -> str:
    """SHA-256 of the elements of a file, which storescu may encode with other lengths of sequences."""
    return hashlib.sha256(dcmread(path).to_json().encode()).hexdigest()


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a listener."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(children, timeout=10)


def campaign(
    folder: Path, *, kills: int, rng: random.Random, images: int = 60, progress: Callable[[str], None] = lambda _: None
) -> Campaign:
    """Kill a listener that receives two studies and runs the experts' contours on them, again and again.

    The moments are random: after an object has arrived, while a case waits or runs, and while the listener starts.

    Parameters
    ----------
    folder : Path
        For the studies and the stations; a new station begins when both studies have ended.
    kills : int
        How often.
    rng : random.Random
        Chooses the moments.
    images : int
        Slices of each study.
    progress : callable
        Gets a line with the numbers so far after each station.
    """
    counts: Counter[str] = Counter()
    states: Counter[str] = Counter()
    number = 0
    while counts["kills"] < kills:
        number += 1
        _one_station(folder / f"s{number}", kills, rng, images, counts, states)
        progress(f"{dict(counts)} {dict(states)}")
    names = [field.name for field in fields(Campaign) if field.name != "states"]
    return Campaign(**{name: counts[name] for name in names}, states=dict(states))


def _one_station(
    folder: Path, kills: int, rng: random.Random, images: int, counts: Counter[str], states: Counter[str]
) -> None:
    dicom, web, station = free_port(), free_port(), folder / "station"
    senders, files = [], {}
    for index, port in enumerate((0, web)):
        options = replace(SLICES, seed=rng.randrange(10**6), slices=images)
        write_phantom_study(folder / f"study{index}", options)
        paths = sorted((folder / f"study{index}").rglob("*.dcm"))
        files.update({uid_of(path): path for path in paths})
        senders.append(Sender(paths, dicom=dicom, web=port, token=station / "token"))
    process = _start(station, dicom, web)
    for sender in senders:
        sender.start()
    after = 0
    while counts["kills"] < kills and after < _AFTER_SENDING:
        cut = sum(sender.cut for sender in senders)
        _wait_for_a_moment(station, dicom, senders, rng)
        if not any(sender.is_alive() for sender in senders):
            after += 1
            if _ended(station, 2):
                break
        running = _running(station)
        kill_all(process)
        counts["kills"] += 1
        process = _start(station, dicom, web)
        if rng.random() < 0.1 and counts["kills"] < kills:
            time.sleep(rng.uniform(0.0, 1.0))
            kill_all(process)
            counts["kills"] += 1
            counts["while_starting"] += 1
            process = _start(station, dicom, web)
        _wait_for_port(dicom)  # by then both senders have noticed
        receiving = sum(sender.cut for sender in senders) > cut
        counts["while_receiving"] += receiving
        counts["while_running"] += running
        counts["while_closing"] += not receiving and not running
    for sender in senders:
        sender.join(60)
        sender.stop.set()
    limit = time.monotonic() + 90
    while not _ended(station, 2) and time.monotonic() < limit:
        time.sleep(0.2)
    kill_all(process)
    _check(station, senders, files, counts, states)


def _wait_for_a_moment(station: Path, dicom: int, senders: list[Sender], rng: random.Random) -> None:
    """Wait for the moment of the next kill.

    As long as there are objects to send, most kills come while some arrive; afterwards half of them while a case runs.
    """
    _wait_for_port(dicom)
    if any(sender.is_alive() for sender in senders):
        number, end = _objects(station), time.monotonic() + 20
        while _objects(station) == number and time.monotonic() < end and any(one.is_alive() for one in senders):
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.03))  # a study arrives within a fraction of a second
        return
    end = time.monotonic() + (60 if rng.random() < 0.5 else 0)
    while time.monotonic() < end and not _running(station) and not _ended(station, 2):
        time.sleep(0.05)
    time.sleep(rng.uniform(0.05, 3.0))


def _objects(station: Path) -> int:
    with suppress(Exception), StationDatabase(station / "station.sqlite", read_only=True) as database:
        return database.value("SELECT count(*) FROM instances")
    return 0


def _start(station: Path, dicom: int, web: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ctenrich.cli.main", "listen", str(station), "--dicom", f"127.0.0.1:{dicom}"]
    command += ["--web", f"127.0.0.1:{web}", "--peer", "SENDER@127.0.0.1", "--segmenter", "expert"]
    command += ["--close", f"quiet:{_QUIET}"]
    log = station.with_name("listener.out").open("ab")
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def _wait_for_port(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


def _rows(station: Path) -> list[Any]:
    with suppress(Exception), StationDatabase(station / "station.sqlite", read_only=True) as database:
        return cases_of(database)
    return []


def _running(station: Path) -> bool:
    return any(row.state.value == "running" for row in _rows(station))


def _ended(station: Path, number: int) -> bool:
    rows = _rows(station)
    last = {row.case: row for row in reversed(rows)}
    return len(last) == number and all(row.ended for row in rows)


def _check(
    station: Path, senders: list[Sender], files: dict[str, Path], counts: Counter[str], states: Counter[str]
) -> None:
    with StationDatabase(station / "station.sqlite") as database:
        rows = database.rows("SELECT * FROM instances")
        found = {row["sop_instance_uid"]: station / "received" / row["path"] for row in rows}
        counts["twice"] += len(rows) - len(found)
        studies = database.value("SELECT count(*) FROM cases")
        counts["twice"] += max(0, studies - len(senders))
        for row in cases_of(database):
            states[" ".join(filter(None, (row.state.value, row.reason, row.message)))] += 1
            counts["unfinished"] += row.ended is None
            counts["failed"] += row.state is CaseState.FAILED
    for sender in senders:
        counts["acknowledged"] += len(sender.acknowledged)
        for uid in sender.acknowledged:
            if uid not in found or not found[uid].is_file():
                counts["lost"] += 1
            elif sent_hash(found[uid]) != sent_hash(files[uid]):
                counts["different"] += 1

"""Kills of a whole listener at random moments between the images of cases and their delivered results."""

from __future__ import annotations

import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.listener.cases import cases_of
from ctenrich.listener.database import StationDatabase
from ctenrich.phantom import write_phantom_study
from tests.publish.test_objects import free_port
from tests.support.listener_kills import kill_all
from tests.support.listeners import TINY, uid_of, wait_for
from tests.support.nodes import Node, node

_CASES = 4
_AFTER_RUNNING = 4
"""Kills of a station after all its cases have ended; then their results are sent without further ones."""
_SECONDS = 300
"""Longest time that a listener gets for the rest after the last kill, or to take an object."""
_MOMENT_SECONDS = 60.0
"""Longest wait for the moment of a kill; then it comes wherever the listener is."""
_LEFT_SECONDS = 30.0
_SEND_SECONDS = 0.03
"""Time that the node takes for an object, so that some kills come while results are on their way."""
_TO_RUN = {"open", "closed", "running"}
FLOW = """
triggers: [{{Modality: [^CT$]}}]
models:
  - {{name: left, command: [{program}, /input, /output], outputs: {{left: /output}}}}
  - {{name: right, command: [{program}, /input, /output], outputs: {{right: /output}}}}
  - {{name: join, command: [{join}, /input, /right, /output], inputs: {{left: /input, right: /right}}}}
destinations:
  - {{name: open, host: 127.0.0.1, port: {port}, ae_title: NODE, hold: false}}
  - {{name: research, folder: {folder}}}
  - {{name: clinic, host: 127.0.0.1, port: {port}, ae_title: CLINIC}}
"""
COPY = '#!/bin/sh\nset -e\nsleep 0.6\nfor f in "$1"/*.dcm; do cp "$f" "$2/"; done\n'
JOIN = '#!/bin/sh\nset -e\nsleep 0.4\nfor f in "$1"/*.dcm; do cmp "$f" "$2/${f##*/}"; cp "$f" "$3/"; done\n'


@dataclass(frozen=True, kw_only=True)
class DeliveryCampaign:
    """Result of :func:`delivery_campaign`."""

    kills: int
    in_steps: int
    """Kills while the listener ran a case."""
    in_delivery: int
    """Kills while the listener was sending results."""
    elsewhere: int
    """Kills at other moments: while the listener started, or before a case had closed."""
    acknowledged: int
    """Images that their senders had seen acknowledged; each is a result too."""
    missing: int
    """Results that a destination does not have, and that are not held for it."""
    waiting: int
    """Of these, results that the queue still had to send when the time was over: late, and not lost."""
    different: int
    """Results whose bytes at a destination differ."""
    more: int
    """Objects of a destination that are no results."""
    not_held: int
    """Results that are not held for the clinical node exactly once."""
    repeated: int
    """Sends of an object that the node already had: the same bytes, which it recognises by the SOP Instance UID."""
    uncounted: int
    """Sends that the node saw, and the queue has not counted."""
    unfinished: int
    """Cases that did not end as done."""
    processes: int
    """Programs of steps that were left running at the end."""


def delivery_campaign(
    folder: Path, *, kills: int, rng: random.Random, progress: Callable[[str], None] = lambda _: None
) -> DeliveryCampaign:
    """Kill a listener while it runs the steps of cases and sends their results, again and again.

    Five of nine kills wait until the listener runs a case, three until it sends results, and one comes while it starts;
    then each comes after a random time.

    Parameters
    ----------
    folder : Path
        For the studies and the stations; a new station begins when all cases have ended.
    kills : int
        How often.
    rng : random.Random
        Chooses the moments.
    progress : callable
        Gets a line with the numbers so far after each station.
    """
    counts: Counter[str] = Counter()
    number = 0
    while counts["kills"] < kills:
        number += 1
        with node() as sink:
            sink.answer = _slow_success
            _one_station(folder / f"s{number}", kills, rng, sink, counts)
        shutil.rmtree(folder / f"s{number}")
        progress(f"{number} stations, {dict(counts)}")
    names = DeliveryCampaign.__dataclass_fields__
    return DeliveryCampaign(**{name: counts[name] for name in names})


def _one_station(folder: Path, kills: int, rng: random.Random, sink: Node, counts: Counter[str]) -> None:
    station, port, out = folder / "station", free_port(), folder / "research"
    sent = _prepare(folder, sink.port, rng)
    process = _start(station, port)
    for files in sent:
        _send(port, files)
    results = {uid_of(path) for files in sent for path in files}
    counts["acknowledged"] += len(results)
    begun, after = _begun(station), 0
    while counts["kills"] < kills and after < _AFTER_RUNNING and not _ended(station, len(results)):
        _wait_for_a_moment(station, rng, begun, len(results))
        now, totals = _begun(station), _totals(station)
        states = _states(station)
        running = now.cases > begun.cases and "running" in states
        sending = now.sends > begun.sends and totals["queued"] + totals["sending"] > 0
        kill_all(process)
        counts["kills"] += 1
        counts["in_steps"] += running
        counts["in_delivery"] += sending
        counts["elsewhere"] += not (running or sending)
        after += not states & _TO_RUN
        begun = _begun(station)
        process = _start(station, port)
    end = time.monotonic() + _SECONDS
    while not _ended(station, len(results)) and time.monotonic() < end:
        time.sleep(0.1)
    kill_all(process)
    _check(station, out, sink, results, counts)


@dataclass(frozen=True)
class _Begun:
    """What the listeners of a station have begun: states alone would be those that a killed one left."""

    cases: int
    sends: int


def _begun(station: Path) -> _Begun:
    audit = station / "audit.jsonl"
    lines = audit.read_text(errors="replace") if audit.is_file() else ""
    sends = _rows(station / "deliveries.sqlite", "SELECT 'sends', coalesce(sum(sends), 0) FROM objects")
    return _Begun(lines.count('"case running"'), sends[0][1] if sends else 0)


def _wait_for_a_moment(station: Path, rng: random.Random, begun: _Begun, results: int) -> None:
    """Wait for the moment of the next kill; where nothing is left to run, it is one of the delivery."""
    kind = rng.choices(("steps", "delivery", "start"), (5, 3, 1))[0]
    end = time.monotonic() + _MOMENT_SECONDS
    while kind != "start" and time.monotonic() < end and not _ended(station, results):
        now, states = _begun(station), _states(station)
        if kind == "steps" and states and not states & _TO_RUN:
            kind = "delivery"
        if now.cases > begun.cases if kind == "steps" else now.sends > begun.sends:
            break
        time.sleep(0.03)
    time.sleep(rng.uniform(0.0, {"steps": 1.5, "delivery": 0.5, "start": 2.5}[kind]))


def _slow_success(_: str) -> int:
    time.sleep(_SEND_SECONDS)
    return 0


def _send(port: int, files: list[Path]) -> None:
    """Send until all were acknowledged; the same objects again change nothing."""
    command = ["storescu", "-R", "-aet", "SENDER", "-aec", "CTENRICH", "127.0.0.1", str(port), *map(str, files)]
    end = time.monotonic() + _SECONDS
    while subprocess.run(command, check=False, capture_output=True).returncode:
        assert time.monotonic() < end, "the listener takes no object"
        time.sleep(0.2)


def _prepare(folder: Path, port: int, rng: random.Random) -> list[list[Path]]:
    """Write station, flow, programs and studies; returns the files of each study."""
    station, flows = folder / "station", folder / "flows"
    for made in (station, flows, folder / "research"):
        made.mkdir(parents=True)
    programs = {"program": folder / "copy", "join": folder / "join"}
    for path, text in zip(programs.values(), (COPY, JOIN), strict=True):
        path.write_text(text)
        path.chmod(0o755)
    (flows / "copy.yaml").write_text(FLOW.format(port=port, folder=folder / "research", **programs))
    commands = ", ".join(f'"{path}"' for path in programs.values())
    (station / "station.toml").write_text(f"[run]\ncommands = [{commands}]\n[limits]\nconnect_seconds = 60\n")
    sent = []
    for number in range(_CASES):
        write_phantom_study(folder / f"study{number}", replace(TINY, seed=rng.randrange(10**6)))
        sent.append(sorted((folder / f"study{number}").rglob("*.dcm")))
    return sent


def _start(station: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ctenrich.cli.main", "listen", str(station), "--dicom", f"127.0.0.1:{port}"]
    command += ["--peer", "SENDER@127.0.0.1", "--close", "quiet:1s", "--flows", str(station.parent / "flows")]
    log = station.with_name("listener.out").open("ab")
    with log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for(lambda: _listens(port), _SECONDS)
    return process


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _rows(path: Path, sql: str) -> list[tuple[str, int]]:
    """Rows of a database of the station, read without a lock; none while it is being made."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()
    return []


def _totals(station: Path) -> Counter[str]:
    """State of a delivery -> number of objects."""
    return Counter(dict(_rows(station / "deliveries.sqlite", "SELECT state, count(*) FROM objects GROUP BY state")))


def _states(station: Path) -> set[str]:
    """States of the cases."""
    return {row[0] for row in _rows(station / "station.sqlite", "SELECT state, 0 FROM revisions")}


def _ended(station: Path, results: int) -> bool:
    """Whether all results are held for the clinic, and have reached the others."""
    totals = _totals(station)
    return totals["held"] == results and totals["sent"] + totals["warning"] + totals["failed"] == 2 * results


def _check(station: Path, out: Path, sink: Node, results: set[str], counts: Counter[str]) -> None:
    with StationDatabase(station / "station.sqlite") as database:
        counts["unfinished"] += sum(row.state.value != "done" for row in cases_of(database))
        received = {
            row["sop_instance_uid"]: (station / "received" / row["path"]).read_bytes()
            for row in database.rows("SELECT sop_instance_uid, path FROM instances")
        }
    copies = {uid_of(path): path.read_bytes() for path in out.rglob("*.dcm")}
    for uid in results:
        counts["missing"] += (uid not in sink.held) + (uid not in copies)
        counts["different"] += uid in copies and copies[uid] != received.get(uid)
        counts["different"] += uid in sink.held and not received.get(uid, b"").endswith(sink.held[uid])
    totals = _totals(station)
    counts["waiting"] += totals["queued"] + totals["sending"]
    counts["more"] += len(sink.held.keys() - results) + len(list(out.rglob("*.dcm"))) - len(copies.keys() & results)
    counts["repeated"] += sum(number - 1 for number in sink.sends.values())
    with DeliveryQueue(station / "deliveries.sqlite") as queue:
        rows = queue.database.rows("SELECT sop_instance_uid AS uid, state, sends, destination FROM objects")
    held = Counter(row["uid"] for row in rows if row["state"] == "held" and row["destination"].endswith(": clinic"))
    sends: Counter[str] = Counter()
    for row in rows:
        if row["destination"].endswith(": open"):
            sends[row["uid"]] += row["sends"]
    counts["not_held"] += sum(held[uid] != 1 for uid in results)
    counts["uncounted"] += sum(max(0, number - sends[uid]) for uid, number in sink.sends.items())
    counts["processes"] += _left(str(station))


def _left(marker: str) -> int:
    """Processes that do not end by themselves: one that a killed listener had just started ends once it has begun."""
    import psutil

    end = time.monotonic() + _LEFT_SECONDS
    while True:
        found = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
        left = sum(any(marker in word for word in words) for words in found)
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.5)

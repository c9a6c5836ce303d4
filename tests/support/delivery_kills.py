"""Kills of a whole listener at random moments between the images of cases and their delivered results."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.delivery.decisions import delivery_totals
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.delivery.records import DeliveryTotals
from ctenrich.listener.cases import cases_of
from ctenrich.listener.database import StationDatabase
from ctenrich.phantom import write_phantom_study
from tests.publish.test_objects import free_port
from tests.support.listener_kills import kill_all
from tests.support.listeners import TINY, uid_of, wait_for
from tests.support.nodes import Node, node

_CASES = 2
_SECONDS = 900
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
COPY = '#!/bin/sh\nset -e\nsleep 0.3\nfor f in "$1"/*.dcm; do cp "$f" "$2/"; done\n'
JOIN = '#!/bin/sh\nset -e\nsleep 0.2\nfor f in "$1"/*.dcm; do cmp "$f" "$2/${f##*/}"; cp "$f" "$3/"; done\n'


@dataclass(frozen=True, kw_only=True)
class DeliveryCampaign:
    """Result of :func:`delivery_campaign`."""

    kills: int
    in_steps: int
    """Kills while a case was running."""
    in_delivery: int
    """Kills while results waited or were being sent."""
    acknowledged: int
    """Images that their senders had seen acknowledged; each is a result too."""
    missing: int
    """Results that a destination does not have, and that are not held for it."""
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


def delivery_campaign(folder: Path, *, kills: int, rng: random.Random) -> DeliveryCampaign:
    """Kill a listener while it runs the steps of cases and sends their results, again and again.

    Parameters
    ----------
    folder : Path
        For the studies and the stations; a new station begins when all cases have ended.
    kills : int
        How often.
    rng : random.Random
        Chooses the moments.
    """
    counts: Counter[str] = Counter()
    number = 0
    while counts["kills"] < kills:
        number += 1
        with node() as sink:
            _one_station(folder / f"s{number}", kills, rng, sink, counts)
        shutil.rmtree(folder / f"s{number}")
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
    end = time.monotonic() + _SECONDS
    while not _ended(station, len(results)) and time.monotonic() < end:
        if counts["kills"] < kills:
            time.sleep(rng.uniform(0.05, 2.5))
            counts["in_steps"] += _running(station)
            totals = _totals(station)
            counts["in_delivery"] += bool(totals.queued + totals.sending)
            kill_all(process)
            counts["kills"] += 1
            process = _start(station, port)
        time.sleep(0.1)
    kill_all(process)
    _check(station, out, sink, results, counts)


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


def _totals(station: Path) -> DeliveryTotals:
    path = station / "deliveries.sqlite"
    if path.is_file():
        with suppress(Exception), DeliveryQueue(path) as queue:
            return delivery_totals(queue)
    return DeliveryTotals()


def _running(station: Path) -> bool:
    with suppress(Exception), StationDatabase(station / "station.sqlite", read_only=True) as database:
        return any(row.state.value == "running" for row in cases_of(database))
    return False


def _ended(station: Path, results: int) -> bool:
    """Whether all results are held for the clinic, and have reached the others."""
    totals = _totals(station)
    return totals.held == results and totals.sent + totals.warning + totals.failed == 2 * results


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
    import psutil

    time.sleep(1.0)  # a program of the last kill ends by itself within this time, or never
    found = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    return sum(any(marker in word for word in words) for words in found)

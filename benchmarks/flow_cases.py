"""Cases an hour of a listener that runs a flow of tiny models, and the resident memory of each of its processes.

``python -m benchmarks.flow_cases [--cases N] [--use PRODUCT] [--ahead N]``

Each case is a generated study of its own, sent by storescu; ``--ahead`` cases wait at most. A built-in product
(``--use``, by default the demonstration network) and a program of this machine run on it, and the results are sent to a
DICOM node. Studies are generated and received on the same processors. Memory is that after a tenth of the cases, after
half of them and after all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
from tests.publish.test_objects import free_port
from tests.support.cohorts import TINY
from tests.support.nodes import node

from benchmarks.listener import ENVIRONMENT, wait_for_port
from ctenrich.delivery.decisions import delivery_totals
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.delivery.records import DeliveryTotals
from ctenrich.demo import SEGMENTER
from ctenrich.listener.cases import CaseRow, cases_of
from ctenrich.listener.database import StationDatabase
from ctenrich.phantom import write_phantom_study

LARGEST_GROWTH = 1.15
"""Memory at the end over that after half of the cases, of each process: more is not flat."""
PROGRAM = '#!/bin/sh\nset -e\nset -- "$1"/*.dcm "$2"\ncp "$1" "$OUTPUT"/\n'
FLOW = """
triggers: [{{Modality: [^CT$]}}]
models:
  - {{name: product, use: '{use}'}}
  - {{name: program, command: [{program}, /input, /output]}}
destinations: [{{name: node, host: 127.0.0.1, port: {port}, ae_title: NODE, hold: false}}]
"""


@contextmanager
def listening(folder: Path, use: str, sink: int) -> Iterator[tuple[psutil.Process, int]]:
    """Run a listener with the flow; yields its process and port."""
    station, flows, program, port = folder / "station", folder / "flows", folder / "program", free_port()
    station.mkdir()
    flows.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (flows / "flow.yaml").write_text(FLOW.format(use=use, program=program, port=sink))
    (station / "station.toml").write_text(f'[run]\ncommands = ["{program}"]\n')
    command = [sys.executable, "-m", "ctenrich.cli.main", "listen", str(station), "--dicom", f"127.0.0.1:{port}"]
    command += ["--peer", "*@127.0.0.1", "--close", "quiet:1s", "--flows", str(flows)]
    with (folder / "listener.out").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)
    try:
        wait_for_port(port)
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.wait(90)


def send_case(folder: Path, port: int, number: int) -> None:
    """Generate a study and send it."""
    write_phantom_study(folder, replace(TINY, rtstruct=False, seed=number))
    files = sorted(map(str, folder.rglob("*.dcm")))
    subprocess.run(["storescu", "-R", "-aec", "CTENRICH", "127.0.0.1", str(port), *files], check=True, env=ENVIRONMENT)


def resident(process: psutil.Process) -> dict[str, float]:
    """Resident memory of the processes of a listener by their names, MB; those of one name together."""
    found: defaultdict[str, float] = defaultdict(float)
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            words = [word.removeprefix("ctenrich.") for word in one.cmdline() if word.startswith("ctenrich.")]
            found[words[0] if words else one.name()] += one.memory_info().rss / 1e6
    return {name: round(size, 1) for name, size in sorted(found.items())}


def ended_cases(station: Path) -> list[CaseRow]:
    """Cases that have ended."""
    with StationDatabase(station / "station.sqlite", read_only=True) as database:
        return [row for row in cases_of(database) if row.ended]


def totals_of(station: Path) -> DeliveryTotals:
    """Deliveries by state."""
    if not (station / "deliveries.sqlite").exists():
        return DeliveryTotals()
    with DeliveryQueue(station / "deliveries.sqlite") as queue:
        return delivery_totals(queue)


def run(folder: Path, cases: int, use: str, ahead: int) -> dict[str, object]:
    """Send cases until all have ended and their results are at the node.

    Parameters
    ----------
    folder : Path
        For the station and the studies.
    cases : int
        How many.
    use : str
        The built-in product.
    ahead : int
        Cases that wait at most.

    Returns
    -------
    dict
        Cases an hour, states, and memory.
    """
    marks = {max(1, cases // 10): "start", max(2, cases // 2): "middle", cases: "end"}
    memory: dict[str, dict[str, float]] = {}
    station, sent, ended = folder / "station", 0, 0
    with node(query=False) as sink:
        sink.loses = lambda _: True  # it keeps nothing, so that its memory is no part of the machine's
        with listening(folder, use, sink.port) as (process, port):
            began = time.monotonic()
            while ended < cases:
                if sent < cases and sent - ended < ahead:
                    with tempfile.TemporaryDirectory(dir=folder) as name:
                        send_case(Path(name), port, sent)
                    sent += 1
                else:
                    time.sleep(0.5)
                now = len(ended_cases(station))
                for mark in [one for one in marks if ended < one <= now]:
                    memory[marks[mark]] = resident(process)
                ended = now
            while (totals := totals_of(station)).queued + totals.sending:
                time.sleep(0.2)
            seconds = time.monotonic() - began
            states = [
                " ".join(filter(None, (row.state.value, row.reason, row.message))) for row in ended_cases(station)
            ]
    return {
        "cases": cases,
        "cases an hour": round(3600 * cases / seconds),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "objects at the node": totals.sent + totals.warning,
        "resident memory, MB": memory,
    }


def growth(memory: dict[str, dict[str, float]]) -> dict[str, float]:
    """Memory at the end over that after half of the cases, of each process that was there both times."""
    middle, end = memory.get("middle", {}), memory.get("end", {})
    return {name: round(end[name] / middle[name], 3) for name in middle if name.startswith("listener") and name in end}


def main() -> int:
    """Print the numbers; ends with 1 if a case did not end as done, or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--use", default=SEGMENTER, help="built-in product")
    parser.add_argument("--ahead", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ctenrich-flow-cases-") as name:
        found = run(Path(name), options.cases, options.use, options.ahead)
    grown = growth(found["resident memory, MB"])  # type: ignore[arg-type]
    print(json.dumps({**found, "memory at the end over that in the middle": grown}, indent=1))
    states: dict[str, int] = found["states"]  # type: ignore[assignment]
    bad = not all(one.startswith("done ") for one in states) or any(value > LARGEST_GROWTH for value in grown.values())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

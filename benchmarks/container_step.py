"""Time that a step with a container takes beside ``podman run`` of the same image, alternately.

``python -m benchmarks.container_step [--rounds N]``

The image copies six CT slices. A step also copies its input, keeps its output with hashes, and inspects each object
(dciodvfy among that). Medians of wall time, and of processor time of this process and the programs that it waited for;
the calls of podman are counted by a wrapper. Needs podman and runc.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from tests.support.containers import make_image, own_podman
from tests.support.flows import flow_of
from tests.support.listeners import study_files

from ctenrich.containers.engines import find_engine
from ctenrich.flows.capacity import Capacity
from ctenrich.flows.step_graph import StepGraph
from ctenrich.flows.step_outputs import check_objects, examination_of

MODEL = "#!/bin/sh\nset -e\ncp /input/* /output/\n"
FLOW = "triggers: [{}]\nmodels: [{name: model, image: model, command: /bin/model}]\n"
LIMIT = 1.5
"""Seconds that a step may take beyond what its model takes."""


def times_of(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of a function, s."""
    before, began = _processor(), time.monotonic()
    work()
    return time.monotonic() - began, _processor() - before


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def wrapper(folder: Path) -> Path:
    """A podman that notes each call; returns the notes."""
    notes, program = folder / "calls", folder / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$1" >> {notes}\nexec {shutil.which("podman")} "$@"\n')
    program.chmod(0o755)
    os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    return notes


def measure(folder: Path, rounds: int) -> dict[str, object]:
    """Run the image alone and as a step in turn, and inspect its objects alone.

    Parameters
    ----------
    folder : Path
        For inputs and outputs.
    rounds : int
        How often.

    Returns
    -------
    dict
        Medians, and the calls of podman in one step.
    """
    files = {path.name: path for path in study_files()}
    given, out = folder / "in", folder / "out"
    given.mkdir()
    for path in files.values():
        shutil.copy(path, given)
    out.mkdir()
    plain = ["podman", "run", "--rm", "--network", "none", "--volume", f"{given}:/input:ro"]
    plain += ["--volume", f"{out}:/output", "model", "/bin/model"]
    notes, examination = folder / "calls", examination_of(files.values())
    found: dict[str, list[tuple[float, float]]] = {"podman run": [], "step": [], "inspection alone": []}
    calls: list[int] = []
    for number in range(rounds + 1):  # the first one reads programs from the disk
        graph = StepGraph(
            flow=flow_of(FLOW), engine=find_engine("podman"), folder=folder / f"step{number}",
            capacity=Capacity(cpus=1), owner="benchmark",
        )  # fmt: skip
        times = {
            "podman run": times_of(lambda: subprocess.run(plain, check=True)),
            "step": _counted(notes, calls, lambda graph=graph: graph.run({"src": files})),  # type: ignore[misc]
            "inspection alone": times_of(lambda: check_objects(sorted(out.iterdir()), examination)),
        }
        for name, pair in times.items() if number else ():
            found[name].append(pair)
    wall = {name: round(median(one[0] for one in times), 2) for name, times in found.items()}
    processor = {name: round(median(one[1] for one in times), 2) for name, times in found.items()}
    pairs = list(zip(found["podman run"], found["step"], strict=True))
    return {
        "rounds": rounds,
        "wall time, s": wall,
        "processor time, s": processor,
        "step beyond podman run, s": round(median(step[0] - run[0] for run, step in pairs), 2),
        "calls of podman in a step": calls[-1],
    }


def _counted(notes: Path, calls: list[int], work: Callable[[], object]) -> tuple[float, float]:
    before = notes.read_text().count("\n") if notes.exists() else 0
    times = times_of(work)
    calls.append(notes.read_text().count("\n") - before)
    return times


def main() -> int:
    """Print the numbers; ends with 1 if a step takes more than 1.5 s."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    if shutil.which("podman") is None or shutil.which("runc") is None:
        print("podman and runc are not installed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="ctenrich-step-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        wrapper(folder)
        with own_podman(folder, patch):
            make_image(folder, "model", {"bin/model": MODEL})
            found = measure(folder, options.rounds)
    print(json.dumps(found, indent=1))
    wall: dict[str, float] = found["wall time, s"]  # type: ignore[assignment]
    return 1 if wall["step"] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())

"""Long test: kills at random moments, thousands of series with faults, the container; results are recorded.

``python -m benchmarks.soak [--quick] [--kills N] [--series N] [--real FOLDER]``

Without ``--real``, the series LUNG1-005 below ``CTENRICH_TEST_DATA`` is used, if it is there. ``--container`` has the
arguments of :mod:`benchmarks.container` in one string; the container is built only where podman is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from tests.support.cohorts import TINY, make_cohort, partial_files, result_hashes, write_series

from ctenrich import steps
from ctenrich.ledger.reader import LedgerReader
from ctenrich.phantom import Quirk
from ctenrich.runner.executors import ExecutorName, open_executor
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.settings import Settings

SMALL = replace(TINY, slices=8, slice_spacing=40.0, rows=24, columns=24, pixel_spacing=(16.0, 16.0))
"""A chest in 8 slices of 24 x 24, for numbers."""
WORKER_FAULTS = (signal.SIGKILL, signal.SIGSTOP)
"""A worker dies; a worker hangs."""


def command_of(cohort: Path, run: Path, *options: str) -> list[str]:
    """Command line of a run with expert contours."""
    program = [sys.executable, "-m", "ctenrich.cli.main", "run", str(cohort), "--out", str(run)]
    return [*program, "--segmenter", "expert", *options]


def kill_at_random(cohort: Path, run: Path, kills: int, rng: random.Random, *options: str) -> dict[str, int]:
    """Start a run again and again and kill it at random moments; returns how often each ending occurred.

    A kill that would come after the end counts as ``finished``, and the run begins anew in another folder.
    """
    counts: Counter[str] = Counter(
        {"killed": 0, "finished": 0, "different": 0, "partial files": 0, "stages run twice": 0}
    )
    command = command_of(cohort, run, *options)
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    length = time.monotonic() - started
    expected = result_hashes(run)
    target = run.with_name(run.name + "-killed")
    number = 0
    while counts["killed"] < kills:
        here = target.with_name(f"{target.name}-{number}")
        process = subprocess.Popen(
            command_of(cohort, here, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(rng.uniform(0.3, length))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            counts["killed"] += 1
            if rng.random() < 0.6:
                continue
        subprocess.run(command_of(cohort, here, *options), check=True, capture_output=True)
        counts["finished"] += 1
        if result_hashes(here) != expected:
            counts["different"] += 1
        counts["partial files"] += len(partial_files(here))
        counts["stages run twice"] += stages_run_twice(here)
        number += 1
    return dict(counts)


def stages_run_twice(run: Path) -> int:
    """Finished stages that the ledger saw twice."""
    with LedgerReader(run / "ledger.sqlite") as ledger:
        return sum(timing.attempt > 1 for timing in ledger.timings())


class Weather:
    """Watches a run, and now and then kills or stops one of its workers.

    Parameters
    ----------
    rng : random.Random
        Chooses moments and workers.
    faults : int
        How many workers are hit, spread evenly over `seconds`.
    seconds : float
        A guess of how long the run takes.
    """

    def __init__(self, rng: random.Random, faults: int, seconds: float) -> None:
        self._process = psutil.Process()
        self._rng = rng
        started = time.monotonic()
        self._moments = [started + rng.uniform(0.05, 0.9) * seconds for _ in range(faults)]
        self.hits: Counter[str] = Counter()
        self.samples: list[tuple[int, int]] = []
        """Resident bytes of all processes, open handles of the runner."""

    def __call__(self) -> bool:
        """Take a sample, and kill or stop a worker if it is time; never asks the run to stop."""
        workers = [p for p in self._process.children(recursive=True) if "multiprocessing.spawn" in " ".join(_words(p))]
        memory = sum(_resident(p) for p in [self._process, *workers])
        self.samples.append((memory, self._process.num_fds()))
        late = [m for m in self._moments if m < time.monotonic()]
        if late and workers:
            self._moments.remove(late[0])
            number = self._rng.choice(WORKER_FAULTS)
            self._rng.choice(workers).send_signal(number)
            self.hits[signal.Signals(number).name] += 1
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def soak(folder: Path, count: int, rng: random.Random) -> dict[str, Any]:
    """Run `count` tiny series, one in a hundred of them faulty, and as many faults of workers as of series in 500.

    Returns the books, memory, handles and temporary files.
    """
    kinds = list(Quirk)
    quirks = [rng.choice(kinds) for _ in range(max(1, count // 100))]
    write_series(folder / "dicom", count, options=SMALL, quirks=quirks)
    steps.index([folder / "dicom"], folder / "catalog.duckdb")
    cohort = steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    settings = replace(Settings(), run=replace(Settings().run, unit_timeout=20, output_workers=2))
    run = steps.start(folder / "cohort.parquet", folder / "run", segmenters=["expert"], settings=settings)
    watch = Weather(rng, max(1, count // 500), 0.3 * count)
    executor = open_executor(ExecutorName.PROCESSES, run.root, settings)
    started = time.monotonic()
    summary = Runner(run, executor, options=RunnerOptions(stop=watch)).run()
    seconds = time.monotonic() - started
    with LedgerReader(run.ledger_path) as ledger:
        ends = Counter((o.series_instance_uid, o.product) for o in ledger.outcomes())
    samples = watch.samples
    early, late = samples[len(samples) // 10 : len(samples) // 5] or samples, samples[-len(samples) // 10 :]
    return {
        "series": count,
        "faulty": len(quirks),
        "selected": len(cohort.series),
        "states": summary.states,
        "reasons": summary.reasons,
        "without exactly one terminal state": sum(ends[job] != 1 for job in run.jobs()),
        "workers hit": dict(watch.hits),
        "seconds": round(seconds, 1),
        "series a minute": round(60 * len(cohort.series) / seconds, 1),
        "memory growth": round(max(s[0] for s in late) / max(s[0] for s in early), 3),
        "peak memory, MB": round(max(s[0] for s in samples) / 1e6),
        "file handles, early and late": (max(s[1] for s in early), max(s[1] for s in late)),
        "temporary files left": len(partial_files(run.root)),
    }


def real_cohort(dicom: Path, folder: Path) -> Path:
    """Index and select the one real series with contours below `dicom`; returns the cohort file."""
    steps.index([dicom], folder / "catalog.duckdb")
    cohort = steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    assert len(cohort.series) == 1
    return folder / "cohort.parquet"


def real_series(given: Path | None, folder: Path) -> Path | None:
    """The DICOM folder of a real series: the given one, or LUNG1-005 of the test data, unpacked; None where unset."""
    data = os.environ.get("CTENRICH_TEST_DATA")
    if given is not None or not data:
        return given
    with tarfile.open(Path(data) / "data" / "LUNG1-005.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def main() -> int:
    """Run the kills, then the soak; ends with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--real", type=Path, help="folder with one real CT series and its RTSTRUCT")
    parser.add_argument("--real-kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--container", default="", help="arguments of benchmarks.container")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kills, series = (5, 100) if options.quick else (options.kills, options.series)
    with tempfile.TemporaryDirectory(prefix="ctenrich-soak-") as name:
        folder = Path(name)
        killed = kill_at_random(make_cohort(folder / "kill", 6), folder / "run", kills, rng)
        print(json.dumps({"kills": killed}, indent=1), flush=True)
        if not options.quick and (dicom := real_series(options.real, folder / "real")) is not None:
            (folder / "real-cohort").mkdir()
            real = kill_at_random(
                real_cohort(dicom, folder / "real-cohort"), folder / "real-run", options.real_kills, rng
            )
            print(json.dumps({"kills, real series": real}, indent=1), flush=True)
            killed = {name: killed[name] + real[name] for name in killed}
        books = soak(folder / "soak", series, rng)
        print(json.dumps({"soak": books}, indent=1), flush=True)
    bad = sum(killed[name] for name in ("different", "partial files", "stages run twice"))
    bad += books["temporary files left"] + books["without exactly one terminal state"]
    if not options.quick and shutil.which("podman") is not None:
        command = [sys.executable, "-m", "benchmarks.container", *shlex.split(options.container)]
        bad += subprocess.run(command, check=False).returncode != 0
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

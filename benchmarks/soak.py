"""The long proof of the runner: kills at random moments, and thousands of series with faults; for the record.

``python -m benchmarks.soak [--quick] [--kills N] [--series N]``
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from tests.cohorts import make_cohort, partial_files, result_hashes, write_series

from ctenrich import steps
from ctenrich.conduct import Conductor
from ctenrich.execute import ExecutorName, open_executor
from ctenrich.ledger import Ledger
from ctenrich.phantom import Quirk

FAULTS = (
    Quirk.TRUNCATED,
    Quirk.CONFLICTING_DUPLICATE,
    Quirk.LYING_ROWS,
    Quirk.EMPTY_FILE,
    Quirk.JUNK_FILE,
    Quirk.NO_PREAMBLE,
)


def command_of(cohort: Path, run: Path, *options: str) -> list[str]:
    """The command line of a run with expert contours."""
    program = [sys.executable, "-m", "ctenrich.cli.main", "run", str(cohort), "--out", str(run)]
    return [*program, "--segmenter", "expert", *options]


def kill_at_random(cohort: Path, run: Path, kills: int, rng: random.Random, *options: str) -> dict[str, int]:
    """Start a run again and again and kill it at random moments; returns how often what happened.

    A kill that would come after the end counts as ``finished``, and the run begins anew in another folder.
    """
    counts: Counter[str] = Counter()
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
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        return sum(row[3] > 1 for row in ledger.timings())


def soak(folder: Path, count: int, rng: random.Random) -> dict[str, object]:
    """Run `count` tiny series, one in a hundred of them faulty; returns the books, memory, handles and temp space."""
    made, quirks = folder / "dicom", [rng.choice(FAULTS) for _ in range(max(1, count // 100))]
    write_series(made, count, quirks=quirks)
    steps.index([made], folder / "catalog.duckdb")
    cohort = steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    run = steps.start(folder / "cohort.parquet", folder / "run", segmenters=["expert"])
    process, samples = psutil.Process(), []

    def watch() -> bool:
        workers = process.children(recursive=True)
        memory = sum(p.memory_info().rss for p in [process, *workers] if p.is_running())
        samples.append((time.monotonic(), memory, process.num_fds()))
        return False

    executor = open_executor(ExecutorName.PROCESSES, run.root, run.config.settings)
    started = time.monotonic()
    summary = Conductor(run, executor, stop=watch).conduct()
    seconds = time.monotonic() - started
    early = samples[len(samples) // 10 : len(samples) // 5] or samples
    late = samples[-len(samples) // 10 :]
    return {
        "series": count,
        "faulty": len(quirks),
        "selected": len(cohort.series),
        "states": summary.states,
        "reasons": summary.reasons,
        "seconds": round(seconds, 1),
        "series a minute": round(60 * len(cohort.series) / seconds, 1),
        "memory growth": round(max(s[1] for s in late) / max(s[1] for s in early), 3),
        "peak memory, MB": round(max(s[1] for s in samples) / 1e6),
        "file handles, early and late": (max(s[2] for s in early), max(s[2] for s in late)),
        "temporary files left": len(partial_files(run.root)),
    }


def main() -> int:
    """Run the kills, then the soak; ends with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kills, series = (5, 100) if options.quick else (options.kills, options.series)
    with tempfile.TemporaryDirectory(prefix="ctenrich-soak-") as name:
        folder = Path(name)
        killed = kill_at_random(make_cohort(folder / "kill", 6), folder / "run", kills, rng)
        print(json.dumps({"kills": killed}, indent=1), flush=True)
        books = soak(folder / "soak", series, rng)
        print(json.dumps({"soak": books}, indent=1), flush=True)
    bad = sum(killed.get(name, 0) for name in ("different", "partial files", "stages run twice"))
    return 1 if bad or books["temporary files left"] else 0


if __name__ == "__main__":
    sys.exit(main())

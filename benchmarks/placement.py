"""Forward passes on a CPU, placed in several ways: threads or processes, pinned to cores or not.

    python -m benchmarks.placement [--quick] [--workers 2] [--passes 4] [--patch 64]

Every way makes as many passes per worker with the network of benchmarks.forward. CPU seconds of all processes and
threads per pass (without loading), wall seconds per pass, and whether the scores are the same bits. On a machine with
several NUMA nodes, `numactl --cpunodebind N --membind N` around the program measures one of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the passes are placed."""

    title: str
    processes: int = 1
    side_by_side: int = 1
    """Passes at once in each process."""
    threads: int = 1
    """Threads of each pass."""
    pinned: bool = False
    """Whether every worker has a core of its own."""


def ways(workers: int) -> list[Way]:
    """The ways for a number of workers, which is also the number of cores in use; the first is a single core."""
    return [
        Way(title="one pass, one thread"),
        Way(title=f"{workers} passes side by side (as ctenrich)", side_by_side=workers),
        Way(title="the same, each thread on a core of its own", side_by_side=workers, pinned=True),
        Way(title=f"{workers} processes of one thread", processes=workers),
        Way(title="the same, each on a core of its own", processes=workers, pinned=True),
        Way(title=f"one pass of {workers} threads", threads=workers),
    ]


def main() -> int:
    """Print the table; returns 1 if a way with one thread for each pass changes a score."""
    if len(sys.argv) > 1 and sys.argv[1] == "_worker":
        print(json.dumps(measure(json.loads(sys.argv[2]), int(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pass of each worker")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--passes", type=int, default=4, help="of each worker")
    parser.add_argument("--patch", type=int, default=64)
    given = parser.parse_args()
    passes, patch = (1, 64) if given.quick else (given.passes, given.patch)
    print(f"{'':46}{'CPU s a pass':>14}{'of all':>8}{'wall s a pass':>15}{'same bits':>11}")
    first: dict[str, Any] = {}
    changed = False
    for way in ways(given.workers):
        found = _run(way, passes, patch)
        first = first or found
        same = found["scores"] == first["scores"]
        changed |= way.threads == 1 and not same
        share = found["cpu"] / first["cpu"]
        print(
            f"{way.title:46}{found['cpu']:14.3f}{share:8.2f}{found['wall']:15.3f}{'yes' if same else 'no':>11}",
            flush=True,
        )
    return 1 if changed else 0


def _run(way: Way, passes: int, patch: int) -> dict[str, Any]:
    """Start the processes of a way, and join what they measured."""
    cores = sorted(os.sched_getaffinity(0))
    started = []
    for n in range(way.processes):
        request = asdict(way) | {"passes": passes, "cores": cores[n:] if way.pinned else cores}
        command = [sys.executable, "-m", "benchmarks.placement", "_worker", json.dumps(request), str(patch)]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    answers = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process failed")
    found = [json.loads(answer.strip().splitlines()[-1]) for answer in answers]
    return {
        "cpu": float(np.mean([one["cpu"] for one in found])),
        "wall": max(one["wall"] for one in found) / way.processes,
        "scores": {one["scores"] for one in found},
    }


def measure(request: dict[str, Any], patch: int) -> dict[str, Any]:
    """CPU and wall seconds of a pass in this process, and the SHA-256 of its scores.

    Parameters
    ----------
    request : dict
        The fields of a `Way`, passes, and the cores to use.
    patch : int
        Voxels of a tile along each axis.

    Returns
    -------
    dict
        cpu, wall, scores.
    """
    from benchmarks import forward
    from ctenrich.inference.process import keep_freed_memory

    keep_freed_memory()
    import torch

    cores, threads, workers = request["cores"], request["threads"], request["side_by_side"]
    if request["pinned"] and workers == 1:
        os.sched_setaffinity(0, {cores[0]})
    torch.set_num_threads(threads)
    network, tile = forward._network(forward.CANDIDATES["adopted"], forward.FEATURES, patch)
    free = list(cores)

    def prepare() -> None:
        torch.set_num_threads(threads)
        if request["pinned"] and workers > 1:
            os.sched_setaffinity(0, {free.pop(0)})  # of this thread alone

    def one(_: int) -> str:
        with torch.inference_mode():
            return hashlib.sha256(network(tile).numpy().data).hexdigest()

    with ThreadPoolExecutor(workers, initializer=prepare) as pool:
        scores = set(pool.map(one, range(workers)))
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        scores |= set(pool.map(one, range(workers * request["passes"])))
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    if len(scores) > 1:
        raise SystemExit("passes on the same tile have different scores")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    count = workers * request["passes"]
    return {"cpu": cpu / count, "wall": wall / count, "scores": scores.pop()}


if __name__ == "__main__":
    sys.exit(main())

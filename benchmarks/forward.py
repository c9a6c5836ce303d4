"""One forward pass of nnU-Net on a CPU: the gain of each change of memory, layout and operations, and its exactness.

    python -m benchmarks.forward [--quick] [--repeats 2] [--threads 1]
    python -m benchmarks.forward --shares [--quick]

The network has the size of those of TotalSegmentator's task `total` (31 million parameters, a tile of 128 x 128 x 128
voxels) and random weights. Every candidate runs in a process of its own, the candidates in turn, repeatedly: the first
row is what ctenrich does, and each other row differs from it in the named point alone. CPU time is that of the second
pass of a process (the first one takes memory for the first time); the smallest of the repeats counts. Differences are
those of the scores from the first row's. With --shares one pass is divided among its operations instead, and oneDNN's
among convolutions and changes of layout (`ONEDNN_VERBOSE`), on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FEATURES, PATCH = (32, 64, 128, 256, 320, 320), 128
SMALL_FEATURES, SMALL_PATCH = (8, 16, 32), 32
CLASSES = 26


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way of running the network."""

    title: str
    kept: bool = True
    """Whether freed memory stays with the process."""
    huge_pages: bool = False
    channels_last: bool = False
    precision: str = "fp32"
    operations: str = ""
    """Key of `_operations`; empty: those of ctenrich."""


CANDIDATES = {
    "adopted": Candidate(title="as ctenrich runs it"),
    "returned": Candidate(title="freed memory returned to the system", kept=False),
    "huge": Candidate(title="the same, in huge pages", kept=False, huge_pages=True),
    "torch": Candidate(title="torch's own choice of convolution", operations="torch"),
    "last": Candidate(title="channels last", channels_last=True),
    "batch": Candidate(title="batch normalisation of the one tile", operations="batch"),
    "whole": Candidate(title="all channels normalised, then activated", operations="whole"),
    "front": Candidate(title="transposed convolutions as torch returns them", operations="front"),
    "accurate": Candidate(title="channels last, accurate normalisation", channels_last=True, operations="accurate"),
    "inplace": Candidate(title="normalisation in place", operations="inplace"),
    "bf16": Candidate(title="bf16, channels first", precision="bf16"),
    "bf16-last": Candidate(title="bf16, channels last (precision = bf16)", precision="bf16", channels_last=True),
}
EXACT = ("returned", "huge", "whole", "front")
"""Candidates that must not change a bit."""


def main() -> int:
    """Print the table; returns 1 if a change that must be exact changes a result."""
    if len(sys.argv) > 1 and sys.argv[1] == "_shares":
        one_pass(json.loads(sys.argv[2]))
        return 0
    if len(sys.argv) > 1 and sys.argv[1] == "_candidate":
        print(json.dumps(measure(CANDIDATES[sys.argv[2]], json.loads(sys.argv[3]), Path(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small network")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="names of candidates, with commas: " + ", ".join(CANDIDATES))
    parser.add_argument("--shares", action="store_true", help="the parts of one pass")
    given = parser.parse_args()
    features, patch = (SMALL_FEATURES, SMALL_PATCH) if given.quick else (FEATURES, PATCH)
    names = list(dict.fromkeys(["adopted", *(given.only.split(",") if given.only else CANDIDATES)]))
    size = json.dumps({"features": features, "patch": patch, "threads": given.threads})
    if given.shares:
        return print_shares(size)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(given.repeats):
            for name in names:
                found[name].append(_child(name, size, Path(folder)))
    return report(found)


def _child(name: str, size: str, folder: Path) -> dict[str, float]:
    environment = os.environ | ({"THP_MEM_ALLOC_ENABLE": "1"} if CANDIDATES[name].huge_pages else {})
    command = [sys.executable, "-m", "benchmarks.forward", "_candidate", name, size, str(folder / "scores.npy")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    values: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return values


def measure(how: Candidate, size: dict[str, Any], scores: Path) -> dict[str, float]:
    """Run two passes and compare the scores with the stored ones of the first candidate.

    Parameters
    ----------
    how : Candidate
    size : dict
        features, patch, threads.
    scores : Path
        Written by the first candidate, read by the others.

    Returns
    -------
    dict of str to float
        user, system, wall (s, of the second pass), peak (MiB), difference, labels (share that differs).
    """
    from ctenrich.inference.process import keep_freed_memory

    if how.kept:
        keep_freed_memory()
    import torch

    torch.set_num_threads(size["threads"])
    network, tile = _network(how, tuple(size["features"]), size["patch"])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=how.precision == "bf16"):
        network(tile)
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        out = network(tile)
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - start
    found = out[0].float().contiguous().numpy()
    if not scores.is_file():
        np.save(scores, found)
    wanted = np.load(scores, mmap_mode="r")
    return {
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "wall": wall,
        "peak": after.ru_maxrss / 1024,
        "difference": max(float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True)),
        "labels": float((found.argmax(0) != wanted.argmax(0)).mean()),
    }


def _network(how: Candidate, features: tuple[int, ...], patch: int) -> tuple[Callable[[Any], Any], Any]:
    """A network of ctenrich with random weights, and a tile."""
    import torch

    from ctenrich.nnunet import engine, unet
    from ctenrich.nnunet.plans import NetworkPlan

    stages = len(features)
    kernels = ((3, 3, 3),) * stages
    plan = NetworkPlan(
        dims=3,
        in_channels=1,
        classes=CLASSES,
        features=features,
        kernels=kernels,
        decoder_kernels=kernels[1:],
        strides=((1, 1, 1), *((2, 2, 2),) * (stages - 1)),
        convs_encoder=(2,) * stages,
        convs_decoder=(2,) * (stages - 1),
        conv_bias=True,
        up_bias=True,
        head_bias=True,
        slope=0.01,
        norm_eps=1e-5,
    )
    torch.manual_seed(0)
    weights = {}
    for name, shape in unet.expected_shapes(plan).items():
        if len(shape) == 1:
            weights[name] = torch.randn(shape) * 0.1 + float(name.endswith("norm.weight"))
        else:
            weights[name] = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5
    if how.channels_last:
        weights = {name: engine._with_channels_last(tensor) for name, tensor in weights.items()}
    if how.operations == "whole":
        unet._CHANNELS_BYTES = 2**40
    elif how.operations == "front":
        unet._has_vectors = lambda: False  # type: ignore[assignment]
    elif how.operations:
        unet._operations = _operations(how.operations, unet._operations)  # type: ignore[assignment]
    return lambda x: unet.forward(plan, weights, x), torch.randn(1, 1, patch, patch, patch)


def _operations(kind: str, own: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Another convolution, or another instance normalisation, beside the other one of ctenrich."""
    import torch
    from torch.nn import functional as nnf

    def batch(plan: Any, x: Any, weight: Any, bias: Any) -> Any:
        return nnf.batch_norm(x, None, None, weight, bias, training=True, eps=plan.norm_eps)

    def accurate(plan: Any, x: Any, weight: Any, bias: Any) -> Any:
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])  # one tile: a view
        variance, mean = torch.var_mean(rows, 0, correction=0)
        scale = weight * torch.rsqrt(variance + plan.norm_eps)
        rows.mul_(scale).add_(bias - mean * scale)
        return x

    def in_place(plan: Any, x: Any, weight: Any, bias: Any) -> Any:
        variance, mean = torch.var_mean(x, (2, 3, 4), correction=0, keepdim=True)
        scale = weight.view(1, -1, 1, 1, 1) * torch.rsqrt(variance + plan.norm_eps)
        return x.mul_(scale).add_(bias.view(1, -1, 1, 1, 1) - mean * scale)

    def choose(plan: Any, x: Any) -> tuple[Any, Any]:
        conv, norm = own(plan, x)
        if kind == "torch":
            return nnf.conv3d, norm
        other = {"batch": batch, "accurate": accurate, "inplace": in_place}[kind]
        return conv, lambda x, weight, bias: other(plan, x, weight, bias)

    return choose


def one_pass(size: dict[str, Any]) -> None:
    """Two passes; of the second the seconds of each operation are printed, after oneDNN's own lines."""
    from ctenrich.inference.process import keep_freed_memory

    keep_freed_memory()
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(1)
    network, tile = _network(CANDIDATES["adopted"], tuple(size["features"]), size["patch"])
    with torch.inference_mode():
        network(tile)
        print(SECOND, flush=True)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            network(tile)
    print(json.dumps({event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}))


SECOND = "the second pass"


def print_shares(size: str) -> int:
    """Print the parts of a pass, as a share of it; returns 0."""
    environment = os.environ | {"ONEDNN_VERBOSE": "profile_exec"}
    command = [sys.executable, "-m", "benchmarks.forward", "_shares", size]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    *lines, last = done.stdout.strip().splitlines()
    operations: dict[str, float] = json.loads(last)
    whole = sum(operations.values())
    print(f"one pass: {whole:.2f} s")
    for name, seconds in sorted(operations.items(), key=lambda item: -item[1]):
        if seconds > whole / 1000:
            print(f"{name:44}{seconds:8.3f}{seconds / whole:8.1%}")
    inner: dict[str, float] = {}
    for line in lines[lines.index(SECOND) :]:
        fields = line.split(",")
        if len(fields) > 8 and fields[3] == "exec":
            is_weights = fields[5] == "reorder" and fields[-2].split("x")[-1] in {"1", "2", "3"}
            name = "change of layout, weights" if is_weights else fields[5].replace("reorder", "change of layout, data")
            inner[name] = inner.get(name, 0.0) + float(fields[-1]) / 1000
    for name, seconds in sorted(inner.items(), key=lambda item: -item[1]):
        print(f"{'oneDNN: ' + name:44}{seconds:8.3f}{seconds / whole:8.1%}")
    return 0


def report(found: dict[str, list[dict[str, float]]]) -> int:
    """Print one row per candidate; returns 1 if a change that must be exact changed a score."""
    print(f"\n{'':46}{'user s':>8}{'system s':>10}{'of all':>8}{'wall s':>8}{'MiB':>7}{'difference':>12}{'labels':>10}")
    best = {name: min(runs, key=lambda run: run["user"] + run["system"]) for name, runs in found.items()}
    whole = best["adopted"]["user"] + best["adopted"]["system"]
    for name, run in best.items():
        share = (run["user"] + run["system"]) / whole
        print(
            f"{CANDIDATES[name].title:46}{run['user']:8.2f}{run['system']:10.2f}{share:8.2f}{run['wall']:8.2f}"
            f"{run['peak']:7.0f}{run['difference']:12.1e}{run['labels']:10.1e}"
        )
    changed = [name for name in EXACT if name in best and best[name]["difference"]]
    print(f"changed: {', '.join(changed)}" if changed else "exact changes change no score")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())

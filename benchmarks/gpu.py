"""The networks on a GPU beside nnunetv2's predictor: first the answer, then time, its bound, busy share and memory.

    python -m benchmarks.gpu [--device cuda:0] [--limit 460] [--series 20]
    python -m benchmarks.gpu --device cpu --tiny

For one card and less than eight minutes; a row that does not fit into the limit is ended and stated as not run. Needs
torch for CUDA and, for the peer's rows, the extra `reference`. Wheels, in the versions of constraints.txt: torch (built
for the card's CUDA, with the packages that it names), numpy, scipy, SimpleITK, pydicom, pyarrow, pydantic, nnunetv2,
dynamic-network-architectures, batchgeneratorsv2, acvl-utils, and what they depend on. Networks have random weights:
the one of Task055_SegTHOR (a tile of 64 x 192 x 160, 36 tiles, 5 folds, 8 mirrors) and the five of TotalSegmentator's
`total`. Of nnunetv2 the predictor is timed with its preprocessing and export, as ctenrich is. The last column is the
share of voxels that differ from ctenrich's fp32 on the same device. The bound of a row is the floating-point operations
of its passes over the rate of a large matrix product in half precision on the same card. The busy share is the part of
the wall time in which the card works on forward passes.
With --tiny small networks run on any device, which shows that the program works.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.inference.registry import ModelKind
from ctenrich.nnunet.conversion import plan_of
from ctenrich.nnunet.engine import Engine
from ctenrich.nnunet.unet import expected_shapes
from ctenrich.settings import SegmentSettings

SPACING = (1.5, 1.5, 1.5)
ALLOWED = 1e-3
"""Share of the voxels of a network with random weights that may differ from the CPU's answer in fp32."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Networks and a volume."""

    name: str
    features: tuple[int, ...]
    patch: tuple[int, ...]
    volume: tuple[int, ...]
    classes: int
    step: float
    mirrors: tuple[int, ...] = ()
    folds: int = 1
    parts: int = 1
    """Networks that run one after the other on the same volume."""
    strides: tuple[tuple[int, ...], ...] = field(default=())


LARGE = (32, 64, 128, 256, 320, 320)
CASES = (
    Case(
        name="Task055, 5 folds, 8 mirrors",
        features=LARGE,
        patch=(64, 192, 160),
        volume=(160, 384, 320),
        classes=5,
        step=0.5,
        mirrors=(0, 1, 2),
        folds=5,
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    ),
    Case(name="total, five parts", features=LARGE, patch=(128,) * 3, volume=(256,) * 3, classes=26, step=0.8, parts=5),
)
TINY = (
    Case(
        name="tiny, 2 folds, 8 mirrors",
        features=(4, 8),
        patch=(8, 16, 16),
        volume=(12, 24, 20),
        classes=3,
        step=0.5,
        mirrors=(0, 1, 2),
        folds=2,
    ),
    Case(name="tiny, two parts", features=(4, 8), patch=(8, 8, 8), volume=(16,) * 3, classes=4, step=0.8, parts=2),
)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; returns 1 if the answer on the device is not that of the CPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="small networks")
    parser.add_argument("--limit", type=float, default=460.0, help="seconds")
    parser.add_argument("--series", type=int, default=20, help="series of the row on the busy share")
    given = parser.parse_args(arguments)
    end = time.perf_counter() + given.limit
    _print_device(given.device)
    if not _check_answer(given.device):
        return 1
    rate = _peak_rate(given.device, 512 if given.tiny else 8192)
    print(f"\nmatrix product in half precision: {rate / 1e12:.4g} TFLOP/s")
    print(f"\n{'':32}{'':>22}{'s':>9}{'bound s':>9}{'x bound':>9}{'MiB':>8}{'differ':>10}")
    for case in TINY if given.tiny else CASES:
        _print_case(case, given.device, rate, end)
    _print_busy_share((TINY if given.tiny else CASES)[-1], given.device, given.series, end)
    return 0


def _print_device(device: str) -> None:
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    print(f"torch {torch.__version__}, {name}; fp32 of ctenrich is without TF32", flush=True)


def _plan(case: Case) -> tuple[Any, dict[str, Any]]:
    """The plan of a case, and the files of nnU-Net v2 that state it."""
    stages = len(case.features)
    strides = case.strides or ((1, 1, 1), *((2, 2, 2),) * (stages - 1))
    kwargs = {
        "n_stages": stages,
        "features_per_stage": list(case.features),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [list(s) for s in strides],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = "resample_data_or_seg_to_shape"
    rule = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(case.patch),
        "median_image_size_in_voxels": list(case.volume),
        "spacing": list(SPACING),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **{f"resampling_fn_{what}": name for what in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": rule,
        "resampling_fn_seg_kwargs": {**rule, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**rule, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    intensities = {"max": 2000.0, "mean": -100.0, "median": 0.0, "min": -1024.0, "std": 350.0}
    plans = {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "benchmarkPlans",
        "original_median_spacing_after_transp": list(SPACING),
        "original_median_shape_after_transp": list(case.volume),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": intensities | {"percentile_00_5": -900.0, "percentile_99_5": 600.0}
        },
    }
    labels = {"background": 0} | {f"class_{n}": n for n in range(1, case.classes)}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    source = {"plans": plans, "dataset": dataset, "trainer": "nnUNetTrainer"}
    return plan_of(ModelKind.NNUNET_V2, plans, dataset, "3d_fullres", case.mirrors), source


def _weights(plan: Any, seed: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(seed)
    made = {}
    for name, shape in expected_shapes(plan.network).items():
        if len(shape) == 1:
            made[name] = torch.randn(shape) * 0.1 + float(name.endswith("norm.weight"))
        else:
            made[name] = torch.randn(shape) * (2 / float(np.prod(shape[1:]))) ** 0.5
    return made


def _folds(case: Case, plan: Any, part: int) -> dict[str, Any]:
    return {str(fold): _weights(plan, 100 * part + fold) for fold in range(case.folds)}


def _volume(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(scale=300, size=tuple(n // 4 + 2 for n in shape))
    return np.clip(coarse[np.ix_(*(np.arange(n) // 4 for n in shape))] - 100, -1024, 2000).astype(np.int16)


def _engines(case: Case, device: str, precision: str) -> list[Engine]:
    plan, _ = _plan(case)
    settings = SegmentSettings(device=device, precision=precision, step_size=case.step)
    return [Engine(plan, _folds(case, plan, part), settings, bool(case.mirrors)) for part in range(case.parts)]


def _label(engines: list[Any], volume: NDArray[np.int16]) -> list[NDArray[Any]]:
    return [engine.label(volume, SPACING).labels for engine in engines]


def _check_answer(device: str) -> bool:
    """Compare a small network on the device with the CPU, in every precision."""
    case = TINY[0]
    volume = _volume(case.volume)
    wanted = _label(_engines(case, "cpu", "fp32"), volume)
    for precision, allowed in (("fp32", ALLOWED), ("fp16", 0.1), ("bf16", 0.3)):
        share = _share(_label(_engines(case, device, precision), volume), wanted)
        print(f"answer in {precision} on {device}: {share:.1e} of the voxels differ from fp32 on the CPU", flush=True)
        if share > allowed:
            print("the answer is wrong: nothing is measured")
            return False
    return True


def _share(found: list[NDArray[Any]], wanted: list[NDArray[Any]]) -> float:
    return float(np.mean([np.mean(a != b) for a, b in zip(found, wanted, strict=True)]))


def _synchronise(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _peak_rate(device: str, size: int) -> float:
    """Floating-point operations per second of a matrix product: fp16 on a GPU, fp32 on a CPU."""
    import torch

    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    a = torch.randn(size, size, device=device).to(dtype)
    seconds = []
    for _ in range(5):
        _synchronise(device)
        start = time.perf_counter()
        a @ a
        _synchronise(device)
        seconds.append(time.perf_counter() - start)
    return float(2 * size**3 / min(seconds))


def _operations(case: Case) -> float:
    """Floating-point operations of all forward passes over the volume."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ctenrich.nnunet.sliding_window import tile_starts
    from ctenrich.nnunet.unet import forward

    plan, _ = _plan(case)
    weights = {name: torch.empty(shape, device="meta") for name, shape in expected_shapes(plan.network).items()}
    with FlopCounterMode(display=False) as counter:
        forward(plan.network, weights, torch.empty((1, 1, *case.patch), device="meta"))
    tiles = np.prod([len(tile_starts(n, p, case.step)) for n, p in zip(case.volume, case.patch, strict=True)])
    return float(counter.get_total_flops() * tiles * case.folds * case.parts * 2 ** len(case.mirrors))


def _print_case(case: Case, device: str, rate: float, end: float) -> None:
    """One row per precision of ctenrich, and one of nnunetv2, which takes fp16 on a GPU by itself."""
    bound = _operations(case) / rate
    volume = _volume(case.volume)
    single: list[NDArray[Any]] | None = None
    for title, make in _contestants(case, device):
        row = f"{case.name:32}{title:>22}"
        try:
            with _until(end):
                made = make()
                if made is None:
                    print(f"{row} not run: nnunetv2 is not installed", flush=True)
                    continue
                seconds, labels, memory = _measure(made, volume, device, end)
        except LimitReachedError:
            print(f"{row} not run: the limit is reached", flush=True)
            continue
        single = labels if title == "ctenrich fp32" else single
        differ = "-" if single is None else f"{_share(labels, single):.1e}"
        print(f"{row}{seconds:9.3f}{bound:9.3f}{seconds / bound:9.1f}{memory:8.0f}{differ:>10}", flush=True)
        del made


class LimitReachedError(BaseException):
    """The time is over; not an Exception, so that no library takes it for a fault of its own."""


@contextmanager
def _until(end: float) -> Iterator[None]:
    """Raise LimitReachedError in the block at a time of `time.perf_counter`."""

    def ring(*_: object) -> None:
        raise LimitReachedError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(1e-3, end - time.perf_counter()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _contestants(case: Case, device: str) -> list[tuple[str, Callable[[], list[Any] | None]]]:
    ours = ["fp32", "fp16", "bf16"]  # the first is what the others are compared with
    return [(f"ctenrich {p}", lambda p=p: _engines(case, device, p)) for p in ours] + [  # type: ignore[misc]
        ("nnunetv2", lambda: _peers(case, device))
    ]


def _peers(case: Case, device: str) -> list[Any] | None:
    if importlib.util.find_spec("nnunetv2") is None:
        return None
    from ctenrich.nnunet.reference import ReferenceEngine

    plan, source = _plan(case)
    settings = SegmentSettings(device=device, step_size=case.step)
    return [
        ReferenceEngine(plan, source, _folds(case, plan, part), settings, bool(case.mirrors))
        for part in range(case.parts)
    ]


def _measure(
    engines: list[Any], volume: NDArray[np.int16], device: str, end: float
) -> tuple[float, list[NDArray[Any]], float]:
    """Seconds of the second run (of the first, where that took a tenth of the time left), labels, peak memory, MiB."""
    import torch

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        _synchronise(device)
        start = time.perf_counter()
        labels = _label(engines, volume)
        _synchronise(device)
        seconds = time.perf_counter() - start
        if seconds > (end - time.perf_counter()) / 10:
            break
    return seconds, labels, torch.cuda.max_memory_allocated(device) / 2**20 if cuda else 0.0


def _print_busy_share(case: Case, device: str, count: int, end: float) -> None:
    """Series after series in one process; the forward passes are timed on the device."""
    spans: list[tuple[Any, Any]] = []
    wall, done, passes = 0.0, 0, 0
    try:
        with _until(end):
            engines = _engines(case, device, "fp16" if device.startswith("cuda") else "fp32")
            for engine in engines:
                engine.networks = {fold: _timed(network, spans, device) for fold, network in engine.networks.items()}
            _label(engines, _volume(case.volume))
            _synchronise(device)
            spans.clear()
            start = time.perf_counter()
            for n in range(count):
                _label(engines, _volume(case.volume, n))
                _synchronise(device)
                wall, done, passes = time.perf_counter() - start, n + 1, len(spans)
    except LimitReachedError:
        print(f"\n{done} of {count} series: the limit is reached")
    if not done:
        return
    cuda = device.startswith("cuda")
    busy = sum(a.elapsed_time(b) / 1000 if cuda else b - a for a, b in spans[:passes])
    print(f"\n{done} series of {case.name}, one process: {wall / done:.3f} s each, busy share {busy / wall:.2f}")


def _timed(network: Callable[[Any], Any], spans: list[tuple[Any, Any]], device: str) -> Callable[[Any], Any]:
    import torch

    def run(x: Any) -> Any:
        if not device.startswith("cuda"):
            start: Any = time.perf_counter()
            out = network(x)
            spans.append((start, time.perf_counter()))
            return out
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        out = network(x)
        last.record()
        spans.append((first, last))
        return out

    return run


if __name__ == "__main__":
    sys.exit(main())

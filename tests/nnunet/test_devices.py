"""The path of a volume over a GPU, without one: meta tensors have a device but no values.

Every copy to the host is an error then, and `OneDevice` refuses operations on tensors of different devices.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import gpu
from tests.support.nnunet_engines import engines
from tests.support.small_models import smooth_volume, write_v2
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ctenrich.nnunet import postprocess, resample, sliding_window
from ctenrich.nnunet.engine import Engine, _load_network
from ctenrich.nnunet.plans import Resampling
from ctenrich.nnunet.unet import expected_shapes
from ctenrich.settings import SegmentSettings

SHAPE, SPACING = (9, 40, 36), (3.0, 1.2, 1.3)
GPU = torch.device("meta")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """An engine of a small network, on the CPU, of two tiles at a time."""
    write_v2(tmp_path / "m")
    made, _ = engines(tmp_path / "m", settings=SegmentSettings(batch_size=2, threads=1))
    return made


class OneDevice(TorchDispatchMode):
    """Refuses every operation on tensors of different devices, as CUDA does; numbers may be on the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
        devices = {tensor.device.type for tensor in tensors}
        if len(devices) > 1:
            raise RuntimeError(f"{func} of tensors on different devices: {sorted(devices)}")
        return func(*args, **(kwargs or {}))


def _on_gpu(engine: Engine, precision: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Run a volume on the other device; returns the devices of the copies to the host, and the labels."""
    copied: list[str] = []

    def to_host(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
        copied.append(tensor.device.type)
        return np.zeros(tensor.shape, np.uint8)

    [weights] = [network.weights for network in engine.networks.values()]  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch, OneDevice():
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for meta tensors
        patch.setattr(postprocess, "_to_host", to_host)
        engine.device = GPU
        engine.window = sliding_window.Window(0.5, True, 2, precision)
        engine.networks = {"0": _load_network(engine.plan, weights, GPU, precision)}
        labels = engine.label(smooth_volume(SHAPE, 6), SPACING).labels
    return copied, labels


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_of_a_volume_is_on_the_wrong_device(engine: Engine, precision: str) -> None:
    """A copy to the host in the loop over tiles would be an error."""
    copied, labels = _on_gpu(engine, precision)
    assert copied == ["meta"], "the labels are copied once, all planes together"
    assert labels.shape == SHAPE


def test_a_batch_of_half_precision_is_cast_tile_by_tile(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 scores of a whole batch would take twice the memory of the batch itself."""
    cast = []
    real = sliding_window._scores

    def scores(plan: Any, out: torch.Tensor) -> torch.Tensor:
        cast.append(len(out))
        return real(plan, out)

    monkeypatch.setattr(sliding_window, "_scores", scores)
    _on_gpu(engine, "fp16")
    assert set(cast) == {1}


def test_a_tensor_that_stays_on_the_host_is_found(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding_window, "gaussian", lambda patch, scale: _StayingThere(torch.ones(patch)))
    with pytest.raises(RuntimeError, match="different devices"):
        _on_gpu(engine, "fp32")


class _StayingThere:
    """Weights whose copy to a device is forgotten."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights

    def to(self, _: torch.device) -> torch.Tensor:
        return self.weights


def test_planes_by_blocks_are_the_planes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(3).normal(size=(70, 12, 10)).astype(np.float32)
    for separate in (0, None):
        monkeypatch.undo()
        rule = Resampling(order=3, order_z=0, force_separate_z=None)
        wanted = resample.resample_image(image, (70, 17, 9), rule, separate, torch.device("cpu"))
        monkeypatch.setattr(resample, "_takes_blocks", lambda _: True)
        found = resample.resample_image(image, (70, 17, 9), rule, separate, torch.device("cpu"))
        assert torch.allclose(found, wanted, atol=1e-6)


def test_labels_made_on_a_device_are_those_of_the_cpu(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    array = smooth_volume(SHAPE, 6)
    wanted = engine.label(array, SPACING).labels
    real = postprocess.to_source

    def as_on_device(scores: torch.Tensor, plan: Any, grids: Any, *_: Any) -> Any:
        out = real(scores, plan, grids)
        inside = np.zeros_like(np.transpose(out, plan.transpose))
        moved = np.moveaxis(inside[tuple(slice(a, b) for a, b in grids.box)], grids.back_axis(plan) or 0, 0)
        postprocess._fill_on_device(moved, scores, plan, grids, None)
        return np.transpose(inside, plan.transpose_back)

    monkeypatch.setattr("ctenrich.nnunet.engine.to_source", as_on_device)
    assert np.array_equal(engine.label(array, SPACING).labels, wanted)


@pytest.mark.long
def test_the_benchmark_for_a_card_runs_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--tiny", "--series", "2"]) == 0
    out = capsys.readouterr().out
    assert "answer in fp32 on cpu: 0.0e+00 of the voxels differ" in out
    assert len([line for line in out.splitlines() if " ctenrich fp16" in line]) == len(gpu.TINY)
    assert "2 series of tiny, two parts, one process" in out
    peers = [line for line in out.splitlines() if " nnunetv2 " in line]
    assert len(peers) == len(gpu.TINY)
    if find_spec("nnunetv2") is not None:
        assert all(float(line.split()[-1]) < 0.01 for line in peers), "the peer's labels are ours, but for rounding"


def test_the_benchmark_ends_a_row_at_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def endless() -> list[Any]:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(gpu, "_contestants", lambda *_: [("endless", endless), ("later", endless)])
    monkeypatch.setattr(gpu, "_engines", lambda *_: endless())
    gpu._print_case(gpu.TINY[1], "cpu", 1e12, time.perf_counter() + 0.1)
    gpu._print_busy_share(gpu.TINY[1], "cpu", 3, time.perf_counter() + 0.1)
    out = capsys.readouterr().out
    assert out.count("not run: the limit is reached") == 2
    assert "0 of 3 series: the limit is reached" in out


def test_a_wrong_answer_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([[np.zeros((2, 2))], [np.ones((2, 2))]])
    monkeypatch.setattr(gpu, "_label", lambda *_: next(answers))
    assert gpu.main(["--device", "cpu", "--tiny"]) == 1
    assert "nothing is measured" in capsys.readouterr().out


def test_the_network_of_the_benchmark_has_the_size_of_the_published_one() -> None:
    case = gpu.CASES[0]
    plan, _ = gpu._plan(case)
    shapes = expected_shapes(plan.network).values()
    assert sum(int(np.prod(shape)) for shape in shapes) == pytest.approx(31.17e6, rel=0.02)
    tiles = [sliding_window.tile_starts(n, p, 0.5) for n, p in zip(case.volume, case.patch, strict=True)]
    assert [len(t) for t in tiles] == [4, 3, 3]

"""The sliding window: tiles, mirrors and folds as batches of independent forward passes, added in a fixed order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ctenrich.errors import InputError
from ctenrich.inference.threads import in_order
from ctenrich.nnunet.plans import ModelPlan
from ctenrich.nnunet.tile_sums import Finish, Region, TileGrid, TileSums
from ctenrich.nnunet.unet import UNet
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import torch

__all__ = ["Window", "gaussian", "mirrors", "predict", "predict_blocks", "tile_starts"]

T = TypeVar("T")
Network = Callable[["torch.Tensor"], "torch.Tensor"]
TASK = "network"
_CPU_VOXELS = 2**25
"""Voxels of the tiles that are worked on at once on a CPU: about 10 GB of activations for a wide network."""


@dataclass(frozen=True)
class Window:
    """Step, mirroring, batch size and precision of the sliding window."""

    step: float = 0.5
    mirror: bool = True
    batch: int = 0
    """Forward passes at once; 0: chosen."""
    precision: str = "fp32"


def tile_starts(size: int, patch: int, step: float) -> list[int]:
    """First index of each tile along an axis: evenly spread, at most `step` patches apart.

    Parameters
    ----------
    size, patch : int
        Voxels of the volume and of the patch along the axis; `size` is not smaller.
    step : float
        Largest distance of two tiles as a share of the patch.

    Returns
    -------
    list of int
    """
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    stride = (size - patch) / (count - 1) if count > 1 else 0.0
    return [int(np.round(stride * n)) for n in range(count)]


def mirrors(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Sets of mirrored axes in the order in which their results are added; the first is no mirroring."""
    return [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]


@lru_cache(maxsize=4)
def gaussian(patch: tuple[int, ...], scale: float) -> Any:
    """Weights of a tile: a Gaussian with a standard deviation of an eighth of the patch around its middle, never 0.

    Parameters
    ----------
    patch : tuple of int
        Two or three axes.
    scale : float
        The largest weight: 10 in nnU-Net v2, 1 in v1.

    Returns
    -------
    tensor, [*patch], float32
    """
    import torch

    weights: Any = np.ones(())  # the product that scipy's gaussian_filter makes of a single point, axis by axis
    for n in patch:
        weights = weights[..., None] * _gaussian_of_axis(n)
    out = torch.from_numpy(weights / (weights.max() / scale)).to(torch.float32)
    out[out == 0] = out[out > 0].min()
    return out


def _gaussian_of_axis(n: int) -> Any:
    """Weights along an axis of `n` voxels: scipy's kernel, which ends at four standard deviations, around n // 2."""
    deviation = n / 8
    radius = int(4.0 * deviation + 0.5)
    kernel = np.exp(-0.5 / (deviation * deviation) * np.arange(-radius, radius + 1) ** 2)
    kernel /= kernel.sum()
    distance = np.arange(n) - n // 2
    return np.where(np.abs(distance) <= radius, kernel[np.clip(distance + radius, 0, 2 * radius)], 0.0)


def predict(
    plan: ModelPlan,
    network: Network,
    data: torch.Tensor,
    window: Window,
    progress: Progress = SILENT,
) -> torch.Tensor:
    """Mean logits (nnU-Net v2) or probabilities (v1) of one fold.

    Parameters
    ----------
    plan : ModelPlan
    network : callable
        [batch, channel, *patch] -> [batch, class, *patch].
    data : tensor, [channel, z, y, x]
        On the device where the network runs.
    window : Window
    progress : Progress
        Counts forward passes.

    Returns
    -------
    tensor, [class, z, y, x], float32

    Raises
    ------
    InputError
        OUT_OF_MEMORY if the smallest batch with results on the host does not fit either.
    """
    padded, inner = _pad_to_patch(data, plan.patch)

    def gather(size: int, results: torch.device) -> torch.Tensor:
        made = _predict_tiles(plan, network, padded, replace(window, batch=size), results, progress)
        return made[(slice(None), *inner)]

    return _with_less_memory(plan, data.device, window, gather, progress)


def predict_blocks(
    plan: ModelPlan,
    network: Network,
    data: torch.Tensor,
    window: Window,
    finish: Finish,
    progress: Progress = SILENT,
) -> None:
    """Make the scores of one fold in blocks, so that those of the volume never exist together.

    Parameters
    ----------
    plan : ModelPlan
        With a patch of three axes.
    network : callable
        As of `predict`. Of a `ctenrich.nnunet.unet.UNet` the last layer runs block by block, where it can.
    data : tensor, [channel, z, y, x]
        On the CPU.
    window : Window
    finish : callable
        Receives the region [z, y, x] of a block and its mean scores [class, z, y, x], the same that `predict` returns
        for it. It may receive a block again, if memory ran out and the passes are repeated with smaller batches.
    progress : Progress

    Raises
    ------
    InputError
        OUT_OF_MEMORY.
    """
    padded, inner = _pad_to_patch(data, plan.patch)

    def hand_out(region: Region, scores: torch.Tensor) -> None:
        ends = [
            (max(s.start, i.start), min(s.stop, i.stop), s.start, i.start) for s, i in zip(region, inner, strict=True)
        ]
        if all(a < b for a, b, _, _ in ends):
            z, y, x = (slice(a - low, b - low) for a, b, _, low in ends)
            finish((z, y, x), scores[(slice(None), *(slice(a - low, b - low) for a, b, low, _ in ends))])

    def gather(size: int, _results: torch.device) -> None:
        _sum_blocks(plan, network, padded, replace(window, batch=size), hand_out, progress)

    _with_less_memory(plan, data.device, window, gather, progress)


def _with_less_memory(
    plan: ModelPlan, device: torch.device, window: Window, gather: Callable[[int, torch.device], T], progress: Progress
) -> T:
    """Call `gather` with the number of tiles at once and the device of the results, with less where memory runs out."""
    import torch

    batch = window.batch or _choose_batch(plan, device)
    ladder = [(batch >> n, device) for n in range(batch.bit_length())] + [(1, torch.device("cpu"))]
    for size, results in dict.fromkeys(ladder):
        try:
            return gather(size, results)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            progress.note(f"memory ran out with {size} tiles at once; trying with less")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    raise InputError(Reason.OUT_OF_MEMORY, "memory ran out, also with one tile at a time")


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _choose_batch(plan: ModelPlan, device: torch.device) -> int:
    """Tiles at once: on a CPU few, so that layers stay in the caches; on a GPU as memory allows."""
    import torch

    voxels = int(np.prod(plan.patch))
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        each = voxels * 4 * (plan.network.features[0] * 6 + plan.network.classes * 2)
        return max(1, min(16, int(free * 0.5 // each)))
    return max(1, min(16, 2**18 // voxels))


def _pad_to_patch(data: torch.Tensor, patch: tuple[int, ...]) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Pad with zeros to at least the patch; the content stays in the middle."""
    from torch.nn import functional as nnf

    shape = data.shape[1:]
    wanted = (*shape[: 3 - len(patch)], *(max(n, p) for n, p in zip(shape[3 - len(patch) :], patch, strict=True)))
    low = [(w - n) // 2 for w, n in zip(wanted, shape, strict=True)]
    inner = tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))
    if tuple(shape) == wanted:
        return data, inner
    pads = [v for a, w, n in zip(low, wanted, shape, strict=True) for v in (w - n - a, a)][::-1]
    return nnf.pad(data, pads), inner


def _tile_indices(shape: Sequence[int], plan: ModelPlan, step: float) -> Iterator[tuple[Any, ...]]:
    """Index of each tile in [channel, z, y, x]; a 2d tile is a window of one slice."""
    starts = [tile_starts(n, p, step) for n, p in zip(shape[3 - len(plan.patch) :], plan.patch, strict=True)]
    windows = [[slice(s, s + p) for s in row] for row, p in zip(starts, plan.patch, strict=True)]
    if len(plan.patch) == 3:
        return ((slice(None), *w) for w in itertools.product(*windows))
    return ((slice(None), k, *w) for k in range(shape[0]) for w in itertools.product(*windows))


def _predict_tiles(
    plan: ModelPlan,
    network: Network,
    data: torch.Tensor,
    window: Window,
    results: torch.device,
    progress: Progress,
) -> torch.Tensor:
    """Mean of one fold on the padded grid, [class, z, y, x], gathered on the device `results`."""
    import torch

    tiles = list(_tile_indices(data.shape[1:], plan, window.step))
    weights = _tile_weights(plan).to(results)
    total = torch.zeros((plan.network.classes, *data.shape[1:]), dtype=torch.float32, device=results)
    norm = torch.zeros(data.shape[1:], dtype=torch.float32, device=results)
    with torch.inference_mode(), closing(_tile_outputs(plan, network, data, tiles, window, progress)) as outputs:
        for tile, out in zip(tiles, outputs, strict=True):
            total[tile] += out.to(results).mul_(weights)
            norm[tile[1:]] += weights
        total /= norm
    return total


def _sum_blocks(
    plan: ModelPlan, network: Network, data: torch.Tensor, window: Window, finish: Finish, progress: Progress
) -> None:
    """Mean of one fold on the padded grid, handed out in blocks."""
    import torch

    shape = data.shape[1:]
    starts = [tile_starts(n, p, window.step) for n, p in zip(shape, plan.patch, strict=True)]
    grid = TileGrid(shape, plan.patch, starts)
    sums = TileSums(grid, _tile_weights(plan), finish)
    one_pass = len(_flips(plan, window)) == 1 and window.precision == "fp32" and plan.version == 2
    last_later = network if isinstance(network, UNet) and one_pass else None  # its last layer makes the most channels
    passes: Network = last_later.features if last_later is not None else network
    tiles = list(_tile_indices(shape, plan, window.step))
    with torch.inference_mode(), closing(_tile_outputs(plan, passes, data, tiles, window, progress)) as outputs:
        for tile, out in zip(grid.tiles, outputs, strict=True):

            def scores(planes: slice, out: torch.Tensor = out) -> torch.Tensor:
                return out[:, planes] if last_later is None else last_later.logits(out[None, :, planes])[0]

            sums.add(tile, scores)


def _tile_weights(plan: ModelPlan) -> torch.Tensor:
    weights: torch.Tensor = gaussian(plan.patch, 10.0 if plan.version == 2 else 1.0)
    return weights


def _flips(plan: ModelPlan, window: Window) -> list[tuple[int, ...]]:
    return mirrors(plan.mirror_axes if window.mirror else ())


def _tile_outputs(
    plan: ModelPlan, network: Network, data: torch.Tensor, tiles: Sequence[Any], window: Window, progress: Progress
) -> Generator[torch.Tensor, None, None]:
    """Output of each tile, [channel, *patch]: the mean over its mirrored passes."""
    flips = _flips(plan, window)
    jobs = [(tile, flip) for tile in tiles for flip in flips]
    progress.start(TASK, len(jobs))
    tile_sum: torch.Tensor | None = None
    with (
        _single_precision(data.device),
        closing(_forward_outputs(plan, network, data, jobs, window)) as outputs,
    ):
        for (_, flip), out in zip(jobs, outputs, strict=True):
            straight = out.flip([a + 1 for a in flip]) if flip else out
            tile_sum = straight if tile_sum is None else tile_sum.add_(straight)
            if flip == flips[-1]:
                yield tile_sum if len(flips) == 1 else tile_sum.div_(len(flips))
                tile_sum = None
            progress.advance(TASK)
    progress.finish(TASK)


def _single_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch off TF32 for convolutions on a GPU: cuDNN would round their inputs to 10 bits in fp32 by default."""
    import torch

    if device.type != "cuda":
        return nullcontext()
    cudnn: Any = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    return flags


def _forward_outputs(
    plan: ModelPlan, network: Network, data: torch.Tensor, jobs: Sequence[Any], window: Window
) -> Generator[torch.Tensor, None, None]:
    """Outputs of the jobs, in their order. On a CPU each pass has one thread, and as many run at once as there are."""
    import torch

    batch = window.batch
    parts = [jobs[first : first + batch] for first in range(0, len(jobs), batch)]
    workers = torch.get_num_threads() if data.device.type == "cpu" else 1
    workers = min(workers, max(1, _CPU_VOXELS // (batch * int(np.prod(plan.patch)))), len(parts))

    on_cpu = data.device.type == "cpu"

    def run(part: Sequence[Any]) -> torch.Tensor:
        with torch.inference_mode():
            out = _forward_batch(plan, network, data, part, window.precision)
            return _scores(plan, out) if on_cpu else out

    with closing(in_order(run, parts, workers, max(1, torch.get_num_threads() // workers))) as results:
        for outputs in results:
            for out in torch.split(outputs, 1):  # so that a GPU holds the float32 of one tile, not of a batch
                yield (out if on_cpu else _scores(plan, out))[0]


def _forward_batch(
    plan: ModelPlan, network: Network, data: torch.Tensor, jobs: Sequence[tuple[Any, Any]], precision: str
) -> torch.Tensor:
    """Outputs of a batch, [job, channel, *patch], in the precision of the network."""
    import torch

    views = [torch.flip(data[tile], [a + 1 for a in flip]) if flip else data[tile] for tile, flip in jobs]
    stacked = torch.stack(views)
    if precision == "fp32":
        return network(stacked)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.autocast(data.device.type, dtype=dtype):
        return network(stacked)


def _scores(plan: ModelPlan, out: torch.Tensor) -> torch.Tensor:
    """Logits of outputs, [job, class, *patch], float32; probabilities for v1."""
    import torch

    return torch.softmax(out.float(), 1) if plan.version == 1 else out.float()

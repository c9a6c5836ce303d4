"""Labels of a volume by a sliding window, with the results of MONAI's ``SlidingWindowInferer``.

Windows are passed in the order of their first index along x, so scores are kept only for the planes that a window still
covers: memory grows with a window's length along x, not with that of the volume.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctenrich.errors import InputError
from ctenrich.inference.threads import in_order
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import torch

__all__ = ["Windows", "check_scores_memory", "label_by_windows", "window_starts"]

Shape = tuple[int, int, int]
Forward = Callable[["torch.Tensor"], "torch.Tensor"]
TASK = "network"
_SIGMA = 0.125
"""Standard deviation of the Gaussian weights as a share of a window."""
_CPU_VOXELS = 2**23
"""Voxels of the windows that are worked on at once on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Size and overlap of the windows, and how their scores are joined."""

    size: Shape
    """(x, y, z), voxels."""
    overlap: float = 0.25
    """Share of a window that the next one repeats."""
    gaussian: bool = True
    """Whether the middle of a window weighs more than its edges."""
    padding: str = "replicate"
    """How a volume that is smaller than a window is padded: constant (zeros), replicate or reflect."""


def window_starts(count: int, size: int, overlap: float) -> list[int]:
    """First index of each window along an axis.

    Parameters
    ----------
    count, size : int
        Voxels of the volume and of the window along the axis; `count` is not smaller.
    overlap : float
        Share of a window that the next one repeats.

    Returns
    -------
    list of int
        Every window but the last is one interval after the one before.
    """
    interval = size if size == count else max(1, int(size * (1 - overlap)))
    number = next(n for n in range(count) if n * interval + size >= count) + 1
    return [min(n * interval, count - size) for n in range(number)]


def _importance(windows: Windows) -> torch.Tensor:
    """Weights of a window, [x, y, z], float32; never below a thousandth."""
    import torch  # heavy; a network is loaded anyway

    if not windows.gaussian:
        return torch.ones(windows.size)
    out: torch.Tensor | None = None
    for axis, n in enumerate(windows.size):
        x = torch.arange(start=-(n - 1) / 2.0, end=(n - 1) / 2.0 + 1, dtype=torch.float)
        x = torch.exp(x**2 / (-2 * (n * _SIGMA) ** 2))
        out = x if out is None else out.unsqueeze(-1) * x[(None,) * axis]
    assert out is not None
    return out.clamp_(min=max(float(out.min()), 1e-3))


def check_scores_memory(shape: Shape, windows: Windows, classes: int, limit: int) -> None:
    """Refuse a volume for which the scores of the planes of a window do not fit into memory.

    Parameters
    ----------
    shape : (x, y, z)
        On the network's grid.
    windows : Windows
    classes : int
        Background included.
    limit : int
        Bytes.

    Raises
    ------
    InputError
        OUT_OF_MEMORY.
    """
    y, z = (max(n, size) for n, size in zip(shape[1:], windows.size[1:], strict=True))
    need = 4 * (windows.size[0] * y * z * (2 * classes + 1) + 4 * int(np.prod(shape, dtype=np.int64)))
    if need > limit:
        message = (
            f"the scores of {classes} classes for windows of a volume of {shape[0]} x {shape[1]} x {shape[2]} voxels "
            f"would take {need / 2**30:.3g} GiB of memory; the limit is {limit / 2**30:.3g} GiB"
        )
        hint = "raise [run] memory_limit, use a larger machine or a coarser model"
        raise InputError(Reason.OUT_OF_MEMORY, message, hint)


def label_by_windows(
    forward: Forward,
    data: torch.Tensor,
    windows: Windows,
    classes: int,
    *,
    workers: int = 1,
    progress: Progress = SILENT,
) -> torch.Tensor:
    """Label a volume with the class of the highest mean score.

    Parameters
    ----------
    forward : callable
        [1, 1, *window] -> scores [1, class, *window] before the softmax.
    data : tensor, [x, y, z], float32
        On the device where the network runs.
    windows : Windows
    classes : int
        Background included.
    workers : int
        Windows that are worked on at once, on a CPU.
    progress : Progress
        Counts windows.

    Returns
    -------
    tensor, [x, y, z], uint8, or int16 from 256 classes on; on the CPU
    """
    import torch  # heavy; a network is loaded anyway

    padded, inner = _pad(data, windows)
    starts = [window_starts(n, size, windows.overlap) for n, size in zip(padded.shape, windows.size, strict=True)]
    tiles = [
        tuple(slice(s, s + size) for s, size in zip(corner, windows.size, strict=True))
        for corner in itertools.product(*starts)
    ]
    workers = max(1, min(workers, _CPU_VOXELS // int(np.prod(windows.size)), len(tiles)))
    weights = _importance(windows).to(data.device)

    def run(tile: tuple[slice, ...]) -> torch.Tensor:
        with torch.inference_mode():
            return forward(padded[tile][None, None])[0].float() * weights

    progress.start(TASK, len(tiles))
    rows = _Rows(tuple(padded.shape), windows, classes, weights)
    with (
        torch.inference_mode(),
        closing(in_order(run, tiles, workers, max(1, torch.get_num_threads() // workers))) as all_scores,
    ):
        for tile, scores in zip(tiles, all_scores, strict=True):
            rows.add(tile, scores)
            progress.advance(TASK)
    progress.finish(TASK)
    return rows.finish()[inner]


def _pad(data: torch.Tensor, windows: Windows) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Pad to at least a window; the content stays in the middle."""
    from torch.nn import functional as nnf

    more = [max(size - n, 0) for size, n in zip(windows.size, data.shape, strict=True)]
    inner = tuple(slice(m // 2, m // 2 + n) for m, n in zip(more, data.shape, strict=True))
    if not any(more):
        return data, inner
    pads = [v for m in reversed(more) for v in (m // 2, m - m // 2)]
    return nnf.pad(data[None, None], pads, mode=windows.padding)[0, 0], inner


class _Rows:
    """Scores of the planes that the windows of one row still cover, and the labels of the planes before them.

    Parameters
    ----------
    shape : (x, y, z)
    windows : Windows
    classes : int
    weights : tensor, [*window]
    """

    def __init__(self, shape: tuple[int, ...], windows: Windows, classes: int, weights: torch.Tensor) -> None:
        import torch  # heavy; a network is loaded anyway

        self.length = windows.size[0]
        self.weights = weights
        self.first = 0
        self.labels = torch.zeros(shape, dtype=torch.uint8 if classes <= 256 else torch.int16)
        self.total = torch.zeros((classes, self.length, *shape[1:]), device=weights.device)
        self.norm = torch.zeros((self.length, *shape[1:]), device=weights.device)

    def add(self, tile: Sequence[slice], scores: torch.Tensor) -> None:
        """Add the weighted scores of a window that does not begin before the ones so far."""
        if tile[0].start > self.first:
            self._finish_planes(tile[0].start - self.first)
        place = (slice(None), *tile[1:])
        self.total[(slice(None), *place)] += scores
        self.norm[place] += self.weights

    def _finish_planes(self, count: int) -> None:
        """Label the first planes and let the others take their place."""
        import torch  # heavy; a network is loaded anyway

        mean = self.total[:, :count] / self.norm[:count]
        self.labels[self.first : self.first + count] = torch.softmax(mean, 0).argmax(0).to(self.labels.dtype).cpu()
        for sums, axis in ((self.total, 1), (self.norm, 0)):
            kept = sums.narrow(axis, count, self.length - count).clone()
            sums.zero_()
            sums.narrow(axis, 0, self.length - count).copy_(kept)
        self.first += count

    def finish(self) -> torch.Tensor:
        """Labels of all planes."""
        self._finish_planes(self.length)
        return self.labels

"""Resample scores to labels on the source grid, slab by slab: never all classes at full size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.inference.threads import in_order
from ctenrich.nnunet.plans import LabelPlan, ModelPlan
from ctenrich.nnunet.preprocess import Grids
from ctenrich.nnunet.resample import axis_matrix, nearest_index

if TYPE_CHECKING:
    import torch

__all__ = ["SourceLabels", "full_slabs", "labels_of", "probabilities_of", "to_source"]

_PART = 16
"""Planes of the result that one worker makes one after another, reusing the source planes of neighbours."""
Sink = Callable[[Any, "torch.Tensor", Grids, int], None]


class SourceLabels:
    """Label map of a volume whose grid is that of the network, set block by block.

    Parameters
    ----------
    plan : ModelPlan
    grids : Grids
        With the same shape before and after resampling.
    """

    def __init__(self, plan: ModelPlan, grids: Grids) -> None:
        self.plan = plan
        self._out = np.zeros(grids.shape, _label_type(plan))
        self._inside = self._out[tuple(slice(a, b) for a, b in grids.box)]

    @property
    def labels(self) -> NDArray[np.unsignedinteger]:
        """[z, y, x], uint8 or uint16, on canonical axes."""
        return np.transpose(self._out, self.plan.transpose_back)

    def set_block(self, region: tuple[slice, ...], scores: torch.Tensor) -> None:
        """Set the labels of a region [z, y, x] of the network's grid from its scores [class, z, y, x]."""
        self._inside[region] = labels_of(scores, self.plan.labels, self.plan.version).numpy()


def _label_type(plan: ModelPlan) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if max(plan.labels.names.values()) < 256 else np.uint16


def to_source(
    scores: torch.Tensor, plan: ModelPlan, grids: Grids, keep: Sink | None = None, workers: int = 1
) -> NDArray[np.unsignedinteger]:
    """Make the label map on the source grid.

    Parameters
    ----------
    scores : tensor, [class, z, y, x]
        Logits (probabilities for v1) on the network's grid.
    plan : ModelPlan
    grids : Grids
        From the transposed source grid to the network's grid.
    keep : callable, optional
        Receives each slab's probabilities: (planes, [class, y, x], grids, axis of the planes), each plane once, in any
        order and from several threads.
    workers : int
        Parts of the volume that are worked on at once.

    Returns
    -------
    array, [z, y, x], uint8 or uint16
        On canonical axes; outside the box that the network saw all voxels are background.
    """
    dtype = _label_type(plan)
    out = np.zeros(grids.shape, dtype)
    inside = out[tuple(slice(a, b) for a, b in grids.box)]
    axis = grids.back_axis(plan)
    turned = np.moveaxis(inside, axis or 0, 0)

    if scores.device.type != "cpu":
        _fill_on_device(turned, scores, plan, grids, keep)
        return np.transpose(out, plan.transpose_back)

    def make(part: Sequence[int]) -> None:
        for where, slab in full_slabs(scores, grids.cropped, axis, part):
            turned[where] = labels_of(slab, plan.labels, plan.version).cpu().numpy().astype(dtype)
            if keep is not None:
                keep(where, probabilities_of(slab, plan), grids, axis or 0)

    count = turned.shape[0]
    parts = [range(first, min(first + _PART, count)) for first in range(0, count, _PART)]
    deque(in_order(make, parts, workers), maxlen=0)
    return np.transpose(out, plan.transpose_back)


def _fill_on_device(
    labels: NDArray[Any], scores: torch.Tensor, plan: ModelPlan, grids: Grids, keep: Sink | None
) -> None:
    """Make all planes [plane, y, x] on the device of the scores, and copy them once: no plane waits for a copy."""
    import torch

    axis = grids.back_axis(plan)
    dtype = torch.uint8 if labels.dtype == np.uint8 else torch.int16
    made = torch.empty(labels.shape, dtype=dtype, device=scores.device)
    for where, slab in full_slabs(scores, grids.cropped, axis):
        made[int(where[0]) : int(where[-1]) + 1] = labels_of(slab, plan.labels, plan.version).to(dtype)
        if keep is not None:
            keep(where, probabilities_of(slab, plan), grids, axis or 0)
    labels[:] = _to_host(made)


def _to_host(tensor: torch.Tensor) -> NDArray[Any]:
    """Copy a tensor to the host; this waits for everything that the device has been asked for."""
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def full_slabs(
    scores: torch.Tensor, shape: tuple[int, ...], axis: int | None, part: Sequence[int] | None = None
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Resample scores linearly in slabs of one plane.

    Parameters
    ----------
    scores : tensor, [class, z, y, x]
        On the network's grid.
    shape : (z, y, x)
        Of the result.
    axis : int or None
        Axis that is resampled on its own with order 0 (nearest); None: all axes linearly, planes of axis 0.
    part : sequence of int, optional
        Indices of the wanted planes; by default all.

    Yields
    ------
    array of int, tensor [class, y, x]
        Indices of the planes along `axis` (or 0), and their scores. With an axis of its own one slab serves all planes
        that take the same source plane.
    """
    moved = scores.movedim((axis or 0) + 1, 1)
    target = (shape[axis or 0], *(n for a, n in enumerate(shape) if a != (axis or 0)))
    enlarge = _PlaneResampler(moved, target[1:])
    if axis is not None or moved.shape[1] == target[0]:
        wanted = np.arange(target[0]) if part is None else np.asarray(part, dtype=np.intp)  # also of no plane
        index = nearest_index(moved.shape[1], target[0])[wanted]
        for k in np.unique(index).tolist():
            yield wanted[index == k], enlarge(k)
        return
    at = np.clip((np.arange(target[0]) + 0.5) * (moved.shape[1] / target[0]) - 0.5, 0, moved.shape[1] - 1)
    for n in range(target[0]) if part is None else part:
        k = int(at[n])
        t = float(at[n]) - k
        plane = enlarge(k)
        if t > 0:
            plane = plane * (1 - t) + enlarge(k + 1) * t
        yield np.asarray([n]), plane


class _PlaneResampler:
    """Planes of the network's grid resampled to the source's in-plane size; the last two are cached."""

    def __init__(self, scores: torch.Tensor, shape: tuple[int, ...]) -> None:
        import torch

        self.scores = scores
        self.same = tuple(scores.shape[2:]) == tuple(shape)
        rows, columns = (axis_matrix(n, m, 1) for n, m in zip(scores.shape[2:], shape, strict=True))
        self.rows = torch.from_numpy(rows).to(scores)
        self.columns = torch.from_numpy(columns).to(scores).T.contiguous()
        self.kept: dict[int, torch.Tensor] = {}

    def __call__(self, k: int) -> torch.Tensor:
        if k not in self.kept:
            plane = self.scores[:, k]
            self.kept = {n: kept for n, kept in self.kept.items() if n >= k - 1}
            self.kept[k] = plane if self.same else self.rows @ plane @ self.columns
        return self.kept[k]


def labels_of(scores: torch.Tensor, labels: LabelPlan, version: int) -> torch.Tensor:
    """Label values of scores.

    Parameters
    ----------
    scores : tensor, [class, ...]
        Logits, or probabilities for v1.
    labels : LabelPlan
    version : int
        1 or 2: which nnU-Net.

    Returns
    -------
    tensor, [...], int16
        The first class with the largest score; with regions, the channels above 0.5 (as probability) painted one over
        the other in the order of the plan.
    """
    import torch

    if labels.regions:
        out = torch.zeros(scores.shape[1:], dtype=torch.int16, device=scores.device)
        for channel, value in enumerate(labels.order):
            out[scores[channel] > (0.5 if version == 1 else 0.0)] = value
        return out
    best = scores[0].clone()
    out = torch.zeros(scores.shape[1:], dtype=torch.int16, device=scores.device)
    for channel in range(1, scores.shape[0]):
        better = scores[channel] > best
        out[better] = channel
        torch.maximum(best, scores[channel], out=best)
    return out


def probabilities_of(scores: torch.Tensor, plan: ModelPlan) -> torch.Tensor:
    """Probabilities of scores.

    Parameters
    ----------
    scores : tensor, [class, ...]
        Logits, or probabilities for v1.
    plan : ModelPlan

    Returns
    -------
    tensor, [class, ...]
        Softmax over the classes; with regions each channel's sigmoid.
    """
    import torch

    if plan.version == 1:
        return scores
    return torch.sigmoid(scores) if plan.labels.regions else torch.softmax(scores, 0)

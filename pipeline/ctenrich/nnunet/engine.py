"""The resident nnU-Net engine: one configuration of a model, loaded once, that segments volumes one after another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.inference.device import check_precision, choose_device
from ctenrich.inference.threads import torch_threads
from ctenrich.masks import dice_of_counts
from ctenrich.nnunet.cascade import keep_largest, one_hot_channels
from ctenrich.nnunet.plans import ModelPlan, fail
from ctenrich.nnunet.postprocess import Sink, SourceLabels, labels_of, to_source
from ctenrich.nnunet.preprocess import Grids, to_network
from ctenrich.nnunet.sliding_window import Network, Window, predict, predict_blocks
from ctenrich.nnunet.unet import UNet
from ctenrich.progress import SILENT, Progress
from ctenrich.settings import SegmentSettings

if TYPE_CHECKING:
    import torch

__all__ = ["Engine", "LabelMapResult"]


@dataclass(frozen=True)
class LabelMapResult:
    """Label map of one volume, with timings and the agreement of the folds."""

    labels: NDArray[Any]
    """[z, y, x], label values, on the grid that was given."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds: preprocess, network, export."""
    agreement: dict[int, float] = field(default_factory=dict)
    """Label value -> mean Dice of each fold's own answer with the ensemble's, on the network's grid."""


class Engine:
    """The package's own engine for one configuration of an nnU-Net model (v1 or v2).

    Parameters
    ----------
    plan : ModelPlan
    folds : mapping of fold to tensors
        As `ctenrich.nnunet.store.load_weights` returns them.
    settings : SegmentSettings
        Device, precision, step, batch, threads.
    mirror : bool
        Whether to average over mirrored passes.

    Raises
    ------
    ModelError
        BAD_MODEL if the plan resamples scores with an order other than 1.
    UsageError
        BAD_SETTINGS for an unknown device or precision.
    """

    def __init__(
        self, plan: ModelPlan, folds: Mapping[str, Mapping[str, torch.Tensor]], settings: SegmentSettings, mirror: bool
    ) -> None:
        if plan.logits.order != 1:
            fail(f"scores resampled with order {plan.logits.order} are not supported", 'use engine = "reference"')
        self.plan = plan
        self.device = choose_device(settings.device)
        self.window = Window(settings.step_size, mirror, settings.batch_size, check_precision(settings.precision))
        self.threads = settings.threads
        precision = self.window.precision
        self.networks = {fold: _load_network(plan, weights, self.device, precision) for fold, weights in folds.items()}

    def label(
        self,
        array: NDArray[Any],
        spacing: tuple[float, ...],
        *,
        previous: NDArray[Any] | None = None,
        keep: Sink | None = None,
        progress: Progress = SILENT,
    ) -> LabelMapResult:
        """Segment one volume.

        Parameters
        ----------
        array : array, [z, y, x], HU
            On canonical axes.
        spacing : (z, y, x), mm
        previous : array, [z, y, x], optional
            Label map of the stage before (cascade).
        keep : callable, optional
            Receives the probabilities, slab by slab (see `ctenrich.nnunet.postprocess.to_source`).
        progress : Progress

        Returns
        -------
        LabelMapResult
            On the grid of `array`.

        Raises
        ------
        InputError
            HU_RANGE if values are not numbers; OUT_OF_MEMORY.
        """
        start = time.perf_counter()
        workers = self._workers()
        with torch_threads(1):
            data, grids = to_network(array, spacing, self.plan, self.device, workers)
            stacked = data[None]
            if previous is not None:
                stacked = one_hot_channels(data, array, previous, self.plan, grids)
        ready = time.perf_counter()
        agreement: dict[int, float] = {}
        if keep is None and self._labels_directly(data, grids):
            out = SourceLabels(self.plan, grids)
            with torch_threads(self.threads):
                self._fill_labels(stacked, out, progress)
            predicted = time.perf_counter()
            labels = out.labels
        else:
            with torch_threads(self.threads):
                scores, agreement = self._ensemble_scores(stacked, progress)
            predicted = time.perf_counter()
            with torch_threads(1):
                labels = to_source(scores, self.plan, grids, keep, workers)
        with torch_threads(1):
            if self.plan.keep_largest or self.plan.minimum_volume:
                labels = keep_largest(labels, self.plan, spacing)
        done = time.perf_counter()
        timings = {"preprocess": ready - start, "network": predicted - ready, "export": done - predicted}
        return LabelMapResult(labels, timings, agreement)

    def _workers(self) -> int:
        """Planes that are worked on at once before and after the network: a GPU takes them one by one."""
        import torch

        return (self.threads or torch.get_num_threads()) if self.device.type == "cpu" else 1

    def _labels_directly(self, data: torch.Tensor, grids: Grids) -> bool:
        """Whether each voxel's label follows from its own scores, so that the scores of a volume are not needed.

        It does not where scores are resampled or averaged over folds. A GPU gathers a volume's scores in one piece,
        because its memory is not that of the process.
        """
        same_grid = tuple(data.shape) == grids.cropped
        return same_grid and len(self.networks) == 1 and self.device.type == "cpu" and len(self.plan.patch) == 3

    def _fill_labels(self, data: torch.Tensor, out: SourceLabels, progress: Progress) -> None:
        """Set the labels of a volume on the network's own grid, block by block."""
        (network,) = self.networks.values()
        predict_blocks(self.plan, network, data, self.window, out.set_block, progress)

    def _ensemble_scores(self, data: torch.Tensor, progress: Progress) -> tuple[torch.Tensor, dict[int, float]]:
        total: torch.Tensor | None = None
        single = []
        for network in self.networks.values():
            scores = predict(self.plan, network, data, self.window, progress)
            if len(self.networks) > 1:
                single.append(labels_of(scores, self.plan.labels, self.plan.version))
            total = scores if total is None else total.add_(scores.to(total.device))
        assert total is not None
        if len(self.networks) == 1:
            return total, {}
        total /= len(self.networks)
        ensemble = labels_of(total, self.plan.labels, self.plan.version)
        values = self.plan.labels.names.values()
        return total, {value: _agreement(single, ensemble, value) for value in values}


def _agreement(single: Sequence[torch.Tensor], ensemble: torch.Tensor, value: int) -> float:
    """Mean Dice of each fold's label map with the ensemble's for one label value; 1 where neither has it."""
    reference = ensemble == value
    found = []
    for labels in single:
        mask = labels.to(ensemble.device) == value
        agreed = dice_of_counts(int((mask & reference).sum()), int(mask.sum()), int(reference.sum()))
        found.append(1.0 if agreed is None else agreed)
    return float(np.mean(found))


def _load_network(
    plan: ModelPlan, weights: Mapping[str, torch.Tensor], device: torch.device, precision: str
) -> Network:
    """Place the weights on the device; in half precision with the channels last, which convolutions then keep.

    In single precision the channels stay first: on a CPU torch's normalisation of tensors with the channels last loses
    three digits.
    """
    placed = {name: tensor.to(device) for name, tensor in weights.items()}
    if precision != "fp32":
        placed = {name: _with_channels_last(tensor) for name, tensor in placed.items()}
    return UNet(plan.network, placed)


def _with_channels_last(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=formats[tensor.dim()]) if tensor.dim() in formats else tensor

"""A network on a grid of its own as a segmenter: axes, spacing, intensities, windows, and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ctenrich.errors import InputError
from ctenrich.inference.segmentation import Classes, CtAnswer, segment_ct
from ctenrich.inference.threads import torch_threads
from ctenrich.networks.grid import labels_to_source, network_grid, volume_to_network
from ctenrich.networks.intensities import Intensity, apply_intensities
from ctenrich.networks.windows import Windows, check_scores_memory, label_by_windows
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4, ModelInfo, Product, SegmentMasks, SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

if TYPE_CHECKING:
    import torch

__all__ = ["GridRules", "GridSegmenter"]


@dataclass(frozen=True, kw_only=True)
class GridRules:
    """How a network is used."""

    axes: str
    """Directions of growing x, y, z that it was trained on: RAS, LAS or LPS."""
    spacing: tuple[float, float, float] | None
    """(x, y, z), mm; None: that of the volume."""
    intensities: tuple[Intensity, ...]
    windows: Windows


@dataclass(frozen=True, kw_only=True)
class GridSegmenter:
    """A loaded network; implements `ctenrich.inference.segmenter.Segmenter`."""

    product: Product
    info: ModelInfo
    names: Classes
    forward: Callable[[torch.Tensor], torch.Tensor]
    """[batch, 1, x, y, z] -> scores [batch, class, x, y, z] before the softmax."""
    rules: GridRules
    classes: int
    """Background included."""
    device: torch.device
    precision: str = "fp32"
    threads: int = 0

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Segment one series (see `ctenrich.inference.segmenter.Segmenter.segment`).

        Raises
        ------
        InputError
            WRONG_MODALITY without a CT volume in HU; OUT_OF_MEMORY before the network runs.
        """

        def label(volume: Volume, array: NDArray[Any]) -> CtAnswer:
            grid = network_grid(array.shape, volume.affine_lps, self.rules.axes, self.rules.spacing)
            check_scores_memory(grid.target, self.rules.windows, self.classes, settings.run.worker_memory())
            start = time.perf_counter()
            labels = self.label(array, volume.affine_lps, progress=progress)
            return CtAnswer(labels=labels, classes=self.names, timings={"network": time.perf_counter() - start})

        return segment_ct(inputs, workspace, self.product, self.info, label)

    def label(self, array: NDArray[Any], affine_lps: Matrix4, *, progress: Progress = SILENT) -> NDArray[Any]:
        """Segment a CT.

        Parameters
        ----------
        array : array, [k, j, i], HU
        affine_lps : 4x4
            (i, j, k, 1) -> mm, LPS.
        progress : Progress

        Returns
        -------
        array, [k, j, i]
            Label values as in `names`.

        Raises
        ------
        InputError
            OUT_OF_MEMORY.
        """
        grid = network_grid(array.shape, affine_lps, self.rules.axes, self.rules.spacing)
        try:
            with torch_threads(1):  # sums over a volume do not depend on the number of threads
                data = apply_intensities(volume_to_network(array, grid), self.rules.intensities)
            with torch_threads(self.threads):
                labels = self._label_windows(data, progress)
            with torch_threads(1):
                return labels_to_source(labels, grid)
        except (MemoryError, RuntimeError) as error:
            text = str(error).lower()
            if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
                raise InputError(Reason.OUT_OF_MEMORY, "memory ran out in the network") from error
            raise

    def _label_windows(self, data: torch.Tensor, progress: Progress) -> torch.Tensor:
        import torch  # heavy; a network is loaded anyway

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

        def scores(x: torch.Tensor) -> torch.Tensor:
            if dtype is None:
                return self.forward(x)
            with torch.autocast(self.device.type, dtype=dtype):
                return self.forward(x)

        workers = torch.get_num_threads() if self.device.type == "cpu" else 1
        return label_by_windows(
            scores, data.to(self.device), self.rules.windows, self.classes, workers=workers, progress=progress
        )

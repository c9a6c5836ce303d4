"""Keep the probabilities of a product as a float16 file on the source grid, written slab by slab."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctenrich.nnunet.plans import ModelPlan
from ctenrich.nnunet.preprocess import Axes, Grids
from ctenrich.workspace import Workspace, atomic_path, reserve_space

if TYPE_CHECKING:
    import torch

__all__ = ["Probabilities"]


class Probabilities:
    """Writer of a product's probabilities; a sink for `ctenrich.nnunet.postprocess.to_source`.

    Parameters
    ----------
    path : Path
        The ``.npy`` to write: float16, [class, k, j, i], foreground classes in the order of their label values; 0
        outside the box that the network saw.
    plan : ModelPlan
    axes : Axes
        From the source array to the canonical axes.
    shape : (k, j, i)
        Of the source array.
    """

    def __init__(self, path: Path, plan: ModelPlan, axes: Axes, shape: tuple[int, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.plan = plan
        self._raw = path.with_name(f".{path.name}.part")
        self._scale = len(plan.labels.names)
        full = (self._scale, *shape)
        self._array: Any = np.lib.format.open_memmap(self._raw, mode="w+", dtype=np.float16, shape=full)
        reserve_space(self._raw)
        self._view = np.transpose(axes.turn_channels(self._array), (0, *(a + 1 for a in plan.transpose)))

    def __call__(self, where: Any, slab: torch.Tensor, grids: Grids, axis: int) -> None:
        """Store the probabilities [class, ...] of the planes `where` along `axis` of the box."""
        box = tuple(slice(a, b) for a, b in grids.box)
        inside = np.moveaxis(self._view[(slice(None), *box)], axis + 1, 1)
        values = slab if self.plan.labels.regions else slab[1:]
        order = np.argsort(list(self.plan.labels.names.values()), kind="stable")
        if not self.plan.labels.regions:
            order = np.arange(len(order))
        inside[:, where] = values[order.tolist()].half().cpu().numpy()[:, None]

    def save(self, workspace: Workspace, series_instance_uid: str) -> str:
        """Finish the file.

        Parameters
        ----------
        workspace : Workspace
        series_instance_uid : str

        Returns
        -------
        str
            The file's path relative to the series' folder, as records store it.
        """
        self._array.flush()
        del self._view, self._array
        with atomic_path(self.path) as temporary:
            self._raw.replace(temporary)
        return workspace.relative(series_instance_uid, self.path)

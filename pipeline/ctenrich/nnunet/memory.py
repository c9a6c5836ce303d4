"""Forecast the memory of a volume's scores, so that one that cannot fit is refused before the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError
from ctenrich.nnunet.plans import ModelPlan
from ctenrich.nnunet.preprocess import nonzero_box
from ctenrich.nnunet.resample import new_shape
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import torch

__all__ = ["check_memory", "device_memory", "score_bytes"]

_FLOAT = 4


def score_bytes(plan: ModelPlan, shape: Sequence[int], spacing: Sequence[float], folds: int) -> int:
    """Bytes of the arrays that exist together while the scores of a volume are gathered.

    The volume on the network's grid, its scores for every class (and those of the ensemble beside the ones of a single
    fold), and the sum of the tiles' weights, all float32. The network, its tiles and the program come on top.

    Parameters
    ----------
    plan : ModelPlan
    shape : (z, y, x)
        Of the volume on canonical axes.
    spacing : (z, y, x), mm
        Of that volume.
    folds : int
        Number of networks.

    Returns
    -------
    int
    """
    turned = tuple(shape[a] for a in plan.transpose)
    own = tuple(float(spacing[a]) for a in plan.transpose)
    target = plan.spacing if len(plan.spacing) == 3 else (own[0], *plan.spacing)
    voxels = int(np.prod(new_shape(turned, own, target), dtype=np.int64))
    return voxels * _FLOAT * (2 + plan.network.classes * min(folds, 2))


def check_memory(
    plan: ModelPlan, array: NDArray[Any], spacing: Sequence[float], *, folds: int, limits: Sequence[int]
) -> None:
    """Refuse a volume whose scores fit neither into the memory of a worker nor into that of its device.

    Parameters
    ----------
    plan : ModelPlan
    array : array, [z, y, x]
        On canonical axes; read only where its shape alone would not fit (the network sees its box of values other than
        0).
    spacing : (z, y, x), mm
    folds : int
        Number of networks.
    limits : sequence of int
        Bytes of each memory in which the scores may be gathered.

    Raises
    ------
    InputError
        OUT_OF_MEMORY.
    """
    limit = max(limits)
    if score_bytes(plan, array.shape, spacing, folds) <= limit:
        return
    shape = tuple(b - a for a, b in nonzero_box(array))
    need = score_bytes(plan, shape, spacing, folds)
    if need > limit:
        message = (
            f"the scores of {plan.network.classes} classes for a volume of {shape[0]} x {shape[1]} x {shape[2]} voxels "
            f"would take {need / 2**30:.3g} GiB of memory; the limit is {limit / 2**30:.3g} GiB"
        )
        hint = "raise [run] memory_limit, use a larger machine, a crop ([segment] crop) or a coarser configuration"
        raise InputError(Reason.OUT_OF_MEMORY, message, hint)


def device_memory(device: torch.device) -> int:
    """Bytes of memory of a GPU; 0 for a device that uses the memory of the machine."""
    if device.type != "cuda":
        return 0
    import torch  # heavy: only where a network is loaded anyway

    return int(torch.cuda.get_device_properties(device).total_memory)

"""What surrounds the network in a cascade and after v1 models: labels as input channels, and removed components."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.nnunet.plans import ModelPlan
from ctenrich.nnunet.preprocess import Grids

if TYPE_CHECKING:
    import torch

__all__ = ["keep_largest", "one_hot_channels"]


def one_hot_channels(
    data: torch.Tensor, array: NDArray[Any], previous: NDArray[Any], plan: ModelPlan, grids: Grids
) -> torch.Tensor:
    """The image and, as further channels, the labels of the stage before.

    Parameters
    ----------
    data : tensor, [z, y, x]
        On the network's grid.
    array : array, [z, y, x], HU
        The image on the source grid, canonical axes.
    previous : array, [z, y, x]
        Label map on the source grid, canonical axes.

    Returns
    -------
    tensor, [1 + labels, z, y, x]

    Notes
    -----
    The resampling of labels is the libraries' own. v1 stretches the whole label map over the grid of the cropped
    image; so does this, since its networks are asked that way.
    """
    import torch

    turned = np.transpose(previous, plan.transpose)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if plan.version == 1:
            from batchgenerators.augmentations.utils import resize_segmentation

            labels = resize_segmentation(turned, tuple(data.shape), order=1)
        else:
            from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
            from scipy import ndimage

            box = tuple(slice(a, b) for a, b in grids.box)
            crop = turned[box].astype(np.int16)
            crop[(crop == 0) & ~ndimage.binary_fill_holes(np.transpose(array, plan.transpose)[box] != 0)] = -1
            args = (crop[None], tuple(data.shape), list(grids.spacing), list(grids.target))
            labels = resample_data_or_seg_to_shape(*args, is_seg=True, order=1, order_z=0, force_separate_z=None)[0]
    values = sorted(plan.labels.names.values())
    channels = np.stack([labels == value for value in values]).astype(np.float32)
    return torch.cat((data[None], torch.from_numpy(channels).to(data.device)))


def keep_largest(labels: NDArray[Any], plan: ModelPlan, spacing: tuple[float, ...]) -> NDArray[Any]:
    """v1's postprocessing: of each set of labels only the largest component stays (and what is large enough).

    Components touch by faces; components as large as the largest stay too.
    """
    from scipy import ndimage

    out = np.ascontiguousarray(labels)
    voxel = float(np.prod(np.asarray(spacing, np.float32), dtype=np.float32))
    for members in plan.keep_largest:
        components, count = ndimage.label(np.isin(out, members))
        if count < 2:
            continue
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        sizes[0] = 0
        smallest = (plan.minimum_volume or {}).get(",".join(map(str, members)))
        remove = sizes < sizes.max()
        if smallest is not None:
            remove &= sizes * voxel < smallest
        remove[0] = False
        out[remove[components]] = 0
    return out

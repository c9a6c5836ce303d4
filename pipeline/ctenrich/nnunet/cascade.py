"""Label channels of a cascade's second network, and removal of small components after nnU-Net v1 models."""

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
    """Stack the image and, as further channels, the labels of the stage before.

    Parameters
    ----------
    data : tensor, [z, y, x]
        The image on the network's grid, normalised.
    array : array, [z, y, x], HU
        The image on the source grid, canonical axes.
    previous : array, [z, y, x]
        Label map of the stage before, on the source grid, canonical axes.
    plan : ModelPlan
        Plan of the second network.
    grids : Grids
        From the source grid to the network's grid.

    Returns
    -------
    tensor, [1 + labels, z, y, x], float32
        On the device of `data`; one channel per label value, in growing order.

    Notes
    -----
    Labels are resampled by the libraries' own functions. v1 stretches the whole label map over the grid of the cropped
    image; so does this function, because its networks were trained that way.
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
    """Keep only the largest connected component of each set of labels (nnU-Net v1's postprocessing.json).

    Parameters
    ----------
    labels : array, [z, y, x]
        Label values; changed in place where it is contiguous.
    plan : ModelPlan
        `keep_largest` holds the sets of label values, `minimum_volume` their smallest removable volume in mm3.
    spacing : (z, y, x), mm

    Returns
    -------
    array, [z, y, x]
        Smaller components are background (0), unless they reach `minimum_volume`. Components touch by faces; all
        components as large as the largest are kept.
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

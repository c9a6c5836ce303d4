"""What TotalSegmentator does, written a second time from its facts: nibabel, scipy and nnunetv2's predictor, slowly.

Images are NIfTI images in any orientation; every step is done on whole arrays in double precision, as the facts are.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

Image = nib.Nifti1Image


def network_answer(folder: Path, data: NDArray[Any], spacing: Sequence[float], step: float) -> NDArray[np.uint8]:
    """nnunetv2's answer [x, y, z] for an image [x, y, z], without mirroring."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        plans = PlansManager(json.loads((folder / "plans.json").read_text()))
        dataset = json.loads((folder / "dataset.json").read_text())
        configuration = plans.get_configuration(folder.name.split("__")[2])
        arch = configuration.network_arch_class_name, configuration.network_arch_init_kwargs
        needs = configuration.network_arch_init_kwargs_req_import
        network = get_network_from_plans(*arch, needs, 1, len(dataset["labels"]), deep_supervision=False)
        checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
        device = torch.device("cpu")
        predictor = nnUNetPredictor(tile_step_size=step, use_mirroring=False, device=device, allow_tqdm=False)
        weights = [checkpoint["network_weights"]]
        predictor.manual_initialization(network, plans, configuration, weights, dataset, "", None)
        image = data.transpose(2, 1, 0).astype(np.float32)[None]
        found = predictor.predict_single_npy_array(image, {"spacing": [float(v) for v in spacing[::-1]]})
    return np.asarray(found).transpose(2, 1, 0).astype(np.uint8)


Network = Callable[[NDArray[Any], Sequence[float]], NDArray[np.uint8]]


def predict(
    image: Image,
    networks: Sequence[tuple[Network, Mapping[int, int] | None]],
    *,
    spacing: Sequence[float] | None,
    crop: tuple[NDArray[Any], float] | None = None,
    split: bool = False,
    post: Callable[[NDArray[np.uint8], Sequence[float]], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Labels [x, y, z] on the grid of the image.

    `networks` are called with an image and its spacing; a table paints their labels. `crop` is a mask [x, y, z] on the
    grid of the image, and the margin in mm.
    """
    source = nib.Nifti1Image(image.get_fdata(), image.affine)
    work, box = source, None
    if crop is not None:
        mask, margin = crop
        if not mask.any():
            return np.zeros(source.shape, np.uint8)
        add = (np.array([margin] * 3) / np.array(source.header.get_zooms())).astype(int)
        where = np.argwhere(mask)
        low = np.maximum(where.min(axis=0) - add, 0)
        high = np.minimum(where.max(axis=0) + 1 + add, source.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        affine = source.affine.copy()
        affine[:3, 3] = (affine @ [*low, 1])[:3]
        work = nib.Nifti1Image(source.get_fdata()[box].astype(np.int32), affine)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(work.get_fdata(), work.affine))
    data = canonical.get_fdata()
    shape = data.shape
    used: Sequence[float] = canonical.header.get_zooms()
    if spacing is not None:
        zoom = np.array(used) / np.array(spacing, float)
        data = ndimage.zoom(data, zoom, order=1, mode="nearest").astype(np.int32)
        used = spacing
    labels = _thirds(data, networks, used) if split else _painted(data, networks, used)
    if post is not None:
        labels = post(labels, used)
    if spacing is not None:
        labels = ndimage.zoom(labels, np.array(shape) / np.array(labels.shape), order=0, mode="nearest")
    turned = nib.Nifti1Image(labels, canonical.affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(work.affine)
    )
    back = np.asarray(turned.as_reoriented(turn).dataobj)
    if box is None:
        return back
    out = np.zeros(source.shape, np.uint8)
    out[box] = back
    return out


def _painted(data: NDArray[Any], networks: Sequence[Any], spacing: Sequence[float]) -> NDArray[np.uint8]:
    out = np.zeros(data.shape, np.uint8)
    for network, table in networks:
        answer = network(data, spacing)
        painted = answer.copy()
        if table is not None:
            for value in np.unique(answer):
                painted[answer == value] = table.get(int(value), 0)
        out = np.where(painted != 0, painted, out)
    return out


def _thirds(data: NDArray[Any], networks: Sequence[Any], spacing: Sequence[float]) -> NDArray[np.uint8]:
    n, margin = data.shape[2] // 3, 20
    out = np.zeros(data.shape, np.uint8)
    out[:, :, :n] = _painted(data[:, :, : n + margin], networks, spacing)[:, :, :-margin]
    middle = _painted(data[:, :, n + 1 - margin : 2 * n + margin], networks, spacing)
    out[:, :, n : 2 * n] = middle[:, :, margin - 1 : -margin]
    out[:, :, 2 * n :] = _painted(data[:, :, 2 * n + 1 - margin :], networks, spacing)[:, :, margin - 1 :]
    return out


def body_post(labels: NDArray[np.uint8], spacing: Sequence[float]) -> NDArray[np.uint8]:
    """Largest component of label 1; components of label 2 with more than 50,000 mm3."""
    out = np.zeros_like(labels)
    blobs, count = ndimage.label(labels == 1)
    if count:
        sizes = [int((blobs == n).sum()) for n in range(1, count + 1)]
        out[blobs == 1 + int(np.argmax(sizes))] = 1
    blobs, count = ndimage.label(labels == 2)
    for n in range(1, count + 1):
        if (blobs == n).sum() > 50000 / float(np.prod(np.array(spacing, np.float32))):
            out[blobs == n] = 2
    return out

"""nnunet 1.7.1 itself, asked for a label map with the functions that its predict_cases calls, without its processes."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray


def write_nifti(array: NDArray[Any], spacing: tuple[float, float, float], path: Path) -> Path:
    """A NIfTI file of an array [z, y, x]."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(v) for v in spacing[::-1]])
    sitk.WriteImage(image, str(path))
    return path


def predict(
    folder: Path,
    image: Path,
    work: Path,
    *,
    folds: tuple[int, ...] = (0,),
    mirror: bool = True,
    previous: Path | None = None,
) -> Path:
    """Label map of `image` by the model in `folder`, as a NIfTI file."""
    os.environ.update({k: str(work) for k in ("nnUNet_raw_data_base", "nnUNet_preprocessed", "RESULTS_FOLDER")})
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import torch
        from nnunet.inference.segmentation_export import save_segmentation_nifti_from_softmax
        from nnunet.postprocessing.connected_components import load_postprocessing, load_remove_save
        from nnunet.training.model_restore import load_model_and_checkpoint_files

        plain_load = torch.load
        torch.load = lambda *a, **k: plain_load(*a, **{"weights_only": False, **k})  # type: ignore[assignment]
        try:
            trainer, params = load_model_and_checkpoint_files(
                str(folder), list(folds), mixed_precision=False, checkpoint_name="model_final_checkpoint"
            )
        finally:
            torch.load = plain_load
        data, _, properties = trainer.preprocess_patient([str(image)])
        if previous is not None:
            data = _stack(trainer, data, previous)
        softmax = None
        for parameters in params:
            trainer.load_checkpoint_ram(parameters, False)
            one = trainer.predict_preprocessed_data_return_seg_and_softmax(
                data, do_mirroring=mirror, mirror_axes=trainer.data_aug_params["mirror_axes"], use_sliding_window=True,
                step_size=0.5, use_gaussian=True, all_in_gpu=False, mixed_precision=False,
            )[1]  # fmt: skip
            softmax = one if softmax is None else softmax + one
        assert softmax is not None
        softmax /= len(params)
        softmax = softmax.transpose([0] + [i + 1 for i in trainer.plans["transpose_backward"]])
        out = work / "answer.nii.gz"
        save_segmentation_nifti_from_softmax(softmax, str(out), properties, 1, None, None, None, None, None, None, 0)
        if (folder / "postprocessing.json").is_file():
            classes, sizes = load_postprocessing(str(folder / "postprocessing.json"))
            load_remove_save(str(out), str(out), classes, sizes)
    return out


def _stack(trainer: Any, data: NDArray[Any], previous: Path) -> NDArray[Any]:
    from batchgenerators.augmentations.utils import resize_segmentation
    from nnunet.utilities.one_hot_encoding import to_one_hot

    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(previous))).transpose(trainer.plans["transpose_forward"])
    labels = resize_segmentation(labels, data.shape[1:], order=1)
    return np.vstack((data, to_one_hot(labels, range(1, trainer.num_classes)))).astype(np.float32)

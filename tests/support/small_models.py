"""Small nnU-Net models with seeded weights, in the formats of nnU-Net v2 and v1, and volumes to try them on."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ctenrich.nnunet.plans import parse_v2
from ctenrich.nnunet.unet import library_network
from ctenrich.records import Quantity, SortedSeries, Volume
from ctenrich.workspace import Workspace, save_array, sha256_of_array

LABELS = {"background": 0, "heart": 1, "aorta": 2, "trachea": 3}
UID = "1.2.3.4"
CT = {"max": 2000.0, "mean": -100.0, "median": 0.0, "min": -1024.0}
CT |= {"percentile_00_5": -900.0, "percentile_99_5": 600.0, "std": 350.0}


def smooth_volume(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.int16]:
    """HU values that vary smoothly, with some noise, [z, y, x]."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.normal(size=shape), [s / 8 for s in shape])
    values = coarse / coarse.std() * 400 - 100 + rng.normal(scale=20, size=shape)
    return np.clip(values, -1024, 2000).astype(np.int16)


def volume_record(
    array: NDArray[Any], spacing: tuple[float, float, float], workspace: Workspace, **other: Any
) -> Volume:
    """A Volume of an axial series, its array saved in the series' folder."""
    path = workspace.series_dir(UID) / "volume" / "ct.npy"
    save_array(path, array)
    dz, dy, dx = spacing
    affine = ((dx, 0.0, 0.0, 0.0), (0.0, dy, 0.0, 0.0), (0.0, 0.0, dz, 0.0), (0.0, 0.0, 0.0, 1.0))
    values: dict[str, Any] = {"affine_lps": affine, "quantity": Quantity.HU} | other
    return Volume(
        series_instance_uid=UID,
        array_path=workspace.relative(UID, path),
        shape=array.shape,  # type: ignore[arg-type]
        spacing=spacing,
        frame_of_reference_uid="1.2.3",
        sha256=sha256_of_array(array),
        **values,
    )


def any_series(volume: Volume) -> SortedSeries:
    """A series of as many slices as the volume has; the segmenter does not look into it."""
    return SortedSeries("1.2", UID, "1.2.3", (), (1, 0, 0), (0, 1, 0), volume.spacing[1:], volume.spacing[0], 1, 1)


# ---------------------------------------------------------------- nnU-Net v2


def v2_plans(dims: int = 3, **change: Any) -> dict[str, Any]:
    """plans.json of a small model with one configuration."""
    name = "3d_fullres" if dims == 3 else "2d"
    spacing = [4.0, 2.0, 2.0][3 - dims :]
    kernels = [[1, 3, 3][3 - dims :], [3] * dims, [3] * dims]
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": kernels,
        "strides": [[1] * dims, [1, 2, 2][3 - dims :], [2] * dims],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "small",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 16, 24][3 - dims :],
        "median_image_size_in_voxels": [20.0] * dims,
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    plans = {
        "dataset_name": "Dataset900_Small",
        "plans_name": "smallPlans",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.0],
        "original_median_shape_after_transp": [40, 64, 64],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: configuration | change.pop("configuration", {})},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": CT},
    }
    return plans | change


def residual_plans(dims: int = 3) -> dict[str, Any]:
    """plans.json of a small model with a residual encoder."""
    plans = v2_plans(dims)
    (configuration,) = plans["configurations"].values()
    architecture = configuration["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    kwargs = architecture["arch_kwargs"]
    kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    return plans


def v2_dataset(labels: dict[str, Any] | None = None, channel: str = "CT", **more: Any) -> dict[str, Any]:
    """dataset.json."""
    return {"channel_names": {"0": channel}, "labels": labels or LABELS, "file_ending": ".nii.gz", **more}


def write_v2(
    folder: Path,
    plans: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    folds: tuple[str, ...] = ("0",),
    axes: tuple[int, ...] | None = None,
    stated: str = 'axes = "LPS"',
) -> Path:
    """An ordinary model folder of nnU-Net v2, with what its trainer saves in a checkpoint, and a ctenrich.toml."""
    plans, dataset = plans or v2_plans(), dataset or v2_dataset()
    name = next(iter(plans["configurations"]))
    dims = len(plans["configurations"][name]["patch_size"])
    axes = tuple(range(dims)) if axes is None else axes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    if stated:
        (folder / "ctenrich.toml").write_text(stated)
    for number, fold in enumerate(folds):
        torch.manual_seed(number)
        network = library_network(parse_v2(plans, dataset, name, axes).network)
        livelier(network)
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": [0.01]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1,
            "init_args": {"plans": plans, "configuration": name, "fold": fold, "dataset_json": dataset},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": axes or None,
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def livelier(network: torch.nn.Module) -> None:
    """Weights with which the label map is neither empty nor noise: norms and biases off their start values."""
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("norm.bias"):
                parameter.uniform_(-0.3, 0.3)
            elif "seg_" in name:
                parameter.normal_(0, 1.5) if name.endswith("weight") else parameter.zero_()
                parameter.sub_(parameter.mean(dim=min(1, parameter.ndim - 1), keepdim=True))


# ---------------------------------------------------------------- nnU-Net v1


def v1_stage(dims: int, isotropic: bool, spacing: tuple[float, float, float]) -> dict[str, Any]:
    """One stage of a v1 plan."""
    full = dims == 3
    pools = [[2, 2, 2], [2, 2, 2]] if isotropic else [[1, 2, 2], [2, 2, 2]]
    kernels = [[3, 3, 3]] * 3 if isotropic else [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    return {
        "batch_size": 2,
        "num_pool_per_axis": [2, 2, 2] if full else [2, 2],
        "patch_size": np.array([8, 16, 24] if full else [16, 24]),
        "median_patient_size_in_voxels": np.array([20, 40, 40]),
        "current_spacing": np.array(spacing),
        "original_spacing": np.array([3.0, 1.0, 1.0]),
        "do_dummy_2D_data_aug": not isotropic,
        "pool_op_kernel_sizes": [p if full else p[1:] for p in pools],
        "conv_kernel_sizes": [k if full else k[1:] for k in kernels],
    }


def v1_plans(dims: int, isotropic: bool, spacings: list[tuple[float, float, float]], **change: Any) -> dict[str, Any]:
    """plans.pkl."""
    properties = OrderedDict(
        mean=np.float64(-100.0),
        sd=np.float64(350.0),
        percentile_00_5=np.float64(-900.0),
        percentile_99_5=np.float64(600.0),
    )
    plans = {
        "num_stages": len(spacings),
        "num_modalities": 1,
        "modalities": {0: "CT"},
        "normalization_schemes": OrderedDict([(0, "CT")]),
        "dataset_properties": {"intensityproperties": OrderedDict([(0, properties)]), "all_classes": [1, 2, 3]},
        "list_of_npz_files": ["a.npz"],
        "original_spacings": [np.array([3.0, 1.0, 1.0])],
        "num_classes": 3,
        "all_classes": [1, 2, 3],
        "base_num_features": 6,
        "use_mask_for_norm": OrderedDict([(0, False)]),
        "keep_only_largest_region": None,
        "min_region_size_per_class": None,
        "min_size_per_class": None,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": {n: v1_stage(dims, isotropic, s) for n, s in enumerate(spacings)},
        "preprocessor_name": "GenericPreprocessor" if dims == 3 else "PreprocessorFor2D",
        "conv_per_stage": 2,
    }
    return plans | change


def write_v1(
    folder: Path,
    plans: dict[str, Any],
    stage: int,
    *,
    cascade: bool = False,
    folds: int = 1,
    postprocessing: dict[str, Any] | None = None,
    legacy: bool = False,
) -> Path:
    """A trained model's folder as nnU-Net v1 exports it, with a ctenrich.toml; the network is v1's own class."""
    from nnunet.network_architecture.generic_UNet import Generic_UNet
    from nnunet.network_architecture.initialization import InitWeights_He
    from torch import nn

    folder.mkdir(parents=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans))
    (folder / "ctenrich.toml").write_text('axes = "LPS"')
    trainer = "nnUNetTrainerV2CascadeFullRes" if cascade else "nnUNetTrainerV2"
    where = plans["plans_per_stage"][stage]
    dims = len(where["patch_size"])
    conv, drop, norm = (
        (nn.Conv3d, nn.Dropout3d, nn.InstanceNorm3d) if dims == 3 else (nn.Conv2d, nn.Dropout2d, nn.InstanceNorm2d)
    )
    for fold in range(folds):
        torch.manual_seed(10 * stage + fold + (100 if cascade else 0))
        network = Generic_UNet(
            1 + (plans["num_classes"] if cascade else 0), plans["base_num_features"], plans["num_classes"] + 1,
            len(where["pool_op_kernel_sizes"]), 2, 2, conv, norm, {"eps": 1e-5, "affine": True},
            drop, {"p": 0, "inplace": True}, nn.LeakyReLU, {"negative_slope": 1e-2, "inplace": True},
            True, False, lambda x: x, InitWeights_He(1e-2),
            where["pool_op_kernel_sizes"], where["conv_kernel_sizes"], False, True, True,
        )  # fmt: skip
        livelier(network)
        for name, parameter in network.named_parameters():
            if "instnorm" in name:
                torch.nn.init.uniform_(parameter, *((0.5, 1.5) if name.endswith("weight") else (-0.3, 0.3)))
        target = folder / f"fold_{fold}"
        target.mkdir()
        checkpoint = {
            "epoch": 1000,
            "state_dict": OrderedDict(network.state_dict()),
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0, 1]}]},
            "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(-0.5)], [], [], [np.float64(0.6)]),
            "best_stuff": (None, np.float64(0.6), np.float64(0.6)),
        }
        file = target / "model_final_checkpoint.model"
        torch.save(checkpoint, file, _use_new_zipfile_serialization=not legacy)
        results = f"results/3d_fullres/Task900_Small/{trainer}__plans"
        init = ("plans.pkl", fold, results, "preprocessed/Task900_Small", False, stage, True, False)
        init += ("nnUNetTrainerV2", False) if cascade else (False,)
        info = OrderedDict(init=init, name=trainer, plans=plans)
        info["class"] = f"<class 'nnunet.training.{trainer}'>"
        (target / "model_final_checkpoint.model.pkl").write_bytes(pickle.dumps(info))
    if postprocessing is not None:
        (folder / "postprocessing.json").write_text(json.dumps(postprocessing))
    return folder

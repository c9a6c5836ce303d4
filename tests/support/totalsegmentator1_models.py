"""Small networks in the folder layout of nnU-Net v1, as TotalSegmentator 1.5.6 keeps them; nnunet is not needed.

Weights are from numpy's generator: the same on every machine.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

BASE = 6
BACKGROUND = 2.0
"""Weight of every feature for the background; larger values leave fewer voxels to the classes."""


def v1_plans(labels: int, spacing: float, seed: int) -> dict[str, Any]:
    """plans.pkl of a network with two poolings; every data set has its own normalisation."""
    properties = OrderedDict(
        mean=np.float64(-50.0 - 20 * (seed % 5)),
        sd=np.float64(300.0 + 10 * (seed % 7)),
        percentile_00_5=np.float64(-1000.0 + seed % 90),
        percentile_99_5=np.float64(700.0 + seed % 300),
    )
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [2, 2, 2],
        "patch_size": np.array([32, 48, 48]),
        "median_patient_size_in_voxels": np.array([60, 60, 60]),
        "current_spacing": np.array([spacing] * 3),
        "original_spacing": np.array([spacing] * 3),
        "do_dummy_2D_data_aug": False,
        "pool_op_kernel_sizes": [[2, 2, 2]] * 2,
        "conv_kernel_sizes": [[3, 3, 3]] * 3,
    }
    return {
        "num_stages": 1,
        "num_modalities": 1,
        "modalities": {0: "CT"},
        "normalization_schemes": OrderedDict([(0, "CT")]),
        "dataset_properties": {"intensityproperties": OrderedDict([(0, properties)]), "all_classes": [1]},
        "list_of_npz_files": ["a.npz"],
        "original_spacings": [np.array([spacing] * 3)],
        "num_classes": labels,
        "all_classes": list(range(1, labels + 1)),
        "base_num_features": BASE,
        "use_mask_for_norm": OrderedDict([(0, False)]),
        "keep_only_largest_region": None,
        "min_region_size_per_class": None,
        "min_size_per_class": None,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": {0: stage},
        "preprocessor_name": "GenericPreprocessor",
        "conv_per_stage": 2,
    }


def _state(classes: int, seed: int) -> OrderedDict[str, torch.Tensor]:
    """Tensors of v1's Generic_UNet with two poolings, by its own names."""
    rng = np.random.default_rng(seed)
    out: OrderedDict[str, torch.Tensor] = OrderedDict()

    def put(name: str, values: Any) -> None:
        out[name] = torch.from_numpy(np.asarray(values, np.float32))

    def block(name: str, n_in: int, n_out: int) -> None:
        put(f"{name}.conv.weight", rng.normal(scale=np.sqrt(2 / (n_in * 27)), size=(n_out, n_in, 3, 3, 3)))
        put(f"{name}.conv.bias", rng.uniform(-0.3, 0.3, n_out))
        put(f"{name}.instnorm.weight", rng.uniform(0.5, 1.5, n_out))
        put(f"{name}.instnorm.bias", rng.uniform(-0.3, 0.3, n_out))

    block("conv_blocks_context.0.blocks.0", 1, BASE)
    block("conv_blocks_context.0.blocks.1", BASE, BASE)
    block("conv_blocks_context.1.blocks.0", BASE, 2 * BASE)
    block("conv_blocks_context.1.blocks.1", 2 * BASE, 2 * BASE)
    block("conv_blocks_context.2.0.blocks.0", 2 * BASE, 4 * BASE)
    block("conv_blocks_context.2.1.blocks.0", 4 * BASE, 4 * BASE)
    for level, (below, here) in enumerate(((4 * BASE, 2 * BASE), (2 * BASE, BASE))):
        block(f"conv_blocks_localization.{level}.0.blocks.0", 2 * here, here)
        block(f"conv_blocks_localization.{level}.1.blocks.0", here, here)
        put(f"tu.{level}.weight", rng.normal(scale=np.sqrt(1 / below), size=(below, here, 2, 2, 2)))
        heads = rng.normal(size=(classes, here))
        heads -= heads.mean(axis=0)
        heads[0] = BACKGROUND
        put(f"seg_outputs.{level}.weight", heads[:, :, None, None, None])
    return out


def write_v1_dataset(folder: Path, labels: int, spacing: float, *, seed: int) -> Path:
    """A trainer's folder of nnU-Net v1 with so many labels."""
    plans = v1_plans(labels, spacing, seed)
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans))
    checkpoint = {
        "epoch": 8000,
        "state_dict": _state(labels + 1, seed),
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0, 1]}]},
        "lr_scheduler_state_dict": None,
        "plot_stuff": ([np.float64(-0.5)], [], [], [np.float64(0.6)]),
        "best_stuff": (None, np.float64(0.6), np.float64(0.6)),
    }
    torch.save(checkpoint, fold / "model_final_checkpoint.model")
    init = ("plans.pkl", 0, "results", "preprocessed/Task900_Small", False, 0, True, False, False)
    info = OrderedDict(init=init, name="nnUNetTrainerV2", plans=plans)
    info["class"] = "<class 'nnunet.training.network_training.nnUNetTrainerV2'>"
    (fold / "model_final_checkpoint.model.pkl").write_bytes(pickle.dumps(info))
    return folder

"""nnU-Net v1 exports: plans.pkl, checkpoints and postprocessing.json, converted to the form of v2 models.

v1's Generic_UNet has the layers of v2's plain U-Net under other names, without biases in its transposed convolutions
and heads. Its decoder takes the kernel of the level below, so that the stage at full resolution is 3x3x3 where v2
builds 1x3x3 from the same plan.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctenrich.errors import ModelError
from ctenrich.inference.checkpoint import load_restricted
from ctenrich.inference.registry import ModelKind, ResolvedModel
from ctenrich.inference.restricted_unpickler import load_pickle_restricted
from ctenrich.nnunet.conventions import toml_labels
from ctenrich.nnunet.plans import LabelPlan, ModelPlan, NetworkPlan, Normalisation, Resampling, fail
from ctenrich.nnunet.source_folder import SourceConfiguration, read_json
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import torch

__all__ = ["parse_v1", "read_v1", "rename_v1"]

_CHECKPOINT = "model_final_checkpoint.model"
_CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
_TOP_FEATURES = {2: 480, 3: 320}


# ---------------------------------------------------------------- reading an export


def read_v1(model: ResolvedModel) -> Iterator[SourceConfiguration]:
    """Configurations of a v1 export: every folder with plans.pkl and folds.

    Raises
    ------
    ModelError
        BAD_MODEL, UNSAFE_WEIGHTS or WRONG_MODALITY.
    """
    folders = sorted({p.parent for p in model.folder.rglob("plans.pkl")})
    if not folders:
        fail(f"{model.name} contains no nnU-Net model", "plans.json (v2) or plans.pkl (v1) and folds are expected")
    seen: set[str] = set()
    for folder in folders:
        source = _read_configuration_v1(model, folder)
        if source.configuration in seen:
            fail(
                f"{model.name} contains the configuration {source.configuration} twice",
                "give the folder of one trainer",
            )
        seen.add(source.configuration)
        yield source


def _read_configuration_v1(model: ResolvedModel, folder: Path) -> SourceConfiguration:
    found = {p.name.removeprefix("fold_"): p / _CHECKPOINT for p in sorted(folder.iterdir()) if _is_fold(p)}
    if not found:
        fail(f"{folder.name} has no fold with a checkpoint", f"expected fold_0/{_CHECKPOINT}")
    first = next(iter(found.values()))
    info_file = first.with_name(f"{_CHECKPOINT}.pkl")
    if not info_file.is_file():
        fail(f"{first.parent.name} has no {info_file.name}")
    info = load_pickle_restricted(info_file)
    try:
        plans, init, trainer = info["plans"], info["init"], str(info["name"])
        stage = _stage_index(plans, init)
        configuration = _configuration_name(plans, stage, trainer, folder)
        if "region" in trainer.lower():
            fail("v1 models that were trained on regions are not supported")
        small = _reduced_plans(plans, stage)
        small["base_num_features"] = int(plans["base_num_features"])
        dims = len(small["stage"]["patch_size"])
        small["mirror_axes"] = [] if "nomirror" in trainer.lower() else list(range(dims))
        small["trainer"] = trainer
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        fail(f"{info_file.name} cannot be used: {type(error).__name__}: {str(error)[:100]}")
    dataset = {"labels": _labels_v1(model, folder, small["num_classes"])}
    postprocessing = folder / "postprocessing.json"
    if postprocessing.is_file():
        dataset["postprocessing"] = _postprocessing_v1(read_json(postprocessing))
    folds = {fold: _weights_reader_v1(path) for fold, path in found.items()}
    axes = tuple(small["mirror_axes"])
    return SourceConfiguration(configuration, ModelKind.NNUNET_V1, small, dataset, axes, trainer, folds)


def _is_fold(path: Path) -> bool:
    return (path.name.startswith("fold_") or path.name == "all") and (path / _CHECKPOINT).is_file()


def _stage_index(plans: Any, init: Any) -> int:
    """Stage of the plan that the network was trained on: the sixth argument of its trainer."""
    stages = sorted(plans["plans_per_stage"])
    stage = init[5] if len(init) > 5 else None
    if stage is None:
        if len(stages) != 1:
            fail("the checkpoint does not state its stage of the plan")
        stage = stages[0]
    return int(stage)


def _configuration_name(plans: Any, stage: int, trainer: str, folder: Path) -> str:
    named = [part for part in folder.parts if part in _CONFIGURATIONS]
    if named:
        return named[-1]
    if len(plans["plans_per_stage"][stage]["patch_size"]) == 2:
        return "2d"
    if "CascadeFullRes" in trainer:
        return "3d_cascade_fullres"
    return "3d_lowres" if len(plans["plans_per_stage"]) > 1 and stage == 0 else "3d_fullres"


def _reduced_plans(plans: Any, stage: int) -> dict[str, Any]:
    """The parts of v1's plans that inference needs, as JSON values."""
    chosen = plans["plans_per_stage"][stage]
    keys = ("patch_size", "current_spacing", "pool_op_kernel_sizes", "conv_kernel_sizes", "num_pool_per_axis")
    modalities = plans.get("modalities") or {}
    properties = plans["dataset_properties"]["intensityproperties"]
    wanted = ("mean", "sd", "percentile_00_5", "percentile_99_5")
    return {
        "stage": {key: _as_json_value(chosen[key]) for key in keys if chosen.get(key) is not None},
        "modalities": [str(modalities[k]) for k in sorted(modalities)],
        "num_modalities": int(plans["num_modalities"]),
        "num_classes": int(plans["num_classes"]),
        "normalisation": str(plans["normalization_schemes"][0]),
        "intensities": {k: float(properties[0][k]) for k in wanted} if properties else None,
        "mask": bool(plans["use_mask_for_norm"][0]),
        "transpose_forward": _as_json_value(plans.get("transpose_forward") or [0, 1, 2]),
        "transpose_backward": _as_json_value(plans.get("transpose_backward") or [0, 1, 2]),
        "conv_per_stage": int(plans.get("conv_per_stage", 2)),
        "preprocessor": str(plans.get("preprocessor_name") or ""),
        "export": _as_json_value(plans.get("segmentation_export_params") or {}),
    }


def _as_json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _as_json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json_value(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return fail(f"the plan contains a {type(value).__name__}")


def _labels_v1(model: ResolvedModel, folder: Path, count: int) -> dict[str, int]:
    """Label name -> value: ctenrich.toml, labels.json or dataset.json beside or above the export, else the registry."""
    labels: dict[str, int] = {}
    inside = [folder, *(p for p in folder.parents if p == model.folder or p.is_relative_to(model.folder))]
    stated = next(filter(None, map(toml_labels, inside)), {})
    files = [p / name for p in inside for name in ("labels.json", "dataset.json") if (p / name).is_file()]
    if stated:
        labels = stated
    elif files:
        found = read_json(files[0])
        found = found.get("labels", found)
        for key, value in found.items():
            name, number = (value, key) if str(key).isdigit() else (key, value)
            if int(number) != 0:
                labels[str(name)] = int(number)
    elif model.entry is not None and model.entry.labels:
        labels = dict(model.entry.labels)
    else:
        hint = 'give a labels.json such as {"heart": 1, "aorta": 2}, or [labels] in ctenrich.toml'
        fail(f"the v1 export {model.name} does not name its {count} labels", hint)
    if sorted(labels.values()) != list(range(1, count + 1)):
        fail(f"{count} labels are in the plan, and {len(labels)} are named")
    return labels


def _postprocessing_v1(found: dict[str, Any]) -> dict[str, Any]:
    classes = found.get("for_which_classes") or []
    sets = [sorted(int(v) for v in (c if isinstance(c, list) else [c])) for c in classes]
    sizes: dict[str, float] = {}
    if found.get("min_valid_object_sizes"):
        text = str(found["min_valid_object_sizes"])
        if len(text) > 10_000:
            fail("postprocessing.json is too large")
        for key, value in dict(ast.literal_eval(text)).items():
            members = sorted(key) if isinstance(key, tuple) else [int(key)]
            sizes[",".join(map(str, members))] = float(value)
    return {"keep_largest": sets, "minimum_volume": sizes or None}


def _weights_reader_v1(path: Path) -> Callable[[], dict[str, torch.Tensor]]:
    def read() -> dict[str, torch.Tensor]:
        import torch

        data = load_restricted(path, only={"state_dict"})
        state = data.get("state_dict") if isinstance(data, dict) else None
        if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
            fail(f"{path.name} contains no network weights")
        return rename_v1(state)

    return read


_BLOCK = re.compile(
    r"(?:module\.)?conv_blocks_(context|localization)\.(\d+)\.(?:([01])\.)?blocks\.(\d+)\.(conv|instnorm)\.(weight|bias)"
)
_OTHER = re.compile(r"(?:module\.)?(tu|seg_outputs)\.(\d+)\.(weight)")


def rename_v1(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename v1's tensors to v2's names.

    Raises
    ------
    ModelError
        BAD_MODEL for a name that a Generic_UNet with convolutional pooling and upsampling does not have.
    """
    out: dict[str, torch.Tensor] = {}
    blocks: dict[tuple[str, str, str], int] = {}
    for name in state:
        match = _BLOCK.fullmatch(name)
        if match and match[3] != "1":
            key = (match[1], match[2], "")
            blocks[key] = max(blocks.get(key, 0), int(match[4]) + 1)
    for name, tensor in state.items():
        block, other = _BLOCK.fullmatch(name), _OTHER.fullmatch(name)
        if block:
            where, level, half, index, layer, kind = block.groups()
            number = int(index) + (blocks.get((where, level, ""), 0) if half == "1" else 0)
            stage = f"encoder.stages.{level}.0" if where == "context" else f"decoder.stages.{level}"
            out[f"{stage}.convs.{number}.{'norm' if layer == 'instnorm' else layer}.{kind}"] = tensor
        elif other:
            layer = "transpconvs" if other[1] == "tu" else "seg_layers"
            out[f"decoder.{layer}.{other[2]}.{other[3]}"] = tensor
        else:
            fail(f"the weights contain {name[:80]}, which this version of the network does not have")
    return out


# ---------------------------------------------------------------- the plan


def parse_v1(plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: str) -> ModelPlan:
    """Parse the parts of a v1 plan that `read_v1` kept.

    Parameters
    ----------
    plans, dataset : mapping
        As `SourceConfiguration` holds them.
    configuration : str

    Returns
    -------
    ModelPlan

    Raises
    ------
    ModelError
        BAD_MODEL if something is missing or not supported; WRONG_MODALITY if the model does not take CT alone.
    """
    if plans["num_modalities"] != 1 or [m.upper() for m in plans["modalities"]] not in ([], ["CT"]):
        raise ModelError(
            Reason.WRONG_MODALITY, f"the model needs {', '.join(plans['modalities'])}; only CT alone is supported"
        )
    if plans["preprocessor"] not in {"", "GenericPreprocessor", "PreprocessorFor2D"}:
        fail(f"the preprocessing {plans['preprocessor']} is not supported")
    if plans["mask"]:
        fail("normalisation inside a mask is not supported")
    stage = plans["stage"]
    patch = tuple(int(v) for v in stage["patch_size"])
    dims = len(patch)
    names = {str(k): int(v) for k, v in dataset["labels"].items()}
    export = {"force_separate_z": None, "interpolation_order": 1, "interpolation_order_z": 0, **plans["export"]}
    cascade = configuration == "3d_cascade_fullres"
    after = dataset.get("postprocessing") or {}
    return ModelPlan(
        version=1,
        configuration=configuration,
        patch=patch,
        spacing=tuple(float(v) for v in stage["current_spacing"])[-dims:],
        transpose=tuple(int(v) for v in plans["transpose_forward"]),
        transpose_back=tuple(int(v) for v in plans["transpose_backward"]),
        normalisation=_normalisation_v1(plans),
        data=Resampling(3, 0, None),
        logits=Resampling(
            int(export["interpolation_order"]), int(export["interpolation_order_z"]), export["force_separate_z"]
        ),
        network=_network_v1(plans, dims, len(names) + 1, len(names) if cascade else 0),
        labels=LabelPlan(names),
        mirror_axes=tuple(int(a) for a in plans["mirror_axes"]),
        previous="3d_lowres" if cascade else "",
        keep_largest=tuple(tuple(c) for c in after.get("keep_largest", ())),
        minimum_volume=after.get("minimum_volume"),
    )


def _normalisation_v1(plans: Mapping[str, Any]) -> Normalisation:
    scheme = plans["normalisation"]
    if scheme == "CT":
        p = plans["intensities"]
        return Normalisation("ct", p["percentile_00_5"], p["percentile_99_5"], p["mean"], p["sd"])
    known = {"noNorm": "none", "nonCT": "zscore"}
    if scheme not in known:
        fail(f"the normalisation {scheme} is not supported")
    return Normalisation(known[scheme])


def _network_v1(plans: Mapping[str, Any], dims: int, classes: int, extra: int) -> NetworkPlan:
    stage = plans["stage"]
    pools = [tuple(int(v) for v in row) for row in stage["pool_op_kernel_sizes"]]
    kernels = [tuple(int(v) for v in row) for row in stage["conv_kernel_sizes"]]
    count = int(plans["conv_per_stage"])
    if len(kernels) != len(pools) + 1 or any(k not in {1, 3} for row in kernels for k in row):
        fail("the network's kernels are not those of v1")
    base, top = int(plans["base_num_features"]), _TOP_FEATURES[dims]
    return NetworkPlan(
        dims=dims,
        in_channels=1 + extra,
        classes=classes,
        features=tuple(min(base * 2**level, top) for level in range(len(kernels))),
        kernels=tuple(kernels),
        strides=((1,) * dims, *pools),
        convs_encoder=(count,) * len(kernels),
        convs_decoder=(count,) * len(pools),
        decoder_kernels=tuple(kernels[::-1][: len(pools)]),
        conv_bias=True,
        up_bias=False,
        head_bias=False,
    )

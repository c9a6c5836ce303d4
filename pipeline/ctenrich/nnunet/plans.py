"""Plans of nnU-Net models in one form for v1 and v2: grid, normalisation, resampling, network, labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ctenrich.errors import ModelError
from ctenrich.reasons import Reason

__all__ = ["LabelPlan", "ModelPlan", "NetworkPlan", "Normalisation", "Resampling", "fail", "parse_v2"]

Ints = tuple[int, ...]


@dataclass(frozen=True)
class NetworkPlan:
    """A U-Net with plain convolutions, as nnU-Net v1 (Generic_UNet) and v2 (PlainConvUNet) build it."""

    dims: int
    """2 or 3."""
    in_channels: int
    classes: int
    """Number of output channels."""
    features: Ints
    """Channels of each stage of the encoder."""
    kernels: tuple[Ints, ...]
    """Kernel of each stage of the encoder."""
    strides: tuple[Ints, ...]
    """Stride of the first convolution of each stage."""
    convs_encoder: Ints
    convs_decoder: Ints
    decoder_kernels: tuple[Ints, ...]
    """Kernel of each stage of the decoder, from the lowest resolution up."""
    conv_bias: bool = True
    up_bias: bool = True
    head_bias: bool = True
    norm_eps: float = 1e-5
    slope: float = 0.01
    """Negative slope of the leaky rectifier."""
    residual: Mapping[str, Any] | None = None
    """Keyword arguments of a ResidualEncoderUNet; None for a plain U-Net."""


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of the image's values."""

    scheme: str
    """ct, zscore, rescale or none."""
    lower: float = 0.0
    upper: float = 0.0
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Resampling:
    """Rule for resampling an array from one grid to another."""

    order: int
    order_z: int
    force_separate_z: bool | None
    threshold: float = 3.0
    """Ratio of the largest to the smallest spacing above which slices are resampled one by one."""


@dataclass(frozen=True)
class LabelPlan:
    """Meaning of the output channels."""

    names: Mapping[str, int]
    """Label name -> value in the label map, without background and ignored regions."""
    regions: bool = False
    """Whether channels are overlapping regions (sigmoid, > 0.5), painted in the order of `order`."""
    order: Ints = ()
    """Label value that channel c paints; without regions channel c is label value c."""


@dataclass(frozen=True)
class ModelPlan:
    """Everything that inference needs to know about one configuration of a model."""

    version: int
    """1 or 2: which nnU-Net."""
    configuration: str
    patch: Ints
    spacing: tuple[float, ...]
    """Target spacing, mm, of the transposed axes; two values for 2d configurations (slices keep theirs)."""
    transpose: Ints
    transpose_back: Ints
    normalisation: Normalisation
    data: Resampling
    logits: Resampling
    network: NetworkPlan
    labels: LabelPlan
    mirror_axes: Ints
    """Axes of the patch that were mirrored in training."""
    modality: str = "CT"
    previous: str = ""
    """Configuration whose labels are further input channels (cascade)."""
    keep_largest: tuple[Ints, ...] = ()
    """Postprocessing (v1): sets of label values of which only the largest component stays."""
    minimum_volume: Mapping[str, float] | None = None


def fail(message: str, hint: str = "") -> NoReturn:
    """Refuse a model whose plan cannot be used.

    Parameters
    ----------
    message : str
    hint : str
        Advice for the user.

    Raises
    ------
    ModelError
        BAD_MODEL, always.
    """
    raise ModelError(Reason.BAD_MODEL, message, hint)


# ---------------------------------------------------------------- nnU-Net v2


def parse_v2(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: str, mirror_axes: Sequence[int] | None
) -> ModelPlan:
    """Parse plans.json and dataset.json of nnU-Net v2.

    Parameters
    ----------
    plans, dataset : mapping
        The two files as plain data.
    configuration : str
        Key of ``plans["configurations"]``; inheritance is resolved.
    mirror_axes : sequence of int or None
        Axes of the patch that training mirrored, from the checkpoint.

    Returns
    -------
    ModelPlan

    Raises
    ------
    ModelError
        BAD_MODEL if something is missing or not supported; WRONG_MODALITY if the model does not take CT alone.
    """
    try:
        conf = _resolve_configuration(plans["configurations"], configuration)
        labels = _labels_v2(dataset)
        patch = _ints(conf["patch_size"])
        modality = _require_ct(dataset)
        return ModelPlan(
            version=2,
            configuration=configuration,
            patch=patch,
            spacing=tuple(float(v) for v in conf["spacing"]),
            transpose=_ints(plans["transpose_forward"]),
            transpose_back=_ints(plans["transpose_backward"]),
            normalisation=_normalisation_v2(plans, conf),
            data=_resampling_v2(conf, "data", 3),
            logits=_resampling_v2(conf, "probabilities", 1),
            network=_network_v2(
                conf, len(patch), _output_channels(dataset), len(labels.names) if _cascaded(conf) else 0
            ),
            labels=labels,
            mirror_axes=tuple(int(a) for a in mirror_axes or ()),
            modality=modality,
            previous=str(conf.get("previous_stage") or ""),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        fail(f"the plan cannot be used: {type(error).__name__}: {str(error)[:100]}")


def _resolve_configuration(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name not in configurations:
        fail(f"the plan has no configuration {name!r}", f"it has: {', '.join(configurations)}")
    own = dict(configurations[name])
    for _ in range(10):
        parent = own.pop("inherits_from", None)
        if parent is None:
            return own
        own = {**configurations[parent], **own}
    return fail("the plan's configurations inherit in a circle")


def _cascaded(conf: Mapping[str, Any]) -> bool:
    return bool(conf.get("previous_stage"))


def _ints(values: Sequence[Any]) -> Ints:
    return tuple(int(v) for v in values)


def _require_ct(dataset: Mapping[str, Any]) -> str:
    channels = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(channels, Mapping) or not channels:
        fail("dataset.json names no channels")
    names = [str(v) for v in channels.values()]
    if len(names) != 1 or names[0].upper() != "CT":
        raise ModelError(Reason.WRONG_MODALITY, f"the model needs {', '.join(names)}; only CT alone is supported")
    return "CT"


def _labels_v2(dataset: Mapping[str, Any]) -> LabelPlan:
    labels = {str(k): v for k, v in dataset["labels"].items() if k not in {"background", "ignore"}}
    order = dataset.get("regions_class_order")
    if order is not None and any(isinstance(v, list) for v in labels.values()):
        names = dict(zip(labels, _ints(order), strict=True))
        return LabelPlan(names, regions=True, order=tuple(names.values()))
    values = {name: int(value) for name, value in labels.items()}
    if sorted(values.values()) != list(range(1, len(values) + 1)):
        fail("the label values are not 1, 2, 3 ...")
    return LabelPlan(values)


def _output_channels(dataset: Mapping[str, Any]) -> int:
    labels = _labels_v2(dataset)
    return len(labels.names) + (0 if labels.regions else 1)


def _normalisation_v2(plans: Mapping[str, Any], conf: Mapping[str, Any]) -> Normalisation:
    scheme = str(conf["normalization_schemes"][0])
    if any(conf.get("use_mask_for_norm") or ()) and scheme != "CTNormalization":
        fail("normalisation inside a mask is not supported")
    if scheme == "CTNormalization":
        p = plans["foreground_intensity_properties_per_channel"]["0"]
        values = (p["percentile_00_5"], p["percentile_99_5"], p["mean"], p["std"])
        return Normalisation("ct", *(float(v) for v in values))
    known = {"ZScoreNormalization": "zscore", "NoNormalization": "none", "RescaleTo01Normalization": "rescale"}
    if scheme not in known:
        fail(f"the normalisation {scheme} is not known")
    return Normalisation(known[scheme])


def _resampling_v2(conf: Mapping[str, Any], target: str, order: int) -> Resampling:
    function = conf.get(f"resampling_fn_{target}", "resample_data_or_seg_to_shape")
    if function != "resample_data_or_seg_to_shape":
        fail(f"the resampling {function} is not supported")
    kwargs = conf.get(f"resampling_fn_{target}_kwargs") or {"order": order, "order_z": 0, "force_separate_z": None}
    if kwargs.get("is_seg"):
        fail("images cannot be resampled as label maps")
    threshold = float(kwargs.get("separate_z_anisotropy_threshold", 3.0))
    return Resampling(
        int(kwargs.get("order", 3)), int(kwargs.get("order_z", 0)), kwargs.get("force_separate_z", False), threshold
    )


def _network_v2(conf: Mapping[str, Any], dims: int, classes: int, extra: int) -> NetworkPlan:
    architecture = conf.get("architecture")
    if architecture is None:
        kind, kwargs = _old_architecture(conf)
    else:
        kind = str(architecture["network_class_name"]).rpartition(".")[2]
        kwargs = dict(architecture["arch_kwargs"])
    if kind not in {"PlainConvUNet", "ResidualEncoderUNet"}:
        fail(f"the network {kind[:60]} is not supported", "plain and residual encoder U-Nets are")
    _check_layers(kwargs, dims)
    stages = int(kwargs["n_stages"])
    residual = kind == "ResidualEncoderUNet"
    kernels = _kernels_per_stage(kwargs["kernel_sizes"], stages, dims)
    return NetworkPlan(
        dims=dims,
        in_channels=1 + extra,
        classes=classes,
        features=_ints_per_stage(kwargs["features_per_stage"], stages),
        kernels=kernels,
        strides=_kernels_per_stage(kwargs["strides"], stages, dims),
        convs_encoder=_ints_per_stage(kwargs["n_blocks_per_stage" if residual else "n_conv_per_stage"], stages),
        convs_decoder=_ints_per_stage(kwargs["n_conv_per_stage_decoder"], stages - 1),
        decoder_kernels=kernels[-2::-1],
        conv_bias=bool(kwargs.get("conv_bias", False)),
        up_bias=bool(kwargs.get("conv_bias", False)),
        norm_eps=float((kwargs.get("norm_op_kwargs") or {}).get("eps", 1e-5)),
        slope=float((kwargs.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)),
        residual=kwargs if residual else None,
    )


def _old_architecture(conf: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Architecture of older plans, which describe the network without naming an architecture."""
    kind = str(conf["UNet_class_name"])
    stages = len(conf["n_conv_per_stage_encoder"])
    base, top = int(conf["UNet_base_num_features"]), int(conf["unet_max_num_features"])
    dims = len(conf["patch_size"])
    return kind, {
        "n_stages": stages,
        "features_per_stage": [min(base * 2**i, top) for i in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": conf["conv_kernel_sizes"],
        "strides": conf["pool_op_kernel_sizes"],
        "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage": conf["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": conf["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _check_layers(kwargs: Mapping[str, Any], dims: int) -> None:
    wanted = {"conv_op": rf"Conv{dims}d", "norm_op": rf"InstanceNorm{dims}d", "nonlin": "LeakyReLU"}
    for key, pattern in wanted.items():
        name = str(kwargs.get(key)).rpartition(".")[2]
        if re.fullmatch(pattern, name) is None:
            fail(f"the network's {key} {name[:60]} is not supported")
    if kwargs.get("nonlin_first") or not (kwargs.get("norm_op_kwargs") or {}).get("affine", False):
        fail("the order or kind of the network's normalisation is not supported")


def _ints_per_stage(value: Any, stages: int) -> Ints:
    out = (int(value),) * stages if isinstance(value, int) else _ints(value)
    if len(out) != stages:
        fail("the length of a list in the network's plan differs from its number of stages")
    return out


def _kernels_per_stage(value: Any, stages: int, dims: int) -> tuple[Ints, ...]:
    rows = [value] * stages if isinstance(value, int) else list(value)
    out = tuple((int(row),) * dims if isinstance(row, int) else _ints(row) for row in rows)
    if len(out) != stages or any(len(row) != dims for row in out):
        fail("the length of a list in the network's plan differs from its number of stages")
    return out

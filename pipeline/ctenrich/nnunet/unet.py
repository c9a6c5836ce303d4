"""The network: a plain U-Net as a function of its plan and its tensors, with nnU-Net v2's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctenrich.nnunet.plans import NetworkPlan, fail

if TYPE_CHECKING:
    import torch

__all__ = ["check_weights", "clean_names", "expected_shapes", "forward", "library_network", "load_into_library"]

Weights = Mapping[str, "torch.Tensor"]


def clean_names(state: Weights) -> dict[str, torch.Tensor]:
    """Drop the second and third names under which v2's modules list the same tensor."""
    out: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.").removeprefix("_orig_mod.")
        if ".all_modules." not in plain and not plain.startswith("decoder.encoder."):
            out[plain] = tensor
    return out


def expected_shapes(plan: NetworkPlan) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the network of `plan` needs."""
    shapes: dict[str, tuple[int, ...]] = {}
    if plan.residual is not None:
        state = clean_names(library_network(plan).state_dict())
        return {name: tuple(t.shape) for name, t in state.items()}

    def block(prefix: str, count: int, inputs: int, outputs: int, kernel: tuple[int, ...]) -> None:
        for c in range(count):
            name = f"{prefix}.convs.{c}"
            shapes[f"{name}.conv.weight"] = (outputs, inputs if c == 0 else outputs, *kernel)
            if plan.conv_bias:
                shapes[f"{name}.conv.bias"] = (outputs,)
            shapes[f"{name}.norm.weight"] = shapes[f"{name}.norm.bias"] = (outputs,)

    inputs = plan.in_channels
    for s, features in enumerate(plan.features):
        block(f"encoder.stages.{s}.0", plan.convs_encoder[s], inputs, features, plan.kernels[s])
        inputs = features
    top = len(plan.features) - 1
    for u in range(top):
        below, skip = plan.features[top - u], plan.features[top - u - 1]
        shapes[f"decoder.transpconvs.{u}.weight"] = (below, skip, *plan.strides[top - u])
        if plan.up_bias:
            shapes[f"decoder.transpconvs.{u}.bias"] = (skip,)
        block(f"decoder.stages.{u}", plan.convs_decoder[u], 2 * skip, skip, plan.decoder_kernels[u])
    head = f"decoder.seg_layers.{top - 1}"
    shapes[f"{head}.weight"] = (plan.classes, plan.features[0], *(1,) * plan.dims)
    if plan.head_bias:
        shapes[f"{head}.bias"] = (plan.classes,)
    return shapes


def check_weights(plan: NetworkPlan, weights: Weights) -> None:
    """Refuse weights whose names or shapes do not match the plan, or that are not finite.

    Parameters
    ----------
    plan : NetworkPlan
    weights : mapping of str to tensor
        Under nnU-Net v2's names.

    Raises
    ------
    ModelError
        BAD_MODEL.
    """
    import torch

    shapes = expected_shapes(plan)
    missing = sorted(set(shapes) - set(weights))
    extra = sorted(n for n in set(weights) - set(shapes) if not n.startswith("decoder.seg_layers."))
    if missing or extra:
        fail(f"the weights do not match the plan: {len(missing)} missing, {len(extra)} unknown, {(missing + extra)[0]}")
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            fail(f"the weights do not match the plan: {name} is {tuple(weights[name].shape)}, not {shape}")
        if not weights[name].is_floating_point() or not bool(torch.isfinite(weights[name]).all()):
            fail(f"the weights contain numbers that are not finite: {name}")


def forward(plan: NetworkPlan, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Compute the logits of a batch.

    Parameters
    ----------
    plan : NetworkPlan
        Of a plain U-Net.
    weights : mapping of str to tensor
        Under nnU-Net v2's names, on the device of `x`.
    x : tensor, [batch, channel, *patch]

    Returns
    -------
    tensor, [batch, class, *patch]
    """
    import torch
    from torch.nn import functional as nnf

    conv, norm = _operations(plan, x)
    up: Any = nnf.conv_transpose3d if plan.dims == 3 else nnf.conv_transpose2d

    def block(
        x: torch.Tensor, prefix: str, count: int, kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> torch.Tensor:
        padding = tuple((k - 1) // 2 for k in kernel)
        for c in range(count):
            n = f"{prefix}.convs.{c}"
            step = stride if c == 0 else (1,) * plan.dims
            x = conv(x, weights[f"{n}.conv.weight"], weights.get(f"{n}.conv.bias"), step, padding)
            x = nnf.leaky_relu_(norm(x, weights[f"{n}.norm.weight"], weights[f"{n}.norm.bias"]), plan.slope)
        return x

    one = (1,) * plan.dims
    skips: list[torch.Tensor] = []
    for s, kernel in enumerate(plan.kernels):
        x = block(x, f"encoder.stages.{s}.0", plan.convs_encoder[s], kernel, plan.strides[s])
        skips.append(x)
    top = len(plan.features) - 1
    x = skips.pop()
    for u in range(top):
        n = f"decoder.transpconvs.{u}"
        x = up(x, weights[f"{n}.weight"], weights.get(f"{n}.bias"), plan.strides[top - u])
        x = torch.cat((x, skips.pop()), 1)
        x = block(x, f"decoder.stages.{u}", plan.convs_decoder[u], plan.decoder_kernels[u], one)
    head = f"decoder.seg_layers.{top - 1}"
    out: torch.Tensor = conv(x, weights[f"{head}.weight"], weights.get(f"{head}.bias"), one, (0,) * plan.dims)
    return out


def _operations(plan: NetworkPlan, x: torch.Tensor) -> tuple[Any, Any]:
    """Convolution and instance normalisation: the same numbers but for rounding, by the quickest way on the device.

    On a CPU, torch sends a convolution of a single small tile to a slow general routine; asking for oneDNN's avoids it.
    Its group normalisation with one channel a group is instance normalisation, in a fraction of the time.
    """
    import torch
    from torch.nn import functional as nnf

    plain: Any = nnf.conv3d if plan.dims == 3 else nnf.conv2d
    mkldnn: Any = torch.backends.mkldnn
    quick = mkldnn.is_available() and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    if x.device.type != "cpu" or not quick:
        return plain, lambda x, weight, bias: nnf.instance_norm(x, weight=weight, bias=bias, eps=plan.norm_eps)
    one = (1,) * plan.dims

    def conv(x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any) -> torch.Tensor:
        out: torch.Tensor = torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, one, 1)
        return out

    return conv, lambda x, weight, bias: nnf.group_norm(x, x.shape[1], weight, bias, plan.norm_eps)


def library_network(plan: NetworkPlan) -> Any:
    """Build the network as a module of dynamic_network_architectures (reference engine, residual encoders).

    Raises
    ------
    ModelError
        BAD_MODEL if the decoder's kernels are not those that nnU-Net v2 builds.
    """
    import dynamic_network_architectures.architectures.unet as library
    from torch import nn

    conv = nn.Conv3d if plan.dims == 3 else nn.Conv2d
    norm = nn.InstanceNorm3d if plan.dims == 3 else nn.InstanceNorm2d
    common: dict[str, Any] = {
        "input_channels": plan.in_channels,
        "num_classes": plan.classes,
        "n_stages": len(plan.features),
        "features_per_stage": list(plan.features),
        "conv_op": conv,
        "kernel_sizes": [list(k) for k in plan.kernels],
        "strides": [list(s) for s in plan.strides],
        "n_conv_per_stage_decoder": list(plan.convs_decoder),
        "conv_bias": plan.conv_bias,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": plan.norm_eps, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True, "negative_slope": plan.slope},
    }
    if plan.residual is not None:
        return library.ResidualEncoderUNet(n_blocks_per_stage=list(plan.convs_encoder), **common).eval()
    if plan.decoder_kernels != plan.kernels[-2::-1]:
        fail("the decoder's kernels differ from those that nnU-Net v2 builds", "use the fast engine for v1 models")
    return library.PlainConvUNet(n_conv_per_stage=list(plan.convs_encoder), **common).eval()


def load_into_library(network: Any, weights: Weights) -> None:
    """Load weights into a module of `library_network`, under all its names.

    Parameters
    ----------
    network : torch.nn.Module
    weights : mapping of str to tensor
        Under the names of `clean_names`.

    Raises
    ------
    ModelError
        BAD_MODEL if a tensor is missing.
    """
    import torch

    state = network.state_dict()
    clean = clean_names(state)
    by_pointer = {tensor.data_ptr(): name for name, tensor in clean.items()}
    full = {name: weights.get(by_pointer[tensor.data_ptr()], tensor) for name, tensor in state.items()}
    if any(not isinstance(t, torch.Tensor) for t in full.values()):
        fail("the weights do not match the plan")
    network.load_state_dict(full)

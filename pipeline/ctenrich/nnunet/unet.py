"""The network: a plain or residual encoder U-Net as a function of its plan and its tensors, with nnU-Net v2's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ctenrich.nnunet.plans import NetworkPlan, fail

if TYPE_CHECKING:
    import torch

__all__ = ["UNet", "check_weights", "clean_names", "expected_shapes", "forward", "library_network", "load_into_library"]

Weights = Mapping[str, "torch.Tensor"]


def clean_names(state: Weights) -> dict[str, torch.Tensor]:
    """Drop the second and third names under which v2's modules list the same tensor."""
    out: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.").removeprefix("_orig_mod.")
        if ".all_modules." not in plain and not plain.startswith("decoder.encoder."):
            out[plain] = tensor
    return out


class _Shapes(dict[str, tuple[int, ...]]):
    """Name and shape of tensors, collected layer by layer."""

    def layer(self, name: str, channels: tuple[int, int], kernel: tuple[int, ...], *, bias: bool) -> None:
        """Add a convolution from `channels[0]` to `channels[1]` channels, and its normalisation."""
        self[f"{name}.conv.weight"] = (channels[1], channels[0], *kernel)
        if bias:
            self[f"{name}.conv.bias"] = (channels[1],)
        self[f"{name}.norm.weight"] = self[f"{name}.norm.bias"] = (channels[1],)

    def block(self, plan: NetworkPlan, name: str, ends: tuple[int, int], count: int, kernel: tuple[int, ...]) -> None:
        """Add `count` layers one after the other, from `ends[0]` to `ends[1]` channels."""
        for c in range(count):
            self.layer(f"{name}.convs.{c}", (ends[c > 0], ends[1]), kernel, bias=plan.conv_bias)


def expected_shapes(plan: NetworkPlan) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the network of `plan` needs."""
    shapes = _Shapes()
    _encoder_shapes(plan, shapes)
    top = len(plan.features) - 1
    for u in range(top):
        below, skip = plan.features[top - u], plan.features[top - u - 1]
        shapes[f"decoder.transpconvs.{u}.weight"] = (below, skip, *plan.strides[top - u])
        if plan.up_bias:
            shapes[f"decoder.transpconvs.{u}.bias"] = (skip,)
        shapes.block(plan, f"decoder.stages.{u}", (2 * skip, skip), plan.convs_decoder[u], plan.decoder_kernels[u])
    head = f"decoder.seg_layers.{top - 1}"
    shapes[f"{head}.weight"] = (plan.classes, plan.features[0], *(1,) * plan.dims)
    if plan.head_bias:
        shapes[f"{head}.bias"] = (plan.classes,)
    return dict(shapes)


def _encoder_shapes(plan: NetworkPlan, shapes: _Shapes) -> None:
    inputs = plan.in_channels
    if plan.residual is not None:
        shapes.block(plan, "encoder.stem", (inputs, plan.features[0]), 1, plan.kernels[0])
        inputs = plan.features[0]
    for s, features in enumerate(plan.features):
        if plan.residual is None:
            shapes.block(plan, f"encoder.stages.{s}.0", (inputs, features), plan.convs_encoder[s], plan.kernels[s])
        for part in _residual_blocks(plan, s, inputs):
            shapes.layer(f"{part.name}.conv1", (part.inputs, features), plan.kernels[s], bias=plan.conv_bias)
            shapes.layer(f"{part.name}.conv2", (features, features), plan.kernels[s], bias=plan.conv_bias)
            if part.projection:
                shapes.layer(part.projection, (part.inputs, features), (1,) * plan.dims, bias=False)
        inputs = features


class _ResidualBlock(NamedTuple):
    """One block of a residual encoder (He et al. 2019, ResNet-D): two convolutions, and a shortcut that is added."""

    name: str
    inputs: int
    stride: tuple[int, ...]
    projection: str
    """Name of the 1x1 convolution in the shortcut; empty where the number of channels does not change."""


def _residual_blocks(plan: NetworkPlan, stage: int, inputs: int) -> Iterator[_ResidualBlock]:
    """Blocks of one stage of a residual encoder, whose first block has the stride; none for a plain encoder."""
    for b in range(plan.convs_encoder[stage] if plan.residual is not None else 0):
        name = f"encoder.stages.{stage}.blocks.{b}"
        stride = plan.strides[stage] if b == 0 else (1,) * plan.dims
        # the shortcut is average pooling, then the projection; each is there only where it is needed
        place = 1 if set(stride) != {1} else 0
        projection = f"{name}.skip.{place}" if inputs != plan.features[stage] else ""
        yield _ResidualBlock(name, inputs, stride, projection)
        inputs = plan.features[stage]


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
    shapes = expected_shapes(plan)
    missing = sorted(set(shapes) - set(weights))
    extra = sorted(n for n in set(weights) - set(shapes) if not n.startswith("decoder.seg_layers."))
    if missing or extra:
        fail(f"the weights do not match the plan: {len(missing)} missing, {len(extra)} unknown, {(missing + extra)[0]}")
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            fail(f"the weights do not match the plan: {name} is {tuple(weights[name].shape)}, not {shape}")
        if not weights[name].is_floating_point() or not _is_finite(weights[name]):
            fail(f"the weights contain numbers that are not finite: {name}")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are numbers: the extremes of a tensor are, if and only if all are."""
    low, high = tensor.aminmax()
    return bool(low.isfinite() & high.isfinite())


@dataclass(frozen=True)
class UNet:
    """A plain or residual encoder U-Net with its tensors; called with a batch, it returns the logits."""

    plan: NetworkPlan
    weights: Weights
    """Under nnU-Net v2's names, on one device."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [batch, class, *patch] of a batch [batch, channel, *patch]."""
        return forward(self.plan, self.weights, x)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Features [batch, feature, *patch] of which `logits` makes the logits."""
        return _features(self.plan, self.weights, x)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of features; those of a part of a patch are that part of the patch's logits."""
        return _logits(self.plan, self.weights, features)


def forward(plan: NetworkPlan, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Compute the logits of a batch.

    Parameters
    ----------
    plan : NetworkPlan
        Of a plain or a residual encoder U-Net.
    weights : mapping of str to tensor
        Under nnU-Net v2's names, on the device of `x`.
    x : tensor, [batch, channel, *patch]

    Returns
    -------
    tensor, [batch, class, *patch]
    """
    return _logits(plan, weights, _features(plan, weights, x))


def _logits(plan: NetworkPlan, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    conv, _ = _operations(plan, x)
    head = f"decoder.seg_layers.{len(plan.features) - 2}"
    out: torch.Tensor = conv(
        x, weights[f"{head}.weight"], weights.get(f"{head}.bias"), (1,) * plan.dims, (0,) * plan.dims
    )
    return out


def _features(plan: NetworkPlan, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional as nnf

    conv, norm = _operations(plan, x)
    pool: Any = nnf.avg_pool3d if plan.dims == 3 else nnf.avg_pool2d
    one = (1,) * plan.dims

    def convolved(x: torch.Tensor, n: str, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
        padding = tuple((k - 1) // 2 for k in kernel)
        made: torch.Tensor = conv(x, weights[f"{n}.conv.weight"], weights.get(f"{n}.conv.bias"), stride, padding)
        return made

    def layer(x: torch.Tensor, n: str, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
        normed: torch.Tensor = norm(
            convolved(x, n, kernel, stride), weights[f"{n}.norm.weight"], weights[f"{n}.norm.bias"]
        )
        return normed

    def block(
        x: torch.Tensor, prefix: str, count: int, kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> torch.Tensor:
        for c in range(count):
            n = f"{prefix}.convs.{c}"
            x = convolved(x, n, kernel, stride if c == 0 else one)
            x = _norm_and_activation(norm, x, weights[f"{n}.norm.weight"], weights[f"{n}.norm.bias"], plan.slope)
        return x

    def residual(x: torch.Tensor, part: _ResidualBlock, kernel: tuple[int, ...]) -> torch.Tensor:
        shortcut = x if set(part.stride) == {1} else pool(x, part.stride, part.stride)
        if part.projection:
            shortcut = layer(shortcut, part.projection, one, one)
        x = nnf.leaky_relu_(layer(x, f"{part.name}.conv1", kernel, part.stride), plan.slope)
        return nnf.leaky_relu_(layer(x, f"{part.name}.conv2", kernel, one).add_(shortcut), plan.slope)

    skips: list[torch.Tensor] = []
    if plan.residual is not None:
        x = block(x, "encoder.stem", 1, plan.kernels[0], one)
    for s, kernel in enumerate(plan.kernels):
        if plan.residual is None:
            x = block(x, f"encoder.stages.{s}.0", plan.convs_encoder[s], kernel, plan.strides[s])
        for part in _residual_blocks(plan, s, x.shape[1]):
            x = residual(x, part, kernel)
        skips.append(x)
    top = len(plan.features) - 1
    x = skips.pop()
    for u in range(top):
        n = f"decoder.transpconvs.{u}"
        x = _up_and_join(x, skips.pop(), weights[f"{n}.weight"], weights.get(f"{n}.bias"), plan.strides[top - u])
        x = block(x, f"decoder.stages.{u}", plan.convs_decoder[u], plan.decoder_kernels[u], one)
    return x


_CHANNELS_BYTES = 2**20
"""Bytes of the channels that are normalised and activated together: few enough for the caches of a processor."""


def _norm_and_activation(
    norm: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, slope: float
) -> torch.Tensor:
    """Instance normalisation, then leaky ReLU; a large `x` is overwritten on a CPU.

    A channel is normalised by its own values alone, so the channels can be worked on one after another, each while it
    is in the caches: the same numbers in less time and memory.
    """
    import torch
    from torch.nn import functional as nnf

    step = max(torch.get_num_threads(), _CHANNELS_BYTES // x[0, 0].nbytes)
    if not _is_quick(x) or 2 * step >= x.shape[1]:
        return nnf.leaky_relu_(norm(x, weight, bias), slope)
    for sample in torch.split(x, 1):
        channels = (torch.split(sample, step, 1), torch.split(weight, step), torch.split(bias, step))
        for part, scale, shift in zip(*channels, strict=True):
            torch.ops.aten.leaky_relu.out(norm(part, scale, shift), slope, out=part)
    return x


_GENERAL_ROUTINE = 20480
"""Values of the first four axes up to which torch does not use oneDNN for a transposed convolution."""


def _up_and_join(
    x: torch.Tensor, skip: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple[int, ...]
) -> torch.Tensor:
    """Transposed convolution of `x` with as many channels as `weight` makes, followed by the channels of `skip`.

    On a CPU oneDNN's transposed convolution has its channels last, and torch brings them to the front in a slow way if
    they were there before. Asked for channels last, it leaves them, and the product is transposed as a matrix: the same
    numbers in less than half of the time.
    """
    import torch
    from torch.nn import functional as nnf

    up: Any = nnf.conv_transpose3d if x.dim() == 5 else nnf.conv_transpose2d
    if not _is_quick(x) or x.shape[:4].numel() <= _GENERAL_ROUTINE or not _has_vectors():
        return torch.cat((up(x, weight, bias, stride), skip), 1)
    last = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    made: torch.Tensor = up(x.contiguous(memory_format=last), weight, bias, stride)
    channels = made.shape[1]
    if made.is_contiguous() or not made.is_contiguous(memory_format=last):
        return torch.cat((made, skip), 1)
    out = made.new_empty((len(made), channels + skip.shape[1], *made.shape[2:]))
    for joined, sample in zip(out, made, strict=True):
        joined[:channels].view(channels, -1).copy_(sample.movedim(0, -1).reshape(-1, channels).t())
    out[:, channels:].copy_(skip)
    return out


def _is_quick(x: torch.Tensor) -> bool:
    """Whether oneDNN works on a tensor in single precision."""
    import torch

    mkldnn: Any = torch.backends.mkldnn
    single = x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    return bool(x.device.type == "cpu" and mkldnn.is_available() and single)


@cache
def _has_vectors() -> bool:
    """Whether the processor has AVX2; without it oneDNN chooses the routine by the layout, which rounds otherwise."""
    import torch

    return torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}


def _operations(plan: NetworkPlan, x: torch.Tensor) -> tuple[Any, Any]:
    """Convolution and instance normalisation: the same numbers but for rounding, by the quickest way on the device.

    On a CPU, torch sends a convolution of a single small tile to a slow general routine; asking for oneDNN's avoids it.
    Its group normalisation with one channel a group is instance normalisation, in a fraction of the time.
    """
    import torch
    from torch.nn import functional as nnf

    plain: Any = nnf.conv3d if plan.dims == 3 else nnf.conv2d
    if not _is_quick(x):
        return plain, lambda x, weight, bias: nnf.instance_norm(x, weight=weight, bias=bias, eps=plan.norm_eps)
    one = (1,) * plan.dims

    def conv(x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any) -> torch.Tensor:
        out: torch.Tensor = torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, one, 1)
        return out

    return conv, lambda x, weight, bias: nnf.group_norm(x, x.shape[1], weight, bias, plan.norm_eps)


def library_network(plan: NetworkPlan) -> Any:
    """Build the network as a module of dynamic_network_architectures, which nnU-Net v2 uses (reference engine).

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

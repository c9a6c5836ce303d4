"""SegResNet as a function of its tensors, under the names that MONAI gives them.

Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, arXiv:1810.11654, without the autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctenrich.networks.weights import Shapes, Tensors

if TYPE_CHECKING:
    import torch

__all__ = ["SegResNet", "forward", "segresnet_shapes"]

_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class SegResNet:
    """Size of a three-dimensional SegResNet of one input channel."""

    classes: int
    """Background included."""
    filters: int = 8
    """Channels of the finest level."""
    groups: int = 8
    """Of the group normalisation."""
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    blocks_up: tuple[int, ...] = (1, 1, 1)


def segresnet_shapes(network: SegResNet) -> Shapes:
    """Name and shape of every tensor of a network."""
    shapes: dict[str, tuple[int, ...]] = {"convInit.conv.weight": (network.filters, 1, 3, 3, 3)}

    def block(name: str, channels: int) -> None:
        for n in ("1", "2"):
            shapes[f"{name}.norm{n}.weight"] = shapes[f"{name}.norm{n}.bias"] = (channels,)
            shapes[f"{name}.conv{n}.conv.weight"] = (channels, channels, 3, 3, 3)

    for level, count in enumerate(network.blocks_down):
        channels = network.filters * 2**level
        if level:
            shapes[f"down_layers.{level}.0.conv.weight"] = (channels, channels // 2, 3, 3, 3)
        for n in range(count):
            block(f"down_layers.{level}.{n + 1}", channels)
    for step, count in enumerate(network.blocks_up):
        channels = network.filters * 2 ** (len(network.blocks_up) - step - 1)
        shapes[f"up_samples.{step}.0.conv.weight"] = (channels, 2 * channels, 1, 1, 1)
        for n in range(count):
            block(f"up_layers.{step}.{n}", channels)
    shapes["conv_final.0.weight"] = shapes["conv_final.0.bias"] = (network.filters,)
    shapes["conv_final.2.conv.weight"] = (network.classes, network.filters, 1, 1, 1)
    shapes["conv_final.2.conv.bias"] = (network.classes,)
    return shapes


def forward(network: SegResNet, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Scores of a batch.

    Parameters
    ----------
    network : SegResNet
    tensors : mapping of str to tensor
        On the device of `x`.
    x : tensor, [batch, 1, x, y, z]
        Each size is a multiple of 2 ** (levels - 1).

    Returns
    -------
    tensor, [batch, class, x, y, z]
        Before the softmax.
    """
    from torch.nn import functional as nnf  # imports torch, which is heavy; a network is loaded anyway

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return nnf.relu_(nnf.group_norm(x, network.groups, weight, bias, _EPSILON))

    def conv(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        weight = tensors[f"{name}.conv.weight"]
        padding = weight.shape[-1] // 2
        return nnf.conv3d(x, weight, tensors.get(f"{name}.conv.bias"), stride, padding)

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        return conv(norm(conv(norm(x, f"{name}.norm1"), f"{name}.conv1"), f"{name}.norm2"), f"{name}.conv2").add_(x)

    x = conv(x, "convInit")
    skips: list[torch.Tensor] = []
    for level, count in enumerate(network.blocks_down):
        if level:
            x = conv(x, f"down_layers.{level}.0", 2)
        for n in range(count):
            x = block(x, f"down_layers.{level}.{n + 1}")
        skips.append(x)
    skips.pop()
    for step, count in enumerate(network.blocks_up):
        x = conv(x, f"up_samples.{step}.0")
        x = nnf.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False) + skips.pop()
        for n in range(count):
            x = block(x, f"up_layers.{step}.{n}")
    return conv(norm(x, "conv_final.0"), "conv_final.2")

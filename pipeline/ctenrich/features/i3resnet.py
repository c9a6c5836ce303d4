"""An inflated 3D residual network (I3ResNet) as Merlin has it: bottleneck blocks in three dimensions, without head.

The names of the tensors are those of torchvision's ResNet. The first convolution and the pooling treat z apart from x
and y; the input has one channel, which the network reads three times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch

__all__ = ["I3ResNet"]

_EXPANSION = 4


class _Bottleneck(nn.Module):
    """Three convolutions (1, 3, 1) with a shortcut.

    Parameters
    ----------
    channels, inner : int
        Channels of the input, and of the convolution of 3.
    stride : int
        Of the convolution of 3.
    shortcut : bool
        Whether the shortcut has a convolution.
    """

    def __init__(self, channels: int, inner: int, stride: int, *, shortcut: bool) -> None:
        super().__init__()
        outer = inner * _EXPANSION
        self.conv1 = nn.Conv3d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outer)
        self.downsample = (
            nn.Sequential(nn.Conv3d(channels, outer, 1, stride=stride, bias=False), nn.BatchNorm3d(outer))
            if shortcut
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x)).relu_()
        out: torch.Tensor = self.bn3(self.conv3(x)).add_(kept).relu_()
        return out


class I3ResNet(nn.Module):
    """The network up to its last feature map.

    Parameters
    ----------
    blocks : tuple of int
        Blocks of the four stages; (3, 8, 36, 3) is a ResNet-152.
    width : int
        Channels of the first convolution.
    """

    def __init__(self, blocks: tuple[int, ...], width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            rows = [_Bottleneck(channels, inner, 1 if stage == 0 else 2, shortcut=True)]
            channels = inner * _EXPANSION
            rows += [_Bottleneck(channels, inner, 1, shortcut=False) for _ in range(1, count)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*rows))
        self.stages = len(blocks)
        self.length = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [1, 1, x, y, z] to [1, channels, z', x', y']."""
        x = x.permute(0, 1, 4, 2, 3).expand(-1, 3, -1, -1, -1)
        x = self.maxpool(self.bn1(self.conv1(x)).relu_())
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x

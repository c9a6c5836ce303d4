"""The 2D U-Net of lungmask as a function of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctenrich.networks.weights import Shapes, Tensors, bad_model, check_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "check_unet", "class_count", "forward"]

_DEPTH = 5
_EPSILON = 1e-5
IGNORED = ("residual_input_conv.", "residual_batchnorm.", "num_batches_tracked")
"""Tensors that the files have and the network does not use."""


def class_count(tensors: Tensors, model: str) -> int:
    """Number of classes of a network, background included.

    Parameters
    ----------
    tensors : mapping of str to tensor
    model : str
        Name of the model, for the message.

    Raises
    ------
    ModelError
        BAD_MODEL if the last layer is missing.
    """
    if "last.bias" not in tensors or tensors["last.bias"].ndim != 1:
        bad_model(f"{model} has no tensor last.bias: it is not a network of lungmask")
    return int(tensors["last.bias"].shape[0])


def check_unet(tensors: Tensors, model: str) -> None:
    """Refuse tensors that are not those of lungmask's U-Net, of any width.

    Parameters
    ----------
    tensors : mapping of str to tensor
    model : str
        Name of the model, for the message.

    Raises
    ------
    ModelError
        BAD_MODEL.
    """
    first = tensors.get("down_path.0.block.0.weight")
    if first is None or first.ndim != 4:
        bad_model(f"{model} has no tensor down_path.0.block.0.weight: it is not a network of lungmask")
    classes = class_count(tensors, model)
    check_tensors(tensors, _unet_shapes(int(first.shape[0]), classes), model, ignored=IGNORED)


def _unet_shapes(width: int, classes: int) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}

    def block(name: str, inputs: int, outputs: int) -> None:
        for conv, norm, channels in ((0, 2, inputs), (3, 5, outputs)):
            shapes[f"{name}.{conv}.weight"] = (outputs, channels, 3, 3)
            shapes[f"{name}.{conv}.bias"] = (outputs,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.{norm}.{part}"] = (outputs,)

    widths = [width * 2**level for level in range(_DEPTH)]
    for level, outputs in enumerate(widths):
        block(f"down_path.{level}.block", 1 if level == 0 else widths[level - 1], outputs)
    for step, outputs in enumerate(widths[-2::-1]):
        shapes[f"up_path.{step}.up.1.weight"] = (outputs, 2 * outputs, 1, 1)
        shapes[f"up_path.{step}.up.1.bias"] = (outputs,)
        block(f"up_path.{step}.conv_block.block", 2 * outputs, outputs)
    shapes["last.weight"] = (classes, width, 1, 1)
    shapes["last.bias"] = (classes,)
    return shapes


def forward(tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Logarithms of the classes' probabilities.

    Parameters
    ----------
    tensors : mapping of str to tensor
        Checked by `check_unet`, on the device of `x`.
    x : tensor, [slice, 1, row, column]
        Rows and columns are multiples of 16.

    Returns
    -------
    tensor, [slice, class, row, column]
    """
    import torch  # heavy; only models that are opened need it
    from torch.nn import functional as nnf

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        for conv, norm in ((0, 2), (3, 5)):
            n = f"{name}.{norm}"
            x = nnf.relu(nnf.conv2d(x, tensors[f"{name}.{conv}.weight"], tensors[f"{name}.{conv}.bias"], padding=1))
            x = nnf.batch_norm(
                x,
                tensors[f"{n}.running_mean"],
                tensors[f"{n}.running_var"],
                tensors[f"{n}.weight"],
                tensors[f"{n}.bias"],
                eps=_EPSILON,
            )
        return x

    skips: list[torch.Tensor] = []
    for level in range(_DEPTH):
        x = block(x if level == 0 else nnf.avg_pool2d(x, 2), f"down_path.{level}.block")
        skips.append(x)
    skips.pop()
    for step in range(_DEPTH - 1):
        name = f"up_path.{step}"
        x = nnf.interpolate(x, scale_factor=2, mode="bilinear")
        x = nnf.conv2d(x, tensors[f"{name}.up.1.weight"], tensors[f"{name}.up.1.bias"])
        x = block(torch.cat((x, skips.pop()), 1), f"{name}.conv_block.block")
    return torch.log_softmax(nnf.conv2d(x, tensors["last.weight"], tensors["last.bias"]), 1)

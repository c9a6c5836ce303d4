"""The network of body part regression: VGG16's feature layers for one channel, and one score per slice.

Widths are read from the state dict, so that the public model (64 to 512 features) and small ones load with the same
code. Keys are those of the public model: ``model.N.*`` for the thirteen 3x3 convolutions (N as VGG16 counts its
layers; the first has no bias), ``conv6.*`` (1x1) and ``fc7.*``.

Simonyan K, Zisserman A. Very deep convolutional networks for large-scale image recognition. arXiv:1409.1556.
Schuhegger S. Body part regression for CT images. arXiv:2110.09148.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ctenrich.errors import ModelError
from ctenrich.reasons import Reason

__all__ = ["CONVOLUTIONS", "IMAGE_SIZE", "BodyPartNetwork", "network_from_state"]

IMAGE_SIZE = 128
"""Rows and columns of a slice as the network sees it."""

_BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions before each halving of the image."""


def _layer_numbers() -> tuple[int, ...]:
    """Number of each convolution when convolutions, activations and poolings are counted in one row."""
    numbers: list[int] = []
    position = 0
    for count in _BLOCKS:
        for _ in range(count):
            numbers.append(position)
            position += 2
        position += 1
    return tuple(numbers)


CONVOLUTIONS = _layer_numbers()
"""The N of the keys ``model.N.weight``: 0, 2, 5, 7, 10, ... 28."""


class BodyPartNetwork(nn.Module):
    """One score for each slice.

    Parameters
    ----------
    widths : tuple of int
        Output features of the thirteen convolutions, in order.
    head : int
        Output features of the 1x1 convolution.
    """

    def __init__(self, widths: tuple[int, ...], head: int) -> None:
        super().__init__()
        if len(widths) != len(CONVOLUTIONS):
            raise ValueError(f"{len(CONVOLUTIONS)} widths are needed, not {len(widths)}")
        layers: list[nn.Module] = []
        inputs = 1
        remaining = iter(widths)
        for count in _BLOCKS:
            for _ in range(count):
                width = next(remaining)
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=bool(layers)), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.model = nn.Sequential(*layers)
        self.conv6 = nn.Conv2d(inputs, head, 1)
        self.fc7 = nn.Linear(head, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score slices.

        Parameters
        ----------
        images : Tensor
            ``[slice, 1, 128, 128]``, -1000..1500 HU mapped to -1..1.

        Returns
        -------
        Tensor
            ``[slice]``, unprocessed scores.
        """
        features = torch.relu(self.conv6(self.model(images)))
        scores: torch.Tensor = self.fc7(features.mean(dim=(2, 3)))[:, 0]
        return scores


def network_from_state(state: Mapping[str, torch.Tensor]) -> BodyPartNetwork:
    """Build the network that a state dict was saved from, and load the state.

    Parameters
    ----------
    state : mapping of str to Tensor
        With the keys of the public model; every key must be present, and no other.

    Returns
    -------
    BodyPartNetwork
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    ModelError
        BAD_MODEL with the first keys that are missing, unexpected or of another shape.
    """
    try:
        widths = tuple(int(state[f"model.{number}.weight"].shape[0]) for number in CONVOLUTIONS)
        network = BodyPartNetwork(widths, int(state["conv6.weight"].shape[0]))
    except KeyError as error:
        raise ModelError(Reason.BAD_MODEL, f"the weights lack {error.args[0]}: not a body part regression") from None
    expected = network.state_dict()
    _refuse_keys("lack", set(expected) - set(state))
    _refuse_keys("hold the unknown", set(state) - set(expected))
    _refuse_keys("have another shape at", {k for k, v in expected.items() if v.shape != state[k].shape})
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise ModelError(Reason.BAD_MODEL, "the weights contain values that are not numbers")
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
    return network.eval()


def _refuse_keys(verb: str, keys: set[str]) -> None:
    if keys:
        names = ", ".join(sorted(keys)[:3])
        raise ModelError(Reason.BAD_MODEL, f"the weights {verb} {names}: not a body part regression")

"""Small feature models: TorchScript, safetensors of an I3ResNet, and ONNX, each in a folder with features.toml."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ctenrich.features.i3resnet import I3ResNet

CENTROID = """
[crop]
rule = "centroid"
size = [12, 10, 8]
spacing = [8.0, 8.0, 12.0]
intensities = [{ clip = [-1000, 400] }, { range = [-1000, 400, 0, 1] }]
"""
VOLUME = """
[crop]
rule = "volume"
size = [16, 16, 8]
threshold = -900
resampling = "area"
intensities = [{ range = [-1000, 200, 0, 1] }, { clip = [0, 1] }]
"""


class Halves(nn.Module):
    """The means of the halves of an input [1, 1, x, y, z] along x, y and z: six values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([half.mean() for axis in (2, 3, 4) for half in torch.chunk(x, 2, axis)])[None]


def write_model(folder: Path, name: str, length: int, *, crop: str = CENTROID, more: str = "") -> Path:
    """Write features.toml for a network that is in the folder already."""
    sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    text = (
        f'format = 1\nfile = "{name}"\nsha256 = "{sha256}"\nname = "small"\nversion = "3"\nlicence = "CC0-1.0"\n'
        f'citation = "none"\naxes = "RAS"\nlength = {length}\n{more}\n{crop}'
    )
    (folder / "features.toml").write_text(text)
    return folder


def torchscript_model(folder: Path, *, crop: str = CENTROID, more: str = "") -> Path:
    """A TorchScript network of six values."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Halves(), torch.zeros(1, 1, 12, 10, 8)).save(str(folder / "model.ts"))  # type: ignore[no-untyped-call]
    return write_model(folder, "model.ts", 6, crop=crop, more=more)


def resnet_model(folder: Path, *, crop: str = CENTROID) -> Path:
    """A small I3ResNet with random weights of 16 x width values."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(3)
    state = {
        name: torch.from_numpy((0.1 * dice.standard_normal(tuple(tensor.shape))).astype(np.float32)).abs() + 0.01
        for name, tensor in I3ResNet((1, 1, 1, 1), 2).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(state, folder / "model.safetensors")
    more = 'pooling = "mean"'
    table = '[architecture]\nname = "i3resnet"\nblocks = [1, 1, 1, 1]\nwidth = 2\n'
    return write_model(folder, "model.safetensors", 64, crop=crop + table, more=more)


# ---------------------------------------------------------------- ONNX, written byte by byte


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + _varint(value)
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _tensor_type(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1, n)) for n in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def onnx_model(folder: Path) -> Path:
    """An ONNX network of one value: the mean of its input [1, 1, 12, 10, 8]."""
    folder.mkdir(parents=True, exist_ok=True)
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"GlobalAveragePool")
    graph = (
        _field(1, node)
        + _field(2, b"g")
        + _field(11, _tensor_type("x", (1, 1, 12, 10, 8)))
        + _field(12, _tensor_type("y", (1, 1, 1, 1, 1)))
    )
    model = _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))
    (folder / "model.onnx").write_bytes(model)
    return write_model(folder, "model.onnx", 1)

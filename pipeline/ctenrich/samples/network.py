"""A small feature network with invented weights, for the sample report of deep features."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

from ctenrich.workspace import write_bytes

__all__ = ["write_sample_network"]

_STATEMENT = """format = 1
file = "network.ts"
sha256 = "{sha256}"
name = "sample-network"
version = "1"
licence = "CC0-1.0"
axes = "LPS"
length = 32
pooling = "mean"

[crop]
rule = "centroid"
size = [16, 16, 16]
spacing = [6.0, 6.0, 6.0]
intensities = [{{ clip = [-1000, 400] }}, {{ range = [-1000, 400, 0, 1] }}]
"""


def write_sample_network(folder: Path) -> Path:
    """Write a feature model of 32 values: two convolutions in TorchScript, with weights from a fixed formula.

    A model that is there already is kept.

    Parameters
    ----------
    folder : Path
        Made if it is missing.

    Returns
    -------
    Path
        The folder, with ``features.toml`` and the network.
    """
    if (folder / "features.toml").is_file():
        return folder
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv3d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv3d(8, 32, 3, stride=2), nn.ReLU()).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(torch.sin(torch.arange(1.0, tensor.numel() + 1)).reshape(tensor.shape) / 4)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()  # into a file, its name would be part of the bytes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that TorchScript will end
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 16, 16, 16)), buffer)  # type: ignore[no-untyped-call]
    write_bytes(folder / "network.ts", buffer.getvalue())
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    write_bytes(folder / "features.toml", _STATEMENT.format(sha256=sha256).encode())
    return folder

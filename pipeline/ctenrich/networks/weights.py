"""Weight files of networks other than nnU-Net: read without unpickling, checked against the architecture, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ctenrich.errors import ModelError, UsageError
from ctenrich.inference.state_dict import load_state_dict
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings

if TYPE_CHECKING:
    import torch

__all__ = [
    "Shapes",
    "Tensors",
    "bad_model",
    "check_settings",
    "check_tensors",
    "read_tensors",
    "tensors_sha256",
]

Tensors = Mapping[str, "torch.Tensor"]
Shapes = Mapping[str, tuple[int, ...]]


def bad_model(message: str, hint: str = "") -> NoReturn:
    """Refuse a model.

    Parameters
    ----------
    message, hint : str
        What is wrong with it, and what to do.

    Raises
    ------
    ModelError
        BAD_MODEL, always.
    """
    raise ModelError(Reason.BAD_MODEL, message, hint)


def check_settings(settings: SegmentSettings, kind: str) -> None:
    """Refuse settings that a kind of network cannot follow.

    Parameters
    ----------
    settings : SegmentSettings
    kind : str
        Its key, for the message.

    Raises
    ------
    UsageError
        BAD_SETTINGS.
    """
    if settings.probabilities:
        message = f"segmenters of the kind {kind} do not keep probabilities"
        raise UsageError(Reason.BAD_SETTINGS, message, "set segment.probabilities = false")


def read_tensors(path: Path, model: str) -> dict[str, torch.Tensor]:
    """Read named tensors from a file of torch (``.pt``, ``.pth``) or of safetensors.

    Parameters
    ----------
    path : Path
    model : str
        Name of the model, for the message.

    Returns
    -------
    dict of str to tensor
        On the CPU.

    Raises
    ------
    ModelError
        NOT_FOUND if there is no such file; UNSAFE_WEIGHTS, or BAD_MODEL if it holds anything but named tensors.
    """
    if not path.is_file():
        raise ModelError(Reason.NOT_FOUND, f"{model} has no file {path.name}", "give the folder with all of its files")
    return load_state_dict(path)


def check_tensors(tensors: Tensors, shapes: Shapes, model: str, *, ignored: Collection[str] = ()) -> None:
    """Refuse tensors that are not those of an architecture.

    Parameters
    ----------
    tensors : mapping of str to tensor
    shapes : mapping of str to tuple of int
        What the architecture has.
    model : str
        Name of the model and the architecture, for the message.
    ignored : collection of str
        Parts of names that the architecture does not use.

    Raises
    ------
    ModelError
        BAD_MODEL, naming the first tensor that is missing, unknown, of another shape, or not finite.
    """
    import torch  # heavy; only models that are opened need it

    found = {name for name in tensors if not any(part in name for part in ignored)}
    _refuse_names("has no tensor", sorted(set(shapes) - found), model)
    _refuse_names("has the unknown tensor", sorted(found - set(shapes)), model)
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            bad_model(f"the tensor {name} of {model} has the shape {tuple(tensors[name].shape)}, not {shape}")
        if not tensors[name].is_floating_point() or not bool(torch.isfinite(tensors[name]).all()):
            bad_model(f"the tensor {name} of {model} holds numbers that are not finite")


def _refuse_names(problem: str, names: list[str], model: str) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        bad_model(f"{model} {problem} {names[0]}{more}: its weights are those of another architecture")


def tensors_sha256(models: Iterable[Tensors], rules: str) -> str:
    """SHA-256 of the weights and of the rules that together decide the answer, whatever files they were read from.

    Parameters
    ----------
    models : iterable of mappings of str to tensor
        On the CPU.
    rules : str
        What else decides the answer: version of the rules, content of configuration files.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(rules.encode())
    for tensors in models:
        for name, tensor in sorted(tensors.items()):
            digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().reshape(-1).view(_bytes_type()).numpy().tobytes())
    return digest.hexdigest()


def _bytes_type() -> torch.dtype:
    import torch  # heavy; only models that are opened need it

    return torch.uint8

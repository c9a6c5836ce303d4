"""Read the source folder of an nnU-Net v2 model: plans and dataset as plain data, weights of each fold on demand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.inference.checkpoint import load_restricted
from ctenrich.inference.registry import ModelKind
from ctenrich.nnunet.plans import fail
from ctenrich.nnunet.unet import clean_names

if TYPE_CHECKING:
    import torch

__all__ = ["CHECKPOINTS", "SourceConfiguration", "read_json", "read_v2"]

_MAX_JSON = 64 * 1024**2
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""File names of a fold of nnU-Net v2, the first that is there is taken."""


@dataclass(frozen=True)
class SourceConfiguration:
    """One configuration of a model, read from its source folder."""

    configuration: str
    kind: ModelKind
    plans: dict[str, Any]
    dataset: dict[str, Any]
    mirror_axes: tuple[int, ...]
    trainer: str
    folds: dict[str, Callable[[], dict[str, torch.Tensor]]]
    """Fold -> reads its tensors, under nnU-Net v2's names."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model.

    Raises
    ------
    ModelError
        BAD_MODEL if the file is missing, too large, not JSON or not an object.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            fail(f"{path.name} is too large")
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        fail(f"the model has no {path.name}")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        fail(f"{path.name} is not JSON")
    if not isinstance(value, dict):
        fail(f"{path.name} is not a JSON object")
    return value


def read_v2(folder: Path) -> SourceConfiguration:
    """Read a folder of nnU-Net v2: plans.json, dataset.json, fold_*/checkpoint_final.pth.

    Raises
    ------
    ModelError
        BAD_MODEL, UNSAFE_WEIGHTS.
    """
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    found = {}
    for path in sorted(folder.glob("fold_*")):
        checkpoint = next((path / name for name in CHECKPOINTS if (path / name).is_file()), None)
        if checkpoint is not None:
            found[path.name.removeprefix("fold_")] = checkpoint
    if not found:
        fail(f"{folder.name} has no fold with a checkpoint", f"expected fold_0/{CHECKPOINTS[0]}")
    first = load_restricted(
        next(iter(found.values())), only={"trainer_name", "init_args", "inference_allowed_mirroring_axes"}
    )
    if not isinstance(first, dict) or not isinstance(first.get("init_args"), dict):
        fail("the checkpoint is not an nnU-Net v2 checkpoint")
    configuration = str(first["init_args"].get("configuration", ""))
    axes = first.get("inference_allowed_mirroring_axes") or ()
    folds = {fold: _weights_reader_v2(path) for fold, path in found.items()}
    trainer = str(first.get("trainer_name", ""))
    return SourceConfiguration(
        configuration, ModelKind.NNUNET_V2, plans, dataset, tuple(int(a) for a in axes), trainer, folds
    )


def _weights_reader_v2(path: Path) -> Callable[[], dict[str, torch.Tensor]]:
    def read() -> dict[str, torch.Tensor]:
        import torch

        data = load_restricted(path, only={"network_weights"})
        state = data.get("network_weights") if isinstance(data, dict) else None
        if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
            fail(f"{path.name} contains no network weights")
        return clean_names(state)

    return read

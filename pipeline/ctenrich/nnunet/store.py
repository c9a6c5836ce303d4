"""Convert a model once to safetensors and JSON, pinned by SHA-256; only the converted files are read from then on.

``models_home()/converted/NAME-<hash of the source files>/{model.json, CONFIGURATION/fold_F.safetensors}``. The source
files are hashed whenever the model is opened: changed files are another model. `model.json` contains the plans as they
were, the hash of every weights file and the names of the source files; its content identifies the model in objects and
tables.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import ModelError
from ctenrich.inference.imported import hash_of_model_file, pinned_files
from ctenrich.inference.isolation import run_isolated
from ctenrich.inference.registry import ModelKind, ResolvedModel, models_home
from ctenrich.nnunet.conventions import FILE
from ctenrich.nnunet.conversion import FORMAT, canonical_json, plan_of
from ctenrich.nnunet.plans import ModelPlan, fail
from ctenrich.nnunet.source_folder import CHECKPOINTS
from ctenrich.nnunet.unet import check_weights
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

if TYPE_CHECKING:
    import torch

__all__ = ["StoredModel", "load_weights", "plan_of", "prepare", "source_files"]


@dataclass(frozen=True)
class StoredModel:
    """A converted model on disk."""

    name: str
    folder: Path
    meta: Mapping[str, Any]
    """Content of model.json."""

    @property
    def configurations(self) -> tuple[str, ...]:
        """Names of the configurations."""
        return tuple(self.meta["configurations"])

    def folds(self, configuration: str) -> tuple[str, ...]:
        """Names of the folds of a configuration: ``0`` ... or ``all``."""
        return tuple(self.meta["configurations"][configuration]["folds"])

    def plan(self, configuration: str) -> ModelPlan:
        """The plan of a configuration."""
        c = self.meta["configurations"][configuration]
        return plan_of(ModelKind(self.meta["kind"]), c["plans"], c["dataset"], configuration, c["mirror_axes"])

    def identity(self, configuration: str, folds: tuple[str, ...]) -> str:
        """SHA-256 of everything that decides the result: plans and weights of a configuration's folds.

        Parameters
        ----------
        configuration : str
        folds : tuple of str

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        c = dict(self.meta["configurations"][configuration])
        c["folds"] = {fold: c["folds"][fold]["sha256"] for fold in folds}
        return hashlib.sha256(canonical_json({"kind": self.meta["kind"], **c})).hexdigest()


def prepare(model: ResolvedModel) -> StoredModel:
    """Convert a model unless that is done, and check every source file against its pinned hash.

    Raises
    ------
    ModelError
        BAD_MODEL, UNSAFE_WEIGHTS, WRONG_MODALITY or HASH_MISMATCH.
    """
    sources = source_files(model.folder)
    _check_import_pin(model, sources)
    digest = hashlib.sha256("".join(f"{h}  {n}\n" for n, h in sorted(sources.items())).encode()).hexdigest()
    folder = models_home() / "converted" / f"{model.name}-{digest[:16]}"
    if not (folder / "model.json").is_file():
        _convert_model(model, sources, folder)
    meta = json.loads((folder / "model.json").read_text("utf-8"))
    if meta.get("format") != FORMAT or meta.get("source_files") != sources:
        raise ModelError(Reason.HASH_MISMATCH, f"the converted model {model.name} does not belong to its source files")
    return StoredModel(model.name, folder, meta)


def load_weights(stored: StoredModel, configuration: str, fold: str) -> dict[str, torch.Tensor]:
    """Load the tensors of a fold after checking the file's hash and the tensors' names, shapes and values.

    Parameters
    ----------
    stored : StoredModel
    configuration, fold : str

    Returns
    -------
    dict of str to tensor
        float32, on the CPU, under nnU-Net v2's names.

    Raises
    ------
    ModelError
        BAD_MODEL if there is no such fold or it does not match the plan; HASH_MISMATCH.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    known = stored.meta["configurations"][configuration]["folds"]
    if fold not in known:
        fail(f"the model {stored.name} has no fold {fold} of {configuration}", f"it has: {', '.join(known)}")
    path = stored.folder / known[fold]["file"]
    if not path.is_file() or sha256_of_file(path) != known[fold]["sha256"]:
        message = f"the weights of fold {fold} of {stored.name} changed after they were converted"
        raise ModelError(Reason.HASH_MISMATCH, message, "delete the folder converted/ of your models and try again")
    try:
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ModelError(Reason.BAD_MODEL, f"{path.name} is not a safetensors file") from error
    check_weights(stored.plan(configuration).network, weights)
    return weights


# ---------------------------------------------------------------- converting


def source_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a model that decides its results, by its path below the folder.

    Raises
    ------
    ModelError
        BAD_MODEL if there is none.
    """
    wanted = {"plans.json", "dataset.json", "plans.pkl", "postprocessing.json", "labels.json", FILE, *CHECKPOINTS}
    found = {
        path.relative_to(folder).as_posix(): hash_of_model_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.name in wanted or ".model" in path.suffixes)
    }
    if not found.keys() - {FILE}:
        fail(f"{folder.name} contains no nnU-Net model", "plans.json (v2) or plans.pkl (v1) and folds are expected")
    return found


def _check_import_pin(model: ResolvedModel, sources: dict[str, str]) -> None:
    """Refuse an imported model whose files are not those that were imported; 0.1.0 recorded no hashes."""
    pinned = pinned_files(model.folder)
    if pinned is not None and pinned != sources:
        changed = sorted(name for name in pinned.keys() | sources.keys() if pinned.get(name) != sources.get(name))
        raise ModelError(
            Reason.HASH_MISMATCH,
            f"the imported model {model.name} changed after its import: {', '.join(changed[:3])}",
            "import the model again",
        )


def _convert_model(model: ResolvedModel, sources: dict[str, str], folder: Path) -> None:
    """Convert in a child process (`ctenrich.nnunet.conversion`); the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        request = {
            "name": model.name,
            "folder": str(model.folder),
            "labels": dict(model.entry.labels) if model.entry is not None else None,
            "sources": sources,
            "staging": str(staging),
        }
        size = sum((model.folder / name).stat().st_size for name in sources)
        run_isolated("ctenrich.nnunet.conversion", request, input_bytes=size)
        _publish_converted(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish_converted(staging: Path, folder: Path) -> None:
    try:
        staging.rename(folder)
    except OSError:
        if not (folder / "model.json").is_file():
            raise

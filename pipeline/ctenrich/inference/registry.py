"""Find models by name: the registry of known models, the user's folder of models, and accepted licences.

:func:`models_home` has ``imported/NAME/`` (what a user imported or pulled), ``converted/`` (the same as safetensors and
JSON) and ``licences.json`` (accepted licences). Demonstration models are part of the package.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ctenrich.errors import ModelError, UnknownModelError, did_you_mean
from ctenrich.inference.checkpoint import load_restricted, load_state_dict_restricted
from ctenrich.inference.restricted_unpickler import load_pickle_restricted
from ctenrich.reasons import Reason
from ctenrich.workspace import write_bytes

__all__ = [
    "MODEL_TOML",
    "ModelEntry",
    "ModelKind",
    "ResolvedModel",
    "accept_licence",
    "check_licence",
    "check_model_name",
    "check_name",
    "load_pickle_restricted",
    "load_restricted",
    "load_state_dict_restricted",
    "models_home",
    "registry",
    "resolve_model",
]

_PACKAGE_MODELS = Path(__file__).resolve().parents[1] / "models"
MODEL_TOML = "ctenrich.toml"
"""File of a model's folder in which its owner states axes, step, labels, and ``demonstration = true``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


class ModelKind(StrEnum):
    """Format of a model of the registry."""

    NNUNET_V2 = "nnunet-v2"
    NNUNET_V1 = "nnunet-v1"
    BODYPART = "bodypart"
    LUNGMASK = "lungmask"
    MONAI = "monai"


@dataclass(frozen=True)
class ModelEntry:
    """One model of the registry (models.toml)."""

    name: str
    kind: ModelKind
    title: str = ""
    version: str = ""
    package: str = ""
    """Folder below the package's ``models/``; empty for models that are downloaded."""
    url: str = ""
    source: str = ""
    """Persistent identifier of the source (DOI)."""
    sha256: str = ""
    """Of the downloaded file; empty: pinned at the first import."""
    sha1: str = ""
    """Of the downloaded file, where its publisher states no other hash."""
    licence: str = ""
    licence_url: str = ""
    accept: bool = False
    """Whether the user has to accept the licence once."""
    citation: str = ""
    task: str = ""
    configurations: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("CT",)
    labels: Mapping[str, int] = field(default_factory=dict)
    """Label name -> value, where the model's own files have no names (nnU-Net v1)."""
    axes: str = ""
    """Axes of the network: RAS, LAS or LPS (see `ctenrich.nnunet.preprocess.canonical_axes`); empty: not stated."""
    step: float | None = None
    """Distance of the network's tiles as a share of the tile; None: not stated."""
    demo: bool = False


@dataclass(frozen=True)
class ResolvedModel:
    """A model that is on this machine."""

    name: str
    """Registry name, name given at import, or folder name; safe in paths and product keys."""
    folder: Path
    entry: ModelEntry | None
    """None for a model that is not in the registry."""

    @property
    def demo(self) -> bool:
        """Whether it is for demonstration only: by the registry, as part of the package, or by its ctenrich.toml."""
        known = self.entry is not None and self.entry.demo
        return known or self.folder.is_relative_to(_PACKAGE_MODELS) or _is_marked(self.folder)


def _is_marked(folder: Path) -> bool:
    """Whether a ctenrich.toml of the folder states ``demonstration = true``; a file that cannot be read does not."""
    for path in (folder / MODEL_TOML, *sorted(folder.glob(f"*/{MODEL_TOML}"))):
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if values.get("demonstration") is True:
            return True
    return False


def models_home() -> Path:
    """Folder of the user's models: ``$CTENRICH_MODELS``, else ``$XDG_DATA_HOME/ctenrich/models``."""
    chosen = os.environ.get("CTENRICH_MODELS")
    if chosen:
        return Path(chosen).expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().resolve() / "ctenrich" / "models"


@cache
def registry() -> Mapping[str, ModelEntry]:
    """All models that are known by name."""
    text = (Path(__file__).with_name("models.toml")).read_text("utf-8")
    return MappingProxyType({name: _model_entry(name, row) for name, row in tomllib.loads(text).items()})


def _model_entry(name: str, row: Mapping[str, Any]) -> ModelEntry:
    values: dict[str, Any] = dict(row)
    values["kind"] = ModelKind(values["kind"])
    for key in ("configurations", "modalities"):
        if key in values:
            values[key] = tuple(values[key])
    return ModelEntry(name=name, **values)


def check_name(name: str) -> str:
    """Return `name` if it can name a model (letters, digits, ``_ . + -``).

    Raises
    ------
    ModelError
        BAD_MODEL.
    """
    if _NAME.fullmatch(name) is None:
        raise ModelError(Reason.BAD_MODEL, f"{name!r} cannot name a model", "use letters, digits, _ . + -")
    return name


def check_model_name(name_or_path: str) -> None:
    """Check that a model is in the registry, was imported or is a folder; it need not be on this machine yet.

    Raises
    ------
    UnknownModelError
        NOT_FOUND, with the names that are alike.
    """
    imported = models_home() / "imported"
    if name_or_path in registry() or Path(name_or_path).expanduser().is_dir():
        return
    names = [*registry(), *(sorted(p.name for p in imported.iterdir()) if imported.is_dir() else ())]
    if name_or_path not in names:
        hint = did_you_mean(name_or_path, names, f"give a folder that exists, or one of: {', '.join(names)}")
        raise UnknownModelError(Reason.NOT_FOUND, f"there is no model {name_or_path}", hint)


def resolve_model(name_or_path: str) -> ResolvedModel:
    """Find a model by its registry name, by the name it was imported under, or as a folder.

    A name wins over a folder of the same name in the current directory; write ``./NAME`` for the folder.

    Raises
    ------
    UnknownModelError
        NOT_FOUND if there is no such model here.
    ModelError
        LICENCE_NOT_ACCEPTED.
    """
    entry = registry().get(name_or_path)
    if entry is not None and entry.package:
        return _require_files(
            ResolvedModel(entry.name, _PACKAGE_MODELS / entry.package, entry), "reinstall the package"
        )
    if _NAME.fullmatch(name_or_path):
        imported = models_home() / "imported" / name_or_path
        if imported.is_dir():
            if entry is not None:
                check_licence(entry)
            return ResolvedModel(name_or_path, imported, entry)
        if entry is not None:
            hint = f"run: ctenrich models pull {entry.name}"
            raise UnknownModelError(Reason.NOT_FOUND, f"the model {entry.name} is not on this machine yet", hint)
    folder = Path(name_or_path).expanduser()
    check_model_name(name_or_path)
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", folder.resolve().name).lstrip("._+-")[:100]
    return ResolvedModel(check_name(name or "model"), folder.resolve(), None)


def _require_files(model: ResolvedModel, hint: str) -> ResolvedModel:
    if not model.folder.is_dir():
        raise ModelError(Reason.NOT_FOUND, f"the files of the model {model.name} are missing", hint)
    return model


# ---------------------------------------------------------------- licences


def _accepted_licences() -> dict[str, str]:
    try:
        data = json.loads((models_home() / "licences.json").read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}


def accept_licence(entry: ModelEntry) -> None:
    """Record that the user accepts the licence of a model, as the registry states it today."""
    accepted = _accepted_licences() | {entry.name: entry.licence}
    text = json.dumps(accepted, indent=1, sort_keys=True) + "\n"
    write_bytes(models_home() / "licences.json", text.encode())


def check_licence(entry: ModelEntry) -> None:
    """Refuse a model whose licence has to be accepted and has not been.

    Raises
    ------
    ModelError
        LICENCE_NOT_ACCEPTED, with the licence's name and address.
    """
    if entry.accept and _accepted_licences().get(entry.name) != entry.licence:
        where = f" ({entry.licence_url})" if entry.licence_url else ""
        message = f"the weights of {entry.name} are licensed {entry.licence}{where}"
        command = f"pull {entry.name}" if entry.url else "import FOLDER"
        hint = f"accept it once: ctenrich models {command} --accept-licence"
        raise ModelError(Reason.LICENCE_NOT_ACCEPTED, message, hint)

"""The kind ``deep``: a network of a folder with ``features.toml``, or one that a package brings by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import ModelError, did_you_mean
from ctenrich.features.astra import astra_files, astra_statement
from ctenrich.features.crop import CropRule
from ctenrich.features.kinds import FeatureKind
from ctenrich.features.model_file import FeatureModelFile, check_network_hash, model_identity, read_feature_model
from ctenrich.features.network import FeatureNetwork, open_network
from ctenrich.inference.imported import check_imported_files
from ctenrich.inference.process import prepare_process
from ctenrich.inference.registry import check_name, models_home
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo
from ctenrich.settings import Settings

__all__ = ["DEEP", "PACKAGED", "DeepModel", "PackagedModel"]


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model whose weights an installed package holds."""

    statement: Callable[[], FeatureModelFile]
    """Returns what would be in ``features.toml``; raises if the package is not installed."""
    files: Callable[[], AbstractContextManager[FeatureModelFile]]
    """Makes the file of the network, for as long as the context lasts."""


PACKAGED: Mapping[str, PackagedModel] = MappingProxyType(
    {"astra": PackagedModel(statement=astra_statement, files=astra_files)}
)
"""Name -> model that a package brings."""


@dataclass(frozen=True, kw_only=True)
class DeepModel:
    """A network with the rule of its input."""

    info: ModelInfo
    crop: CropRule
    length: int
    structures: tuple[str, ...]
    network: FeatureNetwork

    def vector(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vector [length] of an input [x, y, z]."""
        return self.network(data)


def _absolute(model: str) -> str:
    if model in PACKAGED or (models_home() / "imported" / model).is_dir():
        return model
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def _folder(model: str) -> Path:
    imported = models_home() / "imported" / model
    if "/" not in model and imported.is_dir():
        return imported
    if not Path(model).is_dir():
        hint = did_you_mean(model, PACKAGED, f"give a folder with features.toml, or one of: {', '.join(PACKAGED)}")
        raise ModelError(Reason.NOT_FOUND, f"there is no feature model {model}", hint)
    return Path(model)


def _statement(model: str) -> FeatureModelFile:
    if model in PACKAGED:
        return PACKAGED[model].statement()
    folder = _folder(model)
    check_imported_files(folder)
    return read_feature_model(folder)


def _identify(model: str) -> str:
    stated = _statement(model)
    if model not in PACKAGED:
        check_network_hash(stated)
    return model_identity(stated)


def _open(model: str, settings: Settings) -> DeepModel:
    prepare_process()
    stated = _statement(model)
    with PACKAGED[model].files() if model in PACKAGED else nullcontext(stated) as found:
        check_network_hash(found)
        network = open_network(found, settings.segment)
    name = stated.name or re.sub(r"[^A-Za-z0-9_.+-]", "_", Path(model).name).lstrip("._+-") or "model"
    info = ModelInfo(
        name=check_name(name[:64]),
        version=stated.version,
        sha256=model_identity(stated),
        licence=stated.licence,
        citation=stated.citation,
        source_url=stated.source_url,
    )
    return DeepModel(info=info, crop=stated.crop, length=stated.length, structures=stated.structures, network=network)


DEEP = FeatureKind(key="deep", title="deep features", absolute=_absolute, identify=_identify, open=_open)

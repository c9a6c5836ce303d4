"""Definition and registry of the kinds of feature models: ``KIND:MODEL`` of ``--features``.

A kind is one :class:`FeatureKind` and one registration: a line in :data:`BUILT_IN` for those of this package, an entry
point of the group ``ctenrich.features`` for those of others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import ModelError, UsageError, did_you_mean
from ctenrich.features.crop import CropRule
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo
from ctenrich.resources import plugins
from ctenrich.settings import Settings

__all__ = [
    "BUILT_IN",
    "GROUP",
    "FeatureKind",
    "FeatureModel",
    "FeatureSpec",
    "open_features",
    "parse_features",
    "pin_features",
]

GROUP = "ctenrich.features"
"""Entry point group in which other packages register a :class:`FeatureKind`; the name is the kind's key."""

BUILT_IN: Mapping[str, str] = MappingProxyType({"deep": "ctenrich.features.deep:DEEP"})
"""Key -> ``module:name`` of the kinds of this package."""

_SPEC = re.compile(r"(?P<kind>[a-z][a-z0-9_]{0,31}):(?P<model>.+?)(:sha256=(?P<sha256>[0-9a-f]{64}))?")


class FeatureModel(Protocol):
    """A network that makes feature vectors."""

    @property
    def info(self) -> ModelInfo:
        """Name, version, identity, licence."""

    @property
    def crop(self) -> CropRule:
        """How its input is made."""

    @property
    def length(self) -> int:
        """Values of a vector."""

    @property
    def structures(self) -> tuple[str, ...]:
        """Keys of mappings/segments.csv; empty: every structure."""

    def vector(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vector [length] of an input [x, y, z]."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """A parsed ``--features``."""

    kind: str
    model: str
    """Name, or absolute path of a folder."""
    sha256: str = ""
    """Identity of the model with which the run was made; empty before that."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.model}" + (f":sha256={self.sha256}" if self.sha256 else "")


@dataclass(frozen=True, kw_only=True)
class FeatureKind:
    """Definition of one kind of feature model."""

    key: str
    title: str
    """Displayed name."""
    absolute: Callable[[str], str]
    """Returns the model as it is kept with a run: a name, or an absolute path."""
    identify: Callable[[str], str]
    """Returns the SHA-256 that identifies the model and its rules; raises what is wrong with its files."""
    open: Callable[[str, Settings], FeatureModel]
    """Loads the model."""


def feature_kind(key: str) -> FeatureKind:
    """Return the definition of a kind.

    Raises
    ------
    UsageError
        BAD_PARAMETER if the key is not registered, BAD_PLUGIN if the definition is none.
    """
    if key in BUILT_IN:
        module, _, name = BUILT_IN[key].partition(":")
        found: object = getattr(import_module(module), name)
    else:
        known = plugins(GROUP)
        if key not in known:
            names = [*BUILT_IN, *known]
            hint = did_you_mean(key, names, f"known kinds: {', '.join(names)}")
            raise UsageError(Reason.BAD_PARAMETER, f"there is no kind of features {key!r}", hint)
        found = known[key]
    if not isinstance(found, FeatureKind) or found.key != key:
        raise UsageError(Reason.BAD_PLUGIN, f"{key!r} in {GROUP} is not a FeatureKind of that key")
    return found


def parse_features(text: str) -> FeatureSpec:
    """Read a specification: ``KIND:MODEL``, with the model's identity where a run has it.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise UsageError(Reason.BAD_PARAMETER, f"{text!r} does not name features", "use KIND:MODEL, e.g. deep:astra")
    kind = feature_kind(found["kind"])
    return FeatureSpec(kind=kind.key, model=kind.absolute(found["model"]), sha256=found["sha256"] or "")


def pin_features(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the specifications of a run, each with the identity of its model; repeated ones once.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    ModelError
        What is wrong with the files of a model; HASH_MISMATCH for one that has changed since the run was made.
    """
    pinned: dict[tuple[str, str], str] = {}
    for text in texts:
        spec = parse_features(text)
        sha256 = feature_kind(spec.kind).identify(spec.model)
        _check_identity(spec, sha256)
        pinned[spec.kind, spec.model] = str(FeatureSpec(kind=spec.kind, model=spec.model, sha256=sha256))
    return tuple(pinned.values())


def open_features(text: str, settings: Settings) -> FeatureModel:
    """Load the model of a specification.

    Parameters
    ----------
    text : str
        As `pin_features` returns it.
    settings : Settings
        Device and threads.

    Returns
    -------
    FeatureModel

    Raises
    ------
    ModelError
        HASH_MISMATCH if it is not the model that the run was made with; what is wrong with the model.
    """
    spec = parse_features(text)
    found = feature_kind(spec.kind).open(spec.model, settings)
    _check_identity(spec, found.info.sha256)
    return found


def _check_identity(spec: FeatureSpec, sha256: str) -> None:
    if spec.sha256 and spec.sha256 != sha256:
        message = f"the model of {spec.kind}:{spec.model} is not the one that the run was made with"
        raise ModelError(Reason.HASH_MISMATCH, message, "start a new run folder, or give the same model")

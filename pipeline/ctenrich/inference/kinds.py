"""Definition and registry of the kinds of segmenters and scorers.

A kind is one :class:`SegmenterKind` and one registration: a line in :data:`BUILT_IN` for those of this package, an
entry point of the group ``ctenrich.segmenters`` for those of others. Command line, stage table, objects, forecast and
crop use the descriptor; no module outside the kind's own compares keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Product, SegmentMasks, SliceScores
from ctenrich.resources import plugins

if TYPE_CHECKING:
    from ctenrich.inference.products import SegmenterSpec
    from ctenrich.inference.registry import ResolvedModel
    from ctenrich.settings import Settings

__all__ = [
    "BUILT_IN",
    "GROUP",
    "ModelFiles",
    "SegmenterKind",
    "SegmenterOption",
    "find_segmenter_kind",
    "segmenter_kind",
    "segmenter_kinds",
]

GROUP = "ctenrich.segmenters"
"""Entry point group in which other packages register a :class:`SegmenterKind`; the name is the kind's key."""

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "expert": "ctenrich.contours.kind:EXPERT",
        "nnunet": "ctenrich.nnunet.kind:NNUNET",
        "totalsegmentator": "ctenrich.recipes.kind:TOTALSEGMENTATOR",
        "moose": "ctenrich.recipes.kind:MOOSE",
        "recipe": "ctenrich.recipes.kind:RECIPE",
        "lungmask": "ctenrich.networks.lungmask:LUNGMASK",
        "monai": "ctenrich.networks.monai:MONAI",
        "torchscript": "ctenrich.networks.torchscript:TORCHSCRIPT",
        "harmonised": "ctenrich.harmonise.kind:HARMONISED",
        "bodypart": "ctenrich.bodypart.kind:BODYPART",
    }
)
"""Key -> ``module:name`` of the descriptors of this package."""

ALGORITHM_TYPES = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")
"""Segment Algorithm Type (PS3.3 C.8.20.2)."""

_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, kw_only=True)
class SegmenterOption:
    """One ``name=value`` part of a specification."""

    name: str
    values: str
    """The values as shown in help texts, e.g. ``on|off``."""
    parse: Callable[[str], Any]
    """Text -> value; raises ValueError for text that is not a value."""
    default: Any = None


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Files of the models of a kind, for ``ctenrich models``; nnU-Net and body part regression have their own."""

    recognise: Callable[[ResolvedModel], bool]
    """Whether a folder holds a model of this kind; only names of files are looked at."""
    describe: Callable[[ResolvedModel], dict[str, Any]]
    """Reads and checks the whole model, and describes it as plain data; raises ModelError."""


@dataclass(frozen=True, kw_only=True)
class SegmenterKind:
    """Descriptor of one kind of segmenter or scorer."""

    key: str
    """First part of the specification and of the product's key: ``nnunet`` in ``nnunet:MODEL``."""
    title: str
    """Displayed name, e.g. ``nnU-Net segmentation``."""
    makes: type[SegmentMasks] | type[SliceScores]
    """Class of the record that it returns."""
    open: Callable[[SegmenterSpec, Settings], Any]
    """Opens a :class:`ctenrich.inference.segmenter.Segmenter` (or Scorer); raises if the model is not usable."""
    stages: tuple[str, ...]
    """Names of the stages of a product, in order."""
    objects: tuple[str, ...]
    """Keys of the DICOM objects that are written, in order."""
    algorithm_type: str
    """Segment Algorithm Type (PS3.3 C.8.20.2) of its segments: AUTOMATIC, SEMIAUTOMATIC or MANUAL."""
    series_title: Callable[[Product], str]
    """Start of the Series Description of a product's objects."""
    seconds_per_slice: Mapping[str, float]
    """Stage -> seconds per slice of 512 x 512 pixels on two CPU cores without GPU; the forecast's reference figures."""
    needs_model: bool = True
    """Whether the specification names a model."""
    takes_path: bool = True
    """Whether the model may be a path, which is made absolute."""
    registered_models: bool = True
    """Whether that model is a name of the registry or a folder, which is checked before a forecast."""
    has_configurations: bool = False
    """Whether a configuration may follow the model."""
    words: tuple[str, str] = ("MODEL", "CONFIGURATION")
    """Names of the model and of the configuration in help texts."""
    options: tuple[SegmenterOption, ...] = ()
    states_algorithm_type: bool = False
    """Whether its masks state their own Segment Algorithm Type, in place of `algorithm_type`."""
    takes_crop: bool = False
    """Whether ``[segment] crop`` applies to it."""
    takes_decided_names: bool = False
    """Whether its segmenter is a :class:`ctenrich.inference.segmenter.NamingSegmenter`."""
    check: Callable[[SegmenterSpec], None] | None = None
    """Checks that need not open the model, for a forecast; raises what `open` would raise."""
    find_files: Callable[[SegmenterSpec], None] | None = None
    """Looks for the files that `open` would read, before a source is read; raises what `open` would raise."""
    registry_models: Callable[[SegmenterSpec], tuple[str, ...]] | None = None
    """Names in the registry of the models that a specification uses; None: the model of the specification."""
    model_files: ModelFiles | None = None
    """How its models are imported, shown and verified; None if ``ctenrich models`` has nothing to do with them."""
    cache_key: Callable[[Settings], tuple[str, ...]] | None = None
    """What, beside the model and ``[segment]``, its masks depend on: versions of its own rules, settings of its own."""

    @property
    def usage(self) -> str:
        """The form of the specification, e.g. ``nnunet:MODEL[:CONFIGURATION][:folds=0,1]``."""
        model, configuration = self.words
        parts = [
            self.key,
            f":{model}" if self.needs_model else "",
            f"[:{configuration}]" if self.has_configurations else "",
        ]
        return "".join((*parts, *(f"[:{option.name}={option.values}]" for option in self.options)))


def segmenter_kind(key: str) -> SegmenterKind:
    """Return the descriptor of a kind.

    Raises
    ------
    UsageError
        BAD_PARAMETER if the key is not registered, BAD_PLUGIN if the descriptor is incomplete.
    """
    found = find_segmenter_kind(key)
    if found is None:
        known = ", ".join(sorted(segmenter_kinds()))
        raise UsageError(Reason.BAD_PARAMETER, f"there is no kind of segmenter {key!r}", f"known kinds: {known}")
    return found


def segmenter_kinds() -> dict[str, SegmenterKind]:
    """Return all registered kinds by key, those of this package first.

    Raises
    ------
    UsageError
        BAD_PLUGIN if a package registers a key of this package or an incomplete descriptor.
    """
    foreign = plugins(GROUP)
    clash = sorted(foreign.keys() & BUILT_IN.keys())
    if clash:
        raise UsageError(Reason.BAD_PLUGIN, f"a package registers {clash[0]!r} in {GROUP}: the key is taken")
    return {key: _built_in_kind(key) for key in BUILT_IN} | {
        key: _check_kind(key, kind) for key, kind in foreign.items()
    }


def find_segmenter_kind(key: str) -> SegmenterKind | None:
    """Return a kind by its key, None if it is not registered; entry points are loaded only for other packages."""
    return _built_in_kind(key) if key in BUILT_IN else segmenter_kinds().get(key)


@cache
def _built_in_kind(key: str) -> SegmenterKind:
    module, _, name = BUILT_IN[key].partition(":")
    return _check_kind(key, getattr(import_module(module), name))


def _check_kind(key: str, kind: object) -> SegmenterKind:
    """Return the descriptor if it is complete; otherwise a run would fail only after hours of work."""
    if not isinstance(kind, SegmenterKind):
        raise UsageError(Reason.BAD_PLUGIN, f"{key!r} in {GROUP} is not a SegmenterKind but a {type(kind).__name__}")
    problems = [
        text
        for wrong, text in (
            (kind.key != key or _KEY.fullmatch(key) is None, f"its key is {kind.key!r}"),
            (not kind.title.strip(), "it has no title"),
            (kind.makes not in (SegmentMasks, SliceScores), "it makes neither SegmentMasks nor SliceScores"),
            (not callable(kind.open), "it cannot be opened"),
            (not kind.stages, "it has no stages"),
            (not kind.objects, "it writes no objects"),
            (kind.algorithm_type not in ALGORITHM_TYPES, f"algorithm type {kind.algorithm_type!r}"),
            (not callable(kind.series_title), "it has no series title"),
            (bool(set(kind.stages) - set(kind.seconds_per_slice)), "a stage has no rate for the forecast"),
        )
        if wrong
    ]
    if problems:
        message = f"the segmenter kind {key!r} is not completely described: {problems[0]}"
        raise UsageError(Reason.BAD_PLUGIN, message, "update or uninstall the package that registers it")
    return kind

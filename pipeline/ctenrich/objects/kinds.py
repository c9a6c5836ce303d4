"""Definition and registry of the kinds of DICOM objects.

A kind is one :class:`ObjectDefinition` and one registration: a line in :data:`BUILT_IN` for those of this package, an
entry point of the group ``ctenrich.objects`` for those of others. The kind of a product
(:class:`ctenrich.inference.kinds.SegmenterKind`) names the object kinds that are written for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType

from ctenrich.errors import UsageError
from ctenrich.proof import ProveObject
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject
from ctenrich.resources import plugins
from ctenrich.series_store import PRODUCT_RECORDS, ProductRecords
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["BUILT_IN", "GROUP", "EncodeContext", "ObjectDefinition", "object_kind", "object_kinds"]

GROUP = "ctenrich.objects"
"""Entry point group in which other packages register an :class:`ObjectDefinition`; the name is the kind's key."""

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "seg": "ctenrich.objects.seg:SEG",
        "shape_sr": "ctenrich.objects.shape_sr:SHAPE_SR",
        "dose_sr": "ctenrich.objects.dose_sr:DOSE_SR",
        "stated_sr": "ctenrich.objects.stated_sr:STATED_SR",
        "features_sr": "ctenrich.objects.features_sr:FEATURES_SR",
        "landmarks_sr": "ctenrich.objects.landmarks_sr:LANDMARKS_SR",
        "regions_sr": "ctenrich.objects.regions_sr:REGIONS_SR",
    }
)
"""Key -> ``module:name`` of the definitions of this package, in the order in which tables list them."""

_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


@dataclass(frozen=True, kw_only=True)
class EncodeContext:
    """Input of an encoder."""

    records: ProductRecords
    """Records of the product and of its series."""
    written: Mapping[str, EncodedObject]
    """Objects of the product that have been written already, by kind."""
    settings: Settings
    workspace: Workspace


@dataclass(frozen=True, kw_only=True)
class ObjectDefinition:
    """Definition of one kind of DICOM object."""

    key: str
    """Name of the file (``objects/<key>.dcm``) and of the kind in records and tables."""
    title: str
    """Displayed name, e.g. ``segmentation (SEG)``."""
    sop_class_uid: str
    series_description: str
    """Pattern of the Series Description; ``{title}`` is replaced by the series title of the product's kind."""
    tables: tuple[str, ...]
    """Result tables that are filled from objects of this kind."""
    reads: tuple[type, ...]
    """Records of the product that the object is made of; it is written again when one of them changes."""
    encode: Callable[[EncodeContext], EncodedObject]
    """Writes the object."""
    prove: ProveObject | None
    """Adds the checks of a written object; None: objects of this kind are reported as not proven."""
    why_empty: Callable[[ProductRecords], Reason | None] | None = None
    """Returns why the object would have no content, and is therefore not written; None: it always has content.

    It is decided from the records alone. The product's other objects are written, and its outcome has this reason.
    """


def object_kind(key: str) -> ObjectDefinition:
    """Return the definition of a kind.

    Raises
    ------
    UsageError
        BAD_PARAMETER if the key is not registered, BAD_PLUGIN if the definition is incomplete.
    """
    found = _built_in_definition(key) if key in BUILT_IN else object_kinds().get(key)
    if found is None:
        known = ", ".join(object_kinds())
        raise UsageError(Reason.BAD_PARAMETER, f"there is no kind of object {key!r}", f"known kinds: {known}")
    return found


def object_kinds() -> dict[str, ObjectDefinition]:
    """Return all registered kinds by key, those of this package first.

    Raises
    ------
    UsageError
        BAD_PLUGIN if a package registers a key of this package or an incomplete definition.
    """
    foreign = plugins(GROUP)
    clash = sorted(foreign.keys() & BUILT_IN.keys())
    if clash:
        raise UsageError(Reason.BAD_PLUGIN, f"a package registers {clash[0]!r} in {GROUP}: the key is taken")
    return {key: _built_in_definition(key) for key in BUILT_IN} | {
        key: _check_definition(key, kind) for key, kind in foreign.items()
    }


@cache
def _built_in_definition(key: str) -> ObjectDefinition:
    module, _, name = BUILT_IN[key].partition(":")
    return _check_definition(key, getattr(import_module(module), name))


def _check_definition(key: str, kind: object) -> ObjectDefinition:
    if not isinstance(kind, ObjectDefinition):
        message = f"{key!r} in {GROUP} is not an ObjectDefinition but a {type(kind).__name__}"
        raise UsageError(Reason.BAD_PLUGIN, message)
    problems = [
        text
        for wrong, text in (
            (kind.key != key or _KEY.fullmatch(key) is None, f"its key is {kind.key!r}"),
            (not kind.title.strip(), "it has no title"),
            (_UID.fullmatch(kind.sop_class_uid) is None, "its SOP class is not a UID"),
            (not kind.series_description.strip(), "it has no series description"),
            (not kind.tables, "it fills no table"),
            (not kind.reads or bool(set(kind.reads) - PRODUCT_RECORDS.keys()), "it reads no record of a product"),
            (not callable(kind.encode), "it cannot be encoded"),
            (kind.prove is not None and not callable(kind.prove), "its proof is not a function"),
            (kind.why_empty is not None and not callable(kind.why_empty), "its test for content is not a function"),
        )
        if wrong
    ]
    if problems:
        message = f"the object kind {key!r} is not completely described: {problems[0]}"
        raise UsageError(Reason.BAD_PLUGIN, message, "update or uninstall the package that registers it")
    return kind

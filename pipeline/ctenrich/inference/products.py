"""What the user asks for: specifications as typed on the command line, and the products that they name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.inference.kinds import SegmenterKind, SegmenterOption, find_segmenter_kind, segmenter_kinds
from ctenrich.reasons import Reason
from ctenrich.records import Product, SegmentMasks

__all__ = [
    "RequestedProduct",
    "SegmenterSpec",
    "absolute",
    "absolute_specification",
    "parse_segmenter",
    "split_alias",
    "with_kept_product",
]

_FILES = (".toml", ".json")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """A parsed ``--segmenter``."""

    kind: str
    """Key of a :class:`ctenrich.inference.kinds.SegmenterKind`."""
    model: str = ""
    """Name in the registry, or absolute path of a model folder."""
    configuration: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Option -> value, of all options of the kind."""
    product: Product | None = None
    """The product that a run has already: its axes and step apply, whatever the model's files state today."""


@dataclass(frozen=True)
class RequestedProduct:
    """One product of the run: how it was asked for, and its key."""

    spec: str
    """Specification of the segmenter, or name or path of the body part model; paths are absolute."""
    product: Product
    model_sha256: str = ""
    missing: Reason | None = None
    """Why the product is skipped for every series (NO_MODEL), if it is."""
    alias: str = ""
    """Short name that the user gave it; commands take it in place of the key."""

    def __str__(self) -> str:
        """Key of the product, after its alias if it has one."""
        return f"{self.alias} ({self.product})" if self.alias else str(self.product)


def split_alias(text: str) -> tuple[str, str]:
    """Split ``ALIAS=SPECIFICATION``: an alias is the name before a ``=`` that is before the first ``:``.

    Parameters
    ----------
    text : str
        As typed, e.g. ``heart=nnunet:MODEL:folds=0`` or ``expert``.

    Returns
    -------
    alias, specification : str
        An empty alias if there is none.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an alias that is not a name.
    """
    text = text.strip()
    alias, equals, spec = text.partition("=")
    if not equals or ":" in alias:
        return "", text
    if _ALIAS.fullmatch(alias) is None or find_segmenter_kind(alias) is not None:
        hint = "use a letter, then up to 31 letters, digits, _ or -; not the name of a kind of segmenter"
        raise UsageError(Reason.BAD_PARAMETER, f"{alias!r} in {text!r} cannot be the alias of a product", hint)
    return alias, spec


def parse_segmenter(text: str) -> SegmenterSpec:
    """Read a specification: ``KIND[:MODEL][:CONFIGURATION][:option=value]``, e.g. ``nnunet:MODEL:3d_fullres:folds=0``.

    An alias before it is left out, see `split_alias`.

    Raises
    ------
    UsageError
        BAD_PARAMETER, with the forms that are known.
    """
    _, text = split_alias(text)
    key, *rest = text.split(":")
    kind = find_segmenter_kind(key)
    if kind is None or kind.makes is not SegmentMasks or bool(rest and rest[0]) != kind.needs_model:
        usages = [k.usage for k in segmenter_kinds().values() if k.makes is SegmentMasks]
        names = [name for name, known in segmenter_kinds().items() if known.makes is SegmentMasks and name != key]
        hint = did_you_mean(key, names, f"use {' or '.join(usages)}")
        raise UsageError(Reason.BAD_PARAMETER, f"{text!r} does not name a segmenter", hint)
    model, parts = (rest[0], rest[1:]) if kind.needs_model else ("", rest)
    model = absolute(model) if model and kind.takes_path else model
    configuration: str | None = None
    options = {option.name: option.default for option in kind.options}
    for part in parts:
        name, equals, value = part.partition("=")
        if part and not equals and kind.has_configurations and configuration is None:
            configuration = part
        else:
            options[name] = _option_value(kind, name, value, (part, text))
    return SegmenterSpec(kind=key, model=model, configuration=configuration, options=options)


def _option_value(kind: SegmenterKind, name: str, value: str, shown: tuple[str, str]) -> Any:
    known: dict[str, SegmenterOption] = {option.name: option for option in kind.options}
    try:
        if name not in known or not value:
            raise ValueError(name)
        return known[name].parse(value)
    except ValueError:
        message = f"{shown[0]!r} is not understood in {shown[1]!r}"
        raise UsageError(Reason.BAD_PARAMETER, message, f"use {kind.usage}") from None


def with_kept_product(spec: SegmenterSpec, typed: str, kept: Sequence[RequestedProduct]) -> SegmenterSpec:
    """Return a specification with the product that a run has of it already: its axes and step apply.

    Parameters
    ----------
    spec : SegmenterSpec
    typed : str
        Its text, without alias.
    kept : sequence of RequestedProduct
        Products of the run.

    Returns
    -------
    SegmenterSpec
    """
    text = absolute_specification(typed)
    return replace(spec, product=next((p.product for p in kept if p.spec == text), None))


def absolute_specification(text: str) -> str:
    """Return the specification of a segmenter with the path of its model made absolute, as a run keeps it."""
    key, *rest = text.split(":")
    kind = find_segmenter_kind(key.strip())
    model = rest[0] if rest and kind is not None and kind.takes_path else ""
    return text.replace(model, absolute(model), 1) if model else text


def absolute(model: str) -> str:
    """Make the path of an existing folder, recipe (.toml) or request (.json) absolute; leave a name as it is."""
    path = Path(model)
    return str(path.resolve()) if path.is_dir() or (path.suffix in _FILES and path.is_file()) else model

"""What the user asks to be made of every series: specs as typed on the command line, and the products they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind

__all__ = ["RequestedProduct", "SegmenterSpec", "parse_segmenter"]

_HINT = "use expert or nnunet:MODEL[:CONFIGURATION][:folds=0,1][:mirror=on|off]"


@dataclass(frozen=True)
class SegmenterSpec:
    """A parsed ``--segmenter``."""

    kind: ProductKind
    model: str = ""
    """Name in the registry, or path of a model folder."""
    configuration: str | None = None
    folds: tuple[str, ...] | None = None
    mirror: bool = True


@dataclass(frozen=True)
class RequestedProduct:
    """One product of the run: how it was asked for and what it is."""

    spec: str
    """Spec of the segmenter, or name or path of the body part model; made absolute where it is a path."""
    product: Product
    model_sha256: str = ""
    missing: Reason | None = None
    """Why the product is skipped for every series (NO_MODEL), if it is."""


def parse_segmenter(text: str) -> SegmenterSpec:
    """Read ``expert`` or ``nnunet:MODEL[:CONFIGURATION][:folds=0,1][:mirror=on|off]``.

    Raises
    ------
    UsageError
        BAD_PARAMETER, with the form that is expected.
    """
    head, *rest = text.strip().split(":")
    if head == ProductKind.EXPERT.value and not rest:
        return SegmenterSpec(ProductKind.EXPERT)
    if head != ProductKind.NNUNET.value or not rest or not rest[0]:
        raise UsageError(Reason.BAD_PARAMETER, f"{text!r} does not name a segmenter", _HINT)
    configuration: str | None = None
    folds: tuple[str, ...] | None = None
    mirror = True
    for part in rest[1:]:
        name, equals, value = part.partition("=")
        if not equals and configuration is None and part:
            configuration = part
        elif name == "folds" and value:
            folds = tuple(fold.strip() for fold in value.split(","))
        elif name == "mirror" and value in ("on", "off"):
            mirror = value == "on"
        else:
            raise UsageError(Reason.BAD_PARAMETER, f"{part!r} is not understood in {text!r}", _HINT)
    return SegmenterSpec(ProductKind.NNUNET, absolute(rest[0]), configuration, folds, mirror)


def absolute(model: str) -> str:
    """Make the path of an existing model folder absolute; leave a registry name as it is."""
    path = Path(model)
    return str(path.resolve()) if path.is_dir() else model

"""The products that a run is asked for: every model is opened once, before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ctenrich.errors import UsageError
from ctenrich.inference.device import check_device
from ctenrich.inference.kinds import find_segmenter_kind, segmenter_kind
from ctenrich.inference.products import RequestedProduct, SegmenterSpec, absolute, parse_segmenter
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo, Product, ProductKind, SliceScores
from ctenrich.stages.crop import check_crop
from ctenrich.stages.table import check_kind

if TYPE_CHECKING:
    from ctenrich.settings import Settings

__all__ = ["find_scorer", "request_products"]


def request_products(
    segmenters: tuple[str, ...],
    bodypart: str,
    *,
    settings: Settings,
    allow_demo: bool,
    kept: tuple[RequestedProduct, ...] = (),
) -> tuple[RequestedProduct, ...]:
    """Open every model once, so that whatever is wrong with one is found before any work starts.

    Parameters
    ----------
    segmenters : tuple of str
        Specifications as typed.
    bodypart : str
        Name or folder of a body part regression model, or ``none``.
    settings : Settings
        Of the run.
    allow_demo : bool
        Whether demonstration models are accepted.
    kept : tuple of RequestedProduct
        Products that the run has already. Those that are not asked for again are kept as they are; their models are
        not opened. A specification that the run has already means the product that it has, with its axes and step.

    Returns
    -------
    tuple of RequestedProduct
        The kept products, then those that were asked for.

    Raises
    ------
    UsageError
        DEMO_MODEL, BAD_PARAMETER for a product named twice, BAD_SETTINGS for a crop that cannot be made, or BAD_PLUGIN
        for a kind that is not completely described.
    ModelError
        What is wrong with a model.
    """
    for device in (settings.segment.device, *settings.run.devices):
        check_device(device)
    check_crop(settings, with_bodypart=bodypart != "none" or find_scorer(kept) is not None)
    known = {p.spec: p.product for p in kept}
    texts = [_absolute_spec(text) for text in segmenters]
    requested = [_opened(t, replace(parse_segmenter(t), product=known.get(t)), settings, allow_demo) for t in texts]
    if bodypart != "none":
        spec = SegmenterSpec(kind=ProductKind.BODYPART, model=bodypart)
        requested.append(_opened(absolute(bodypart), spec, settings, allow_demo))
    keys = [str(r.product) for r in requested]
    twice = sorted({k for k in keys if keys.count(k) > 1})
    if twice:
        raise UsageError(Reason.BAD_PARAMETER, f"{twice[0]} was asked for twice", "give each segmenter once")
    return (*(p for p in kept if str(p.product) not in keys), *requested)


def find_scorer(products: Sequence[RequestedProduct]) -> Product | None:
    """Return the product whose slice scores a crop is derived from: the last one asked for; None if there is none."""
    scorers = [p.product for p in products if segmenter_kind(p.product.kind).makes is SliceScores]
    return scorers[-1] if scorers else None


def _opened(text: str, spec: SegmenterSpec, settings: Settings, allow_demo: bool) -> RequestedProduct:
    kind = segmenter_kind(spec.kind)
    check_kind(kind)
    opened = kind.open(spec, settings)
    return _checked(RequestedProduct(text, opened.product), opened.info, allow_demo)


def _absolute_spec(text: str) -> str:
    key, *rest = text.split(":")
    kind = find_segmenter_kind(key.strip())
    model = rest[0] if rest and kind is not None and kind.takes_path else ""
    return text.replace(model, absolute(model), 1) if model else text


def _checked(requested: RequestedProduct, info: ModelInfo | None, allow_demo: bool) -> RequestedProduct:
    if info is not None and info.demo and not allow_demo:
        raise UsageError(
            Reason.DEMO_MODEL,
            f"{info.name} is a demonstration model: it has seen generated phantoms only",
            "name a real model, or add --allow-demo-models to try the plumbing",
        )
    return replace(requested, model_sha256=info.sha256 if info else "")

"""The products that a run is asked for: every model is opened once, before any work starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ctenrich.errors import UsageError
from ctenrich.inference.device import check_device
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import (
    RequestedProduct,
    SegmenterSpec,
    absolute,
    absolute_specification,
    parse_segmenter,
    split_alias,
    with_kept_product,
)
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, ModelInfo, Product, ProductKind, SliceScores
from ctenrich.runner.demonstration import check_demonstration
from ctenrich.stages.crop import check_crop
from ctenrich.stages.table import check_kind

if TYPE_CHECKING:
    from ctenrich.settings import Settings

__all__ = ["find_model_files", "find_scorer", "product_key", "request_products"]


def request_products(
    segmenters: tuple[str, ...],
    bodypart: str,
    *,
    settings: Settings,
    allow_demo: bool,
    kept: tuple[RequestedProduct, ...] = (),
    cohort: Cohort | None = None,
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
        Whether demonstration models are accepted on every series.
    kept : tuple of RequestedProduct
        Products that the run has already. Those that are not asked for again are kept as they are; their models are
        not opened. A specification that the run has already means the product that it has, with its axes and step.
    cohort : Cohort, optional
        Series of the run: demonstration models are accepted if all of them are generated studies.

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
    aliases = {p.product: p.alias for p in kept}
    requested = []
    for alias, text, spec in _specifications(segmenters, bodypart, kept):
        product, info = _opened(text, spec, settings)
        if info is not None and not allow_demo:
            check_demonstration(info, cohort)
        requested.append(replace(product, alias=alias or aliases.get(product.product, "")))
    keys = [str(r.product) for r in requested]
    _refuse_other_models((*kept, *requested))
    twice = sorted({k for k in keys if keys.count(k) > 1})
    if twice:
        raise UsageError(Reason.BAD_PARAMETER, f"{twice[0]} was asked for twice", "give each segmenter once")
    products = (*(p for p in kept if str(p.product) not in keys), *requested)
    named_twice = [alias for alias, number in Counter(p.alias for p in products if p.alias).items() if number > 1]
    if named_twice:
        raise UsageError(Reason.BAD_PARAMETER, f"two products have the alias {named_twice[0]}", "choose another one")
    return products


def _refuse_other_models(products: Sequence[RequestedProduct]) -> None:
    """Refuse two models, asked for by two names, whose results would be one product: one would replace the other.

    A model that was asked for by the same name and has changed since is meant to replace its own results.
    """
    first: dict[str, RequestedProduct] = {}
    for one in products:
        other = first.setdefault(str(one.product), one)
        known = one.model_sha256 and other.model_sha256
        if known and one.spec != other.spec and one.model_sha256 != other.model_sha256:
            raise UsageError(
                Reason.BAD_PARAMETER,
                f"{other.spec} and {one.spec} are different models with one product name, {one.product}",
                "import one of them under another name, rename its folder or recipe, or choose another --out folder",
            )


def find_model_files(segmenters: Sequence[str], bodypart: str = "none", kept: Sequence[RequestedProduct] = ()) -> None:
    """Check the files of models without loading networks: a source may take hours to read before models are opened.

    Parameters
    ----------
    segmenters : sequence of str
        Specifications as typed.
    bodypart : str
        Name or folder of a body part regression model, or ``none``.
    kept : sequence of RequestedProduct
        Products that the run has already.

    Raises
    ------
    ModelError
        NOT_FOUND, naming what is missing; HASH_MISMATCH for a model that changed after its import; any other fault
        that shows without the weights.
    """
    for _, _, spec in _specifications(segmenters, bodypart, kept):
        find_files = segmenter_kind(spec.kind).find_files
        if find_files is not None:
            find_files(spec)


def _specifications(
    segmenters: Sequence[str], bodypart: str, kept: Sequence[RequestedProduct]
) -> list[tuple[str, str, SegmenterSpec]]:
    """Alias, text with absolute paths and specification of everything that is asked for."""
    out = []
    for alias, typed in map(split_alias, segmenters):
        text = absolute_specification(typed)
        out.append((alias, text, with_kept_product(parse_segmenter(text), text, kept)))
    if bodypart != "none":
        out.append(("", absolute(bodypart), SegmenterSpec(kind=ProductKind.BODYPART, model=bodypart)))
    return out


def product_key(products: Sequence[RequestedProduct], name: str) -> str:
    """Return the key of the product that has `name` as its alias; any other name as it is.

    Parameters
    ----------
    products : sequence of RequestedProduct
        Of a run.
    name : str
        Alias, key, or something else.

    Returns
    -------
    str
    """
    return next((str(p.product) for p in products if p.alias == name), name)


def find_scorer(products: Sequence[RequestedProduct]) -> Product | None:
    """Return the product whose slice scores a crop is derived from: the last one asked for; None if there is none."""
    scorers = [p.product for p in products if segmenter_kind(p.product.kind).makes is SliceScores]
    return scorers[-1] if scorers else None


def _opened(text: str, spec: SegmenterSpec, settings: Settings) -> tuple[RequestedProduct, ModelInfo | None]:
    kind = segmenter_kind(spec.kind)
    check_kind(kind)
    opened = kind.open(spec, settings)
    info = opened.info
    return RequestedProduct(text, opened.product, info.sha256 if info else ""), info

"""Models that stay in memory: each is opened once a process and then takes series after series."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ctenrich.errors import ModelError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo, Product, ProductKind
from ctenrich.runner.products import RequestedProduct, absolute, parse_segmenter
from ctenrich.stages.crop import check_crop

if TYPE_CHECKING:
    from ctenrich.settings import Settings

__all__ = ["ModelCache", "request_products"]


class ModelCache:
    """Opens segmenters and scorers on demand and keeps them.

    Parameters
    ----------
    settings : Settings
        Device, engine and precision.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[str, Any] = {}

    def segmenter(self, plan: RequestedProduct) -> Any:
        """The segmenter of a product (a :class:`ctenrich.inference.segmenter.Segmenter`)."""
        return self._keep(plan, _open_segmenter)

    def scorer(self, plan: RequestedProduct) -> Any:
        """The slice scorer of a body part product."""
        return self._keep(plan, _open_scorer)

    def _keep(self, plan: RequestedProduct, opener: Any) -> Any:
        key = str(plan.product)
        if key not in self._open:
            found = opener(plan.spec, self._settings)
            sha256 = found.info.sha256 if found.info else ""
            if sha256 != plan.model_sha256:
                raise ModelError(
                    Reason.HASH_MISMATCH, f"the model of {key} is not the one that the run was made with",
                    "start a new run folder, or give the same weights",
                )  # fmt: skip
            self._open[key] = found
        return self._open[key]


def _open_segmenter(spec: str, settings: Settings) -> Any:
    parsed = parse_segmenter(spec)
    if parsed.kind is ProductKind.EXPERT:
        from ctenrich.contours import ExpertSegmenter

        return ExpertSegmenter()
    from ctenrich.nnunet.segmenter import open_nnunet

    return open_nnunet(
        parsed.model,
        configuration=parsed.configuration,
        folds=parsed.folds,
        mirror=parsed.mirror,
        settings=settings,
    )


def _open_scorer(spec: str, settings: Settings) -> Any:
    from ctenrich.bodypart.scorer import open_bodypart

    return open_bodypart(spec, settings=settings)


def request_products(
    segmenters: tuple[str, ...], bodypart: str, *, settings: Settings, allow_demo: bool
) -> tuple[RequestedProduct, ...]:
    """Open every model once, so that whatever is wrong with one is found before any work starts.

    Parameters
    ----------
    segmenters : tuple of str
        Specs as typed.
    bodypart : str
        Name or folder of a body part regression model, or ``none``.
    allow_demo : bool
        Whether demonstration models are accepted.

    Raises
    ------
    UsageError
        DEMO_MODEL, BAD_PARAMETER for a product named twice, or BAD_SETTINGS for a crop that cannot be made.
    ModelError
        What is wrong with a model.
    """
    check_crop(settings, with_bodypart=bodypart != "none")
    plans: list[RequestedProduct] = []
    for text in segmenters:
        opened = _open_segmenter(text, settings)
        plans.append(_checked(RequestedProduct(_absolute_spec(text), opened.product), opened.info, allow_demo))
    if bodypart == "none":
        plans.append(RequestedProduct("none", Product(ProductKind.BODYPART, "none"), missing=Reason.NO_MODEL))
    else:
        scorer = _open_scorer(bodypart, settings)
        plans.append(_checked(RequestedProduct(absolute(bodypart), scorer.product), scorer.info, allow_demo))
    keys = [str(p.product) for p in plans]
    twice = sorted({k for k in keys if keys.count(k) > 1})
    if twice:
        raise UsageError(Reason.BAD_PARAMETER, f"{twice[0]} was asked for twice", "give each segmenter once")
    return tuple(plans)


def _absolute_spec(text: str) -> str:
    model = text.split(":")[1] if ":" in text else ""
    return text.replace(model, absolute(model), 1) if model else text


def _checked(plan: RequestedProduct, info: ModelInfo | None, allow_demo: bool) -> RequestedProduct:
    if info is not None and info.demo and not allow_demo:
        raise UsageError(
            Reason.DEMO_MODEL,
            f"{info.name} is a demonstration model: it has seen generated phantoms only",
            "name a real model, or add --allow-demo-models to try the plumbing",
        )
    return replace(plan, model_sha256=info.sha256 if info else "")

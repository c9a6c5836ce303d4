"""Models that stay in memory: each is opened once per process and then takes series after series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ctenrich.codes.mappings import use_mappings
from ctenrich.errors import ModelError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import RequestedProduct, SegmenterSpec, parse_segmenter
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks

if TYPE_CHECKING:
    from ctenrich.inference.segmenter import Scorer, Segmenter
    from ctenrich.settings import Settings

__all__ = ["ModelCache", "spec_of"]

T = TypeVar("T")


class ModelCache:
    """Opens segmenters and scorers on demand and keeps them.

    Parameters
    ----------
    settings : Settings
        Device, engine, precision; the user's mappings are used from now on in this process.
    """

    def __init__(self, settings: Settings) -> None:
        use_mappings(settings.codes.mappings)  # every worker process has a cache, and no other place of its own
        self._settings = settings
        self._open: dict[str, Any] = {}

    def segmenter(self, requested: RequestedProduct) -> Segmenter:
        """The segmenter of a product.

        Raises
        ------
        ModelError
            HASH_MISMATCH if the model has changed since the run was made; what is wrong with a model.
        """
        found: Segmenter = self._opened(requested)
        return found

    def scorer(self, requested: RequestedProduct) -> Scorer:
        """The slice scorer of a body part product (raises as `segmenter`)."""
        found: Scorer = self._opened(requested)
        return found

    def resident(self, key: str, open_model: Callable[[], T]) -> T:
        """Return another model that stays in memory, opened by `open_model` on first use.

        Parameters
        ----------
        key : str
            Name that no product and no other model has.
        open_model : callable
            Opens it.
        """
        if key not in self._open:
            self._open[key] = open_model()
        found: T = self._open[key]
        return found

    def _opened(self, requested: RequestedProduct) -> Any:
        key = str(requested.product)
        if key not in self._open:
            spec = spec_of(requested)
            found = segmenter_kind(spec.kind).open(spec, self._settings)
            sha256 = found.info.sha256 if found.info else ""
            if sha256 != requested.model_sha256:
                raise ModelError(
                    Reason.HASH_MISMATCH, f"the model of {key} is not the one that the run was made with",
                    "start a new run folder, or give the same weights",
                )  # fmt: skip
            self._open[key] = found
        return self._open[key]


def spec_of(requested: RequestedProduct) -> SegmenterSpec:
    """The parsed specification of a product that a run has: scorers are asked for by their model alone."""
    kind = segmenter_kind(requested.product.kind)
    if kind.makes is SegmentMasks:
        return replace(parse_segmenter(requested.spec), product=requested.product)
    return SegmenterSpec(kind=kind.key, model=requested.spec, product=requested.product)

"""The kind ``harmonised``: masks of other programs, as a request of ``ctenrich harmonise`` names them."""

from __future__ import annotations

from pathlib import Path

from ctenrich.harmonise.request import identity_of, load_request
from ctenrich.harmonise.segmenter import KIND, HarmonisedSegmenter
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.segmentation import segmentation_kind
from ctenrich.settings import Settings

__all__ = ["HARMONISED"]

_READING = "reading 1"
"""Version of the rules by which files become masks; raised by hand when they give another result."""


def _open_harmonised(spec: SegmenterSpec, _settings: Settings) -> HarmonisedSegmenter:
    request = load_request(Path(spec.model))
    return HarmonisedSegmenter(request, identity_of(request))


def _check_request(spec: SegmenterSpec) -> None:
    """Refuse a request that does not exist or cannot be read."""
    load_request(Path(spec.model))


HARMONISED = segmentation_kind(
    KIND,
    "masks of another program",
    _open_harmonised,
    lambda product: product.model,
    algorithm_type="SEMIAUTOMATIC",
    states_algorithm_type=True,
    objects=("seg", "shape_sr", "stated_sr"),
    seconds_per_slice={"segment": 0.01, "measure": 0.01, "encode": 0.02, "validate": 0.03},
    registered_models=False,
    check=_check_request,
    words=("REQUEST.json", ""),
    cache_key=lambda _settings: (_READING,),
)

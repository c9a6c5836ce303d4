"""The kind ``nnunet``: segmentation by an nnU-Net model."""

from __future__ import annotations

from ctenrich.inference.kinds import SegmenterKind, SegmenterOption
from ctenrich.inference.products import SegmenterSpec
from ctenrich.nnunet.segmenter import NnunetSegmenter, open_nnunet
from ctenrich.records import Product, SegmentMasks
from ctenrich.settings import Settings

__all__ = ["NNUNET"]


def _open(spec: SegmenterSpec, settings: Settings) -> NnunetSegmenter:
    return open_nnunet(
        spec.model,
        configuration=spec.configuration,
        folds=spec.options["folds"],
        mirror=spec.options["mirror"],
        settings=settings,
    )


def _series_title(product: Product) -> str:
    """The published pattern: ``3d_fullres-tta_nnU-Net``."""
    return f"{product.configuration}{'-tta' if product.mirror else ''}_nnU-Net"


def _folds(text: str) -> tuple[str, ...]:
    return tuple(fold.strip() for fold in text.split(","))


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(text)
    return text == "on"


NNUNET = SegmenterKind(
    key="nnunet",
    title="nnU-Net segmentation",
    makes=SegmentMasks,
    open=_open,
    stages=("segment", "measure", "encode", "validate"),
    objects=("seg", "shape_sr"),
    algorithm_type="AUTOMATIC",
    series_title=_series_title,
    seconds_per_slice={"segment": 0.35, "measure": 0.004, "encode": 0.012, "validate": 0.02},
    has_configurations=True,
    options=(
        SegmenterOption(name="folds", values="0,1", parse=_folds),
        SegmenterOption(name="mirror", values="on|off", parse=_switch, default=True),
    ),
    takes_crop=True,
)

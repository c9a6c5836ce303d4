"""The kind ``nnunet``: segmentation by an nnU-Net model."""

from __future__ import annotations

from dataclasses import replace

from ctenrich.errors import ModelError, UsageError
from ctenrich.inference.kinds import SegmenterOption
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import resolve_model
from ctenrich.inference.segmentation import parse_switch, segmentation_kind
from ctenrich.nnunet.conventions import (
    Conventions,
    axes_before,
    check_stated_axes,
    parse_axes,
    parse_step,
    stated_conventions,
)
from ctenrich.nnunet.segmenter import NnunetSegmenter, choose_nnunet, open_nnunet
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Product, Severity
from ctenrich.settings import Settings

__all__ = ["NNUNET"]


def _open(spec: SegmenterSpec, settings: Settings) -> NnunetSegmenter:
    """Open the model; a product that a run has already keeps its axes and step."""
    made = spec.product
    conventions = _conventions(spec, settings)
    largest = bool(spec.options["largest"]) if made is None else made.largest_component
    if largest and settings.segment.probabilities:
        hint = "leave one of them out"
        raise UsageError(Reason.BAD_PARAMETER, "largest=on changes masks, but not segment.probabilities", hint)
    opened = _open_with(spec, conventions, settings)
    if made is None:
        return replace(opened, product=replace(opened.product, largest_component=largest))
    kept = replace(opened.product, axes=made.axes, step=made.step, largest_component=largest)
    return replace(opened, product=kept, issues=_contradictions(spec, opened.axes))


def _conventions(spec: SegmenterSpec, settings: Settings) -> Conventions:
    """Axes and step as typed, or those of the product that a run has already."""
    made = spec.product
    if made is None:
        return Conventions(axes=spec.options["axes"], step=spec.options["step"])
    step = settings.segment.step_size if made.step is None else made.step
    return Conventions(axes=made.axes or axes_before(resolve_model(spec.model)), step=step)


def _contradictions(spec: SegmenterSpec, used: str) -> tuple[Issue, ...]:
    """Return a warning if a run goes on with other axes than the model's files state, which 0.1.0 did not read."""
    stated = stated_conventions(resolve_model(spec.model))
    if spec.options["axes"] or stated.axes in ("", used):
        return ()
    text = f"the run was made with the axes {used}; {stated.axes_from} states {stated.axes}: add :axes={stated.axes}"
    return (Issue("model.axes", Severity.WARNING, str(spec.product), text),)


def _open_with(spec: SegmenterSpec, conventions: Conventions, settings: Settings) -> NnunetSegmenter:
    return open_nnunet(
        spec.model,
        configuration=spec.configuration,
        folds=spec.options["folds"],
        mirror=spec.options["mirror"],
        conventions=conventions,
        settings=settings,
    )


def _check(spec: SegmenterSpec) -> None:
    """Refuse a model on this machine whose axes nothing states, without opening it."""
    if spec.options["axes"] or spec.product is not None:
        return
    try:
        model = resolve_model(spec.model)
    except ModelError:  # not on this machine yet, or its licence is not accepted: the run will state it
        return
    check_stated_axes(model)


def _find_files(spec: SegmenterSpec) -> None:
    """Refuse a model that is not on this machine, changed after its import, or has a fault that shows in its plans."""
    conventions = _conventions(spec, Settings())
    choose_nnunet(spec.model, configuration=spec.configuration, folds=spec.options["folds"], conventions=conventions)


def _series_title(product: Product) -> str:
    """The published pattern: ``3d_fullres-tta_nnU-Net``."""
    return f"{product.configuration}{'-tta' if product.mirror else ''}_nnU-Net"


def _folds(text: str) -> tuple[str, ...]:
    return tuple(fold.strip() for fold in text.split(","))


NNUNET = segmentation_kind(
    "nnunet",
    "nnU-Net segmentation",
    _open,
    _series_title,
    seconds_per_slice={"segment": 0.35, "measure": 0.004, "encode": 0.012, "validate": 0.02},
    has_configurations=True,
    options=(
        SegmenterOption(name="folds", values="0,1", parse=_folds),
        SegmenterOption(name="mirror", values="on|off", parse=parse_switch, default=True),
        SegmenterOption(name="axes", values="RAS|LAS|LPS", parse=parse_axes, default=""),
        SegmenterOption(name="step", values="0.8", parse=parse_step),
        SegmenterOption(name="largest", values="on|off", parse=parse_switch, default=False),
    ),
    takes_crop=True,
    check=_check,
    find_files=_find_files,
)

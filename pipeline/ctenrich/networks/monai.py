"""The kind ``monai``: bundles of MONAI with a SegResNet, e.g. wholeBody_ct_segmentation, with MONAI's own answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import Any

from ctenrich.codes.tasks import task_classes
from ctenrich.errors import UsageError
from ctenrich.inference.device import check_precision, choose_device
from ctenrich.inference.imported import check_imported_files
from ctenrich.inference.kinds import ModelFiles
from ctenrich.inference.process import prepare_process
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import ResolvedModel, check_name, resolve_model
from ctenrich.inference.segmentation import Classes, class_names, class_rows, segmentation_kind
from ctenrich.networks.bundle import Bundle, bundle_folder, read_bundle
from ctenrich.networks.grid_segmenter import GridSegmenter
from ctenrich.networks.segresnet import forward, segresnet_shapes
from ctenrich.networks.weights import (
    Tensors,
    bad_model,
    check_settings,
    check_tensors,
    read_tensors,
    tensors_sha256,
)
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo, Product
from ctenrich.settings import SegmentSettings, Settings

__all__ = ["MONAI", "open_monai"]

_VERSION = 1
"""Version of the rules in this package that decide the answer; raised by hand."""


def open_monai(model: str, *, resolution: str = "", settings: SegmentSettings) -> GridSegmenter:
    """Load a bundle; every fault of it is found here, before any series is touched.

    Parameters
    ----------
    model : str
        Name given at import, or path of the bundle's folder.
    resolution : str
        ``lowres`` or ``highres``; empty: as the bundle is set.
    settings : SegmentSettings
        Device, precision, threads.

    Returns
    -------
    GridSegmenter

    Raises
    ------
    ModelError
        NOT_FOUND, BAD_MODEL, UNSAFE_WEIGHTS, HASH_MISMATCH, WRONG_MODALITY or UNMAPPED_LABEL.
    UsageError
        BAD_PARAMETER for another resolution; BAD_SETTINGS.
    """
    _check_resolution(resolution)
    check_settings(settings, "monai")
    prepare_process()
    resolved = resolve_model(model)
    bundle, tensors, names = _load(resolved, resolution)
    device = choose_device(settings.device)
    name = check_name(f"{resolved.name}-{resolution}" if resolution else resolved.name)
    rules = json.dumps([_VERSION, asdict(bundle.rules), asdict(bundle.network), dict(bundle.labels)], sort_keys=True)
    info = ModelInfo(
        name=bundle.name,
        version=bundle.version,
        sha256=tensors_sha256([tensors], f"monai {rules}"),
        configuration=resolution,
        licence=bundle.licence,
        citation=bundle.citation,
    )
    return GridSegmenter(
        product=Product("monai", name),
        info=info,
        names=names,
        forward=partial(forward, bundle.network, {key: tensor.to(device) for key, tensor in tensors.items()}),
        rules=bundle.rules,
        classes=bundle.network.classes,
        device=device,
        precision=check_precision(settings.precision),
        threads=settings.threads,
    )


def _check_resolution(resolution: str) -> None:
    if resolution not in ("", "lowres", "highres"):
        raise UsageError(Reason.BAD_PARAMETER, f"a bundle has no model {resolution!r}", "use lowres or highres")


def _read(model: ResolvedModel, resolution: str = "") -> tuple[Bundle, Classes]:
    """Configuration and classes of a bundle whose files are those that were imported; its weights are not loaded."""
    folder = bundle_folder(model.folder)
    if folder is None:
        bad_model(f"{model.name} is not a MONAI bundle: it has no configs/inference.json")
    check_imported_files(model.folder)
    bundle = read_bundle(folder, resolution)
    rows = {item.class_name: item.segment for item in task_classes("monai:wholeBody_ct_segmentation")}
    return bundle, class_names(bundle.labels, model.name, rows)


def _load(model: ResolvedModel, resolution: str = "") -> tuple[Bundle, Tensors, Classes]:
    bundle, names = _read(model, resolution)
    tensors = read_tensors(bundle.weights, model.name)
    check_tensors(tensors, segresnet_shapes(bundle.network), model.name)
    return bundle, {key: tensor.float() for key, tensor in tensors.items()}, names


def _describe(model: ResolvedModel) -> dict[str, Any]:
    bundle, tensors, names = _load(model)
    return {
        "segmenter": f"monai:{model.name}",
        "title": f"{bundle.name} {bundle.version}".strip(),
        **({"licence": bundle.licence} if bundle.licence else {}),
        "axes": bundle.rules.axes,
        "spacing": list(bundle.rules.spacing or ()),
        "patch": list(bundle.rules.windows.size),
        "labels": {label: value for value, _, label in names},
        "classes": class_rows(names),
        "weights_sha256": tensors_sha256([tensors], ""),
    }


def _open(spec: SegmenterSpec, settings: Settings) -> GridSegmenter:
    return open_monai(spec.model, resolution=spec.configuration or "", settings=settings.segment)


def _check(spec: SegmenterSpec) -> None:
    """Refuse a resolution that does not exist; the bundle need not be on this machine yet."""
    _check_resolution(spec.configuration or "")


def _find_files(spec: SegmenterSpec) -> None:
    _read(resolve_model(spec.model), spec.configuration or "")


MONAI = segmentation_kind(
    "monai",
    "MONAI bundle",
    _open,
    lambda product: f"{product.model}_MONAI",
    seconds_per_slice={"segment": 1.5, "measure": 0.02, "encode": 0.05, "validate": 0.08},
    has_configurations=True,
    words=("FOLDER", "lowres"),
    check=_check,
    find_files=_find_files,
    model_files=ModelFiles(
        recognise=lambda model: bundle_folder(model.folder) is not None,
        describe=_describe,
    ),
)

"""What all networks that segment a CT have in common: stages and objects of the kind, classes with codes, masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from ctenrich.codes.describe import side_of
from ctenrich.codes.mappings import codes_of, find_segment
from ctenrich.errors import InputError, ModelError, count
from ctenrich.inference.components import keep_largest_component
from ctenrich.inference.kinds import SegmenterKind
from ctenrich.inference.process import return_excess_memory
from ctenrich.inference.products import SegmenterSpec
from ctenrich.masks import masks_from_label_map
from ctenrich.reasons import Reason
from ctenrich.records import Issue, ModelInfo, Product, Quantity, SegmentMasks, Severity, Volume
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

__all__ = ["Classes", "CtAnswer", "class_names", "class_rows", "parse_switch", "segment_ct", "segmentation_kind"]

Classes = tuple[tuple[int, str, str], ...]
"""(label value, segment name, the model's name of the class) of every class of a model, by value."""

_STAGES = ("segment", "measure", "encode", "validate")
_OBJECTS = ("seg", "shape_sr")


def segmentation_kind(
    key: str,
    title: str,
    open_segmenter: Callable[[SegmenterSpec, Settings], Any],
    series_title: Callable[[Product], str],
    **other: Any,
) -> SegmenterKind:
    """Describe a kind of network whose products are masks with a SEG and a shape SR.

    Parameters
    ----------
    key, title : str
        As in `SegmenterKind`.
    open_segmenter : callable
        `SegmenterKind.open`.
    series_title : callable
        Start of the Series Description of a product's objects.
    **other
        Any other field of `SegmenterKind`. `seconds_per_slice` is needed.

    Returns
    -------
    SegmenterKind
        Of Segment Algorithm Type AUTOMATIC unless `other` states another.
    """
    fields = {"stages": _STAGES, "objects": _OBJECTS, "algorithm_type": "AUTOMATIC"} | other
    return SegmenterKind(
        key=key, title=title, makes=SegmentMasks, open=open_segmenter, series_title=series_title, **fields
    )


def parse_switch(text: str) -> bool:
    """Read ``on`` or ``off``; ValueError for other text."""
    if text not in ("on", "off"):
        raise ValueError(text)
    return text == "on"


def class_names(labels: Mapping[str, int], model: str, rows: Mapping[str, str] | None = None) -> Classes:
    """Find the segment, and so the codes, of every class of a model.

    Parameters
    ----------
    labels : mapping of str to int
        The model's name of a class -> label value.
    model : str
        Name of the model, for the message.
    rows : mapping of str to str, optional
        The model's name of a class -> row of mappings/segments.csv, where that has another name.

    Returns
    -------
    tuple of (label value, segment name, the model's name)

    Raises
    ------
    ModelError
        UNMAPPED_LABEL, naming the classes that no row of mappings/segments.csv knows; BAD_MAPPING if two are one.
    """
    found = {label: find_segment((rows or {}).get(label, label)) for label in labels}
    unmapped = [label for label, code in found.items() if code is None]
    if unmapped:
        message = f"no row of mappings/segments.csv knows the label {', '.join(map(repr, unmapped))} of {model}"
        raise ModelError(Reason.UNMAPPED_LABEL, message, "add a row, or the label to a row's labels")
    classes = [(labels[label], code.name, label) for label, code in found.items() if code is not None]
    names = [name for _, name, _ in classes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelError(Reason.BAD_MAPPING, f"two labels of {model} mean {twice[0]} in mappings/segments.csv")
    return tuple(sorted(classes))


def class_rows(classes: Classes) -> list[dict[str, str]]:
    """Describe classes as text, for ``ctenrich models show``.

    Parameters
    ----------
    classes : Classes
        The segment is empty where no mapping knows a class.

    Returns
    -------
    list of dict
        Value, label, segment, code and side of every class.
    """
    rows = []
    for value, segment, label in classes:
        code = codes_of(segment) if segment else None
        row = {"value": str(value), "label": label, "segment": segment, "code": "", "side": ""}
        if code is not None:
            row |= {"code": f"{code.type.value} {code.type.scheme} {code.type.meaning}", "side": side_of(code)}
        rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True)
class CtAnswer:
    """The label map of a network for one CT."""

    labels: NDArray[Any]
    """[k, j, i], on the grid of the CT."""
    classes: Classes
    """Of its values, absent ones too."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Name of the step -> seconds."""
    issues: tuple[Issue, ...] = ()
    agreement: Mapping[int, float] = field(default_factory=dict)
    """Label value -> agreement of the folds, see `SegmentMasks.agreement`."""
    probabilities_path: str | None = None
    classes_overlap: bool = False
    """See `SegmentMasks.classes_overlap`."""


def segment_ct(
    inputs: Mapping[str, Volume],
    workspace: Workspace,
    product: Product,
    model: ModelInfo,
    label: Callable[[Volume, NDArray[Any]], CtAnswer],
) -> SegmentMasks:
    """Segment the CT of a series, and save the masks of the product.

    Parameters
    ----------
    inputs : mapping of role to Volume
        With the role CT.
    workspace : Workspace
    product : Product
    model : ModelInfo
    label : callable
        Makes the label map from the volume's record and its array [k, j, i], HU.

    Returns
    -------
    SegmentMasks
        Its array is saved, the record is not.

    Raises
    ------
    InputError
        WRONG_MODALITY without a CT volume in HU; the errors of `label`.
    """
    volume = inputs.get("CT")
    if volume is None or volume.quantity is not Quantity.HU:
        raise InputError(Reason.WRONG_MODALITY, f"{model.name} needs a CT volume in Hounsfield units")
    uid = volume.series_instance_uid
    answer = label(volume, load_array(workspace.resolve(uid, volume.array_path)))
    return_excess_memory()
    start = time.perf_counter()
    removed = _keep_largest(answer) if product.largest_component else ()
    template = SegmentMasks(
        product=product,
        series_instance_uid=uid,
        shape=volume.shape,
        segments=(),
        label_map_path=None,
        sha256="",
        model=model,
        issues=(*answer.issues, *removed),
        agreement={
            name: round(answer.agreement[value], 6) for value, name, _ in answer.classes if value in answer.agreement
        },
        probabilities_path=answer.probabilities_path,
        classes_overlap=answer.classes_overlap,
    )
    path = workspace.product_dir(uid, product) / "masks" / "labels.npy"
    masks = masks_from_label_map(answer.labels, answer.classes, template, path, workspace)
    return replace(masks, timings={**answer.timings, "save": time.perf_counter() - start})


def _keep_largest(answer: CtAnswer) -> tuple[Issue, ...]:
    """Keep the largest component of every class, in place; returns a note for each class that lost voxels."""
    notes = []
    for value, name, _ in answer.classes:
        removed = keep_largest_component(answer.labels, value)
        if removed:
            kept = int((answer.labels == value).sum())
            text = f"{count(removed, 'voxel')} beside the largest component removed, {kept} kept"
            notes.append(Issue("segment.largest_component", Severity.NOTE, name, text))
    return tuple(notes)

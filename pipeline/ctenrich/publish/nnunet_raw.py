"""The SEGs of a product -> a data set in nnU-Net's raw format, to train on."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.dicom.seg import DecodedSeg, read_seg
from ctenrich.dicom.sop_classes import SEGMENTATION_CLASSES
from ctenrich.errors import CtenrichError, InputError, UsageError, did_you_mean
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.images import write_image
from ctenrich.publish.mask_files import write_nifti
from ctenrich.publish.planned_objects import PlannedObject, objects_of_run
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegSettings
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["RawCase", "RawDatasetOptions", "export_nnunet_raw"]

_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]+")
_TASK = "export"


@dataclass(frozen=True, kw_only=True)
class RawDatasetOptions:
    """What becomes a data set."""

    product: str
    """Key of the product whose SEGs are the labels, e.g. ``expert``."""
    name: str
    """Name of the data set as nnU-Net asks for it: ``DatasetNNN_Name``."""
    structures: tuple[str, ...] = ()
    """Segments that become labels 1, 2, ...; default: all that any series has, in alphabetical order."""


@dataclass(frozen=True, kw_only=True)
class RawCase:
    """Outcome of one series."""

    series_instance_uid: str
    case: str
    """Name in the data set; empty if the series is not part of it."""
    reason: Reason | None = None
    message: str = ""


def export_nnunet_raw(
    workspace: Workspace,
    out: Path,
    options: RawDatasetOptions,
    *,
    limits: SegSettings | None = None,
    progress: Progress = SILENT,
) -> tuple[RawCase, ...]:
    """Write ``OUT/DatasetNNN_Name`` with ``imagesTr``, ``labelsTr``, ``dataset.json`` and ``cases.csv``.

    Only a series whose SEG has every structure is a case, with voxels or stated as absent: where a structure was not
    segmented, its voxels would be trained as background. Nor can voxels of two structures be in a label map.

    Parameters
    ----------
    workspace : Workspace
        The run.
    out : Path
        Folder of the data sets (``nnUNet_raw``).
    options : RawDatasetOptions
        Product, name and structures.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object.
    progress : Progress
        Advanced by one for every series.

    Returns
    -------
    tuple of RawCase
        One outcome per SEG of the product.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another form of name, a product that the run has not, a structure that no SEG has, or a
        folder that exists.
    InputError
        NOT_PREPARED if no series is a case.
    """
    if _NAME.fullmatch(options.name) is None:
        raise UsageError(Reason.BAD_PARAMETER, f"{options.name!r} is not a name of a data set", "e.g. Dataset701_Lungs")
    folder = out / options.name
    if folder.exists():
        raise UsageError(Reason.BAD_PARAMETER, f"{folder} exists", "name another folder, or remove it")
    items = _segs_of(workspace, options.product)
    labels = _labels(items, options.structures)
    progress.start(_TASK, len(items))
    cases: list[RawCase] = []
    for item in items:
        case = f"case_{sum(bool(c.case) for c in cases) + 1:04d}"
        try:
            _write_case(workspace, item, labels, (folder, case), limits or SegSettings())
            cases.append(RawCase(series_instance_uid=item.series, case=case))
        except CtenrichError as error:
            cases.append(RawCase(series_instance_uid=item.series, case="", reason=error.reason, message=error.message))
        progress.advance(_TASK)
    progress.finish(_TASK)
    written = [case for case in cases if case.case]
    if not written:
        raise InputError(
            Reason.NOT_PREPARED, f"no series is a case: {cases[0].message}", "--structure chooses segments"
        )
    _describe(folder, options, labels, written)
    return tuple(cases)


def _segs_of(workspace: Workspace, product: str) -> list[PlannedObject]:
    items = [i for i in objects_of_run(workspace, SeriesStore(workspace)) if i.sop_class in SEGMENTATION_CLASSES]
    known = sorted({item.product for item in items})
    if product not in known:
        hint = did_you_mean(product, known, f"products with a SEG: {', '.join(known) or 'none'}")
        raise UsageError(Reason.BAD_PARAMETER, f"the run has no SEG of {product!r}", hint)
    return [item for item in items if item.product == product]


def _labels(items: Sequence[PlannedObject], structures: Sequence[str]) -> dict[str, int]:
    """Label value of each structure, from 1 without a gap, as nnU-Net asks for."""
    known = sorted({name for item in items for name in item.segments.values()})
    for name in structures:
        if name not in known:
            raise UsageError(Reason.BAD_PARAMETER, f"no SEG has a segment {name!r}", did_you_mean(name, known))
    return {name: number for number, name in enumerate(dict.fromkeys(structures or known), 1)}


def _write_case(
    workspace: Workspace, item: PlannedObject, labels: Mapping[str, int], target: tuple[Path, str], limits: SegSettings
) -> None:
    if item.fault is not None:
        raise item.fault
    missing = [name for name in labels if name not in item.segments.values()]
    if missing:
        raise InputError(Reason.MISSING_MASKS, f"not segmented: {', '.join(missing)}")
    source = SeriesStore(workspace).find(SortedSeries, item.series)
    seg = read_seg(item.path, source, max_voxels=limits.max_voxels, max_bytes=limits.max_bytes)
    if not seg.on_source_grid:
        raise InputError(Reason.OTHER_GRID, "the masks are not on the grid of the CT")
    numbers = {number: labels[name] for number, name in item.segments.items() if name in labels}
    folder, case = target
    planes = list(_planes(seg, numbers))
    write_image(workspace, item.series, folder / "imagesTr" / f"{case}_0000.nii.gz")
    kind = np.dtype(np.uint8 if len(labels) < 256 else np.uint16)
    write_nifti(folder / "labelsTr" / f"{case}.nii.gz", planes, kind, seg.grid)


def _planes(seg: DecodedSeg, numbers: Mapping[int, int]) -> Iterator[NDArray[np.uint16]]:
    for k in range(seg.grid.shape[0]):
        out = np.zeros(seg.grid.shape[1:], np.uint16)
        for number in seg.planes.numbers(k):
            if number not in numbers:
                continue
            inside = seg.mask_plane(number, k)
            taken = int(out[inside].max(initial=0))
            if taken:
                names = {s.number: s.label for s in seg.segments}
                other = next(n for n, label in numbers.items() if label == taken)
                message = f"{names[other]} and {names[number]} overlap: a label map cannot hold both"
                raise InputError(Reason.BAD_MASK, message)
            out[inside] = numbers[number]
        yield out


def _describe(folder: Path, options: RawDatasetOptions, labels: Mapping[str, int], cases: Sequence[RawCase]) -> None:
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **labels},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        "name": options.name.partition("_")[2],
        "description": f"segments of {options.product}",
    }
    write_bytes(folder / "dataset.json", json.dumps(described, indent=1).encode() + b"\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "SeriesInstanceUID", "product"))
    writer.writerows((case.case, case.series_instance_uid, options.product) for case in cases)
    write_bytes(folder / "cases.csv", text.getvalue().encode("utf-8"))

"""Masks of a run as RT Structure Sets in files, each drawn again and compared with its masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from ctenrich import __version__
from ctenrich.codes.mappings import load_segments
from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.writer import explicit_parts
from ctenrich.encode.context import set_character_set
from ctenrich.encode.files import file_meta_bytes
from ctenrich.encode.rtstruct import StructureSetOptions, structure_set_of
from ctenrich.errors import CtenrichError, InputError
from ctenrich.masks import dice, full_mask
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Product, SegmentMasks, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.structure_names.standard import standard_name_of
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["StructureSetFile", "export_structure_sets", "names_of_tg263"]

_TASK = "structure sets"
LEAST_DICE = 0.98
"""Dice of a mask and its contours drawn again, from which the file is kept."""


@dataclass(frozen=True, kw_only=True)
class StructureSetFile:
    """Outcome of one product of one series."""

    series_instance_uid: str
    product: str
    path: Path | None
    """The file; None if none was written."""
    rois: int = 0
    worst_dice: float | None = None
    """Smallest Dice of a mask and its contours drawn again; None without a file."""
    reason: Reason | None = None
    message: str = ""


def names_of_tg263() -> dict[str, str]:
    """Return the name of TG-263 of each row of mappings/segments.csv that has one."""
    return {row: name for row in load_segments() if (name := standard_name_of(row))}


def export_structure_sets(
    workspace: Workspace,
    out: Path,
    *,
    settings: Settings,
    options: StructureSetOptions,
    progress: Progress = SILENT,
) -> tuple[StructureSetFile, ...]:
    """Write an RT Structure Set for every product with masks: ``OUT/<series>/<product>.dcm``.

    Parameters
    ----------
    workspace : Workspace
        The run.
    out : Path
        Folder to write to.
    settings : Settings
        Dates, and the limit of what a file may unpack to.
    options : StructureSetOptions
        Holes and names.
    progress : Progress
        Advanced by one for every product.

    Returns
    -------
    tuple of StructureSetFile
        One outcome per product. A file whose contours, drawn again, differ from the masks is not kept (PROOF_FAILED).

    Raises
    ------
    InputError
        NOT_PREPARED: the run has no masks.
    """
    store = SeriesStore(workspace)
    wanted = list(_products(store))
    if not wanted:
        raise InputError(Reason.NOT_PREPARED, "the run holds no masks yet", "run the stages first")
    progress.start(_TASK, len(wanted))
    found = []
    for uid, product in wanted:
        path = out / uid / f"{product.folder}.dcm"
        try:
            found.append(_export_one(store, workspace, (uid, product), path, settings, options))
        except CtenrichError as error:
            found.append(
                StructureSetFile(
                    series_instance_uid=uid,
                    product=str(product),
                    path=None,
                    reason=error.reason,
                    message=error.message,
                )
            )
        progress.advance(_TASK)
    progress.finish(_TASK)
    return tuple(found)


def _products(store: SeriesStore) -> Iterator[tuple[str, Product]]:
    for uid in store.series():
        for product in store.products(uid):
            if store.has(SegmentMasks, uid, product):
                yield uid, product


def _export_one(
    store: SeriesStore,
    workspace: Workspace,
    key: tuple[str, Product],
    path: Path,
    settings: Settings,
    options: StructureSetOptions,
) -> StructureSetFile:
    uid, product = key
    masks, series = store.masks(uid, product), store.sorted_series(uid)
    dataset = structure_set_of(masks, series, workspace, settings=settings.encode, options=options)
    write_structure_set(dataset, path)
    values = list(_drawn_again(path, masks, series, workspace, settings))
    worst = min(values, default=1.0)
    if worst < LEAST_DICE:
        path.unlink()
        text = f"the contours, drawn again, differ from the masks (Dice {worst:.4f})"
        raise InputError(Reason.PROOF_FAILED, text)
    rois = len(dataset.StructureSetROISequence)
    return StructureSetFile(series_instance_uid=uid, product=str(product), path=path, rois=rois, worst_dice=worst)


def _drawn_again(
    path: Path, masks: SegmentMasks, series: SortedSeries, workspace: Workspace, settings: Settings
) -> Iterator[float]:
    """Dice of each mask and its contours, read from the file."""
    grid = grid_of(series)
    rois = {roi.number: roi for roi in load_contours(path, limit=settings.convert.max_unpacked).rois}
    for segment in masks.segments:
        if segment.absent:
            continue
        drawn = rasterise(rois[segment.number].contours, grid)
        value = dice(np.asarray(drawn.mask, bool), full_mask(masks, segment.number, workspace))
        yield 0.0 if value is None else value


def write_structure_set(dataset: Dataset, path: Path) -> None:
    """Write a structure set in Explicit VR Little Endian.

    Parameters
    ----------
    dataset : Dataset
        Without file meta information, which is added.
    path : Path
        The file; its folder is created.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derive_uid("implementation", "ctenrich", __version__))
    meta.ImplementationVersionName = f"CTENRICH_{__version__}"[:16]
    set_character_set(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, b"".join([file_meta_bytes(meta), *explicit_parts(dataset)]))

"""A folder of CT files -> the series that an object refers to, in order; headers only, judged by the geometry rules."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ctenrich.dicom.objects import header as read_header
from ctenrich.dicom.objects import quiet
from ctenrich.errors import InputError
from ctenrich.geometry import SliceHeader, check_stack_geometry, slice_normal
from ctenrich.reasons import Reason
from ctenrich.records import Slice, SortedSeries
from ctenrich.settings import GeometrySettings

__all__ = ["series_of_folder"]

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("ImageType", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
)


def series_of_folder(folder: Path, series_instance_uid: str = "") -> SortedSeries:
    """Read the headers of a folder's CT series and sort its slices.

    Parameters
    ----------
    folder : Path
        Searched with its sub-folders.
    series_instance_uid : str
        The series that is wanted. Where the folder does not have it, its only CT series is taken; a comparison of the
        references then reports that they do not resolve.

    Returns
    -------
    SortedSeries
        Slices in the order of their projection on the slice normal.

    Raises
    ------
    InputError
        NO_CT; NO_REFERENCE where the folder holds several series and none is the wanted one; a geometry reason where
        the slices form no regular volume.
    """
    groups: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            with quiet():
                header = read_header(path, _TAGS)
        except InputError:
            continue
        if header.get("Modality") == "CT" and "ImagePositionPatient" in header:
            groups[str(header.SeriesInstanceUID)].append((path, header))
    if not groups:
        raise InputError(Reason.NO_CT, "the folder holds no CT image")
    if series_instance_uid not in groups and len(groups) > 1:
        message = f"the folder holds {len(groups)} CT series, but not the one that is referred to"
        raise InputError(Reason.NO_REFERENCE, message)
    chosen = series_instance_uid if series_instance_uid in groups else next(iter(groups))
    with quiet():
        return _sorted(groups[chosen])


def _sorted(items: list[tuple[Path, Dataset]]) -> SortedSeries:
    verdict = check_stack_geometry([_header(header) for _, header in items], GeometrySettings())
    if verdict.reasons:
        raise InputError(verdict.reasons[0], verdict.reasons[0].sentence)
    first = items[verdict.order[0]][1]
    turn = [float(v) for v in first.ImageOrientationPatient]
    row, column = (turn[0], turn[1], turn[2]), (turn[3], turn[4], turn[5])
    normal = np.array(slice_normal(row, column))
    slices = []
    for index in verdict.order:
        path, header = items[index]
        place = [float(v) for v in header.ImagePositionPatient]
        position = (place[0], place[1], place[2])
        distance = float(normal @ np.array(position))
        slices.append(Slice(str(header.SOPInstanceUID), str(header.SOPClassUID), str(path), position, distance))
    spacing = [float(v) for v in first.PixelSpacing]
    return SortedSeries(
        str(first.StudyInstanceUID),
        str(first.SeriesInstanceUID),
        str(first.get("FrameOfReferenceUID", "")),
        tuple(slices),
        row,
        column,
        (spacing[0], spacing[1]),
        (slices[-1].distance - slices[0].distance) / max(len(slices) - 1, 1),
        int(first.Rows),
        int(first.Columns),
    )


def _header(header: Dataset) -> SliceHeader:
    def numbers(keyword: str) -> tuple[float, ...] | None:
        try:
            return tuple(float(v) for v in header[keyword].value)
        except (KeyError, TypeError, ValueError):
            return None

    def whole(keyword: str) -> int | None:
        value = header.get(keyword)
        return int(value) if isinstance(value, int) else None

    return SliceHeader(
        str(header.get("SOPInstanceUID", "")),
        str(header.get("SOPClassUID", "")),
        image_type=tuple(header.get("ImageType") or ()),
        position=numbers("ImagePositionPatient"),
        orientation=numbers("ImageOrientationPatient"),
        pixel_spacing=numbers("PixelSpacing"),
        rows=whole("Rows"),
        columns=whole("Columns"),
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID", "")),
    )

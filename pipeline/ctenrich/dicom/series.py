"""A folder of images -> the series that an object refers to, in order; headers only, judged by the geometry rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ctenrich.dicom.frames import read_frames
from ctenrich.dicom.objects import header as read_header
from ctenrich.dicom.objects import quiet
from ctenrich.dicom.sop_classes import PARAMETRIC_MAP, SEGMENTATION_CLASSES
from ctenrich.errors import InputError
from ctenrich.geometry import SliceHeader, check_stack_geometry, slice_normal
from ctenrich.reasons import Reason
from ctenrich.records import Slice, SortedSeries
from ctenrich.settings import GeometrySettings
from ctenrich.workspace import input_files

__all__ = ["ImageReference", "SourceFolder", "series_of_folder"]

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
    *("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_SOURCES = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities of images that segmentations are made from."""
_SAME_PLACE = 1e-3
"""mm along the normal: images that are closer have one position (echoes, b-values, time points)."""


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """One single-frame image, or one frame of a multi-frame image."""

    header: Dataset
    path: Path
    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    frame: int | None = None
    """Number of the frame, from 1; None for a single-frame image."""


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """An image, or one frame of a multi-frame image, that an object refers to."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None
    """Number of the frame, from 1; None for a single-frame image."""


class SourceFolder:
    """The CT, MR and PET series of a folder, from which the source of an object is chosen.

    Parameters
    ----------
    folder : Path
        Searched once, with its sub-folders.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _groups(self) -> dict[str, list[tuple[Path, Dataset]]]:
        groups: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
        for path in input_files(self._folder):
            try:
                with quiet():
                    header = read_header(path, _TAGS)
            except InputError:
                continue
            if _is_source(header):
                groups[str(header.get("SeriesInstanceUID", ""))].append((path, header))
        return groups

    @cached_property
    def names(self) -> dict[str, str]:
        """SOP Instance UID -> path relative to the folder, of all images."""
        return {
            str(header.get("SOPInstanceUID", "")): path.relative_to(self._folder).as_posix()
            for images in self._groups.values()
            for path, header in images
        }

    def find_series(self, series_instance_uid: str = "", *, referenced: Collection[str] = ()) -> SortedSeries:
        """Sort the slices of the series that an object refers to.

        Parameters
        ----------
        series_instance_uid : str
            The series that is wanted. Where the folder does not have it, its only series is taken, or the only one with
            images that are referred to; a comparison of the references then reports what does not resolve.
        referenced : collection of str
            SOP Instance UIDs that the object refers to. They are preferred where several images have one position.

        Returns
        -------
        SortedSeries
            Slices in the order of their projection on the slice normal; the frames of a multi-frame image are slices
            of one SOP Instance UID.

        Raises
        ------
        InputError
            NO_CT if the folder holds no image with a position in the patient; NO_REFERENCE where it holds several
            series and none is the wanted one; a geometry reason where the slices form no regular volume.
        """
        groups = self._groups
        if not groups:
            raise InputError(Reason.NO_CT, "the folder of the source holds no CT, MR or PET image")
        chosen = series_instance_uid if series_instance_uid in groups else self._only_one(frozenset(referenced))
        with quiet():
            return _sorted(_one_per_position(list(_planes(groups[chosen])), frozenset(referenced)))

    def _only_one(self, referenced: frozenset[str]) -> str:
        """The only series of the folder, or the only one with images that an object without a series refers to."""
        groups = self._groups
        if len(groups) == 1:
            return next(iter(groups))
        found = [
            uid
            for uid, images in groups.items()
            if any(str(header.get("SOPInstanceUID", "")) in referenced for _, header in images)
        ]
        if len(found) != 1:
            message = f"the folder holds {len(groups)} series, but not the one that is referred to"
            raise InputError(Reason.NO_REFERENCE, message)
        return found[0]

    def images_at(self, series: SortedSeries) -> tuple[tuple[ImageReference, ...], ...]:
        """Images or frames of a series at the position of each of its slices: several for echoes or time points."""
        normal = np.array(slice_normal(series.row_cosines, series.column_cosines))
        heights = np.array([item.distance for item in series.slices])
        found: list[list[ImageReference]] = [[] for _ in series.slices]
        with quiet():
            for plane in _planes(self._groups[series.series_instance_uid]):
                k = int(np.abs(heights - float(normal @ np.array(plane.position))).argmin())
                kind = str(plane.header.get("SOPClassUID", ""))
                found[k].append(ImageReference(sop_class_uid=kind, sop_instance_uid=_sop(plane), frame=plane.frame))
        return tuple(map(tuple, found))


def series_of_folder(folder: Path, series_instance_uid: str = "") -> SortedSeries:
    """Read the headers of a folder's series and sort the slices of one, as :meth:`SourceFolder.find_series`.

    Parameters
    ----------
    folder : Path
        Searched with its sub-folders.
    series_instance_uid : str
        The series that is wanted.

    Returns
    -------
    SortedSeries

    Raises
    ------
    InputError
        As :meth:`SourceFolder.find_series`.
    """
    return SourceFolder(folder).find_series(series_instance_uid)


def _is_source(header: Dataset) -> bool:
    derived = {PARAMETRIC_MAP, *SEGMENTATION_CLASSES}
    if header.get("Modality") not in _SOURCES or str(header.get("SOPClassUID", "")) in derived:
        return False
    return "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header


def _planes(items: list[tuple[Path, Dataset]]) -> Iterator[_Plane]:
    """Positions of all images and frames of a series."""
    for path, header in items:
        if "PerFrameFunctionalGroupsSequence" in header:
            for frame in read_frames(header):
                yield _Plane(
                    frame=frame.index + 1,
                    header=header,
                    path=path,
                    position=frame.position,
                    orientation=frame.orientation,
                    pixel_spacing=frame.pixel_spacing,
                )
            continue
        place, turn, spacing = (
            _numbers(header, k) for k in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        )
        if place is None or turn is None or spacing is None or (len(place), len(turn), len(spacing)) != (3, 6, 2):
            raise InputError(Reason.MISSING_GEOMETRY, Reason.MISSING_GEOMETRY.sentence)
        yield _Plane(
            header=header,
            path=path,
            position=(place[0], place[1], place[2]),
            orientation=turn,
            pixel_spacing=(spacing[0], spacing[1]),
        )


def _one_per_position(planes: list[_Plane], referenced: frozenset[str]) -> list[_Plane]:
    """Keep one image of those that share a position, one that is referred to if there is one."""
    first = planes[0].orientation
    if any(not np.allclose(p.orientation, first, atol=1e-4) for p in planes):
        return planes
    normal = np.array(slice_normal(first[:3], first[3:]))
    ordered = sorted(
        planes,
        key=lambda p: (round(float(normal @ np.array(p.position)), 3), _sop(p)),
    )
    kept: list[_Plane] = []
    for plane in ordered:
        if not kept or not np.allclose(plane.position, kept[-1].position, atol=_SAME_PLACE):
            kept.append(plane)
        elif _sop(plane) in referenced and _sop(kept[-1]) not in referenced:
            kept[-1] = plane
    return kept


def _sop(plane: _Plane) -> str:
    return str(plane.header.get("SOPInstanceUID", ""))


def _numbers(header: Dataset, keyword: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(v) for v in header[keyword].value)
    except (KeyError, TypeError, ValueError):
        return None


def _sorted(planes: list[_Plane]) -> SortedSeries:
    verdict = check_stack_geometry([_slice_header(n, plane) for n, plane in enumerate(planes)], GeometrySettings())
    reasons = [reason for reason in verdict.reasons if reason is not Reason.MISSING_FRAME_OF_REFERENCE]
    if reasons:
        raise InputError(reasons[0], reasons[0].sentence)
    first = planes[verdict.order[0]]
    turn = first.orientation
    row, column = (turn[0], turn[1], turn[2]), (turn[3], turn[4], turn[5])
    normal = np.array(slice_normal(row, column))
    slices = []
    for index in verdict.order:
        plane = planes[index]
        kind = str(plane.header.get("SOPClassUID", ""))
        slices.append(
            Slice(_sop(plane), kind, str(plane.path), plane.position, float(normal @ np.array(plane.position)))
        )
    return SortedSeries(
        str(first.header.get("StudyInstanceUID", "")),
        str(first.header.get("SeriesInstanceUID", "")),
        str(first.header.get("FrameOfReferenceUID", "")),
        tuple(slices),
        row,
        column,
        first.pixel_spacing,
        (slices[-1].distance - slices[0].distance) / max(len(slices) - 1, 1),
        int(first.header.Rows),
        int(first.header.Columns),
    )


def _slice_header(number: int, plane: _Plane) -> SliceHeader:
    """Geometry of a plane for the rules; what kind of image it is does not matter here."""

    def whole(keyword: str) -> int | None:
        value = plane.header.get(keyword)
        return int(value) if isinstance(value, int) else None

    return SliceHeader(
        f"{number}",
        position=plane.position,
        orientation=plane.orientation,
        pixel_spacing=plane.pixel_spacing,
        rows=whole("Rows"),
        columns=whole("Columns"),
        frame_of_reference_uid=str(plane.header.get("FrameOfReferenceUID", "")),
    )

"""Compare the planes of a model's object with those of its input: a mask on another grid is of another place."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RTDoseStorage, RTStructureSetStorage

from ctenrich.dicom.frames import read_frames
from ctenrich.errors import InputError
from ctenrich.gzip_files import check_nifti_gzip
from ctenrich.reasons import Reason

__all__ = ["InputPlanes", "check_grid", "check_nifti"]

_TOLERANCE = 0.05
"""Largest distance between points of planes that are the same, mm; it allows for rounded decimal strings."""
_OUTSIDE = 1.0
"""How far contours may leave an image, pixels: they follow the edges of pixels."""
_AT_ONCE = 256
Corners = NDArray[np.float64]
"""(plane, corner, coordinate): centres of the pixels at the corners, mm, LPS."""


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """A plane of pixels."""

    size: tuple[int, int]
    """(rows, columns)."""
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    """(between rows, between columns), mm."""
    sources: tuple[str, ...] = ()

    def corners(self) -> NDArray[np.float64]:
        """Centres of the pixels at its corners, (4, 3)."""
        rows, columns = self.size
        along = np.asarray(self.orientation[:3]) * self.spacing[1] * (columns - 1)
        down = np.asarray(self.orientation[3:]) * self.spacing[0] * (rows - 1)
        first = np.asarray(self.position)
        return np.stack([first, first + along, first + down, first + along + down])


@dataclass(frozen=True, kw_only=True)
class InputPlanes:
    """Planes of the input of a flow."""

    series: dict[str, list[_Plane]] = field(default_factory=lambda: defaultdict(list))
    """Series Instance UID -> planes."""
    instances: dict[str, list[_Plane]] = field(default_factory=lambda: defaultdict(list))
    """SOP Instance UID -> planes."""

    def add(self, data: Dataset) -> None:
        """Add the planes of an image."""
        if data.get("SOPClassUID") == RTDoseStorage:
            return
        try:
            planes = list(_planes(data))
        except (InputError, TypeError, ValueError, IndexError):  # an image without geometry
            return
        self.series[str(data.get("SeriesInstanceUID", ""))] += planes
        self.instances[str(data.get("SOPInstanceUID", ""))] += planes


def check_grid(data: Dataset, planes: InputPlanes) -> None:
    """Refuse an object that does not lie on the planes of its input.

    Images and segmentations have the size, orientation, pixel spacing and positions of a series of the input (rows and
    columns may be exchanged or reversed); those that name series of the input have those of one of them, and a frame
    lies on the plane of an image that it names as its source. Closed contours lie on planes of a series, in the image,
    and on the plane of the image that they name. Doses have grids of their own, reports and points none.

    Parameters
    ----------
    data : Dataset
        The object.
    planes : InputPlanes
        Of the input.

    Raises
    ------
    InputError
        FOREIGN_OBJECT, with the difference; MISSING_GEOMETRY for a frame without position.
    """
    named = set(_referenced_series(data)) & planes.series.keys()
    chosen = [found for uid, found in planes.series.items() if found and (not named or uid in named)]
    if not chosen:
        return
    try:
        if data.get("SOPClassUID") == RTStructureSetStorage:
            _check_contours(data, chosen, planes.instances)
        elif data.get("SOPClassUID") != RTDoseStorage and "FrameOfReferenceUID" in data:
            _check_planes(list(_planes(data)), chosen, planes.instances)
    except (TypeError, ValueError, IndexError) as error:
        message = "an object of a model states its geometry in a way that cannot be read"
        raise InputError(Reason.MISSING_GEOMETRY, message) from error


def check_nifti(path: Path, planes: InputPlanes) -> None:
    """Refuse a NIfTI file that has not the size and affine of a series of the input.

    Axes may be exchanged or reversed: the numbers of voxels, and the centres of the voxels at the eight corners, are
    those of a series. The affine (RAS, mm) is the file's sform, else its qform.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    planes : InputPlanes
        Of the input.

    Raises
    ------
    InputError
        FOREIGN_OBJECT, with the difference; DECODE_ERROR for a file that cannot be read.
    """
    import nibabel  # imported late: it takes long to import, and few flows ask for this check

    try:
        image: Any = nibabel.load(path)
        shape = tuple(int(number) for number in (*image.shape[:3], 1, 1)[:3])
        affine = np.asarray(image.affine, float)
        proxy = image.dataobj
        check_nifti_gzip(path, int(proxy.offset), math.prod(image.shape), proxy.dtype.itemsize)
    except Exception as error:  # nibabel raises whatever zlib, numpy and itself raise
        raise InputError(Reason.DECODE_ERROR, f"a NIfTI file of a model ({type(error).__name__})") from error
    known = {uid: _volume(found) for uid, found in planes.series.items() if found}
    fitting = [corners for size, corners in known.values() if sorted(size) == sorted(shape)]
    if not fitting:
        sizes = ", ".join(sorted({" x ".join(map(str, sorted(size))) for size, _ in known.values()})) or "none"
        raise _foreign(f"has {' x '.join(map(str, sorted(shape)))} voxels, its input {sizes}", "a NIfTI file")
    ends = np.array(list(product(*((0, number - 1) for number in shape))), float)
    corners = (ends @ affine[:3, :3].T + affine[:3, 3]) * (-1, -1, 1)  # RAS to LPS
    distance = min(_apart(corners, one) for one in fitting)
    if not distance <= _TOLERANCE:  # not a number is refused too
        raise _foreign(f"is not on the grid of its input: a corner is {distance:.3g} mm away", "a NIfTI file")


def _volume(planes: Sequence[_Plane]) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Size of a series as a volume, and the eight corners (8, 3) of its first and last plane."""
    turn = np.asarray(planes[0].orientation)
    along = [float(np.dot(np.cross(turn[:3], turn[3:]), one.position)) for one in planes]
    ends = planes[int(np.argmin(along))], planes[int(np.argmax(along))]
    return (*planes[0].size, len(planes)), np.concatenate([one.corners() for one in ends])


def _apart(found: NDArray[np.float64], known: NDArray[np.float64]) -> float:
    """Largest distance of a corner to the nearest one of the other volume, both ways, mm."""
    apart = np.linalg.norm(found[:, np.newaxis] - known[np.newaxis], axis=-1)
    return float(np.maximum(apart.min(axis=0).max(), apart.min(axis=1).max()))


def _planes(data: Dataset) -> Iterator[_Plane]:
    """Planes of a single-frame or multi-frame object; none if it has no pixels or no position."""
    size = (int(data.get("Rows") or 0), int(data.get("Columns") or 0))
    if not all(size):
        return
    if "PerFrameFunctionalGroupsSequence" in data:
        for one in read_frames(data):
            yield _Plane(
                size=size,
                position=one.position,
                orientation=one.orientation,
                spacing=one.pixel_spacing,
                sources=one.sources,
            )
    elif data.get("ImagePositionPatient") and data.get("ImageOrientationPatient") and data.get("PixelSpacing"):
        place, turn = map(float, data.ImagePositionPatient), map(float, data.ImageOrientationPatient)
        between = tuple(map(float, data.PixelSpacing))
        yield _Plane(size=size, position=tuple(place), orientation=tuple(turn), spacing=(between[0], between[1]))


def _referenced_series(data: Dataset) -> Iterator[str]:
    """Series that an object names as those that it is about."""
    for item in data.get("ReferencedSeriesSequence") or ():
        yield str(item.get("SeriesInstanceUID", ""))
    for frame in data.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for item in study.get("RTReferencedSeriesSequence") or ():
                yield str(item.get("SeriesInstanceUID", ""))


# ---------------------------------------------------------------- images and segmentations


def _check_planes(
    found: Sequence[_Plane], series: Sequence[Sequence[_Plane]], instances: Mapping[str, Sequence[_Plane]]
) -> None:
    if not found:
        return
    sizes = {tuple(sorted(one.size)) for one in found}
    fitting = [[plane for plane in one if {tuple(sorted(plane.size))} == sizes] for one in series]
    if not any(fitting):
        rows, columns = found[0].size
        known = ", ".join(sorted({f"{one.size[0]} x {one.size[1]}" for planes in series for one in planes}))
        raise _foreign(f"has {rows} x {columns} pixels, its input {known}")
    corners = np.unique(np.round([one.corners() for one in found], 4), axis=0)
    distance = min(_farthest(corners, np.stack([one.corners() for one in planes])) for planes in fitting if planes)
    if not distance <= _TOLERANCE:  # not a number is refused too
        raise _foreign(f"is not on the grid of its input: corners of a plane are {distance:.3g} mm away")
    for number, one in enumerate(found, 1):
        sources = [plane.corners() for uid in one.sources for plane in instances.get(uid, ())]
        if sources and not _farthest(one.corners()[np.newaxis], np.stack(sources)) <= _TOLERANCE:
            raise _foreign(f"has frame {number} on another plane than the image that it names as its source")


def _farthest(found: Corners, known: Corners) -> float:
    """Largest distance, over the planes that were found, to the nearest plane that is known."""
    worst = 0.0
    for start in range(0, len(found), _AT_ONCE):
        part = found[start : start + _AT_ONCE]
        apart = np.linalg.norm(part[:, np.newaxis, :, np.newaxis] - known[np.newaxis, :, np.newaxis], axis=-1)
        worst = max(worst, float(apart.min(axis=3).max(axis=2).min(axis=1).max()))  # a corner may have another place
    return worst


# ---------------------------------------------------------------- structure sets


def _check_contours(
    data: Dataset, series: Sequence[Sequence[_Plane]], instances: Mapping[str, Sequence[_Plane]]
) -> None:
    contours = [
        (item, np.asarray(item.ContourData, float).reshape(-1, 3))
        for roi in data.get("ROIContourSequence") or ()
        for item in roi.get("ContourSequence") or ()
        if item.get("ContourGeometricType") in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR") and item.get("ContourData")
    ]
    if not contours:
        return
    known = [_PlaneArrays.of(planes) for planes in series]
    distance, outside = min(_distance(contours, planes) for planes in known)
    if not distance <= _TOLERANCE:
        raise _foreign(f"has contours {distance:.3g} mm away from the planes of its input")
    if not outside <= _OUTSIDE:
        raise _foreign(f"has contours up to {outside:.0f} pixels outside the images of its input")
    for item, points in contours:
        uids = [str(one.get("ReferencedSOPInstanceUID", "")) for one in item.get("ContourImageSequence") or ()]
        planes = [plane for uid in uids for plane in instances.get(uid, ())]
        if planes and not _distance([(item, points)], _PlaneArrays.of(planes))[0] <= _TOLERANCE:
            raise _foreign("has a contour on another plane than the image that it names")


@dataclass(frozen=True, kw_only=True)
class _PlaneArrays:
    """Planes as arrays, one row per plane."""

    first: NDArray[np.float64]
    along: NDArray[np.float64]
    """Directions of increasing column."""
    down: NDArray[np.float64]
    normal: NDArray[np.float64]
    spacing: NDArray[np.float64]
    size: NDArray[np.float64]

    @classmethod
    def of(cls, planes: Sequence[_Plane]) -> _PlaneArrays:
        turns = np.array([one.orientation for one in planes])
        return cls(
            first=np.array([one.position for one in planes]),
            along=turns[:, :3],
            down=turns[:, 3:],
            normal=np.cross(turns[:, :3], turns[:, 3:]),
            spacing=np.array([one.spacing for one in planes]),
            size=np.array([one.size for one in planes], float),
        )


def _distance(contours: Sequence[tuple[Dataset, NDArray[np.float64]]], planes: _PlaneArrays) -> tuple[float, float]:
    """How far contours are from the nearest plane (mm), and outside its image (pixels): the largest of all."""
    worst, outside = 0.0, 0.0
    for _, points in contours:
        away = np.abs(np.einsum("pj,npj->pn", planes.normal, points[:, np.newaxis] - planes.first)).max(axis=1)
        nearest = int(away.argmin())
        offsets = points - planes.first[nearest]
        columns = offsets @ planes.along[nearest] / planes.spacing[nearest, 1]
        rows = offsets @ planes.down[nearest] / planes.spacing[nearest, 0]
        last = planes.size[nearest] - 1
        beyond = max(-columns.min(), columns.max() - last[1], -rows.min(), rows.max() - last[0], 0.0)
        worst, outside = max(worst, float(away[nearest])), max(outside, float(beyond))
    return worst, outside


def _foreign(message: str, what: str = "an object") -> InputError:
    return InputError(Reason.FOREIGN_OBJECT, f"{what} of a model {message}")

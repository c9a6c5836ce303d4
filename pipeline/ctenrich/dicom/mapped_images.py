"""A Real World Value Mapping object and the images that it maps -> real world values on the grid of the images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.dicom.frames import frame_pixels
from ctenrich.dicom.objects import damage_as_input_error, quiet, whole
from ctenrich.dicom.parametric_map import DecodedMap, ValueMapping, padding_range, value_mapping
from ctenrich.dicom.seg import grid_of_series
from ctenrich.dicom.series import SourceFolder
from ctenrich.dicom.sop_classes import REAL_WORLD_VALUE_MAPPING
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity, SortedSeries
from ctenrich.settings import SegSettings

__all__ = ["read_mapped_images"]


@dataclass(frozen=True, kw_only=True)
class _Mapped:
    """What a mapping object states."""

    dataset: Dataset
    source_series: str
    images: dict[tuple[str, int | None], ValueMapping]
    """(SOP Instance UID, number of the frame; None: all frames) -> mapping."""
    further: frozenset[str]
    """Labels of mappings beside the first one of an image."""

    @property
    def uids(self) -> frozenset[str]:
        return frozenset(uid for uid, _ in self.images)

    def of(self, uid: str, frame: int | None) -> ValueMapping | None:
        return self.images.get((uid, frame)) or self.images.get((uid, None))


@dataclass
class _Slices:
    """Pixels of the images of a series: one file is kept, for the frames of a multi-frame image."""

    series: SortedSeries
    frames: tuple[int | None, ...]
    """Number of the frame of each slice, from 1; None for a single-frame image."""
    _path: str = ""
    _read: tuple[list[NDArray[Any]], tuple[float, float] | None] = field(default_factory=lambda: ([], None))

    def __iter__(self) -> Iterator[tuple[str, int | None, NDArray[Any], tuple[float, float] | None]]:
        """SOP Instance UID, frame, stored values [j, i] and range of padding of each slice, by position."""
        for one, frame in zip(self.series.slices, self.frames, strict=True):
            if one.path != self._path:
                dataset = whole(Path(one.path))
                self._read = list(frame_pixels(dataset)), padding_range(dataset, "PixelData")
                self._path = one.path
            pixels, padding = self._read
            yield one.sop_instance_uid, frame, pixels[(frame or 1) - 1], padding


def read_mapped_images(path: Path, sources: SourceFolder, *, max_voxels: int = SegSettings().max_voxels) -> DecodedMap:
    """Apply a Real World Value Mapping object (PS3.3 A.46, C.7.6.16.2.11) to the images that it refers to.

    The mapping is applied to stored values, instead of the rescale of the images. It is the first one that the object
    states for an image.

    Parameters
    ----------
    path : Path
        The object.
    sources : SourceFolder
        Folder with the images.
    max_voxels : int
        Voxels that the series may have.

    Returns
    -------
    DecodedMap
        On the grid of the series; NaN for padding, for values outside of a mapping's range, and on slices that no
        mapping is for. ``issues`` lists further mappings, missing images and such slices.

    Raises
    ------
    InputError
        NOT_DICOM, TRUNCATED, DECODE_ERROR; BAD_DESCRIPTION where it maps no image, or images have different quantities
        or units; NO_CT, NO_REFERENCE where the folder has not the images; DUPLICATE_POSITION where frames of a
        multi-frame image share a position; a geometry reason of the series.
    UnsafeInputError
        DECOMPRESSION_BOMB if the series is larger than `max_voxels`.
    """
    with quiet():
        mapped = _read_object(path)
        series = sources.find_series(mapped.source_series, referenced=mapped.uids)
        if math.prod(series.shape) > max_voxels:
            size = " x ".join(map(str, series.shape))
            hint = "--max-voxels, or the setting seg.max_voxels, allows a larger one"
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"the images are a grid of {size} voxels", hint)
        with damage_as_input_error("image"):
            return _decode(mapped, _Slices(series, _frames(sources, series)))


def _read_object(path: Path) -> _Mapped:
    dataset = whole(path)
    with damage_as_input_error("real world value mapping"):
        if str(dataset.get("SOPClassUID")) != REAL_WORLD_VALUE_MAPPING:
            raise InputError(Reason.NOT_DICOM, "the file is not a DICOM Real World Value Mapping")
        images: dict[tuple[str, int | None], ValueMapping] = {}
        further: set[str] = set()
        for item in dataset.get("ReferencedImageRealWorldValueMappingSequence") or ():
            mappings = [value_mapping(one, "PixelData") for one in item.get("RealWorldValueMappingSequence") or ()]
            further |= {one.label or "without a label" for one in mappings[1:]}
            for image in item.get("ReferencedImageSequence") or () if mappings else ():
                numbers = image.get("ReferencedFrameNumber")
                frames = [None] if numbers is None else numbers if hasattr(numbers, "__iter__") else [numbers]
                for frame in frames:
                    key = str(image.get("ReferencedSOPInstanceUID", "")), None if frame is None else int(frame)
                    images.setdefault(key, mappings[0])
        series = dataset.get("ReferencedSeriesSequence") or (Dataset(),)
        kinds = {(one.quantity, one.unit) for one in images.values()}
        if not images:
            raise InputError(Reason.BAD_DESCRIPTION, "the object maps no image")
        if len(kinds) > 1:
            raise InputError(Reason.BAD_DESCRIPTION, f"the images have {len(kinds)} different quantities or units")
        return _Mapped(
            dataset=dataset,
            source_series=str(series[0].get("SeriesInstanceUID", "")),
            images=images,
            further=frozenset(further),
        )


def _frames(sources: SourceFolder, series: SortedSeries) -> tuple[int | None, ...]:
    """Number of the frame at each slice of a series."""
    found = []
    for one, images in zip(series.slices, sources.images_at(series), strict=True):
        own = [image.frame for image in images if image.sop_instance_uid == one.sop_instance_uid]
        if len(own) != 1:
            message = f"{len(own)} frames of an image have one position: they are several volumes"
            raise InputError(Reason.DUPLICATE_POSITION, message)
        found.append(own[0])
    return tuple(found)


def _decode(mapped: _Mapped, slices: _Slices) -> DecodedMap:
    series = slices.series
    subject = str(mapped.dataset.get("SOPInstanceUID", ""))
    values = np.full(series.shape, np.nan)
    unmapped, stored_type = 0, ""
    for k, (uid, frame, stored, padding) in enumerate(slices):
        mapping = mapped.of(uid, frame)
        stored_type = stored_type or stored.dtype.name
        if mapping is None:
            unmapped += 1
            continue
        values[k] = mapping.values(stored)
        if padding is not None:
            values[k][(stored >= padding[0]) & (stored <= padding[1])] = np.nan
    if unmapped == len(series.slices):
        raise InputError(Reason.NO_REFERENCE, "the object maps other images than those of the folder")
    first = next(iter(mapped.images.values()))
    texts = {
        "MAP_UNMAPPED": f"{unmapped} of {len(series.slices)} slices have no mapping: NaN" if unmapped else "",
        "MAP_IMAGES": _missing(mapped, series),
        "MAP_MAPPINGS": f"further mappings ({', '.join(sorted(mapped.further))}): the first one is applied"
        if mapped.further
        else "",
        "MAP_UNIT": "" if first.unit is not None else "the mapping states no unit",
    }
    return DecodedMap(
        sop_instance_uid=subject,
        series_instance_uid=str(mapped.dataset.get("SeriesInstanceUID", "")),
        study_instance_uid=str(mapped.dataset.get("StudyInstanceUID", "")),
        frame_of_reference_uid=series.frame_of_reference_uid,
        source_series_uid=series.series_instance_uid,
        series_description=str(mapped.dataset.get("SeriesDescription", "")),
        grid=grid_of_series(series),
        values=values,
        stored=stored_type,
        quantity=first.quantity,
        unit=first.unit,
        label=first.label,
        referenced=tuple(sorted(mapped.uids)),
        issues=tuple(
            Issue(rule, Severity.WARNING, subject, text, "ctenrich decode", __version__)
            for rule, text in texts.items()
            if text
        ),
    )


def _missing(mapped: _Mapped, series: SortedSeries) -> str:
    lost = mapped.uids - set(series.sop_instance_uids)
    return f"{len(lost)} of {len(mapped.uids)} images that are mapped are not in the folder" if lost else ""

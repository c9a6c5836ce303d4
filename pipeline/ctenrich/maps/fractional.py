"""Build a FRACTIONAL segmentation (PS3.3 A.51) of fractions on the grid of their source, one segment at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.codes.mappings import SegmentCode
from ctenrich.dicom.sop_classes import SEGMENTATION
from ctenrich.encode.context import MANUFACTURER, MODEL_NAME, code_item, contributing_equipment, set_dates
from ctenrich.errors import InputError
from ctenrich.maps.frames import (
    common_modules,
    dimension,
    item_of,
    plane_groups,
    referenced_series,
    shared_planes,
)
from ctenrich.maps.source import MapSource
from ctenrich.maps.values import StoredValues
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo
from ctenrich.settings import EncodeSettings
from ctenrich.uids import derive_uid

__all__ = [
    "FULL",
    "Fractions",
    "FractionsDescription",
    "fraction_planes",
    "fractional_segmentation",
    "planned_fractions",
]

FULL = 255
"""Stored value of the fraction 1; rounding changes a fraction by up to half a step, 0.002."""
_SERIES_NUMBER = 61


@dataclass(frozen=True, kw_only=True)
class Fractions:
    """One segment: its codes, and where its fractions come from."""

    number: int
    code: SegmentCode
    label: str
    """As the source of the fractions names them."""
    open: Callable[[], StoredValues]
    """Reads the fractions; called again for each pass, so that those of one segment are in memory at a time."""
    slices: tuple[int, ...] = ()
    """Slices with a fraction that does not round to 0."""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class FractionsDescription:
    """What the fractions are, and how they were made."""

    kind: Literal["PROBABILITY", "OCCUPANCY"]
    algorithm_type: str
    """AUTOMATIC, SEMIAUTOMATIC or MANUAL."""
    algorithm_name: str
    series_description: str = "Fractional segmentation"
    model: ModelInfo | None = None
    """Model of our own that made them, for the Contributing Equipment Sequence."""


def planned_fractions(parts: Sequence[Fractions], names: Sequence[str]) -> tuple[Fractions, ...]:
    """Read all fractions once: check their values, and find the slices that have a frame.

    Parameters
    ----------
    parts : sequence of Fractions
        The segments.
    names : sequence of str
        Of their files, for messages.

    Returns
    -------
    tuple of Fractions
        With slices and hashes.

    Raises
    ------
    InputError
        BAD_MAP for fractions that are not finite or not within 0 to 1; EMPTY_SEGMENTATION if all round to 0.
    """
    found = []
    for part, name in zip(parts, names, strict=True):
        values = part.open()
        low, high = values.limits(name)
        if low < 0 or high > 1:
            message = f"{name} has values from {low:g} to {high:g}: fractions are 0 to 1"
            raise InputError(Reason.BAD_MAP, message, "divide per cent by 100, or counts by their largest value")
        digest, slices = hashlib.sha256(), []
        for k, plane in enumerate(_planes(values)):
            digest.update(plane.data)
            if plane.any():
                slices.append(k)
        found.append(
            Fractions(
                number=part.number,
                code=part.code,
                label=part.label,
                open=part.open,
                slices=tuple(slices),
                sha256=digest.hexdigest(),
            )
        )
        del values
    if not any(part.slices for part in found):
        raise InputError(Reason.EMPTY_SEGMENTATION, f"all fractions are below {0.5 / FULL:.2g}: no SEG is written")
    return tuple(found)


def fraction_planes(parts: Sequence[Fractions]) -> Iterator[NDArray[np.uint8]]:
    """Pixels of the frames, in the order of the object: by segment, then by slice."""
    for part in parts:
        values = part.open() if part.slices else None
        for k in part.slices:
            assert values is not None
            yield _stored(values, k)


def _planes(values: StoredValues) -> Iterator[NDArray[np.uint8]]:
    return (_stored(values, k) for k in range(values.array.shape[0]))


def _stored(values: StoredValues, k: int) -> NDArray[np.uint8]:
    real = values.plane(k).astype(np.float64) * values.slope + values.intercept
    return np.rint(real * FULL).astype(np.uint8)


def fractional_segmentation(
    parts: Sequence[Fractions], source: MapSource, description: FractionsDescription, settings: EncodeSettings
) -> Dataset:
    """Build the object without its pixels.

    Parameters
    ----------
    parts : sequence of Fractions
        From :func:`planned_fractions`, numbered from 1.
    source : MapSource
        Every frame refers to the images or frames of its slice.
    description : FractionsDescription
        Kind of the fractions and algorithm.
    settings : EncodeSettings
        Dates.

    Returns
    -------
    Dataset
    """
    series = source.series
    slices = hashlib.sha256("\n".join(series.sop_instance_uids).encode()).hexdigest()
    stated = repr([(p.number, p.code.name, p.label, p.sha256) for p in parts])
    dates = repr((settings.content_date, settings.content_time))
    key = ("fractional", __version__, series.series_instance_uid, slices, stated, repr(description), dates)
    out = Dataset()
    common_modules(out, source, key)
    out.SOPClassUID, out.Modality, out.SeriesNumber = SEGMENTATION, "SEG", _SERIES_NUMBER
    out.SeriesDescription = description.series_description[:64]
    out.ImageType = ["DERIVED", "PRIMARY"]
    out.Manufacturer, out.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    out.SoftwareVersions = out.DeviceSerialNumber = __version__
    out.ContributingEquipmentSequence = contributing_equipment(description.model)
    out.ContentLabel, out.ContentDescription = "FRACTIONS", f"Fractions of segments: {description.kind.lower()}"
    out.SegmentationType, out.SegmentationFractionalType = "FRACTIONAL", description.kind
    out.MaximumFractionalValue = FULL
    del out.DimensionOrganizationType  # several segments have frames at one position
    set_dates(out, settings)
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 8, 8, 7, 0
    out.SegmentSequence = [_segment(part, description, key) for part in parts]
    out.DimensionIndexSequence = [
        dimension(out, "ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment Number"),
        dimension(out, "ImagePositionPatient", "PlanePositionSequence", "Image Position Patient"),
    ]
    out.ReferencedSeriesSequence = referenced_series(source)
    out.SharedFunctionalGroupsSequence = [shared_planes(series)]
    frames = [_frame(part.number, k, source) for part in parts for k in part.slices]
    out.NumberOfFrames = len(frames)
    out.PerFrameFunctionalGroupsSequence = frames
    return out


def _frame(number: int, k: int, source: MapSource) -> Dataset:
    groups = plane_groups(source, k, (number, k + 1), codes.DCM.SegmentationImageDerivation)
    groups.SegmentIdentificationSequence = [item_of(ReferencedSegmentNumber=number)]
    return groups


def _segment(part: Fractions, description: FractionsDescription, key: Sequence[str]) -> Dataset:
    from highdicom.color import CIELabColor  # takes long to import

    code = part.code
    kind: Any = code_item(code.type)
    if code.laterality:
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(code.laterality)]
    item = item_of(
        SegmentNumber=part.number,
        SegmentLabel=code.name[:64],
        SegmentDescription=part.label[:1024],
        SegmentedPropertyCategoryCodeSequence=[code_item(code.category)],
        SegmentedPropertyTypeCodeSequence=[kind],
        SegmentAlgorithmType=description.algorithm_type,
        TrackingID=f"Measurements group {part.number}",
        TrackingUID=derive_uid(*key, "tracking", str(part.number)),
        RecommendedDisplayCIELabValue=list(CIELabColor.from_rgb(*code.colour).value),
    )
    if description.algorithm_type != "MANUAL":
        item.SegmentAlgorithmName = description.algorithm_name[:64]
    if code.region:
        region: Any = code_item(code.region)
        if code.region_modifier:
            region.AnatomicRegionModifierSequence = [code_item(code.region_modifier)]
        item.AnatomicRegionSequence = [region]
    return item

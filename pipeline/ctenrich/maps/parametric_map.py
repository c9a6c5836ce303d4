"""Build a DICOM Parametric Map (PS3.3 A.75) of values on the grid of its source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.codes.mappings import MapQuantity, SegmentCode, load_concepts
from ctenrich.dicom.sop_classes import PARAMETRIC_MAP
from ctenrich.encode.context import (
    MANUFACTURER,
    MODEL_NAME,
    code_item,
    coding_schemes,
    contributing_equipment,
    set_dates,
)
from ctenrich.maps.frames import (
    PIXELS,
    common_modules,
    decimals,
    dimension,
    item_of,
    plane_groups,
    referenced_series,
    shared_planes,
)
from ctenrich.maps.source import MapSource
from ctenrich.maps.values import StoredValues
from ctenrich.records import ModelInfo
from ctenrich.settings import EncodeSettings

__all__ = ["MapDescription", "parametric_map"]

_SERIES_NUMBER = 60
_IMAGE_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]
_PADDING = {
    "PixelData": "PixelPadding",
    "FloatPixelData": "FloatPixelPadding",
    "DoubleFloatPixelData": "DoubleFloatPixelPadding",
}


@dataclass(frozen=True, kw_only=True)
class MapDescription:
    """What the values of a map are."""

    quantity: MapQuantity
    series_description: str
    made_by: str = ""
    """Program that made the values; empty if it is not stated."""
    model: ModelInfo | None = None
    """Model of our own that made them, for the Contributing Equipment Sequence."""
    region: SegmentCode | None = None
    """Structure that the map is of; None: the body part is not stated more closely than as an anatomical structure."""


def parametric_map(
    values: StoredValues,
    limits: tuple[float, float],
    source: MapSource,
    description: MapDescription,
    settings: EncodeSettings,
) -> Dataset:
    """Build the object without its pixels.

    Parameters
    ----------
    values : StoredValues
        On the grid of the source.
    limits : (float, float)
        Smallest and largest real world value.
    source : MapSource
        Every frame refers to the images or frames of its slice.
    description : MapDescription
        Quantity, unit and names.
    settings : EncodeSettings
        Dates.

    Returns
    -------
    Dataset

    Raises
    ------
    EncodingError
        ENCODING if date or time is not a valid DICOM value.
    """
    series = source.series
    slices = hashlib.sha256("\n".join(series.sop_instance_uids).encode()).hexdigest()
    quantity = description.quantity
    region = description.region.name if description.region else ""
    made_by = description.made_by if description.model is None else repr(description.model)
    stated = repr((quantity.quantity, quantity.unit, description.series_description, made_by, region))
    dates = repr((settings.content_date, settings.content_time))
    key = ("parametric map", __version__, series.series_instance_uid, slices, values.sha256(), stated, dates)
    out = Dataset()
    common_modules(out, source, key)
    out.SOPClassUID = PARAMETRIC_MAP
    out.Modality, out.SeriesNumber = source.modality, _SERIES_NUMBER
    out.SeriesDescription = description.series_description[:64]
    out.ImageType = _IMAGE_TYPE
    out.Manufacturer, out.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    out.SoftwareVersions = out.DeviceSerialNumber = __version__
    out.ContributingEquipmentSequence = _equipment(description)
    out.ContentLabel, out.ContentDescription = "MAP", quantity.quantity.meaning[:64]
    out.RecognizableVisualFeatures = "NO"
    out.AcquisitionContextSequence = []
    out.PresentationLUTShape = "IDENTITY"
    set_dates(out, settings)
    schemes = coding_schemes({quantity.quantity.scheme})
    if schemes:
        out.CodingSchemeIdentificationSequence = schemes
    _set_pixels(out, values, len(series.slices))
    out.DimensionIndexSequence = [dimension(out, "ImagePositionPatient", "PlanePositionSequence", "Position")]
    out.ReferencedSeriesSequence = referenced_series(source)
    shared = shared_planes(series)
    shared.FrameAnatomySequence = [_anatomy(description.region)]
    shared.FrameVOILUTSequence = [_window(values, limits)]
    shared.ParametricMapFrameTypeSequence = [item_of(FrameType=_IMAGE_TYPE)]
    identity = item_of(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")
    shared.PixelValueTransformationSequence = [identity]
    shared.RealWorldValueMappingSequence = [_mapping(values, quantity)]
    out.SharedFunctionalGroupsSequence = [shared]
    derivation = codes.DCM.UnspecifiedMethodOfCalculation
    out.PerFrameFunctionalGroupsSequence = [
        plane_groups(source, k, (k + 1,), derivation) for k in range(len(series.slices))
    ]
    return out


def _anatomy(region: SegmentCode | None) -> Dataset:
    """Build the item of the Frame Anatomy Sequence (PS3.3 C.7.6.16.2.8), without which dcmqi cannot read a map."""
    code = region.finding_site if region else load_concepts()["anatomical_structure"].code
    side = region.finding_site_laterality if region else None
    laterality = side.meaning[:1].upper() if side and side.meaning[:1].upper() in ("L", "R") else "U"
    return item_of(AnatomicRegionSequence=[code_item(code)], FrameLaterality=laterality)


def _equipment(description: MapDescription) -> list[Dataset]:
    item = contributing_equipment(description.model)[0]
    if description.made_by:
        item.ContributionDescription = f"{item.ContributionDescription} Values by {description.made_by}."[:1024]
    return [item]


def _set_pixels(out: Dataset, values: StoredValues, frames: int) -> None:
    keyword = PIXELS[values.kind.name][0]
    out.NumberOfFrames, out.BitsAllocated = frames, 8 * values.kind.itemsize
    if keyword == "PixelData":
        out.BitsStored, out.HighBit = out.BitsAllocated, out.BitsAllocated - 1
        out.PixelRepresentation = int(values.kind == np.int16)
    if values.padding is not None:
        representation = {"uint16": "US", "int16": "SS", "float32": "FL", "float64": "FD"}[values.kind.name]
        number = values.kind.type(values.padding).item()
        for name in ("Value", "RangeLimit"):  # a range of one value: dciodvfy asks for the limit
            out.add_new(f"{_PADDING[keyword]}{name}", representation, number)


def _window(values: StoredValues, limits: tuple[float, float]) -> Dataset:
    """Build the window that shows all values; it is of pixels, because the transformation before it is the identity."""
    low, high = sorted((limit - values.intercept) / (values.slope or 1) for limit in limits)
    centre, width = decimals(((low + high) / 2, max(high - low, 1e-6 if values.kind.kind == "f" else 1)))
    return item_of(WindowCenter=centre, WindowWidth=width, VOILUTFunction="LINEAR_EXACT")


def _mapping(values: StoredValues, quantity: MapQuantity) -> Dataset:
    """Build the item of the Real World Value Mapping Sequence (PS3.3 C.7.6.16.2.11)."""
    item = Dataset()
    info: Any = np.finfo(values.kind) if values.kind.kind == "f" else np.iinfo(values.kind)
    if values.kind.kind == "f":
        item.DoubleFloatRealWorldValueFirstValueMapped = float(info.min)
        item.DoubleFloatRealWorldValueLastValueMapped = float(info.max)
    else:
        representation = "SS" if values.kind == np.int16 else "US"
        item.add_new("RealWorldValueFirstValueMapped", representation, int(info.min))
        item.add_new("RealWorldValueLastValueMapped", representation, int(info.max))
    item.RealWorldValueSlope, item.RealWorldValueIntercept = values.slope, values.intercept
    item.LUTExplanation = quantity.quantity.meaning[:64]
    item.LUTLabel = quantity.unit.value[:16]
    item.MeasurementUnitsCodeSequence = [code_item(quantity.unit)]
    name = item_of(ValueType="CODE", ConceptNameCodeSequence=[code_item(codes.SCT.Quantity)])
    name.ConceptCodeSequence = [code_item(quantity.quantity)]
    item.QuantityDefinitionSequence = [name]
    return item

"""Functional groups of an object whose frames are slices of its source, and writing its pixels frame by frame."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from ctenrich import __version__
from ctenrich.dicom.series import ImageReference
from ctenrich.dicom.writer import explicit_parts
from ctenrich.encode.context import code_item, set_character_set
from ctenrich.encode.files import file_meta_bytes
from ctenrich.encode.memory import LARGEST_PIXEL_DATA
from ctenrich.errors import EncodingError
from ctenrich.maps.source import MapSource
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries
from ctenrich.uids import derive_uid
from ctenrich.workspace import atomic_path

__all__ = [
    "PIXELS",
    "common_modules",
    "decimals",
    "dimension",
    "item_of",
    "plane_groups",
    "referenced_series",
    "shared_planes",
    "write_frames",
]

PIXELS = {
    "uint8": ("PixelData", 0x7FE00010, b"OB"),
    "uint16": ("PixelData", 0x7FE00010, b"OW"),
    "int16": ("PixelData", 0x7FE00010, b"OW"),
    "float32": ("FloatPixelData", 0x7FE00008, b"OF"),
    "float64": ("DoubleFloatPixelData", 0x7FE00009, b"OD"),
}
"""Type of the pixels -> keyword, tag and value representation of the element that holds them."""


def item_of(**values: object) -> Dataset:
    """Build an item of a sequence from keywords and values."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def decimals(values: Iterable[float]) -> list[DSfloat]:
    """Numbers of at most 16 characters (VR DS)."""
    return [DSfloat(value, auto_format=True) for value in values]


def common_modules(out: Dataset, source: MapSource, key: Sequence[str]) -> None:
    """Set what all objects on the frames of a source share: patient, study, frame of reference, dimensions, image size.

    Parameters
    ----------
    out : Dataset
        Changed in place.
    source : MapSource
        The source.
    key : sequence of str
        Of the object; its UIDs are derived from it.
    """
    series = source.series
    out.update(source.patient_and_study)
    out.SOPInstanceUID, out.SeriesInstanceUID = derive_uid(*key, "instance"), derive_uid(*key, "series")
    out.StudyInstanceUID, out.FrameOfReferenceUID = series.study_instance_uid, series.frame_of_reference_uid
    out.PositionReferenceIndicator = ""
    organization = derive_uid(*key, "dimension organization")
    out.DimensionOrganizationSequence = [item_of(DimensionOrganizationUID=organization)]
    out.DimensionOrganizationType = "3D"
    out.Rows, out.Columns = series.rows, series.columns
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.BurnedInAnnotation, out.LossyImageCompression, out.ContentQualification = "NO", "00", "RESEARCH"
    out.ContentCreatorName = None
    out.InstanceNumber = 1


def dimension(out: Dataset, keyword: str, group: str, label: str) -> Dataset:
    """Item of the Dimension Index Sequence (PS3.3 C.7.6.17).

    Parameters
    ----------
    out : Dataset
        The object, with its dimension organization.
    keyword, group : str
        Keywords of the attribute and of its functional group.
    label : str
        Name of the dimension.
    """
    from pydicom.datadict import tag_for_keyword

    return item_of(
        DimensionOrganizationUID=out.DimensionOrganizationSequence[0].DimensionOrganizationUID,
        DimensionIndexPointer=tag_for_keyword(keyword),
        FunctionalGroupPointer=tag_for_keyword(group),
        DimensionDescriptionLabel=label,
    )


def shared_planes(series: SortedSeries) -> Dataset:
    """Build the shared functional groups of the geometry: pixel measures and orientation."""
    spacing = DSfloat(series.slice_spacing, auto_format=True)
    measures = item_of(
        PixelSpacing=decimals(series.pixel_spacing), SliceThickness=spacing, SpacingBetweenSlices=spacing
    )
    directions = decimals((*series.row_cosines, *series.column_cosines))
    return item_of(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[item_of(ImageOrientationPatient=directions)],
    )


def plane_groups(source: MapSource, k: int, index: Sequence[int], derivation: Any) -> Dataset:
    """Build the functional groups of a frame: its place, and the images or frames that it was derived from.

    Parameters
    ----------
    source : MapSource
        The source.
    k : int
        Slice.
    index : sequence of int
        Dimension Index Values, from 1.
    derivation : code
        What was done (CID 7203).
    """
    sources = []
    for reference in source.references[k]:
        item = _reference(reference)
        item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.SourceImageForImageProcessingOperation)]
        item.SpatialLocationsPreserved = "YES"
        sources.append(item)
    return item_of(
        FrameContentSequence=[item_of(DimensionIndexValues=list(index))],
        PlanePositionSequence=[item_of(ImagePositionPatient=decimals(source.series.slices[k].position))],
        DerivationImageSequence=[item_of(SourceImageSequence=sources, DerivationCodeSequence=[code_item(derivation)])],
    )


def _reference(image: ImageReference) -> Dataset:
    item = item_of(ReferencedSOPClassUID=image.sop_class_uid, ReferencedSOPInstanceUID=image.sop_instance_uid)
    if image.frame is not None:
        item.ReferencedFrameNumber = image.frame
    return item


def referenced_series(source: MapSource) -> list[Dataset]:
    """Build the Referenced Series Sequence (PS3.3 C.12.4.1): every image once."""
    classes = {r.sop_instance_uid: r.sop_class_uid for references in source.references for r in references}
    images = [item_of(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid) for uid, kind in classes.items()]
    return [item_of(SeriesInstanceUID=source.series.series_instance_uid, ReferencedInstanceSequence=images)]


def write_frames(dataset: Dataset, frames: Iterable[NDArray[Any]], kind: np.dtype[Any], path: Path) -> None:
    """Write an object in Explicit VR Little Endian; one frame at a time is in memory.

    Parameters
    ----------
    dataset : Dataset
        The object without its pixels.
    frames : iterable of array, [j, i]
        Pixels of its frames in turn.
    kind : dtype
        One of `PIXELS`.
    path : Path
        Written to a temporary name and renamed.

    Raises
    ------
    EncodingError
        ENCODING if the pixels take more bytes than DICOM can express.
    """
    plane = dataset.Rows * dataset.Columns * kind.itemsize
    size = int(dataset.NumberOfFrames) * plane
    if size + size % 2 > LARGEST_PIXEL_DATA:
        message = f"{dataset.NumberOfFrames} frames would need {size / 2**30:.3g} GiB of pixel data; DICOM's limit is 4"
        raise EncodingError(Reason.ENCODING, message, "store 32-bit instead of 64-bit floating point, or fewer frames")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derive_uid("implementation", "ctenrich", __version__))
    meta.ImplementationVersionName = f"CTENRICH_{__version__}"[:16]
    set_character_set(dataset)
    _, tag, representation = PIXELS[kind.name]
    little = kind.newbyteorder("<")
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        out.write(file_meta_bytes(meta))
        out.writelines(explicit_parts(dataset))
        out.write(struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, representation, size + size % 2))
        for frame in frames:
            out.write(np.ascontiguousarray(frame, little).data)
        out.write(b"\0" * (size % 2))

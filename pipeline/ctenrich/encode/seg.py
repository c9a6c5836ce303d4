"""Encode masks as a DICOM Segmentation (PS3.3 A.51) on the grid of the source, with highdicom."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.codes.mappings import Code, SegmentCode, codes_of, newer_codes
from ctenrich.dicom.sop_classes import CT_IMAGE
from ctenrich.encode.context import (
    MANUFACTURER,
    MODEL_NAME,
    ObjectIdentity,
    Source,
    code_item,
    content_description,
    contributing_equipment,
    identify,
    product_title,
    read_source,
    series_description,
    set_dates,
)
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.encode.memory import check_array, check_frames
from ctenrich.errors import EncodingError, InputError
from ctenrich.masks import crop_of
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObject,
    ModelInfo,
    ObjectKind,
    Segment,
    SegmentMasks,
    SortedSeries,
    Volume,
)
from ctenrich.settings import Settings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace, load_array

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

__all__ = ["SERIES_DESCRIPTION", "SERIES_NUMBER", "encode_seg", "tracking"]

SERIES_DESCRIPTION = "{title}_Segmentation"
"""Pattern of the published objects; ``title`` is the series title of the product's kind."""

SERIES_NUMBER = 42
MAXIMUM_FRACTION = 255
"""Stored value of probability 1 in a FRACTIONAL segmentation; rounding changes a probability by up to 0.002."""
SEG_TYPES = ("BINARY", "LABELMAP", "FRACTIONAL")


def encode_seg(
    masks: SegmentMasks,
    volume: Volume,
    series: SortedSeries,
    *,
    settings: Settings,
    workspace: Workspace,
) -> EncodedObject:
    """Write the SEG of a product.

    The Segment Sequence describes every segment that the segmenter can find, under its fixed number; absent ones have
    no frames. Empty frames are omitted. Each frame refers to its source slice.

    Parameters
    ----------
    masks : SegmentMasks
        On the grid of `series`, [k, j, i]; segment numbers 1 to n (PS3.3 C.8.20.2 requires that for BINARY).
    volume : Volume
        Its shape and frame of reference must be those of `series`.
    series : SortedSeries
        SOP Instance UID and position (mm, LPS) of each slice, orientation and spacing.
    settings : Settings
        ``settings.encode``: type of the SEG, dates, deflated copy; ``settings.run``: memory limit.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    EncodedObject
        Record of the written file.

    Raises
    ------
    InputError
        EMPTY_SEGMENTATION if no segment has a voxel.
    EncodingError
        ENCODING if grids differ, numbers have gaps, or the object would be larger than DICOM allows; OUT_OF_MEMORY if
        encoding would take more memory than a worker may use. Both are raised before large arrays are allocated.
    """
    _check_grids(masks, volume, series)
    check_frames(masks, settings)
    source = read_source(series, workspace)
    made_of = (masks.sha256, _model_hash(masks), *newer_codes(segment.name for segment in masks.segments))
    identity = identify("seg", series, masks.product, settings.encode, *made_of)
    dataset = _build_segmentation(masks, series, source, identity, settings, workspace)
    _set_reproducible_values(dataset, masks, series, identity, settings)
    uid, deflate = series.series_instance_uid, settings.encode.deflated_copy
    target = ObjectTarget(kind=ObjectKind.SEG, series_instance_uid=uid, product=masks.product)
    return write_object(dataset, target, workspace, source.issues, deflated_copy=deflate)


def tracking(identity_or_seg: str, number: int) -> tuple[str, str]:
    """Return tracking identifier and UID of a segment, which are the same in the SEG and in the SR that measures it.

    Parameters
    ----------
    identity_or_seg : str
        SOP Instance UID of the SEG.
    number : int
        Segment number.

    Returns
    -------
    tuple of str
        (identifier, UID).
    """
    return f"Measurements group {number}", derive_uid("tracking", identity_or_seg, str(number))


def segment_code(segment: Segment) -> SegmentCode:
    """Look up the codes of a segment.

    Raises
    ------
    EncodingError
        UNMAPPED_LABEL if mappings/segments.csv does not have the name.
    """
    code = codes_of(segment.name)
    if code is None:
        raise EncodingError(Reason.UNMAPPED_LABEL, f"mappings/segments.csv has no row {segment.name!r}")
    return code


def _model_hash(masks: SegmentMasks) -> str:
    return masks.model.sha256 if masks.model else masks.source_sop_instance_uid


def _check_grids(masks: SegmentMasks, volume: Volume, series: SortedSeries) -> None:
    if not masks.segments or all(segment.absent for segment in masks.segments):
        raise InputError(Reason.EMPTY_SEGMENTATION, "no segment has a voxel: no SEG is written")
    if not tuple(masks.shape) == tuple(series.shape) == tuple(volume.shape):
        message = (
            f"masks {tuple(masks.shape)}, volume {tuple(volume.shape)} and series {series.shape} have different grids"
        )
        raise EncodingError(Reason.ENCODING, message)
    if {masks.series_instance_uid, volume.series_instance_uid} != {series.series_instance_uid}:
        raise EncodingError(Reason.ENCODING, "masks, volume and series belong to different series")
    if volume.frame_of_reference_uid != series.frame_of_reference_uid:
        raise EncodingError(Reason.ENCODING, "volume and series are in different frames of reference")
    if not series.frame_of_reference_uid:
        raise EncodingError(Reason.ENCODING, "the source has no frame of reference UID, which its SEG must share")
    if len(set(series.sop_instance_uids)) < len(series.slices):
        raise EncodingError(Reason.CONFLICTING_DUPLICATE, "two slices of the series have the same SOP Instance UID")
    numbers = [segment.number for segment in masks.segments]
    if numbers != list(range(1, len(numbers) + 1)):
        raise EncodingError(Reason.ENCODING, f"segment numbers must run from 1 without gaps, not {numbers[:20]}")


# ---------------------------------------------------------------- building


def _build_segmentation(
    masks: SegmentMasks,
    series: SortedSeries,
    source: Source,
    identity: ObjectIdentity,
    settings: Settings,
    workspace: Workspace,
) -> Segmentation:
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

    if settings.encode.seg_type not in SEG_TYPES:
        raise EncodingError(Reason.BAD_SETTINGS, f"encode.seg_type must be one of {', '.join(SEG_TYPES)}")
    kind = settings.encode.seg_type
    if kind == "FRACTIONAL" and masks.probabilities_path is not None:
        pixels: NDArray[Any] = _load_probabilities(masks, settings, workspace)
    else:
        pixels = _load_pixels(masks, settings, workspace)
    if kind == "LABELMAP" and pixels.ndim == 4:
        raise EncodingError(Reason.ENCODING, "segments overlap: a SEG of type LABELMAP cannot hold them", "use BINARY")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Segmentation(
            source_images=source_images(series, source),
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=[_segment_description(s, masks, identity) for s in masks.segments],
            series_instance_uid=identity.series_instance_uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=identity.sop_instance_uid,
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=__version__,
            device_serial_number=__version__,
            transfer_syntax_uid=JPEGLSLossless if kind == "LABELMAP" else ExplicitVRLittleEndian,
            pixel_measures=PixelMeasuresSequence(series.pixel_spacing, series.slice_spacing, series.slice_spacing),
            plane_orientation=PlaneOrientationSequence("PATIENT", (*series.row_cosines, *series.column_cosines)),
            content_label="SEGMENTATION",
            content_description=content_description("Image segmentation", masks.product, masks.model),
            series_description=series_description(SERIES_DESCRIPTION, masks.product, masks.model),
            omit_empty_frames=True,
            max_fractional_value=MAXIMUM_FRACTION,
            specific_character_set="ISO_IR 192",
        )


def source_images(series: SortedSeries, source: Source) -> list[Dataset]:
    """Build the source attributes that highdicom needs, one dataset per slice in slice order; no file is read."""
    from pydicom.valuerep import DSfloat

    def numbers(values: tuple[float, ...]) -> list[DSfloat]:
        return [DSfloat(value, auto_format=True) for value in values]

    common = Dataset()
    common.update(source.patient_and_study)
    common.Modality = "CT"
    common.StudyInstanceUID = series.study_instance_uid
    common.SeriesInstanceUID = series.series_instance_uid
    common.FrameOfReferenceUID = series.frame_of_reference_uid
    common.PositionReferenceIndicator = ""
    common.Rows, common.Columns = series.rows, series.columns
    common.PixelSpacing = numbers(series.pixel_spacing)
    common.SliceThickness = DSfloat(series.slice_spacing, auto_format=True)
    common.ImageOrientationPatient = numbers((*series.row_cosines, *series.column_cosines))
    images = []
    for index, item in enumerate(series.slices, start=1):
        image = Dataset()
        image.update(common)
        image.SOPClassUID = item.sop_class_uid or CT_IMAGE
        image.SOPInstanceUID = item.sop_instance_uid
        image.InstanceNumber = index
        image.ImagePositionPatient = numbers(item.position)
        images.append(image)
    return images


def _load_pixels(masks: SegmentMasks, settings: Settings, workspace: Workspace) -> NDArray[Any]:
    """Load a label map [k, j, i] if the segments are disjoint, one mask per segment [k, j, i, segment] otherwise."""
    if masks.label_map_path is not None:
        stored = np.asarray(load_array(workspace.resolve(masks.series_instance_uid, masks.label_map_path)))
        if stored.shape != tuple(masks.shape):
            message = f"the label map has shape {stored.shape}, but its record {tuple(masks.shape)}"
            raise EncodingError(Reason.ENCODING, message)
        return stored
    labels = np.zeros(masks.shape, np.uint8 if len(masks.segments) < 256 else np.uint16)
    for segment in masks.segments:
        crop = crop_of(masks, segment.number, workspace)
        if crop is None:
            continue
        mask, b = crop
        part = labels[b.k0 : b.k1, b.j0 : b.j1, b.i0 : b.i1]
        if part[mask].any():
            return _load_one_hot(masks, settings, workspace)
        part[mask] = segment.number
    return labels


def _load_probabilities(masks: SegmentMasks, settings: Settings, workspace: Workspace) -> NDArray[np.float32]:
    """Load probabilities as [k, j, i, segment]; values that round to 0 become 0, so that empty frames are omitted."""
    assert masks.probabilities_path is not None
    check_array(12 * len(masks.segments) * math.prod(masks.shape), "the probabilities", settings)
    stored = load_array(workspace.resolve(masks.series_instance_uid, masks.probabilities_path))
    if stored.shape != (len(masks.segments), *masks.shape):
        raise EncodingError(Reason.ENCODING, f"probabilities of shape {stored.shape} do not fit the masks")
    out = np.empty((*masks.shape, len(masks.segments)), np.float32)
    for index, part in enumerate(stored):
        out[..., index] = np.clip(np.nan_to_num(part), 0, 1)
    out[out < 0.5 / MAXIMUM_FRACTION] = 0
    return out


def _load_one_hot(masks: SegmentMasks, settings: Settings, workspace: Workspace) -> NDArray[np.uint8]:
    """Load one mask per segment, [k, j, i, segment]; highdicom adds a 64-bit sum over them to find overlaps."""
    check_array((len(masks.segments) + 8) * math.prod(masks.shape), "overlapping masks", settings)
    out = np.zeros((*masks.shape, len(masks.segments)), np.uint8)
    for index, segment in enumerate(masks.segments):
        crop = crop_of(masks, segment.number, workspace)
        if crop is not None:
            mask, b = crop
            out[b.k0 : b.k1, b.j0 : b.j1, b.i0 : b.i1, index] = mask
    return out


def _segment_description(segment: Segment, masks: SegmentMasks, identity: ObjectIdentity) -> SegmentDescription:
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    code = segment_code(segment)
    identifier, uid = tracking(identity.sop_instance_uid, segment.number)
    item = SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name,
        segmented_property_category=_highdicom_concept(code.category),
        segmented_property_type=_highdicom_concept(code.type),
        algorithm_type=masks.algorithm_type,
        algorithm_identification=_algorithm_identification(masks),
        tracking_uid=uid,
        tracking_id=identifier,
        anatomic_regions=[_highdicom_concept(code.region)] if code.region else None,
        display_color=CIELabColor.from_rgb(*code.colour),
    )
    if code.laterality:
        modifier = [code_item(code.laterality)]
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifier
    if code.region and code.region_modifier:
        item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [code_item(code.region_modifier)]
    item.SegmentDescription = segment.source_label[:1024]
    if masks.model is not None and masks.model.of_files and not masks.model.learned:
        item.pop("SegmentationAlgorithmIdentificationSequence", None)  # its family is not known
    return item


def _highdicom_concept(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def _algorithm_identification(masks: SegmentMasks) -> Any:
    """Build the Segmentation Algorithm Identification (PS3.3 table 10-19); None for manual contours."""
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    if masks.algorithm_type == "MANUAL":
        return None
    model = masks.model
    parameters = {}
    if model is not None and model.of_files:
        return _algorithm_of_files(model)
    if model is not None:
        parameters = {"model": model.name, "weights_sha256": model.sha256, "configuration": model.configuration}
        parameters["folds"] = "+".join(model.folds) or "all"
        parameters["mirroring"] = "on" if model.mirror else "off"
        product = masks.product
        parameters |= {"axes": product.axes} if product.axes else {}
        parameters |= {"step": f"{product.step:g}"} if product.step is not None else {}
        parameters |= {"largest_component": "on"} if product.largest_component else {}
        parameters |= {"demonstration": "yes"} if model.demo else {}
    name = product_title(masks.product)
    return AlgorithmIdentificationSequence(
        name=name[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=(model.version if model else "") or "unknown",
        source=(model.name if model else MANUFACTURER)[:64],
        parameters=parameters or None,
    )


def _algorithm_of_files(model: ModelInfo) -> Any:
    """Build the identification of another program, of which only the name, version and files are known."""
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    return AlgorithmIdentificationSequence(
        name=model.name[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=model.version or "unknown",
        source=model.name[:64],
        parameters={"files_sha256": model.sha256},
    )


def _set_reproducible_values(
    dataset: Dataset, masks: SegmentMasks, series: SortedSeries, identity: ObjectIdentity, settings: Settings
) -> None:
    """Replace values that highdicom takes from the clock or at random by reproducible ones."""
    set_dates(dataset, settings.encode)
    organization = identity.uid("dimension organization")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    dataset.ContributingEquipmentSequence = contributing_equipment(masks.model, _library_versions())
    dataset.PositionReferenceIndicator = ""


def _library_versions() -> tuple[str, ...]:
    from importlib.metadata import version

    return tuple(f"{name} {version(name)}" for name in ("highdicom", "pydicom"))

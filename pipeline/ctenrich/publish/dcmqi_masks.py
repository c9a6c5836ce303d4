"""A SEG -> the images and the JSON that dcmqi's ``itkimage2segimage`` makes a SEG from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.codes.dcmqi import SEG_SCHEMA, json_code
from ctenrich.codes.mappings import Code
from ctenrich.dicom.objects import header, quiet
from ctenrich.dicom.seg import DecodedSeg, DecodedSegment
from ctenrich.errors import InputError
from ctenrich.publish.mask_files import write_nrrd
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity
from ctenrich.workspace import write_bytes

__all__ = ["DESCRIPTION", "write_dcmqi_masks"]

DESCRIPTION = "meta.json"
_TEXTS = (
    *("ContentCreatorName", "ContentLabel", "ContentDescription", "SeriesDescription", "SeriesNumber"),
    *("InstanceNumber", "BodyPartExamined"),
    *("ClinicalTrialSeriesID", "ClinicalTrialTimePointID", "ClinicalTrialCoordinatingCenterName"),
)
"""Attributes of a SEG that the schema has under their keywords."""
_INVENTED = ("ContentCreatorName", "ClinicalTrialSeriesID", "ClinicalTrialTimePointID")
"""Those that dcmqi gives a value of its own where the description has none."""
_LARGEST_LABEL = 32767
"""dcmqi reads label values as signed integers of 16 bits."""
_METHODS = ("AUTOMATIC", "MANUAL", "SEMIAUTOMATIC")


@dataclass(frozen=True)
class _Image:
    """An image of the description: its file, and the segments whose voxels it has."""

    name: str
    segments: tuple[DecodedSegment, ...]


def write_dcmqi_masks(path: Path, seg: DecodedSeg, folder: Path) -> tuple[tuple[Path, ...], tuple[Issue, ...]]:
    """Write the masks of a SEG as NRRD, and their description after dcmqi's schema.

    Voxels have the segment number as their value, and ``labelID`` is that number. Segments that overlap have an image
    each. Segments without a voxel are described, but dcmqi writes no segment for them.

    Parameters
    ----------
    path : Path
        The object: attributes that `seg` does not keep are read from it.
    seg : DecodedSeg
        Its masks, BINARY or LABELMAP.
    folder : Path
        Created; gets ``labels.nrrd``, or ``segments-1.nrrd`` and so on in the order of the description, and
        ``meta.json``.

    Returns
    -------
    tuple of Path
        The files.
    tuple of Issue
        Warnings about what the schema has no place for.

    Raises
    ------
    InputError
        BAD_MASK for a FRACTIONAL SEG, or segment numbers that dcmqi cannot read; EMPTY_SEGMENTATION if no segment has
        a voxel; BAD_DESCRIPTION for a segment without the codes that the schema requires.
    """
    _check(seg)
    with quiet():
        found = header(path)
        items = {int(item.SegmentNumber): item for item in found.SegmentSequence}
        images = _images(seg)
        present = [i for i in images if any(s.voxels for s in i.segments)]
        lost = [text for segment in seg.segments for text in _lost(segment, items[segment.number])]
        document = _document(found, present, seg, items)
    files = []
    for image in present:
        target = folder / image.name
        write_nrrd(target, _planes(seg, image), np.dtype(np.uint16), seg.grid)
        files.append(target)
    target = folder / DESCRIPTION
    write_bytes(target, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
    issues = (
        Issue("DCMQI_DESCRIPTION", Severity.WARNING, seg.sop_instance_uid, text, "ctenrich export", __version__)
        for text in lost
    )
    return (*files, target), tuple(issues)


def _check(seg: DecodedSeg) -> None:
    if seg.segmentation_type == "FRACTIONAL":
        raise InputError(Reason.BAD_MASK, "dcmqi writes no FRACTIONAL segmentations", "export nifti or nrrd")
    largest = max((s.number for s in seg.segments), default=0)
    if largest > _LARGEST_LABEL:
        raise InputError(Reason.BAD_MASK, f"dcmqi reads label values up to {_LARGEST_LABEL}, not {largest}")
    if not any(s.voxels for s in seg.segments):
        raise InputError(Reason.EMPTY_SEGMENTATION, "no segment has a voxel: dcmqi makes no SEG of it")
    for segment in seg.segments:
        if segment.category is None or segment.type is None:
            raise InputError(Reason.BAD_DESCRIPTION, f"segment {segment.number} has no category or no type")
        if segment.algorithm_type not in _METHODS:
            raise InputError(Reason.BAD_DESCRIPTION, f"segment {segment.number} has no segment algorithm type")


def _images(seg: DecodedSeg) -> list[_Image]:
    if not seg.overlapping:
        return [_Image("labels.nrrd", seg.segments)]
    absent = tuple(s for s in seg.segments if not s.voxels)
    alone: list[tuple[DecodedSegment, ...]] = [(s,) for s in seg.segments if s.voxels]
    alone[0] = (*alone[0], *absent)
    return [_Image(f"segments-{n}.nrrd", group) for n, group in enumerate(alone, 1)]


def _planes(seg: DecodedSeg, image: _Image) -> Iterator[NDArray[np.uint16]]:
    for k in range(seg.grid.shape[0]):
        plane = np.zeros(seg.grid.shape[1:], np.uint16)
        for segment in image.segments:
            if segment.voxels:
                plane[seg.mask_plane(segment.number, k)] = segment.number
        yield plane


def _document(found: Dataset, images: list[_Image], seg: DecodedSeg, items: dict[int, Dataset]) -> dict[str, Any]:
    texts = {key: str(found[key].value) for key in _TEXTS if key in found and found[key].value not in (None, "")}
    texts = dict.fromkeys(_INVENTED, "") | texts
    described = [[_attributes(s, items[s.number]) for s in image.segments] for image in images]
    mapping = {"segmentAttributesFileMapping": [image.name for image in images]}
    return {"@schema": SEG_SCHEMA, **texts, **mapping, "segmentAttributes": described}


def _attributes(segment: DecodedSegment, item: Dataset) -> dict[str, Any]:
    colour = _colour(item)
    optional = {
        "SegmentDescription": segment.description,
        "SegmentLabel": segment.label,
        "SegmentedPropertyTypeModifierCodeSequence": _optional(segment.laterality),
        "AnatomicRegionSequence": _optional(segment.region),
        "AnatomicRegionModifierSequence": _optional(segment.region_modifier),
        "SegmentAlgorithmName": segment.algorithm_name,
        "TrackingIdentifier": segment.tracking_id,
        "TrackingUniqueIdentifier": segment.tracking_uid,
        "recommendedDisplayRGBValue": colour,
    }
    return {
        "labelID": segment.number,
        "SegmentedPropertyCategoryCodeSequence": _optional(segment.category),
        "SegmentedPropertyTypeCodeSequence": _optional(segment.type),
        "SegmentAlgorithmType": segment.algorithm_type,
        **{key: value for key, value in optional.items() if value},
    }


def _optional(code: Code | None) -> dict[str, str] | None:
    return None if code is None else json_code(code)


def _colour(item: Dataset) -> list[int] | None:
    """Recommended Display CIELab Value (PS3.3 C.10.7.1.1) as sRGB."""
    from highdicom.color import CIELabColor  # a heavy package that only this and the encoder of SEGs need

    stored = item.get("RecommendedDisplayCIELabValue")
    if not stored or len(stored) != 3:
        return None
    return [int(v) for v in CIELabColor.from_dicom_value([int(v) for v in stored]).to_rgb(clip=True)]


def _lost(segment: DecodedSegment, item: Dataset) -> list[str]:
    """What the description has no place for: a second modifier, region or modifier of a region."""
    types = item.get("SegmentedPropertyTypeCodeSequence") or ()
    regions = item.get("AnatomicRegionSequence") or ()
    counts = {
        "modifiers of the type": sum(len(t.get("SegmentedPropertyTypeModifierCodeSequence") or ()) for t in types),
        "anatomic regions": len(regions),
        "modifiers of the region": sum(len(r.get("AnatomicRegionModifierSequence") or ()) for r in regions),
    }
    name = f"segment {segment.number}"
    return [f"{name} has {n} {what}: dcmqi's JSON has the first" for what, n in counts.items() if n > 1]

"""SOP Class UIDs (PS3.4 B.5, PS3.6 A) of the objects that ctenrich reads and writes."""

from __future__ import annotations

__all__ = [
    "CT_IMAGE",
    "DETACHED_STUDY_MANAGEMENT",
    "ENHANCED_CT_IMAGE",
    "LABEL_MAP_SEGMENTATION",
    "LEGACY_CONVERTED_CT_IMAGE",
    "MEDIA_STORAGE_DIRECTORY",
    "MR_IMAGE",
    "MULTI_FRAME_CT_CLASSES",
    "PARAMETRIC_MAP",
    "REAL_WORLD_VALUE_MAPPING",
    "REPORT_CLASSES",
    "RT_DOSE",
    "RT_PLAN",
    "RT_STRUCTURE_SET",
    "SECONDARY_CAPTURE",
    "SEGMENTATION",
    "SEGMENTATION_CLASSES",
    "is_structured_report",
]

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.2"
MULTI_FRAME_CT_CLASSES = frozenset({ENHANCED_CT_IMAGE, LEGACY_CONVERTED_CT_IMAGE})
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Also the root of the four multi-frame secondary capture classes."""
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
REAL_WORLD_VALUE_MAPPING = "1.2.840.10008.5.1.4.1.1.67"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTATION_CLASSES = frozenset({SEGMENTATION, LABEL_MAP_SEGMENTATION})
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
"""Retired; the study class that RT Structure Sets refer to (PS3.3 C.8.8.5)."""
_SR_ROOT = "1.2.840.10008.5.1.4.1.1.88."
REPORT_CLASSES = frozenset(f"{_SR_ROOT}{number}" for number in (11, 22, 33, 34, 35))
"""Basic Text, Enhanced, Comprehensive, Comprehensive 3D and Extensible SR."""
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"


def is_structured_report(sop_class_uid: str) -> bool:
    """Whether the class is an SR document class (PS3.3 A.35); key object selections and CAD reports are included."""
    return sop_class_uid.startswith(_SR_ROOT)

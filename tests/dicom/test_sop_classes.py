"""SOP Class UIDs are those of the standard, by pydicom's own table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.uid import UID_dictionary

import ctenrich
from ctenrich.dicom import sop_classes

PACKAGE = Path(ctenrich.__file__).parent


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("CT_IMAGE", "CTImageStorage"),
        ("ENHANCED_CT_IMAGE", "EnhancedCTImageStorage"),
        ("LEGACY_CONVERTED_CT_IMAGE", "LegacyConvertedEnhancedCTImageStorage"),
        ("MR_IMAGE", "MRImageStorage"),
        ("PARAMETRIC_MAP", "ParametricMapStorage"),
        ("SECONDARY_CAPTURE", "SecondaryCaptureImageStorage"),
        ("SEGMENTATION", "SegmentationStorage"),
        ("RT_STRUCTURE_SET", "RTStructureSetStorage"),
        ("DETACHED_STUDY_MANAGEMENT", "DetachedStudyManagement"),
        ("MEDIA_STORAGE_DIRECTORY", "MediaStorageDirectoryStorage"),
    ],
)
def test_a_class_is_that_of_the_standard(name: str, keyword: str) -> None:
    assert UID_dictionary[getattr(sop_classes, name)][4] == keyword


def test_segmentation_classes_are_those_that_highdicom_knows() -> None:
    from highdicom.seg import SOP_CLASS_UIDS

    assert set(SOP_CLASS_UIDS) == sop_classes.SEGMENTATION_CLASSES


def test_report_classes_have_the_names_of_reports() -> None:
    names = {UID_dictionary[uid][0] for uid in sop_classes.REPORT_CLASSES}
    kinds = ("Basic Text", "Enhanced", "Comprehensive", "Comprehensive 3D", "Extensible")
    assert names == {f"{kind} SR Storage" for kind in kinds}


def test_structured_reports_are_the_classes_that_the_standard_calls_so() -> None:
    found = {uid for uid, entry in UID_dictionary.items() if sop_classes.is_structured_report(uid)}
    assert len(found) > 15
    assert all(re.search(r"SR|Document|Log|Plan|Description|Trial", UID_dictionary[uid][0]) for uid in found)
    assert not found & {sop_classes.CT_IMAGE, *sop_classes.SEGMENTATION_CLASSES, sop_classes.RT_STRUCTURE_SET}


def test_no_other_module_types_a_class_or_transfer_syntax() -> None:
    typed = re.compile(r"1\.2\.840\.10008\.(5\.1\.4\.1\.1|1\.2|1\.3)\b")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if typed.search(path.read_text("utf-8")) and "proof" not in path.parts  # proof reads on its own
    }
    assert found == {"dicom/sop_classes.py"}

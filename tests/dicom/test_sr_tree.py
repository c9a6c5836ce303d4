"""Content items are read alike from pydicom data sets and from nested dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ctenrich.dicom.nested import read_nested
from ctenrich.dicom.objects import whole
from ctenrich.dicom.sop_classes import SEGMENTATION
from ctenrich.dicom.sr_tree import (
    children,
    code_value,
    evidence_references,
    first,
    has_name,
    item_name,
    segment_number,
    walk,
)


def made(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def code(value: str, keyword: str = "CodeValue") -> Dataset:
    return made(**{keyword: value}, CodingSchemeDesignator="99TEST", CodeMeaning=f"meaning of {value[:9]}")


def item(value_type: str, name: str, *content: Dataset, **values: Any) -> Dataset:
    more = {"ContentSequence": list(content)} if content else {}
    return made(ValueType=value_type, ConceptNameCodeSequence=[code(name)], **values, **more)


@pytest.fixture(params=["pydicom", "nested"])
def report(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A small report as pydicom reads it, and as a nested dictionary."""
    reference = made(ReferencedSOPClassUID=SEGMENTATION, ReferencedSOPInstanceUID="1.5", ReferencedSegmentNumber=[3, 4])
    image = item("IMAGE", "C", ReferencedSOPSequence=[reference])
    unnamed = made(ValueType="TEXT", TextValue="no name")
    long = made(ValueType="TEXT", TextValue="x", ConceptNameCodeSequence=[code("L" * 20, "LongCodeValue")])
    group = item("CONTAINER", "B", image, unnamed, long)
    root = item("CONTAINER", "A", group, item("TEXT", "C", TextValue="y"))
    root.file_meta = FileMetaDataset()
    root.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    root.SOPClassUID, root.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.3"
    instance = [made(ReferencedSOPInstanceUID="1.5"), made(ReferencedSOPInstanceUID="1.6")]
    series = made(SeriesInstanceUID="1.4", ReferencedSOPSequence=instance)
    root.CurrentRequestedProcedureEvidenceSequence = [made(StudyInstanceUID="1.3", ReferencedSeriesSequence=[series])]
    path = tmp_path / "report.dcm"
    dcmwrite(path, root, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return whole(path) if request.param == "pydicom" else read_nested(path)


def test_names(report: Any) -> None:
    assert item_name(report) == ("A", "99TEST")
    assert [item_name(child) for child in children(report)] == [("B", "99TEST"), ("C", "99TEST")]
    _, unnamed, long = children(children(report)[0])
    assert item_name(unnamed) is None
    assert not has_name(unnamed, [("", "")])
    assert item_name(long) == ("L" * 20, "99TEST")
    assert code_value({"URNCodeValue": "urn:x"}) == "urn:x"


def test_children_by_type_and_name(report: Any) -> None:
    assert len(children(report, "TEXT")) == len(children(report, "", ("C", "99TEST"))) == 1
    assert children(report, "CONTAINER", ("C", "99TEST")) == []
    assert len(children(report, "", ("B", "99TEST"), ("C", "99TEST"))) == 2
    assert children(report, "", ("B", "DCM")) == []


def test_the_whole_tree_in_the_order_of_the_document(report: Any) -> None:
    found = [(item_name(parent), child.get("ValueType")) for parent, child in walk(report)]
    a, b = ("A", "99TEST"), ("B", "99TEST")
    assert found == [(a, "CONTAINER"), (b, "IMAGE"), (b, "TEXT"), (b, "TEXT"), (a, "TEXT")]


def test_references(report: Any) -> None:
    image = children(children(report)[0], "IMAGE")[0]
    assert segment_number(first(image.get("ReferencedSOPSequence"))) == 3
    assert segment_number({"ReferencedSegmentNumber": 7}) == 7
    assert segment_number({}) is None
    assert [tuple(r) for r in evidence_references(report)] == [("1.3", "1.4", "1.5"), ("1.3", "1.4", "1.6")]


def test_a_tree_of_any_depth_is_walked() -> None:
    root: dict[str, Any] = {}
    for _ in range(50_000):
        root = {"ContentSequence": [root]}
    assert sum(1 for _ in walk(root)) == 50_000
    while root:
        root = root["ContentSequence"][0] if "ContentSequence" in root else {}

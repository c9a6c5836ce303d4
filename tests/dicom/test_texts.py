"""Texts of attributes as they were sent: character sets, several values, numbers, private attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ctenrich.catalog.headers import read_header
from ctenrich.dicom.texts import AttributeTag, read_texts
from ctenrich.errors import InputError
from ctenrich.flows.attributes import parse_attribute

NAMES = (
    "Modality", "ImageType", "SliceThickness", "SeriesNumber", "StudyDate", "SeriesTime", "SeriesDescription",
    "PatientName", "Rows", "SpiralPitchFactor", "PatientID", "ProtocolName", "BodyPartExamined", "TransferSyntaxUID",
    '(0019,"ACME 1.0",23)', '(0019,"OTHER",23)', "ImageComments",
)  # fmt: skip


def write(path: Path, syntax: str, characters: str = "ISO_IR 192") -> Path:
    data = Dataset()
    data.SpecificCharacterSet = characters
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.4", "1.2.5"
    data.Modality, data.ImageType, data.PatientID = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "000123"
    data.add_new("SliceThickness", "DS", "3.0")
    data.add_new("SeriesNumber", "IS", "007")
    data.StudyDate, data.SeriesTime = "20240131", "101112.000000"
    data.SeriesDescription, data.PatientName, data.ProtocolName = "Schädel ", "Müller^Jörg", ""
    data.Rows, data.SpiralPitchFactor, data.ImageComments = 512, 0.9, r"a\b"
    block = data.private_block(0x0019, "OTHER", create=True)
    block.add_new(0x23, "LO", "theirs")
    block = data.private_block(0x0019, "ACME 1.0", create=True)
    block.add_new(0x23, "LO", "ours")
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
@pytest.mark.parametrize("characters", ["ISO_IR 192", "ISO_IR 100"])
def test_texts_as_sent(tmp_path: Path, syntax: str, characters: str) -> None:
    path = write(tmp_path / "a.dcm", syntax, characters)
    tags = {name: parse_attribute(name).tag for name in NAMES}
    for wanted in (NAMES, [name for name in NAMES if name[0] != "(" and name != "TransferSyntaxUID"]):
        found = read_texts(path, [tags[name] for name in wanted])
        texts = {name: found[tags[name]] for name in wanted if tags[name] in found}
        expected = {
            "Modality": "CT",
            "ImageType": r"ORIGINAL\PRIMARY\AXIAL",
            "SliceThickness": "3.0",
            "SeriesNumber": "007",
            "StudyDate": "20240131",
            "SeriesTime": "101112.000000",
            "SeriesDescription": "Schädel",
            "PatientName": "Müller^Jörg",
            "Rows": "512",
            "SpiralPitchFactor": "0.9",
            "PatientID": "000123",
            "ProtocolName": "",
            "TransferSyntaxUID": syntax,
            '(0019,"ACME 1.0",23)': "ours",
            '(0019,"OTHER",23)': "theirs",
            "ImageComments": r"a\b",
        }
        assert texts == {name: text for name, text in expected.items() if name in wanted}


def test_the_catalog_has_the_same_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", ExplicitVRLittleEndian)
    row: dict[str, Any] = read_header(path).row or {}
    for name in ("Modality", "SliceThickness", "PatientID", "SeriesDescription", "SpiralPitchFactor"):
        tag = parse_attribute(name).tag
        assert str(row[name]) == read_texts(path, [tag])[tag]
    tag = parse_attribute("ImageType").tag
    assert "\\".join(row["ImageType"]) == read_texts(path, [tag])[tag]


def test_a_file_that_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"text" * 100)
    with pytest.raises(InputError):
        read_texts(tmp_path / "a.dcm", [AttributeTag(8, 0x60)])

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from tests.support.result_reports import write_seg, write_sr

from ctenrich.dicom.nested import read_nested
from ctenrich.errors import InputError
from ctenrich.reasons import Reason


def test_types_of_the_export(tmp_path: Path) -> None:
    path = write_seg(
        tmp_path / "a.dcm",
        "1.2.3.4",
        PatientName="Müller^Jörg=山田^太郎",
        SliceThickness="0.70",
        ImageType=["DERIVED", "PRIMARY"],
        Rows=512,
        AcquisitionDateTime="20200131120000.25+0100",
        StudyDate="20209999",
    )
    data = read_nested(path)
    assert data["SliceThickness"] == "0.70", "DS keeps its text"
    assert data["ImageType"] == ["DERIVED", "PRIMARY"]
    assert data["Rows"] == 512
    assert data["StudyDate"] is None, "a date that is none is NULL"
    assert data["StudyTime"] == dt.time(10, 15, 30, 500000)
    assert data["AcquisitionDateTime"] == dt.datetime(2020, 1, 31, 11, 0, 0, 250000, dt.UTC)
    assert data["PatientName"]["Alphabetic"]["FamilyName"] == "Müller"
    assert data["PatientName"]["Ideographic"] == {
        "FamilyName": "山田", "GivenName": "太郎", "MiddleName": None, "NamePrefix": None, "NameSuffix": None,
    }  # fmt: skip
    assert data["TransferSyntaxUID"] == "1.2.840.10008.1.2.1"
    assert [s["SegmentNumber"] for s in data["SegmentSequence"]] == [1, 3]


def _texts(data: Dataset) -> list[str]:
    out = []
    for element in data:
        if element.VR == "SQ":
            for item in element.value:
                out += _texts(item)
        elif element.VR in ("UI", "CS", "LO", "SH") and element.keyword and element.value:
            values = (
                element.value if isinstance(element.value, (list, pydicom.multival.MultiValue)) else [element.value]
            )
            out += [str(v).strip() for v in values]
    return out


def _nested_texts(row: Any) -> list[str]:
    if isinstance(row, dict):
        return [t for key, v in row.items() if key not in ("OtherElements",) for t in _nested_texts(v)]
    if isinstance(row, list):
        return [t for v in row for t in _nested_texts(v)]
    return [row] if isinstance(row, str) else []


@pytest.mark.data
def test_agrees_with_pydicom_on_objects_of_other_makers(real_data: Callable[[str], Path]) -> None:
    files = sorted((real_data("ref_objects")).rglob("*.dcm"))
    assert len(files) > 20
    for path in files:
        reference = pydicom.dcmread(path, stop_before_pixels=True)
        mine = read_nested(path)
        have = _nested_texts(mine)
        missing = {t for t in _texts(reference) if t} - set(have)
        assert not missing, (path.name, sorted(missing)[:3])
        for element in reference:
            if element.VR == "SQ" and element.keyword and not element.tag.is_private:
                assert len(mine[element.keyword]) == len(element.value), element.keyword


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_every_transfer_syntax_gives_the_same(tmp_path: Path, syntax: str) -> None:
    path = write_seg(tmp_path / "a.dcm", "1.2.3.4", Rows=7)
    other = pydicom.dcmread(path)
    other.file_meta.TransferSyntaxUID = syntax
    implicit, little = syntax == "1.2.840.10008.1.2", syntax != "1.2.840.10008.1.2.2"
    pydicom.dcmwrite(tmp_path / "b.dcm", other, implicit_vr=implicit, little_endian=little)
    first, second = read_nested(path), read_nested(tmp_path / "b.dcm")
    assert second.pop("TransferSyntaxUID") == syntax
    first.pop("TransferSyntaxUID")
    assert first == second


def test_undefined_lengths(tmp_path: Path) -> None:
    path = write_sr(tmp_path / "a.dcm", "1.2.3", [])
    data = pydicom.dcmread(path)
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    data.save_as(tmp_path / "b.dcm")
    assert (tmp_path / "b.dcm").stat().st_size > path.stat().st_size
    assert read_nested(tmp_path / "b.dcm") == read_nested(path)


def test_a_large_sequence_is_dropped_and_named(tmp_path: Path) -> None:
    path = write_seg(tmp_path / "a.dcm", "1.2.3.4")
    data = read_nested(path, limit=200)
    assert "SegmentSequence" not in data
    assert {"TagName": "SegmentSequence", "TagReference": "(0062,0002)"} in data["DroppedTags"]


@given(cut=st.integers(0, 2000))
def test_a_cut_file_is_an_error_never_a_wrong_read(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = write_seg(folder / "a.dcm", "1.2.3.4")
    whole = path.read_bytes()
    (folder / "b.dcm").write_bytes(whole[: min(cut, len(whole) - 1)])
    complete = read_nested(path)
    try:
        data = read_nested(folder / "b.dcm")
    except InputError as error:
        data = {}
        reason = error.reason
    else:
        reason = Reason.TRUNCATED
    assert reason in (Reason.NOT_DICOM, Reason.TRUNCATED)
    assert all(complete[key] == value for key, value in data.items())


def test_private_elements_are_kept_apart(tmp_path: Path) -> None:
    path = write_seg(tmp_path / "a.dcm", "1.2.3.4")
    data = pydicom.dcmread(path)
    block = data.private_block(0x0099, "TEST", create=True)
    block.add_new(1, "LO", ["a", "b"])
    data.save_as(path)
    assert {"Tag": "Tag_00991001", "Data": ["a", "b"]} in read_nested(path)["OtherElements"]

"""Items that are read by their layout have the values that they have when read element by element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from tests.support.result_reports import write_seg

from ctenrich.dicom import nested
from ctenrich.dicom.layouts import AlikeItem, LayoutReader
from ctenrich.dicom.nested import read_nested


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(value: str, meaning: str, **more: object) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning, **more)


def frame(number: int, text: str = "", *, extra: Dataset | None = None) -> Dataset:
    source = item(
        ReferencedSOPInstanceUID=f"1.2.826.0.1.3680043.{number}",
        PurposeOfReferenceCodeSequence=[code("121322", "Source image for image processing operation")],
        TextValue=text,
    )
    return item(
        FrameContentSequence=[item(DimensionIndexValues=[1, number + 1])],
        PlanePositionSequence=[item(ImagePositionPatient=[-200.25, -199.5, 3.0 * number])],
        DerivationImageSequence=[
            item(
                SourceImageSequence=[source, source],
                DerivationCodeSequence=[extra or code("113076", "Segmentation")],
            )
        ],
    )


def both_ways(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    with monkeypatch.context() as patched:
        patched.setattr(nested, "_MANY", 1)
        by_layout = read_nested(path)
        patched.setattr(nested, "_MANY", 1 << 40)
        return by_layout, read_nested(path)


def frames(read: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read["PerFrameFunctionalGroupsSequence"]
    return found


def test_frames_are_read_by_their_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [frame(n) for n in range(40)]
    path = write_seg(tmp_path / "a.dcm", "1.2", PerFrameFunctionalGroupsSequence=made)
    found, expected = both_ways(path, monkeypatch)
    assert found == expected
    read = [one for one in frames(found) if isinstance(one, AlikeItem)]
    assert len(read) > 30
    assert len({id(one.layout) for one in read}) < 5
    assert frames(found)[39]["PlanePositionSequence"] == [{"ImagePositionPatient": ["-200.25", "-199.5", "117.0"]}]


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(st.sampled_from(["", "a", "Lunge \xfcber", "x\\y", " b ", "long " * 20]), min_size=6, max_size=12),
    place=st.integers(0, 5),
    extra=st.sampled_from([
        code("113076", "Segmentati"),
        item(CodeValue="113076", CodingSchemeDesignator="SCT", LongCodeValue="Segmentation"),
        item(CodeValue="113077", CodingSchemeDesignator="SCT", CodeMeaning="Segmentation"),
        item(LongCodeValue="113076", CodingSchemeDesignator="SCT", CodeMeaning="Segmentation"),
    ]),
)  # fmt: skip
def test_any_items_are_read_alike(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], place: int, extra: Dataset
) -> None:
    made = [frame(n % 3, text, extra=extra if n >= place else None) for n, text in enumerate(texts)]
    path = write_seg(
        tmp_path_factory.mktemp("any") / "a.dcm", "1.2",
        SpecificCharacterSet="ISO_IR 192", PerFrameFunctionalGroupsSequence=made,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        found, expected = both_ways(path, monkeypatch)
    assert found == expected


def test_a_code_with_other_keywords_is_not_of_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = item(CodeValue="113076", CodingSchemeDesignator="SCT", LongCodeValue="Segment")
    same_length = frame(1, extra=code("113076", "Segmentation"))
    made = [*(frame(n) for n in range(8)), frame(1, extra=other), same_length]
    path = write_seg(tmp_path / "a.dcm", "1.2", PerFrameFunctionalGroupsSequence=made)
    found, expected = both_ways(path, monkeypatch)
    assert found == expected
    read = [one for one in frames(found) if isinstance(one, AlikeItem)]
    keywords = [(id(one.layout), *one["DerivationImageSequence"][0]["DerivationCodeSequence"][0]) for one in read]
    assert len(read) >= 8
    assert len(set(keywords)) == len({of_layout for of_layout, *_ in keywords})


def test_an_item_that_is_cut_has_no_layout() -> None:
    reader = LayoutReader(lambda _: None, lambda *_: None)
    raw = b"\x08\x00\x00\x01SH\x08\x00123456"  # a value of 8 bytes, of which 6 are there
    assert [reader.read(raw, 1) for _ in range(3)] == [None, None, None]

"""The quick reader of plain headers gives the rows and faults that pydicom gives, or leaves the file to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from tests.support.catalog_cases import header
from tests.support.pydicom_files import damaged, pydicom_files

from ctenrich.catalog import headers
from ctenrich.catalog.column_values import fast_header_row
from ctenrich.catalog.headers import FileHeader, read_header
from ctenrich.dicom.fast_header import HEAD


def slowly(path: Path, monkeypatch: pytest.MonkeyPatch) -> FileHeader:
    """What pydicom makes of the file."""
    with monkeypatch.context() as patch:
        patch.setattr(headers, "fast_header_row", lambda *_: None)
        return read_header(path)


def quick(path: Path) -> dict[str, Any] | None:
    return fast_header_row(path.read_bytes()[:HEAD], path.stat().st_size)


def full_slice(syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    """A slice with values of every kind that a catalog keeps, and sequences that it does not keep."""
    ds = header(
        3, SeriesDescription="Thorax  1.5 ", ConvolutionKernel=["B30f", "1"], StudyDate="20010203", PatientAge="061Y",
        AcquisitionDateTime="20010203101112.5+0100", ContentTime="1011", SpiralPitchFactor=0.9,
        Manufacturer=" ACME\\x ", PatientIdentityRemoved="YES", SoftwareVersions="", LossyImageCompression="00",
        StudyDescription="a \\ b", KVP="120",
    )  # fmt: skip
    inner, item = Dataset(), Dataset()
    inner.CodeValue = "1"
    item.PurposeOfReferenceCodeSequence = Sequence([inner])
    item.ReferencedSOPInstanceUID = "1.2.3"
    ds.SourceImageSequence = Sequence([item, item])
    ds.SourceImageSequence.is_undefined_length = True
    for one in ds.SourceImageSequence:
        one.is_undefined_length_sequence_item = True
    ds.add_new(0x00090010, "LO", "PRIVATE")
    ds.add_new(0x00091001, "OB", b"\x00" * 100)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    return ds


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_full_header_is_read_as_pydicom_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    path = tmp_path / "a.dcm"
    full_slice(syntax).save_as(path)
    row = quick(path)
    assert row is not None
    assert slowly(path, monkeypatch) == FileHeader(row)
    assert read_header(path) == FileHeader(row)
    assert (row["SeriesDescription"], row["Manufacturer"]) == ("Thorax  1.5", "ACME\\x")
    assert (row["ConvolutionKernel"], row["SpiralPitchFactor"], row["Rows"]) == (["B30f", "1"], 0.9, 2)


def odd_cases() -> dict[str, Callable[[FileDataset], None]]:
    def referenced(ds: FileDataset) -> None:
        item = Dataset()
        item.SeriesInstanceUID = "1.2"
        ds.ReferencedSeriesSequence = Sequence([item])

    def words(ds: FileDataset) -> None:
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.SeriesDescription = "Schädel"

    def nameless(ds: FileDataset) -> None:
        del ds.SOPClassUID, ds.Modality

    return {
        "wanted sequence": referenced,
        "character set": words,
        "no date": lambda ds: ds.add_new(0x00080020, "LO", "yesterday"),
        "long": lambda ds: ds.add_new(0x00091001, "OB", b"\x00" * HEAD),
        "no pixels": lambda ds: ds.__delattr__("PixelData"),
        "no class": nameless,
    }


@pytest.mark.parametrize("name", sorted(odd_cases()))
def test_what_is_odd_is_left_to_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ds = full_slice()
    odd_cases()[name](ds)
    path = tmp_path / "a.dcm"
    ds.save_as(path, enforce_file_format=False)
    assert quick(path) is None
    assert read_header(path) == slowly(path, monkeypatch)


def test_big_endian_and_a_cut_are_left_to_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds, path = header(), tmp_path / "a.dcm"
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, ds)
    assert quick(path) is None
    assert read_header(path).row == slowly(path, monkeypatch).row
    header().save_as(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert quick(path) is None
    assert [reason.value for reason, _ in read_header(path).faults] == ["TRUNCATED"]


def test_broken_bytes_never_give_another_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dcm"
    rng, taken = random.Random(4), 0
    for number in range(600):
        full_slice((ExplicitVRLittleEndian, ImplicitVRLittleEndian)[number % 2]).save_as(path)
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.randrange(len(data))
            kind = rng.choice(["flip", "flip", "insert", "cut"])
            if kind == "flip":
                data[at] = rng.randrange(256)
            elif kind == "insert":
                data[at:at] = rng.randbytes(rng.choice([1, 2, 4]))
            else:
                del data[max(at, 140) :]
        path.write_bytes(data)
        row = quick(path)
        if row is not None:
            taken += 1
            found = slowly(path, monkeypatch)
            assert (found.row, read_header(path)) == (row, found)
    assert taken > 50


def test_every_test_file_of_pydicom_has_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    for path in pydicom_files():
        row = quick(path)
        if row is not None:
            taken += 1
            assert slowly(path, monkeypatch) == read_header(path), path.name
            assert read_header(path).row == row, path.name
    assert taken > 40


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_test_file_of_pydicom_has_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng, path, taken = np.random.default_rng(100 + seed), tmp_path / "x.dcm", 0
    for source in pydicom_files():
        path.write_bytes(damaged(source.read_bytes()[:200_000], rng))
        row = quick(path)
        if row is not None:
            taken += 1
            assert slowly(path, monkeypatch) == read_header(path), (source.name, seed)
            assert read_header(path).row == row, (source.name, seed)
    assert taken > 10


@pytest.mark.parametrize("odd", ["order", "twice"])
def test_elements_out_of_order_are_left_to_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    path = tmp_path / "a.dcm"
    full_slice().save_as(path)
    content = path.read_bytes()
    element = b"\x08\x00\x60\x00CS\x02\x00CT"
    assert content.count(element) == 1
    empty = b"\x08\x00\x60\x00CS\x00\x00"
    later = content.index(b"\x10\x00\x20\x00LO")
    moved = content[:later].replace(element, b"") if odd == "order" else content[:later]
    path.write_bytes(moved + (element if odd == "order" else empty) + content[later:])
    assert quick(path) is None
    assert read_header(path) == slowly(path, monkeypatch)


@pytest.mark.data
@pytest.mark.parametrize("archive", ["LUNG1-001", "LUNG1-002-RT", "4D-Lung-113", "awkward", "totalseg", "ref_objects"])
def test_real_files_have_one_row(
    monkeypatch: pytest.MonkeyPatch, real_data: Callable[[str], Path], archive: str
) -> None:
    paths = sorted(p for p in real_data(archive).rglob("*") if p.is_file())
    taken = 0
    for path in paths:
        row = quick(path)
        if row is not None:
            taken += 1
            assert read_header(path) == slowly(path, monkeypatch), path.name
    if archive != "totalseg":
        assert taken > 0
    if archive in {"LUNG1-001", "4D-Lung-113"}:
        assert taken >= len(paths) - 2, "all slices are the plain case"

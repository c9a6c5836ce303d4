"""Small files with millions of elements, and large ones of zeros, end in bounded time with a reason."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ctenrich.catalog.headers import read_header
from ctenrich.dicom.nested_elements import cost_of_elements
from ctenrich.dicom.objects import header, whole
from ctenrich.dicom.reader import open_dataset, open_dicom
from ctenrich.dicom.streams import InflatingReader
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason

ELEMENT = struct.pack("<HH2sH2s", 0x0010, 0x1000, b"LO", 2, b"ab")
SEQUENCE = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
ITEM = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0xFFFFFFFF, 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
SECONDS = 10.0
"""CPU time of one reading; a tenth of it on a machine without other work."""


ELEMENT_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, len(ELEMENT)) + ELEMENT


def explicit(content: bytes) -> bytes:
    """A sequence of explicit length."""
    return struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, len(content)) + content


def item(content: bytes) -> bytes:
    """An item of explicit length."""
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def part10(syntax: str, content: bytes) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, pydicom.uid.UID("1.2.3")
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    out = io.BytesIO()
    write_file_meta_info(out, meta, enforce_standard=False)
    if syntax == DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        content = packer.compress(content) + packer.flush()
    return bytes(128) + b"DICM" + out.getvalue() + content


BOMBS = {
    "deflated elements": lambda: part10(DeflatedExplicitVRLittleEndian, ELEMENT * 4_000_000),
    "deflated items": lambda: part10(DeflatedExplicitVRLittleEndian, SEQUENCE + ITEM * 3_000_000),
    "elements": lambda: part10(ExplicitVRLittleEndian, ELEMENT * 300_000),
    "items": lambda: part10(ExplicitVRLittleEndian, SEQUENCE + ITEM * 100_000),
}


def _parsed(path: Path) -> None:
    with open_dicom(path):
        pass


def _parsed_in_part(path: Path) -> None:
    with open_dicom(path, tags=["SOPInstanceUID", "Rows"]):
        pass


@pytest.mark.parametrize("name", list(BOMBS))
def test_millions_of_elements_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.dcm"
    path.write_bytes(BOMBS[name]())
    readers: list[Callable[[Path], object]] = [_parsed, whole]
    if "items" not in name:
        readers += [_parsed_in_part, open_dataset, header]
    for read in readers:
        begin = time.process_time()
        with pytest.raises(UnsafeInputError) as caught:
            read(path)
        assert caught.value.reason is Reason.DECOMPRESSION_BOMB
        assert time.process_time() - begin < SECONDS
    begin = time.process_time()
    assert [reason for reason, _ in read_header(path).faults][:1] == [Reason.DECOMPRESSION_BOMB]
    assert time.process_time() - begin < SECONDS


NESTED = {
    "explicit length": (ExplicitVRLittleEndian, lambda n: explicit(ELEMENT_ITEM * n), 410_000),
    "two levels": (ExplicitVRLittleEndian, lambda n: explicit(item(explicit(ELEMENT_ITEM * n))), 410_000),
    "a level of undefined length": (
        ExplicitVRLittleEndian,
        lambda n: SEQUENCE + ITEM[:8] + explicit(ELEMENT_ITEM * n) + ITEM[8:] + SEQUENCE_END,
        410_000,
    ),
    "deflated": (DeflatedExplicitVRLittleEndian, lambda n: explicit(ELEMENT_ITEM * n), 80_000),
}


@pytest.mark.parametrize("name", list(NESTED))
def test_elements_of_sequences_of_explicit_length_are_counted(tmp_path: Path, name: str) -> None:
    """pydicom reads such a sequence as one value, and parses it later."""
    syntax, make, number = NESTED[name]
    path = tmp_path / "bomb.dcm"
    path.write_bytes(part10(syntax, make(number)))
    for read in (_parsed, whole, open_dataset):
        begin = time.process_time()
        with pytest.raises(UnsafeInputError) as caught:
            read(path)
        assert caught.value.reason is Reason.DECOMPRESSION_BOMB
        assert time.process_time() - begin < SECONDS
    path.write_bytes(part10(syntax, make(100)))
    assert whole(path)


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_the_cost_of_a_sequence(implicit: bool, little: bool) -> None:
    """Two items with an element and a sequence with an empty item each: 4 items of cost 4, 4 elements of cost 1."""
    inner = pydicom.Dataset()
    inner.CodeMeaning = "x"
    inner.PurposeOfReferenceCodeSequence = [pydicom.Dataset()]
    outer = pydicom.Dataset()
    outer.ReferencedImageSequence = [inner, inner]
    out = io.BytesIO()
    pydicom.dcmwrite(out, outer, implicit_vr=implicit, little_endian=little)
    content = out.getvalue()[8 if implicit else 12 :]
    assert cost_of_elements(content, implicit, little, 1000) == 20
    assert cost_of_elements(content, implicit, little, 7) == 7
    assert cost_of_elements(content[:-9], implicit, little, 1000) <= 20


@pytest.mark.parametrize("start", [b"", part10(ImplicitVRLittleEndian, b""), part10(ExplicitVRLittleEndian, b"")])
def test_zeros_are_no_elements(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "zeros.dcm"
    with path.open("wb") as handle:
        handle.write(start)
        handle.truncate(400_000_000)
    begin = time.process_time()
    for read in (_parsed, _parsed_in_part, open_dataset):
        with pytest.raises(InputError) as caught:
            read(path)
        assert caught.value.reason is Reason.NOT_DICOM
    assert time.process_time() - begin < SECONDS


def test_zeros_behind_the_last_element_are_padding(tmp_path: Path) -> None:
    original = Path(str(get_testdata_file("CT_small.dcm")))
    path = tmp_path / "padded.dcm"
    path.write_bytes(original.read_bytes())
    with path.open("ab") as handle:
        handle.truncate(path.stat().st_size + 40_000_000)
    begin = time.process_time()
    expected = pydicom.dcmread(original)
    for read in (open_dataset, whole):
        assert read(path) == expected
    assert time.process_time() - begin < SECONDS


def test_inflating_stops_at_the_limit() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(bytes(5000)) + packer.flush()
    assert len(InflatingReader(io.BytesIO(packed), 5000).read(5000)) == 5000
    with pytest.raises(UnsafeInputError, match="more than 4999 bytes"):
        InflatingReader(io.BytesIO(packed), 4999).read(5001)


def test_quiet_ends_when_the_last_thread_leaves_it() -> None:
    """Two threads that overlap: the first to enter leaves first."""
    import threading
    import warnings

    from pydicom import config

    from ctenrich.dicom.quiet import quiet

    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            entered.set()
            left.wait(10)

    filters, mode = list(warnings.filters), config.settings.reading_validation_mode
    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        assert entered.wait(10)
    assert config.settings.reading_validation_mode == config.IGNORE, "the other thread is inside"
    left.set()
    thread.join()
    assert (list(warnings.filters), config.settings.reading_validation_mode) == (filters, mode)

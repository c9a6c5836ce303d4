"""The one-pass encoder writes the very bytes that pydicom writes."""

from __future__ import annotations

import io
import struct
from decimal import Decimal
from pathlib import Path

import pydicom
import pytest
from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pydicom.valuerep import DSfloat
from tests.support.encode_cases import make_masks, make_series

from ctenrich.dicom.writer import explicit_parts
from ctenrich.encode.seg import encode_seg
from ctenrich.settings import EncodeSettings, Settings
from ctenrich.workspace import Workspace


def by_pydicom(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def both(make: object) -> tuple[bytes, bytes]:
    """The same dataset, made twice: writing settles representations."""
    return b"".join(explicit_parts(make())), by_pydicom(make())  # type: ignore[operator]


ELEMENTS = [
    (0x00080005, "CS", "ISO_IR 192"),
    (0x00080008, "CS", ["ORIGINAL", "PRIMARY", "AXIAL"]),
    (0x00080018, "UI", "1.2.3"),
    (0x0008001A, "UI", ["1.2.3", "1.2.34"]),
    (0x00080020, "DA", "20200304"),
    (0x00080030, "TM", "101112.5"),
    (0x00080050, "SH", ""),
    (0x00080090, "PN", ""),
    (0x0008103E, "LO", "odd"),
    (0x00081190, "UR", "https://example.org/x"),
    (0x00100010, "PN", "Müller^Jürgen"),
    (0x00100020, "LO", "Größe 山"),
    (0x00101010, "AS", "071Y"),
    (0x00101001, "PN", ["A^B", "C^D"]),
    (0x00104000, "LT", "two\r\nlines"),
    (0x00180050, "DS", "2.50"),
    (0x00180088, "DS", DSfloat(1 / 3, auto_format=True)),
    (0x00189087, "FD", 0.1),
    (0x00189089, "FD", [0.1, -2.0, 1e300]),
    (0x00189219, "SS", -3),
    (0x00200013, "IS", 7),
    (0x00200032, "DS", ["-1.50", "2", "3e2"]),
    (0x00200037, "DS", [1.0, 0.0, 0.25]),
    (0x00209157, "UL", [3, 70000]),
    (0x00280009, "AT", 0x00540010),
    (0x00280010, "US", 512),
    (0x00280103, "US", 0),
    (0x00280106, "US or SS", 5),
    (0x0028135A, "CS", None),
    (0x00289001, "UL", []),
    (0x00400555, "SQ", []),
    (0x00420011, "OB", b"odd"),
    (0x00660040, "OL", b"\1\2\3\4"),
    (0x00720060, "IS", ["1", "-02"]),
    (0x00720064, "IS", "+7"),
    (0x00720078, "UL", 2**32 - 1),
    (0x00720076, "FL", -0.1),
    (0x0072007C, "SL", [-1, 2**31 - 1]),
    (0x00720072, "DS", Decimal("0.125")),
    (0x00720080, "US", [1, 2, 3]),
    (0x0040A168, "UC", "x" * 70001),
    (0x7FE00010, "OB or OW", b"\0\1\2"),
]


def everything() -> Dataset:
    dataset = Dataset()
    dataset.BitsAllocated = 8
    for tag, vr, value in ELEMENTS:
        dataset.add(DataElement(tag, vr, Sequence(value) if vr == "SQ" else value))
    return dataset


@pytest.mark.parametrize("number", range(len(ELEMENTS)), ids=[f"{t:08x}" for t, _, _ in ELEMENTS])
def test_each_kind_of_element(number: int) -> None:
    def one() -> Dataset:
        tag, vr, value = ELEMENTS[number]
        dataset = Dataset()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.BitsAllocated, dataset.PixelRepresentation = 8, 0
        dataset.add(DataElement(tag, vr, Sequence(value) if vr == "SQ" else value))
        return dataset

    mine, theirs = both(one)
    assert mine == theirs


def test_all_kinds_in_items_within_items() -> None:
    def tree() -> Dataset:
        shared, inner, root = everything(), Dataset(), everything()
        del shared.SpecificCharacterSet
        inner.ReferencedSeriesSequence = [shared, Dataset(), shared]
        root.ReferencedStudySequence = [inner, shared]
        root.SourceImageSequence = [shared]
        return root

    mine, theirs = both(tree)
    assert mine == theirs
    assert len(mine) > 4 * 70001


def test_the_character_set_of_the_root_rules_its_items() -> None:
    def latin() -> Dataset:
        item, root = Dataset(), Dataset()
        item.CodeMeaning = "Größe"
        root.SpecificCharacterSet = "ISO_IR 100"
        root.ConceptNameCodeSequence = [item]
        return root

    mine, theirs = both(latin)
    assert mine == theirs
    assert "Größe".encode("latin-1") in mine


@pytest.mark.parametrize("length", [0xFFFD, 0xFFFE, 0xFFFF, 0x10000])
@pytest.mark.filterwarnings("ignore:The value for the data element")
def test_values_about_as_long_as_their_length_can_say(length: int) -> None:
    def long() -> Dataset:
        dataset = Dataset()
        dataset.add(DataElement(0x00104000, "LT", "x" * length, validation_mode=config.IGNORE))
        return dataset

    mine, theirs = both(long)
    assert mine == theirs
    assert mine[4:6] == (b"LT" if length <= 0xFFFE else b"UN")


def test_elements_not_yet_decoded_and_items_of_undefined_length() -> None:
    def read() -> Dataset:
        item = b"\x10\x00\x20\x00LO\x04\x00ab  "
        sequence = b"\xfe\xff\x00\xe0" + struct.pack("<I", 0xFFFFFFFF) + item + b"\xfe\xff\x0d\xe0" + bytes(4)
        encoded = b"\x08\x00\x40\x11SQ\0\0" + struct.pack("<I", 0xFFFFFFFF)
        encoded += sequence + b"\xfe\xff\xdd\xe0" + bytes(4)
        dataset = pydicom.dcmread(io.BytesIO(encoded), force=True)
        out = Dataset()
        out.ReferencedImageSequence = dataset.ReferencedImageSequence
        out.ReferencedStudySequence = list(dataset.ReferencedImageSequence)
        out[0x00100020] = RawDataElement(Tag(0x00100020), "LO", 4, b"case", 0, False, True)
        return out

    mine, theirs = both(read)
    assert mine == theirs


def test_encapsulated_pixel_data() -> None:
    def image() -> Dataset:
        dataset = Dataset()
        dataset.BitsAllocated = 8
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9", b"\xff\xd8"])
        dataset["PixelData"].is_undefined_length = True
        return dataset

    mine, theirs = both(image)
    assert mine == theirs


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_a_file_is_the_one_pydicom_would_write(kind: str, tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct", PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 192")
    settings = Settings(encode=EncodeSettings(seg_type=kind, deflated_copy=True))  # type: ignore[arg-type]
    seg = encode_seg(make_masks(series, workspace), volume, series, settings=settings, workspace=workspace)
    path = workspace.resolve(series.series_instance_uid, seg.path)
    archived = path.parents[1] / "archive" / path.name
    for file in (path, archived) if kind != "LABELMAP" else (path,):
        dataset = pydicom.dcmread(file)
        fresh = Dataset()
        fresh.update({e.tag: e for e in dataset})  # decoded, as the encoder made them
        fresh.file_meta = FileMetaDataset(dataset.file_meta)
        buffer = io.BytesIO()
        dcmwrite(buffer, fresh, enforce_file_format=True)
        assert buffer.getvalue() == file.read_bytes()
        deflated = dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
        assert deflated is (file == archived)

"""The quick reader of headers gives what pydicom gives, or nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from tests.support.pydicom_files import damaged, pydicom_files
from tests.support.small_series import Small, save, small_slice

from ctenrich.dicom import reader as safe
from ctenrich.dicom.ct_slice import HEADER_TAGS, PIXEL_TAGS
from ctenrich.dicom.fast_header import HEAD
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import Parsed, open_dicom
from ctenrich.errors import CtenrichError

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
Found = tuple[object, ...]


def facts(parsed: Parsed, tags: tuple[str, ...]) -> Found:
    values = tuple(repr(parsed.dataset.get_item(Tag(t))) if t in parsed.dataset else None for t in tags)
    seen = tuple(repr(parsed.dataset.get(t)) for t in tags)
    return (*values, *seen, parsed.pixel_offset, parsed.pixel_length, parsed.transfer_syntax, parsed.little_endian)


def answer(path: Path, tags: tuple[str, ...]) -> Found:
    try:
        with quiet(), open_dicom(path, tags=tags) as parsed:
            return facts(parsed, tags)
    except CtenrichError as error:
        return (error.reason, error.message)
    except Exception as error:  # noqa: BLE001 - a value that pydicom cannot turn into Python, late
        return (type(error).__name__,)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[int, int]]:
    """Read a file with and without the quick reader; (number of sets of tags, how many the quick reader took)."""
    took: list[bool] = []
    quick = safe.fast_elements

    def counted(source: io.BytesIO, wanted: frozenset[int], implicit: bool) -> object:
        found = quick(source, wanted, implicit)
        took.append(found is not None)
        return found

    def compare(path: Path) -> tuple[int, int]:
        took.clear()
        for tags in (HEADER_TAGS, PIXEL_TAGS):
            monkeypatch.setattr(safe, "fast_elements", counted)
            ours = answer(path, tags)
            monkeypatch.setattr(safe, "fast_elements", lambda *_: None)
            assert ours == answer(path, tags), path.name
        return 2, sum(took)

    return compare


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_plain_headers_are_read_at_once(tmp_path: Path, both: Callable[[Path], tuple[int, int]], syntax: str) -> None:
    assert both(save(small_slice(Small(), 0), tmp_path / "x.dcm", syntax)) == (2, 2)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_before_and_between(
    tmp_path: Path, both: Callable[[Path], tuple[int, int]], undefined: bool, syntax: str
) -> None:
    data = small_slice(Small(), 0)
    inner, item, lone = Dataset(), Dataset(), Dataset()
    inner.CodeValue, inner.Rows = "113107", 7
    item.PurposeOfReferenceCodeSequence, item.ReferencedSOPInstanceUID = [inner, inner], "1.2.3"
    lone.RetrieveURL = "x" * 300
    data.ReferencedImageSequence, data.DeidentificationMethodCodeSequence = [item, item], [lone]
    data.RequestAttributesSequence = []
    for sequence in (data["ReferencedImageSequence"], item["PurposeOfReferenceCodeSequence"]):
        sequence.is_undefined_length = undefined
    data["RequestAttributesSequence"].is_undefined_length = undefined
    for one in (item, inner):
        one.is_undefined_length_sequence_item = undefined
    assert both(save(data, tmp_path / "x.dcm", syntax)) == (2, 2)


def test_what_is_not_plain_is_left_to_pydicom(tmp_path: Path, both: Callable[[Path], tuple[int, int]]) -> None:
    data = small_slice(Small(), 0)
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [2, 0, 16], b"\0\0\1\0"
    lut["LUTDescriptor"].VR = "US"
    data.ModalityLUTSequence = [lut]
    assert both(save(data, tmp_path / "lut.dcm"))[1] == 1, "one set of tags wants the sequence"
    data = small_slice(Small(), 0)
    data.add_new(0x00091010, "UN", b"\0" * HEAD)
    assert both(save(data, tmp_path / "long.dcm"))[1] == 0
    path = save(small_slice(Small(), 0), tmp_path / "vr.dcm")
    path.write_bytes(path.read_bytes().replace(b"\x18\x00\x50\x00DS", b"\x18\x00\x50\x00D?"))
    assert both(path)[1] == 0


def test_every_test_file_of_pydicom(both: Callable[[Path], tuple[int, int]]) -> None:
    paths = pydicom_files()
    assert len(paths) > 100
    assert sum(both(path)[1] for path in paths) > 80


@pytest.mark.parametrize("seed", range(4))
def test_damaged_test_files_of_pydicom(tmp_path: Path, both: Callable[[Path], tuple[int, int]], seed: int) -> None:
    rng, path, taken = np.random.default_rng(seed), tmp_path / "x.dcm", 0
    for source in pydicom_files():
        path.write_bytes(damaged(source.read_bytes()[:200_000], rng))
        taken += both(path)[1]
    assert taken > 20


def test_a_broken_character_set_is_left_to_pydicom(tmp_path: Path, both: Callable[[Path], tuple[int, int]]) -> None:
    path = save(small_slice(Small(), 0), tmp_path / "x.dcm")
    content = path.read_bytes()
    at = content.index(b"\x08\x00\x08\x00")
    for value, taken in ((b"ISO_IR 100", 2), (b"ISO_IR 10\0", 2), (b"\0SO_IR 100", 0)):
        element = b"\x08\x00\x05\x00CS" + len(value).to_bytes(2, "little") + value
        path.write_bytes(content[:at] + element + content[at:])
        assert both(path)[1] == taken, value


@pytest.mark.parametrize("seed", range(60))
def test_damage_changes_nothing(tmp_path: Path, both: Callable[[Path], tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = save(small_slice(Small(rows=4, columns=4), 0), tmp_path / "x.dcm", SYNTAXES[seed % 2])
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    for place in rng.integers(132, len(content), rng.integers(1, 8)):
        content[place] = rng.integers(0, 256)
    path.write_bytes(content.tobytes()[: len(content) if seed % 3 else rng.integers(200, len(content) + 1)])
    both(path)


@pytest.mark.data
@pytest.mark.parametrize("archive", ["LUNG1-005", "4D-Lung-113", "ref_objects", "awkward"])
def test_real_headers(real_data: Callable[[str], Path], both: Callable[[Path], tuple[int, int]], archive: str) -> None:
    paths = sorted(p for p in real_data(archive).rglob("*") if p.is_file())
    for path in paths[:: max(1, len(paths) // 40)]:
        both(path)

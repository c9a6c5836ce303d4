from __future__ import annotations

import contextlib
import resource
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from tests.support.small_series import Small, save, small_pixels, small_slice

from ctenrich.dicom.codestream import check_frame
from ctenrich.dicom.ct_slice import read_slice
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import HEADER_LIMIT, open_dataset, open_dicom
from ctenrich.dicom.values import text
from ctenrich.errors import CtenrichError, InputError, UnsafeInputError
from ctenrich.reasons import Reason


def deflated(path: Path, body: bytes) -> Path:
    """A deflated file whose data set is `body`."""
    whole = save(small_slice(Small(), 0), path, DeflatedExplicitVRLittleEndian).read_bytes()
    with path.open("rb") as handle:
        handle.seek(132)
        meta = handle.read(12)
        start = 132 + 12 + struct.unpack("<L", meta[8:12])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(whole[:start] + packer.compress(body) + packer.flush())
    return path


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    long = vr in {b"OW", b"OB", b"UN", b"SQ", b"UT"}
    length = b"\0\0" + struct.pack("<L", len(value)) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + vr + length + value


def test_a_bomb_of_four_hundred_megabytes_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    head = element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0") + element(8, 0x18, b"UI", b"1.2.3.4\0")
    bomb = deflated(tmp_path / "bomb.dcm", head + element(9, 0x1010, b"UN", b"\0" * (400 * 1024**2)))
    assert bomb.stat().st_size < 600_000
    script = f"""
        import resource
        from pathlib import Path
        from ctenrich.dicom.ct_slice import read_slice
        from ctenrich.dicom.reader import open_dataset, open_dicom
        from ctenrich.errors import UnsafeInputError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        def header(path):
            with open_dicom(path):
                pass
        for reader in (header, read_slice):
            try:
                reader(Path({str(bomb)!r}))
            except UnsafeInputError as error:
                print(error.reason.value)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * 1024**3, 6 * 1024**3)),
    )
    first, second, megabytes = done.stdout.split()
    assert (first, second) == ("DECOMPRESSION_BOMB", "DECOMPRESSION_BOMB")
    assert int(megabytes) < 4 * HEADER_LIMIT // 1024**2


def test_a_deflated_slice_may_not_hold_more_than_its_matrix(tmp_path: Path) -> None:
    data = small_slice(Small(), 0)
    data.PixelData = b"\0" * (200 * 1024**2)
    path = save(data, tmp_path / "x.dcm", DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 300_000
    with pytest.raises(InputError) as caught:
        read_slice(path)
    assert caught.value.reason is Reason.DECODE_ERROR
    with pytest.raises(UnsafeInputError) as bomb:
        open_dataset(path, max_unpacked=10**6)
    assert bomb.value.reason is Reason.DECOMPRESSION_BOMB


def test_a_deflated_slice_that_is_cut(tmp_path: Path) -> None:
    path = save(small_slice(Small(), 0), tmp_path / "x.dcm", DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_slice(path).hu, small_pixels(Small(), 0).astype(int) - 1024)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError) as caught:
        read_slice(path)
    assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_bytes_that_were_added_shift_the_pixels_and_are_refused(tmp_path: Path, syntax: str) -> None:
    """The pixels have the right number of bytes; what they pushed out at the end is no element."""
    path = save(small_slice(Small(), 0), tmp_path / "x.dcm", syntax)
    whole, size = path.read_bytes(), 2 * Small().rows * Small().columns
    for added in (b"\xff" * 64, b"\x12\x34" * 32):
        path.write_bytes(whole[:-size] + added + whole[-size:])
        with pytest.raises(InputError, match="not an element"):
            read_slice(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_elements_after_the_pixels_and_zeros_are_accepted(tmp_path: Path, syntax: str) -> None:
    data = small_slice(Small(), 0)
    data.add_new(0xFFFCFFFC, "OB", b"padding!" * 40)
    path = save(data, tmp_path / "x.dcm", syntax)
    expected = small_pixels(Small(), 0).astype(int) - 1024
    np.testing.assert_array_equal(read_slice(path).hu, expected)
    path = save(small_slice(Small(), 0), tmp_path / "y.dcm", syntax)
    path.write_bytes(path.read_bytes() + bytes(100))
    np.testing.assert_array_equal(read_slice(path).hu, expected)


@pytest.mark.parametrize("matrix", [(16, 16), (63, 64), (64, 63), (32, 64)])
def test_an_rle_frame_with_more_rows_than_the_header_says(tmp_path: Path, matrix: tuple[int, int]) -> None:
    """pydicom cuts off what is too much and only warns, so that another image would come out."""
    path = save(small_slice(Small(rows=64, columns=64), 0), tmp_path / "x.dcm", RLELossless)
    data = dcmread(path)
    data.Rows, data.Columns = matrix
    data.save_as(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="DECODE_ERROR: a segment"):
            read_slice(path)


@pytest.mark.parametrize("zeros", [1, 2, 30])
def test_an_rle_frame_with_padding_is_read(tmp_path: Path, zeros: int) -> None:
    small = Small(rows=64, columns=64)
    path = save(small_slice(small, 0), tmp_path / "x.dcm", RLELossless)
    data = dcmread(path)
    frame = next(generate_frames(data.PixelData, number_of_frames=1))
    data.PixelData = encapsulate([frame + bytes([0] * (zeros + zeros % 2))])
    data.save_as(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(read_slice(path).hu, small_pixels(small, 0).astype(int) - 1024)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_a_compressed_frame_whose_header_lies(tmp_path: Path, syntax: str) -> None:
    small = Small(rows=64, columns=64)
    path = save(small_slice(small, 0), tmp_path / "x.dcm", syntax)
    np.testing.assert_array_equal(read_slice(path).hu, small_pixels(small, 0).astype(int) - 1024)
    data = dcmread(path)
    data.Rows, data.Columns = 8000, 8000
    data.save_as(path)
    with pytest.raises(InputError) as caught:
        read_slice(path)
    assert caught.value.reason in {Reason.TRUNCATED, Reason.DECODE_ERROR}
    data.Rows, data.Columns = 16, 16
    data.save_as(path)
    with pytest.raises(InputError) as caught:
        read_slice(path)
    assert caught.value.reason in {Reason.DECOMPRESSION_BOMB, Reason.DECODE_ERROR}


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_compressed_frame_that_is_cut(tmp_path: Path, syntax: str, keep: float) -> None:
    path = save(small_slice(Small(rows=64, columns=64), 0), tmp_path / "x.dcm", syntax)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError) as caught:
        read_slice(path)
    assert caught.value.reason in {Reason.TRUNCATED, Reason.DECODE_ERROR}


def test_a_code_stream_of_many_components_or_tiles_is_never_decoded(tmp_path: Path) -> None:
    small = Small(rows=640, columns=640)
    data = dcmread(save(small_slice(small, 0), tmp_path / "x.dcm", JPEG2000Lossless))
    good = next(generate_frames(data.PixelData, number_of_frames=1))
    siz = good.index(b"\xff\x4f\xff\x51")
    components, tiles, no_tile = bytearray(good), bytearray(good), bytearray(good)
    struct.pack_into(">H", components, siz + 40, 16384)
    struct.pack_into(">2L", tiles, siz + 24, 8, 8)
    struct.pack_into(">2L", no_tile, siz + 24, 0, 0)
    jpeg = bytearray(jpeg_lossless(small_pixels(small, 0)[:640:80, :640:80]))
    check_frame(bytes(jpeg), JPEGLosslessSV1, 8, 8, 128)
    jpeg[jpeg.index(b"\xff\xc3") + 9] = 4
    for frame, side in ((components, 640), (tiles, 640), (jpeg, 8)):
        with pytest.raises(UnsafeInputError) as caught:
            check_frame(bytes(frame), JPEG2000Lossless, side, side, side * side * 2)
        assert caught.value.reason is Reason.DECOMPRESSION_BOMB
    data.PixelData = encapsulate([bytes(components)])
    data.save_as(tmp_path / "x.dcm")
    with pytest.raises(UnsafeInputError):
        read_slice(tmp_path / "x.dcm")
    with pytest.raises(InputError) as broken:
        check_frame(bytes(no_tile), JPEG2000Lossless, 640, 640, 640 * 640 * 2)
    assert broken.value.reason is Reason.DECODE_ERROR


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
)
@pytest.mark.parametrize("elements", [{}, {"RescaleSlope": 2}, {"BitsStored": 12, "HighBit": 11}], ids=str)
def test_a_slice_is_the_same_wherever_it_goes(tmp_path: Path, syntax: str, elements: dict[str, int]) -> None:
    small = Small(rows=20, columns=24, elements=elements)
    path = save(small_slice(small, 0), tmp_path / "x.dcm", syntax)
    alone = read_slice(path)
    np.testing.assert_array_equal(alone.hu, small_pixels(small, 0).astype(int) * elements.get("RescaleSlope", 1) - 1024)
    stack, strided = np.full((3, 20, 24), 7, np.int16), np.full((20, 48), 7, np.int16)
    for target in (stack[1], strided[:, ::2]):
        pixels = read_slice(path, target)
        np.testing.assert_array_equal(target, alone.hu)
        assert np.may_share_memory(pixels.hu, target)
        assert replace(pixels, hu=alone.hu) == replace(alone, hu=alone.hu)
    assert (stack[[0, 2]] == 7).all()
    assert (strided[:, 1::2] == 7).all()
    other = np.full((24, 20), 7, np.int16)
    assert read_slice(path, other).hu.shape == (20, 24)
    assert (other == 7).all()


def test_noise_in_a_compressed_frame_is_a_decode_error(tmp_path: Path) -> None:
    data = small_slice(Small(), 0)
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = encapsulate([np.random.default_rng(1).bytes(500)])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(InputError) as caught:
        read_slice(tmp_path / "x.dcm")
    assert caught.value.reason is Reason.DECODE_ERROR


def jpeg_lossless(values: np.ndarray) -> bytes:
    """Encode unsigned 16-bit values as JPEG lossless, selection value 1 (ISO/IEC 10918-1 H): the test's own encoder."""
    rows, columns = values.shape
    wide = values.astype(np.int64)
    predicted = np.empty_like(wide)
    predicted[:, 1:] = wide[:, :-1]
    predicted[1:, 0] = wide[:-1, 0]
    predicted[0, 0] = 1 << 15
    differences = ((wide - predicted + 32768) & 0xFFFF) - 32768
    bits: list[str] = []
    for d in differences.ravel().tolist():
        size = abs(d).bit_length()
        bits.append(f"{size:05b}")  # the table below gives category n the 5-bit code n
        if 0 < size < 16:
            bits.append(f"{d if d > 0 else d + (1 << size) - 1:0{size}b}")
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    packed = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = b"\x00" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
    frame = struct.pack(">BHHB", 16, rows, columns, 1) + b"\x01\x11\x00"
    scan = b"\x01\x01\x00\x01\x00\x00"

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    return b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan) + packed + b"\xff\xd9"


def test_jpeg_lossless(tmp_path: Path) -> None:
    small = Small(rows=40, columns=52)
    data = small_slice(small, 0)
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.PixelData = encapsulate([jpeg_lossless(small_pixels(small, 0))])
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
    data.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_slice(tmp_path / "x.dcm").hu, small_pixels(small, 0).astype(int) - 1024)


def test_every_test_file_of_pydicom_is_read_or_refused_with_a_reason() -> None:
    paths = sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))
    assert len(paths) > 50
    seen: dict[str, int] = {"read": 0}
    with quiet():
        for path in paths:
            try:
                with open_dicom(path) as parsed:
                    assert text(parsed.dataset, "SOPClassUID") is not None
                read_slice(path)
                seen["read"] += 1
            except CtenrichError as error:
                seen[error.reason.value] = seen.get(error.reason.value, 0) + 1
    assert seen["read"] >= 10
    assert set(seen) <= {
        "read",
        "NOT_DICOM",
        "TRUNCATED",
        "DECODE_ERROR",
        "MULTIFRAME",
        "HU_RANGE",
        "DECOMPRESSION_BOMB",
    }


@pytest.mark.parametrize("seed", range(150))
def test_damaged_files_never_raise_anything_else(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    syntax = [None, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless][seed % 4]
    path = tmp_path / "x.dcm"
    save(small_slice(Small(rows=32, columns=32), 0), path, *([syntax] if syntax else []))
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    for place in rng.integers(128, len(content), rng.integers(1, 12)):
        content[place] = rng.integers(0, 256)
    path.write_bytes(content.tobytes()[: rng.integers(200, len(content) + 1)])
    with contextlib.suppress(CtenrichError), quiet():  # any other kind of error fails the test
        read_slice(path)
        open_dataset(path)

"""Compressed frames: every transfer syntax has a decoder of a permissive licence, and gives pydicom's pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom.data
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.uid import (
    JPEG2000,
    UID,
    AllTransferSyntaxes,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from tests.dicom.test_ct_slice import jpeg_lossless
from tests.support.small_series import Small, save, small_pixels, small_slice

from ctenrich.dicom import decoders
from ctenrich.dicom.ct_slice import read_slice
from ctenrich.dicom.decoders import decoder_and_plugins
from ctenrich.dicom.frames import frame_pixels
from ctenrich.dicom.quiet import quiet
from ctenrich.errors import InputError

SMALL = Small(rows=40, columns=56)
FILES = Path(pydicom.data.__file__).parent / "test_files"


def twelve_bits() -> NDArray[np.uint16]:
    j, i = np.mgrid[: SMALL.rows, : SMALL.columns]
    return (1000 + 20 * i + 15 * j).astype(np.uint16)


def eight_bits() -> NDArray[np.uint8]:
    return (twelve_bits() // 16).astype(np.uint8)


def stored(path: Path, syntax: str, frame: bytes, **elements: Any) -> Path:
    """A slice with this compressed frame."""
    data = small_slice(SMALL, 0)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.PixelData = encapsulate([frame])
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)
    return path


TWELVE = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_jpeg_lossless_gives_the_encoded_values(tmp_path: Path, syntax: str) -> None:
    path = stored(tmp_path / "x.dcm", syntax, jpeg_lossless(twelve_bits()), **TWELVE)
    np.testing.assert_array_equal(read_slice(path).hu, twelve_bits())


def test_jpeg_ls_near_lossless_keeps_its_promise(tmp_path: Path) -> None:
    frame = imagecodecs.jpegls_encode(twelve_bits(), level=3)
    path = stored(tmp_path / "x.dcm", JPEGLSNearLossless, frame, **TWELVE)
    assert 0 < np.abs(read_slice(path).hu - twelve_bits().astype(int)).max() <= 3


@pytest.mark.parametrize(
    ("syntax", "frame", "elements", "largest"),
    [
        (JPEGBaseline8Bit, imagecodecs.jpeg8_encode(eight_bits(), level=95), EIGHT, 4),
        (JPEGExtended12Bit, imagecodecs.jpeg8_encode(twelve_bits(), level=95, bitspersample=12), TWELVE, 20),
        (JPEGExtended12Bit, imagecodecs.jpeg8_encode(eight_bits(), level=95), EIGHT, 4),
        (JPEG2000, imagecodecs.jpeg2k_encode(twelve_bits(), level=60, bitspersample=12, codecformat=0), TWELVE, 40),
    ],
    ids=["baseline", "extended, 12 bits", "extended, 8 bits", "JPEG 2000"],
)
def test_lossy_frames_are_close_to_what_was_encoded(
    tmp_path: Path, syntax: str, frame: bytes, elements: dict[str, int], largest: int
) -> None:
    expected = eight_bits() if elements is EIGHT else twelve_bits()
    path = stored(tmp_path / "x.dcm", syntax, frame, **elements)
    assert np.abs(read_slice(path).hu - expected.astype(int)).max() <= largest


def compressed_files() -> list[str]:
    found = []
    for path in sorted(FILES.glob("*.dcm")):
        with quiet():
            data = dcmread(path, force=True, stop_before_pixels=True)
        syntax = UID(getattr(data, "file_meta", Dataset()).get("TransferSyntaxUID", ""))
        if syntax.is_transfer_syntax and syntax.is_encapsulated and "Rows" in data:
            found.append(path.name)
    return found


@pytest.mark.parametrize("name", compressed_files())
def test_the_pixels_of_pydicoms_own_files_are_those_that_pydicom_decodes(name: str) -> None:
    """pydicom takes the first decoder that it finds: lossy frames may differ by a step."""
    with quiet():
        data = dcmread(FILES / name, force=True)
        decoder, plugins = decoder_and_plugins(data.file_meta.TransferSyntaxUID)
        try:
            expected = decoder.as_array(data, raw=True)[0]
        except RuntimeError:
            with pytest.raises(RuntimeError):
                decoder.as_array(data, raw=True, decoding_plugin=plugins[0])
            return
        found = decoder.as_array(data, raw=True, decoding_plugin=plugins[0])[0]
    lossy = data.file_meta.TransferSyntaxUID in {JPEGBaseline8Bit, JPEGExtended12Bit}
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1 if lossy else 0)


def test_the_twelve_bit_file_has_the_values_that_pydicom_publishes() -> None:
    """Values of JPGExtended.dcm in pydicom's own tests."""
    (plane,) = frame_pixels(dcmread(FILES / "JPGExtended.dcm"))
    assert (plane[420, 140], plane[230, 120]) == (244, 95)


def test_every_transfer_syntax_that_pydicom_decodes_has_a_decoder_of_ours_first() -> None:
    known = [syntax for syntax in AllTransferSyntaxes if syntax in _PIXEL_DATA_DECODERS and syntax.is_encapsulated]
    assert {JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, RLELossless, HTJ2KLossless} <= set(known)
    best = {syntax: decoder_and_plugins(syntax)[1][0] for syntax in known}
    assert {best[syntax] for syntax in (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)} == {"imagecodecs"}
    assert best[JPEGBaseline8Bit] == "pillow"
    assert all("gdcm" not in decoder_and_plugins(syntax)[1] for syntax in known), "it can abort on a damaged frame"
    assert best[JPEGLSLossless] == best[JPEGLSNearLossless] == "pyjpegls"
    assert best[JPEG2000Lossless] == best[JPEG2000] == best[HTJ2KLossless] == "pylibjpeg", "with openjpeg"
    assert best[RLELossless] == "pydicom"


def test_a_decoder_that_fails_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(small_slice(SMALL, 0), tmp_path / "x.dcm", JPEG2000Lossless)
    decoder, plugins = decoder_and_plugins(JPEG2000Lossless)
    assert plugins[:2] == ("pylibjpeg", "pillow")
    monkeypatch.setattr(decoders, "_prepared_decoder", lambda _: decoder)
    monkeypatch.setitem(decoder._available, "pylibjpeg", lambda *_: 1 / 0)
    np.testing.assert_array_equal(read_slice(path).hu, small_pixels(SMALL, 0).astype(int) - 1024)


def test_a_transfer_syntax_without_a_decoder_is_a_decode_error(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.dcm", "1.2.840.10008.1.2.4.100", b"\0" * 20)
    with pytest.raises(InputError, match="no decoder for the transfer syntax"):
        read_slice(path)

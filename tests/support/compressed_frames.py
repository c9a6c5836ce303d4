"""Encoders of single frames, and series of such frames, for the tests of readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID, RLELossless

from ctenrich.dicom.quiet import quiet
from tests.support.small_series import Small, small_slice

__all__ = ["COLUMNS", "ROWS", "SLICES", "Encoder", "jpeg", "jpeg2000", "jpegls", "rle", "stored_bits", "write_frames"]

SLICES, ROWS, COLUMNS = 3, 36, 44
Encoder = Callable[[np.ndarray], bytes]


def rle(pixels: np.ndarray) -> bytes:
    frame = get_encoder(RLELossless).encode(
        pixels,
        rows=ROWS,
        columns=COLUMNS,
        samples_per_pixel=1,
        bits_allocated=8 * pixels.itemsize,
        bits_stored=8 * pixels.itemsize,
        pixel_representation=int(pixels.dtype.kind == "i"),
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
    )
    return bytes(frame)


def jpegls(near: int = 0) -> Encoder:
    return lambda pixels: bytes(imagecodecs.jpegls_encode(pixels, level=near))


def jpeg(bits: int, *, predictor: int = 0, quality: int = 100) -> Encoder:
    """DCT, or lossless with one of the predictors 1 to 7."""
    if predictor:
        return lambda p: bytes(imagecodecs.jpeg8_encode(p, lossless=True, predictor=predictor, bitspersample=bits))
    return lambda pixels: bytes(imagecodecs.jpeg8_encode(pixels, level=quality, bitspersample=bits))


def jpeg2000(bits: int, *, ratio: float = 0, high_throughput: bool = False) -> Encoder:
    """JPEG 2000: reversible unless a compression ratio is given; signed if the pixels are."""
    if high_throughput and ratio:
        return lambda pixels: bytes(imagecodecs.htj2k_encode(pixels, reversible=False, level=1e-5))
    if high_throughput:
        return lambda pixels: bytes(imagecodecs.htj2k_encode(pixels, reversible=True))
    ratios = [ratio] if ratio else None
    return lambda pixels: bytes(
        encode_array(pixels, bits_stored=bits, photometric_interpretation=2, use_mct=False, compression_ratios=ratios)
    )


def stored_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """The low bits of signed values, as an unsigned array: bits above Bits Stored are 0."""
    return (pixels.astype(np.int64) & ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def write_frames(
    folder: Path,
    syntax: str,
    frames: list[bytes],
    *,
    fragments: int = 1,
    table: bool = True,
    elements: dict[str, object] | None = None,
) -> Path:
    """Write a series whose slices have these frames, encoded already, as pixel data."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(frames):
        small = Small(count=len(frames), rows=ROWS, columns=COLUMNS, elements=elements or {})
        with quiet():
            _with_pixels(small_slice(small, k), syntax, frame, fragments, table).save_as(
                folder / f"{k}.dcm", enforce_file_format=True
            )
    return folder


def _with_pixels(data: Dataset, syntax: str, frame: bytes, fragments: int, table: bool) -> Dataset:
    data.file_meta.TransferSyntaxUID = UID(syntax)
    if UID(syntax).is_encapsulated:
        even = frame + b"\0" * (len(frame) % 2)
        data.PixelData = encapsulate([even], fragments_per_frame=fragments, has_bot=table)
        data["PixelData"].is_undefined_length = True
    else:
        data.PixelData = frame
    data["PixelData"].VR = "OB" if UID(syntax).is_encapsulated or data.BitsAllocated == 8 else "OW"
    return data

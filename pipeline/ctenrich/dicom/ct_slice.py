"""One CT slice: its header as the geometry rules want it, its pixel data as Hounsfield units, any transfer syntax."""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from ctenrich.dicom import codestream
from ctenrich.dicom.datetimes import parse_temporal
from ctenrich.dicom.decoders import decoder_and_plugins
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import Parsed, open_dicom
from ctenrich.dicom.streams import InflatingReader
from ctenrich.dicom.values import joined_text, number, numbers, text, texts, whole
from ctenrich.errors import CtenrichError, InputError, UnsafeInputError
from ctenrich.geometry import MARKS, TIMES, SliceHeader, SliceMarks, slice_marks
from ctenrich.reasons import Reason

__all__ = [
    "AIR",
    "HEADER_TAGS",
    "NATIVE",
    "PIXEL_TAGS",
    "PixelFormat",
    "SlicePixels",
    "acquisition_marks",
    "pixel_format",
    "read_slice",
    "same_image",
    "slice_header",
]

AIR = -1024
"""HU that padding becomes."""
AIR_RANGE = (-1200, -200)
"""HU of air, lung and the bed in a CT; lower values are padding that no element declares."""
PADDING_BELOW = -1000
"""HU; padding is replaced only if its value is below that of air, never if it is the value of a tissue."""
MAX_SIDE = 16384
MAX_PIXELS = 8192 * 8192
"""Largest matrix of one slice that is read (128 MiB at 16 bits)."""
_SHORTEST_ELEMENT = 8
_PIXEL_DATA, _TRAILING_PADDING = (0x7FE0, 0x0010), (0xFFFC, 0xFFFC)
_LARGEST_PADDING = 2**24
"""Bytes of padding after the pixels that are read, to check that they are zero."""
UNDEFINED = 0xFFFFFFFF
NATIVE = frozenset(
    {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)
_MARK_TAGS = tuple(mark for mark in MARKS if not mark.startswith("ImageType"))
HEADER_TAGS = (
    "SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImageType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "NumberOfFrames", "InstanceNumber", "BitsAllocated", "SamplesPerPixel", "PatientID", "IssuerOfPatientID",
    "StudyID", "AccessionNumber", "RescaleSlope", "RescaleIntercept", "RescaleType", *_MARK_TAGS, *TIMES,
)  # fmt: skip
PIXEL_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "ImagePositionPatient", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)  # fmt: skip


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a slice are stored (PS3.3 C.7.6.3, C.11.1, C.7.5.1.1.2)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    padding: int | None
    """Pixel Padding Value as a stored value."""
    padding_limit: int | None

    @property
    def bytes(self) -> int:
        """Length of the unpacked frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class SlicePixels:
    """One decoded slice."""

    sop_instance_uid: str
    position: tuple[float, ...] | None
    hu: NDArray[np.int16]
    """[row j, column i], Hounsfield units, rounded to integers; padding is as stored x slope + intercept."""
    format: PixelFormat
    transfer_syntax: str
    slope: float
    intercept: float
    padding_hu: tuple[int, int] | None
    """Range of HU, ends included, that is padding; None where there is none, or it is not below air."""
    rescale_type: str = ""
    """Rescale Type in capitals; empty where it is absent, or where there is no rescale."""
    fraction: float = 0.0
    """Largest difference of a rescaled value from the whole number that it was rounded to, HU."""
    air_pixels: int | None = None
    """Pixels of a plausible HU of air or lung (-1200 to -200) that are not padding; None where Rescale Type is HU."""
    notes: tuple[str, ...] = ()
    """What is worth an issue: rounded values, missing rescale, high bits, a padding value in the range of tissue."""


def slice_header(data: Dataset) -> SliceHeader:
    """What the geometry rules need, of a data set's elements."""
    return SliceHeader(
        sop_instance_uid=text(data, "SOPInstanceUID"),
        sop_class_uid=text(data, "SOPClassUID"),
        modality=text(data, "Modality"),
        image_type=texts(data, "ImageType"),
        position=numbers(data, "ImagePositionPatient"),
        orientation=numbers(data, "ImageOrientationPatient"),
        pixel_spacing=numbers(data, "PixelSpacing"),
        rows=whole(data, "Rows"),
        columns=whole(data, "Columns"),
        number_of_frames=whole(data, "NumberOfFrames") or 1,
        frame_of_reference_uid=text(data, "FrameOfReferenceUID"),
        rescale=(
            joined_text(data, "RescaleSlope"),
            joined_text(data, "RescaleIntercept"),
            joined_text(data, "RescaleType"),
        ),
        marks=acquisition_marks(data),
    )


def acquisition_marks(data: Dataset) -> SliceMarks:
    """Attributes of a data set's elements that tell acquisitions apart (PS3.3 C.7.6.1, C.8.2.1)."""
    texts_ = tuple(joined_text(data, name) for name in _MARK_TAGS)
    times = tuple(joined_text(data, name) for name in TIMES)
    return _marks_of(texts_, texts(data, "ImageType"), times)


@lru_cache(maxsize=4096)
def _marks_of(values: tuple[str, ...], image_type: tuple[str, ...], times: tuple[str, ...]) -> SliceMarks:
    """The marks of slices with these texts: most slices of a series have the same."""
    stamps = {}
    for name, value in zip(TIMES, times, strict=True):
        moment = parse_temporal("DT" if name == "AcquisitionDateTime" else "TM", value)
        if isinstance(moment, dt.datetime):
            stamps[name] = (moment - _EPOCH) // _MICROSECOND
        elif isinstance(moment, dt.time):
            stamps[name] = (dt.datetime.combine(_EPOCH, moment, dt.UTC) - _EPOCH) // _MICROSECOND
    return slice_marks(dict(zip(_MARK_TAGS, values, strict=True)), image_type, stamps)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def pixel_format(data: Dataset) -> PixelFormat:
    """How the pixels of a slice are stored, checked.

    Raises
    ------
    InputError
        DECODE_ERROR for what is no monochrome integer image, MULTIFRAME for more than one frame.
    UnsafeInputError
        DECOMPRESSION_BOMB for a matrix above the limit.
    """
    values = {k: whole(data, k) for k in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")}
    if any(v is None for v in values.values()):
        missing = ", ".join(k for k, v in values.items() if v is None)
        raise InputError(Reason.DECODE_ERROR, f"a slice does not state {missing}")
    rows, columns, allocated, stored, signed = (v or 0 for v in values.values())
    if (whole(data, "NumberOfFrames") or 1) > 1:
        raise InputError(Reason.MULTIFRAME, "an image has more than one frame")
    if rows > MAX_SIDE or columns > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"a slice claims a matrix of {rows} x {columns}")
    photometric = text(data, "PhotometricInterpretation")
    samples = whole(data, "SamplesPerPixel") or 1
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        raise InputError(
            Reason.DECODE_ERROR, f"a slice is not monochrome ({samples} samples, {photometric or 'unknown'})"
        )
    high = whole(data, "HighBit")
    high = stored - 1 if high is None else high
    if allocated not in {8, 16, 32} or not 0 < stored <= allocated or high != stored - 1 or rows < 1 or columns < 1:
        raise InputError(Reason.DECODE_ERROR, f"a slice has {stored} of {allocated} bits, high bit {high}")
    padding, limit = (
        _stored_value(data, k, stored, bool(signed)) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    )
    return PixelFormat(rows, columns, allocated, stored, high, bool(signed), photometric, padding, limit)


def read_slice(path: Path, out: NDArray[np.int16] | None = None) -> SlicePixels:
    """Decode one CT slice.

    Parameters
    ----------
    path : Path
        A single-frame CT image, any transfer syntax of `ctenrich.dicom.decoders`.
    out : array, optional
        [row j, column i], int16, contiguous, where the slice goes if its matrix is this one; plain 16-bit pixels are
        read right into it.

    Returns
    -------
    SlicePixels
        The array has the axes [row j, column i], int16, Hounsfield units.

    Raises
    ------
    InputError
        NOT_DICOM, TRUNCATED, DECODE_ERROR, MULTIFRAME, HU_RANGE, IO_ERROR.
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    with open_dicom(path, tags=PIXEL_TAGS) as parsed:
        data = parsed.dataset
        form = pixel_format(data)
        if parsed.pixel_offset is None:
            raise InputError(Reason.TRUNCATED, "a slice has no pixel data")
        native = parsed.transfer_syntax in NATIVE
        if out is not None and out.shape != (form.rows, form.columns):
            out = None
        notes = list(parsed.notes)
        stored = _read_native(parsed, form, notes, out) if native else _read_encapsulated(parsed, form, path)
    stored = _used_bits(stored, form, notes)
    slope, intercept = _rescale(data, notes)
    hu, fraction = _to_hu(stored, slope, intercept, notes)
    if out is not None and not np.may_share_memory(hu, out):
        out[:] = hu
        hu = out
    rescale_type = joined_text(data, "RescaleType").upper() if joined_text(data, "RescaleSlope") else ""
    padding = _padding_hu(form, slope, intercept, notes)
    return SlicePixels(
        sop_instance_uid=text(data, "SOPInstanceUID"),
        position=numbers(data, "ImagePositionPatient"),
        hu=hu,
        format=form,
        transfer_syntax=parsed.transfer_syntax,
        slope=slope,
        intercept=intercept,
        padding_hu=padding,
        rescale_type=rescale_type,
        fraction=fraction,
        air_pixels=None if rescale_type == "HU" else _count_air(hu, padding),
        notes=tuple(notes),
    )


def same_image(first: Path, second: Path) -> bool:
    """Whether two files hold one image: equal UIDs and geometry, equal Hounsfield units, equal padding.

    Parameters
    ----------
    first, second : Path
        CT images.

    Returns
    -------
    bool
        False also where one of them cannot be decoded.
    """
    try:
        with quiet():
            headers = [_image_header(path) for path in (first, second)]
            if headers[0] != headers[1]:
                return False
            a, b = read_slice(first), read_slice(second)
    except CtenrichError:
        return False
    return bool(np.array_equal(a.hu, b.hu)) and a.padding_hu == b.padding_hu


def _image_header(path: Path) -> tuple[SliceHeader, str, str]:
    with open_dicom(path, tags=HEADER_TAGS) as parsed:
        data = parsed.dataset
        return slice_header(data), text(data, "StudyInstanceUID"), text(data, "SeriesInstanceUID")


def _dtype(form: PixelFormat, little: bool = True) -> np.dtype[Any]:
    order = "<" if little else ">"
    return np.dtype(f"{order}{'i' if form.signed else 'u'}{form.bits_allocated // 8}")


def _read_native(
    parsed: Parsed, form: PixelFormat, notes: list[str], out: NDArray[np.int16] | None = None
) -> NDArray[Any]:
    if parsed.pixel_length == UNDEFINED:
        raise InputError(Reason.DECODE_ERROR, "a slice's pixel data are encapsulated, its transfer syntax is not")
    excess = parsed.pixel_length - form.bytes - form.bytes % 2
    if parsed.pixel_length < form.bytes or excess > _LARGEST_PADDING:
        reason = Reason.TRUNCATED if parsed.pixel_length < form.bytes else Reason.DECODE_ERROR
        raise InputError(reason, f"a slice has {parsed.pixel_length} bytes of pixel data where {form.bytes} are needed")
    kind = _dtype(form, parsed.little_endian)
    fits = out is not None and kind.itemsize == 2 and out.flags.c_contiguous
    array = out.view(kind) if out is not None and fits else np.empty((form.rows, form.columns), kind)
    stream = parsed.stream
    if isinstance(stream, InflatingReader):
        stream.allow((parsed.pixel_offset or 0) + parsed.pixel_length)
    stream.seek(parsed.pixel_offset or 0)
    if stream.readinto(array.reshape(-1).view(np.uint8).data) != form.bytes:  # type: ignore[attr-defined]
        raise InputError(Reason.TRUNCATED, "a slice's file ends inside its pixel data")
    if excess > 0:
        rest = stream.read(parsed.pixel_length - form.bytes)
        if rest[form.bytes % 2 :].strip(b"\0"):
            message = f"a slice has {parsed.pixel_length} bytes of pixel data where {form.bytes} are needed"
            raise InputError(Reason.DECODE_ERROR, f"{message}, and the rest is not zero")
        notes.append("zero bytes follow the pixels in Pixel Data (PS3.5 8.1.1); they were left out")
    if not isinstance(stream, InflatingReader):
        _check_rest(stream.read(_LARGEST_PADDING), parsed)
    return array if parsed.little_endian else array.astype(_dtype(form))


def _check_rest(rest: bytes, parsed: Parsed) -> None:
    """Refuse a file whose bytes after Pixel Data are neither an element nor zero: its pixels may be shifted."""
    if len(rest) < _SHORTEST_ELEMENT or not rest.strip(b"\0") or _starts_with_element(rest, parsed):
        return
    raise InputError(Reason.DECODE_ERROR, "the bytes after a slice's pixel data are not an element of DICOM")


def _starts_with_element(rest: bytes, parsed: Parsed) -> bool:
    """Whether bytes begin with an element that may follow Pixel Data, e.g. Data Set Trailing Padding (PS3.10 7.2)."""
    order = "<" if parsed.little_endian else ">"
    tag = struct.unpack(f"{order}HH", rest[:4])
    if not _PIXEL_DATA < tag <= _TRAILING_PADDING:
        return False
    start, length = 8, struct.unpack(f"{order}I", rest[4:8])[0]
    if parsed.transfer_syntax != ImplicitVRLittleEndian:
        representation = rest[4:6].decode("latin-1")
        if representation in EXPLICIT_VR_LENGTH_32 and len(rest) >= 12:
            start, length = 12, struct.unpack(f"{order}I", rest[8:12])[0]
        elif representation in STANDARD_VR:
            length = struct.unpack(f"{order}H", rest[6:8])[0]
        else:
            return False
    return length == UNDEFINED or start + length <= len(rest) or len(rest) == _LARGEST_PADDING


def _read_encapsulated(parsed: Parsed, form: PixelFormat, path: Path) -> NDArray[Any]:
    """Decode a compressed frame, after its own header was held against the DICOM header."""
    try:
        decoder, plugins = decoder_and_plugins(parsed.transfer_syntax)
    except NotImplementedError as error:
        message = f"no decoder for the transfer syntax {parsed.transfer_syntax[:64]}"
        raise InputError(Reason.DECODE_ERROR, message) from error
    size = path.stat().st_size - (parsed.pixel_offset or 0)
    parsed.stream.seek(parsed.pixel_offset or 0)
    frame = codestream.single_frame(parsed.stream.read(size))
    codestream.check_frame(frame, parsed.transfer_syntax, form.rows, form.columns, form.bytes)
    options: dict[str, Any] = {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": form.bits_allocated,
        "bits_stored": form.bits_stored,
        "pixel_representation": int(form.signed),
        "photometric_interpretation": form.photometric,
        "pixel_keyword": "PixelData",
    }
    array = _decode(decoder, plugins, codestream.encapsulated(frame), options)
    if array.shape != (form.rows, form.columns):
        raise InputError(Reason.DECODE_ERROR, "a slice's pixel data have another matrix than its header says")
    return _with_sign(np.ascontiguousarray(array), form)


def _with_sign(decoded: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Extend the sign of values from a code stream that has none (JPEG, JPEG-LS) and as many bits as Bits Stored."""
    spare = form.bits_allocated - form.bits_stored
    if not form.signed or spare == 0 or int(decoded.min()) < 0 or int(decoded.max()) >= 1 << form.bits_stored:
        return decoded
    return np.asarray(np.right_shift(np.left_shift(decoded, spare), spare))


def _decode(decoder: Decoder, plugins: tuple[str, ...], value: bytes, options: dict[str, Any]) -> NDArray[Any]:
    """Decode with the first plug-in that can; the best one's error counts where none can."""
    first: Exception | None = None
    for plugin in plugins:
        try:
            array: NDArray[Any] = decoder.as_array(value, index=0, raw=True, decoding_plugin=plugin, **options)[0]
        except CtenrichError:
            raise
        except MemoryError as error:
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, "a slice asks for more memory than there is") from error
        except Exception as error:  # noqa: BLE001  each decoder has its own errors
            first = first or error
        else:
            return array
    message = f"a slice's pixel data cannot be decoded ({type(first).__name__})"
    raise InputError(Reason.DECODE_ERROR, message) from first


def _used_bits(stored: NDArray[Any], form: PixelFormat, notes: list[str]) -> NDArray[Any]:
    """Keep the low Bits Stored bits, sign-extended where signed (PS3.5 8.1.1)."""
    spare = form.bits_allocated - form.bits_stored
    low = -(1 << form.bits_stored - 1) if form.signed else 0
    if spare == 0 or (low <= int(stored.min()) and int(stored.max()) < low + (1 << form.bits_stored)):
        return stored
    cut: NDArray[Any] = np.right_shift(np.left_shift(stored, spare), spare)
    if not np.array_equal(cut, stored):
        notes.append("bits above Bits Stored are set; they were cut off")
    return cut


def _rescale(data: Dataset, notes: list[str]) -> tuple[float, float]:
    if "ModalityLUTSequence" in data:
        raise InputError(
            Reason.DECODE_ERROR, "a slice has a Modality LUT; only rescale slope and intercept are supported"
        )
    slope, intercept = number(data, "RescaleSlope"), number(data, "RescaleIntercept")
    if slope is None or intercept is None:
        present = "RescaleSlope" in data or "RescaleIntercept" in data
        if present and (text(data, "RescaleSlope") or text(data, "RescaleIntercept")):
            raise InputError(Reason.HU_RANGE, "a slice's rescale slope or intercept is missing or not a number")
        notes.append("rescale slope and intercept are missing; stored values were taken as HU")
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise InputError(Reason.HU_RANGE, "a slice's rescale slope or intercept is zero or not finite")
    return slope, intercept


def _to_hu(stored: NDArray[Any], slope: float, intercept: float, notes: list[str]) -> tuple[NDArray[np.int16], float]:
    """Rescaled values as whole numbers, and the largest difference from the exact ones."""
    low, high = sorted((float(stored.min()) * slope + intercept, float(stored.max()) * slope + intercept))
    if round(low) < -32768 or round(high) > 32767:
        raise InputError(Reason.HU_RANGE, f"rescaled values reach from {low:g} to {high:g} and do not fit 16 bits")
    if slope == 1 and intercept == int(intercept):
        # modulo 2^16, which is exact: the true result fits
        hu = stored.view(np.int16) if stored.dtype.itemsize == 2 and stored.flags.writeable else stored.astype(np.int16)
        hu += np.int64(int(intercept)).astype(np.int16)
        return hu, 0.0
    exact = stored.astype(np.float64) * slope + intercept
    rounded = np.rint(exact)
    fraction = float(np.abs(exact - rounded).max())
    if fraction > 0:
        notes.append("rescaled values are not whole numbers; they were rounded")
    return rounded.astype(np.int16), fraction


def _count_air(hu: NDArray[np.int16], padding: tuple[int, int] | None) -> int:
    found = (hu >= AIR_RANGE[0]) & (hu < AIR_RANGE[1])
    if padding is not None:
        found &= (hu < padding[0]) | (hu > padding[1])
    return int(np.count_nonzero(found))


def _stored_value(data: Dataset, keyword: str, bits: int, signed: bool) -> int | None:
    """A padding value as the pixels would hold it: some writers store a negative one as unsigned, or the reverse."""
    value = whole(data, keyword)
    if value is None:
        return None
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _padding_hu(form: PixelFormat, slope: float, intercept: float, notes: list[str]) -> tuple[int, int] | None:
    if form.padding is None:
        return None
    ends = (form.padding, form.padding if form.padding_limit is None else form.padding_limit)
    low, high = sorted(round(x * slope + intercept) for x in ends)
    if high >= PADDING_BELOW:
        notes.append("the padding value is the HU of a tissue; it was not replaced")
        return None
    return low, high

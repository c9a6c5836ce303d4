"""Choose the decoder of a compressed frame: the same one on every computer, whatever else is installed there."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

__all__ = ["decode_jpeg", "decoder_and_plugins", "is_available"]

DECODER_DEPENDENCIES = dict.fromkeys((JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), ("imagecodecs",))
"""Asked for by pydicom."""
_PREFERRED: dict[str, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow",),
    JPEGExtended12Bit: ("imagecodecs",),
    JPEGLossless: ("imagecodecs",),
    JPEGLosslessSV1: ("imagecodecs",),
    JPEGLSLossless: ("pyjpegls",),
    JPEGLSNearLossless: ("pyjpegls",),
    JPEG2000Lossless: ("pylibjpeg", "pillow"),
    JPEG2000: ("pylibjpeg", "pillow"),
}
"""pydicom's plug-ins by transfer syntax, best first. Two decoders may round a lossy frame differently."""
_ALONE = "gdcm"
"""Used only where none of the others is installed: a damaged frame can make it abort the process."""


def decoder_and_plugins(transfer_syntax: str) -> tuple[Decoder, tuple[str, ...]]:
    """Find pydicom's decoder of a transfer syntax and the plug-ins to try with it.

    Parameters
    ----------
    transfer_syntax : str
        Transfer Syntax UID of encapsulated pixel data.

    Returns
    -------
    (Decoder, tuple of str)
        Names of the installed plug-ins, best first; those that are not among our dependencies come last.

    Raises
    ------
    NotImplementedError
        There is no decoder for this transfer syntax, or no plug-in of it is installed.
    """
    decoder = _prepared_decoder(transfer_syntax)
    installed = decoder.available_plugins
    if not installed:
        raise NotImplementedError(transfer_syntax)
    preferred = [name for name in _PREFERRED.get(transfer_syntax, ()) if name in installed]
    others = (name for name in installed if name not in preferred and not (preferred and name == _ALONE))
    return decoder, (*preferred, *others)


@cache
def _prepared_decoder(transfer_syntax: str) -> Decoder:
    decoder = get_decoder(UID(transfer_syntax))
    if is_available(transfer_syntax) and "imagecodecs" not in decoder.available_plugins:
        decoder.add_plugin("imagecodecs", (__name__, "decode_jpeg"))
    if "gdcm" in decoder.available_plugins:
        import gdcm  # large, and needed for compressed pixel data only

        # its messages quote elements
        gdcm.Trace.WarningOff()
        gdcm.Trace.ErrorOff()
    return decoder


def is_available(uid: str) -> bool:
    """Report to pydicom whether `decode_jpeg` can be used for a transfer syntax."""
    return uid in DECODER_DEPENDENCIES and find_spec("imagecodecs") is not None


def decode_jpeg(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode a JPEG frame of 2 to 16 bits, lossy or lossless, with libjpeg-turbo (plug-in of pydicom's decoder).

    Parameters
    ----------
    frame : bytes
        JPEG code stream.
    runner : DecodeRunner
        pydicom's description of the frame.

    Returns
    -------
    bytes
        Pixels row by row, little endian, Bits Allocated each.
    """
    import imagecodecs  # large, and needed for few files

    pixels = imagecodecs.jpeg8_decode(frame)
    return bytes(pixels.astype(f"<u{runner.bits_allocated // 8}").tobytes())

"""Read SEGs, SRs and headers of any maker, in bounded memory and with typed errors."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info as read_meta
from pydicom.filereader import dcmread, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ctenrich.dicom.reader import quiet
from ctenrich.errors import CtenrichError, InputError, UnsafeInputError
from ctenrich.reasons import Reason

__all__ = ["MAX_UNPACKED", "check_deflated", "damage_as_input_error", "header", "quiet", "whole"]

MAX_UNPACKED = 4 * 1024**3
"""Bytes that a deflated object may unpack to."""
_STEP = 1024**2


@contextmanager
def damage_as_input_error(what: str) -> Iterator[None]:
    """Turn the exceptions that a damaged object causes in plain code into one typed error.

    Parameters
    ----------
    what : str
        The object, as the message names it.

    Raises
    ------
    InputError
        DECODE_ERROR.
    """
    try:
        yield
    except CtenrichError:
        raise
    except Exception as error:  # pydicom parses late and raises many kinds
        message = f"the {what} is damaged ({type(error).__name__})"
        raise InputError(Reason.DECODE_ERROR, message) from error


def whole(path: Path) -> Dataset:
    """The whole object, pixel data as stored.

    Raises
    ------
    InputError
        NOT_DICOM, TRUNCATED or IO_ERROR.
    UnsafeInputError
        DECOMPRESSION_BOMB if a deflated object unpacks to more than `MAX_UNPACKED`.
    """
    return _read_object(path, None, stop=False)


def header(path: Path, tags: Sequence[str] | None = None) -> Dataset:
    """Read an object up to its pixel data.

    Parameters
    ----------
    path : Path
        The file.
    tags : sequence of str, optional
        Keywords of the elements to read; None: all.

    Returns
    -------
    Dataset
        With file meta information, without pixel data.

    Raises
    ------
    InputError, UnsafeInputError
        As :func:`whole`.
    """
    return _read_object(path, list(tags) if tags is not None else None, stop=True)


def _read_object(path: Path, tags: list[str] | None, *, stop: bool) -> Dataset:
    try:
        check_deflated(path, MAX_UNPACKED)
        return dcmread(path, stop_before_pixels=stop, specific_tags=tags)
    except CtenrichError:
        raise
    except InvalidDicomError as error:
        raise InputError(Reason.NOT_DICOM, f"{path.name} is not DICOM") from error
    except EOFError as error:
        raise InputError(Reason.TRUNCATED, f"{path.name} ends too early") from error
    except OSError as error:
        raise InputError(Reason.IO_ERROR, f"{path.name} could not be read: {error.strerror}") from error
    except Exception as error:  # pydicom raises many kinds for broken files
        message = f"{path.name} cannot be parsed as DICOM ({type(error).__name__})"
        raise InputError(Reason.NOT_DICOM, message) from error


def check_deflated(path: Path, limit: int) -> None:
    """Refuse a deflated object that unpacks to more than `limit` bytes, before anything unpacks it at once.

    Parameters
    ----------
    path : Path
        The file; one that is not deflated passes.
    limit : int
        Bytes.

    Raises
    ------
    UnsafeInputError
        DECOMPRESSION_BOMB.
    Exception
        What pydicom and zlib raise for a file that is broken or no DICOM.
    """
    with path.open("rb") as handle:
        read_preamble(handle, False)
        if read_meta(handle).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        pending = handle.read(_STEP)
        while pending and not inflater.eof:
            total += len(inflater.decompress(pending, _STEP))
            if total > limit:
                raise UnsafeInputError(
                    Reason.DECOMPRESSION_BOMB, f"a deflated object unpacks to more than {limit} bytes"
                )
            pending = inflater.unconsumed_tail or handle.read(_STEP)

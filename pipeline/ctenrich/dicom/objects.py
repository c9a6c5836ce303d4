"""Read SEGs, SRs and headers of any maker, in bounded memory and with typed errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import read_part10, typed_cause
from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason

__all__ = ["MAX_UNPACKED", "claims_to_be_dicom", "damage_as_input_error", "header", "quiet", "whole"]

MAX_UNPACKED = 4 * 1024**3
"""Bytes that a deflated object may unpack to."""


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
        return read_part10(path, tags, stop=stop, limit=MAX_UNPACKED)
    except CtenrichError:
        raise
    except InvalidDicomError as error:
        raise InputError(Reason.NOT_DICOM, f"{path.name} is not DICOM") from error
    except EOFError as error:
        raise InputError(Reason.TRUNCATED, f"{path.name} ends too early") from error
    except OSError as error:
        raise typed_cause(error) or InputError(
            Reason.IO_ERROR, f"{path.name} could not be read: {error.strerror}"
        ) from error
    except Exception as error:  # pydicom raises many kinds for broken files
        message = f"{path.name} cannot be parsed as DICOM ({type(error).__name__})"
        raise typed_cause(error) or InputError(Reason.NOT_DICOM, message) from error


def claims_to_be_dicom(path: Path) -> bool:
    """Whether a file has a DICOM preamble or the name of a DICOM file; one that cannot be read then is damaged."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False

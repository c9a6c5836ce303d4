"""A deflated DICOM file -> the same file, inflated, for programs that do not read deflated files."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ctenrich.dicom.objects import MAX_UNPACKED
from ctenrich.dicom.streams import largest_unpacked
from ctenrich.errors import UnsafeInputError
from ctenrich.reasons import Reason

__all__ = ["inflated_copy"]

_STEP = 1024**2


@contextmanager
def inflated_copy(path: Path) -> Iterator[Path]:
    """Give the path of an inflated copy for the time of the block; a file that is not deflated is given as it is.

    The data set of a deflated file is encoded in Explicit VR Little Endian (PS3.5 A.5): it is unpacked byte for byte.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    Path

    Raises
    ------
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    if not _is_deflated(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        _inflate(path, copy)
        yield copy


def _is_deflated(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            read_preamble(handle, False)
            return bool(_read_file_meta_info(handle).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)
    except Exception:  # noqa: BLE001  pydicom raises many kinds; what is no DICOM is not deflated
        return False


def _inflate(path: Path, copy: Path) -> None:
    with path.open("rb") as source, copy.open("wb") as target:
        preamble = read_preamble(source, False) or bytes(128)
        meta: FileMetaDataset = _read_file_meta_info(source)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        target.write(preamble + b"DICM")
        write_file_meta_info(DicomFileLike(target), meta, enforce_standard=False)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        limit = largest_unpacked(path, MAX_UNPACKED)
        pending = source.read(_STEP)
        while pending and not inflater.eof:
            limit -= target.write(inflater.decompress(pending, _STEP))
            if limit < 0:
                raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"{path.name} unpacks to far more than its size")
            pending = inflater.unconsumed_tail or source.read(_STEP)
        target.write(inflater.flush())

"""The request of a harmonised product, as a file of its run: which files are which segments, and who made them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import load_record, save_record, sha256_of_file

__all__ = ["HarmoniseRequest", "MaskForm", "RequestedSegment", "identity_of", "load_request", "save_request"]

_FORMAT = 1


class MaskForm(StrEnum):
    """Form in which the masks of a request are stored."""

    LABEL_MAP = "label_map"
    """One image whose values are segments."""
    MASKS = "masks"
    """One image per segment; every voxel but 0 belongs to it."""
    SEG = "seg"
    """DICOM Segmentations."""
    RTSTRUCT = "rtstruct"
    """A DICOM RT Structure Set."""


@dataclass(frozen=True, kw_only=True)
class RequestedSegment:
    """One segment of the product, and where its voxels are."""

    number: int
    """Segment number, from 1 without gaps."""
    name: str
    """Row of mappings/segments.csv, numbered if several segments have it."""
    source_label: str
    """Its name in the files."""
    file: str
    """Path relative to the folder of the request."""
    value: int = 0
    """Label value of a label map, segment number of a SEG, position of the ROI in a structure set; 0 for a mask."""
    layer: int = 0
    """Layer of an image of several layers (3D Slicer's .seg.nrrd)."""


@dataclass(frozen=True, kw_only=True)
class HarmoniseRequest:
    """Everything that the masks of a harmonised product depend on, but the CT."""

    format: int = _FORMAT
    name: str
    """Name of the product."""
    folder: str
    """Absolute path of the folder of the files."""
    form: MaskForm
    segments: tuple[RequestedSegment, ...]
    ignored: tuple[int, ...] = ()
    """Values of a label map that are known, and become no segment."""
    algorithm_type: str
    """Segment Algorithm Type (PS3.3 C.8.20.2)."""
    algorithm_name: str
    """Program, or person's role, that made the masks."""
    algorithm_version: str = ""
    learned: bool = False
    """Whether the algorithm is known to be a trained network."""
    resample: bool = False
    """Whether masks on another grid are brought to that of the CT, by the nearest voxel."""
    accept_position: bool = False
    """Whether findings about the place of structures are warnings, and do not end the product."""
    measurements: tuple[str, ...] = ()
    """Absolute paths of the files of measurements."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the masks, each once."""
        return tuple(Path(self.folder, name) for name in dict.fromkeys(s.file for s in self.segments))


def save_request(request: HarmoniseRequest, path: Path) -> Path:
    """Write a request; returns the path.

    Parameters
    ----------
    request : HarmoniseRequest
        The request.
    path : Path
        ``.json``.
    """
    save_record(path, request)
    return path


def load_request(path: Path) -> HarmoniseRequest:
    """Read a request.

    Raises
    ------
    UsageError
        NOT_FOUND if there is no such file, BAD_PARAMETER if it has another format.
    InputError
        BAD_RUN if it is damaged.
    """
    if not path.is_file():
        raise UsageError(Reason.NOT_FOUND, f"there is no request {path}", "ctenrich harmonise writes it")
    found = load_record(path, HarmoniseRequest)
    if found.format != _FORMAT:
        message = f"{path.name} has format {found.format}, this software reads {_FORMAT}"
        raise UsageError(Reason.BAD_PARAMETER, message, "run ctenrich harmonise again")
    return found


def identity_of(request: HarmoniseRequest) -> str:
    """Compute the SHA-256 over a request and the bytes of its files, whatever folder they are in.

    Raises
    ------
    UsageError
        NOT_FOUND if a file is not there any more.
    """
    digest = hashlib.sha256()
    about = (
        *(request.form, request.algorithm_type, request.algorithm_name, request.algorithm_version),
        *(request.learned, request.resample, request.accept_position, request.ignored, request.segments),
    )
    digest.update(repr(about).encode())
    for path in (*request.files, *map(Path, request.measurements)):
        if not path.is_file():
            raise UsageError(Reason.NOT_FOUND, f"there is no {path} any more", "the masks were removed or renamed")
        digest.update(f"{path.name}:{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()

"""Inspect what a model returned before it may leave: plain files, DICOM that decodes, of the same examination."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from ctenrich.dicom.quiet import quiet
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.flows.output_grid import InputPlanes, check_grid, check_nifti
from ctenrich.reasons import Reason
from ctenrich.records import Severity
from ctenrich.validate.dciodvfy import run_dciodvfy
from ctenrich.workspace import sha256_of_file

__all__ = ["Examination", "check_nifti_files", "check_objects", "clear_folder", "examination_of", "plain_files"]

_KEYWORDS = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
_FRAMES = ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")
_REFERENCES = ("ReferencedSOPInstanceUID",)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Identifiers of the input of a flow."""

    patients: frozenset[str]
    studies: frozenset[str]
    frames: frozenset[str]
    """Frame of Reference UIDs."""
    instances: dict[str, Path]
    """SOP Instance UID -> file."""
    references: frozenset[str]
    """SOP Instance UIDs to which the input refers, and its studies: a structure set refers to its study so."""
    planes: InputPlanes = field(default_factory=InputPlanes)
    """Planes of its images."""


def examination_of(files: Iterable[Path]) -> Examination:
    """Return the identifiers of the input of a flow.

    Parameters
    ----------
    files : iterable of Path
        Its files; those that are not DICOM are left out.

    Returns
    -------
    Examination
    """
    found: dict[str, set[str]] = {keyword: set() for keyword in (*_KEYWORDS, *_REFERENCES)}
    instances: dict[str, Path] = {}
    planes = InputPlanes()
    for path in files:
        try:
            with quiet():
                data = dcmread(path, stop_before_pixels=True)
                frames, references = set(_values(data, _FRAMES)), set(_values(data, _REFERENCES))
        except Exception:  # noqa: BLE001, S112  pydicom raises many kinds; a file that is not DICOM identifies nothing
            continue
        for keyword in _KEYWORDS:
            found[keyword].add(_text(data, keyword))
        found["FrameOfReferenceUID"] |= frames
        found["ReferencedSOPInstanceUID"] |= references
        instances[_text(data, "SOPInstanceUID")] = path
        planes.add(data)
    return Examination(
        patients=frozenset(found["PatientID"]),
        studies=frozenset(found["StudyInstanceUID"]),
        frames=frozenset(found["FrameOfReferenceUID"]) - {""},
        instances=instances,
        references=frozenset(found["ReferencedSOPInstanceUID"] | found["StudyInstanceUID"]),
        planes=planes,
    )


def _text(data: Dataset, keyword: str) -> str:
    return str(data.get(keyword, "") or "").strip(" \x00")


def plain_files(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted.

    Raises
    ------
    UnsafeInputError
        UNSAFE_PATH: a link, device, socket or pipe.
    InputError
        IO_ERROR: a file or folder that this process may not read. It is never left out: what a model returned would
        look complete.
    """
    found = []
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        for name in (*folders, *names):
            path = Path(place) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UnsafeInputError(Reason.UNSAFE_PATH, "a model returned a link or a special file")
            if stat.S_ISREG(mode):
                try:
                    path.open("rb").close()
                except OSError as error:
                    _unreadable(error)
                found.append(path)
    return sorted(found)


def _unreadable(error: OSError) -> None:
    """Refuse what the system does not let this process read; a folder that was not made has no files."""
    if isinstance(error, FileNotFoundError):
        return
    message = "a model returned files that cannot be read: they belong to another user"
    hint = "leave root and user out of the step, or let the model make its output readable for all"
    raise InputError(Reason.IO_ERROR, message, hint) from error


def clear_folder(folder: Path) -> None:
    """Make a folder for the output of a step anew.

    Raises
    ------
    InputError
        IO_ERROR: what an earlier attempt left cannot be deleted; it would be taken for the output of this one.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        message = "what an earlier attempt of a step wrote cannot be deleted: it belongs to another user"
        raise InputError(Reason.IO_ERROR, message, "delete the step's folder as that user or as root") from error
    folder.mkdir(parents=True)


def check_objects(files: Sequence[Path], examination: Examination) -> None:
    """Refuse objects that may not leave.

    Patient ID and Study Instance UID are those of the input, each Frame of Reference UID is one of the input's, each
    referenced instance is in the input, is referred to there, or is among the objects, and no object has the SOP
    Instance UID of an image with other bytes. Images, segmentations and contours lie on the planes of the input.
    Pixel data decode, and dciodvfy finds no error.

    Parameters
    ----------
    files : sequence of Path
        The objects.
    examination : Examination
        Identifiers of the input.

    Raises
    ------
    InputError
        NOT_DICOM, DECODE_ERROR, FOREIGN_OBJECT, MISSING_GEOMETRY or INVALID_OBJECT.
    ToolError
        TOOL_MISSING: dciodvfy.
    """
    objects = [_read(path) for path in files]
    own = {_text(data, "SOPInstanceUID") for data in objects}
    if len(own) < len(objects):
        raise InputError(Reason.FOREIGN_OBJECT, "two objects of a model have one SOP Instance UID")
    for path, data in zip(files, objects, strict=True):
        _check_identity(path, data, examination, own)
        check_grid(data, examination.planes)
        _decode(data)
        errors = [one for one in run_dciodvfy(path, path.name) if one.severity is Severity.ERROR]
        if errors:
            raise InputError(Reason.INVALID_OBJECT, f"dciodvfy: {errors[0].message[:200]}")


def check_nifti_files(files: Iterable[Path], examination: Examination) -> None:
    """Refuse NIfTI files that do not lie on the voxels of a series of the input.

    Parameters
    ----------
    files : iterable of Path
        Files that a model wrote; those with other suffixes than ``.nii`` and ``.nii.gz`` are left out.
    examination : Examination
        Of the input.

    Raises
    ------
    InputError
        FOREIGN_OBJECT or DECODE_ERROR.
    """
    for path in files:
        if path.name.endswith((".nii", ".nii.gz")):
            check_nifti(path, examination.planes)


def _read(path: Path) -> Dataset:
    try:
        with quiet():
            data = dcmread(path)
            _ = [element.tag for element in data]  # reads the values
    except Exception as error:
        raise InputError(Reason.NOT_DICOM, f"{path.name} is no DICOM object ({type(error).__name__})") from error
    if not _text(data, "SOPInstanceUID") or not _text(data, "SOPClassUID"):
        raise InputError(Reason.NOT_DICOM, f"{path.name} has no SOP class and instance UID")
    return data


def _check_identity(path: Path, data: Dataset, examination: Examination, own: set[str]) -> None:
    if _text(data, "PatientID") not in examination.patients:
        raise InputError(Reason.FOREIGN_OBJECT, "an object of a model has another Patient ID than its input")
    if _text(data, "StudyInstanceUID") not in examination.studies:
        raise InputError(Reason.FOREIGN_OBJECT, "an object of a model has another Study Instance UID than its input")
    frames = set(_values(data, _FRAMES)) - {""}
    if examination.frames and frames - examination.frames:
        raise InputError(Reason.FOREIGN_OBJECT, "an object of a model has another frame of reference than its input")
    if set(_values(data, _REFERENCES)) - examination.instances.keys() - examination.references - own:
        raise InputError(Reason.FOREIGN_OBJECT, "an object of a model refers to an instance that was not its input")
    original = examination.instances.get(_text(data, "SOPInstanceUID"))
    if original is not None and sha256_of_file(original) != sha256_of_file(path):
        raise InputError(Reason.FOREIGN_OBJECT, "an object of a model would replace an image of its input")


def _values(data: Dataset, keywords: Sequence[str]) -> Iterator[str]:
    """Values of attributes at any level of a data set."""
    for element in data:
        if element.keyword in keywords:
            yield str(element.value or "").strip(" \x00")
        elif element.VR == "SQ":
            for item in element.value or ():
                yield from _values(item, keywords)


def _decode(data: Dataset) -> None:
    if "PixelData" not in data:
        return
    try:
        with quiet():
            _ = data.pixel_array
    except Exception as error:
        raise InputError(Reason.DECODE_ERROR, f"pixel data of a model's object ({type(error).__name__})") from error

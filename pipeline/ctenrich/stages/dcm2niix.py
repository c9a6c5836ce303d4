"""Write the NIfTI product with dcm2niix, read it for comparison plane by plane, and set the volume's affine."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ctenrich.dicom.codestream import fragments
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dataset
from ctenrich.errors import InputError, ToolError
from ctenrich.geometry import Affine, affine_lps, apply_affine, grid_match, lps_to_ras, ras_to_lps
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4, SortedSeries
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import atomic_path

__all__ = ["Dcm2niixVolume", "compress", "write_clean_copy", "write_nifti", "write_unpacked_copy"]

CORNER_TOLERANCE = 0.1
"""Largest distance in mm between the corners of dcm2niix's grid and of the volume's."""
_COPIED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "PatientPosition", "ImageType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelData",
)  # fmt: skip


class Dcm2niixVolume:
    """Access to the planes of a NIfTI file written by dcm2niix, on the grid of the volume.

    Parameters
    ----------
    path : Path
        The file; it is changed in place.
    shape : 3 integers
        (slices, rows, columns) of the volume.
    affine : 4x4
        The volume's affine, (i, j, k, 1) -> mm LPS.
    positions : array (slices, 3)
        Positions of the slices, mm LPS; they show which spacing dcm2niix used.

    Raises
    ------
    InputError
        READERS_DISAGREE: the grid differs from that of the volume.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], affine: Matrix4, positions: NDArray[Any]) -> None:
        import nibabel

        try:
            with path.open("rb") as handle:
                self._header: Any = nibabel.Nifti1Header.from_fileobj(handle)  # type: ignore[no-untyped-call]
        except Exception as error:  # nibabel raises several types for an invalid header
            raise InputError(Reason.READERS_DISAGREE, "dcm2niix wrote a file that is not NIfTI") from error
        found = tuple(int(x) for x in self._header.get_data_shape())
        if found != shape[::-1]:
            text = " x ".join(str(x) for x in found)
            message = f"dcm2niix wrote {text} voxels instead of {' x '.join(str(x) for x in shape[::-1])}"
            raise InputError(Reason.READERS_DISAGREE, message)
        theirs = ras_to_lps(self._header.get_best_affine())
        axes, self._flips = grid_match(theirs, found, affine)
        if axes != (0, 1, 2):
            raise InputError(Reason.READERS_DISAGREE, "dcm2niix wrote the axes of the volume in a different order")
        self._flip = np.diag([*(-1.0 if f else 1.0 for f in self._flips), 1.0])
        self._flip[:3, 3] = [(n - 1) * f for n, f in zip(found, self._flips, strict=True)]
        self.adjusted = _check_affine(np.asarray(theirs) @ self._flip, affine, found, positions)
        self._affine = affine
        self._shape = shape
        self._path = path
        self._file = path.open("r+b")
        self._start = int(self._header["vox_offset"])
        self._kind = self._header.get_data_dtype()
        slope, inter = (float(self._header[name]) for name in ("scl_slope", "scl_inter"))
        self._scale = (1.0, 0.0) if slope == 0 or not np.isfinite(slope) else (slope, inter)
        self._other: IO[bytes] | None = None
        self.clean_copies = False
        if self._kind != np.dtype("<i2") or self._scale != (1.0, 0.0):
            self._other = path.with_suffix(".int16").open("w+b")

    def plane(self, k: int) -> NDArray[np.int16]:
        """Read slice `k` of the volume from dcm2niix's file, [row j, column i], HU rounded to integers."""
        _, rows, columns = self._shape
        raw = np.empty((rows, columns), self._kind)
        self._file.seek(self._start + self._plane_index(k) * raw.nbytes)
        if self._file.readinto(raw.reshape(-1).view(np.uint8).data) != raw.nbytes:
            raise InputError(Reason.READERS_DISAGREE, "dcm2niix wrote a file that is too short")
        if self._other is not None:
            values = np.rint(raw.astype(np.float64) * self._scale[0] + self._scale[1])
            if not (np.abs(values) <= 32768).all():
                raise InputError(Reason.READERS_DISAGREE, "dcm2niix wrote values that do not fit 16 bits")
            raw = values.astype(np.int16)
        return np.ascontiguousarray(self._flip_plane(raw))

    def put(self, k: int, plane: NDArray[np.int16], *, changed: bool) -> None:
        """Write slice `k` of the volume to the product, if it changed or the file is not int16."""
        if self._other is None and not changed:
            return
        target, start = (self._file, self._start) if self._other is None else (self._other, 352)
        target.seek(start + self._plane_index(k) * plane.nbytes)
        target.write(np.ascontiguousarray(self._flip_plane(plane)).data)

    def finish(self) -> Path:
        """Write the header (the volume's affine, int16, no scaling, no free text); returns the finished file."""
        header = self._header
        target = self._file if self._other is None else self._other
        header.set_data_dtype(np.int16)
        header["scl_slope"], header["scl_inter"] = 1, 0
        header["vox_offset"] = self._start if self._other is None else 352
        header["descrip"], header["aux_file"], header["intent_name"], header["db_name"] = b"ctenrich", b"", b"", b""
        header["cal_min"], header["cal_max"] = 0, 0
        ras = np.asarray(lps_to_ras(self._affine)) @ self._flip
        header.set_qform(ras, code=1)
        header.set_sform(ras, code=1)
        target.seek(0)
        target.write(header.binaryblock)
        if self._other is not None:
            target.write(b"\0" * 4)
        target.flush()
        return self._path if self._other is None else self._path.with_suffix(".int16")

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._other is not None:
            self._other.close()

    def _plane_index(self, k: int) -> int:
        return self._shape[0] - 1 - k if self._flips[2] else k

    def _flip_plane(self, plane: NDArray[Any]) -> NDArray[Any]:
        return plane[:: -1 if self._flips[1] else 1, :: -1 if self._flips[0] else 1]


@contextmanager
def write_nifti(
    series: SortedSeries,
    paths: Sequence[Path],
    target: Path,
    affine: Matrix4,
    *,
    copy: Callable[[int, Path], object] | None = None,
    retry: Callable[[int, Path], object] | None = None,
) -> Iterator[Dcm2niixVolume]:
    """Convert the slices with dcm2niix; the file gets its name `target` when the block ends without an error.

    Parameters
    ----------
    series : SortedSeries
        Slices in order.
    paths : sequence of Path
        Their files, by slice index.
    target : Path
        The NIfTI file (``.nii``).
    affine : 4x4
        The volume's affine, (i, j, k, 1) -> mm LPS.
    copy : callable, optional
        Writes a copy of the slice with this index to this file; dcm2niix reads the copies instead of the files.
    retry : callable, optional
        As `copy`; its copies are converted if dcm2niix makes no single volume of the files. dcm2niix splits series by
        elements that are not related to geometry (dates, coils, echoes).

    Yields
    ------
    Dcm2niixVolume
        Planes of the file, for comparison.

    Raises
    ------
    InputError
        READERS_DISAGREE: not exactly one file, or a grid that differs from the volume's.
    ToolError
        TOOL_MISSING, TOOL_FAILED, TIMEOUT.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".dcm2niix.{os.getpid()}.", suffix=".tmp", dir=target.parent) as name:
        made = _run_dcm2niix(Path(name, "plain"), paths, copy)
        retried = made is None and retry is not None
        if retried:
            made = _run_dcm2niix(Path(name, "retry"), paths, retry)
        if made is None:
            raise InputError(
                Reason.READERS_DISAGREE, f"dcm2niix does not convert the {len(paths)} slices to one volume"
            )
        positions = np.array([s.position for s in series.slices])
        check = Dcm2niixVolume(made, series.shape, affine, positions)
        check.clean_copies = retried
        try:
            yield check
            finished = check.finish()
        finally:
            check.close()
        with finished.open("rb") as handle:
            os.fsync(handle.fileno())
        finished.replace(target)


def compress(path: Path) -> Path:
    """Write ``.nii.gz`` beside a NIfTI (reproducible bytes), remove the uncompressed file and return the new path."""
    target = path.with_name(path.name + ".gz")
    with (
        atomic_path(target) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as packed,
        path.open("rb") as plain,
    ):
        shutil.copyfileobj(plain, packed, 1 << 20)
    path.unlink()
    return target


def _run_dcm2niix(
    folder: Path, paths: Sequence[Path], copy: Callable[[int, Path], object] | None = None
) -> Path | None:
    """Convert the files, or copies of them; returns the NIfTI file, or None unless there is exactly one."""
    source, out = folder / "in", folder / "out"
    source.mkdir(parents=True)
    out.mkdir()
    for k, path in enumerate(paths):
        place = source / f"{k:05d}.dcm"
        if copy is not None:
            copy(k, place)
        else:
            place.symlink_to(path)
    options = ["-z", "n", "-b", "n", "-m", "y", "-l", "n", "-x", "i", "-d", "0", "-f", "ct"]
    # names below the working directory: dcm2niix takes no path of more than about 500 characters
    result = run_tool([find_tool("dcm2niix"), *options, "-o", out.name, source.name], check=False, cwd=folder)
    files = sorted(out.glob("*.nii"))
    if result.returncode != 0 and copy is not None and not files:
        raise ToolError(Reason.TOOL_FAILED, f"dcm2niix ended with exit code {result.returncode} and wrote nothing")
    return files[0] if len(files) == 1 and result.returncode == 0 else None


def write_clean_copy(path: Path, target: Path, k: int, transfer_syntax: str) -> int:
    """Write a copy of a slice with the elements of geometry and pixels alone.

    The transfer syntax stays, except that deflated slices are inflated. A compressed frame is written as one fragment.

    Parameters
    ----------
    path : Path
        The slice.
    target : Path
        The copy.
    k : int
        Slice index; the copy's Instance Number is one more.
    transfer_syntax : str
        Transfer Syntax UID by which the slice was read.

    Returns
    -------
    int
        Number of fragments that the frame had; 0 for pixels that are not encapsulated.

    Raises
    ------
    InputError
        The errors of :func:`ctenrich.dicom.reader.open_dataset`; TRUNCATED, DECODE_ERROR if the fragments are damaged.
    """
    syntax = UID(ExplicitVRLittleEndian if transfer_syntax == DeflatedExplicitVRLittleEndian else transfer_syntax)
    count = 0
    with quiet():
        copy = _geometry_and_pixels(path, k)
        if syntax.is_encapsulated:
            parts = fragments(copy.PixelData, delimited=False)
            count = len(parts)
            copy.PixelData = encapsulate([b"".join(parts)], has_bot=False)
            copy["PixelData"].VR = "OB"
            copy["PixelData"].is_undefined_length = True
        _save_copy(copy, target, syntax)
    return count


def write_unpacked_copy(path: Path, target: Path, k: int, hu: NDArray[np.int16]) -> None:
    """Write a copy of a slice with its geometry and with the given pixels, uncompressed.

    Parameters
    ----------
    path : Path
        The slice.
    target : Path
        The copy.
    k : int
        Slice index; the copy's Instance Number is one more.
    hu : array (rows, columns) of int16
        Hounsfield units, [j, i].

    Raises
    ------
    InputError
        The errors of :func:`ctenrich.dicom.reader.open_dataset`.
    """
    with quiet():
        copy = _geometry_and_pixels(path, k)
        copy.BitsAllocated, copy.BitsStored, copy.HighBit, copy.PixelRepresentation = 16, 16, 15, 1
        copy.RescaleSlope, copy.RescaleIntercept = 1, 0
        del copy.PixelData
        copy.PixelData = np.ascontiguousarray(hu, "<i2").tobytes()
        copy["PixelData"].VR = "OW"
        _save_copy(copy, target, ExplicitVRLittleEndian)


def _geometry_and_pixels(path: Path, k: int) -> Dataset:
    data = open_dataset(path)
    copy = Dataset()
    for keyword in _COPIED:
        if keyword in data:
            copy[keyword] = data[keyword]
    copy.InstanceNumber = k + 1
    copy.SeriesNumber = 1
    # readers may invert MONOCHROME1, which does not change the meaning of the values (PS3.3 C.7.6.3.1.2)
    copy.PhotometricInterpretation = "MONOCHROME2"
    return copy


def _save_copy(copy: Dataset, target: Path, syntax: UID) -> None:
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = syntax
    copy.save_as(target, enforce_file_format=True)


def _check_affine(theirs: NDArray[Any], ours: Matrix4, shape: Sequence[int], positions: NDArray[Any]) -> str:
    """Compare dcm2niix's affine, on the volume's axes, with the volume's; returns a note on what was corrected.

    dcm2niix uses the distance of the first two slices that it reads as the spacing of all; if positions are rounded,
    the small error per slice adds up to a large one at the last slice. Only exactly this difference is accepted.
    """
    if _corners_apart(theirs, ours, shape) <= CORNER_TOLERANCE:
        return ""
    last = len(positions) - 1
    for start, other in ((0, 1), (last, last - 1)):
        step = float(np.linalg.norm(positions[other] - positions[start]))
        row, col = (np.asarray(ours)[:3, axis] for axis in (0, 1))
        spacing = (float(np.linalg.norm(col)), float(np.linalg.norm(row)))
        normal = np.cross(row, col) / np.linalg.norm(np.cross(row, col))
        origin = positions[start] - start * step * normal
        guess = affine_lps(origin.tolist(), (row / spacing[1]).tolist(), (col / spacing[0]).tolist(), spacing, step)
        if _corners_apart(theirs, guess, shape) <= CORNER_TOLERANCE:
            return f"dcm2niix took {step:.4f} mm between two slices for all; the affine of all slices was written"
    apart = _corners_apart(theirs, ours, shape)
    raise InputError(Reason.READERS_DISAGREE, f"dcm2niix puts a corner of the volume {apart:.2f} mm away from ours")


def _corners_apart(a: Affine | NDArray[Any], b: Affine | NDArray[Any], shape: Sequence[int]) -> float:
    ends = [(0.0, float(n - 1)) for n in shape]
    corners = [(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]]
    return float(np.abs(apply_affine(a, corners) - apply_affine(b, corners)).max())

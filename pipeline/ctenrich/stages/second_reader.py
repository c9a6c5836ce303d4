"""Compare the volume with other readers of the same slices, dcm2niix first, and write the NIfTI product."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from ctenrich.dicom.ct_slice import AIR, PixelFormat
from ctenrich.errors import InputError, ToolError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Matrix4, Severity, SortedSeries
from ctenrich.stages.dcm2niix import Dcm2niixVolume, write_clean_copy, write_nifti, write_unpacked_copy

__all__ = ["DecodedSlices", "ReadSlice", "write_compared_nifti"]

NOT_READ_BY_DCM2NIIX = frozenset({DeflatedExplicitVRLittleEndian, JPEGExtended12Bit})
"""Transfer syntaxes that dcm2niix does not support."""
ROUNDED_BY_DECODERS = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000, HTJ2K})
"""Lossy transfer syntaxes whose inverse transform decoders may round differently; near-lossless JPEG-LS is exact."""
STEPS = 2
"""Largest difference of two decoders of a lossy frame, in stored values."""


@dataclass(frozen=True, kw_only=True)
class ReadSlice:
    """Properties of a slice whose pixels have been copied to the array."""

    format: PixelFormat
    padding_hu: tuple[int, int] | None
    """Smallest and largest HU of padding pixels."""
    transfer_syntax: str
    slope: float
    rescale_type: str = ""
    fraction: float = 0.0
    air_pixels: int | None = None
    """As in :class:`ctenrich.dicom.ct_slice.SlicePixels`."""

    @property
    def tolerance(self) -> float:
        """Largest difference in HU from another reader: 0 unless the compression is lossy."""
        return STEPS * abs(self.slope) if self.transfer_syntax in ROUNDED_BY_DECODERS else 0.0


@dataclass(frozen=True, kw_only=True)
class DecodedSlices:
    """A series and its volume before padding is replaced."""

    series: SortedSeries
    paths: Sequence[Path]
    """Files of the slices, by slice index."""
    affine: Matrix4
    """(i, j, k, 1) -> mm LPS."""
    array: NDArray[np.int16]
    """[k, j, i], HU."""
    read: Sequence[ReadSlice]
    """By slice index."""


def write_compared_nifti(slices: DecodedSlices, target: Path, issues: list[Issue]) -> None:
    """Write the NIfTI product with dcm2niix after a second reader has agreed with every voxel of the volume.

    dcm2niix is the second reader wherever it decodes the files. Where it does not, or where it differs, SimpleITK
    decides: if its voxels are those of the volume, dcm2niix gets copies with unpacked HU, so that it still checks the
    geometry and writes the NIfTI, and an issue `convert.readers` records which readers agreed. Voxels of lossy frames
    may differ by 2 stored values; the NIfTI has the voxels of the volume.

    Parameters
    ----------
    slices : DecodedSlices
        The series and its volume, [k, j, i], HU, mm LPS.
    target : Path
        The NIfTI file (``.nii``).
    issues : list of Issue
        Receives notes.

    Raises
    ------
    InputError
        READERS_DISAGREE: no second reader has the same voxels, or dcm2niix's grid differs from that of the volume.
    ToolError
        TOOL_MISSING, TOOL_FAILED, TIMEOUT: dcm2niix.
    """
    unsupported = sorted({s.transfer_syntax for s in slices.read} & NOT_READ_BY_DCM2NIIX)
    why = "dcm2niix does not support the transfer syntax"
    refusal: InputError | ToolError | None = None
    if not unsupported:
        try:
            _compare_with_dcm2niix(slices, target, issues)
        except (InputError, ToolError) as error:
            if error.reason not in {Reason.READERS_DISAGREE, Reason.TOOL_FAILED}:
                raise
            refusal, why = error, error.message
        else:
            return
    worst = _compare_with_simpleitk(slices, target.parent, refusal)

    def unpacked(k: int, place: Path) -> None:
        write_unpacked_copy(slices.paths[k], place, k, slices.array[k])

    with write_nifti(slices.series, slices.paths, target, slices.affine, copy=unpacked) as check:
        _compare_planes(slices, check, exact=True)
    message = (
        f"ctenrich and SimpleITK agree on the voxels{_rounding(worst)}; "
        f"dcm2niix read copies with unpacked HU, for the geometry alone ({why})"
    )
    issues.append(Issue("convert.readers", Severity.NOTE, "ct.nii", message))
    _note_affine(check, issues)


def _compare_with_dcm2niix(slices: DecodedSlices, target: Path, issues: list[Issue]) -> None:
    """Compare with what dcm2niix decodes, of the files or, if it makes no single volume of them, of clean copies."""
    joined = []

    def clean(k: int, place: Path) -> None:
        if write_clean_copy(slices.paths[k], place, k, slices.read[k].transfer_syntax) > 1:
            joined.append(k)

    with write_nifti(slices.series, slices.paths, target, slices.affine, retry=clean) as check:
        worst = _compare_planes(slices, check)
    if joined or worst:
        copies = f"; it read copies with the fragments of {len(joined)} frames joined" if joined else ""
        message = f"ctenrich and dcm2niix agree on the voxels{_rounding(worst)}{copies}"
        issues.append(Issue("convert.readers", Severity.NOTE, "ct.nii", message))
    if check.clean_copies and not joined:
        message = (
            "dcm2niix read copies with geometry and pixels alone: it would have parted the series by other elements"
        )
        issues.append(Issue("convert.clean_copies", Severity.NOTE, "ct.nii", message))
    _note_affine(check, issues)


def _note_affine(check: Dcm2niixVolume, issues: list[Issue]) -> None:
    if check.adjusted:
        issues.append(Issue("convert.nifti_affine", Severity.NOTE, "ct.nii", check.adjusted))


def _rounding(worst: float) -> str:
    return f" within {worst:g} HU, by which decoders of lossy frames may differ" if worst else ""


def _compare_planes(slices: DecodedSlices, check: Dcm2niixVolume, *, exact: bool = False) -> float:
    """Compare slice by slice; returns the largest difference in HU.

    The NIfTI gets the voxels of the volume, with padding replaced by -1024 HU.
    """
    worst = 0.0
    for k, read in enumerate(slices.read):
        plane = check.plane(k)
        differs = not np.array_equal(plane, slices.array[k])
        if differs:
            tolerance = 0.0 if exact else read.tolerance
            worst = max(worst, _difference(plane, slices.array[k], tolerance, f"slice {k}", "dcm2niix"))
            plane = np.array(slices.array[k])
        if read.padding_hu is not None:
            plane[(plane >= read.padding_hu[0]) & (plane <= read.padding_hu[1])] = AIR
        check.put(k, plane, changed=differs or read.padding_hu is not None)
    return worst


def _compare_with_simpleitk(slices: DecodedSlices, scratch: Path, refusal: InputError | ToolError | None) -> float:
    """Decode copies with geometry and pixels alone by SimpleITK; returns the largest difference in HU.

    `refusal` is the verdict of dcm2niix, which is raised if SimpleITK does not read the slices either.
    """
    worst = 0.0
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".simpleitk.", suffix=".tmp", dir=scratch) as folder:
        place = Path(folder, "slice.dcm")
        for k, read in enumerate(slices.read):
            write_clean_copy(slices.paths[k], place, k, read.transfer_syntax)
            plane = _read_by_simpleitk(place)
            if plane is None or plane.shape != slices.array[k].shape:
                before = f"{refusal.message}; " if refusal else ""
                message = (
                    f"{before}SimpleITK does not read slice {k}, so that no second reader could compare the voxels"
                )
                raise InputError(Reason.READERS_DISAGREE, message) from refusal
            if not np.array_equal(plane, slices.array[k]):
                try:
                    worst = max(worst, _difference(plane, slices.array[k], read.tolerance, f"slice {k}", "SimpleITK"))
                except InputError as error:
                    before = f"{refusal.message}; " if refusal else ""
                    raise InputError(error.reason, before + error.message) from refusal
    return worst


def _read_by_simpleitk(path: Path) -> NDArray[Any] | None:
    """HU of one slice, [j, i], rounded to integers; None if SimpleITK does not read the file."""
    import SimpleITK  # large, and needed for few series only

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # type: ignore[no-untyped-call]
    try:
        image = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
    except RuntimeError:
        return None
    plane = np.rint(SimpleITK.GetArrayFromImage(image).astype(np.float64))
    return plane[0] if plane.ndim == 3 and len(plane) == 1 else None


def _difference(theirs: NDArray[Any], ours: NDArray[np.int16], tolerance: float, place: str, reader: str) -> float:
    """Largest difference in HU; READERS_DISAGREE if it exceeds the tolerance."""
    apart = np.abs(theirs.astype(np.float64) - ours)
    beyond = int(np.count_nonzero(apart > tolerance + 0.5 * (tolerance > 0)))
    if beyond:
        raise InputError(Reason.READERS_DISAGREE, f"{beyond} voxels of {place} differ from {reader}'s")
    return float(apart.max())

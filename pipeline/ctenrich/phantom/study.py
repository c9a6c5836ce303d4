"""Write a phantom as DICOM: one CT Image Storage file per slice, with the requested faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ctenrich.dicom.sop_classes import CT_IMAGE
from ctenrich.phantom.enhanced import write_enhanced
from ctenrich.phantom.faults import extra_files, inject_byte_fault, inject_fault, stated_rows
from ctenrich.phantom.identity import Identity, make_identity
from ctenrich.phantom.modules import common_modules, file_bytes, number, rescale
from ctenrich.phantom.options import FileOrder, PhantomOptions, Quirk
from ctenrich.phantom.rtstruct import write_rtstruct
from ctenrich.phantom.volume import Phantom, make_phantom

__all__ = ["PhantomStudy", "outside_circle", "write_phantom_study"]

PADDING = -2000


@dataclass(frozen=True, eq=False)
class PhantomStudy:
    """Files, identifiers and truth of a written phantom."""

    folder: Path
    files: tuple[Path, ...]
    """Every file of the CT series (awkward ones too), by name."""
    slices: tuple[Path, ...]
    """The file of every written slice, along the slice normal."""
    sop_instance_uids: tuple[str, ...]
    """Of `slices`, in the same order."""
    rtstruct: Path | None
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    phantom: Phantom


def write_phantom_study(folder: Path, options: PhantomOptions) -> PhantomStudy:
    """Write one CT series (and its RT Structure Set if requested) into a folder.

    Equal options give equal bytes. File names contain the series number, so that several series can share a folder.

    Parameters
    ----------
    folder : Path
        Created if needed.
    options : PhantomOptions

    Returns
    -------
    PhantomStudy
    """
    phantom, identity = make_phantom(options), make_identity(options)
    folder.mkdir(parents=True, exist_ok=True)
    if Quirk.ENHANCED in options.quirks:
        path, uid = write_enhanced(folder, phantom, identity)
        return _phantom_study(folder, phantom, identity, _WrittenFiles([path], [path], [uid]))
    names = _file_names(options)
    written: dict[int, tuple[Path, str]] = {}
    for k, dataset in _slice_datasets(phantom, identity):
        inject_fault(dataset, k, phantom, identity)
        path = folder / names[k]
        path.write_bytes(
            inject_byte_fault(file_bytes(dataset, options, stated_rows=stated_rows(k, options)), k, options)
        )
        written[k] = path, str(dataset.SOPInstanceUID)
    files = [path for path, _ in written.values()]
    files += extra_files(folder, phantom, identity, {k: path for k, (path, _) in written.items()})
    paths, uids = [p for p, _ in written.values()], [u for _, u in written.values()]
    rtstruct = None
    if options.rtstruct:
        rtstruct = write_rtstruct(folder, phantom, identity, {k: uid for k, (_, uid) in written.items()})
    return _phantom_study(folder, phantom, identity, _WrittenFiles(files, paths, uids, rtstruct))


@dataclass(frozen=True)
class _WrittenFiles:
    files: list[Path]
    slices: list[Path]
    uids: list[str]
    rtstruct: Path | None = None


def _phantom_study(folder: Path, phantom: Phantom, identity: Identity, written: _WrittenFiles) -> PhantomStudy:
    return PhantomStudy(
        folder,
        tuple(sorted(written.files)),
        tuple(written.slices),
        tuple(written.uids),
        written.rtstruct,
        identity.study,
        identity.series,
        identity.frame_of_reference,
        phantom,
    )


def _file_names(options: PhantomOptions) -> list[str]:
    """File name of every slice index."""
    order = np.arange(options.slices)
    if options.file_order is FileOrder.AGAINST_NORMAL:
        order = order[::-1]
    elif options.file_order in (FileOrder.SHUFFLED, FileOrder.SHUFFLED_NUMBERS):
        order = np.random.default_rng([options.seed, 3]).permutation(options.slices)
    return [f"CT{options.series_number:02d}_{place + 1:05d}.dcm" for place in order]


def _instance_numbers(options: PhantomOptions) -> list[int]:
    order = np.arange(options.slices)
    if options.file_order is FileOrder.AGAINST_NORMAL:
        order = order[::-1]
    elif options.file_order is FileOrder.SHUFFLED_NUMBERS:
        order = np.random.default_rng([options.seed, 4]).permutation(options.slices)
    return [int(n) + 1 for n in order]


def _written_slices(options: PhantomOptions) -> list[int]:
    middle = options.slices // 2
    if Quirk.ONE_SLICE in options.quirks:
        return [middle]
    chosen = list(range(options.slices))
    if Quirk.MISSING_SLICE in options.quirks:
        chosen.remove(middle)
    return chosen


def _slice_datasets(phantom: Phantom, identity: Identity) -> Iterator[tuple[int, Dataset]]:
    options = phantom.options
    numbers = _instance_numbers(options)
    for k in _written_slices(options):
        dataset = common_modules(options, identity, CT_IMAGE, identity.instance("slice", str(k)))
        _series_modules(dataset, options, identity)
        dataset.InstanceNumber = str(numbers[k])
        _plane_module(dataset, phantom, k)
        _pixel_module(dataset, phantom.array[k], options, k)
        yield k, dataset


def _series_modules(d: Dataset, options: PhantomOptions, identity: Identity) -> None:
    d.Modality = "CT"
    d.SeriesInstanceUID = identity.series
    d.SeriesNumber = str(options.series_number)
    d.SeriesDescription = options.series_description
    d.BodyPartExamined = "CHEST"
    d.PatientPosition = "HFS"
    d.ProtocolName = "Generated"
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = identity.frame_of_reference, ""
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.AcquisitionNumber = "1"
    d.KVP, d.XRayTubeCurrent, d.ExposureTime = "120", "200", "500"
    d.ConvolutionKernel = "SOFT"
    d.GantryDetectorTilt = number(options.gantry_tilt)


def _plane_module(d: Dataset, phantom: Phantom, k: int) -> None:
    grid, options = phantom.grid, phantom.options
    d.SliceThickness = number(options.slice_spacing)
    d.ImagePositionPatient = [number(v) for v in np.round(grid.positions[k], 6)]
    row = grid.along_row / np.linalg.norm(grid.along_row)
    column = grid.along_column / np.linalg.norm(grid.along_column)
    d.ImageOrientationPatient = [number(v) for v in np.round(np.concatenate([row, column]), 10)]
    d.PixelSpacing = [number(v) for v in options.pixel_spacing]
    d.SliceLocation = number(round(float(grid.positions[k] @ np.cross(row, column)), 6))


def _pixel_module(d: Dataset, hu: npt.NDArray[np.int16], options: PhantomOptions, k: int) -> None:
    slope, intercept = rescale(options, k)
    unsigned = Quirk.UNSIGNED in options.quirks
    stored = np.rint((hu.astype(np.float64) - intercept) / slope)
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = hu.shape
    d.BitsAllocated = 16
    d.BitsStored, d.HighBit = (12, 11) if unsigned else (16, 15)
    d.PixelRepresentation = 0 if unsigned else 1
    d.RescaleIntercept, d.RescaleSlope, d.RescaleType = number(intercept), number(slope), "HU"
    d.WindowCenter, d.WindowWidth = "40", "400"
    if Quirk.PADDING in options.quirks:
        stored[outside_circle(hu.shape[0], hu.shape[1])] = 0 if unsigned else PADDING
        d.add_new(0x00280120, "US" if unsigned else "SS", 0 if unsigned else PADDING)
    pixels = np.clip(stored, 0, 4095).astype("<u2") if unsigned else stored.astype("<i2")
    d.add_new(0x7FE00010, "OW", pixels.tobytes())


def outside_circle(rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Pixels outside the circle that touches the edges of the image.

    Parameters
    ----------
    rows, columns : int

    Returns
    -------
    array of bool, [row j, column i]
    """
    j, i = np.ogrid[:rows, :columns]
    return np.asarray(((j - (rows - 1) / 2) / (rows / 2)) ** 2 + ((i - (columns - 1) / 2) / (columns / 2)) ** 2 > 1)

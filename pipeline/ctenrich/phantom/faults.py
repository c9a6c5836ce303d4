"""Faults of a phantom series: in a slice's attributes, in its bytes, or as an extra file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ctenrich.dicom.sop_classes import MR_IMAGE
from ctenrich.phantom.identity import Identity
from ctenrich.phantom.modules import file_bytes, number
from ctenrich.phantom.options import PhantomOptions, Quirk
from ctenrich.phantom.volume import Phantom

__all__ = ["extra_files", "faulty_slice", "inject_byte_fault", "inject_fault", "stated_rows"]


def faulty_slice(options: PhantomOptions) -> int:
    """Index of the slice that gets the fault where only one does."""
    return options.slices // 3


def inject_fault(dataset: Dataset, k: int, phantom: Phantom, identity: Identity) -> None:
    """Change the attributes of slice `k` as the quirks ask.

    Parameters
    ----------
    dataset : Dataset
        Changed in place.
    k : int
    phantom : Phantom
    identity : Identity
    """
    quirks, odd = phantom.options.quirks, k == faulty_slice(phantom.options)
    _inject_series_fault(dataset, quirks)
    if Quirk.TWO_ORIENTATIONS in quirks and k >= phantom.options.slices * 3 // 4:
        _tilt_orientation(dataset, phantom)
    if not odd:
        return
    if Quirk.OTHER_PIXEL_SPACING in quirks:
        dataset.PixelSpacing = [str(round(float(v) * 1.1, 6)) for v in dataset.PixelSpacing]
    if Quirk.OTHER_FRAME_OF_REFERENCE in quirks:
        dataset.FrameOfReferenceUID = identity.instance("other frame of reference")
    if Quirk.NO_POSITION in quirks:
        del dataset.ImagePositionPatient
    if Quirk.OTHER_MATRIX in quirks:
        dataset.Rows = dataset.Rows // 2
        dataset.PixelData = dataset.PixelData[: dataset.Rows * dataset.Columns * 2]


def stated_rows(k: int, options: PhantomOptions) -> int | None:
    """Rows that the file of slice `k` states where that is not the truth.

    Parameters
    ----------
    k : int
    options : PhantomOptions

    Returns
    -------
    int or None
        None: the true number.
    """
    return 65535 if Quirk.LYING_ROWS in options.quirks and k == faulty_slice(options) else None


def _inject_series_fault(dataset: Dataset, quirks: frozenset[Quirk]) -> None:
    if Quirk.SECONDARY in quirks:
        dataset.ImageType = ["ORIGINAL", "SECONDARY", "AXIAL"]
    if Quirk.DERIVED in quirks:
        dataset.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED"]
    if Quirk.NO_IMAGE_TYPE in quirks:
        del dataset.ImageType
    if Quirk.ZERO_SPACING in quirks:
        dataset.PixelSpacing = ["0", "0"]


def _tilt_orientation(dataset: Dataset, phantom: Phantom) -> None:
    """Turn the stated orientation by ten degrees about the row direction."""
    row = phantom.grid.along_row / np.linalg.norm(phantom.grid.along_row)
    column = phantom.grid.along_column / np.linalg.norm(phantom.grid.along_column)
    angle = np.deg2rad(10.0)
    turned = np.cos(angle) * column + np.sin(angle) * np.cross(row, column)
    dataset.ImageOrientationPatient = [f"{v:.10g}" for v in np.round(np.concatenate([row, turned]), 10)]


def inject_byte_fault(content: bytes, k: int, options: PhantomOptions) -> bytes:
    """Change the bytes of slice `k` as the quirks ask.

    Parameters
    ----------
    content : bytes
    k : int
    options : PhantomOptions

    Returns
    -------
    bytes
    """
    if Quirk.TRUNCATED in options.quirks and k == faulty_slice(options):
        return content[: len(content) - options.rows * options.columns]
    return content


def extra_files(folder: Path, phantom: Phantom, identity: Identity, written: dict[int, Path]) -> list[Path]:
    """Write the extra files beside the slices.

    Parameters
    ----------
    folder : Path
    phantom : Phantom
    identity : Identity
    written : dict of int to Path
        Slice index -> file.

    Returns
    -------
    list of Path
        Those extra files that belong to the series.
    """
    options, extra = phantom.options, []
    stem = f"CT{options.series_number:02d}"
    model = written[min(written, key=lambda k: abs(k - faulty_slice(options)))]
    if Quirk.DUPLICATE_FILE in options.quirks:
        extra.append((f"{stem}_duplicate.dcm", model.read_bytes()))
    datasets: list[tuple[str, Dataset]] = []
    if Quirk.LOCALIZER in options.quirks:
        datasets.append((f"{stem}_localizer_image.dcm", _localizer_image(model, phantom, identity)))
    if Quirk.CONFLICTING_DUPLICATE in options.quirks:
        datasets.append((f"{stem}_conflict.dcm", _brighter_copy(model)))
    if Quirk.SAME_POSITION in options.quirks:
        other = _brighter_copy(model)
        other.SOPInstanceUID = identity.instance("same position")
        datasets.append((f"{stem}_position.dcm", other))
    if Quirk.MIXED_MODALITY in options.quirks:
        datasets.append((f"{stem}_mr.dcm", _as_mr_image(model, identity)))
    extra += [(name, file_bytes(dataset, options)) for name, dataset in datasets]
    for name, content in extra:
        (folder / name).write_bytes(content)
    if Quirk.JUNK_FILE in options.quirks:
        (folder / "notes.txt").write_bytes(b"This is not a DICOM file.\n" * 20)
    if Quirk.EMPTY_FILE in options.quirks:
        (folder / "empty.dcm").write_bytes(b"")
    return [folder / name for name, _ in extra]


def _read_slice_back(path: Path) -> Dataset:
    """Read a written slice back, pixels unpacked to little endian."""
    import pydicom

    dataset = pydicom.dcmread(path, force=True)
    syntax = dataset.file_meta.TransferSyntaxUID
    pixels = dataset.pixel_array if syntax.is_compressed and not syntax.is_deflated else None
    if pixels is not None:
        dataset.add_new(0x7FE00010, "OW", pixels.astype("<i2").tobytes())
    elif not syntax.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, ">u2").astype("<u2").tobytes()
    plain = Dataset()
    for element in dataset:
        plain.add(element)
    return plain


def _brighter_copy(model: Path) -> Dataset:
    dataset = _read_slice_back(model)
    pixels = np.frombuffer(dataset.PixelData, "<i2").copy()
    pixels[: pixels.size // 2] += 50
    dataset.add_new(0x7FE00010, "OW", pixels.tobytes())
    return dataset


def _as_mr_image(model: Path, identity: Identity) -> Dataset:
    dataset = _read_slice_back(model)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR_IMAGE, identity.instance("mr")
    dataset.Modality = "MR"
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "GR", "NONE", ""
    dataset.MRAcquisitionType, dataset.EchoTime, dataset.EchoTrainLength, dataset.RepetitionTime = "2D", "3", "1", "9"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    for name in ("KVP", "XRayTubeCurrent", "ExposureTime", "ConvolutionKernel", "GantryDetectorTilt", "RescaleType"):
        delattr(dataset, name)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    return dataset


def _localizer_image(model: Path, phantom: Phantom, identity: Identity) -> Dataset:
    """A coronal projection with the head at the top."""
    dataset, grid = _read_slice_back(model), phantom.grid
    flat = phantom.array.mean(axis=1)[::-1]
    stored = np.rint(flat + 1024).astype("<i2")
    dataset.SOPInstanceUID = identity.instance("localizer")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.Rows, dataset.Columns = stored.shape
    dataset.InstanceNumber = "0"
    down = -grid.step
    row = grid.along_row / np.linalg.norm(grid.along_row)
    dataset.ImageOrientationPatient = [number(v) for v in np.round(np.concatenate([row, down]), 10)]
    dataset.ImagePositionPatient = [number(v) for v in np.round(grid.positions[-1], 6)]
    dataset.PixelSpacing = [number(phantom.options.slice_spacing), number(phantom.options.pixel_spacing[1])]
    dataset.SliceThickness = number(phantom.options.rows * phantom.options.pixel_spacing[0])
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    for keyword in ("PixelPaddingValue", "SliceLocation"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.add_new(0x7FE00010, "OW", stored.tobytes())
    return dataset

"""Stage convert: decode the ordered slices into one volume of Hounsfield units and compare it with dcm2niix."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.dicom.ct_slice import AIR, NATIVE, PixelFormat, SlicePixels, read_slice
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dicom
from ctenrich.errors import GeometryError, InputError, UnsafeInputError
from ctenrich.geometry import HU_TYPES, SPACING_SHARE, affine_lps, apply_affine
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Matrix4, Quantity, Severity, SortedSeries, Volume
from ctenrich.settings import ConvertSettings, GeometrySettings, Settings
from ctenrich.stages.dcm2niix import compress
from ctenrich.stages.second_reader import DecodedSlices, ReadSlice, write_compared_nifti
from ctenrich.workspace import Workspace, atomic_path, reserve_space, write_bytes

__all__ = [
    "SLICE_INDEX",
    "ReadSlice",
    "compress_nifti",
    "convert_series",
    "read_volume",
    "slice_index",
    "volume_affine",
]


SLICE_INDEX = "slices.json"
"""File beside the volume: slice index -> SOP Instance UID and distance along the normal."""
FRACTION = 0.01
"""HU; rescaled values that are nearer to whole numbers differ from them only by the text of slope and intercept."""
AIR_SHARE = 1e-4
"""Share of air (-1200 to -200 HU) below which values without Rescale Type HU are not taken for Hounsfield units."""


def convert_series(
    series: SortedSeries, *, settings: Settings, workspace: Workspace, progress: Progress = SILENT
) -> Volume:
    """Decode the slices into ``volume/ct.npy`` (int16, [k, j, i], HU) and compare them with a second reader's.

    Padding becomes -1024 HU. ``slices.json`` (slice index -> SOP Instance UID, distance) is written to the same folder,
    and with `convert.nifti` also ``ct.nii`` with the same voxels and the volume's affine in RAS. With
    `convert.compress_nifti`, :func:`compress_nifti` converts that to ``ct.nii.gz`` later, so that inference need not
    wait for it.

    Parameters
    ----------
    series : SortedSeries
        Slices in order, positions in mm LPS.
    settings : Settings
        ``settings.convert``: outputs, limits, threads; ``settings.geometry``: tolerances, mm.
    workspace : Workspace
        Folder of the run.
    progress : Progress
        Receives one step per slice.

    Returns
    -------
    Volume
        Its array has been saved; the caller saves the record.

    Raises
    ------
    InputError
        TRUNCATED, DECODE_ERROR, MIXED_PIXEL_FORMAT, HU_RANGE, NOT_HU, MULTIFRAME, READERS_DISAGREE, IO_ERROR,
        DISK_FULL, TIMEOUT.
    UnsafeInputError
        DECOMPRESSION_BOMB: the decompressed slice or volume would exceed the limits.
    ToolError
        TOOL_MISSING, TOOL_FAILED, TIMEOUT: dcm2niix.
    GeometryError
        READERS_DISAGREE: the affine does not fit the positions of the slices.
    """
    uid = series.series_instance_uid
    folder = workspace.series_dir(uid) / "volume"
    paths = [workspace.resolve(uid, s.path) for s in series.slices]
    affine = volume_affine(series)
    _check_affine_fits_positions(series, affine, settings.geometry)
    _check_volume(series, folder, settings.convert)
    nifti = folder / "ct.nii"
    issues: list[Issue] = []
    _remove_partial_files(folder)
    (folder / "ct.nii.gz").unlink(missing_ok=True)  # of an earlier volume
    progress.start("convert", len(paths))
    with atomic_path(folder / "ct.npy") as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype="<i2", shape=series.shape)
        reserve_space(temporary)
        read = read_volume(series, paths, array, settings=settings, progress=progress, issues=issues)
        paddings = [r.padding_hu for r in read]
        quantity = _check_quantity(series, read, settings.geometry, issues)
        if settings.convert.nifti:
            slices = DecodedSlices(series=series, paths=paths, affine=affine, array=array, read=read)
            write_compared_nifti(slices, nifti, issues)
        digest = _fill_padding(array, paddings, issues)
        array.flush()
        del array
    progress.finish("convert")
    write_bytes(folder / SLICE_INDEX, slice_index(series))
    return Volume(
        series_instance_uid=uid,
        array_path=workspace.relative(uid, folder / "ct.npy"),
        shape=series.shape,
        affine_lps=affine,
        spacing=(series.slice_spacing, *series.pixel_spacing),
        frame_of_reference_uid=series.frame_of_reference_uid,
        sha256=digest,
        quantity=quantity,
        nifti_path=workspace.relative(uid, _nifti_product(nifti, settings)) if settings.convert.nifti else None,
        issues=tuple(issues),
    )


def slice_index(series: SortedSeries) -> bytes:
    """Content of ``slices.json`` of a series."""
    index = [
        {"index": k, "sop_instance_uid": s.sop_instance_uid, "distance": s.distance}
        for k, s in enumerate(series.slices)
    ]
    return json.dumps(index, indent=1).encode() + b"\n"


def compress_nifti(volume: Volume, *, workspace: Workspace) -> Path:
    """Compress the ``ct.nii`` of :func:`convert_series` to ``ct.nii.gz``, which the volume's record names.

    The uncompressed file is removed. The bytes are the same every time.

    Parameters
    ----------
    volume : Volume
        The volume of the series.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    Path
        The compressed file.

    Raises
    ------
    InputError
        NOT_PREPARED if there is no uncompressed file; the series must be converted again.
    """
    plain = workspace.series_dir(volume.series_instance_uid) / "volume" / "ct.nii"
    if not plain.is_file():
        raise InputError(Reason.NOT_PREPARED, "there is no ct.nii to compress", "convert the series again")
    return compress(plain)


def _nifti_product(plain: Path, settings: Settings) -> Path:
    return plain.with_name(plain.name + ".gz") if settings.convert.compress_nifti else plain


def volume_affine(series: SortedSeries) -> Matrix4:
    """Return the affine (i, j, k, 1) -> mm LPS of a sorted series: first position, even steps along the normal."""
    return affine_lps(
        series.slices[0].position, series.row_cosines, series.column_cosines, series.pixel_spacing, series.slice_spacing
    )


def _remove_partial_files(folder: Path) -> None:
    """Remove partial files of a run that was killed."""
    for leftover in folder.glob(".*.tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _check_affine_fits_positions(series: SortedSeries, affine: Matrix4, settings: GeometrySettings) -> None:
    """Check that the affine maps every slice to its own position."""
    placed = apply_affine(affine, [[0.0, 0.0, float(k)] for k in range(len(series.slices))])
    apart = np.linalg.norm(placed - np.array([s.position for s in series.slices]), axis=1)
    worst = int(np.argmax(apart))
    line = min(settings.line_tolerance, series.slice_spacing / SPACING_SHARE)
    drift = min(settings.drift, min(series.pixel_spacing) / SPACING_SHARE)
    if float(apart[worst]) > line + 2 * drift:
        message = f"the affine puts slice {worst} {float(apart[worst]):.2f} mm from its own position"
        raise GeometryError(Reason.READERS_DISAGREE, message)


def _check_volume(series: SortedSeries, folder: Path, settings: ConvertSettings) -> None:
    """Refuse a volume that is too large for the limit or the disk, before the first slice is decoded.

    The headers of a compressed series of a few megabytes may announce hundreds of gigabytes.
    """
    need = 2 * math.prod(series.shape)
    if need > settings.max_volume:
        message = f"the slices need a volume of {need} bytes; the limit is {settings.max_volume}"
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, message, "raise convert.max_volume if the series is valid")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if need * (2 if settings.nifti else 1) > free:
        raise InputError(Reason.DISK_FULL, f"the volume needs {need} bytes; {free} are free")


def read_volume(
    series: SortedSeries,
    paths: Sequence[Path],
    out: NDArray[np.int16],
    *,
    settings: Settings,
    progress: Progress = SILENT,
    issues: list[Issue] | None = None,
) -> list[ReadSlice]:
    """Decode all slices into `out`; padding keeps its stored value.

    Parameters
    ----------
    series : SortedSeries
        Slices in order.
    paths : sequence of Path
        Their files, by slice index.
    out : array (slices, rows, columns) of int16
        Receives HU, [k, j, i].
    settings : Settings
        ``settings.convert``: threads, time limit.
    progress : Progress
        Receives one step per slice.
    issues : list of Issue, optional
        Receives notes on unusual pixel data.

    Returns
    -------
    list of ReadSlice
        By slice index.

    Raises
    ------
    InputError
        The errors of :func:`ctenrich.dicom.ct_slice.read_slice`; TIMEOUT after `convert.decode_timeout`;
        READERS_DISAGREE, MULTI_MATRIX, MIXED_PIXEL_FORMAT if the slices do not belong together.
    """
    deadline = time.monotonic() + settings.convert.decode_timeout
    lock = threading.Lock()
    failed = threading.Event()
    notes: dict[str, int] = {}

    def work(k: int) -> ReadSlice | None:
        if failed.is_set():
            return None
        try:
            if time.monotonic() > deadline:
                message = f"decoding took more than {settings.convert.decode_timeout:g} s"
                raise InputError(Reason.TIMEOUT, message, "raise convert.decode_timeout")
            pixels = _check_slice(read_slice(paths[k], out[k]), series, k)
        except BaseException:
            failed.set()
            raise
        with lock:
            for note in pixels.notes:
                notes[note] = notes.get(note, 0) + 1
            progress.advance("convert")
        return ReadSlice(
            format=pixels.format,
            padding_hu=pixels.padding_hu,
            transfer_syntax=pixels.transfer_syntax,
            slope=pixels.slope,
            rescale_type=pixels.rescale_type,
            fraction=pixels.fraction,
            air_pixels=pixels.air_pixels,
        )

    with quiet(), ThreadPoolExecutor(_decoder_threads(paths[0], settings)) as pool:
        # if several slices are damaged, the error of the first one in slice order is raised
        done = [future.result() for future in [pool.submit(work, k) for k in range(len(paths))]]
    read = [r for r in done if r is not None]
    _check_formats([r.format for r in read])
    if issues is not None:
        for note, count in sorted(notes.items()):
            message = f"{count} slices: {note}"
            issues.append(Issue("convert.pixels", Severity.WARNING, series.series_instance_uid, message))
    return read


def _decoder_threads(first: Path, settings: Settings) -> int:
    """Number of threads: several for compressed pixels; uncompressed pixels are copied faster by one thread."""
    with open_dicom(first, tags=("SOPClassUID", "SOPInstanceUID")) as parsed:
        return 1 if parsed.transfer_syntax in NATIVE else max(1, settings.convert.threads)


def _check_slice(pixels: SlicePixels, series: SortedSeries, k: int) -> SlicePixels:
    """Check that the file is still the slice that was sorted."""
    expected = series.slices[k]
    if pixels.sop_instance_uid != expected.sop_instance_uid or pixels.position != expected.position:
        raise InputError(Reason.READERS_DISAGREE, f"slice {k} is not the image that was sorted to this position")
    if pixels.hu.shape != (series.rows, series.columns):
        raise InputError(Reason.MULTI_MATRIX, f"the matrix of slice {k} differs from that of the series")
    return pixels


def _check_quantity(
    series: SortedSeries, read: Sequence[ReadSlice], settings: GeometrySettings, issues: list[Issue]
) -> Quantity:
    """Check that the values are whole Hounsfield units (PS3.3 C.11.1.1.2).

    Rescale Type HU states it. Where the type is absent or US (unspecified), air has to be there.
    """
    found = []
    types = sorted({r.rescale_type for r in read} - HU_TYPES)
    if types:
        found.append(f"Rescale Type is {', '.join(t[:16] for t in types)}")
    unstated = [r.air_pixels for r in read if r.air_pixels is not None]
    if unstated and not types and sum(unstated) < AIR_SHARE * len(unstated) * series.rows * series.columns:
        found.append("no Rescale Type states Hounsfield units, and no voxel has the value of air (-1200 to -200 HU)")
    rounded = sum(r.fraction > FRACTION for r in read)
    problems = [*found, *([f"the values of {rounded} slices are not whole numbers"] if rounded else [])]
    if problems and not settings.allow_not_hu:
        hint = "geometry.allow_not_hu = true takes the values as they are, rounded to whole numbers"
        raise InputError(Reason.NOT_HU, "; ".join(problems), hint)
    if found:
        message = f"{'; '.join(found)}: the volume's quantity is unknown, and networks for CT refuse it"
        issues.append(Issue("convert.not_hu", Severity.WARNING, series.series_instance_uid, message))
    return Quantity.UNKNOWN if found else Quantity.HU


def _check_formats(formats: Sequence[PixelFormat]) -> None:
    for what in ("bits_allocated", "bits_stored", "signed", "photometric"):
        if len({getattr(f, what) for f in formats}) > 1:
            raise InputError(Reason.MIXED_PIXEL_FORMAT, f"{what.replace('_', ' ')} changes within the series")
    if len({(f.padding, f.padding_limit) for f in formats if f.padding is not None}) > 1:
        raise InputError(Reason.MIXED_PIXEL_FORMAT, "the padding value changes within the series")


def _fill_padding(array: NDArray[np.int16], paddings: Sequence[tuple[int, int] | None], issues: list[Issue]) -> str:
    """Set padding to -1024 HU; returns the SHA-256 of the voxels."""
    digest = hashlib.sha256()
    filled = 0
    for k, padding in enumerate(paddings):
        plane = array[k]
        if padding is not None:
            outside = (plane >= padding[0]) & (plane <= padding[1])
            filled += int(np.count_nonzero(outside))
            plane[outside] = AIR
        digest.update(np.ascontiguousarray(plane).data)
    if filled:
        issues.append(Issue("convert.padding", Severity.NOTE, "ct.npy", f"{filled} padding voxels became {AIR} HU"))
    return digest.hexdigest()

"""Stage convert: ordered slices become one volume of Hounsfield units, read twice and compared."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.dicom.ct_slice import AIR, NATIVE, PixelFormat, SlicePixels, read_slice
from ctenrich.dicom.reader import open_dicom, quiet
from ctenrich.errors import GeometryError, InputError, UnsafeInputError
from ctenrich.geometry import affine_lps, apply_affine
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Matrix4, Quantity, Severity, SortedSeries, Volume
from ctenrich.settings import ConvertSettings, GeometrySettings, Settings
from ctenrich.stages.dcm2niix import Dcm2niixVolume, compress, write_nifti
from ctenrich.workspace import Workspace, atomic_path, write_bytes

__all__ = ["ReadSlice", "compress_nifti", "convert_series", "read_volume", "volume_affine"]


@dataclass(frozen=True)
class ReadSlice:
    """What is kept of a slice once its pixels are in the array."""

    format: PixelFormat
    padding_hu: tuple[int, int] | None
    """Range of HU, ends included, that stands for padding."""
    transfer_syntax: str


def convert_series(
    series: SortedSeries, *, settings: Settings, workspace: Workspace, progress: Progress = SILENT
) -> Volume:
    """Read the slices into ``volume/ct.npy`` (int16, [k, j, i], HU) and hold it against dcm2niix's own reading.

    Padding becomes -1024 HU. Beside the array stand ``slices.json`` (slice index -> SOP Instance UID, distance) and,
    where `convert.nifti` asks for it, ``ct.nii`` with the same voxels and the volume's affine in RAS. Where
    `convert.compress_nifti` asks for it too, :func:`compress_nifti` makes ``ct.nii.gz`` of that later, so that nothing
    waits for it.

    Returns
    -------
    Volume
        Its array is saved, the record is not.

    Raises
    ------
    InputError
        TRUNCATED, DECODE_ERROR, MIXED_PIXEL_FORMAT, HU_RANGE, MULTIFRAME, READERS_DISAGREE, IO_ERROR, DISK_FULL,
        TIMEOUT.
    UnsafeInputError
        DECOMPRESSION_BOMB: a slice or the volume would unpack to more than the limits.
    ToolError
        TOOL_MISSING, TOOL_FAILED, TIMEOUT: dcm2niix itself.
    """
    uid = series.series_instance_uid
    folder = workspace.series_dir(uid) / "volume"
    paths = [workspace.resolve(uid, s.path) for s in series.slices]
    affine = volume_affine(series)
    _check_positions(series, affine, settings.geometry)
    _check_volume(series, folder, settings.convert)
    nifti = folder / "ct.nii"
    issues: list[Issue] = []
    _sweep(folder)
    (folder / "ct.nii.gz").unlink(missing_ok=True)  # of an earlier volume
    progress.start("convert", len(paths))
    with atomic_path(folder / "ct.npy") as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype="<i2", shape=series.shape)
        read = read_volume(series, paths, array, settings=settings, progress=progress, issues=issues)
        paddings = [r.padding_hu for r in read]
        if settings.convert.nifti:
            with write_nifti(series, paths, nifti, affine, [r.transfer_syntax for r in read]) as check:
                _compare(array, paddings, check, issues)
        digest = _fill_padding(array, paddings, issues)
        array.flush()
        del array
    progress.finish("convert")
    slices = [{"index": k, "sop_instance_uid": s.sop_instance_uid, "distance": s.distance}
              for k, s in enumerate(series.slices)]  # fmt: skip
    write_bytes(folder / "slices.json", json.dumps(slices, indent=1).encode() + b"\n")
    return Volume(
        series_instance_uid=uid,
        array_path=workspace.relative(uid, folder / "ct.npy"),
        shape=series.shape,
        affine_lps=affine,
        spacing=(series.slice_spacing, *series.pixel_spacing),
        frame_of_reference_uid=series.frame_of_reference_uid,
        sha256=digest,
        quantity=Quantity.HU,
        nifti_path=workspace.relative(uid, _product(nifti, settings)) if settings.convert.nifti else None,
        issues=tuple(issues),
    )


def compress_nifti(volume: Volume, *, workspace: Workspace) -> Path:
    """Make ``ct.nii.gz``, which the volume's record names, of the ``ct.nii`` that :func:`convert_series` left.

    The plain file is removed. The bytes are the same every time, and unpack to those of the plain file.

    Raises
    ------
    InputError
        NOT_PREPARED: there is no plain file (any more); convert again.
    """
    plain = workspace.series_dir(volume.series_instance_uid) / "volume" / "ct.nii"
    if not plain.is_file():
        raise InputError(Reason.NOT_PREPARED, "there is no ct.nii to compress", "convert the series again")
    return compress(plain)


def _product(plain: Path, settings: Settings) -> Path:
    return plain.with_name(plain.name + ".gz") if settings.convert.compress_nifti else plain


def volume_affine(series: SortedSeries) -> Matrix4:
    """(i, j, k, 1) -> mm LPS of a sorted series: first slice's position, even steps along the normal."""
    return affine_lps(
        series.slices[0].position, series.row_cosines, series.column_cosines, series.pixel_spacing, series.slice_spacing
    )


def _sweep(folder: Path) -> None:
    """Remove what a run that was killed left half-written."""
    for leftover in folder.glob(".*.tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _check_positions(series: SortedSeries, affine: Matrix4, settings: GeometrySettings) -> None:
    """Every slice's own position is where the affine puts it: the last word on order and spacing."""
    placed = apply_affine(affine, [[0.0, 0.0, float(k)] for k in range(len(series.slices))])
    apart = np.linalg.norm(placed - np.array([s.position for s in series.slices]), axis=1)
    worst = int(np.argmax(apart))
    if float(apart[worst]) > settings.line_tolerance + 2 * settings.drift:
        message = f"the affine puts slice {worst} {float(apart[worst]):.2f} mm from its own position"
        raise GeometryError(Reason.READERS_DISAGREE, message)


def _check_volume(series: SortedSeries, folder: Path, settings: ConvertSettings) -> None:
    """Refuse before the first slice is decoded where the array would be absurd, or the disk has no folder for it.

    A compressed series of a few megabytes may claim hundreds of gigabytes.
    """
    need = 2 * math.prod(series.shape)
    if need > settings.max_volume:
        message = f"the slices claim a volume of {need} bytes, the limit is {settings.max_volume}"
        raise UnsafeInputError(
            Reason.DECOMPRESSION_BOMB, message, "raise convert.max_volume if the series is what it says"
        )
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if need * (2 if settings.nifti else 1) > free:
        raise InputError(Reason.DISK_FULL, f"the volume needs {need} bytes, {free} are free")


def read_volume(
    series: SortedSeries,
    paths: Sequence[Path],
    out: NDArray[np.int16],
    *,
    settings: Settings,
    progress: Progress = SILENT,
    issues: list[Issue] | None = None,
) -> list[ReadSlice]:
    """Decode all slices into `out`, [k, j, i], HU; padding is left as it is stored.

    Returns
    -------
    list of ReadSlice
        By slice index.

    Raises
    ------
    InputError
        What :func:`ctenrich.dicom.ct_slice.read_slice` raises; TIMEOUT where `convert.decode_timeout` is used up.
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
            pixels = _checked(read_slice(paths[k], out[k]), series, k)
        except BaseException:
            failed.set()
            raise
        with lock:
            for note in pixels.notes:
                notes[note] = notes.get(note, 0) + 1
            progress.advance("convert")
        return ReadSlice(pixels.format, pixels.padding_hu, pixels.transfer_syntax)

    with quiet(), ThreadPoolExecutor(_threads(paths[0], settings)) as pool:
        # errors first: of several broken slices the first one in slice order speaks
        done = [future.result() for future in [pool.submit(work, k) for k in range(len(paths))]]
    read = [r for r in done if r is not None]
    _check_formats([r.format for r in read])
    if issues is not None:
        for note, count in sorted(notes.items()):
            message = f"{count} slices: {note}"
            issues.append(Issue("convert.pixels", Severity.WARNING, series.series_instance_uid, message))
    return read


def _threads(first: Path, settings: Settings) -> int:
    """Decoders work side by side; plain pixels are copied sooner by one thread than by two that take turns."""
    with open_dicom(first, tags=("SOPClassUID", "SOPInstanceUID")) as parsed:
        return 1 if parsed.transfer_syntax in NATIVE else max(1, settings.convert.threads)


def _checked(pixels: SlicePixels, series: SortedSeries, k: int) -> SlicePixels:
    """The file still is the slice that was sorted."""
    expected = series.slices[k]
    if pixels.sop_instance_uid != expected.sop_instance_uid or pixels.position != expected.position:
        raise InputError(Reason.READERS_DISAGREE, f"slice {k} is not the image that was sorted to this place")
    if pixels.hu.shape != (series.rows, series.columns):
        raise InputError(Reason.MULTI_MATRIX, f"slice {k} has another matrix than the series")
    return pixels


def _check_formats(formats: Sequence[PixelFormat]) -> None:
    for what in ("bits_allocated", "bits_stored", "signed", "photometric"):
        if len({getattr(f, what) for f in formats}) > 1:
            raise InputError(Reason.MIXED_PIXEL_FORMAT, f"{what.replace('_', ' ')} changes within the series")
    if len({(f.padding, f.padding_limit) for f in formats if f.padding is not None}) > 1:
        raise InputError(Reason.MIXED_PIXEL_FORMAT, "the padding value changes within the series")


def _compare(
    array: NDArray[np.int16], paddings: Sequence[tuple[int, int] | None], check: Dcm2niixVolume, issues: list[Issue]
) -> None:
    """Hold dcm2niix's volume against ours, voxel for voxel; put our padding into the NIfTI too."""
    for k, padding in enumerate(paddings):
        plane = check.plane(k)
        if not np.array_equal(plane, array[k]):
            count = int(np.count_nonzero(plane != array[k]))
            raise InputError(Reason.READERS_DISAGREE, f"{count} voxels of slice {k} differ from dcm2niix's reading")
        if padding is not None:
            plane[(plane >= padding[0]) & (plane <= padding[1])] = AIR
        check.put(k, plane, changed=padding is not None)
    if check.clean_copies:
        message = (
            "dcm2niix read copies with geometry and pixels alone: it would have parted the series by other elements"
        )
        issues.append(Issue("convert.clean_copies", Severity.NOTE, "ct.nii", message))
    if check.adjusted:
        issues.append(Issue("convert.nifti_affine", Severity.NOTE, "ct.nii", check.adjusted))


def _fill_padding(array: NDArray[np.int16], paddings: Sequence[tuple[int, int] | None], issues: list[Issue]) -> str:
    """Put -1024 HU where there is padding, and hash the voxels on the way."""
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

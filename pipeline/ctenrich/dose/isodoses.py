"""Isodoses as an RT Structure Set or a Segmentation: regions of at least a dose on the pixels of a CT, proven."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from ctenrich import __version__
from ctenrich.contours.raster import Grid, grid_of, rasterise
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.seg import read_seg
from ctenrich.dose.grid import DoseSampler, Lattice
from ctenrich.dose.reader import Dose
from ctenrich.encode.isodose_seg import isodose_segmentation
from ctenrich.encode.isodose_set import IsodoseRegion, isodose_set
from ctenrich.encode.memory import check_array
from ctenrich.encode.outlines import trace_mask
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries
from ctenrich.settings import Settings
from ctenrich.uids import derive_uid
from ctenrich.workspace import write_bytes

__all__ = ["IsodoseForm", "WrittenIsodoses", "parse_levels", "write_isodoses"]

Mask = NDArray[np.bool_]
IsodoseForm = Literal["rtstruct", "seg"]


@dataclass(frozen=True, kw_only=True)
class WrittenIsodoses:
    """A structure set or segmentation of isodoses, proven."""

    sop_instance_uid: str
    volumes: tuple[tuple[float, float], ...]
    """(Dose in Gy, cm3 of the region)."""
    notes: tuple[str, ...]


def parse_levels(texts: Sequence[str], prescribed: float | None) -> tuple[float, ...]:
    """Parse doses: ``20``, ``20Gy`` or ``95%`` of the prescribed dose, several separated by commas.

    Parameters
    ----------
    texts : sequence of str
    prescribed : float or None
        Gy; needed for percentages.

    Returns
    -------
    tuple of float
        Gy, rising, each once.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    out = set()
    for part in (part.strip() for text in texts for part in text.split(",")):
        share = part.endswith("%")
        if share and prescribed is None:
            hint = "name the plan with --plan, or the dose with --prescribed"
            raise UsageError(
                Reason.BAD_PARAMETER, f"{part[:20]!r} is a share of a prescribed dose that is not known", hint
            )
        try:
            number = float(part.removesuffix("%") if share else part.removesuffix("Gy"))
        except ValueError:
            number = 0.0
        dose = number / 100 * prescribed if share and prescribed is not None else number
        if not 0 < dose < 1e4:
            raise UsageError(Reason.BAD_PARAMETER, f"{part[:20]!r} is no dose", "doses are like 20, 20Gy or 95%")
        out.add(round(dose, 6))
    return tuple(sorted(out))


@dataclass
class _Region:
    """One isodose while the slices are gone through."""

    level: float
    outlines: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)
    voxels: int = 0
    cut_by_dose: bool = False
    cut_by_images: bool = False


def write_isodoses(
    dose: Dose,
    series: SortedSeries,
    levels: Sequence[float],
    path: Path,
    *,
    form: IsodoseForm = "rtstruct",
    settings: Settings | None = None,
) -> WrittenIsodoses:
    """Write the regions of at least some doses, read the file again, and compare every voxel.

    A voxel belongs to a region if the dose at its centre, interpolated linearly, is at least the level. Contours of a
    structure set run along the edges of the pixels.

    Parameters
    ----------
    dose : Dose
        In Gy and PHYSICAL, in the frame of reference of the series.
    series : SortedSeries
        The images, with absolute paths.
    levels : sequence of float
        Gy.
    path : Path
        The new file.
    form : {"rtstruct", "seg"}
        RT Structure Set, or Segmentation of the type BINARY.
    settings : Settings, optional
        Dates, and the limit of memory.

    Returns
    -------
    WrittenIsodoses

    Raises
    ------
    InputError
        DOSE_UNITS, DOSE_TYPE, DOSE_SUMMATION, DOSE_OTHER_FRAME, DOSE_OFFSETS for a single frame; PROOF_FAILED where
        the file, read again, has not the regions: it is then removed.
    EncodingError
        OUT_OF_MEMORY where the masks of a segmentation take more memory than a worker may use.
    UsageError
        BAD_PARAMETER for a level that the dose does not reach on the images.
    """
    dose.check_physical()
    dose.check_scope()
    if not dose.frame_of_reference_uid or dose.frame_of_reference_uid != series.frame_of_reference_uid:
        raise InputError(Reason.DOSE_OTHER_FRAME, "the dose has another frame of reference than the images")
    if min(dose.grid.shape) < 2:
        raise InputError(Reason.DOSE_OFFSETS, "the dose has a single plane, row or column")
    grid, chosen = grid_of(series), settings or Settings()
    regions = _find_regions(dose, grid, levels)
    for one in regions:
        if not one.voxels:
            text = f"no voxel of the images has {one.level:g} Gy; the maximum of the dose is {dose.grid.maximum:.2f} Gy"
            raise UsageError(Reason.BAD_PARAMETER, text)
    stated = (dose.sop_instance_uid, dose.grid.maximum)
    if form == "seg":
        check_array((len(levels) + 8) * math.prod(grid.shape), "the masks of the isodoses", chosen)
        masks = np.zeros((*grid.shape, len(levels)), np.uint8)
        for k, plane in enumerate(_planes(dose, grid)):
            for n, level in enumerate(levels):
                masks[k, :, :, n] = _at_least(plane, level)
        dataset = isodose_segmentation(masks, levels, series, stated, chosen.encode)
    else:
        found = [IsodoseRegion(level=one.level, outlines=one.outlines) for one in regions]
        dataset = isodose_set(found, series, stated, chosen.encode)
    _write(dataset, path)
    drawn = _segments_again(path, series) if form == "seg" else _contours_again(path, grid)
    if not _same_regions(drawn, dose, grid, regions):
        path.unlink()
        raise InputError(Reason.PROOF_FAILED, "the file, read and drawn again, has not the regions of the dose")
    return WrittenIsodoses(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        volumes=tuple((one.level, one.voxels * grid.voxel_volume / 1000) for one in regions),
        notes=tuple(_notes(regions)),
    )


def _write(dataset: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derive_uid("implementation", "ctenrich", __version__))
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())


def _planes(dose: Dose, grid: Grid) -> Iterator[NDArray[np.float64]]:
    """Dose at the pixel centres of every slice; NaN outside the dose grid."""
    sampler = DoseSampler(dose.grid, grid.row, grid.column)
    for k in range(grid.shape[0]):
        across = grid.origins[k] @ grid.row + grid.pixel_spacing[1] * np.arange(grid.shape[2])
        down = grid.origins[k] @ grid.column + grid.pixel_spacing[0] * np.arange(grid.shape[1])
        yield sampler.plane(float(grid.distances[k]), Lattice(along_rows=across, along_columns=down))


def _at_least(plane: NDArray[np.float64], level: float) -> Mask:
    with np.errstate(invalid="ignore"):
        return np.asarray(plane >= level)


def _find_regions(dose: Dose, grid: Grid, levels: Sequence[float]) -> list[_Region]:
    regions = [_Region(level) for level in levels]
    last = grid.shape[0] - 1
    unknown_before = np.zeros(grid.shape[1:], bool)
    masks_before = [np.zeros(grid.shape[1:], bool) for _ in regions]
    for k, plane in enumerate(_planes(dose, grid)):
        unknown = np.isnan(plane)
        beside = _grown(unknown) | unknown_before
        for n, one in enumerate(regions):
            mask = _at_least(plane, one.level)
            one.cut_by_dose |= bool((mask & beside).any() or (masks_before[n] & unknown).any())
            edge = mask.copy()
            edge[1:-1, 1:-1] = False
            one.cut_by_images |= bool(edge.any() or (k in (0, last) and mask.any()))
            if mask.any():
                one.voxels += int(np.count_nonzero(mask))
                one.outlines[k] = [points for outline in trace_mask(mask) for points in (outline.outer, *outline.holes)]
            masks_before[n] = mask
        unknown_before = unknown
    return regions


def _grown(mask: Mask) -> Mask:
    """The mask and the pixels beside it."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    return out


def _contours_again(path: Path, grid: Grid) -> list[Mask]:
    """Masks of the contours of a written structure set."""
    return [rasterise(roi.contours, grid, nesting="xor").mask for roi in load_contours(path).rois]


def _segments_again(path: Path, series: SortedSeries) -> list[Mask]:
    """Masks of the segments of a written segmentation, decoded by other code than wrote it."""
    decoded = read_seg(path, series)
    if not decoded.on_source_grid:
        return []
    return [decoded.mask(segment.number) for segment in decoded.segments]


def _same_regions(drawn: Sequence[Mask], dose: Dose, grid: Grid, regions: Sequence[_Region]) -> bool:
    if len(drawn) != len(regions):
        return False
    return all(
        np.array_equal(mask[k], _at_least(plane, one.level))
        for k, plane in enumerate(_planes(dose, grid))
        for mask, one in zip(drawn, regions, strict=True)
    )


def _notes(regions: Sequence[_Region]) -> Iterator[str]:
    for one in regions:
        if one.cut_by_dose:
            yield f"the region of {one.level:g} Gy ends at the border of the dose grid, beyond which no dose is known"
        if one.cut_by_images:
            yield f"the region of {one.level:g} Gy ends at the border of the images"

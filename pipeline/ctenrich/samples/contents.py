"""What a sample object contains, read back from its file: the numbers that other programs must show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.objects import header
from ctenrich.dicom.parametric_map import read_map
from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.sop_classes import PARAMETRIC_MAP, REPORT_CLASSES, RT_STRUCTURE_SET, SEGMENTATION_CLASSES
from ctenrich.dicom.sr import Group, Site, read_sr
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries

__all__ = ["MapContents", "ObjectContents", "RegionContents", "ReportContents", "VoxelValue", "contents_of"]

_EXAMPLES = 8
"""Groups of a report of which the README gives a value."""
_PLACES, _APART = 4, 10
"""Voxels of a map of which the README gives the value, and columns between them."""
_MIDDLE = 10.0
"""mm from the middle of the patient, up to which a structure lies in the middle."""


@dataclass(frozen=True, kw_only=True)
class RegionContents:
    """One segment or ROI."""

    number: int
    name: str
    voxels: int
    """Voxels of the CT; of an ROI, those whose centres its contours enclose; of fractions, those from one half on."""
    volume_ml: float
    centroid_mm: tuple[float, float, float]
    """LPS."""
    first_image: int
    """Instance Number of the lowest slice."""
    last_image: int
    side: str
    """``left``, ``right`` or ``middle`` of the patient."""


@dataclass(frozen=True, kw_only=True)
class ReportContents:
    """Groups and values of a report."""

    groups: int
    values: int
    examples: tuple[str, ...]
    """One value of each of the first groups."""


@dataclass(frozen=True, kw_only=True)
class VoxelValue:
    """Value of a map at a voxel."""

    image: int
    """Instance Number of the slice; 1 is the lowest."""
    column: int
    """From 0, in a row of the image."""
    row: int
    """From 0."""
    position_mm: tuple[float, float, float]
    """LPS."""
    value: float


@dataclass(frozen=True, kw_only=True)
class MapContents:
    """Values of a Parametric Map, after its Real World Value Mapping."""

    quantity: str
    unit: str
    """UCUM."""
    stored: str
    """Type of the stored pixels."""
    smallest: float
    largest: float
    examples: tuple[VoxelValue, ...]
    """The largest value, then every tenth voxel along the row to the patient's right of it."""


@dataclass(frozen=True, kw_only=True)
class ObjectContents:
    """What one object contains."""

    sop_class_uid: str
    sop_instance_uid: str
    series_description: str
    regions: tuple[RegionContents, ...] = ()
    report: ReportContents | None = None
    map: MapContents | None = None


def contents_of(path: Path, series: SortedSeries, example: str = "") -> ObjectContents:
    """Read an object.

    Parameters
    ----------
    path : Path
        SEG, label map SEG, Parametric Map, TID 1500 report or RT Structure Set.
    series : SortedSeries
        The CT that it refers to; the patient's middle is at x = 0.
    example : str
        Meaning of the quantity that is given of each of the first groups of a report.

    Returns
    -------
    ObjectContents

    Raises
    ------
    InputError
        BAD_PARAMETER for an object of another class, and the errors of its reader.
    """
    found = header(path)
    sop_class = str(found.SOPClassUID)
    regions: tuple[RegionContents, ...] = ()
    report, values = None, None
    if sop_class in SEGMENTATION_CLASSES:
        seg = read_seg(path, series)
        regions = tuple(_region((s.number, s.label), seg.mask(s.number), series) for s in seg.segments if s.voxels)
    elif sop_class == RT_STRUCTURE_SET:
        grid = grid_of(series)
        rois = [(roi, rasterise(roi.contours, grid).mask) for roi in load_contours(path).rois]
        regions = tuple(_region((roi.number, roi.name), np.asarray(mask, bool), series) for roi, mask in rois)
    elif sop_class in REPORT_CLASSES:
        report = _report(path, example)
    elif sop_class == PARAMETRIC_MAP:
        values = _map(path, series)
    else:
        raise InputError(Reason.BAD_PARAMETER, f"{path.name} is no object that the samples know: {sop_class}")
    return ObjectContents(
        sop_class_uid=sop_class,
        sop_instance_uid=str(found.SOPInstanceUID),
        series_description=str(found.get("SeriesDescription", "")),
        regions=regions,
        report=report,
        map=values,
    )


def _region(name: tuple[int, str], mask: NDArray[np.bool_], series: SortedSeries) -> RegionContents:
    grid = grid_of(series)
    k, j, i = np.nonzero(mask)
    along_rows = i[:, None] * grid.row * grid.pixel_spacing[1]
    along_columns = j[:, None] * grid.column * grid.pixel_spacing[0]
    x, y, z = (grid.origins[k] + along_rows + along_columns).mean(axis=0)
    return RegionContents(
        number=name[0],
        name=name[1],
        voxels=int(k.size),
        volume_ml=round(k.size * grid.voxel_volume / 1000, 3),
        centroid_mm=(round(float(x), 2), round(float(y), 2), round(float(z), 2)),
        first_image=int(k.min()) + 1,
        last_image=int(k.max()) + 1,
        side="middle" if abs(x) <= _MIDDLE else "left" if x > 0 else "right",
    )


def _map(path: Path, series: SortedSeries) -> MapContents:
    found = read_map(path)
    grid = grid_of(series)
    if found.values.shape != series.shape:
        raise InputError(Reason.OTHER_GRID, f"{path.name} is not on the grid of the CT")
    k, j, i = (int(n) for n in np.unravel_index(int(np.nanargmax(found.values)), found.values.shape))
    examples = []
    for column in range(i, -1, -_APART)[:_PLACES]:
        along = column * grid.row * grid.pixel_spacing[1]
        x, y, z = (round(float(v), 2) for v in grid.origins[k] + along + j * grid.column * grid.pixel_spacing[0])
        value = round(float(found.values[k, j, column]), 4)
        examples.append(VoxelValue(image=k + 1, column=column, row=j, position_mm=(x, y, z), value=value))
    return MapContents(
        quantity=found.quantity.meaning if found.quantity else "",
        unit=found.unit.value if found.unit else "",
        stored=found.stored,
        smallest=round(float(np.nanmin(found.values)), 4),
        largest=round(float(np.nanmax(found.values)), 4),
        examples=tuple(examples),
    )


def _report(path: Path, example: str) -> ReportContents:
    groups = read_sr(path).groups
    return ReportContents(
        groups=len(groups),
        values=sum(len(group.values) for group in groups),
        examples=tuple(text for group in groups[:_EXAMPLES] for text in _example(group, example)),
    )


def _example(group: Group, quantity: str) -> Iterator[str]:
    for value in group.values:
        if value.quantity.meaning == quantity and value.value is not None:
            unit = value.unit.value if value.unit and value.unit.value != "1" else ""
            place = ", ".join(map(_site_name, group.sites)) or group.tracking_id
            yield f"{place}: {quantity} {value.value:.6g} {unit}".strip()


def _site_name(site: Site) -> str:
    details = [code.meaning for code in (site.laterality, site.topography) if code is not None]
    return f"{site.code.meaning} ({', '.join(details)})" if details else site.code.meaning

"""Read the source slices again from their files, and check which exist and where they are in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray

from ctenrich.proof.checks import Report
from ctenrich.records import SortedSeries, Volume
from ctenrich.settings import GeometrySettings
from ctenrich.workspace import Workspace

__all__ = ["TOLERANCE", "SourceSlice", "SourceSlices", "read_source", "source_checks", "tolerance"]

TOLERANCE = 0.01
"""Largest distance in mm between two statements of the same position."""

_TAGS = ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows"]
_TAGS += ["Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpecificCharacterSet"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SourceSlice:
    """Geometry of one CT slice, from its file; mm, LPS."""

    uid: str
    sop_class_uid: str
    series_uid: str
    frame_of_reference_uid: str
    position: Floats
    row: Floats
    """Unit vector in the direction of increasing column index."""
    column: Floats
    """Unit vector in the direction of increasing row index."""
    spacing: tuple[float, float]
    """(between rows, between columns), mm."""
    size: tuple[int, int]
    """(rows, columns)."""


@dataclass(frozen=True)
class SourceSlices:
    """All slices of a series that could be read, by SOP Instance UID, in the order of the sorted series."""

    slices: dict[str, SourceSlice]
    missing: int

    @property
    def normal(self) -> Floats:
        """Normal of the first slice: row x column."""
        first = next(iter(self.slices.values()))
        return np.cross(first.row, first.column)

    def uids_in_order(self) -> tuple[str, ...]:
        """Return the SOP Instance UIDs sorted by position along the normal."""
        normal = self.normal
        return tuple(sorted(self.slices, key=lambda uid: float(self.slices[uid].position @ normal)))

    def heights(self) -> list[float]:
        """Return the positions along the normal in that order, mm, from the first."""
        normal = self.normal
        places = sorted(float(s.position @ normal) for s in self.slices.values())
        return [place - places[0] for place in places]


def tolerance(series: SortedSeries, rules: GeometrySettings) -> float:
    """Return the largest accepted distance between a position by the affine and one by a header.

    `TOLERANCE` if the slices are evenly spaced. Slices that the rules accept may be a little off the line through the
    first and the last one; the tolerance grows by that distance, up to the limit of the rules.

    Parameters
    ----------
    series : SortedSeries
        Positions, normal and spacing of the slices.
    rules : GeometrySettings
        `line_tolerance` and `drift`, mm.

    Returns
    -------
    float
        mm.
    """
    normal = np.cross(series.row_cosines, series.column_cosines)
    places = np.array([s.position for s in series.slices], np.float64)
    steps = np.arange(len(places))[:, None] * (series.slice_spacing * normal)
    off = float(np.abs(places - places[0] - steps).max())
    return TOLERANCE + min(off, max(rules.line_tolerance, rules.drift))


def read_source(series: SortedSeries, workspace: Workspace) -> SourceSlices:
    """Read the headers of the source slices; missing and damaged files are counted.

    Parameters
    ----------
    series : SortedSeries
        The series and the paths of its slices.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    SourceSlices
        The slices that could be read, and the number of those that could not.
    """
    found: dict[str, SourceSlice] = {}
    missing = 0
    for item in series.slices:
        try:
            path = workspace.resolve(series.series_instance_uid, item.path)
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            found[str(ds.SOPInstanceUID)] = _read_slice_geometry(ds)
        except Exception:  # noqa: BLE001  a slice whose file is damaged in any way counts as missing
            missing += 1
    return SourceSlices(found, missing)


def _read_slice_geometry(ds: pydicom.Dataset) -> SourceSlice:
    orientation = np.array(ds.ImageOrientationPatient, np.float64)
    return SourceSlice(
        uid=str(ds.SOPInstanceUID),
        sop_class_uid=str(ds.SOPClassUID),
        series_uid=str(ds.SeriesInstanceUID),
        frame_of_reference_uid=str(ds.get("FrameOfReferenceUID", "")),
        position=np.array(ds.ImagePositionPatient, np.float64),
        row=orientation[:3],
        column=orientation[3:],
        spacing=(float(ds.PixelSpacing[0]), float(ds.PixelSpacing[1])),
        size=(int(ds.Rows), int(ds.Columns)),
    )


def source_checks(
    report: Report, source: SourceSlices, series: SortedSeries, volume: Volume | None, rules: GeometrySettings
) -> None:
    """Check that the slices exist, belong to the series, are in order, and fit the volume's affine.

    Parameters
    ----------
    report : Report
        Receives ``source.instances``, ``source.series``, ``source.order`` and ``volume.grid``.
    source : SourceSlices
        The slices, read again.
    series : SortedSeries
        The series as it was sorted.
    volume : Volume or None
        Its affine maps (i, j, k, 1) to mm LPS; None: not checked.
    rules : GeometrySettings
        Tolerances, mm.
    """
    here = len(source.slices)
    whole = source.missing == 0 and here == len(series.slices)
    report.add("source.instances", whole, f"{here} of {len(series.slices)} source instances were read again")
    if not here:
        return
    ours = all(s.series_uid == series.series_instance_uid for s in source.slices.values())
    report.add("source.series", ours, "every source instance is of the series")
    order = source.uids_in_order() == series.sop_instance_uids
    report.add("source.order", order, "slice order by position along the normal, worked out anew")
    if volume is None:
        return
    worst = max(_corner_error(source.slices.get(uid), k, volume) for k, uid in enumerate(series.sop_instance_uids))
    text = f"corners by affine and by header differ by {worst:.6f} mm at most"
    report.add("volume.grid", worst < tolerance(series, rules), text)


def _corner_error(item: SourceSlice | None, k: int, volume: Volume) -> float:
    """Largest distance in mm between the corners of a slice by its header and by the affine."""
    rows, columns = volume.shape[1:]
    if item is None or item.size != (rows, columns):
        return float("inf")
    affine = np.array(volume.affine_lps)
    worst = 0.0
    for j in (0, rows - 1):
        for i in (0, columns - 1):
            here = item.position + item.row * (i * item.spacing[1]) + item.column * (j * item.spacing[0])
            worst = max(worst, float(np.abs((affine @ (i, j, k, 1))[:3] - here).max()))
    return worst

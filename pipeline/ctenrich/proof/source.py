"""The source slices, read again from their files: what exists, and where it is in mm."""

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
"""mm: what two statements of one place may differ by."""

_TAGS = ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows"]
_TAGS += ["Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpecificCharacterSet"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SourceSlice:
    """One CT file."""

    uid: str
    sop_class_uid: str
    series_uid: str
    frame_of_reference_uid: str
    position: Floats
    row: Floats
    """Direction of growing column index."""
    column: Floats
    """Direction of growing row index."""
    spacing: tuple[float, float]
    """(between rows, between columns), mm."""
    size: tuple[int, int]
    """(rows, columns)."""


@dataclass(frozen=True)
class SourceSlices:
    """All CT files of a series that could be read, by SOP Instance UID, in the order of the sorted series."""

    slices: dict[str, SourceSlice]
    missing: int

    @property
    def normal(self) -> Floats:
        """Row x column of the first slice."""
        first = next(iter(self.slices.values()))
        return np.cross(first.row, first.column)

    def uids_in_order(self) -> tuple[str, ...]:
        """SOP Instance UIDs sorted by their place along the normal, worked out anew."""
        normal = self.normal
        return tuple(sorted(self.slices, key=lambda uid: float(self.slices[uid].position @ normal)))

    def heights(self) -> list[float]:
        """Places along the normal in that order, mm, from the first."""
        normal = self.normal
        places = sorted(float(s.position @ normal) for s in self.slices.values())
        return [place - places[0] for place in places]


def tolerance(series: SortedSeries, rules: GeometrySettings) -> float:
    """What a place by the affine may differ from one by a header, mm.

    `TOLERANCE` where the slices were evenly spaced when they were sorted. Slices that the rules accept may lie a little
    off the line through the first and the last one; no affine can be nearer to them than they are to it.
    """
    normal = np.cross(series.row_cosines, series.column_cosines)
    places = np.array([s.position for s in series.slices], np.float64)
    steps = np.arange(len(places))[:, None] * (series.slice_spacing * normal)
    off = float(np.abs(places - places[0] - steps).max())
    return TOLERANCE + min(off, max(rules.line_tolerance, rules.drift))


def read_source(series: SortedSeries, workspace: Workspace) -> SourceSlices:
    """Read the headers of the source slices; files that are gone or broken are counted."""
    found: dict[str, SourceSlice] = {}
    missing = 0
    for item in series.slices:
        try:
            path = workspace.resolve(series.series_instance_uid, item.path)
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            found[str(ds.SOPInstanceUID)] = _slice(ds)
        except Exception:  # noqa: BLE001  whatever is wrong with the file: the slice is not there
            missing += 1
    return SourceSlices(found, missing)


def _slice(ds: pydicom.Dataset) -> SourceSlice:
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
    """The slices exist, belong to the series, lie in its order, and where the volume's affine says."""
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
    """Largest difference between where the header and where the affine put the corners of a slice, mm."""
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

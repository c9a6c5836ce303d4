"""Compare the lung landmarks of a run with the extents of lungs drawn by experts.

The expert table has the format of the published one, with one row per end of the lungs: ``PatientID,
SeriesInstanceUID, SOPInstanceUID, lung`` (``min``: the lowest slice with lung, ``max``: the highest) and ``position``
(z of the slice, mm, LPS).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Landmarks, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, require_file

__all__ = ["ExtentSummary", "LungEnd", "compare_lung_extents", "compare_run", "read_expert_extents", "summarise"]

_ENDS = {"min": "lung_start", "max": "lung_end"}
_COLUMNS = {"SeriesInstanceUID", "lung", "position"}
ExpertExtents = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class LungEnd:
    """One end of the lungs in one series."""

    series_instance_uid: str
    product: str
    landmark: str
    """lung_start (bottom) or lung_end (top)."""
    expert_z: float
    """mm, LPS: z of the outermost slice on which the expert drew lung."""
    z: float | None
    """mm, LPS: z of the landmark, interpolated; None if the landmark is absent."""
    slice_z: float | None
    """mm, LPS: z of the slice it lands on."""
    absent_reason: str | None = None

    @property
    def error(self) -> float | None:
        """Our position minus the expert's, mm towards the head; of the slice, as in the published comparison."""
        return None if self.slice_z is None else self.slice_z - self.expert_z


@dataclass(frozen=True, kw_only=True)
class ExtentSummary:
    """Distance of one landmark from the experts over all series."""

    landmark: str
    series: int
    found: int
    median_error: float | None
    """mm; absolute, like the three below."""
    mean_error: float | None
    sd_error: float | None
    largest_error: float | None
    bias: float | None
    """Mean signed error, mm towards the head."""


def read_expert_extents(path: Path) -> ExpertExtents:
    """Read an expert table: Series Instance UID -> landmark -> z, mm, LPS.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_PARAMETER if the file is not such a table.
    """
    require_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a CSV file in UTF-8") from error
    if not rows or not set(rows[0]) >= _COLUMNS:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} lacks one of {', '.join(sorted(_COLUMNS))}")
    table: ExpertExtents = {}
    for number, row in enumerate(rows, start=2):
        try:
            table.setdefault(row["SeriesInstanceUID"], {})[_ENDS[row["lung"]]] = float(row["position"])
        except (KeyError, ValueError, TypeError):
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name}:{number}: not an end of the lungs") from None
    return table


def compare_lung_extents(landmarks: Landmarks, series: SortedSeries, experts: ExpertExtents) -> tuple[LungEnd, ...]:
    """Compare both ends of the lungs in one series.

    A series whose UID has another root but the same last component (20 digits or more) is the same series.

    Parameters
    ----------
    landmarks : Landmarks
        Of the series.
    series : SortedSeries
        The series.
    experts : dict
        See `read_expert_extents`.

    Returns
    -------
    tuple of LungEnd
        Empty if the table does not list the series.
    """
    known = experts.get(series.series_instance_uid) or _by_suffix(series.series_instance_uid, experts)
    items = {item.name: item for item in landmarks.items}
    ends = []
    for name, expert in sorted(known.items(), reverse=True):
        item = items.get(name)
        if item is None or item.slice_index is None or item.position is None:
            reason = item.absent_reason if item else "the model does not have it"
            z, slice_z = None, None
        else:
            reason = None
            slice_z = series.slices[item.slice_index].position[2]
            z = round(slice_z - (item.distance or 0.0) * _z_per_mm(series), 3)
        ends.append(
            LungEnd(
                series_instance_uid=series.series_instance_uid,
                product=str(landmarks.product),
                landmark=name,
                expert_z=expert,
                z=z,
                slice_z=slice_z,
                absent_reason=reason,
            )
        )
    return tuple(ends)


def _by_suffix(uid: str, experts: ExpertExtents) -> dict[str, float]:
    suffix = uid.rpartition(".")[2]
    if len(suffix) < 20:
        return {}
    return next((ends for other, ends in experts.items() if other.rpartition(".")[2] == suffix), {})


def _z_per_mm(series: SortedSeries) -> float:
    """Change of z per mm along the slice normal: +1 or -1 for axial slices."""
    row, column = series.row_cosines, series.column_cosines
    return row[0] * column[1] - row[1] * column[0]


def compare_run(workspace: Workspace, table: Path) -> tuple[LungEnd, ...]:
    """Compare both ends of the lungs in every series of a run that an expert table lists.

    Parameters
    ----------
    workspace : Workspace
        The run.
    table : Path
        CSV, see `read_expert_extents`.

    Returns
    -------
    tuple of LungEnd
    """
    experts = read_expert_extents(table)
    return tuple(
        end
        for series, landmarks in _landmarks_of_run(workspace)
        for end in compare_lung_extents(landmarks, series, experts)
    )


def _landmarks_of_run(workspace: Workspace) -> Iterator[tuple[SortedSeries, Landmarks]]:
    store = SeriesStore(workspace)
    for uid in store.series():
        for product in store.products(uid):
            landmarks = store.find(Landmarks, uid, product)
            if landmarks is not None:
                yield store.sorted_series(uid), landmarks


def summarise(ends: Iterable[LungEnd]) -> tuple[ExtentSummary, ...]:
    """Summarise the errors at the bottom and the top of the lungs over all series."""
    rows = list(ends)
    out = []
    for name in _ENDS.values():
        mine = [row for row in rows if row.landmark == name]
        errors = [row.error for row in mine if row.error is not None]
        sizes = [abs(e) for e in errors]
        out.append(
            ExtentSummary(
                landmark=name,
                series=len(mine),
                found=len(errors),
                median_error=median(sizes) if sizes else None,
                mean_error=mean(sizes) if sizes else None,
                sd_error=stdev(sizes) if len(sizes) > 1 else None,
                largest_error=max(sizes, default=None),
                bias=mean(errors) if errors else None,
            )
        )
    return tuple(out)

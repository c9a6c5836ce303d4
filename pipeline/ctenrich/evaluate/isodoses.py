"""Isodoses of the series of a run, one file for each series with a dose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.dose.isodoses import IsodoseForm, WrittenIsodoses, parse_levels, write_isodoses
from ctenrich.dose.measure import TreatmentDose
from ctenrich.errors import CtenrichError, InputError
from ctenrich.evaluate.doses import dose_of_series, doses_of_series
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["SeriesIsodoses", "write_run_isodoses"]


@dataclass(frozen=True, kw_only=True)
class SeriesIsodoses:
    """Outcome of one series."""

    series_instance_uid: str
    path: Path | None = None
    """The file; None if none was written."""
    written: WrittenIsodoses | None = None
    reason: Reason | None = None
    message: str = ""


def write_run_isodoses(
    workspace: Workspace,
    levels: Sequence[str],
    *,
    form: IsodoseForm = "rtstruct",
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[SeriesIsodoses, ...]:
    """Write isodoses of every series whose doses were calculated: ``RUN/isodoses/<series>.dcm``.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    levels : sequence of str
        Doses as :func:`ctenrich.dose.isodoses.parse_levels` reads them; percentages are of the prescribed dose of the
        series.
    form : {"rtstruct", "seg"}
        RT Structure Set, or Segmentation.
    settings : Settings, optional
        Dates, and the limit of memory.
    progress : Progress
        Advanced by every series.

    Returns
    -------
    tuple of SeriesIsodoses
        One outcome per series with products that have doses. A series without a prescribed dose, whose dose does not
        reach a level, or whose dose changed since it was measured has a reason and no file.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a text that is no dose.
    InputError
        NOT_PREPARED: no dose of the run could be used.
    """
    parse_levels(levels, 1.0)
    uids = [uid for uid in SeriesStore(workspace).series() if _has_dose(workspace, uid)]
    if not uids:
        raise InputError(Reason.NOT_PREPARED, "no series of the run has a dose", "see the table dose_checks")
    progress.start("isodoses", len(uids))
    out = []
    for uid in uids:
        path = workspace.root / "isodoses" / f"{uid}.dcm"
        try:
            dose = dose_of_series(workspace, uid)
            parsed = parse_levels(levels, dose.prescription)
            path.parent.mkdir(exist_ok=True)
            written = write_isodoses(dose.dose, _series(workspace, uid), parsed, path, form=form, settings=settings)
            out.append(SeriesIsodoses(series_instance_uid=uid, path=path, written=_with_notes(written, dose)))
        except CtenrichError as error:
            path.unlink(missing_ok=True)
            out.append(SeriesIsodoses(series_instance_uid=uid, reason=error.reason, message=error.message))
        progress.advance("isodoses")
    progress.finish("isodoses")
    return tuple(out)


def _has_dose(workspace: Workspace, uid: str) -> bool:
    return any(doses.reason is None for doses in doses_of_series(workspace, uid))


def _series(workspace: Workspace, uid: str) -> SortedSeries:
    """The series with absolute paths."""
    series = SeriesStore(workspace).sorted_series(uid)
    slices = tuple(replace(one, path=str(workspace.resolve(uid, one.path))) for one in series.slices)
    return replace(series, slices=slices)


def _with_notes(written: WrittenIsodoses, dose: TreatmentDose) -> WrittenIsodoses:
    """With the notes about the choice of the doses."""
    return replace(written, notes=(*dose.notes, *written.notes))

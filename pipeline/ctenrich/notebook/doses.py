"""A run with doses for a notebook: the treatments of its patients, and the dose metrics of every product."""

from __future__ import annotations

from dataclasses import replace

from ctenrich import steps
from ctenrich.catalog import open_catalog
from ctenrich.errors import UsageError
from ctenrich.notebook.bars import Bar
from ctenrich.notebook.lab import Lab, catalog_of
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.runner.run import Run
from ctenrich.settings import DosesSettings, Settings
from ctenrich.treatments.files import write_treatments
from ctenrich.treatments.make import TreatmentRequest, make_treatments
from ctenrich.treatments.registry import RegistryRow

__all__ = ["prepare_doses"]


def prepare_doses(lab: Lab, progress: Progress | None = None) -> Run | None:
    """Make the treatments of generated patients or of a folder, and run them with doses, where this was not done yet.

    Parameters
    ----------
    lab : Lab
        The parameters; `max_series` limits the treatments.
    progress : Progress, optional
        Default: bars.

    Returns
    -------
    Run or None
        The finished run, in the folder ``run-with-doses``; None where no patient has a planning CT with structures,
        plan and dose, and for IDC's collections, which have hardly any doses.

    Raises
    ------
    UsageError
        As :func:`ctenrich.notebook.lab.start_run`; NOT_PREPARED if no dose could be used.
    """
    if lab.source.partition(":")[0] in {"idc", "bigquery"}:
        return None
    bar = progress or Bar()
    out = lab.root / "run-with-doses"
    if not (out / "report" / "index.html").is_file():
        file = lab.root / "treatments.parquet"
        if not file.is_file() and not _write_treatments(lab, bar):
            return None
        settings = replace(
            Settings(), segment=replace(Settings().segment, device=lab.device), doses=DosesSettings(enabled=True)
        )
        steps.run_all(steps.start(file, out, segmenters=lab.segmenter_list, settings=settings), progress=bar)
    run = steps.open_run(out)
    if not (run.workspace.tables / "dose_metrics.parquet").is_file():
        raise UsageError(Reason.NOT_PREPARED, "the run with doses did not end", "run this cell again")
    return run


def _write_treatments(lab: Lab, progress: Progress) -> bool:
    """Write the first treatments; False where there is none."""
    patients = [name.strip() for name in lab.patients.split(",") if name.strip()]
    registry = tuple(RegistryRow(line=line, patient_id=name) for line, name in enumerate(patients, start=1))
    opened = open_catalog(catalog_of(lab, progress))
    try:
        found = make_treatments(opened, TreatmentRequest(registry=registry or None), progress=progress)
    except UsageError as error:
        if error.reason is Reason.EMPTY_INPUT:
            return False
        raise
    finally:
        opened.close()
    kept = found.treatments[: lab.max_series]
    if not kept:
        return False
    note = f"the first {len(kept)} of {len(found.treatments)} treatments"
    write_treatments(replace(found, treatments=kept, notes=(*found.notes, note)), lab.root / "treatments.parquet")
    return True

"""A run from masks of other programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.codes.mappings import use_mappings
from ctenrich.errors import UsageError
from ctenrich.harmonise.plan import HarmoniseOptions, plan_request
from ctenrich.harmonise.request import save_request
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import INPUT, Run
from ctenrich.select.sources import make_cohort
from ctenrich.settings import Settings
from ctenrich.steps.running import start
from ctenrich.steps.whole import run_all

__all__ = ["HarmoniseSource", "harmonise"]


@dataclass(frozen=True, kw_only=True)
class HarmoniseSource:
    """The files of :func:`harmonise`."""

    folder: Path
    """Masks of another program: a folder, or one file."""
    source: Path
    """Folder with the CT that they were made from."""
    series: str = ""
    """Series Instance UID of the CT, where the folder holds several."""
    mappings: Path | None = None
    """Folder with a segments.csv of the user's own."""


def harmonise(
    request: HarmoniseSource,
    out: str | Path,
    options: HarmoniseOptions,
    *,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[Run, RunSummary]:
    """Make masks of another program a product of a run: SEG and SRs with proof, tables and report.

    Parameters
    ----------
    request : HarmoniseSource
        The masks and the CT.
    out : str or Path
        The run's folder; an existing run of the same CT gets the product.
    options : HarmoniseOptions
        What the labels denote, and who made the masks.
    settings : Settings, optional
        Default settings if missing.
    progress : Progress
        Receives the steps of the stages.

    Returns
    -------
    run, summary : Run and RunSummary
        A product whose masks do not fit the CT has failed, with its reason.

    Raises
    ------
    UsageError
        NOT_FOUND, EMPTY_COHORT or NO_CT if there is no usable CT; BAD_PARAMETER if there are several; the errors of
        :func:`ctenrich.harmonise.plan.plan_request`.
    InputError
        Labels that are not known, masks that are missing, files that cannot be read.
    """
    chosen = settings or Settings()
    own = str(request.mappings.resolve()) if request.mappings else chosen.codes.mappings
    use_mappings(own)
    folder = Path(out) / INPUT
    planned = plan_request(request.folder, options, chosen)
    found = make_cohort(str(request.source), folder, series=request.series, progress=progress)
    if found.selected != 1:
        message = f"the source holds {found.selected} CT series, and the masks are of one"
        raise UsageError(Reason.BAD_PARAMETER, message, "add --series UID, or name the folder of one series")
    name = planned.request.name
    own = str(planned.rows.save(folder / f"mappings-{name}", own) or own)
    chosen = replace(chosen, codes=replace(chosen.codes, mappings=own))
    path = save_request(planned.request, folder / f"{name}.json").resolve()
    run = start(found.path, out, segmenters=[f"harmonised:{path}"], settings=chosen)
    return run, run_all(run, progress=progress)

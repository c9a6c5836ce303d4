"""Tables, quality, agreement and report of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctenrich.evaluate.doses import has_doses, write_dose_tables
from ctenrich.evaluate.evaluation import (
    Comparison,
    Evaluation,
    RunSource,
    compare_metrics,
    evaluate_run,
    metric_values,
    strata_of,
    write_evaluation,
)
from ctenrich.evaluate.statistics import tables_of
from ctenrich.progress import SILENT, Progress
from ctenrich.quality.limits import load_limits
from ctenrich.quality.ranking import RankedCase
from ctenrich.quality.run import check_run, write_quality
from ctenrich.report import build_report
from ctenrich.results.query import run_query
from ctenrich.results.tables import build_tables
from ctenrich.review.tables import write_reviews
from ctenrich.runner.creation import create_run
from ctenrich.runner.products import product_key
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import COHORT, Run
from ctenrich.runner.verify import Verification, verify_run
from ctenrich.settings import DosesSettings
from ctenrich.steps.running import run_stages
from ctenrich.workspace import write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "AgreementReport",
    "dose_tables",
    "evaluate",
    "finish",
    "measure_doses",
    "quality",
    "query",
    "report",
    "tables",
    "verify",
]


@dataclass(frozen=True, kw_only=True)
class AgreementReport:
    """Result of `evaluate`."""

    evaluation: Evaluation
    """Agreement of each mask with the reference; notes, and files that could not be used."""
    comparison: Comparison
    """Paired differences of the products, and the analysis of variance over all of them."""
    tables: dict[str, Path]
    """Tables that were written; empty if there was nothing to compare."""


_LIMITS = "quality-limits.toml"
"""Copy of the limits by which the masks of a run were checked, where they are not those of the package."""


def verify(run: Run, *, progress: Progress = SILENT) -> Verification:
    """Compute every recorded hash of a run again and compare; see :func:`ctenrich.runner.verify.verify_run`.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    Verification
        Number of hashes, and what differs.
    """
    return verify_run(run, progress=progress)


def tables(run: Run, *, progress: Progress = SILENT) -> dict[str, Path]:
    """Build the result tables from the written DICOM objects and the ledger, with a process for every core.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives one step per file, and one per series.

    Returns
    -------
    dict
        Table name -> Parquet file.
    """
    made = build_tables(run.workspace, progress=progress, processes=os.cpu_count() or 1)
    reviews = write_reviews(run.workspace)
    return made if reviews is None else {**made, "reviews": reviews}


def dose_tables(run: Run, *, progress: Progress = SILENT) -> dict[str, Path]:
    """Write the tables of doses, if the run has calculated doses.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    dict
        Table name -> Parquet file; empty for a run without doses.
    """
    return write_dose_tables(run.workspace, progress=progress) if has_doses(run.workspace) else {}


def measure_doses(run: Run, doses: DosesSettings, *, progress: Progress = SILENT) -> tuple[Run, RunSummary]:
    """Calculate the doses of a run that was made without them, or by other settings, and write tables and report.

    Parameters
    ----------
    run : Run
        The run.
    doses : DosesSettings
        Metrics and bounds; they are calculated whatever `DosesSettings.enabled` is.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    Run
        The run with these settings.
    RunSummary
        What failed.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a name that is no metric.
    InputError
        NOT_PREPARED if no product has masks.
    """
    settings = replace(run.config.settings, doses=replace(doses, enabled=True))
    changed = create_run(run.root / COHORT, run.root, settings=settings, allow_demo=run.config.demo)
    summary = run_stages(changed, ("dose", "encode", "validate"), progress=progress)
    finish(changed, progress=progress)
    return changed, summary


def query(run: Run, sql: str | Path, parameters: Mapping[str, object] | None = None) -> pa.Table:
    """Query the result tables.

    Parameters
    ----------
    run : Run
        A run whose tables have been built.
    sql : str or Path
        SQL text, a ``.sql`` file, or the name of a query in queries/; see :func:`ctenrich.results.query.run_query`.
    parameters : mapping, optional
        Values to bind.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    UsageError
        NOT_FOUND, NOT_PREPARED (no tables), BAD_QUERY or BAD_PARAMETER.
    """
    return run_query(run.workspace, str(sql), parameters or {})


def report(run: Run, *, check_masks: bool = True, progress: Progress = SILENT) -> Path:
    """Write the offline HTML report.

    Parameters
    ----------
    run : Run
        The run.
    check_masks : bool
        Run the checks of :func:`quality` on masks that are new or have changed, by the limits of their last call;
        without them the report has the findings of that call, if there was one.
    progress : Progress
        Receives one step per file, and one per series that is checked.

    Returns
    -------
    Path
        First page.
    """
    if check_masks:
        own = run.root / _LIMITS
        quality(run, limits=own if own.is_file() else None, progress=progress)
    return build_report(run.workspace, progress=progress)


def evaluate(
    run: Run,
    *,
    reference: str | Path = "expert",
    products: Sequence[str] = (),
    by: Sequence[str] = (),
    progress: Progress = SILENT,
) -> AgreementReport:
    """Compare the masks of products with a reference, organ by organ; writes the tables of the evaluation.

    Parameters
    ----------
    run : Run
        The run.
    reference : str or Path
        A product of the run, or a SEG, RTSTRUCT or NIfTI file, or a folder of them.
    products : sequence of str
        Products to compare; empty: every one but the reference.
    by : sequence of str
        Attributes by which series are grouped, e.g. ``sex``, ``scanner``.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    AgreementReport

    Raises
    ------
    UsageError
        NOT_FOUND for a reference or product that does not exist, BAD_PARAMETER for another attribute.
    """
    asked = run.config.products
    source = RunSource(workspace=run.workspace, settings=run.config.settings, cohort=run.cohort)
    chosen = [product_key(asked, name) for name in products]
    found = evaluate_run(source, reference=product_key(asked, str(reference)), products=chosen, progress=progress)
    if not found.masks:
        return AgreementReport(evaluation=found, comparison=Comparison(), tables={})
    comparison = compare_metrics(tables_of(metric_values(found.masks)), strata=strata_of(run.cohort.series, by))
    paths = write_evaluation(run.workspace, found, comparison)
    return AgreementReport(evaluation=found, comparison=comparison, tables=paths)


def quality(run: Run, *, limits: str | Path | None = None, progress: Progress = SILENT) -> tuple[RankedCase, ...]:
    """Check every mask of a run without ground truth; writes the tables ``quality`` and ``quality_ranking``.

    Parameters
    ----------
    run : Run
        The run.
    limits : str or Path, optional
        TOML file whose limits replace those of the package.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    tuple of RankedCase
        Products of series, those to look at first at the beginning.

    Raises
    ------
    UsageError
        NOT_FOUND or BAD_SETTINGS if the limits cannot be read.
    """
    chosen = load_limits(Path(limits) if limits else None)
    processes = os.cpu_count() or 1
    ranked = check_run(run.workspace, run.cohort, limits=chosen, progress=progress, processes=processes)
    write_quality(run.workspace, ranked)
    own = run.root / _LIMITS
    if limits is None:
        own.unlink(missing_ok=True)
    elif Path(limits) != own:
        write_bytes(own, Path(limits).read_bytes())
    return ranked


def finish(run: Run, *, check_masks: bool = True, progress: Progress = SILENT) -> Path:
    """Build the tables, check the masks, then write the report.

    Parameters
    ----------
    run : Run
        The run.
    check_masks : bool
        See :func:`report`.
    progress : Progress
        Receives one step per file.

    Returns
    -------
    Path
        First page of the report.
    """
    tables(run, progress=progress)
    dose_tables(run, progress=progress)
    return report(run, check_masks=check_masks, progress=progress)

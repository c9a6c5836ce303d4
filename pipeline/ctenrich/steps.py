"""The steps as Python functions, one per stage, for notebooks and scripts; each can be resumed from disk.

>>> from ctenrich import steps
>>> steps.index(["my-dicom-folder"], "catalog.duckdb")                        # doctest: +SKIP
>>> steps.select("select_ct_series", "folder:catalog.duckdb", "cohort.parquet")  # doctest: +SKIP
>>> run = steps.start("cohort.parquet", "my-run", segmenters=["expert"])     # doctest: +SKIP
>>> steps.fetch(run); steps.sort(run); volumes = steps.convert(run)          # doctest: +SKIP
>>> masks = steps.segment(run)                                               # doctest: +SKIP
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ctenrich.catalog import open_catalog
from ctenrich.catalog.base import Catalog
from ctenrich.catalog.bigquery import BigQueryCatalog, check_table_name
from ctenrich.catalog.folder import index_folders
from ctenrich.codes.mappings import use_mappings
from ctenrich.errors import InputError, UsageError
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
from ctenrich.harmonise.plan import HarmoniseOptions, plan_request
from ctenrich.harmonise.request import save_request
from ctenrich.inference.model_cache import ModelCache
from ctenrich.ledger.reader import LedgerReader
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.export import Export, export_run
from ctenrich.publish.export import export_objects as export_any
from ctenrich.publish.images import export_images as images_beside
from ctenrich.publish.nnunet_raw import RawCase, RawDatasetOptions
from ctenrich.publish.nnunet_raw import export_nnunet_raw as raw_dataset
from ctenrich.quality.limits import load_limits
from ctenrich.quality.ranking import RankedCase
from ctenrich.quality.run import check_run, write_quality
from ctenrich.reasons import Reason
from ctenrich.records import (
    Cohort,
    EncodedObjects,
    FetchedSeries,
    Landmarks,
    Outcome,
    Proof,
    Regions,
    SegmentMasks,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.release.release import Release, ReleaseOptions, make_release
from ctenrich.report import build_report
from ctenrich.results.query import run_query
from ctenrich.results.tables import build_tables
from ctenrich.review.tables import write_reviews
from ctenrich.runner.executors import ExecutorName, ExecutorOptions, open_executor
from ctenrich.runner.forecast import rates_of, save_rates
from ctenrich.runner.products import product_key
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import COHORT, INPUT, Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.runner.shared_leases import SharedLeases
from ctenrich.runner.status import preview, retry, status
from ctenrich.runner.stopping import Budget, StopSignal
from ctenrich.runner.verify import Verification, verify_run
from ctenrich.select import Selection, select_cohort, write_cohort
from ctenrich.select.cohort_file import cohort_table
from ctenrich.select.compare import CohortDiff, relock
from ctenrich.select.files import without_local_paths, without_patients
from ctenrich.select.series_list import read_series_list, select_series_list
from ctenrich.select.sources import make_cohort
from ctenrich.series_store import SeriesStore
from ctenrich.settings import DosesSettings, FetchSettings, SegSettings, Settings
from ctenrich.workspace import write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "AgreementReport",
    "HarmoniseSource",
    "SelectRequest",
    "StageReport",
    "convert",
    "dose_tables",
    "encode",
    "evaluate",
    "export",
    "export_images",
    "export_nnunet_raw",
    "export_objects",
    "fetch",
    "finish",
    "harmonise",
    "index",
    "measure",
    "measure_doses",
    "open_run",
    "outcomes",
    "preview",
    "quality",
    "query",
    "release",
    "report",
    "retry",
    "run_all",
    "run_command",
    "run_stages",
    "score",
    "segment",
    "select",
    "select_request",
    "sort",
    "start",
    "status",
    "tables",
    "validate",
    "verify",
]

T = TypeVar("T")


class _Command(NamedTuple):
    stages: tuple[str, ...]
    records: tuple[type, ...]
    of_series: bool = False


_COMMANDS = MappingProxyType(
    {
        "fetch": _Command(("fetch",), (FetchedSeries,), of_series=True),
        "sort": _Command(("sort",), (SortedSeries,), of_series=True),
        "convert": _Command(("convert", "compress"), (Volume,), of_series=True),
        "segment": _Command(("segment",), (SegmentMasks,)),
        "score": _Command(("score",), (SliceScores,)),
        "measure": _Command(("measure",), (ShapeMeasurements, Landmarks, Regions)),
        "encode": _Command(("encode",), (EncodedObjects,)),
        "validate": _Command(("validate",), (Proof,)),
    }
)
"""Stage command -> stages that it runs and records that they save."""


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """Result of a stage command."""

    records: int
    """Records of this stage in the run, those of earlier passes included."""
    failures: tuple[Outcome, ...]
    """Products and series that failed in this pass."""
    left_alone: int
    """Products and series that had not reached the stage; their outcomes are as they were."""
    exit_code: int
    """0: nothing failed; 1: something failed; 3: interrupted, or the disk is full."""


@dataclass(frozen=True, kw_only=True)
class AgreementReport:
    """Result of `evaluate`."""

    evaluation: Evaluation
    """Agreement of each mask with the reference; notes, and files that could not be used."""
    comparison: Comparison
    """Paired differences of the products, and the analysis of variance over all of them."""
    tables: dict[str, Path]
    """Tables that were written; empty if there was nothing to compare."""


ByProduct = dict[tuple[str, str], T]
"""(Series Instance UID, product) -> record."""

_models: weakref.WeakKeyDictionary[Run, ModelCache] = weakref.WeakKeyDictionary()


# ---------------------------------------------------------------- before a run


def index(
    folders: Sequence[str | Path], catalog: str | Path, *, collection_id: str = "local", progress: Progress = SILENT
) -> Any:
    """Index folders of DICOM files in a DuckDB catalog; only new and changed files are read.

    Parameters
    ----------
    folders : sequence of str or Path
        Searched with their subfolders.
    catalog : str or Path
        DuckDB file; created or updated.
    collection_id : str
        collection_id of the rows that are read now.
    progress : Progress
        Receives one step per file.

    Returns
    -------
    IndexSummary
        Numbers of files, instances, series and faults.

    Raises
    ------
    UsageError
        NOT_FOUND: a folder is missing. BAD_PARAMETER: the file is not such a catalog.
    """
    return index_folders([Path(f) for f in folders], Path(catalog), collection_id=collection_id, progress=progress)


def select(
    query: str | Path,
    catalog: str,
    out: str | Path,
    *,
    parameters: Mapping[str, object] | None = None,
    progress: Progress = SILENT,
) -> Cohort:
    """Select series by SQL; write the cohort file, and beside it the excluded series and the lock.

    Parameters
    ----------
    query : str or Path
        A file, or the name of one in queries/.
    catalog : str
        ``folder:FILE``, ``idc``, ``parquet:URI`` or ``bigquery[:PROJECT]``.
    out : str or Path
        Cohort file (``.parquet``).
    parameters : mapping, optional
        Values of the query's @parameters.
    progress : Progress
        Receives the steps of the catalog.

    Returns
    -------
    Cohort
        The selected series.

    Raises
    ------
    CtenrichError
        The errors of the catalog and of the query.
    """
    selection = select_cohort(
        str(query), open_catalog(catalog), parameters or {}, name=Path(out).stem, progress=progress
    )
    write_cohort(selection, Path(out))
    return selection.cohort


@dataclass(frozen=True)
class SelectRequest:
    """Arguments of ``ctenrich select``."""

    query: str
    catalog: str
    out: Path
    parameters: Mapping[str, object]
    series_list: Path | None = None
    lock: Path | None = None
    save_table: str | None = None
    byte_limit: int | None = None
    portable: bool = False
    """Whether the cohort file is written without the paths of this computer."""
    identified: bool = False
    """Whether the BigQuery table may have the Patient IDs of a catalog of the user's own."""
    partial: bool = False
    """Select from a folder catalog although its last crawl did not end."""
    memory: int | None = None
    """Bytes that selecting may take; None: half of this machine's memory."""
    fetch: FetchSettings | None = None
    """How an archive is reached; None: as the default settings have it."""


def select_request(request: SelectRequest, *, progress: Progress = SILENT) -> tuple[Selection, CohortDiff | None]:
    """Select by a query, a list of series or a lock; write the cohort file and, if requested, a BigQuery table.

    Parameters
    ----------
    request : SelectRequest
        Exactly one of `query`, `series_list` and `lock` is given.
    progress : Progress
        Receives the steps of the catalog.

    Returns
    -------
    tuple of Selection and (CohortDiff or None)
        The selected series, and their differences from the lock, if one was given.

    Raises
    ------
    UsageError
        BAD_PARAMETER unless exactly one of query, list and lock is given, or where parameters are given beside a lock;
        the errors of the catalog.
    """
    if sum(map(bool, (request.query, request.series_list, request.lock))) != 1:
        raise UsageError(Reason.BAD_PARAMETER, "give exactly one of QUERY, --series-list and --lock")
    given = ", ".join(sorted(request.parameters))
    if request.lock is not None and given:
        hint = f"leave them out to repeat the selection of {request.lock.name}, or give its query in place of the lock"
        raise UsageError(Reason.BAD_PARAMETER, f"a lock has its own parameters, so these cannot be set: {given}", hint)
    if request.series_list is not None and "series" in request.parameters:
        raise UsageError(Reason.BAD_PARAMETER, "give the series in --series-list or as a parameter, not both")
    catalog = open_catalog(
        request.catalog,
        byte_limit=request.byte_limit,
        partial=request.partial,
        memory=request.memory,
        fetch=request.fetch,
    )
    table = _table_writer(catalog, request.save_table)
    difference: CohortDiff | None = None
    name = request.out.stem
    if request.lock is not None:
        selection, difference = relock(request.lock, catalog, name=name, progress=progress)
    elif request.series_list is not None:
        chosen = read_series_list(request.series_list)
        selection = select_series_list(chosen, catalog, request.parameters, name=name, progress=progress)
    else:
        selection = select_cohort(request.query, catalog, request.parameters, name=name, progress=progress)
    if request.portable:
        selection = replace(selection, cohort=without_local_paths(selection.cohort))
    write_cohort(selection, request.out)
    if request.save_table and table is not None:
        shared = without_local_paths(selection.cohort)
        if selection.catalog not in _PUBLIC_CATALOGS and not request.identified:
            shared = without_patients(shared)
        table.save_table(request.save_table, cohort_table(shared))
    return selection, difference


_LIMITS = "quality-limits.toml"
"""Copy of the limits by which the masks of a run were checked, where they are not those of the package."""
_PUBLIC_CATALOGS = frozenset({"idc", "bigquery"})
"""Catalogs of collections whose patients' identity was removed before they were published."""


def _table_writer(catalog: Catalog, name: str | None) -> BigQueryCatalog | None:
    """Return the catalog that writes the BigQuery table `name`; checks name and credentials before the selection."""
    if not name:
        return None
    check_table_name(name)
    return catalog if isinstance(catalog, BigQueryCatalog) else BigQueryCatalog(name.partition(".")[0])


# ---------------------------------------------------------------- a run, stage by stage


def start(
    cohort: str | Path,
    out: str | Path,
    *,
    segmenters: Sequence[str] = (),
    bodypart: str = "none",
    settings: Settings | None = None,
    allow_demo: bool = False,
) -> Run:
    """Create a run's folder and check every model before any work; see :meth:`ctenrich.runner.run.Run.create`.

    Parameters
    ----------
    cohort : str or Path
        Cohort file.
    out : str or Path
        The run's folder; an existing run of the same cohort is updated.
    segmenters : sequence of str
        Specifications, e.g. ``expert`` or ``nnunet:MODEL``.
    bodypart : str
        Body part regression model; ``none`` for none.
    settings : Settings, optional
        Default settings if missing.
    allow_demo : bool
        Whether demonstration models are accepted on studies that were not generated.

    Returns
    -------
    Run
        The run.

    Raises
    ------
    UsageError
        BAD_RUN if the folder holds a run of another cohort or other files; EMPTY_COHORT, BAD_COHORT, DEMO_MODEL,
        NO_MODEL, BAD_PARAMETER.
    ModelError
        A model is not usable.
    """
    return Run.create(
        Path(cohort), Path(out), segmenters=segmenters, bodypart=bodypart, settings=settings, allow_demo=allow_demo
    )


def open_run(out: str | Path) -> Run:
    """Open a run's folder again, for instance after a notebook was restarted."""
    return Run.open(Path(out))


def _run_stages(run: Run, stages: tuple[str, ...], progress: Progress) -> RunSummary:
    models = _models.setdefault(run, ModelCache(run.config.settings))
    options = ExecutorOptions(models=models, progress=progress)
    executor = open_executor(ExecutorName.SERIAL, run.root, run.config.settings, options)
    return Runner(run, executor, options=RunnerOptions(stages=stages), progress=progress).run(" ".join(stages))


def _do_or_raise(run: Run, name: str, progress: Progress) -> None:
    """Run stages; raise an error if nothing has reached them, or if everything that has reached them failed."""
    stages = _COMMANDS[name].stages
    summary = run_stages(run, stages, progress=progress)
    failures = [o for o in summary.failures if o.stage in stages]
    products = sum(bool(o.product) for o in failures)
    if failures and max(products, len(failures) - products) == summary.attempted:
        raise InputError(failures[-1].reason or Reason.INTERNAL, failures[-1].message)


def run_stages(run: Run, stages: Sequence[str], *, progress: Progress = SILENT) -> RunSummary:
    """Run single stages of a run, in this process, on every series and product that has reached them.

    Parameters
    ----------
    run : Run
        The run.
    stages : sequence of str
        Names of stages.
    progress : Progress
        Gets one step for every series that ends.

    Returns
    -------
    RunSummary
        What failed in this pass, and how many products had not reached the stages and are as they were.

    Raises
    ------
    InputError
        NOT_PREPARED if no series or product has reached the stages.
    """
    summary = _run_stages(run, tuple(stages), progress)
    if summary.left_alone and not summary.attempted:
        message = f"nothing in this run has reached {stages[0]}: earlier stages have not been run, or ended before it"
        hint = "see ctenrich status RUN; ctenrich run does all stages in order"
        raise InputError(Reason.NOT_PREPARED, message, hint)
    return summary


def run_command(run: Run, name: str, *, progress: Progress = SILENT) -> StageReport:
    """Run the stage that a command of the command line names; failures are reported, not raised.

    Parameters
    ----------
    run : Run
        The run.
    name : str
        ``fetch``, ``sort``, ``convert``, ``segment``, ``score``, ``measure``, ``encode`` or ``validate``.
    progress : Progress
        Gets one step for every series that ends.

    Raises
    ------
    InputError
        NOT_PREPARED if no series or product has reached the stage.
    """
    command = _COMMANDS[name]
    summary = run_stages(run, command.stages, progress=progress)
    find = _load_of_series if command.of_series else _load_of_products
    count = sum(len(find(run, record)) for record in command.records)
    return StageReport(
        records=count,
        failures=tuple(o for o in summary.failures if o.stage in command.stages),
        left_alone=summary.left_alone,
        exit_code=3 if summary.stopped_early else int(bool(summary.failures)),
    )


def _load_of_series(run: Run, record: type[T]) -> dict[str, T]:
    store = SeriesStore(run.workspace)
    found = ((e.series_instance_uid, store.find(record, e.series_instance_uid)) for e in run.cohort.series)
    return {uid: item for uid, item in found if item is not None}


def _load_of_products(run: Run, record: type[T]) -> ByProduct[T]:
    store, found = SeriesStore(run.workspace), {}
    for entry in run.cohort.series:
        for requested in run.config.products:
            item = store.find(record, entry.series_instance_uid, requested.product)
            if item is not None:
                found[entry.series_instance_uid, str(requested.product)] = item
    return found


def fetch(run: Run, *, progress: Progress = SILENT) -> dict[str, FetchedSeries]:
    """Fetch the objects of every series and check that they are complete.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        Series Instance UID -> fetched files.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "fetch", progress)
    return _load_of_series(run, FetchedSeries)


def sort(run: Run, *, progress: Progress = SILENT) -> dict[str, SortedSeries]:
    """Order the slices of every series along the slice normal and check the geometry.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        Series Instance UID -> ordered slices, positions in mm LPS.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "sort", progress)
    return _load_of_series(run, SortedSeries)


def convert(run: Run, *, progress: Progress = SILENT) -> dict[str, Volume]:
    """Convert every series to one volume (memory-mapped array and NIfTI), compared between two readers.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        Series Instance UID -> volume, int16 HU, [k, j, i].

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "convert", progress)
    return _load_of_series(run, Volume)


def segment(run: Run, *, progress: Progress = SILENT) -> ByProduct[SegmentMasks]:
    """Run every segmenter of the run on every volume.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> masks on the grid of the volume.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "segment", progress)
    return _load_of_products(run, SegmentMasks)


def score(run: Run, *, progress: Progress = SILENT) -> ByProduct[SliceScores]:
    """Score the slices of every volume with body part regression.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> scores, one per slice.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "score", progress)
    return _load_of_products(run, SliceScores)


def measure(run: Run, *, progress: Progress = SILENT) -> ByProduct[ShapeMeasurements | Landmarks | Regions]:
    """Measure the segments of every product, or derive landmarks and regions from its slice scores.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> shape features, or landmarks; regions have ``#regions`` at the end of the
        product.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "measure", progress)
    found: ByProduct[ShapeMeasurements | Landmarks | Regions] = {}
    found.update(_load_of_products(run, ShapeMeasurements))
    found.update(_load_of_products(run, Landmarks))
    regions = _load_of_products(run, Regions)
    found.update({(uid, f"{product}#regions"): record for (uid, product), record in regions.items()})
    return found


def encode(run: Run, *, progress: Progress = SILENT) -> ByProduct[EncodedObjects]:
    """Write DICOM SEG and SR objects.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> records of the written files.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "encode", progress)
    return _load_of_products(run, EncodedObjects)


def validate(run: Run, *, progress: Progress = SILENT) -> ByProduct[Proof]:
    """Prove that every object expresses the computed result, and run the validators.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> proof.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    _do_or_raise(run, "validate", progress)
    return _load_of_products(run, Proof)


# ---------------------------------------------------------------- after the stages


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
    changed = Run.create(run.root / COHORT, run.root, settings=settings, allow_demo=run.config.demo)
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
    comparison = compare_metrics(list(metric_values(found.masks)), strata=strata_of(run.cohort, by))
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


def export(
    run: Run,
    fmt: str,
    out: str | Path,
    *,
    limits: SegSettings | None = None,
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> Export:
    """Export all results of a run.

    Parameters
    ----------
    run : Run
        The run.
    fmt : str
        ``nifti``, ``nrrd``, ``csv`` or ``dcmqi``.
    out : str or Path
        Folder to write to.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object; default: those of the run's settings.
    accepted_only : bool
        Whether only products are exported that reviewers have accepted.
    progress : Progress
        Receives one step per object.

    Returns
    -------
    Export
        One outcome per object, with the written files.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format.
    InputError
        NOT_PREPARED if the run has no such object.
    """
    limits = limits or run.config.settings.seg
    return export_run(run.workspace, fmt, Path(out), limits=limits, accepted_only=accepted_only, progress=progress)


def export_images(run: Run, found: Export, fmt: str, out: str | Path) -> tuple[Path, ...]:
    """Write the CT beside exported masks, and the table of both for pyradiomics' batch mode.

    Parameters
    ----------
    run : Run
        The run.
    found : Export
        What `export` wrote of it.
    fmt : str
        ``nifti`` or ``nrrd``, as the masks.
    out : str or Path
        Folder of the masks.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another format.
    InputError
        NOT_PREPARED if the run has no volume of a series.
    """
    return images_beside(run.workspace, found, fmt, Path(out))


def export_nnunet_raw(
    run: Run,
    out: str | Path,
    options: RawDatasetOptions,
    *,
    limits: SegSettings | None = None,
    progress: Progress = SILENT,
) -> tuple[RawCase, ...]:
    """Write the SEGs of a product as a data set in nnU-Net's raw format.

    Parameters
    ----------
    run : Run
        The run.
    out : str or Path
        Folder of the data sets (``nnUNet_raw``).
    options : RawDatasetOptions
        Product, name and structures.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object; default: those of the run's settings.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    tuple of RawCase
        One outcome per SEG of the product.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a name, product or structure that cannot be, or a folder that exists.
    InputError
        NOT_PREPARED if no series is a case.
    """
    limits = limits or run.config.settings.seg
    return raw_dataset(run.workspace, Path(out), options, limits=limits, progress=progress)


def export_objects(
    paths: Sequence[Path],
    fmt: str,
    out: Path,
    *,
    source: Path | None = None,
    limits: SegSettings | None = None,
    progress: Progress = SILENT,
) -> Export:
    """Export SEG and SR objects of any manufacturer.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are searched.
    fmt : str
        ``nifti``, ``nrrd``, ``csv`` or ``dcmqi``.
    out : Path
        Folder to write to.
    source : Path, optional
        Folder with the series (CT, MR, PET) that SEGs refer to; without it, and where it does not fit, masks have the
        smallest grid that contains their frames.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object.
    progress : Progress
        Receives one step per object.

    Returns
    -------
    Export
        One outcome per DICOM object, with the written files and issues, e.g. the number of referenced instances that
        are missing.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format.
    InputError
        NOT_FOUND if there is no such object.
    """
    return export_any(paths, fmt, out, source=source, limits=limits, progress=progress)


def release(
    run: Run, out: str | Path, *, options: ReleaseOptions | None = None, progress: Progress = SILENT
) -> Release:
    """Write the results of a run as a data set for publication.

    Parameters
    ----------
    run : Run
        The run, with its tables.
    out : str or Path
        Folder to write to; new or empty.
    options : ReleaseOptions, optional
        Statements of the authors, previous release, choice of products.
    progress : Progress
        Receives one step per object and table.

    Returns
    -------
    Release
        Numbers of objects and values, what is still to be stated, and what differs from the previous release.

    Raises
    ------
    UsageError
        BAD_PARAMETER, NOT_FOUND, NOT_PREPARED or IDENTITY_NOT_REMOVED.
    InputError
        HASH_MISMATCH if an object has changed since the tables were written.
    """
    return make_release(run.workspace, Path(out), options=options, progress=progress)


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


def run_all(
    run: Run,
    *,
    executor: ExecutorName = ExecutorName.SERIAL,
    address: str | None = None,
    share: str | None = None,
    budget: Budget | None = None,
    progress: Progress = SILENT,
) -> RunSummary:
    """Run all stages of all series, then build tables and report.

    Parameters
    ----------
    run : Run
        The run.
    executor : ExecutorName
        Where jobs run; the results have the same bytes.
    address : str, optional
        Address of a Ray cluster.
    share : str, optional
        ``gs://bucket/prefix``, ``s3://bucket/prefix`` or ``file:///folder`` for the leases by which runners on several
        machines divide the series among them; each runner has its own run folder.
    budget : Budget, optional
        Limit after which no further series is started.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    RunSummary
        Final states of the products.

    Raises
    ------
    UsageError
        MISSING_EXTRA if a package that the executor needs is not installed.
    """
    chosen = executor.for_series(len(run.cohort.series))
    models = _models.setdefault(run, ModelCache(run.config.settings))
    leases = SharedLeases(share, run.config.settings.fetch, run.root) if share else None
    options = ExecutorOptions(models=models, address=address, progress=progress)
    workers = open_executor(chosen, run.root, run.config.settings, options)
    with StopSignal() as stop:
        limits = RunnerOptions(budget=budget or Budget(), leases=leases, stop=stop)
        summary = Runner(run, workers, options=limits, progress=progress).run("run")
    _save_measured_rates(run)
    if not summary.stopped_early:
        finish(run, progress=progress)
    return summary


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


def outcomes(run: Run) -> list[Outcome]:
    """Final states of the series and products of a run, as its ledger has them."""
    with LedgerReader(run.ledger_path) as ledger:
        return list(ledger.outcomes())


def _save_measured_rates(run: Run) -> None:
    """Save the measured rates of this machine for the next forecast."""
    save_rates(rates_of(run))

"""Opening a run, and running its stages."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from ctenrich.errors import InputError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.ledger.reader import LedgerReader
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObjects,
    FeatureVectors,
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
from ctenrich.runner.creation import create_run
from ctenrich.runner.executors import ExecutorName, ExecutorOptions, open_executor
from ctenrich.runner.forecast import rates_of, save_rates
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings

__all__ = [
    "ByProduct",
    "StageReport",
    "models_of_runs",
    "open_run",
    "outcomes",
    "records_of_products",
    "records_of_series",
    "run_command",
    "run_or_raise",
    "run_stages",
    "save_measured_rates",
    "start",
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
        "features": _Command(("features",), (FeatureVectors,)),
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


ByProduct = dict[tuple[str, str], T]
"""(Series Instance UID, product) -> record."""


models_of_runs: weakref.WeakKeyDictionary[Run, ModelCache] = weakref.WeakKeyDictionary()


def start(
    cohort: str | Path,
    out: str | Path,
    *,
    segmenters: Sequence[str] = (),
    bodypart: str = "none",
    settings: Settings | None = None,
    allow_demo: bool = False,
) -> Run:
    """Create a run's folder and check every model before any work; see :func:`ctenrich.runner.creation.create_run`.

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
    return create_run(
        Path(cohort), Path(out), segmenters=segmenters, bodypart=bodypart, settings=settings, allow_demo=allow_demo
    )


def open_run(out: str | Path) -> Run:
    """Open a run's folder again, for instance after a notebook was restarted."""
    return Run.open(Path(out))


def _run_stages(run: Run, stages: tuple[str, ...], progress: Progress) -> RunSummary:
    models = models_of_runs.setdefault(run, ModelCache(run.config.settings))
    options = ExecutorOptions(models=models, progress=progress)
    executor = open_executor(ExecutorName.SERIAL, run.root, run.config.settings, options)
    return Runner(run, executor, options=RunnerOptions(stages=stages), progress=progress).run(" ".join(stages))


def run_or_raise(run: Run, name: str, progress: Progress) -> None:
    """Run the stages of a command.

    Parameters
    ----------
    run : Run
        The run.
    name : str
        Command, e.g. ``convert``.
    progress : Progress
        Advanced by every series.

    Raises
    ------
    InputError
        NOT_PREPARED if nothing has reached the stages; the first failure's reason if all that has reached them failed.
    """
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
    find = records_of_series if command.of_series else records_of_products
    count = sum(len(find(run, record)) for record in command.records)
    return StageReport(
        records=count,
        failures=tuple(o for o in summary.failures if o.stage in command.stages),
        left_alone=summary.left_alone,
        exit_code=3 if summary.stopped_early else int(bool(summary.failures)),
    )


def records_of_series(run: Run, record: type[T]) -> dict[str, T]:
    """Load the records of a stage.

    Parameters
    ----------
    run : Run
        The run.
    record : type
        Class of the records.

    Returns
    -------
    dict
        Series Instance UID -> record; series without one are missing.
    """
    store = SeriesStore(run.workspace)
    found = ((e.series_instance_uid, store.find(record, e.series_instance_uid)) for e in run.cohort.series)
    return {uid: item for uid, item in found if item is not None}


def records_of_products(run: Run, record: type[T]) -> ByProduct[T]:
    """Load the records of a stage that works on products.

    Parameters
    ----------
    run : Run
        The run.
    record : type
        Class of the records.

    Returns
    -------
    dict
        (Series Instance UID, product) -> record; products without one are missing.
    """
    store, found = SeriesStore(run.workspace), {}
    for entry in run.cohort.series:
        for requested in run.config.products:
            item = store.find(record, entry.series_instance_uid, requested.product)
            if item is not None:
                found[entry.series_instance_uid, str(requested.product)] = item
    return found


def outcomes(run: Run) -> list[Outcome]:
    """Final states of the series and products of a run, as its ledger has them."""
    with LedgerReader(run.ledger_path) as ledger:
        return list(ledger.outcomes())


def save_measured_rates(run: Run) -> None:
    """Save the measured rates of this machine for the next forecast."""
    save_rates(rates_of(run))

"""``ctenrich run``, ``plan``, ``status`` and ``retry``: run all stages of a cohort, forecast and follow a run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ctenrich.cli.completion import complete_reason
from ctenrich.cli.doses import print_doses
from ctenrich.cli.finishing import Finish, finishing
from ctenrich.cli.options import (
    CohortFile,
    ComputeOptions,
    LimitOptions,
    ModelOptions,
    Out,
    ProductOptions,
    RunFolder,
    SettingsFile,
)
from ctenrich.cli.viewing import show_run

if TYPE_CHECKING:
    from ctenrich.runner.executors import ExecutorName
    from ctenrich.runner.recorder import RunSummary
    from ctenrich.runner.run import Run
    from ctenrich.settings import Settings

__all__ = ["MoreResults", "make_run", "product_names", "register"]

Source = Annotated[
    str,
    typer.Argument(
        help="Folder of DICOM files, idc:COLLECTION[/PATIENT], cohort file of select, list of series (.csv, .txt), or "
        "folder:FILE of index."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples:  ctenrich run /data/ct --out my-run --segmenter nnunet:/models/Dataset055 --view  \n"
        "ctenrich run idc:nsclc_radiomics/LUNG1-001 --out my-run --segmenter nnunet:/models/Dataset055  \n"
        "ctenrich run cohort.parquet --out my-run --segmenter expert --roi 'PTV.*'  \n"
        "ctenrich run treatments.parquet --out my-run --dose  \n"
        "ctenrich run cohort.parquet --out my-run --segmenter heart=nnunet:/models/Dataset055:3d_fullres:folds=0 "
        "--bodypart /models/bpr  \n"
        "ctenrich run cohort.parquet --out my-run --segmenter nnunet:/models/Dataset055 --devices cuda:0,cuda:1 "
        "--workers 2,4 --on-finish 'mail-me --subject ctenrich'"
    )(run)
    app.command(epilog="Example:  ctenrich plan cohort.parquet --segmenter nnunet:/models/m --price-per-hour 0.9")(plan)
    app.command(epilog="Example:  ctenrich status my-run --watch")(status)
    app.command(epilog="Example:  ctenrich retry my-run --reason RETRY_EXHAUSTED")(retry)


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """Where the jobs run, and what follows."""

    heading: ClassVar[str] = "Execution"

    catalog: Annotated[
        str | None,
        typer.Option(
            "--catalog", metavar="CATALOG", help="Catalog in which a list of series is looked up.  [default: idc]"
        ),
    ] = None
    executor: Annotated[
        str,
        typer.Option(metavar="NAME", help="auto, serial, processes or ray; the results are the same."),
    ] = "auto"
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Address of a Ray cluster.")] = None
    share: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="gs:// or s3://bucket/prefix, or file:///folder, by which machines share the cohort."
        ),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")] = False
    dose: Annotated[
        bool,
        typer.Option(
            "--dose",
            help="Also dose metrics of all products, as SR and tables (research only); in a new run without another "
            "product: those of the experts' structures.",
        ),
    ] = False
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:MODEL",
            help="Also feature vectors of all products by a network, e.g. deep:astra or deep:FOLDER; repeatable.",
        ),
    ] = None
    view: Annotated[bool, typer.Option("--view", help="Open the viewer at the end.")] = False
    on_finish: Annotated[
        str,
        typer.Option(
            metavar="COMMAND",
            help="Program with arguments (no shell) that is run at the end; CTENRICH_RUN, CTENRICH_OUTCOME (done, "
            "budget, interrupted, disk or failed), CTENRICH_EXIT_CODE and CTENRICH_REPORT are in its environment.",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class MoreResults:
    """What is made for every product beside its segmentation."""

    doses: bool = False
    """Whether to calculate doses, also where the settings do not ask for them."""
    features: tuple[str, ...] = ()
    """Feature models, beside those of the settings."""


def make_run(
    cohort: Path, out: Path, products: ProductOptions, compute: ComputeOptions, more: MoreResults | None = None
) -> Run:
    """Create or update a run's folder from command line options.

    Parameters
    ----------
    cohort : Path
        Cohort file.
    out : Path
        The run's folder.
    products : ProductOptions
        Models, and how they name segments.
    compute : ComputeOptions
        Settings and devices.
    more : MoreResults, optional
        Doses and feature vectors; None: those of the settings.

    Returns
    -------
    Run

    Raises
    ------
    CtenrichError
        As `create_run` and `load_settings`.
    """
    from ctenrich.runner.creation import create_run

    settings = _settings_of(products, compute)
    more = more or MoreResults()
    if more.doses:
        settings = replace(settings, doses=replace(settings.doses, enabled=True))
    if more.features:
        models = (*settings.features.models, *more.features)
        settings = replace(settings, features=replace(settings.features, models=models))
    return create_run(
        cohort,
        out,
        segmenters=products.segmenters,
        bodypart=products.bodypart,
        settings=settings,
        allow_demo=products.allow_demo_models,
    )


def product_names(run: Run) -> str:
    """Return the products of a run as text, each with its alias."""
    return ", ".join(map(str, run.config.products))


def _settings_of(products: ProductOptions, compute: ComputeOptions) -> Settings:
    settings = compute.load()
    if products.roi:
        rois = tuple(dict.fromkeys((*settings.contours.rois, *products.roi)))
        settings = replace(settings, contours=replace(settings.contours, rois=rois))
    if products.mappings:
        settings = replace(settings, codes=replace(settings.codes, mappings=str(products.mappings)))
    return settings


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What ``ctenrich run`` was asked for."""

    source: str
    out: Path
    products: ProductOptions
    compute: ComputeOptions
    limits: LimitOptions
    execution: ExecutionOptions


def run(
    source: Source,
    out: Out,
    products: ProductOptions,
    compute: ComputeOptions,
    limits: LimitOptions,
    execution: ExecutionOptions,
) -> None:
    """Select the series of a source, then run all stages on each, and write tables and report.

    The stages are fetch, sort, convert, segment, score, measure, dose (with --dose), encode and validate. Catalog and
    cohort file of a folder or collection are kept in OUT/input. The same command continues a run that was interrupted.
    """
    products = _with_experts(products, out, execution)
    request = RunRequest(source=source, out=out, products=products, compute=compute, limits=limits, execution=execution)
    with finishing(execution.on_finish, out) as finish:
        _run(request, finish)
    if execution.view and finish.outcome in ("done", "budget"):
        show_run(out)
    raise typer.Exit(finish.exit_code)


def _with_experts(products: ProductOptions, out: Path, execution: ExecutionOptions) -> ProductOptions:
    """The products that were named; for doses alone, in a new run, the contours of the experts."""
    named = products.segmenters or products.bodypart != "none"
    if named or not execution.dose or (out / "run.json").exists():
        return products
    typer.echo("no segmenter was named: doses of the experts' structures (--segmenter expert)", err=True)
    return replace(products, segmenter=["expert"])


def _run(request: RunRequest, finish: Finish) -> None:
    """Run a request, print its result, and record how it ended."""
    chosen = _executor(request.execution.executor)
    typer.echo(f"reading {request.source}", err=True)  # at once: what follows loads packages and models
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import count
    from ctenrich.runner.stopping import Budget

    more = MoreResults(doses=request.execution.dose, features=tuple(request.execution.features or ()))
    made = make_run(_cohort_of(request), request.out, request.products, request.compute, more)
    if request.execution.dry_run:
        print_table("Plan", ("stage", "to do", "done"), steps.preview(made))
        finish.outcome, finish.exit_code = "dry run", 0
        return
    finish.started = True
    typer.echo(f"{count(len(made.cohort.series), 'series')}, products of this run: {product_names(made)}")
    limits, execution = request.limits, request.execution
    budget = Budget(limits.max_hours, limits.max_cost, limits.price_per_hour, limits.limit)
    with progress_bars() as progress:
        summary = steps.run_all(
            made,
            executor=chosen,
            address=execution.address,
            share=execution.share,
            budget=budget,
            progress=progress,
        )
    finish.outcome, finish.exit_code = summary.ended.value, summary.exit_code
    _print_summary(made, summary)


def _print_summary(made: Run, summary: RunSummary) -> None:
    from ctenrich.cli.console import print_table
    from ctenrich.errors import count

    states = {state: number for state, number in summary.states.items() if number}
    planned = made.number_of_jobs
    if planned > sum(states.values()):
        states["no outcome yet"] = planned - sum(states.values())
    print_table("Outcomes", ("state", "series and products"), list(states.items()))
    if summary.reasons:
        print_table("Reasons", ("reason", "number"), sorted(summary.reasons.items()))
    typer.echo(f"{count(summary.ran, 'stage')} ran in {summary.seconds:.1f} s ({summary.ended})")
    if summary.ended == "interrupted":
        typer.echo("interrupted: run the same command again to continue", err=True)
    elif summary.exit_code == 3:
        typer.echo("the disk is full: free some space, then run the same command again to continue", err=True)
    else:
        if made.config.settings.doses.enabled:
            print_doses(made)
        typer.echo(f"Report: {made.workspace.report / 'index.html'}")
        typer.echo(f"Next: ctenrich view {shlex.quote(str(made.root))}")


def _cohort_of(request: RunRequest) -> Path:
    """Return the cohort file of a source, and print how it was chosen; wrong requests fail before a folder is read."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.codes.mappings import use_mappings
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.runner.creation import need_products
    from ctenrich.runner.forecast import products_of
    from ctenrich.runner.products import find_model_files
    from ctenrich.runner.run import INPUT, products_of_run
    from ctenrich.select.sources import LISTS, make_cohort

    catalog = request.execution.catalog
    if catalog is not None and not request.source.endswith(LISTS):
        message = f"--catalog is for a list of series, and {request.source} is none"
        raise UsageError(Reason.BAD_PARAMETER, message, f"leave it out, or give a file of series ({', '.join(LISTS)})")
    settings = _settings_of(request.products, request.compute)
    asked, kept = request.products, products_of_run(request.out)
    products = products_of(asked.segmenters, asked.bodypart, kept)
    if not (request.out / "run.json").exists():
        need_products(products)
    use_mappings(settings.codes.mappings)
    find_model_files(asked.segmenters, asked.bodypart, kept)
    with progress_bars() as progress:
        found = make_cohort(request.source, request.out / INPUT, catalog=catalog or "idc", progress=progress)
    if found.selected is not None:
        for note in found.notes:
            typer.echo(note, err=True)
        typer.echo(str(found))
    return found.path


def _executor(name: str) -> ExecutorName:
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.runner.executors import ExecutorName

    try:
        return ExecutorName(name)
    except ValueError:
        known = ", ".join(e.value for e in ExecutorName)
        raise UsageError(Reason.BAD_PARAMETER, f"there is no executor {name!r}", f"choose one of {known}") from None


@dataclass(frozen=True, kw_only=True)
class PriceOptions:
    """Prices of a forecast."""

    heading: ClassVar[str] = "Prices"

    price_per_hour: Annotated[float, typer.Option(min=0, metavar="PRICE", help="Price of the machine.")] = 0.0
    price_per_gb: Annotated[float, typer.Option(min=0, metavar="PRICE", help="Price per gigabyte fetched.")] = 0.0


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """Workers of a forecast."""

    heading: ClassVar[str] = "Workers"

    devices: Annotated[int, typer.Option(min=1, help="GPUs (or inference processes) in parallel.")] = 1
    device_kind: Annotated[
        str,
        typer.Option(metavar="KIND", help="Kind of device whose measured rates are used, instead of this machine's."),
    ] = ""
    input_workers: Annotated[int, typer.Option(min=1, help="Processes that fetch, sort and convert.")] = 1
    output_workers: Annotated[int, typer.Option(min=1, help="Processes that measure, encode and validate.")] = 1


def plan(
    cohort: CohortFile, models: ModelOptions, prices: PriceOptions, workers: PoolOptions, settings: SettingsFile = None
) -> None:
    """Forecast a cohort: time per stage, device hours, disk and cost; with licences and citations."""
    from ctenrich.cli.console import print_table
    from ctenrich.errors import count
    from ctenrich.runner.forecast import Prices, forecast, load_rates, model_terms, products_of
    from ctenrich.runner.simulation import WorkerPools
    from ctenrich.select.cohort_file import read_cohort, sizes_of
    from ctenrich.settings import load_settings

    found = forecast(
        sizes_of(read_cohort(cohort)),
        products_of(models.segmenters, models.bodypart),
        load_rates(workers.device_kind),
        prices=Prices(prices.price_per_hour, prices.price_per_gb),
        pools=WorkerPools(workers.input_workers, workers.devices, workers.output_workers),
        keep_source=not load_settings(settings).fetch.delete_after_use,
    )
    rows = [(s.stage, s.product, round(s.seconds_per_series, 2), round(s.hours, 3)) for s in found.stages]
    print_table("Stages", ("stage", "product", "seconds per series", "hours in total"), rows)
    print_table("Licences of the data", ("licence", "series"), found.licences)
    terms = model_terms(models.segmenters, models.bodypart)
    if terms:
        print_table("Licences of the models", ("model", "licence"), [(name, licence) for name, licence, _ in terms])
    for source in (*found.citations, *(citation for _, _, citation in terms if citation)):
        typer.echo(f"cite: {source}")
    typer.echo(f"{count(found.series, 'series')}, {count(found.slices, 'slice')}, {found.gigabytes:.2f} GB to read")
    typer.echo(
        f"{found.wall_hours:.2f} h in total; {found.device_hours:.2f} device hours, "
        f"devices {found.device_busy:.0%} busy; up to {found.peak_disk_gigabytes:.1f} GB of disk, "
        f"cost {found.cost:.2f} ({found.cost / max(1, found.series):.4f} per series)"
    )
    typer.echo(f"rates: {found.source}")


def status(run: RunFolder, watch: Annotated[bool, typer.Option("--watch", help="Refresh every 2 s.")] = False) -> None:
    """Show the progress of a run: outcomes, reasons, time per stage; from any shell, while it runs or after."""
    import time

    from ctenrich.cli.console import print_table
    from ctenrich.runner.run import Run
    from ctenrich.runner.status import status as status_of

    opened = Run.open(run)
    while True:
        found = status_of(opened)
        print_table("Outcomes", ("state", "series and products"), found.states)
        if found.reasons:
            print_table("Reasons", ("reason", "number"), found.reasons)
        print_table("Stages", ("stage", "done", "seconds (median)", "CPU seconds", "peak MB"), found.stages)
        typer.echo(found.line)
        if found.hours_left is not None and not found.complete:
            typer.echo(f"about {60 * found.hours_left:.0f} minutes left, at this run's own rate")
        if not watch or found.complete:
            return
        time.sleep(2)


def retry(
    run: RunFolder,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason",
            metavar="REASON",
            help="Only products with this reason; repeatable.",
            autocompletion=complete_reason,
        ),
    ] = None,
) -> None:
    """Mark failed products (all, or those with a reason) to be tried again by the next run."""
    from ctenrich.errors import UsageError, count, did_you_mean
    from ctenrich.reasons import Reason
    from ctenrich.runner.run import Run
    from ctenrich.runner.status import retry as retry_failures

    for code in reason or []:
        if code not in [known.value for known in Reason]:
            hint = did_you_mean(code, [known.value for known in Reason], "ctenrich status lists the reasons of a run")
            raise UsageError(Reason.BAD_PARAMETER, f"there is no reason {code}", hint)
    number = retry_failures(Run.open(run), reason or [])
    typer.echo(f"{count(number, 'product')} will be tried again by the next ctenrich run")

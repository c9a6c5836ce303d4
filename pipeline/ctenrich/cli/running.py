"""``ctenrich run``, ``plan``, ``status`` and ``retry``: run all stages of a cohort, forecast and follow a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ctenrich.cli.options import SettingsFile
from ctenrich.cli.viewing import show_run

if TYPE_CHECKING:
    from ctenrich.runner.executors import ExecutorName
    from ctenrich.runner.run import Run
    from ctenrich.settings import Settings

__all__ = [
    "Bodypart",
    "CohortFile",
    "Demo",
    "Device",
    "Mappings",
    "Out",
    "Rois",
    "RunFolder",
    "RunOptions",
    "Segmenters",
    "SettingsFile",
    "make_run",
    "register",
]

CohortFile = Annotated[Path, typer.Argument(help="Cohort file that select wrote.")]
Out = Annotated[Path, typer.Option(help="The run's folder; an existing run is resumed.")]
Segmenters = Annotated[
    list[str] | None,
    typer.Option(
        "--segmenter",
        help="expert; nnunet:MODEL[:CONFIGURATION][:folds=0,1][:mirror=on|off][:axes=RAS|LAS|LPS][:step=0.8]; "
        "totalsegmentator:TASK[:fast|fastest][:roi=liver,spleen][:crop=robust][:split=on][:small=200][:as=2.18]; "
        "or recipe:FILE.toml[:NAME]; repeatable.",
    ),
]
Bodypart = Annotated[str, typer.Option(help="Body part regression model: a name, a folder, or none.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")]
Rois = Annotated[
    list[str] | None,
    typer.Option(
        "--roi",
        help="expert: take ROIs without a mapping along whose whole name matches this regular expression; repeatable.",
    ),
]
Mappings = Annotated[
    Path | None, typer.Option(help="Folder with a segments.csv of your own, used beside the package's mappings.")
]
Demo = Annotated[
    bool, typer.Option("--allow-demo-models", help="Run demonstration models on any study, not only on generated ones.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples:  ctenrich run /data/ct --out my-run --segmenter nnunet:/models/Dataset055 --view  \n"
        "ctenrich run idc:nsclc_radiomics/LUNG1-001 --out my-run --segmenter nnunet:/models/Dataset055  \n"
        "ctenrich run cohort.parquet --out my-run --segmenter expert --roi 'PTV.*'  \n"
        "ctenrich run cohort.parquet --out my-run --segmenter nnunet:/models/Dataset055:3d_fullres:folds=0:mirror=off "
        "--bodypart /models/bpr"
    )(run)
    app.command(epilog="Example:  ctenrich plan cohort.parquet --segmenter nnunet:/models/m --price-per-hour 0.9")(plan)
    app.command(epilog="Example:  ctenrich status my-run --watch")(status)
    app.command(epilog="Example:  ctenrich retry my-run --reason RETRY_EXHAUSTED")(retry)


class RunOptions(NamedTuple):
    """Options that ``run`` and ``prepare`` share."""

    segmenters: list[str] | None
    bodypart: str
    device: str
    settings: Path | None
    allow_demo_models: bool
    rois: list[str] | None = None
    mappings: Path | None = None


def make_run(cohort: Path, out: Path, options: RunOptions) -> Run:
    """Create or update a run's folder from command line options.

    Parameters
    ----------
    cohort : Path
        Cohort file.
    out : Path
        The run's folder.
    options : RunOptions
        Products and settings.

    Returns
    -------
    Run

    Raises
    ------
    CtenrichError
        As `Run.create` and `load_settings`.
    """
    from ctenrich.runner.run import Run

    return Run.create(
        cohort,
        out,
        segmenters=options.segmenters or [],
        bodypart=options.bodypart,
        settings=_settings_of(options),
        allow_demo=options.allow_demo_models,
    )


def _settings_of(options: RunOptions) -> Settings:
    from dataclasses import replace

    from ctenrich.inference.device import check_device_name
    from ctenrich.settings import load_settings

    settings = load_settings(options.settings)
    settings = replace(settings, segment=replace(settings.segment, device=check_device_name(options.device)))
    if options.rois:
        rois = tuple(dict.fromkeys((*settings.contours.rois, *options.rois)))
        settings = replace(settings, contours=replace(settings.contours, rois=rois))
    if options.mappings:
        settings = replace(settings, codes=replace(settings.codes, mappings=str(options.mappings)))
    return settings


Source = Annotated[
    str,
    typer.Argument(
        help="Folder of DICOM files, idc:COLLECTION[/PATIENT], cohort file of select, list of series (.csv, .txt), or "
        "folder:FILE of index."
    ),
]


def run(
    source: Source,
    out: Out,
    segmenter: Segmenters = None,
    bodypart: Bodypart = "none",
    device: Device = "auto",
    settings: SettingsFile = None,
    roi: Rois = None,
    mappings: Mappings = None,
    allow_demo_models: Demo = False,
    executor: Annotated[str, typer.Option(help="auto, serial, processes or ray; the results are the same.")] = "auto",
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster.")] = None,
    share: Annotated[
        str | None,
        typer.Option(help="gs:// or s3://bucket/prefix, or file:///folder, by which machines share the cohort."),
    ] = None,
    max_hours: Annotated[float | None, typer.Option(min=0, help="Start no series after this time.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Start no series after this cost.")] = None,
    price_per_hour: Annotated[float, typer.Option(min=0, help="Price of this machine, for --max-cost.")] = 0.0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Run only the first series of the cohort, this many.")
    ] = None,
    catalog: Annotated[str, typer.Option(help="Catalog in which a list of series is looked up.")] = "idc",
    view: Annotated[bool, typer.Option("--view", help="Open the viewer at the end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")] = False,
) -> None:
    """Select the series of a source, then run all stages on each, and write tables and report.

    The stages are fetch, sort, convert, segment, score, measure, encode and validate. Catalog and cohort file of a
    folder or collection are kept in OUT/input. The same command continues a run that was interrupted.
    """
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.runner.stopping import Budget

    chosen = _executor(executor)
    options = RunOptions(segmenter, bodypart, device, settings, allow_demo_models, roi, mappings)
    made = make_run(_cohort_of(source, out, options, catalog), out, options)
    if dry_run:
        print_table("Plan", ("stage", "to do", "done"), steps.preview(made))
        return
    kept = [str(p.product) for p in made.config.products]
    typer.echo(f"{len(made.cohort.series)} series, products of this run: {', '.join(kept)}")
    budget = Budget(max_hours, max_cost, price_per_hour, limit)
    with progress_bars() as progress:
        summary = steps.run_all(made, executor=chosen, address=address, share=share, budget=budget, progress=progress)
    states = {state: count for state, count in summary.states.items() if count}
    planned = len(made.jobs())
    if planned > sum(states.values()):
        states["no outcome yet"] = planned - sum(states.values())
    print_table("Outcomes", ("state", "series and products"), list(states.items()))
    if summary.reasons:
        print_table("Reasons", ("reason", "number"), sorted(summary.reasons.items()))
    typer.echo(f"{summary.ran} stages ran in {summary.seconds:.1f} s ({summary.ended})")
    if summary.ended == "interrupted":
        typer.echo("interrupted: run the same command again to continue", err=True)
    elif summary.exit_code == 3:
        typer.echo("the disk is full: free some space, then run the same command again to continue", err=True)
    else:
        typer.echo(f"Report: {made.workspace.report / 'index.html'}")
        if view:
            show_run(out)
    raise typer.Exit(summary.exit_code)


def _cohort_of(source: str, out: Path, options: RunOptions, catalog: str) -> Path:
    """Return the cohort file of a source, and print how it was chosen; wrong requests fail before a folder is read."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.runner.forecast import products_of
    from ctenrich.runner.run import INPUT, need_products
    from ctenrich.select.sources import make_cohort

    _settings_of(options)
    products = products_of(options.segmenters or [], options.bodypart)
    if not (out / "run.json").exists():
        need_products(products)
    with progress_bars() as progress:
        found = make_cohort(source, out / INPUT, catalog=catalog, progress=progress)
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


def plan(
    cohort: CohortFile,
    segmenter: Segmenters = None,
    bodypart: Bodypart = "none",
    price_per_hour: Annotated[float, typer.Option(min=0, help="Price of the machine.")] = 0.0,
    price_per_gb: Annotated[float, typer.Option(min=0, help="Price per gigabyte fetched.")] = 0.0,
    devices: Annotated[int, typer.Option(min=1, help="GPUs (or inference processes) in parallel.")] = 1,
    input_workers: Annotated[int, typer.Option(min=1, help="Processes that fetch, sort and convert.")] = 1,
    output_workers: Annotated[int, typer.Option(min=1, help="Processes that measure, encode and validate.")] = 1,
    settings: SettingsFile = None,
) -> None:
    """Forecast a cohort: time per stage, device hours, disk and cost; with licences and citations."""
    from ctenrich.cli.console import print_table
    from ctenrich.runner.forecast import Prices, forecast, load_rates, model_terms, products_of
    from ctenrich.runner.simulation import WorkerPools
    from ctenrich.select import read_cohort
    from ctenrich.settings import load_settings

    products = products_of(segmenter or [], bodypart)
    prices, pools = Prices(price_per_hour, price_per_gb), WorkerPools(input_workers, devices, output_workers)
    keep = not load_settings(settings).fetch.delete_after_use
    found = forecast(read_cohort(cohort), products, load_rates(), prices=prices, pools=pools, keep_source=keep)
    rows = [(s.stage, s.product, round(s.seconds_per_series, 2), round(s.hours, 3)) for s in found.stages]
    print_table("Stages", ("stage", "product", "seconds per series", "hours in total"), rows)
    print_table("Licences of the data", ("licence", "series"), found.licences)
    terms = model_terms(segmenter or [], bodypart)
    if terms:
        print_table("Licences of the models", ("model", "licence"), [(name, licence) for name, licence, _ in terms])
    for source in (*found.citations, *(citation for _, _, citation in terms if citation)):
        typer.echo(f"cite: {source}")
    typer.echo(f"{found.series} series, {found.slices} slices, {found.gigabytes:.2f} GB to read")
    typer.echo(
        f"{found.wall_hours:.2f} h in total; {found.device_hours:.2f} device hours, "
        f"devices {found.device_busy:.0%} busy; up to {found.peak_disk_gigabytes:.1f} GB of disk, "
        f"cost {found.cost:.2f} ({found.cost / max(1, found.series):.4f} per series)"
    )
    typer.echo(f"rates: {found.source}")


def status(
    run_folder: RunFolder, watch: Annotated[bool, typer.Option("--watch", help="Refresh every 2 s.")] = False
) -> None:
    """Show the progress of a run: outcomes, reasons, time per stage; from any shell, while it runs or after."""
    import time

    from ctenrich import steps
    from ctenrich.cli.console import print_table

    opened = steps.open_run(run_folder)
    while True:
        found = steps.status(opened)
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
    run_folder: RunFolder,
    reason: Annotated[list[str] | None, typer.Option(help="Only products with this reason; repeatable.")] = None,
) -> None:
    """Mark failed products (all, or those with a reason) to be tried again by the next run."""
    from ctenrich import steps
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.reasons import Reason

    for code in reason or []:
        if code not in [known.value for known in Reason]:
            hint = did_you_mean(code, [known.value for known in Reason], "ctenrich status lists the reasons of a run")
            raise UsageError(Reason.BAD_PARAMETER, f"there is no reason {code}", hint)
    count = steps.retry(steps.open_run(run_folder), reason or [])
    typer.echo(f"{count} products will be tried again by the next ctenrich run")

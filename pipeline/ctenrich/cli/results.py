"""``ctenrich query``, ``report`` and the evaluations: query, show and compare results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ctenrich.cli.completion import complete_query, complete_run
from ctenrich.cli.options import MaxVoxels, RunFolder, SettingsFile, seg_limits
from ctenrich.cli.query_output import RowFormat

if TYPE_CHECKING:
    from ctenrich.runner.run import Run

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog='Examples:  ctenrich query my-run "SELECT PatientID, organ, laterality, volume_ml FROM organs"  \n'
        "ctenrich query --list  \n"
        "ctenrich query my-run --describe organs  \n"
        "ctenrich query my-run --anatomy T4..L1 --without lung_start  \n"
        "ctenrich query bigquery:my-project.results lung_height  \n"
        "ctenrich query bigquery:bigquery-public-data.idc_v25 segmentations --project my-project --dry-run"
    )(query)
    app.command(epilog="Example:  ctenrich report my-run")(report)
    app.command(
        "evaluate-landmarks",
        epilog="Examples:  ctenrich evaluate-landmarks my-run  \n"
        "ctenrich evaluate-landmarks my-run --extents lung_locations.csv",
    )(evaluate)
    app.command(
        "evaluate-segmentations",
        epilog="Examples:  ctenrich evaluate-segmentations my-run  \n"
        "ctenrich evaluate-segmentations my-run --reference nnunet:a:3d_fullres:0:True --csv  \n"
        "ctenrich evaluate-segmentations my-run others-segs/  \n"
        "ctenrich evaluate-segmentations theirs.dcm mine.dcm --source their-ct/ --reference theirs.dcm",
    )(evaluate_segmentations)


def query(
    run: Annotated[
        str,
        typer.Argument(
            help="The run's folder, or bigquery:PROJECT.DATASET of published tables.", autocompletion=complete_run
        ),
    ] = "",
    sql: Annotated[
        str,
        typer.Argument(
            help="SQL text, a .sql file, or the name of a query in queries/.", autocompletion=complete_query
        ),
    ] = "",
    param: Annotated[list[str] | None, typer.Option(help="name=value of an @parameter; repeatable.")] = None,
    anatomy: Annotated[list[str] | None, typer.Option(help='Series that show all of "T4..L1", or a landmark.')] = None,
    without: Annotated[list[str] | None, typer.Option(help="Series without this landmark; repeatable.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the shipped queries and the tables.")] = False,
    describe: Annotated[str, typer.Option(help="Columns of this table, or parameters of this query.")] = "",
    row_format: Annotated[
        RowFormat | None, typer.Option("--format", help="Format of the rows; default: that of --out, else table.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the rows: .csv, .json, .parquet, .xlsx or .dta.")] = None,
    byte_limit: Annotated[float, typer.Option(help="BigQuery: most gigabytes that the query may read.")] = 10.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="BigQuery: show bytes and price, run nothing.")] = False,
    project: Annotated[str, typer.Option(help="BigQuery: project that pays; default: the project of the tables.")] = "",
) -> None:
    """Query the result tables in SQL, or find series by anatomy; the same query runs here and on BigQuery."""
    from ctenrich.cli.console import parse_parameters
    from ctenrich.cli.query_output import write_rows
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.results.anatomy import anatomy_query

    if show_list or describe:
        return _show_tables(run, describe)
    if not run:
        raise UsageError(Reason.BAD_PARAMETER, "there is no run", "name its folder; --list and --describe need none")
    form = _row_format(row_format, csv=csv, out=out)
    parameters = parse_parameters(param or [])
    if anatomy or without:
        if sql:
            raise UsageError(Reason.BAD_PARAMETER, "give either SQL or --anatomy/--without, not both")
        sql, parameters = anatomy_query(anatomy or [], without or [])
    elif not sql:
        raise UsageError(Reason.BAD_PARAMETER, "there is no query", "give SQL, a file, --anatomy or --without")
    _check_query_name(sql)
    table = _run_query(run, sql, parameters, _BigQueryOptions(project, byte_limit, dry_run))
    if table is not None:
        write_rows(table, form, out)
    return None


def _show_tables(run: str, name: str) -> None:
    """Print the list of queries and tables, or describe one of them."""
    from ctenrich.cli.query_output import print_description, print_lists
    from ctenrich.results.describe import describe, list_queries, list_tables
    from ctenrich.results.remote import is_remote
    from ctenrich.runner.run import Run

    workspace = Run.open(Path(run)).workspace if run and not is_remote(run) else None
    if name:
        print_description(describe(name, workspace))
    else:
        print_lists(list_queries(), list_tables(workspace))


def _row_format(chosen: RowFormat | None, *, csv: bool, out: Path | None) -> RowFormat:
    if chosen is None and out is not None and out.suffix.lstrip(".").lower() in list(RowFormat):
        return RowFormat(out.suffix.lstrip(".").lower())
    return chosen or (RowFormat.CSV if csv else RowFormat.TABLE)


def _check_query_name(sql: str) -> None:
    """Refuse a single word that is neither a file nor one of the shipped queries."""
    from ctenrich.catalog.queries import shipped_queries
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.reasons import Reason
    from ctenrich.results.schema import TABLE_TEXTS

    word = sql.strip()
    if " " not in word and word not in shipped_queries() and not Path(word).is_file() and len(word.splitlines()) == 1:
        otherwise = "give SQL, a .sql file, or the name of a query (ctenrich query --list)"
        if word in TABLE_TEXTS:
            otherwise = f'{word} is a table: "SELECT * FROM {word}"'  # noqa: S608 - a hint, not a statement
        hint = did_you_mean(word, shipped_queries(), otherwise)
        raise UsageError(Reason.NOT_FOUND, f"there is no query {word}", hint)


class _BigQueryOptions(NamedTuple):
    project: str
    gigabyte_limit: float
    dry_run: bool


def _run_query(run: str, sql: str, parameters: dict[str, object], options: _BigQueryOptions) -> Any:
    """Return the rows; None after a dry run."""
    from ctenrich.results.query import run_query
    from ctenrich.results.remote import PublishedTables, is_remote
    from ctenrich.runner.run import Run

    if not is_remote(run):
        return run_query(Run.open(Path(run)).workspace, sql, parameters)
    tables = PublishedTables(run, project=options.project, byte_limit=int(options.gigabyte_limit * 1e9))
    try:
        price = tables.estimate_query(sql, parameters)
        typer.echo(f"reads up to {price.bytes / 1e9:.3f} GB: at most ${price.price_usd:.2f} (list price)", err=True)
        return None if options.dry_run else tables.run_query(sql, parameters)
    finally:
        tables.close()


def evaluate(
    run: RunFolder,
    extents: Annotated[
        Path | None, typer.Option(help="CSV of expert lung extents, in the format of the published study.")
    ] = None,
    reference: Annotated[str, typer.Option(help="Without --extents: product whose lung masks are the reference.")] = (
        "expert"
    ),
) -> None:
    """Compare the lung landmarks of a run with lungs drawn by experts: from a table, or from masks of the run."""
    from ctenrich import steps
    from ctenrich.cli.console import print_table
    from ctenrich.evaluate.landmarks import compare_run, summarise
    from ctenrich.evaluate.lungs import compare_with_masks
    from ctenrich.runner.products import product_key

    opened = steps.open_run(run)
    workspace, reference = opened.workspace, product_key(opened.config.products, reference)
    ends = compare_run(workspace, extents) if extents else compare_with_masks(workspace, reference=reference)
    rows = [
        (e.series_instance_uid, e.landmark, e.expert_z, "" if e.slice_z is None else e.slice_z,
         "" if e.error is None else e.error, e.absent_reason or "") for e in ends
    ]  # fmt: skip
    if not rows:
        typer.echo("nothing to compare: no series has both landmarks (--bodypart) and the lungs of an expert", err=True)
    print_table("Lung ends", ("series", "landmark", "expert z, mm", "ours, mm", "error, mm", "absent"), rows)
    sums = [
        (s.landmark, s.series, s.found, *("" if v is None else v for v in
         (s.median_error, s.mean_error, s.sd_error, s.largest_error, s.bias))) for s in summarise(ends)
    ]  # fmt: skip
    columns = ("landmark", "series", "found", "median", "mean", "sd", "largest", "bias")
    print_table("Absolute errors, mm", columns, sums)


def evaluate_segmentations(
    targets: Annotated[
        list[Path], typer.Argument(metavar="[RUN] [PATH...]", help="A run's folder, and SEGs of any maker, or both.")
    ],
    reference: Annotated[
        str, typer.Option(help="Reference: a product of the run or its alias, or the path of a SEG.")
    ] = "expert",
    model: Annotated[
        str | None, typer.Option(help="Product, or path of a SEG, to compare with it; default: every other one.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="SEGs without a run: folder of the CT, MR or PET that they refer to.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV to stdout instead of a table.")] = False,
    settings: SettingsFile = None,
    max_voxels: MaxVoxels = None,
) -> None:
    """Compare masks, organ by organ, with Dice and Hausdorff distances: of products of a run, and of other SEGs."""
    from dataclasses import astuple, fields

    from ctenrich.cli.console import print_csv, print_table
    from ctenrich.evaluate.products import ProductOverlap, compare_objects
    from ctenrich.runner.products import product_key

    run, paths = _run_and_paths(targets, source)
    if run is not None:
        reference = product_key(run.config.products, reference)
        model = model and product_key(run.config.products, model)
    limits = seg_limits(settings, max_voxels, run.config.settings.seg if run else None)
    workspace = run.workspace if run else None
    found = compare_objects(paths, workspace=workspace, source=source, reference=reference, model=model, limits=limits)
    names = [f.name for f in fields(ProductOverlap)]
    rows = [tuple("" if v is None else v for v in astuple(one)) for one in found.overlaps]
    for item in found.objects:
        for issue in item.issues:
            typer.echo(f"{issue.severity.value}: {item.name}: {issue.message} [{issue.rule}]", err=True)
    failed = [item for item in found.objects if item.reason is not None]
    for item in failed:
        typer.echo(f"not compared: {item.name}: {item.reason}: {item.message}", err=True)
    if not rows:
        other = model or "another product"
        typer.echo(
            f"nothing to compare: no series has masks of {reference} and {other} with an organ in common", err=True
        )
    if csv:
        print_csv(names, rows)
    elif rows:
        print_table(f"{len(rows)} organs", names, rows)
    raise typer.Exit(1 if failed else 0)


def _run_and_paths(targets: list[Path], source: Path | None) -> tuple[Run | None, list[Path]]:
    """The run among the targets, if there is one, and the SEGs beside it."""
    from ctenrich import steps
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    runs = [path for path in targets if (path / "run.json").is_file()]
    if len(runs) > 1:
        hint = f"name one; the SEGs of the other one are in {runs[1] / 'series'}"
        raise UsageError(Reason.BAD_PARAMETER, f"{len(runs)} runs are named", hint)
    if not runs and source is None and not targets[0].is_file():
        steps.open_run(targets[0])  # raises: it is no run
    paths = [path for path in targets if path not in runs]
    return (steps.open_run(runs[0]) if runs else None), paths


def report(
    run: RunFolder,
    checks: Annotated[
        bool, typer.Option(help="Check masks that are new or have changed, as ctenrich quality does.")
    ] = True,
) -> None:
    """Write the offline HTML report of a run."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars

    opened = steps.open_run(run)
    with progress_bars() as progress:
        path = steps.finish(opened, check_masks=checks, progress=progress)
    typer.echo(str(path))

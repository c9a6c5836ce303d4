"""``ctenrich index``, ``select`` and ``cohort``: from DICOM metadata to the series that are worked on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

cohort_app = typer.Typer(no_args_is_help=True, help="Look at cohort files: show, diff, consort.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  ctenrich index /data/ct --catalog catalog.duckdb --collection my_study")(index)
    app.command(
        epilog="Examples:  ctenrich select select_ct_series --catalog folder:catalog.duckdb --out cohort.parquet  \n"
        "ctenrich select select_ct_series --catalog parquet:s3://bucket/idc_v25 --param collection_id=nlst "
        "--out nlst.parquet"
    )(select)
    app.add_typer(cohort_app, name="cohort")


def index(
    folders: Annotated[list[Path], typer.Argument(help="Folders of DICOM files, crawled with all below them.")],
    catalog: Annotated[Path, typer.Option(help="DuckDB file; made, or brought up to date.")],
    collection: Annotated[str, typer.Option(help="collection_id of the series.")] = "local",
    processes: Annotated[int, typer.Option(min=1, help="Reading processes.")] = 2,
) -> None:
    """Crawl folders of DICOM files into a catalog with IDC's column names."""
    from ctenrich.catalog.folder import index_folders
    from ctenrich.cli.console import progress_bars

    with progress_bars() as progress:
        summary = index_folders(folders, catalog, collection_id=collection, processes=processes, progress=progress)
    typer.echo(str(summary))


def select(
    query: Annotated[str, typer.Argument(help="SQL file, or the name of one in queries/.")],
    catalog: Annotated[str, typer.Option(help="folder:FILE, idc, parquet:URI or bigquery[:PROJECT].")],
    out: Annotated[Path, typer.Option(help="Cohort file (.parquet).")],
    param: Annotated[list[str] | None, typer.Option(help="name=value of an @parameter; repeatable.")] = None,
) -> None:
    """Choose the series that can be reconstructed, and say why the others cannot."""
    from ctenrich.catalog import open_catalog
    from ctenrich.cli.console import parse_parameters, print_table, progress_bars
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.select import select_cohort, write_cohort

    with progress_bars() as progress:
        selection = select_cohort(
            query, open_catalog(catalog), parse_parameters(param or []), name=out.stem, progress=progress
        )
    write_cohort(selection, out)
    counts: dict[str, int] = {}
    for row in selection.excluded.to_pylist():
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    print_table("Excluded", ("reason", "series"), sorted(counts.items()))
    typer.echo(f"{len(selection.cohort.series)} series selected, {sum(counts.values())} excluded: {out}")
    if not selection.cohort.series:
        raise UsageError(Reason.EMPTY_COHORT, "no series was selected", "the table above says why")

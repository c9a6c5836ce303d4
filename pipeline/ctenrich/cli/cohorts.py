"""``ctenrich index``, ``select`` and ``cohort``: from DICOM metadata to a cohort of series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ctenrich.cli.completion import complete_query
from ctenrich.cli.selection_options import RuleOptions

if TYPE_CHECKING:
    from ctenrich.select.compare import CohortDiff

__all__ = ["register"]

cohort_app = typer.Typer(no_args_is_help=True, help="Inspect cohort files: show, diff, consort.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  ctenrich index /data/ct --catalog catalog.duckdb --collection my_study")(index)
    app.command(
        epilog="Examples:  ctenrich select select_ct_series --catalog folder:catalog.duckdb --out cohort.parquet  \n"
        "ctenrich select select_ct_series --catalog parquet:s3://bucket/idc_v25 --param collections=nlst "
        "--out nlst.parquet  \n"
        "ctenrich select select_idc_series --param collections=nsclc_radiomics --param patients=LUNG1-001  \n"
        "ctenrich select select_idc_series --catalog dicom://pacs.example:104/PACS --param patients=P1,P2  \n"
        "ctenrich select --series-list series.csv --catalog folder:catalog.duckdb  \n"
        "ctenrich select select_ct_series --catalog folder:catalog.duckdb --body-part CHEST "
        "--min-age 18 --contrast no --out chest.parquet  \n"
        "ctenrich select --lock cohort.lock.json --catalog folder:catalog.duckdb --out again.parquet"
    )(select)
    app.add_typer(cohort_app, name="cohort")


def index(
    folders: Annotated[list[Path], typer.Argument(help="Folders of DICOM files; subfolders are included.")],
    catalog: Annotated[Path, typer.Option(help="DuckDB file, created or updated.")],
    collection: Annotated[str | None, typer.Option(help="collection_id of new series.  [default: local]")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes that read files.")] = 2,
) -> None:
    """Index folders of DICOM files into a catalog with IDC's column names."""
    from ctenrich.catalog.folder import index_folders
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import InputError, UsageError

    with progress_bars() as progress:
        name = collection or "local"
        try:
            summary = index_folders(folders, catalog, collection_id=name, processes=processes, progress=progress)
        except InputError as error:  # the folders that were named hold nothing to index
            raise UsageError(error.reason, error.message, error.hint) from error
    typer.echo(str(summary))
    if collection and not summary.read:
        _check_collection(catalog, collection)


def _check_collection(catalog: Path, collection: str) -> None:
    """Refuse a collection that no series got, because the files had been read before."""
    from ctenrich.catalog.folder import FolderCatalog
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.reasons import Reason

    opened = FolderCatalog(catalog)
    try:
        rows = opened.connection.execute("SELECT DISTINCT collection_id FROM dicom_all ORDER BY 1").fetchall()
    finally:
        opened.close()
    known = [str(name) for (name,) in rows]
    if collection not in known:
        message = f"no series got the collection {collection}: the files have been in {catalog} before, unchanged"
        hint = did_you_mean(collection, known, f"it holds {', '.join(known)}; index into a new file to rename")
        raise UsageError(Reason.BAD_PARAMETER, message, hint)


@dataclass(frozen=True, kw_only=True)
class SelectionOptions:
    """What is selected, and how the cohort file is written."""

    heading: ClassVar[str] = "Selection"

    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Value of an @parameter; repeatable.")
    ] = None
    series_list: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check the series of a list (UIDs, or a CSV) instead of a query's."),
    ] = None
    lock: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Repeat the selection of a lock file and report changes.")
    ] = None
    partial: Annotated[bool, typer.Option("--partial", help="Use a catalog whose last crawl did not end.")] = False
    portable: Annotated[
        bool, typer.Option("--portable", help="Leave the paths of this computer out of the cohort file, to share it.")
    ] = False
    memory: Annotated[
        float | None,
        typer.Option(
            metavar="GB", min=0.1, help="Gigabytes that selecting may take.  [default: half of the machine's memory]"
        ),
    ] = None
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Archives: TOML file whose [fetch] has titles, certificates and time limits."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BigQueryOptions:
    """Limits and tables of BigQuery."""

    heading: ClassVar[str] = "BigQuery"

    save_table: Annotated[
        str | None, typer.Option(metavar="PROJECT.DATASET.TABLE", help="Also save the cohort as this table.")
    ] = None
    byte_limit: Annotated[
        float | None, typer.Option(metavar="GB", help="Most gigabytes that the query may read.  [default: 53.7]")
    ] = None
    identified: Annotated[
        bool, typer.Option("--identified", help="Save the Patient IDs of a folder's or Parquet catalog too.")
    ] = False


def select(
    selection_options: SelectionOptions,
    rules: RuleOptions,
    bigquery: BigQueryOptions,
    query: Annotated[
        str, typer.Argument(help="SQL file, or the name of a query in queries/.", autocompletion=complete_query)
    ] = "",
    catalog: Annotated[
        str,
        typer.Option(
            "--catalog",
            metavar="CATALOG",
            help="folder:FILE, idc[:fetch], parquet:URI, bigquery[:PROJECT], dicom://HOST:PORT/AET, "
            "dicomweb+https://HOST/ROOT, xnat+https://HOST/PROJECT or tcia:COLLECTION.",
        ),
    ] = "idc",
    out: Annotated[Path, typer.Option(metavar="FILE", help="Cohort file (.parquet).")] = Path("cohort.parquet"),
) -> None:
    """Select the series that can be reconstructed as a volume, and report why the others cannot."""
    from ctenrich import steps
    from ctenrich.cli.console import parse_parameters, print_table, progress_bars
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.select.files import excluded_path
    from ctenrich.select.spool import heads_of
    from ctenrich.settings import load_settings

    request = steps.SelectRequest(
        query=query,
        catalog=catalog,
        out=out,
        parameters={**parse_parameters(selection_options.param or []), **rules.parameters()},
        series_list=selection_options.series_list,
        lock=selection_options.lock,
        save_table=bigquery.save_table,
        byte_limit=None if bigquery.byte_limit is None else int(bigquery.byte_limit * 1e9),
        portable=selection_options.portable,
        identified=bigquery.identified,
        partial=selection_options.partial,
        memory=None if selection_options.memory is None else int(selection_options.memory * 1e9),
        fetch=load_settings(selection_options.settings).fetch,
    )
    with progress_bars() as progress:
        selection, diff = steps.select_request(request, progress=progress)
    counts: dict[str, int] = {}
    for row in selection.excluded.to_pylist():
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    for note in selection.notes:
        typer.echo(note, err=True)
    if diff is not None:
        _print_diff(diff)
    if counts:
        print_table("Excluded", ("reason", "series"), sorted(counts.items()))
    typer.echo(f"{len(selection.cohort.series)} series selected, {sum(counts.values())} excluded: {out}")
    unknown = sum(not s.geometry_known for s in heads_of(selection.cohort.series))
    if unknown:
        typer.echo(_geometry_line(len(selection.cohort.series), unknown))
    if counts:
        typer.echo(f"excluded series, with every rule that each one fails: {excluded_path(out)}")
    if not selection.cohort.series:
        nothing = "the catalog has no CT series of these collections, patients and series: check their spelling"
        hint = "see the reasons above" if counts else nothing
        raise UsageError(Reason.EMPTY_COHORT, "no series was selected", hint)


CohortFile = Annotated[Path, typer.Argument(help="Cohort file.")]


@cohort_app.command(
    "show",
    epilog="Examples:  ctenrich cohort show cohort.parquet  \nctenrich cohort show cohort.excluded.parquet --all",
)
def show(
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Cohort file, or the .excluded.parquet beside it.")],
    everything: Annotated[bool, typer.Option("--all", help="List every series; default: the first 20.")] = False,
) -> None:
    """Show what a cohort holds: patients, studies, series, licences, companions, exclusions; and list its series."""
    if cohort.name.endswith(_EXCLUDED):
        _show_excluded(cohort, everything)
    else:
        _show_selected(cohort, everything)


_EXCLUDED = ".excluded.parquet"
_LISTED = 20


def _show_selected(path: Path, everything: bool) -> None:
    from ctenrich.errors import count
    from ctenrich.select.cohort_file import read_cohort
    from ctenrich.select.compare import describe_cohort

    found = describe_cohort(path)
    typer.echo(f"{found.name}  {found.sha256}")
    numbers = (
        (found.patients, "patient"),
        (found.studies, "study"),
        (found.series, "series"),
        (found.instances, "instance"),
    )
    typer.echo(f"{', '.join(count(*one) for one in numbers)}, {found.bytes / 1e9:.2f} GB")
    parts = (
        ("collections", found.collections),
        ("licences", found.licences),
        ("companions", found.companions),
        ("excluded", found.excluded),
    )
    for title, counts in parts:
        typer.echo(f"{title}: " + (", ".join(f"{n or 'unknown'} {c}" for n, c in counts.items()) or "none"))
    if found.geometry_unknown:
        typer.echo(_geometry_line(found.series, found.geometry_unknown))
    rows: list[tuple[object, ...]] = []
    for one in read_cohort(path).series:
        facts = (one.facts.study_date or "", one.facts.series_description or "")
        rows.append((one.patient_id, *facts, one.instance_count, one.series_instance_uid))
    _print_series(("PatientID", "study date", "description", "slices", "SeriesInstanceUID"), rows, everything)


def _show_excluded(path: Path, everything: bool) -> None:
    from ctenrich.errors import count
    from ctenrich.select.files import read_excluded

    found = read_excluded(path.with_name(path.name.removesuffix(_EXCLUDED) + ".parquet")).to_pylist()
    typer.echo(f"{count(len(found), 'excluded series')}")
    rows: list[tuple[object, ...]] = []
    for row in found:
        why = (", ".join(row["reasons"]), row["detail"] or "")
        rows.append((row["patient_id"], row["num_instances"], *why, row["series_instance_uid"]))
    _print_series(("PatientID", "instances", "reasons", "detail", "SeriesInstanceUID"), rows, everything)


def _print_series(columns: tuple[str, ...], rows: list[tuple[object, ...]], everything: bool) -> None:
    from ctenrich.cli.console import print_table

    shown = rows if everything else rows[:_LISTED]
    print_table("Series", columns, shown)
    if len(shown) < len(rows):
        typer.echo(f"{len(rows) - len(shown)} more: --all lists them")


@cohort_app.command("diff", epilog="Example:  ctenrich cohort diff old.parquet new.parquet")
def diff(first: CohortFile, second: CohortFile) -> None:
    """Show the differences between two cohorts, and their reasons."""
    from ctenrich.select.compare import diff_cohorts

    _print_diff(diff_cohorts(first, second))


@cohort_app.command("consort", epilog="Example:  ctenrich cohort consort cohort.parquet --svg flow.svg")
def consort(
    cohort: CohortFile, svg: Annotated[Path | None, typer.Option(help="Also write the diagram as SVG.")] = None
) -> None:
    """Draw a CONSORT flow diagram at patient, study and series level (of a cohort file, or a JSON file of counts)."""
    from ctenrich.select.consort import consort_of, consort_svg, consort_text, load_consort
    from ctenrich.workspace import write_bytes

    found = load_consort(cohort) if cohort.suffix == ".json" else consort_of(cohort)
    typer.echo(consort_text(found))
    if svg is not None:
        write_bytes(svg, consort_svg(found).encode())
    raise typer.Exit(0 if found.balanced else 1)


def _geometry_line(series: int, unknown: int) -> str:
    known = f"{series - unknown} of {series}"
    return f"geometry confirmed by the catalog: {known}; unknown: {unknown}, checked after the fetch"


def _print_diff(found: CohortDiff) -> None:
    for line in found.circumstances:
        typer.echo(line)
    for change in found.changes:
        typer.echo(f"{change.change:8} {change.series_instance_uid}  {change.explanation}")
    verbs = ("is" if found.same == 1 else "are", "differs" if len(found.changes) == 1 else "differ")
    typer.echo(f"{found.same} series {verbs[0]} equal, {len(found.changes)} {verbs[1]}")

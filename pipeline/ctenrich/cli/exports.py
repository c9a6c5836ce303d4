"""``ctenrich export``: write results in the formats of other tools."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ctenrich.cli.options import MaxVoxels, OnlyAccepted, SettingsFile, seg_limits

__all__ = ["register"]


class Format(StrEnum):
    """Format of an export."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    CSV = "csv"
    DCMQI = "dcmqi"
    RTSTRUCT = "rtstruct"
    EXCEL = "excel"
    STATA = "stata"
    CSV_TABLES = "csv-tables"


class Holes(StrEnum):
    """How a hole of a region becomes part of a structure set."""

    KEYHOLE = "keyhole"
    XOR = "xor"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich export my-run nifti --out masks  \n"
        "ctenrich export my-run csv --only accepted  \n"
        "ctenrich export my-run rtstruct --holes xor --out structure-sets  \n"
        "ctenrich export my-run excel --table organs --table outcomes  \n"
        "ctenrich export treatments.parquet stata --out stata  \n"
        "ctenrich export others-objects/ nrrd --source their-ct/ --out masks  \n"
        "ctenrich export my-run dcmqi --out for-dcmqi"
    )(export)


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="The run's folder; any folder or file of SEG and SR objects; for tables also a Parquet file."
        ),
    ],
    fmt: Annotated[
        Format, typer.Argument(metavar="FORMAT", help="nifti, nrrd, csv, dcmqi, rtstruct, excel, stata or csv-tables.")
    ],
    out: Annotated[Path | None, typer.Option(help="Output folder; default: export/ in the run's folder.")] = None,
    source: Annotated[
        Path | None, typer.Option(help="SEGs from elsewhere: folder of their source CT, MR or PET.")
    ] = None,
    settings: SettingsFile = None,
    max_voxels: MaxVoxels = None,
    only: OnlyAccepted = None,
    holes: Annotated[Holes, typer.Option(metavar="keyhole|xor", help="rtstruct: form of holes.")] = Holes.KEYHOLE,
    tg263: Annotated[bool, typer.Option("--tg263/--own-names", help="rtstruct: names of TG-263.")] = True,
    table: Annotated[
        list[str] | None, typer.Option(help="excel, stata, csv-tables: this table only; repeatable.")
    ] = None,
) -> None:
    """Export masks (nifti, nrrd, rtstruct), measurements (csv), both (dcmqi), or tables (excel, stata, csv-tables)."""
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.cli.options import check_source
    from ctenrich.errors import UsageError, count
    from ctenrich.reasons import Reason
    from ctenrich.records import Severity, State

    if fmt in (Format.EXCEL, Format.STATA, Format.CSV_TABLES):
        if only is not None:
            raise UsageError(Reason.BAD_PARAMETER, "--only accepted is for objects: tables are exported whole")
        _export_tables(run, fmt, out, table or [])
        return
    if table:
        raise UsageError(Reason.BAD_PARAMETER, "--table is for excel, stata and csv-tables")
    if fmt is Format.RTSTRUCT:
        _export_structure_sets(run, out, holes, tg263, only=only is not None)
        return
    check_source(run, source)
    if only is not None and not (run / "run.json").is_file():
        raise UsageError(Reason.BAD_PARAMETER, "--only accepted needs a run: other objects have no reviews")
    with progress_bars() as progress:
        if (run / "run.json").is_file():
            target = out or run / "export"
            opened = steps.open_run(run)
            limits = seg_limits(settings, max_voxels, opened.config.settings.seg)
            found = steps.export(
                opened, fmt.value, target, limits=limits, accepted_only=only is not None, progress=progress
            )
        else:
            target, limits = out or Path("export"), seg_limits(settings, max_voxels)
            found = steps.export_objects([run], fmt.value, target, source=source, limits=limits, progress=progress)
    for item in found.objects:
        for issue in item.issues:
            typer.echo(f"{issue.severity.value}: {item.name}: {issue.message} [{issue.rule}]", err=True)
    skipped = Counter(item.message for item in found.objects if item.state is State.SKIPPED)
    if skipped:
        print_table("Skipped", ("objects", "what they are"), [(n, message) for message, n in sorted(skipped.items())])
    failed = [(item.name, item.reason, item.message) for item in found.objects if item.state is State.FAILED]
    if failed:
        print_table("Failed", ("file", "reason", "what is wrong"), failed)
    counts = ", ".join(f"{found.count(state)} {state.value}" for state in (State.DONE, State.SKIPPED, State.FAILED))
    typer.echo(f"{count(len(found.objects), 'object')}: {counts}; {count(len(found.files), 'file')} in {target}")
    raise typer.Exit(1 if failed or any(i.severity is Severity.ERROR for i in found.issues) else 0)


def _export_tables(run: Path, fmt: Format, out: Path | None, names: list[str]) -> None:
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import count
    from ctenrich.publish.table_files import TableFormat, export_tables

    is_file = run.suffix == ".parquet"
    source = run if is_file else steps.open_run(run).workspace
    target = out or (Path("export") if is_file else run / "export")
    with progress_bars() as progress:
        found = export_tables(source, TableFormat(fmt.value), target, names=names, progress=progress)
    rows = sum(found.rows.values())
    tables, files = count(len(found.rows), "table"), count(len(found.files), "file")
    typer.echo(f"{count(rows, 'row')} of {tables}: {files} in {target}")


def _export_structure_sets(run: Path, out: Path | None, holes: Holes, tg263: bool, *, only: bool) -> None:
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.encode.rtstruct import StructureSetOptions
    from ctenrich.errors import UsageError
    from ctenrich.publish.structure_sets import export_structure_sets, names_of_tg263
    from ctenrich.reasons import Reason

    if only:
        raise UsageError(Reason.BAD_PARAMETER, "--only accepted is for the other formats")
    if not (run / "run.json").is_file():
        hint = "SEGs of other makers are exported as nifti or nrrd"
        raise UsageError(Reason.BAD_PARAMETER, "structure sets are made of the masks of a run", hint)
    opened = steps.open_run(run)
    options = StructureSetOptions(holes=holes.value, names=names_of_tg263() if tg263 else None)
    target = out or run / "export"
    settings = opened.config.settings
    with progress_bars() as progress:
        found = export_structure_sets(opened.workspace, target, settings=settings, options=options, progress=progress)
    written = [one for one in found if one.path is not None]
    rows = [(one.series_instance_uid, one.product, one.rois, f"{one.worst_dice:.4f}") for one in written]
    print_table("Structure sets", ("series", "product", "ROIs", "smallest Dice, drawn again"), rows)
    failed = [(one.series_instance_uid, one.product, one.reason, one.message) for one in found if one.path is None]
    if failed:
        print_table("Failed", ("series", "product", "reason", "what is wrong"), failed)
    typer.echo(f"{len(written)} structure sets in {target}")
    raise typer.Exit(1 if failed else 0)

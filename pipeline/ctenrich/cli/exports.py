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
    NNUNET_RAW = "nnunet-raw"
    PROBABILITIES = "probabilities"
    FRACTIONAL = "fractional"
    RTSTRUCT = "rtstruct"
    EXCEL = "excel"
    STATA = "stata"
    CSV_TABLES = "csv-tables"


_TABLES = (Format.EXCEL, Format.STATA, Format.CSV_TABLES)
_PROBABILITIES = (Format.PROBABILITIES, Format.FRACTIONAL)
_OPTIONS = {
    "--only accepted": (Format.NIFTI, Format.NRRD, Format.CSV, Format.DCMQI, *_PROBABILITIES),
    "--table": _TABLES,
    "--with-image": (Format.NIFTI, Format.NRRD),
    "--product": (Format.NNUNET_RAW, *_PROBABILITIES),
    "--dataset": (Format.NNUNET_RAW,),
    "--structure": (Format.NNUNET_RAW, *_PROBABILITIES),
}
"""Option -> formats that it is for."""
_OF_RUNS = {
    "--only accepted": "other objects have no reviews",
    "--with-image": "other objects are exported without their images",
}
"""Option that only a run has -> why."""


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
        "ctenrich export my-run dcmqi --out for-dcmqi  \n"
        "ctenrich export my-run nrrd --with-image --out radiomics  \n"
        "ctenrich export my-run nnunet-raw --product expert --dataset Dataset701_Lungs --structure lung_left "
        "--structure lung_right --out nnUNet_raw  \n"
        "ctenrich export my-run probabilities --structure heart --out maps"
    )(export)


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="The run's folder; any folder or file of SEG and SR objects; for tables also a Parquet file."
        ),
    ],
    fmt: Annotated[
        Format,
        typer.Argument(
            metavar="FORMAT",
            help="nifti, nrrd, csv, dcmqi, rtstruct, nnunet-raw, probabilities, fractional, excel, stata, csv-tables.",
        ),
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
    with_image: Annotated[
        bool, typer.Option("--with-image", help="nifti, nrrd: also the CT, and pyradiomics' table of cases.")
    ] = False,
    product: Annotated[str, typer.Option(help="nnunet-raw, probabilities, fractional: product.")] = "",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="nnunet-raw: name, e.g. Dataset701_Lungs.")] = "",
    structure: Annotated[
        list[str] | None,
        typer.Option(help="nnunet-raw, probabilities, fractional: this segment; default: all."),
    ] = None,
) -> None:
    """Export masks (nifti, nrrd, rtstruct), measurements (csv), both (dcmqi), probabilities, or tables."""
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.cli.options import check_source
    from ctenrich.errors import UsageError, count
    from ctenrich.reasons import Reason
    from ctenrich.records import Severity, State

    if not run.exists():
        raise UsageError(Reason.NOT_FOUND, f"there is no {run.name}", "name a run's folder, or DICOM files")
    is_run = (run / "run.json").is_file()
    stated = {
        "--only accepted": only is not None,
        "--table": bool(table),
        "--with-image": with_image,
        "--product": bool(product),
        "--dataset": bool(dataset),
        "--structure": bool(structure),
    }
    _check_options(fmt, [option for option, given in stated.items() if given], is_run)
    if fmt in _TABLES:
        _export_tables(run, fmt, out, table or [])
        return
    if fmt is Format.NNUNET_RAW:
        _export_raw_dataset(run, out, (product, dataset, tuple(structure or ())), (settings, max_voxels))
        return
    if fmt in _PROBABILITIES:
        _export_probabilities(run, fmt, out, (product, tuple(structure or ()), only is not None))
        return
    if fmt is Format.RTSTRUCT:
        _export_structure_sets(run, out, holes, tg263)
        return
    check_source(run, source)
    with progress_bars() as progress:
        if is_run:
            target = out or run / "export"
            opened = steps.open_run(run)
            limits = seg_limits(settings, max_voxels, opened.config.settings.seg)
            found = steps.export(
                opened, fmt.value, target, limits=limits, accepted_only=only is not None, progress=progress
            )
            images = steps.export_images(opened, found, fmt.value, target) if with_image else ()
        else:
            images = ()
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
    files = len(found.files) + len(images)
    typer.echo(f"{count(len(found.objects), 'object')}: {counts}; {count(files, 'file')} in {target}")
    raise typer.Exit(1 if failed or any(i.severity is Severity.ERROR for i in found.issues) else 0)


def _check_options(fmt: Format, stated: list[str], is_run: bool) -> None:
    """Refuse options of other formats, and those that need a run."""
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    for option in stated:
        formats = _OPTIONS[option]
        if fmt not in formats:
            names = ", ".join(formats)
            raise UsageError(Reason.BAD_PARAMETER, f"{option} is for {names}, not for {fmt}")
        if not is_run and option in _OF_RUNS:
            raise UsageError(Reason.BAD_PARAMETER, f"{option} needs a run: {_OF_RUNS[option]}")


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
    if found.as_csv:
        typer.echo(f"as CSV, because a cell of Excel holds no text of that length: {', '.join(found.as_csv)}")


def _export_raw_dataset(
    run: Path,
    out: Path | None,
    stated: tuple[str, str, tuple[str, ...]],
    given: tuple[Path | None, int | None],
) -> None:
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import UsageError, count
    from ctenrich.publish.nnunet_raw import RawDatasetOptions
    from ctenrich.reasons import Reason

    product, name, structures = stated
    if not product or not name:
        raise UsageError(Reason.BAD_PARAMETER, "nnunet-raw needs --product and --dataset")
    opened = steps.open_run(run)
    limits = seg_limits(*given, opened.config.settings.seg)
    target = out or run / "export"
    options = RawDatasetOptions(product=product, name=name, structures=structures)
    with progress_bars() as progress:
        cases = steps.export_nnunet_raw(opened, target, options, limits=limits, progress=progress)
    left = [(c.series_instance_uid, c.reason, c.message) for c in cases if not c.case]
    if left:
        print_table("Not part of the data set", ("series", "reason", "why"), left)
    typer.echo(f"{count(len(cases) - len(left), 'case')} in {target / name}")
    raise typer.Exit(1 if left else 0)


def _export_probabilities(run: Path, fmt: Format, out: Path | None, stated: tuple[str, tuple[str, ...], bool]) -> None:
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import count
    from ctenrich.maps.probabilities import ProbabilityForm, ProbabilityOptions

    target = out or run / "export"
    options = ProbabilityOptions(product=stated[0], structures=stated[1], accepted_only=stated[2])
    with progress_bars() as progress:
        found = steps.export_probabilities(
            steps.open_run(run), ProbabilityForm(fmt.value), target, options, progress=progress
        )
    failed = [(one.series_instance_uid, one.product, one.reason, one.message) for one in found if one.reason]
    if failed:
        print_table("Failed", ("series", "product", "reason", "what is wrong"), failed)
    written = [one for item in found for one in item.objects]
    for one in written:
        for issue in one.warnings:
            typer.echo(f"dciodvfy: {one.path.name}: {issue.message}", err=True)
    typer.echo(f"{count(len(written), 'object')}, proven, of {count(len(found) - len(failed), 'product')} in {target}")
    raise typer.Exit(1 if failed else 0)


def _export_structure_sets(run: Path, out: Path | None, holes: Holes, tg263: bool) -> None:
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.encode.rtstruct import StructureSetOptions
    from ctenrich.errors import UsageError
    from ctenrich.publish.structure_sets import export_structure_sets, names_of_tg263
    from ctenrich.reasons import Reason

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

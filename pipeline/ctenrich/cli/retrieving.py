"""``ctenrich retrieve``: copies of patients' series from an archive in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from ctenrich.archives.archive import Archive
    from ctenrich.settings import FetchSettings

__all__ = ["register"]


class ModalityChoice(StrEnum):
    """Modalities that can be retrieved."""

    CT = "CT"
    RTSTRUCT = "RTSTRUCT"
    RTPLAN = "RTPLAN"
    RTDOSE = "RTDOSE"
    RTRECORD = "RTRECORD"
    SEG = "SEG"


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions:
    """Which series are retrieved."""

    heading: ClassVar[str] = "Series"

    patient: Annotated[list[str] | None, typer.Option(metavar="ID", help="Patient ID; repeatable.")] = None
    registry: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV of patients, column PatientID.")] = None
    modality: Annotated[
        list[ModalityChoice] | None,
        typer.Option(help="Modality; repeatable. Default: CT and all objects of radiotherapy."),
    ] = None
    from_date: Annotated[str, typer.Option("--from-date", metavar="DATE", help="Earliest study date, YYYY-MM-DD.")] = ""
    to_date: Annotated[str, typer.Option("--to-date", metavar="DATE", help="Latest study date, YYYY-MM-DD.")] = ""
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file (TOML); [fetch] states how archives are reached.")
    ] = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "retrieve",
        epilog="Examples:  ctenrich retrieve dicom://pacs.example:104/PACS rt/ --patient P1 --patient P2  \n"
        "ctenrich retrieve dicomweb+https://pacs.example/dicom-web rt/ --registry ids.csv  \n"
        "ctenrich retrieve xnat+https://xnat.example/PROJECT rt/ --modality CT --modality RTSTRUCT",
    )(retrieve)


def retrieve(
    options: RetrievalOptions,
    archive: Annotated[
        str,
        typer.Argument(
            metavar="ARCHIVE",
            help="dicom://HOST:PORT/AET, dicomweb+https://HOST/ROOT, xnat+https://HOST/PROJECT or tcia:COLLECTION.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder: new, or to be continued.")],
) -> None:
    """Copy CT and radiotherapy objects of patients from an archive into a folder (exit code 1: some are missing)."""
    from ctenrich.archives.archive import ArchiveSearch
    from ctenrich.archives.copies import RADIOTHERAPY, copy_series
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.cli.text import check_paths
    from ctenrich.errors import count
    from ctenrich.settings import load_settings
    from ctenrich.treatments.registry import read_registry

    check_paths(options.registry, options.settings)
    fetch = load_settings(options.settings).fetch
    listed = [row.patient_id for row in read_registry(options.registry)] if options.registry else []
    search = ArchiveSearch(
        patients=tuple(dict.fromkeys([*(options.patient or ()), *listed])),
        first_date=_date(options.from_date),
        last_date=_date(options.to_date),
        modalities=tuple(one.value for one in options.modality) if options.modality else RADIOTHERAPY,
    )
    notes: list[str] = []
    with progress_bars() as progress:
        copied = copy_series(_open(archive, fetch), search, out, fetch, notes=notes, progress=progress)
    for note in notes:
        typer.echo(note, err=True)
    numbers: dict[str, int] = {}
    for one in copied:
        if one.reason is None:
            numbers[one.series.modality] = numbers.get(one.series.modality, 0) + 1
    files = sum(one.files for one in copied)
    kinds = ", ".join(f"{number} {modality}" for modality, number in sorted(numbers.items())) or "none"
    typer.echo(f"{count(files, 'file')} of {count(sum(numbers.values()), 'series')} ({kinds}): {out}")
    absent = [patient for patient in search.patients if patient not in {one.series.patient_id for one in copied}]
    failed = [one for one in copied if one.reason is not None]
    if failed:
        rows = [(one.series.patient_id, one.series.modality, one.series.series_instance_uid, one.reason, one.message)
                for one in failed]  # fmt: skip
        print_table("Not retrieved", ("PatientID", "Modality", "series", "reason", "detail"), rows)
        typer.echo("the same command again goes on with what is missing")
    if absent:
        print_table("The archive has no such series of these patients", ("PatientID",), [(one,) for one in absent])
    raise typer.Exit(1 if failed or absent else 0)


def _date(text: str) -> str:
    from datetime import date

    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    if not text:
        return ""
    try:
        return f"{date.fromisoformat(text):%Y%m%d}"
    except ValueError:
        raise UsageError(Reason.BAD_PARAMETER, f"{text[:20]!r} is not a date", "write 2020-01-31") from None


def _open(address: str, fetch: FetchSettings) -> Archive:
    from ctenrich.archives.catalog import ArchiveCatalog
    from ctenrich.catalog import open_catalog
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    opened = open_catalog(address, fetch=fetch)
    if not isinstance(opened, ArchiveCatalog):
        opened.close()
        raise UsageError(Reason.BAD_PARAMETER, f"{address[:120]} is no archive", "see ctenrich retrieve --help")
    return opened.archive

"""``ctenrich publish``: send tables, results and source files of a run elsewhere."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.completion import complete_run
from ctenrich.cli.options import OnlyAccepted

if TYPE_CHECKING:
    from ctenrich.publish.log import Sent
    from ctenrich.publish.options import PublishOptions
    from ctenrich.runner.run import Run
    from ctenrich.settings import Settings
    from ctenrich.workspace import Workspace

__all__ = ["register"]


class PublishMode(StrEnum):
    """How a BigQuery table that already exists is treated."""

    CREATE = "create"
    APPEND = "append"
    REPLACE = "replace"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich publish my-run bigquery:my-project.results  \n"
        "ctenrich publish my-run gs://my-bucket/results  \n"
        "ctenrich publish my-run http://127.0.0.1:8042/dicom-web  \n"
        "ctenrich publish my-run dicom://pacs.example:104/PACS  \n"
        "ctenrich publish my-run dicom://pacs.example:2762/PACS --what sources,objects --tls-ca ca.pem  \n"
        "ctenrich publish pseudonymised/ dicom://pacs.example:104/PACS  \n"
        "ctenrich publish my-run gs://my-bucket/results --only accepted  \n"
        "ctenrich publish my-run gs://my-bucket/results --verify"
    )(publish)


def publish(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The run's folder, or any folder of DICOM files.", autocompletion=complete_run
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            help="bigquery:PROJECT.DATASET, gs:// or s3://BUCKET/PREFIX, a DICOMweb root, or dicom://HOST:PORT/AET."
        ),
    ],
    mode: Annotated[PublishMode, typer.Option(help="BigQuery: how existing tables are treated.")] = (
        PublishMode.REPLACE
    ),
    location: Annotated[str, typer.Option(help="BigQuery: location of the dataset.")] = "US",
    identified: Annotated[
        bool,
        typer.Option("--identified", help="BigQuery, buckets: also where Patient Identity Removed is not YES."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Send nothing: read the published objects back and compare them.")
    ] = False,
    only: OnlyAccepted = None,
    what: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What of a run is sent: sources (images, structure sets, plans, doses), objects, structure-sets (of "
            "ctenrich export RUN rtstruct); separated by commas. Default: objects.",
        ),
    ] = "",
    calling: Annotated[
        str, typer.Option("--aet", metavar="TITLE", help="DICOM nodes: application entity title of this side.")
    ] = "CTENRICH",
    tls: Annotated[bool, typer.Option("--tls", help="DICOM nodes: TLS, with the authorities of this system.")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(help="TLS: PEM file of the authorities that sign the receiver's certificate.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="TLS: PEM file of this side's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="TLS: PEM file of its private key.")] = None,
) -> None:
    """Send a run's tables, objects or source files elsewhere; what was sent already is not sent again."""
    from ctenrich import steps
    from ctenrich.errors import UsageError
    from ctenrich.publish.options import Content, PublishOptions, TlsFiles, parse_content
    from ctenrich.reasons import Reason
    from ctenrich.settings import Settings

    is_folder = run.is_dir() and not (run / "run.json").is_file()
    opened = None if is_folder else steps.open_run(run)
    bigquery = target.startswith("bigquery:")
    if only is not None and (verify or bigquery):
        text = (
            "--verify compares everything that was written" if verify else "BigQuery gets whole tables, `reviews` too"
        )
        raise UsageError(Reason.BAD_PARAMETER, f"--only accepted is for objects that are sent: {text}")
    if what and (bigquery or opened is None):
        text = "BigQuery gets whole tables" if bigquery else "of a folder all DICOM files are sent"
        raise UsageError(Reason.BAD_PARAMETER, f"--what is for the files of a run: {text}")
    files = TlsFiles(ca=tls_ca, certificate=tls_certificate, key=tls_key)
    options = PublishOptions(
        what=parse_content(what) if what else (Content.OBJECTS,),
        identified=identified,
        accepted_only=only is not None,
        calling=calling,
        tls=files if tls or any((tls_ca, tls_certificate, tls_key)) else None,
    )
    source: Workspace | Path
    if opened is None:
        if only is not None or bigquery:
            raise UsageError(Reason.BAD_PARAMETER, "BigQuery tables and --only accepted need a run", "name its folder")
        settings, source = Settings(), run
    else:
        settings, source = opened.config.settings, opened.workspace
    if verify:
        _verify(source, target, options, settings)
    elif bigquery and opened is not None:
        _publish_tables(opened, target, mode, location, identified=identified)
    else:
        _send(source, target, options, settings)


def _publish_tables(opened: Run, target: str, mode: PublishMode, location: str, *, identified: bool) -> None:
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import count
    from ctenrich.publish.bigquery import BigQueryOptions, Mode, publish_bigquery

    options = BigQueryOptions(mode=Mode(mode.value), location=location, identified=identified)
    with progress_bars() as progress:
        place = target.removeprefix("bigquery:")
        rows = publish_bigquery(opened.workspace, place, options=options, progress=progress)
    typer.echo(f"{count(sum(rows.values()), 'row')} in {count(len(rows), 'table')}")


def _send(source: Workspace | Path, target: str, options: PublishOptions, settings: Settings) -> None:
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import InputError, TransientError, count
    from ctenrich.publish.log import read_log
    from ctenrich.publish.objects import publish_to

    try:
        with progress_bars() as progress:
            sent = publish_to(source, target, options=options, settings=settings, progress=progress)
    except (InputError, TransientError):
        _print_failures([row for row in read_log(source, target) if row.status == "failed"])
        raise
    for row in sent:
        if row.status == "sent" and row.detail:
            typer.echo(f"warning: {row.name}: {row.detail}", err=True)
    modalities = Counter(row.modality or "other" for row in sent)
    listed = ", ".join(f"{number} {modality}" for modality, number in sorted(modalities.items()))
    now = sum(1 for row in sent if row.status == "sent")
    typer.echo(f"{count(len(sent), 'object')} ({listed}), {now} of them sent now")


def _print_failures(failed: list[Sent]) -> None:
    from ctenrich.cli.console import print_table

    groups = Counter((row.reason, row.modality, row.detail) for row in failed)
    rows = [(number, *key) for key, number in sorted(groups.items())]
    if rows:
        print_table("Not sent", ("objects", "reason", "modality", "what is wrong"), rows)


def _verify(source: Workspace | Path, target: str, options: PublishOptions, settings: Settings) -> None:
    """Compare what a target holds with the files; exit code 1 unless it has them all."""
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import count
    from ctenrich.publish.verify import verify_published

    with progress_bars() as progress:
        found = verify_published(source, target, options=options, settings=settings, progress=progress)
    bad = [(one.name, one.status, one.detail) for one in found if not one.good]
    if bad:
        print_table("Not as published", ("file", "status", "what is wrong"), bad)
    counts = Counter(one.status for one in found)
    shown = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    typer.echo(f"{count(len(found), 'object')}: {shown}")
    if counts["committed"]:
        typer.echo("committed: the node has taken responsibility for these objects (storage commitment)")
    if counts["listed"]:
        typer.echo("listed: a query finds these objects (C-FIND); the node has not committed to keep them")
    if counts["committed"] or counts["listed"]:
        typer.echo("their bytes were not compared: a DICOM node is not read back")
    raise typer.Exit(1 if bad else 0)

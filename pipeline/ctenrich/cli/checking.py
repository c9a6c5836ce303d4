"""``ctenrich validate`` and ``verify``: check that objects conform to DICOM, and that files are those recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctenrich.runner.object_check import ObjectReport
    from ctenrich.settings import Settings

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples:  ctenrich validate my-run  \n"
        "ctenrich validate my-run --again --pixelmed --json > findings.jsonl  \n"
        "ctenrich validate others-objects/ --source their-ct/"
    )(validate)
    app.command(epilog="Example:  ctenrich verify my-run")(verify)


def verify(target: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Compute every recorded hash again (slices, volumes, masks, objects, tables); exit code 1 if one differs."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import count

    with progress_bars() as progress:
        found = steps.verify(steps.open_run(target), progress=progress)
    for mismatch in found.mismatches:
        typer.echo(f"{mismatch.path}: {mismatch.problem}")
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{count(found.hashes, 'hash')} compared, {count(len(found.mismatches), 'file')} changed")
    raise typer.Exit(1 if found.mismatches else 0)


def validate(
    target: Annotated[Path, typer.Argument(metavar="RUN|PATH", help="A run's folder, or any SEG and SR files.")],
    again: Annotated[
        bool, typer.Option("--again", help="Run: prove and validate again, even if already done.")
    ] = False,
    source: Annotated[
        Path | None, typer.Option(help="Other files: folder of the source CT; references must resolve there.")
    ] = None,
    pixelmed: Annotated[bool, typer.Option("--pixelmed", help="Also run PixelMed's validator (Java).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: findings, then verdicts.")] = False,
) -> None:
    """Prove and validate objects: dciodvfy, TID 1500, references, our own proof; exit code 1 on errors."""
    from ctenrich.cli.options import check_source
    from ctenrich.settings import Settings

    check_source(target, source)
    if (target / "run.json").is_file():
        code, verdicts = _check_run(target, again, pixelmed)
    else:
        code, verdicts = 0, _check_files(target, source, _with_pixelmed(Settings(), pixelmed))
    (_print_lines if as_json else _print_tables)(verdicts)
    raise typer.Exit(code or (0 if all(v.valid for v in verdicts) else 1))


def _check_run(target: Path, again: bool, pixelmed: bool) -> tuple[int, list[ObjectReport]]:
    """Run the stage where it is not done, then report on all objects; failures of the stage are the exit code."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import InputError
    from ctenrich.reasons import Reason
    from ctenrich.runner.object_check import check_run

    run, code = steps.open_run(target), 0
    with progress_bars() as progress:
        try:
            code = steps.run_command(run, "validate", progress=progress).exit_code
        except InputError as error:
            if error.reason is not Reason.NOT_PREPARED:  # objects of an earlier version are checked all the same
                raise
        settings = _with_pixelmed(run.config.settings, pixelmed)
        return code, list(check_run(run, again=again or pixelmed, settings=settings, progress=progress))


def _check_files(target: Path, source: Path | None, settings: Settings) -> list[ObjectReport]:
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.runner.object_check import check_files, instances_below

    if not target.exists():
        raise UsageError(Reason.NOT_FOUND, f"there is no {target.name}", "name a run's folder, or DICOM files")
    return check_files([target], settings=settings, sources=instances_below(source) if source else None)


def _with_pixelmed(settings: Settings, wanted: bool) -> Settings:
    from dataclasses import replace

    return replace(settings, validate=replace(settings.validate, pixelmed=True)) if wanted else settings


def _print_lines(verdicts: Iterable[ObjectReport]) -> None:
    for verdict in verdicts:
        where = {"file": verdict.file, "sop_instance_uid": verdict.sop_instance_uid}
        for issue in verdict.issues:
            line = {"rule": issue.rule, "severity": issue.severity.value, "message": issue.message}
            _line(where | line | {"checker": issue.checker, "checker_version": issue.checker_version})
    for verdict in verdicts:
        where = {"file": verdict.file, "sop_instance_uid": verdict.sop_instance_uid}
        _line(where | {"valid": verdict.valid, "proven": verdict.proven} | _counts(verdict))


def _line(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content))


def _counts(verdict: ObjectReport) -> dict[str, int]:
    from ctenrich.records import Severity

    return {"errors": verdict.count(Severity.ERROR), "warnings": verdict.count(Severity.WARNING)}


def _print_tables(verdicts: list[ObjectReport]) -> None:
    from collections import Counter

    from ctenrich.cli.console import print_table
    from ctenrich.errors import count
    from ctenrich.records import Severity

    shown = [i for v in verdicts for i in v.issues if i.severity is not Severity.NOTE]
    kinds = Counter((i.severity.value, i.checker, i.rule, i.message[:120]) for i in shown)
    rows = [(severity, number, *what) for (severity, *what), number in sorted(kinds.items())]
    if rows:
        print_table("Findings", ("severity", "objects", "checker", "rule", "message"), rows)
    bad = [(v.file, v.count(Severity.ERROR), v.count(Severity.WARNING), _proven(v)) for v in verdicts if not v.valid]
    if bad:
        print_table("Objects with errors", ("file", "errors", "warnings", "proven"), bad)
    proven = sum(v.proven is True for v in verdicts)
    errors = sum(v.count(Severity.ERROR) for v in verdicts)
    warnings = sum(v.count(Severity.WARNING) for v in verdicts)
    found = f"{count(errors, 'error')}, {count(warnings, 'warning')}"
    typer.echo(f"{count(len(verdicts), 'object')}, {proven} proven; {found}")


def _proven(verdict: ObjectReport) -> str:
    return {True: "yes", False: "no", None: "not ours"}[verdict.proven]

"""The entry point of the command line: registers the commands, turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ctenrich import __version__
from ctenrich.cli import (
    checking,
    cohorts,
    deliveries,
    demo,
    doses,
    evaluation,
    exports,
    flows,
    harmonising,
    listening,
    mappings,
    maps,
    models,
    pseudonyms,
    publishing,
    quality,
    releases,
    repeatability,
    results,
    retrieving,
    review,
    running,
    samples,
    settings_files,
    stages,
    structure_names,
    treatments,
    viewing,
)
from ctenrich.cli.console import keep_libraries_off_console
from ctenrich.cli.help_texts import GroupedCommands, prepare_commands
from ctenrich.errors import CtenrichError, UsageError, is_disk_full
from ctenrich.reasons import Reason

__all__ = ["app", "main"]


class _ErrorReportingGroup(GroupedCommands):
    """Prints an error as one line with a hint, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            _refuse_empty_values([*ctx._protected_args, *ctx.args])
            return super().invoke(ctx)
        except CtenrichError as error:
            if is_disk_full(error):
                self._exit_after_disk_error(ctx, error)
            typer.secho(f"error: {error.reason.value}: {error.message}", fg="red", err=True)
            if error.hint:
                typer.echo(f"hint: {error.hint}", err=True)
            ctx.exit(2 if error.reason is Reason.NOT_FOUND else error.exit_code)
        except (OSError, sqlite3.Error) as error:
            self._exit_after_disk_error(ctx, error)
        except KeyboardInterrupt:
            typer.echo("interrupted; run the same command again to continue", err=True)
            ctx.exit(3)
        except Exception as error:
            if not is_disk_full(error):  # DuckDB, Arrow and torch have errors of their own for it
                raise
            self._exit_after_disk_error(ctx, error)

    def _exit_after_disk_error(self, ctx: Any, error: Exception) -> None:
        """Print an error of the disk; exit with 3 if the disk is full: the same command continues."""
        reason, message, hint = _disk_message(error)
        typer.secho(f"error: {reason.value}: {message}", fg="red", err=True)
        typer.echo(f"hint: {hint}", err=True)
        wrong_name = getattr(error, "errno", None) in _UNUSABLE_NAME
        ctx.exit(3 if reason is Reason.DISK_FULL else 2 if wrong_name else 1)


def _refuse_empty_values(arguments: Sequence[str]) -> None:
    """An empty value is a variable of a script that is not set: it is never taken for the current folder."""
    for before, value in zip(("ctenrich", *arguments), arguments, strict=False):
        if value == "" or (value.startswith("--") and value.endswith("=")):
            where = value.rstrip("=") or (before if before.startswith("-") else f"the argument after {before!r}")
            raise UsageError(Reason.BAD_PARAMETER, f"{where} is empty", "is a variable of your script not set?")


_UNUSABLE_NAME = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_UNUSABLE_PATH = (errno.ENOENT, *_UNUSABLE_NAME)


def _disk_message(error: Exception) -> tuple[Reason, str, str]:
    """Reason, message and hint for an error of the disk; any other error is raised again."""
    again = "then run the same command again: it continues"
    code = getattr(error, "errno", None)
    if is_disk_full(error):
        return Reason.DISK_FULL, "there is no space left on the disk", f"free some space, {again}"
    if code in (errno.EROFS, errno.EACCES, errno.EPERM) or "readonly database" in str(error):
        name = Path(getattr(error, "filename", None) or "").name
        return Reason.IO_ERROR, f"{name or 'a file of the run'} cannot be written", f"make the folder writable, {again}"
    if code in _UNUSABLE_PATH:
        return Reason.IO_ERROR, os.strerror(code).lower(), f"name a folder where files can be written, {again}"
    raise error


app = typer.Typer(
    name="ctenrich",
    cls=_ErrorReportingGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # texts of users and plug-ins are never markup, nor emoji
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    pretty_exceptions_enable=False,
    help="Turn a cohort of CT scans into DICOM SEG and SR objects with proof, and tables to query.\n\n"
    "Research software, not a medical device.",
    epilog="Exit codes: 0 done, 1 something failed (the reason is shown), 2 the request is wrong, "
    "3 interrupted or the disk is full, 4 the budget is spent.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ctenrich {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    _ = version


for group in (
    demo, cohorts, treatments, structure_names, running, stages, checking, results, evaluation, repeatability, quality,
    review, viewing, publishing, exports, harmonising, releases, samples, listening, deliveries, flows, doses,
    pseudonyms, retrieving, models, mappings, maps, settings_files,
):  # fmt: skip
    group.register(app)
prepare_commands(app.registered_commands)
for _commands in app.registered_groups:
    if _commands.typer_instance is not None:
        prepare_commands(_commands.typer_instance.registered_commands)


def main() -> None:
    """Run the command line; nothing but its own lines reaches the console."""
    keep_libraries_off_console()
    atexit.register(gc.freeze)  # at its end Python would look for garbage among all objects, for seconds if busy
    app()


if __name__ == "__main__":
    main()

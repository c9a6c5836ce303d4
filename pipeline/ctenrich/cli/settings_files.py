"""``ctenrich settings``: show the settings of a file or a run, and write a file with every setting explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.completion import complete_run

if TYPE_CHECKING:
    from ctenrich.settings import Settings

__all__ = ["register"]

settings_app = typer.Typer(no_args_is_help=True, help="Settings files: show, init.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(settings_app, name="settings")


@settings_app.command("show", epilog="Examples:  ctenrich settings show  \nctenrich settings show my-run --changed")
def show(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE|RUN",
            help="Settings file or run's folder; default: the defaults.",
            autocompletion=complete_run,
        ),
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Show only what differs from the defaults.")] = False,
) -> None:
    """Print all settings as TOML: those of a file, of a run, or the defaults."""
    from ctenrich.cli.settings_text import toml_text

    text = toml_text(_settings_of(target), changed_only=changed)
    typer.echo(text.rstrip() or "every setting has its default", err=not text)


def _settings_of(target: Path | None) -> Settings:
    from ctenrich.settings import load_settings

    if target is None or not target.is_dir():
        return load_settings(target)
    from ctenrich.runner.run import Run

    return Run.open(target).config.settings


@settings_app.command("init", epilog="Example:  ctenrich settings init settings.toml")
def init(
    file: Annotated[Path, typer.Argument(help="File to write; it must not exist yet.")] = Path("settings.toml"),
) -> None:
    """Write a settings file with every setting explained and commented out, to be edited and given as --settings."""
    from ctenrich.cli.settings_text import toml_template
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.workspace import write_bytes

    if file.exists():
        raise UsageError(Reason.BAD_PARAMETER, f"{file} exists already", "name another file")
    write_bytes(file, toml_template().encode())
    typer.echo(f"{file}: remove the # before a line to change it, then add --settings {file}")

"""``ctenrich models``: the models that are known, and what they ask of their users."""

from __future__ import annotations

import typer

__all__ = ["register"]

models_app = typer.Typer(no_args_is_help=True, help="Models: list, show.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models_app, name="models")

"""``ctenrich models``: the models that are known, and what they ask of their users."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["register"]

models_app = typer.Typer(no_args_is_help=True, help="Models: list, show.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models_app, name="models")


@models_app.command("list", epilog="Example:  ctenrich models list")
def list_models() -> None:
    """The models that have a name, whether they are on this machine, and their licence."""
    from ctenrich.cli.console import print_table
    from ctenrich.infer.weights import models_home, registry

    imported = models_home() / "imported"
    names = {p.name for p in imported.iterdir() if p.is_dir()} if imported.is_dir() else set()
    rows = [
        (e.name, e.kind.value, "yes" if e.package or e.name in names else "no", e.licence, e.title)
        for e in registry().values()
    ]
    rows += [(name, "", "yes", "", "imported") for name in sorted(names - set(registry()))]
    print_table("Models", ("name", "kind", "here", "licence", "what"), rows)
    typer.echo("Any nnU-Net v2 model folder works without a name: --segmenter nnunet:PATH")


@models_app.command("show", epilog="Example:  ctenrich models show Task055_SegTHOR")
def show_model(name: Annotated[str, typer.Argument(help="Name of the model.")]) -> None:
    """Everything that is known of a model: source, licence, labels, configurations, citation."""
    from dataclasses import fields

    from ctenrich.errors import UsageError
    from ctenrich.infer.weights import registry
    from ctenrich.reasons import Reason

    entry = registry().get(name)
    if entry is None:
        known = ", ".join(registry())
        raise UsageError(Reason.NOT_FOUND, f"there is no model {name!r}", f"known: {known}")
    for item in fields(entry):
        value = getattr(entry, item.name)
        if value is False or value in ("", (), {}):
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        if hasattr(value, "items"):
            shown = ", ".join(f"{n} {label}" for label, n in value.items())
        typer.echo(f"{item.name.replace('_', ' '):16} {shown}")
    if entry.accept:
        typer.echo("The licence has to be accepted once before the weights are used; they are never bundled.")
    if entry.demo:
        typer.echo("For demonstration only: trained on generated phantoms.")

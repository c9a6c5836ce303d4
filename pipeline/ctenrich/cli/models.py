"""``ctenrich models``: the models that are known, and what they ask of their users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctenrich.models.library import ModelStatus
    from ctenrich.models.parity import Case

__all__ = ["register"]

models_app = typer.Typer(no_args_is_help=True, help="Models: list, show, pull, import, verify, check.")
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Accept = Annotated[bool, typer.Option("--accept-licence", help="You accept the model's licence; asked once.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models_app, name="models")


@models_app.command("list", epilog="Example:  ctenrich models list")
def list_all() -> None:
    """The models that have a name, whether they are on this machine, and their licence."""
    from ctenrich.cli.console import print_table
    from ctenrich.models.library import list_models

    rows = [(m.name, m.kind, "yes" if m.installed else "no", _licence(m), m.title) for m in list_models()]
    print_table("Models", ("name", "kind", "here", "licence", "what"), rows)
    typer.echo("Any nnU-Net v2 model folder works without a name: --segmenter nnunet:PATH")


def _licence(status: ModelStatus) -> str:
    return status.licence if status.accepted else f"{status.licence} (to be accepted)"


@models_app.command("show", epilog="Example:  ctenrich models show Task055_SegTHOR")
def show(name: Name) -> None:
    """Everything that is known of a model: source, licence, labels, configurations, citation."""
    from ctenrich.models.library import show_model

    for key, value in show_model(name).items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else shown
        typer.echo(f"{key.replace('_', ' '):16} {shown}")


@models_app.command("pull", epilog="Example:  ctenrich models pull Task055_SegTHOR --accept-licence")
def pull(
    name: Name,
    accept_licence: Accept = False,
    url: Annotated[str | None, typer.Option(help="Another place of the same file.")] = None,
) -> None:
    """Download a model (a broken download goes on), check it whole, and keep it under its name."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.models.library import pull_model

    with progress_bars() as progress:
        status = pull_model(name, accept=accept_licence, url=url, progress=progress)
    typer.echo(f"{status.name} is ready ({status.licence})")


@models_app.command("import", epilog="Example:  ctenrich models import Task055_SegTHOR.zip --accept-licence")
def import_(
    source: Annotated[Path, typer.Argument(help="Zip file or folder: nnU-Net v1 or v2, or the BPR model's files.")],
    name: Annotated[str | None, typer.Option(help="Name to keep it under.")] = None,
    labels: Annotated[Path | None, typer.Option(help="JSON of label names and values, for unknown v1 exports.")] = None,
    accept_licence: Accept = False,
) -> None:
    """Take a model from a file or folder; nothing is unpickled freely, nothing is left behind on failure."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.models.library import import_model

    with progress_bars() as progress:
        status = import_model(source, name=name, labels=labels, accept=accept_licence, progress=progress)
    typer.echo(f"{status.name} is ready ({status.licence or 'licence unknown'})")


@models_app.command("verify", epilog="Example:  ctenrich models verify demo-organs")
def verify(name: Name) -> None:
    """Check a model on this machine: hashes, plans, every fold's tensors, labels."""
    from ctenrich.models.library import verify_model

    issues = verify_model(name)
    for issue in issues:
        typer.echo(f"{issue.object}: {issue.message} [{issue.rule}]", err=True)
    typer.echo(f"{name}: {len(issues)} errors")
    raise typer.Exit(1 if issues else 0)


@models_app.command("check", epilog="Example:  ctenrich models check lung-model --reference --on my-run")
def check(
    name: Name,
    reference: Annotated[
        bool, typer.Option("--reference", help="Against nnunetv2's own predictor (the only reference; implied).")
    ] = True,
    on: Annotated[Path | None, typer.Option(help="A run whose volumes are compared; default: two phantoms.")] = None,
    configuration: Annotated[str | None, typer.Option(help="Configuration, where the model has several.")] = None,
    mirror: Annotated[bool, typer.Option(help="With mirroring.")] = True,
    repeat: Annotated[bool, typer.Option(help="Run the reference twice, for its own noise.")] = True,
) -> None:
    """The parity gate: our engine beside nnunetv2's, organ by organ, worst case first."""
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.models.parity import ParityOptions, check_model
    from ctenrich.settings import Settings

    _ = reference
    with progress_bars() as progress:
        report = check_model(
            name,
            _cases(on),
            settings=Settings(),
            options=ParityOptions(configuration=configuration, mirror=mirror, repeat=repeat),
            progress=progress,
        )
    for title, rows in (
        (f"{report.model}, ours beside the reference", report.table()),
        ("The reference beside itself: its own run-to-run noise", report.noise_table()),
    ):
        if rows:
            print_table(title, tuple(rows[0]), [tuple(row.values()) for row in rows])
    for case, share in report.disagreement.items():
        typer.echo(f"{case}: {share:.2e} of its voxels differ")
    typer.echo("passed" if report.passed else "NOT passed")
    raise typer.Exit(0 if report.passed else 1)


def _cases(run_folder: Path | None) -> Iterator[Case]:
    from ctenrich.geometry import as_matrix4
    from ctenrich.models.parity import Case
    from ctenrich.records import Volume
    from ctenrich.series_store import SeriesStore
    from ctenrich.workspace import Workspace, load_array

    if run_folder is None:
        from ctenrich.phantom import PhantomOptions, make_phantom

        for seed in (9101, 9102):
            options = PhantomOptions(seed=seed)
            made = make_phantom(options)
            spacing = (options.slice_spacing, *options.pixel_spacing)
            yield Case(f"phantom {seed}", made.array, as_matrix4(made.affine_lps), spacing)
        return
    store = SeriesStore(Workspace(run_folder))
    for number, uid in enumerate(store.series(), start=1):
        volume = store.find(Volume, uid)
        if volume is not None:
            array = load_array(store.workspace.resolve(uid, volume.array_path))
            yield Case(f"series {number}", array, volume.affine_lps, volume.spacing)

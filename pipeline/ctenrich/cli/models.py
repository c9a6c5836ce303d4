"""``ctenrich models``: list, install and check models."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ctenrich.cli.completion import complete_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctenrich.models.collection import CollectedModel
    from ctenrich.models.library import ModelStatus
    from ctenrich.models.parity import Case
    from ctenrich.nnunet.conventions import Conventions

__all__ = ["register"]

models_app = typer.Typer(no_args_is_help=True, help="Models: list, show, pull, import, verify, check.")
Name = Annotated[str, typer.Argument(help="Name of the model.", autocompletion=complete_model)]
Accept = Annotated[bool, typer.Option("--accept-licence", help="Accept the model's licence; needed once.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models_app, name="models")


@models_app.command("list", epilog="Example:  ctenrich models list")
def list_all() -> None:
    """List the known models, whether each is installed, and its licence."""
    from ctenrich.cli.console import print_table
    from ctenrich.models.library import list_models

    rows = [(m.name, m.kind, "yes" if m.installed else "no", _licence(m), m.title) for m in list_models()]
    print_table("Models", ("name", "kind", "installed", "licence", "title"), rows)
    typer.echo("Any nnU-Net v2 model folder works without a name: --segmenter nnunet:PATH:axes=RAS (or LAS, or LPS)")


def _licence(status: ModelStatus) -> str:
    return status.licence if status.accepted else f"{status.licence} (to be accepted)"


@models_app.command(
    "show",
    epilog="Examples:  ctenrich models show Task055_SegTHOR  \nctenrich models show totalsegmentator:lung_vessels",
)
def show(name: Name) -> None:
    """Show a model's source, licence, axes and step with their sources, configurations, and the code of every class.

    A segmenter that runs a recipe (totalsegmentator:TASK, moose:MODEL, recipe:FILE.toml) is shown with all weights that
    it needs, those that are missing too.
    """
    from ctenrich.cli.console import print_table
    from ctenrich.models.library import show_model
    from ctenrich.models.shown import show_segmenter

    found = dict(show_segmenter(name) if ":" in name else show_model(name))
    classes = found.pop("classes", [])
    for key, value in found.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else shown
        typer.echo(f"{key.replace('_', ' '):16} {shown}")
    if classes:
        print_table("Classes", tuple(classes[0]), [tuple(row.values()) for row in classes])


@models_app.command(
    "pull",
    epilog="Examples:  ctenrich models pull Task055_SegTHOR --accept-licence  \n"
    "ctenrich models pull totalsegmentator:total:fast  \n"
    "ctenrich models pull monai:wholeBody_ct_segmentation",
)
def pull(
    name: Name,
    accept_licence: Accept = False,
    url: Annotated[
        str | None, typer.Option(help="Another URL of the same file; for several files, of the folder that has them.")
    ] = None,
) -> None:
    """Download a model, or all weights of a segmenter, resuming partial downloads; check and install them."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.models.library import pull_model

    if ":" in name:
        name = _model_of_segmenter(name)
    if ":" in name:
        _pull_recipe(name, accept_licence, url)
        return
    with progress_bars() as progress:
        status = pull_model(name, accept=accept_licence, url=url, progress=progress)
    typer.echo(f"{status.name} is ready ({status.licence})")


def _model_of_segmenter(name: str) -> str:
    """Return the model of the registry that a segmenter names (``monai:MODEL``), else the segmenter as it was typed."""
    from ctenrich.inference.products import parse_segmenter
    from ctenrich.inference.registry import registry

    model = parse_segmenter(name).model
    return model if model in registry() else name


def _pull_recipe(name: str, accept: bool, url: str | None) -> None:
    from ctenrich.cli.console import progress_bars
    from ctenrich.inference.products import parse_segmenter
    from ctenrich.models.collection import pull_recipe_weights

    with progress_bars() as progress:
        found = pull_recipe_weights(parse_segmenter(name), accept=accept, url=url, progress=progress)
    _print_collected(found)


def _print_collected(found: tuple[CollectedModel, ...]) -> None:
    """Print what became of each data set; exit with 1 if one was not imported."""
    for model in found:
        typer.echo(f"{model.name}: {model.state} ({model.licence or 'licence unknown'})")
        if model.error is not None:
            typer.echo(f"  {model.error}", err=True)
    failed = [model for model in found if model.error is not None]
    if failed:
        typer.echo(f"{len(failed)} of {len(found)} were not imported", err=True)
        raise typer.Exit(1)


@models_app.command(
    "import",
    epilog="Examples:  ctenrich models import Task055_SegTHOR.zip --accept-licence  \n"
    "ctenrich models import /models/Dataset042_Chest --name chest --axes RAS  \n"
    "ctenrich models import ~/.totalsegmentator/nnunet/results",
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Zip file or folder: nnU-Net v1 or v2, the BPR model's files, a MONAI bundle, a TorchScript network; "
            "lungmask's .pth file; or a folder of several data sets of nnU-Net, all of which are imported."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name to install it under.")] = None,
    labels: Annotated[Path | None, typer.Option(help="JSON of label names and values, for unknown v1 exports.")] = None,
    axes: Annotated[str | None, typer.Option(help="Axes that the model was trained on: RAS, LAS or LPS.")] = None,
    step: Annotated[str | None, typer.Option(help="Distance of its tiles as a share of a tile, e.g. 0.8.")] = None,
    accept_licence: Accept = False,
) -> None:
    """Install a model from a file or folder; no pickle is loaded freely, and a failure leaves nothing behind."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.models.library import import_model, show_model

    stated = _conventions(axes, step)
    if _imports_several(source, one=name is not None or labels is not None or axes is not None or step is not None):
        _import_folder(source, accept_licence)
        return
    with progress_bars() as progress:
        status = import_model(
            source, name=name, labels=labels, conventions=stated, accept=accept_licence, progress=progress
        )
    typer.echo(f"{status.name} is ready ({status.licence or 'licence unknown'})")
    found = show_model(status.name)
    if "axes" in found:
        typer.echo(f"axes: {found['axes']}" + (f" ({found['axes_from']})" if "axes_from" in found else ""))


def _imports_several(source: Path, *, one: bool) -> bool:
    """Whether a folder holds data sets of nnU-Net; `one`: options were given that fit one model only."""
    from ctenrich.errors import UsageError
    from ctenrich.models.collection import find_data_sets
    from ctenrich.reasons import Reason

    found = find_data_sets(source) if source.is_dir() else ()
    if found and one:
        message = f"{source.name} holds {len(found)} data sets, and the options are those of one model"
        raise UsageError(Reason.BAD_PARAMETER, message, f"import one of them, e.g. {found[0]}")
    return bool(found)


def _import_folder(source: Path, accept: bool) -> None:
    from ctenrich.cli.console import progress_bars
    from ctenrich.models.collection import find_data_sets, import_collection

    with progress_bars() as progress:
        found = import_collection(find_data_sets(source), accept=accept, progress=progress)
    _print_collected(found)


def _conventions(axes: str | None, step: str | None) -> Conventions:
    from ctenrich.errors import UsageError
    from ctenrich.nnunet.conventions import Conventions, parse_axes, parse_step
    from ctenrich.reasons import Reason

    try:
        return Conventions(
            axes=parse_axes(axes) if axes is not None else "", step=parse_step(step) if step is not None else None
        )
    except ValueError as error:
        hint = "axes: RAS, LAS or LPS; step: 0.05 to 1"
        raise UsageError(Reason.BAD_PARAMETER, f"--axes or --step: {error}", hint) from None


@models_app.command("verify", epilog="Example:  ctenrich models verify demo-organs")
def verify(name: Name) -> None:
    """Check an installed model: hashes, plans, the tensors of every fold, labels."""
    from ctenrich.errors import count
    from ctenrich.inference.registry import check_model_name
    from ctenrich.models.library import verify_model

    check_model_name(name)
    issues = verify_model(name)
    for issue in issues:
        typer.echo(f"{issue.object}: {issue.message} [{issue.rule}]", err=True)
    typer.echo(f"{name}: {count(len(issues), 'error')}")
    raise typer.Exit(1 if issues else 0)


@models_app.command(
    "check",
    epilog="Examples:  ctenrich models check lung-model --reference --on my-run  \n"
    "ctenrich models check /models/Dataset042_Chest --axes --on my-run  \n"
    "ctenrich models check totalsegmentator:total:fast --reference-python /envs/ts/bin/python --on my-run",
)
def check(
    name: Name,
    reference: Annotated[
        bool, typer.Option("--reference", help="Compare with nnunetv2's own predictor (the only reference; implied).")
    ] = True,
    axes: Annotated[
        bool, typer.Option("--axes", help="Run the model in RAS, LAS and LPS and compare with an expert's contours.")
    ] = False,
    reference_python: Annotated[
        Path | None,
        typer.Option(
            help="Python of an environment with the peer's own package (nnunetv2, TotalSegmentator, MOOSE, lungmask, "
            "MONAI) to compare with; NAME may be a segmenter as --segmenter takes it."
        ),
    ] = None,
    on: Annotated[
        Path | None,
        typer.Option(
            help="Run whose volumes are used; default: two phantoms. With --axes: a run with the product expert, or a "
            "cohort file of series with contours."
        ),
    ] = None,
    configuration: Annotated[str | None, typer.Option(help="Configuration, where the model has several.")] = None,
    mirror: Annotated[bool, typer.Option(help="Use test-time mirroring.")] = True,
    repeat: Annotated[bool, typer.Option(help="Run the reference twice to measure its own noise.")] = True,
) -> None:
    """Compare our inference engine with nnunetv2's, organ by organ, worst case first; or find the model's axes."""
    if axes:
        _check_axes(name, on, configuration)
    if reference_python is not None:
        _check_with_peer(name, reference_python, on)
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
        (f"{report.model}, compared with the reference", report.table()),
        ("The reference compared with itself: its noise from run to run", report.noise_table()),
    ):
        if rows:
            print_table(title, tuple(rows[0]), [tuple(row.values()) for row in rows])
    for case, share in report.disagreement.items():
        typer.echo(f"{case}: {share:.2e} of its voxels differ")
    typer.echo("passed" if report.passed else "NOT passed")
    raise typer.Exit(0 if report.passed else 1)


def _check_axes(name: str, on: Path | None, configuration: str | None) -> NoReturn:
    """Print the Dice of every organ in all three axes, and which fits; without mirroring, which takes longer."""
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.models.axes_check import AxesOptions, check_axes, expert_cases
    from ctenrich.settings import Settings

    with progress_bars() as progress, _expert_run(on) as run:
        options = AxesOptions(configuration=configuration)
        report = check_axes(name, expert_cases(run), settings=Settings(), options=options, progress=progress)
    rows = report.table()
    print_table(f"{report.model}: Dice with the expert", tuple(rows[0]), [tuple(row.values()) for row in rows])
    typer.echo(report.verdict)
    if report.fitting:
        best = report.fitting[0]
        typer.echo(f"to use it: --segmenter nnunet:{name}:axes={best}")
        typer.echo(f"to record it: ctenrich models import {name} --axes {best}")
    raise typer.Exit(0 if report.fitting else 1)


def _check_with_peer(name: str, python: Path, on: Path | None) -> NoReturn:
    """Print one row per class: our label maps against those of the peer's own package."""
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import UsageError
    from ctenrich.inference.kinds import segmenter_kinds
    from ctenrich.inference.products import parse_segmenter
    from ctenrich.models.peer import check_with_peer
    from ctenrich.reasons import Reason
    from ctenrich.runner.run import Run
    from ctenrich.settings import Settings

    if on is None:
        raise UsageError(Reason.BAD_PARAMETER, "--reference-python needs CTs", "add --on RUN")
    spec = parse_segmenter(name if name.partition(":")[0] in segmenter_kinds() else f"nnunet:{name}")
    root = Run.open(on).root
    with progress_bars() as progress:
        report = check_with_peer(spec, python, root, settings=Settings(), progress=progress)
    rows = report.table()
    print_table(f"{report.product}, compared with {report.package}", tuple(rows[0]), [tuple(r.values()) for r in rows])
    for series, count in report.different.items():
        typer.echo(f"{series}: {count} voxels differ")
    typer.echo(f"ctenrich {report.seconds[0]:.1f} s, {report.package} {report.seconds[1]:.1f} s")
    typer.echo("passed" if report.passed else "NOT passed")
    raise typer.Exit(0 if report.passed else 1)


@contextlib.contextmanager
def _expert_run(on: Path | None) -> Iterator[Path]:
    """The run's folder; for a cohort file a temporary run that draws the expert's contours."""
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    if on is None:
        hint = "add --on RUN, a run with --segmenter expert, or --on COHORT.parquet"
        raise UsageError(Reason.BAD_PARAMETER, "--axes compares with an expert's contours", hint)
    if not on.is_file():
        from ctenrich.runner.run import Run

        yield Run.open(on).root
        return
    from ctenrich import steps

    with tempfile.TemporaryDirectory() as folder:
        run = steps.start(on, Path(folder) / "run", segmenters=["expert"])
        steps.run_all(run)
        yield run.root


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

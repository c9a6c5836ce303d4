"""``ctenrich harmonise``: masks and measurements of other programs become SEG and SRs with proof."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ctenrich.cli.options import SettingsFile

if TYPE_CHECKING:
    from ctenrich.harmonise.plan import HarmoniseOptions
    from ctenrich.records import Outcome

__all__ = ["register"]


class MadeBy(StrEnum):
    """How masks were made (Segment Algorithm Type)."""

    AUTOMATIC = "automatic"
    SEMIAUTOMATIC = "semiautomatic"
    MANUAL = "manual"


class Resampling(StrEnum):
    """How masks on another grid are brought to that of the CT."""

    NEAREST = "nearest"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich harmonise their-masks --source ct --as totalsegmentator --out my-run  \n"
        "ctenrich harmonise labels.nii.gz --source ct --labels map.csv --made-by manual --out my-run  \n"
        "ctenrich harmonise their-seg.dcm --source ct --measurements features.csv --out my-run  \n"
        "ctenrich harmonise masks --source ct --meta meta.json --out my-run"
    )(harmonise)


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What the labels of the masks denote; SEGs and 3D Slicer's files name them, other files do not."""

    heading: ClassVar[str] = "Labels"

    maker: Annotated[
        str,
        typer.Option("--as", metavar="MAKER[:TASK]", help="totalsegmentator, moose or lungmask: by its label table."),
    ] = ""
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV with the columns label and name; an empty name leaves the label out."),
    ] = None
    meta: Annotated[Path | None, typer.Option(metavar="FILE", help="Description of the segments in dcmqi's JSON.")] = (
        None
    )
    mappings: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder with a segments.csv of your own, used beside the package's mappings."
        ),
    ] = None
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Accept a part of the masks that belong together.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class OriginOptions:
    """Who made the masks, where the files do not state it."""

    heading: ClassVar[str] = "Origin"

    algorithm: Annotated[str, typer.Option(metavar="NAME", help="Program that made the masks.")] = ""
    algorithm_version: Annotated[str, typer.Option(metavar="VERSION", help="Its version.")] = ""
    made_by: Annotated[MadeBy | None, typer.Option("--made-by", help="How the masks were made.")] = None
    measurements: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Measurements of the same masks: TotalSegmentator's statistics, a table of pyradiomics or dcmqi's "
            "TID 1500 JSON; repeatable.",
        ),
    ] = None
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the product; default: of the task or folder.")] = ""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What is accepted although it does not fit."""

    heading: ClassVar[str] = "Fit"

    resample: Annotated[
        Resampling | None, typer.Option(help="Bring masks on another grid to that of the CT; a warning is recorded.")
    ] = None
    accept_position: Annotated[
        bool,
        typer.Option("--accept-position", help="Accept structures on the wrong side or outside their tissue."),
    ] = False


def harmonise(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Masks: a folder, or one file.")],
    source: Annotated[Path, typer.Option(metavar="FOLDER", help="The CT that the masks were made from (DICOM).")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The run's folder; an existing run gets the product.")],
    labels: LabelOptions,
    origin: OriginOptions,
    fit: FitOptions,
    series: Annotated[str, typer.Option(metavar="UID", help="Series of the source, where it holds several.")] = "",
    settings: SettingsFile = None,
) -> None:
    """Make masks and measurements of other programs a run: SEG and SRs with proof, tables and report."""
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.cli.text import check_paths
    from ctenrich.settings import load_settings

    measured = tuple(origin.measurements or ())
    check_paths(folder, source, labels.labels, labels.meta, labels.mappings, *measured)
    options = _options(labels, origin, fit, measured)
    request = steps.HarmoniseSource(folder=folder, source=source, series=series, mappings=labels.mappings)
    with progress_bars() as progress:
        run, summary = steps.harmonise(request, out, options, settings=load_settings(settings), progress=progress)
    rows = [_outcome_row(outcome) for outcome in steps.outcomes(run)]
    print_table("Outcomes", ("product", "state", "reason", "message"), rows)
    if summary.exit_code != 3:
        typer.echo(f"Report: {run.workspace.report / 'index.html'}")
        typer.echo(f"Next: ctenrich view {shlex.quote(str(run.root))}")
    raise typer.Exit(summary.exit_code)


def _options(
    labels: LabelOptions, origin: OriginOptions, fit: FitOptions, measured: tuple[Path, ...]
) -> HarmoniseOptions:
    from ctenrich.harmonise.plan import HarmoniseOptions

    return HarmoniseOptions(
        maker=labels.maker,
        labels=labels.labels,
        meta=labels.meta,
        incomplete=labels.incomplete,
        measurements=measured,
        name=origin.name,
        algorithm_type=origin.made_by.value if origin.made_by else "",
        algorithm_name=origin.algorithm,
        algorithm_version=origin.algorithm_version,
        resample=fit.resample is not None,
        accept_position=fit.accept_position,
    )


def _outcome_row(outcome: Outcome) -> tuple[str, str, str, str]:
    reason = outcome.reason.value if outcome.reason else ""
    return outcome.product or "series", outcome.state.value, reason, outcome.message

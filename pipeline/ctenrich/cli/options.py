"""Options that several commands share, alone and in records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ctenrich.cli.completion import complete_bodypart, complete_run, complete_segmenter

if TYPE_CHECKING:
    from ctenrich.settings import SegSettings, Settings

__all__ = [
    "CohortFile",
    "ComputeOptions",
    "Csv",
    "LimitOptions",
    "MaxVoxels",
    "ModelOptions",
    "OnlyAccepted",
    "Out",
    "ProductOptions",
    "RunFolder",
    "SettingsFile",
    "check_source",
    "seg_limits",
]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", autocompletion=complete_run)]
CohortFile = Annotated[Path, typer.Argument(metavar="COHORT", help="Cohort file that select wrote.")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="The run's folder; an existing run is resumed.")]
Csv = Annotated[bool, typer.Option("--csv", help="Write CSV to stdout instead of a table.")]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="TOML file with settings; `ctenrich settings init` writes one."),
]
MaxVoxels = Annotated[
    int | None, typer.Option(min=1, help="Voxels of the largest grid that a SEG may ask for; default: seg.max_voxels.")
]


class Chosen(StrEnum):
    """Which products of a run are exported or published."""

    ACCEPTED = "accepted"


OnlyAccepted = Annotated[
    Chosen | None, typer.Option("--only", help="Only products that reviewers have accepted (`ctenrich review`).")
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which models make the products of a run."""

    heading: ClassVar[str] = "Products"

    segmenter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[ALIAS=]SPEC",
            help="expert (the RTSTRUCT of a series), nnunet:MODEL, totalsegmentator:TASK, moose:MODEL, lungmask:MODEL, "
            "monai:FOLDER, torchscript:FOLDER or recipe:FILE.toml; options follow after colons, e.g. "
            "nnunet:MODEL:3d_fullres:folds=0 or totalsegmentator:total:fast. ALIAS is a short name for the product. "
            "Repeatable.",
            autocompletion=complete_segmenter,
        ),
    ] = None
    bodypart: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Body part regression model: a name, a folder, or none.",
            autocompletion=complete_bodypart,
        ),
    ] = "none"

    @property
    def segmenters(self) -> list[str]:
        """The specifications, none if none was given."""
        return self.segmenter or []


@dataclass(frozen=True, kw_only=True)
class ProductOptions(ModelOptions):
    """Which models make the products of a run, and how they name segments."""

    roi: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX",
            help="expert: take ROIs without a mapping along whose whole name matches this regular expression; "
            "repeatable.",
        ),
    ] = None
    mappings: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder with a segments.csv of your own, used beside the package's mappings."
        ),
    ] = None
    allow_demo_models: Annotated[
        bool,
        typer.Option("--allow-demo-models", help="Run demonstration models on any study, not only on generated ones."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Settings of a run, and the devices and processes that it uses; none of the latter changes a result."""

    heading: ClassVar[str] = "Settings and devices"

    settings: SettingsFile = None
    device: Annotated[
        str | None,
        typer.Option(metavar="auto|cpu|cuda:N", help="Device of the networks.  [default: segment.device, auto]"),
    ] = None
    devices: Annotated[
        str,
        typer.Option(metavar="DEVICE,...", help="Several devices, one inference process each, e.g. cuda:0,cuda:1."),
    ] = ""
    workers: Annotated[
        str,
        typer.Option(
            metavar="N[,M]",
            help="N processes that fetch, sort and convert, and M (default: N) that measure, encode and validate.",
        ),
    ] = ""

    def load(self) -> Settings:
        """Return the settings of the file with what the options change.

        Raises
        ------
        UsageError
            BAD_SETTINGS of the file; BAD_PARAMETER for a device or a number of workers that cannot be.
        """
        from ctenrich.inference.device import check_device_name
        from ctenrich.settings import load_settings

        found = load_settings(self.settings)
        if self.device is not None:
            found = replace(found, segment=replace(found.segment, device=check_device_name(self.device)))
        if self.devices:
            names = tuple(check_device_name(name.strip()) for name in self.devices.split(","))
            found = replace(
                found, run=replace(found.run, devices=names), segment=replace(found.segment, device=names[0])
            )
        if self.workers:
            inputs, outputs = _numbers(self.workers)
            found = replace(found, run=replace(found.run, input_workers=inputs, output_workers=outputs))
        return found


def _numbers(text: str) -> tuple[int, int]:
    """Read ``N`` or ``N,M``."""
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(Reason.BAD_PARAMETER, f"--workers {text!r} is not a number of processes", "e.g. 2 or 2,4")
    return int(parts[0]), int(parts[-1])


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """When a run stops to start series."""

    heading: ClassVar[str] = "Limits"

    limit: Annotated[int | None, typer.Option(min=1, help="Run only the first N series of the cohort.")] = None
    max_hours: Annotated[
        float | None, typer.Option(min=0, metavar="HOURS", help="Start no series after this time.")
    ] = None
    max_cost: Annotated[float | None, typer.Option(min=0, metavar="PRICE", help="Start no series after this cost.")] = (
        None
    )
    price_per_hour: Annotated[
        float, typer.Option(min=0, metavar="PRICE", help="Price of this machine, for --max-cost.")
    ] = 0.0


def check_source(target: Path, source: Path | None) -> None:
    """Check the folder of the images that objects refer to.

    Parameters
    ----------
    target : Path
        A run's folder, or objects of any maker.
    source : Path or None
        Value of ``--source``.

    Raises
    ------
    UsageError
        NOT_FOUND if there is no such folder, BAD_PARAMETER for a run, which has its images.
    """
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    if source is None:
        return
    if (target / "run.json").is_file():
        message = f"--source is for objects from elsewhere, and {target} is a run, which has its images"
        raise UsageError(Reason.BAD_PARAMETER, message, "leave it out")
    if not source.exists():
        raise UsageError(Reason.NOT_FOUND, f"there is no folder {source}", "give the folder of the images")


def seg_limits(settings: Path | None, max_voxels: int | None, run: SegSettings | None = None) -> SegSettings:
    """Return the limits of SEGs that are read: of the option, else of the settings file, else of the run.

    Parameters
    ----------
    settings : Path or None
        Settings file that was named.
    max_voxels : int or None
        Value of ``--max-voxels``.
    run : SegSettings, optional
        Settings of the run.

    Returns
    -------
    SegSettings
    """
    from ctenrich.settings import load_settings

    limits = load_settings(settings).seg if settings is not None or run is None else run
    return replace(limits, max_voxels=max_voxels) if max_voxels is not None else limits

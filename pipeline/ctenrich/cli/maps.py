"""``ctenrich maps``: values per voxel of other programs become Parametric Maps and FRACTIONAL segmentations."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctenrich.maps.write import WrittenMap

__all__ = ["register"]

maps_app = typer.Typer(
    no_args_is_help=True, help="Values per voxel as DICOM: Parametric Maps and FRACTIONAL segmentations, with proof."
)
Source = Annotated[
    Path, typer.Option(metavar="FOLDER", help="The CT, MR or PET series that the values were made from (DICOM).")
]
Series = Annotated[str, typer.Option(metavar="UID", help="Series of the source, where it holds several.")]
Object = Annotated[Path, typer.Option(metavar="OBJECT", help="The object to write; NAME.proof.json is its proof.")]


class Stored(StrEnum):
    """Type of the pixels of a map."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


class FractionKind(StrEnum):
    """What fractions are (Segmentation Fractional Type)."""

    PROBABILITY = "probability"
    OCCUPANCY = "occupancy"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    maps_app.command(
        epilog="Examples:  ctenrich maps parametric adc.nii --source mr --quantity adc --unit mm2/s --out adc.dcm  \n"
        "ctenrich maps parametric ki.nrrd --source pet --quantity 126312,DCM,Ktrans --unit /min --out ki.dcm  \n"
        "ctenrich maps parametric p.nii.gz --source ct --quantity probability --unit 1 --padding -1 --out p.dcm"
    )(parametric)
    maps_app.command(
        epilog="Examples:  ctenrich maps fractional liver=liver.nii.gz --source ct --algorithm Net --out liver.dcm  \n"
        "ctenrich maps fractional lung_left=left.nrrd lung_right=right.nrrd --source ct --kind occupancy "
        "--algorithm Net --out lungs.dcm"
    )(fractional)
    app.add_typer(maps_app, name="maps")


def parametric(
    file: Annotated[Path, typer.Argument(metavar="MAP", help="NIfTI, NRRD or MetaImage on the grid of the source.")],
    source: Source,
    out: Object,
    quantity: Annotated[
        str, typer.Option(metavar="NAME|CODE", help="A name of mappings/maps.csv, or VALUE,SCHEME,MEANING.")
    ],
    unit: Annotated[str, typer.Option(metavar="UCUM", help="Unit of the values in the file, e.g. mm2/s, % or 1.")],
    series: Series = "",
    stored: Annotated[
        Stored, typer.Option(metavar="auto|float32|float64", help="auto: 16-bit integers stay integers.")
    ] = Stored.AUTO,
    padding: Annotated[
        float | None, typer.Option(metavar="VALUE", help="Stored value that denotes no value; NaN is stored as it.")
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="Series Description; default: the quantity.")] = "",
    algorithm: Annotated[str, typer.Option(metavar="NAME", help="Program that made the values.")] = "",
    region: Annotated[str, typer.Option(metavar="NAME", help="Structure that the map is of, by segments.csv.")] = "",
) -> None:
    """Write a volume of numbers as a Parametric Map, read it again, compare, and validate it."""
    from ctenrich.cli.text import check_paths
    from ctenrich.codes.mappings import find_segment
    from ctenrich.errors import UsageError
    from ctenrich.maps.parametric_map import MapDescription
    from ctenrich.maps.quantity import find_quantity
    from ctenrich.maps.source import open_source
    from ctenrich.maps.write import MapFile, write_parametric_map
    from ctenrich.reasons import Reason

    check_paths(file, source)
    structure = find_segment(region) if region else None
    if region and structure is None:
        hint = "names are those of: ctenrich codes list"
        raise UsageError(Reason.BAD_PARAMETER, f"mappings/segments.csv does not know {region!r}", hint)
    found = find_quantity(quantity, unit)
    text = description or found.quantity.meaning
    written = write_parametric_map(
        MapFile(path=file, stored=stored.value, padding=padding),
        open_source(source, series),
        MapDescription(quantity=found, series_description=text, made_by=algorithm, region=structure),
        out,
    )
    _print(written)


def fractional(
    files: Annotated[
        list[str], typer.Argument(metavar="NAME=FILE...", help="Structure of segments.csv, and its values from 0 to 1.")
    ],
    source: Source,
    out: Object,
    algorithm: Annotated[str, typer.Option(metavar="NAME", help="Program that made the values.")],
    series: Series = "",
    kind: Annotated[
        FractionKind, typer.Option(metavar="probability|occupancy", help="What the fractions are.")
    ] = FractionKind.PROBABILITY,
) -> None:
    """Write probabilities or occupancies of structures as a FRACTIONAL segmentation, with proof."""
    from ctenrich.cli.text import check_paths
    from ctenrich.errors import UsageError
    from ctenrich.maps.fractional import FractionsDescription
    from ctenrich.maps.source import open_source
    from ctenrich.maps.write import FractionFile, write_fractional
    from ctenrich.reasons import Reason

    named = []
    for text in files:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UsageError(Reason.BAD_PARAMETER, f"{text!r} is not NAME=FILE", "e.g. liver=liver.nii.gz")
        named.append(FractionFile(path=Path(path), name=name))
    if len({one.name for one in named}) < len(named):
        raise UsageError(Reason.BAD_PARAMETER, "a structure is named twice")
    check_paths(source, *(one.path for one in named))
    described = FractionsDescription(
        kind="OCCUPANCY" if kind is FractionKind.OCCUPANCY else "PROBABILITY",
        algorithm_type="AUTOMATIC",
        algorithm_name=algorithm,
    )
    _print(write_fractional(named, open_source(source, series), described, out))


def _print(written: WrittenMap) -> None:
    from ctenrich.cli.console import print_table

    print_table("Proof", ("check", "result"), [(check.name, check.detail) for check in written.proof.checks])
    for issue in written.warnings:
        typer.echo(f"dciodvfy: {issue.message}", err=True)
    typer.echo(f"Written and proven: {written.path}")

"""``ctenrich names``: standard names for the ROIs of structure sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctenrich.structure_names.run_masks import RoiEvidence

__all__ = ["register"]

names_app = typer.Typer(no_args_is_help=True, help="Standard names of ROIs (TG-263): propose, check, apply.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(names_app, name="names")


@names_app.command(
    "propose",
    epilog="Examples:  ctenrich names propose treatments.parquet --out names.csv  \n"
    "ctenrich names propose treatments.parquet --out names.csv --masks my-run",
)
def propose(
    treatments: Annotated[Path, typer.Argument(metavar="TREATMENTS", help="Treatments file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Table of names (CSV); what was accepted is kept.")] = Path(
        "names.csv"
    ),
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run with masks of expert, compared with its other products or with lungs found in the CT.",
        ),
    ] = None,
) -> None:
    """Propose standard names by spelling, and by geometry where a run has masks; a person fills the column accept."""
    from ctenrich.cli.text import check_paths
    from ctenrich.structure_names.run_masks import evidence_of_run
    from ctenrich.structure_names.table import name_rows, read_names, write_names
    from ctenrich.treatments.files import read_treatments

    check_paths(masks)
    found = read_treatments(treatments)
    evidence = list(evidence_of_run(masks)) if masks is not None else []
    rows = name_rows(found, evidence)
    write_names(rows, out, keep=read_names(out) if out.is_file() else ())
    without = sum(not row.proposal_1 for row in rows)
    typer.echo(f"{len(rows)} names, {len(rows) - without} with a proposal: {out}")
    if masks is not None:
        typer.echo(f"{len(evidence)} ROIs compared with the organs of the run's other products")
        _print_swapped(evidence)


def _print_swapped(evidence: Sequence[RoiEvidence]) -> None:
    """One line per ROI whose name and place contradict each other."""
    from ctenrich.structure_names.propose import propose_name

    for one in evidence:
        for warning in propose_name(one.name, one.evidence).warnings:
            typer.echo(f"{one.series_instance_uid}: {one.name!r}: {warning}")


@names_app.command("check", epilog="Example:  ctenrich names check names.csv --treatments treatments.parquet")
def check(
    names: Annotated[Path, typer.Argument(metavar="NAMES", help="Table of names.")],
    treatments: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Treatments, to find ROIs that would share a name.")
    ] = None,
) -> None:
    """Check what was accepted: names of TG-263, sides, targets, ROIs that would share a name (exit code 1: errors)."""
    from ctenrich.structure_names.table import check_names, read_names
    from ctenrich.treatments.files import read_treatments

    rows = read_names(names)
    found = check_names(rows, read_treatments(treatments) if treatments is not None else ())
    for one in found:
        typer.echo(f"{one.severity}: {one.name!r} -> {one.accepted!r}: {one.message}")
    errors = sum(one.severity == "error" for one in found)
    accepted = sum(bool(row.accepted) for row in rows)
    refused = sum(row.accept == "-" for row in rows)
    open_rows = len(rows) - accepted - refused
    typer.echo(f"{accepted} accepted, {refused} refused, {open_rows} not decided; {errors} errors")
    raise typer.Exit(1 if errors else 0)


@names_app.command(
    "apply",
    epilog="Example:  ctenrich names apply names.csv --out rt-mappings",
)
def apply(
    names: Annotated[Path, typer.Argument(metavar="NAMES", help="Table of names.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Mapping folder for run --mappings.")] = Path("rt-mappings"),
) -> None:
    """Write the accepted names as a mapping folder; files and the original names stay as they are."""
    from ctenrich.structure_names.table import read_names, write_mapping

    number = write_mapping(read_names(names), out)
    typer.echo(f"{number} names: {out / 'segments.csv'}; use it with: ctenrich run ... --mappings {out}")

"""``ctenrich export``: write results in the formats of other tools."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ctenrich.cli.options import MaxVoxels, OnlyAccepted, SettingsFile, seg_limits

__all__ = ["register"]


class Format(StrEnum):
    """Format of an export."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich export my-run nifti --out masks  \n"
        "ctenrich export my-run csv --only accepted  \n"
        "ctenrich export others-objects/ nrrd --source their-ct/ --out masks"
    )(export)


def export(
    run: Annotated[Path, typer.Argument(help="The run's folder, or any folder or file of SEG and SR objects.")],
    fmt: Annotated[Format, typer.Argument(metavar="nifti|nrrd|csv", help="Format.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; default: export/ in the run's folder.")] = None,
    source: Annotated[
        Path | None, typer.Option(help="SEGs from elsewhere: folder of their source CT, MR or PET.")
    ] = None,
    settings: SettingsFile = None,
    max_voxels: MaxVoxels = None,
    only: OnlyAccepted = None,
) -> None:
    """Export masks on the full grid of the CT (nifti, nrrd) or all measurements (csv), read from the DICOM objects."""
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.cli.options import check_source
    from ctenrich.errors import UsageError, count
    from ctenrich.reasons import Reason
    from ctenrich.records import Severity, State

    check_source(run, source)
    if only is not None and not (run / "run.json").is_file():
        raise UsageError(Reason.BAD_PARAMETER, "--only accepted needs a run: other objects have no reviews")
    with progress_bars() as progress:
        if (run / "run.json").is_file():
            target = out or run / "export"
            opened = steps.open_run(run)
            limits = seg_limits(settings, max_voxels, opened.config.settings.seg)
            found = steps.export(
                opened, fmt.value, target, limits=limits, accepted_only=only is not None, progress=progress
            )
        else:
            target, limits = out or Path("export"), seg_limits(settings, max_voxels)
            found = steps.export_objects([run], fmt.value, target, source=source, limits=limits, progress=progress)
    for item in found.objects:
        for issue in item.issues:
            typer.echo(f"{issue.severity.value}: {item.name}: {issue.message} [{issue.rule}]", err=True)
    skipped = Counter(item.message for item in found.objects if item.state is State.SKIPPED)
    if skipped:
        print_table("Skipped", ("objects", "what they are"), [(n, message) for message, n in sorted(skipped.items())])
    failed = [(item.name, item.reason, item.message) for item in found.objects if item.state is State.FAILED]
    if failed:
        print_table("Failed", ("file", "reason", "what is wrong"), failed)
    counts = ", ".join(f"{found.count(state)} {state.value}" for state in (State.DONE, State.SKIPPED, State.FAILED))
    typer.echo(f"{count(len(found.objects), 'object')}: {counts}; {count(len(found.files), 'file')} in {target}")
    raise typer.Exit(1 if failed or any(i.severity is Severity.ERROR for i in found.issues) else 0)

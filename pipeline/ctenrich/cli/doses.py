"""``ctenrich dose``: dose metrics of structures, from files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctenrich.dose.files import FileDoses

__all__ = ["register"]

dose_app = typer.Typer(
    no_args_is_help=True, help="Doses of radiotherapy: metrics of structures with their uncertainties. Research only."
)


class DoseFormat(StrEnum):
    """Format of the metrics."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class Sampling(StrEnum):
    """Sampling of the structures."""

    FINE = "fine"
    VOXELS = "voxels"


_Path = Annotated[Path, typer.Option(help="RT Structure Set.")]
_SHOWN = ("Volume[cc]", "Mean[Gy]", "Max[Gy]", "D95%[Gy]", "D2%[Gy]", "D2cc[Gy]", "V20Gy[%]")
"""Metrics that the table shows where none were asked for; the other formats have all of them."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(dose_app, name="dose")


@dose_app.command(
    "dvh",
    epilog="Examples:  ctenrich dose dvh --structures rs.dcm --dose rd.dcm  \n"
    "ctenrich dose dvh --structures rs.dcm --dose rd.dcm --ct ct/ --roi 'Lung*' --metric mean --metric 'V20Gy[%]'  \n"
    "ctenrich dose dvh --structures rs.dcm --dose rd.dcm --format parquet --out metrics.parquet --curves dvh.parquet",
)
def dvh(
    structures: _Path,
    dose: Annotated[list[Path], typer.Option(help="RT Dose; repeatable for the files of single planes of one dose.")],
    ct: Annotated[
        Path | None, typer.Option(help="Folder of the CT: sample its voxels; default: the contours' own planes.")
    ] = None,
    fmt: Annotated[DoseFormat, typer.Option("--format", help="Format of the metrics.")] = DoseFormat.TABLE,
    out: Annotated[Path | None, typer.Option(help="File of the metrics; default: stdout.")] = None,
    curves: Annotated[Path | None, typer.Option(help="Also write the dose-volume curves to this Parquet file.")] = None,
    roi: Annotated[
        list[str] | None, typer.Option(help="Name of an ROI, with * and ?; repeatable; default: all.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Metric: mean, max, D95%, D2cc, V20Gy[%], V20Gy[cc] ...; repeatable.")
    ] = None,
    sampling: Annotated[
        Sampling, typer.Option(help="fine: at most 1 mm and at least 10,000 points; voxels: centres of voxels.")
    ] = Sampling.FINE,
    bounds: Annotated[
        bool, typer.Option("--bounds/--no-bounds", help="Bounds, and the second way of calculation.")
    ] = True,
) -> None:
    """Dose metrics of every structure, each with bounds and a second, independent value."""
    from dataclasses import replace

    from ctenrich.cli.console import progress_bars
    from ctenrich.cli.text import printable
    from ctenrich.dose.files import DoseFiles, doses_of_files
    from ctenrich.dose.metrics import parse_metric
    from ctenrich.dose.structures import VOXEL_CENTRES, DoseOptions
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    if fmt is DoseFormat.PARQUET and out is None:
        raise UsageError(Reason.BAD_PARAMETER, "Parquet is not written to the terminal", "name a file with --out")
    options = DoseOptions(rois=tuple(roi or ()), bounds=bounds, second=bounds)
    if metric:
        options = replace(options, metrics=tuple(parse_metric(name) for name in metric))
    if sampling is Sampling.VOXELS:
        options = replace(options, rule=VOXEL_CENTRES)
    files = DoseFiles(structures=structures, doses=tuple(dose), images=ct)
    with progress_bars() as progress:
        found = doses_of_files(files, options, progress=progress)
    for issue in (*found.issues, *(issue for one in found.structures for issue in one.issues)):
        typer.echo(printable(f"{issue.severity.value}: {issue.object}: {issue.message}"), err=True)
    _write_metrics(found, fmt, out, tuple(m.name for m in options.metrics) if metric else _SHOWN)
    if curves is not None:
        import pyarrow.parquet as pq

        from ctenrich.dose.table import CURVE_COLUMNS, arrow_table, curve_rows

        pq.write_table(arrow_table(curve_rows(found.structures, found.source), CURVE_COLUMNS), curves)


def _write_metrics(found: FileDoses, fmt: DoseFormat, out: Path | None, shown: tuple[str, ...]) -> None:
    import json

    from ctenrich.cli.console import csv_text
    from ctenrich.dose.table import METRIC_COLUMNS, arrow_table, metric_rows

    rows = list(metric_rows(found.structures, found.source))
    if fmt is DoseFormat.PARQUET:
        import pyarrow.parquet as pq

        assert out is not None
        pq.write_table(arrow_table(rows, METRIC_COLUMNS), out)
        return
    if fmt is DoseFormat.TABLE:
        _print_structures(found, shown)
        return
    if fmt is DoseFormat.JSON:
        text = json.dumps(rows, indent=1) + "\n"
    else:
        text = csv_text(list(METRIC_COLUMNS), [["" if v is None else v for v in row.values()] for row in rows])
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


def _print_structures(found: FileDoses, shown: tuple[str, ...]) -> None:
    from ctenrich.cli.console import print_table
    from ctenrich.dose.bounds import BoundedValue

    def cell(one: BoundedValue) -> str:
        if one.value is None:
            least = f" (>= {one.lower:.2f})" if one.lower is not None else ""
            return f"{one.reason.value if one.reason else ''}{least}"
        width = "" if one.lower is None or one.upper is None else f" [{one.lower:.2f}, {one.upper:.2f}]"
        return f"{one.value:.2f}{width}"

    rows = []
    for one in found.structures:
        values = {value.metric.name: value for value in one.values}
        cells = [cell(values[name]) for name in shown if name in values]
        rows.append([one.number, one.name, f"{one.coverage:.4f}" if one.reason is None else "", *cells])
    names = [name for name in shown if any(name == v.metric.name for one in found.structures for v in one.values)]
    print_table("Dose metrics [lower, upper bound]; research only", ["number", "structure", "coverage", *names], rows)

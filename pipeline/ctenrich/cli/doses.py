"""``ctenrich dose``: dose metrics of structures, sums of doses and comparisons, from files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.options import RunFolder

if TYPE_CHECKING:
    from ctenrich.dose.files import FileDoses
    from ctenrich.runner.run import Run

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


class IsodoseFormat(StrEnum):
    """DICOM object of the isodoses."""

    RTSTRUCT = "rtstruct"
    SEG = "seg"


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
    dose: Annotated[
        list[Path],
        typer.Option(help="RT Dose; repeatable for the files of single planes of one dose."),
    ],
    ct: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the CT: sample its voxels; default: the contours' own planes.",
        ),
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
    from ctenrich.cli.text import check_paths, printable
    from ctenrich.dose.files import DoseFiles, doses_of_files
    from ctenrich.dose.metrics import parse_metric
    from ctenrich.dose.structures import VOXEL_CENTRES, DoseOptions
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    check_paths(structures, *dose, ct)
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
    for one in found.structures:
        if one.reason is not None:
            typer.echo(printable(f"no metrics: {one.name}: {one.reason.value}: {one.message}"), err=True)
    _write_metrics(found, fmt, out, tuple(m.name for m in options.metrics) if metric else _SHOWN)
    if curves is not None:
        import pyarrow.parquet as pq

        from ctenrich.dose.table import CURVE_COLUMNS, arrow_table, curve_rows

        pq.write_table(arrow_table(curve_rows(found.structures, found.source), CURVE_COLUMNS), curves)


_Plans = Annotated[list[Path] | None, typer.Option("--plan", help="RT Plan of a dose; repeatable.")]
_Out = Annotated[Path, typer.Option(help="File of the new RT Dose.")]


@dose_app.command(
    "run",
    epilog="Examples:  ctenrich dose run my-run  \n"
    "ctenrich dose run my-run --metric mean --metric D2cc --metric 'V20Gy[%]'  \n"
    "ctenrich dose run my-run --isodose 20,50 --isodose 95% --isodose-format seg",
)
def doses_of_products(
    run: RunFolder,
    metric: Annotated[
        list[str] | None, typer.Option(help="Metric: mean, max, D95%, D2cc, V20Gy[%], V20Gy[cc] ...; repeatable.")
    ] = None,
    bounds: Annotated[
        bool, typer.Option("--bounds/--no-bounds", help="Bounds, and the second way of calculation.")
    ] = True,
    isodose: Annotated[
        list[str] | None,
        typer.Option(
            help="Isodoses of each series into RUN/isodoses: 20, 20Gy, 95% of the prescribed dose; repeatable."
        ),
    ] = None,
    isodose_format: Annotated[
        IsodoseFormat, typer.Option(help="Isodoses as rtstruct (RT Structure Set) or seg (Segmentation).")
    ] = IsodoseFormat.RTSTRUCT,
) -> None:
    """Dose metrics of all products of a run, experts and networks, as SR and tables; and checks of the doses."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.dose.isodoses import parse_levels
    from ctenrich.settings import DosesSettings

    parse_levels(isodose or (), 1.0)
    opened = steps.open_run(run)
    settings = DosesSettings(metrics=tuple(metric or ()), bounds=bounds)
    with progress_bars() as progress:
        changed, summary = steps.measure_doses(opened, settings, progress=progress)
    print_doses(changed)
    failed = _write_run_isodoses(changed, isodose, isodose_format) if isodose else 0
    raise typer.Exit(3 if summary.stopped_early else int(bool(summary.failures or failed)))


def _write_run_isodoses(run: Run, levels: list[str], fmt: IsodoseFormat) -> int:
    """Write the isodoses of a run's series; the number of series without a file."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.cli.text import printable
    from ctenrich.errors import count
    from ctenrich.evaluate.isodoses import write_run_isodoses

    with progress_bars() as progress:
        found = write_run_isodoses(
            run.workspace, levels, form=fmt.value, settings=run.config.settings, progress=progress
        )
    for one in found:
        notes = one.written.notes if one.written is not None else ()
        lines = [f"error: {one.reason.value}: {one.message}"] if one.reason is not None else []
        for line in (*lines, *(f"note: {note}" for note in notes)):
            typer.echo(printable(f"{one.series_instance_uid}: {line}"), err=True)
    failed = sum(one.written is None for one in found)
    typer.echo(f"isodoses of {count(len(found) - failed, 'series')} in {run.root / 'isodoses'}, {failed} without")
    return failed


def print_doses(run: Run) -> None:
    """Print how many products of a run have doses, why the others have none, and the findings.

    Parameters
    ----------
    run : Run
        A run whose tables of doses have been written.
    """
    from ctenrich.cli.text import printable
    from ctenrich.errors import count
    from ctenrich.evaluate.doses import find_doses

    found = without = 0
    for doses in find_doses(run.workspace):
        found += doses.reason is None
        without += doses.reason is not None
        for check in doses.checks:
            if check.severity != "note":
                typer.echo(printable(f"{doses.series_instance_uid}: {check.severity}: {check.sentence}"), err=True)
    typer.echo(f"{count(found, 'product')} with doses, {without} without; research only")


@dose_app.command(
    "sum",
    epilog="Examples:  ctenrich dose sum main.dcm boost.dcm --out sum.dcm  \n"
    "ctenrich dose sum main.dcm boost.dcm --scale 25/23 --scale 1 --plan plan1.dcm --plan plan2.dcm --out sum.dcm",
)
def add(
    doses: Annotated[
        list[Path],
        typer.Argument(metavar="DOSE...", help="RT Doses of one frame of reference."),
    ],
    out: _Out,
    scale: Annotated[
        list[str] | None, typer.Option(help="Factor of each dose, in their order: 25/23, 2, 1.08; default: 1.")
    ] = None,
    plan: _Plans = None,
) -> None:
    """Add doses to a new RT Dose: one dose per plan, on the finest grid; the order does not matter."""
    from ctenrich.errors import UsageError, count
    from ctenrich.reasons import Reason

    if scale and len(scale) != len(doses):
        text = f"{count(len(scale), 'factor')} for {count(len(doses), 'dose')}"
        raise UsageError(Reason.BAD_PARAMETER, text, "give one --scale for each dose, or none")
    _combine(doses, scale or ["1"] * len(doses), plan or [], out)


@dose_app.command(
    "scale",
    epilog="Examples:  ctenrich dose scale rd.dcm --intended 25 --delivered 23 --out scaled.dcm  \n"
    "ctenrich dose scale rd.dcm --factor 25/23 --out scaled.dcm",
)
def scale_dose(
    dose: Annotated[Path, typer.Argument(help="RT Dose.")],
    out: _Out,
    factor: Annotated[str | None, typer.Option(help="Factor: 25/23, 2, 1.08.")] = None,
    intended: Annotated[int | None, typer.Option(min=1, help="Intended fractions of the treatment.")] = None,
    delivered: Annotated[int | None, typer.Option(min=1, help="Fractions of the plan of this dose.")] = None,
    plan: _Plans = None,
) -> None:
    """Multiply a dose by intended over delivered fractions, or by a factor; the result is a new RT Dose."""
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    ratio = intended is not None and delivered is not None
    if ratio == (factor is not None) or (intended is None) != (delivered is None):
        raise UsageError(Reason.BAD_PARAMETER, "give either --factor, or --intended and --delivered")
    _combine([dose], [factor or f"{intended}/{delivered}"], plan or [], out)


def _combine(doses: list[Path], factors: list[str], plans: list[Path], out: Path) -> None:
    from ctenrich.cli.text import check_paths, printable
    from ctenrich.dose.choice import ScaledDose, choose_doses, parse_factor
    from ctenrich.dose.combine import combine_doses
    from ctenrich.dose.plan import read_plan
    from ctenrich.dose.reader import read_dose
    from ctenrich.dose.write import write_dose

    check_paths(*doses, *plans)
    parsed = [parse_factor(text) for text in factors]
    facts = [read_plan(path) for path in plans]
    given = [ScaledDose(dose=read_dose(path), factor=one) for path, one in zip(doses, parsed, strict=True)]
    combined = combine_doses(choose_doses(given, facts))
    for note in combined.notes:
        typer.echo(printable(f"note: {note}"), err=True)
    uid = write_dose(combined, out)
    terms = " + ".join(f"{one.factor} x {one.uid}" for one in combined.sources)
    typer.echo(printable(f"{out}: {uid}, maximum {combined.grid.maximum:.4f} Gy = {terms}"))


@dose_app.command(
    "isodoses",
    epilog="Examples:  ctenrich dose isodoses rd.dcm --ct ct/ --level 20,50 --out isodoses.dcm  \n"
    "ctenrich dose isodoses rd.dcm --ct ct/ --level 95% --level 20Gy --plan rp.dcm --out isodoses.dcm  \n"
    "ctenrich dose isodoses rd.dcm --ct ct/ --level 20,50 --format seg --out isodoses.dcm",
)
def isodoses(
    dose: Annotated[Path, typer.Argument(help="RT Dose.")],
    ct: Annotated[Path, typer.Option(help="Folder of the CT.")],
    level: Annotated[list[str], typer.Option(help="Doses: 20, 20Gy, or 95% of the prescribed dose; repeatable.")],
    out: Annotated[Path, typer.Option(help="File of the new object.")],
    plan: Annotated[Path | None, typer.Option(help="RT Plan, for the prescribed dose.")] = None,
    prescribed: Annotated[float | None, typer.Option(min=0.01, help="Prescribed dose, Gy.")] = None,
    fmt: Annotated[
        IsodoseFormat, typer.Option("--format", help="rtstruct: RT Structure Set; seg: Segmentation.")
    ] = IsodoseFormat.RTSTRUCT,
) -> None:
    """Write isodoses as regions of an RT Structure Set or a Segmentation, proven by reading the file again."""
    from ctenrich.cli.text import check_paths, printable
    from ctenrich.dicom.series import series_of_folder
    from ctenrich.dose.isodoses import parse_levels, write_isodoses
    from ctenrich.dose.plan import read_plan
    from ctenrich.dose.reader import read_dose

    check_paths(dose, ct, plan)
    stated = read_plan(plan).prescription if plan is not None else None
    known = prescribed if prescribed is not None else stated.dose if stated is not None else None
    levels = parse_levels(level, known)
    written = write_isodoses(read_dose(dose), series_of_folder(ct), levels, out, form=fmt.value)
    for note in written.notes:
        typer.echo(printable(f"note: {note}"), err=True)
    for gray, volume in written.volumes:
        typer.echo(f"{gray:g} Gy: {volume:.2f} cm3")
    typer.echo(printable(f"{out}: {written.sop_instance_uid}, {len(written.volumes)} isodoses; research only"))


@dose_app.command(
    "plan",
    epilog="Examples:  ctenrich dose plan rp.dcm",
)
def show_plan(plan: Annotated[Path, typer.Argument(help="RT Plan.")]) -> None:
    """Fractions of an RT Plan by fraction group, and its prescribed dose with the source of it."""
    from ctenrich.cli.console import print_table
    from ctenrich.cli.text import check_paths
    from ctenrich.dose.plan import read_plan

    check_paths(plan)
    facts = read_plan(plan)
    rows = [
        [
            group.number,
            "" if group.fractions is None else group.fractions,
            len(group.beams),
            "" if group.fraction_dose is None else f"{group.fraction_dose:.4f}",
            "" if group.dose is None else f"{group.dose:.4f}",
            "yes" if group.is_treatment else "no",
        ]
        for group in facts.groups
    ]
    columns = ["fraction group", "fractions", "beams", "Gy per fraction", "Gy", "treats"]
    print_table("Fraction groups; research only", columns, rows)
    typer.echo(f"fractions that treat: {'not stated' if facts.fractions is None else facts.fractions}")
    known = facts.prescription
    typer.echo(f"prescribed dose: {f'{known.dose:g} Gy ({known.source.value})' if known else 'not stated in the plan'}")


@dose_app.command(
    "compare",
    epilog="Examples:  ctenrich dose compare ours.csv theirs.csv  \nctenrich dose compare a.parquet b.parquet --all",
)
def compare(
    first: Annotated[
        Path,
        typer.Argument(
            help="Table of dose metrics: CSV, JSON or Parquet of ctenrich dose dvh, or dose_metrics of a run."
        ),
    ],
    second: Annotated[Path, typer.Argument(help="Another table.")],
    everything: Annotated[bool, typer.Option("--all", help="Also print the metrics that agree.")] = False,
) -> None:
    """Compare two tables: volumes within 1 % or 1 cm3, doses within 2 % or 0.5 Gy, shares within 1 point."""
    from ctenrich.cli.console import print_table
    from ctenrich.cli.text import check_paths
    from ctenrich.dose.compare import compare_tables, read_metrics

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    check_paths(first, second)
    words = {True: "yes", False: "no", None: ""}
    found = compare_tables(read_metrics(first), read_metrics(second))
    rows = [
        [one.structure, one.metric, number(one.first), number(one.second), words[one.agrees],
         words[one.within_bounds], *one.sampling]
        for one in found if everything or one.agrees is False
    ]  # fmt: skip
    if rows:
        columns = [
            "structure",
            "metric",
            "first",
            "second",
            "agree",
            "bounds overlap",
            "steps of first, mm",
            "of second",
        ]
        print_table("Dose metrics", columns, rows)
    judged = [one.agrees for one in found if one.agrees is not None]
    typer.echo(f"{sum(judged)} of {len(judged)} metrics agree; {len(found) - len(judged)} have no value in one table")
    pairs = sorted({one.sampling for one in found if all(one.sampling)})
    typer.echo("sampling (slices x rows x columns, mm): " + ("; ".join(" and ".join(p) for p in pairs) or "not stated"))


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

"""``ctenrich repeatability``: how well the measurements of two series of one patient agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.options import Csv, RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctenrich.evaluate.retest import FeatureRepeatability, SeriesPair
    from ctenrich.workspace import Workspace

__all__ = ["register"]

_PATIENTS = "patients"
_MOST_PLOTS = 200


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich repeatability my-run --pairs pairs.csv  \n"
        "ctenrich repeatability my-run --pairs patients --product expert --feature Sphericity --plots plots  \n"
        "ctenrich repeatability my-run --pairs pairs.csv --csv"
    )(repeatability)


def repeatability(
    run: RunFolder,
    pairs: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="CSV with the columns first and second (Series Instance UIDs), or patients: every patient who has "
            "exactly two series.",
        ),
    ],
    product: Annotated[str, typer.Option(help="Only this product, by its key or alias.")] = "",
    feature: Annotated[
        list[str] | None, typer.Option(help="Features that are printed and plotted; repeatable; default: all.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write a Bland-Altman plot (SVG) of every feature there.")
    ] = None,
    csv: Csv = False,
) -> None:
    """Measure test-retest repeatability of every feature over pairs of series: ICC, RC, wCV, limits of agreement."""
    from ctenrich import steps
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.evaluate.retest import run_repeatability, write_repeatability
    from ctenrich.reasons import Reason
    from ctenrich.runner.products import product_key

    opened = steps.open_run(run)
    key = product_key(opened.config.products, product) if product else None
    found = run_repeatability(opened.workspace, _find_pairs(opened.workspace, pairs), product=key)
    names = {one.measured.feature for one in found}
    for name in feature or []:
        if name not in names:
            hint = did_you_mean(name, names, "without --feature all are printed")
            raise UsageError(Reason.NOT_FOUND, f"no series of the pairs has the feature {name[:60]!r}", hint)
    shown = [one for one in found if not feature or one.measured.feature in feature]
    if plots is not None and len(shown) > _MOST_PLOTS:
        message = f"{len(shown)} plots are more than {_MOST_PLOTS}"
        raise UsageError(Reason.BAD_PARAMETER, message, "choose some with --feature and --product")
    path = write_repeatability(opened.workspace, found)
    _print(shown, csv=csv)
    if plots is not None:
        _write_plots(shown, plots)
    typer.echo(f"table: {path.stem}, {len(found)} rows; query it with ctenrich query", err=True)


def _find_pairs(workspace: Workspace, pairs: str) -> Sequence[SeriesPair]:
    from ctenrich.errors import count
    from ctenrich.evaluate.retest import pairs_of_patients, read_pairs

    if pairs != _PATIENTS:
        return read_pairs(Path(pairs))
    found, left_out = pairs_of_patients(workspace)
    typer.echo(f"{count(len(found), 'patient')} with exactly two series, {left_out} others left out", err=True)
    return found


def _print(shown: Sequence[FeatureRepeatability], *, csv: bool) -> None:
    from ctenrich.cli.console import print_csv, print_table

    columns = (
        "product", "segment", "feature", "unit", "pairs", "mean", "ICC(1,1)", "ICC(2,1)", "ICC(3,1)", "RC", "wCV",
        "bias", "lower limit", "upper limit", "note",
    )  # fmt: skip
    rows = []
    for one in shown:
        s, icc = one.statistics, one.statistics.intraclass
        iccs = (icc.icc_1_1, icc.icc_2_1, icc.icc_3_1) if icc else (None,) * 3
        numbers = (s.mean, *iccs, s.rc, s.within_cv, s.bias, s.limit_low, s.limit_high)
        m = one.measured
        words = (m.product, m.segment, m.feature, m.unit, s.subjects)
        rows.append((*words, *("" if v is None else v for v in numbers), s.note))
    if csv:
        print_csv(columns, rows)
    else:
        print_table("Test-retest repeatability; ICC is Shrout and Fleiss', RC = 2.77 within-subject SD", columns, rows)


def _write_plots(shown: Sequence[FeatureRepeatability], folder: Path) -> None:
    from ctenrich.errors import count
    from ctenrich.evaluate.bland_altman import bland_altman_svg
    from ctenrich.workspace import write_bytes

    for number, one in enumerate(shown, start=1):
        m = one.measured
        words = "-".join("".join(c if c.isalnum() else "_" for c in text) for text in (m.segment, m.feature))
        write_bytes(folder / f"{number:03d}-{words[:80]}.svg", bland_altman_svg(one).encode())
    typer.echo(f"{count(len(shown), 'plot')} in {folder}", err=True)

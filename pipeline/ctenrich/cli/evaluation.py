"""``ctenrich evaluate`` and ``compare``: products against a reference, and against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.options import RunFolder

if TYPE_CHECKING:
    from ctenrich.evaluate.evaluation import Comparison, Evaluation, RunSource
    from ctenrich.evaluate.spooled import MetricTables
    from ctenrich.evaluate.statistics import MetricValue

__all__ = ["register"]

_Reference = Annotated[str, typer.Option(help="Product of the run, or file or folder of SEG, RTSTRUCT or NIfTI masks.")]
_By = Annotated[list[str] | None, typer.Option(help="Also within groups: scanner, kernel, thickness, sex; repeatable.")]
_Metric = Annotated[str, typer.Option(help="Metric whose comparison is printed; the tables have all of them.")]
_Published = Annotated[Path | None, typer.Option(help="CSV of a published study, to print its medians beside.")]
_Csv = Annotated[bool, typer.Option("--csv", help="Write the metrics of every mask as CSV to stdout instead.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples:  ctenrich evaluate my-run  \n"
        "ctenrich evaluate my-run --reference others-segs/ --csv  \n"
        "ctenrich evaluate my-run --by sex --published published.csv"
    )(evaluate)
    app.command(
        epilog="Examples:  ctenrich compare my-run  \n"
        "ctenrich compare my-run other-run --reference expert  \n"
        "ctenrich compare my-run/expert my-run/nnunet:a:3d_fullres:0:mirror theirs-segs/  \n"
        "ctenrich compare published.csv"
    )(compare)


def evaluate(
    run: RunFolder,
    reference: _Reference = "expert",
    product: Annotated[list[str] | None, typer.Option(help="Product to evaluate; repeatable; default: all.")] = None,
    by: _By = None,
    metric: _Metric = "dice",
    published: _Published = None,
    csv: _Csv = False,
) -> None:
    """Compare products with a reference, organ by organ: overlap, distances, volumes; the numbers become tables."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.evaluate.evaluation import evaluate_run, strata_of
    from ctenrich.evaluate.published import read_published
    from ctenrich.runner.products import product_key

    _check_metric(metric)
    source = _open_run(run)
    asked = steps.open_run(run).config.products
    reference, chosen = product_key(asked, reference), [product_key(asked, name) for name in product or []]
    strata = strata_of(source.cohort.series, by or [])
    theirs = read_published(published) if published else ()
    with progress_bars() as progress:
        found = evaluate_run(source, reference=reference, products=chosen, progress=progress)
    _finish(source, found, strata, _Printing(metric, theirs, csv))


def compare(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="A [B...]", help="Runs, RUN/PRODUCT, files or folders of masks; or one CSV of metrics."),
    ],
    reference: _Reference = "expert",
    by: _By = None,
    metric: _Metric = "dice",
    published: _Published = None,
    csv: _Csv = False,
) -> None:
    """Compare products with each other: of one run, of several runs, of other makers, or the rows of a CSV."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.evaluate.evaluation import RunSource, compare_metrics, compare_sources, strata_of
    from ctenrich.evaluate.published import read_published

    _check_metric(metric)
    theirs = read_published(published) if published else ()
    if len(targets) == 1 and targets[0].lower().endswith(".csv"):
        values = read_published(Path(targets[0]))
        _print_summary({"": values, "published": theirs}, metric)
        _print_comparison(compare_metrics(values), metric)
        return
    sources = [_source_of(target) for target in targets]
    runs = [s for s in sources if isinstance(s, RunSource)]
    strata = strata_of(chain.from_iterable(run.cohort.series for run in runs), by or [])
    with progress_bars() as progress:
        found = compare_sources(sources, reference=reference, progress=progress)
    _finish(runs[0], found, strata, _Printing(metric, theirs, csv))


_SHOWN = ("dice", "hausdorff_95_max", "mean_surface_distance", "surface_dice_2mm", "volume_error")
"""Metrics whose medians are printed; the tables have all of them."""


class _Printing:
    """What is printed."""

    def __init__(self, metric: str, published: Sequence[MetricValue], csv: bool) -> None:
        self.metric = metric
        self.published = published
        self.csv = csv


def _check_metric(metric: str) -> None:
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.evaluate.statistics import METRIC_RULES
    from ctenrich.reasons import Reason

    if metric not in METRIC_RULES:
        hint = did_you_mean(metric, METRIC_RULES, f"metrics are {', '.join(METRIC_RULES)}")
        raise UsageError(Reason.BAD_PARAMETER, f"there is no metric {metric[:40]!r}", hint)


def _open_run(path: Path, product: str = "") -> RunSource:
    from ctenrich import steps
    from ctenrich.evaluate.evaluation import RunSource
    from ctenrich.runner.products import product_key

    run = steps.open_run(path)
    key = product_key(run.config.products, product) if product else ""
    return RunSource(workspace=run.workspace, settings=run.config.settings, cohort=run.cohort, product=key)


def _source_of(target: str) -> RunSource | Path:
    """A run, a product of a run, or a file or folder of masks."""
    path = Path(target)
    if (path / "run.json").is_file():
        return _open_run(path)
    folder, slash, product = target.rpartition("/")
    if slash and not path.exists() and (Path(folder) / "run.json").is_file():
        return _open_run(Path(folder), product)
    return path if path.exists() else _open_run(path)  # raises: it is no run


def _finish(source: RunSource, found: Evaluation, strata: dict[str, dict[str, str]], printing: _Printing) -> None:
    """Compare, write the tables, print; exit with 1 if a file could not be compared."""
    from ctenrich.evaluate.evaluation import compare_metrics, metric_values, write_evaluation
    from ctenrich.evaluate.statistics import tables_of

    for file in found.refused:
        typer.echo(f"not compared: {file.name}: {file.reason}: {file.message}", err=True)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if not found.masks:
        typer.echo(f"nothing to compare: no series has an organ in common with {found.reference}", err=True)
        raise typer.Exit(1 if found.refused else 0)
    values = tables_of(metric_values(found.masks))
    comparison = compare_metrics(values, strata=strata)
    paths = write_evaluation(source.workspace, found, comparison)
    if printing.csv:
        _print_rows(paths["evaluation"], found)
    else:
        _print_summary({"": values, "published": printing.published}, printing.metric)
        _print_comparison(comparison, printing.metric)
        typer.echo(f"tables: {', '.join(paths)}; query them with ctenrich query", err=True)
    raise typer.Exit(1 if found.refused else 0)


def _print_rows(path: Path, found: Evaluation) -> None:
    """Rows of this evaluation as CSV, from the table that was written."""
    import pyarrow.parquet as pq

    from ctenrich.cli.console import print_csv

    references = {one.reference for one in found.masks}
    with pq.ParquetFile(path) as file:
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist() if row["reference"] in references)
        print_csv(file.schema_arrow.names, (tuple("" if v is None else v for v in row.values()) for row in rows))


def _print_summary(values: Mapping[str, Sequence[MetricValue] | MetricTables], metric: str) -> None:
    """Medians and quartiles of a metric, and medians of the others; `values` by their origin."""
    from ctenrich.cli.console import print_table
    from ctenrich.evaluate.statistics import METRIC_RULES, summarise_values

    found = {
        (s.segment, source, s.product, s.metric): s
        for source, of_source in values.items()
        for s in summarise_values(of_source)
    }
    theirs = {key[3] for key in found if key[1]} or {key[3] for key in found} - set(_SHOWN)
    shown = {*_SHOWN, *(theirs if len(theirs) < len(_SHOWN) else ())}
    others = [m for m in METRIC_RULES if m != metric and m in shown and any(key[3] == m for key in found)]
    rows = []
    for segment, source, product in sorted({key[:3] for key in found}):
        own = found.get((segment, source, product, metric))
        spread = (own.series, own.median, f"{own.first_quartile:.4g} to {own.third_quartile:.4g}") if own else ("",) * 3
        rest = [found.get((segment, source, product, m)) for m in others]
        name = f"{product} (published)" if source else product
        rows.append((segment, name, *spread, *("" if s is None else s.median for s in rest)))
    names = [m.replace("_", " ") for m in (metric, *others)]
    columns = ("organ", "product", "series", names[0], "quartiles", *names[1:])
    print_table("Medians over the series; distances in mm, volumes in mL", columns, rows)


def _print_comparison(comparison: Comparison, metric: str) -> None:
    from ctenrich.cli.console import print_table
    from ctenrich.cli.text import printable

    variances = [v for v in comparison.variances if v.metric == metric]
    if variances:
        rows = [
            (v.segment, v.stratum, v.series, v.f, v.epsilon, v.p_corrected, v.p_holm or 1.0, v.partial_eta_squared)
            for v in variances
        ]
        columns = ("organ", "stratum", "series", "F", "epsilon", "p corrected", "p Holm", "partial eta squared")
        print_table(f"Repeated-measures analysis of variance of {metric} over all products", columns, rows)
    for difference in (d for d in comparison.differences if d.metric == metric):
        wins = f"{difference.first_better} : {difference.second_better}, {difference.ties} equal"
        effect = "" if difference.effect is None else f", rank-biserial correlation {difference.effect:.2f}"
        typer.echo(printable(f"{difference.sentence} Better in {wins}{effect}."))

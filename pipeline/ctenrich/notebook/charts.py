"""Charts over the result tables of a run: a dashboard, an explorer, agreement of products, series to review."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctenrich.evaluate.products import ProductOverlap
from ctenrich.notebook.output import pyplot
from ctenrich.report.outliers import unusual_series
from ctenrich.results.query import run_query
from ctenrich.runner.run import Run
from ctenrich.tools import need_package

__all__ = ["dashboard", "explorer", "landmark_points", "overlap_chart", "reviews"]

_VOLUME = "Volume from Voxel Summation"
_DPI = 80
QUANTITIES = (_VOLUME, "Sphericity", "Surface Area of Mesh", "Maximum 3D Diameter of a Mesh", "Elongation", "Flatness")
"""Quantities that the explorer offers (meaning of the concept in the SR)."""


def dashboard(run: Run) -> Any:
    """Draw four charts over the tables of a run: organ volumes, sphericity, landmarks, regions.

    The same charts over BigQuery are described on the page Colab and Jupyter of the documentation (Looker Studio).

    Parameters
    ----------
    run : Run
        A run whose tables have been built.

    Returns
    -------
    matplotlib.figure.Figure
    """
    plt = pyplot()
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), dpi=_DPI, layout="constrained")
    plt.close(figure)
    _draw_feature(axes[0][0], run, _VOLUME)
    _draw_feature(axes[0][1], run, "Sphericity")
    _draw_landmarks(axes[1][0], run)
    _draw_regions(axes[1][1], run)
    return figure


def _feature_groups(run: Run, quantity: str) -> tuple[dict[tuple[str, str], list[float]], str]:
    """Values by organ and product, and their unit; volumes in mL."""
    groups: dict[tuple[str, str], list[float]] = {}
    unit = ""
    for row in run_query(run.workspace, "feature_over_cohort", {"quantity": quantity}).to_pylist():
        unit = str(row["unit"] or "")
        value = float(row["value"]) / (1e3 if unit == "mm3" else 1)
        groups.setdefault((str(row["segment"]), str(row["product"])), []).append(value)
    return groups, {"mm3": "mL", "1": "no unit"}.get(unit, unit)


def _draw_feature(axes: Any, run: Run, quantity: str) -> None:
    groups, unit = _feature_groups(run, quantity)
    organs = sorted({organ for organ, _ in groups})
    products = sorted({product for _, product in groups})
    for shift, product in enumerate(products):
        points = [(y, v) for y, organ in enumerate(organs) for v in groups.get((organ, product), ())]
        height = (shift - (len(products) - 1) / 2) * 0.2
        axes.scatter([v for _, v in points], [y + height for y, _ in points], s=22, label=product, alpha=0.8)
    axes.set_yticks(range(len(organs)), [organ.replace("_", " ") for organ in organs], fontsize=8)
    axes.set_xlabel(f"{quantity}, {unit}", fontsize=9)
    axes.set_title("one point per series", fontsize=9)
    axes.grid(alpha=0.3)
    if products:
        axes.legend(fontsize=7)


def _draw_landmarks(axes: Any, run: Run) -> None:
    rows = run_query(run.workspace, "landmark_coverage", {}).to_pylist()
    names = [str(row["landmark"]) for row in rows]
    axes.barh(names, [row["present"] for row in rows], color="#4e79a7", label="found")
    axes.barh(
        names,
        [row["absent"] for row in rows],
        left=[row["present"] for row in rows],
        color="#d9d9d9",
        label="not in the scan",
    )
    axes.set_xlabel("series", fontsize=9)
    axes.set_title("landmarks of body part regression" if rows else "no body part product", fontsize=9)
    axes.tick_params(labelsize=6)
    if rows:
        axes.legend(fontsize=7)


def _draw_regions(axes: Any, run: Run) -> None:
    rows = run_query(run.workspace, "region_shares", {}).to_pylist()
    shares: dict[str, list[float]] = {}
    for row in rows:
        shares.setdefault(str(row["region"]), []).append(float(row["share"] or 0))
    if shares:
        axes.boxplot(list(shares.values()), orientation="horizontal")
    axes.set_yticks(range(1, len(shares) + 1), list(shares), fontsize=8)
    axes.set_xlabel("share of the slices of a series", fontsize=9)
    axes.set_title("regions" if rows else "no regions", fontsize=9)


def landmark_points(run: Run) -> Any:
    """Plot a point for every landmark that a series shows, the landmarks from the pelvis to the head.

    Parameters
    ----------
    run : Run
        A run whose tables have been built.

    Returns
    -------
    matplotlib.figure.Figure
    """
    plt = pyplot()
    names = [str(row["landmark"]) for row in run_query(run.workspace, "landmark_coverage", {}).to_pylist()]
    places = {name: place for place, name in enumerate(reversed(names))}
    series = [entry.series_instance_uid for entry in run.cohort.series]
    found = run_query(run.workspace, "SELECT SeriesInstanceUID, landmark FROM landmarks WHERE slice_index IS NOT NULL")
    rows = [(series.index(row["SeriesInstanceUID"]), places[row["landmark"]]) for row in found.to_pylist()]
    figure, axes = plt.subplots(figsize=(10, 5), dpi=_DPI, layout="constrained")
    plt.close(figure)
    axes.scatter([x for x, _ in rows], [y for _, y in rows], s=18)
    axes.set_yticks(list(places.values()), list(places), fontsize=8)
    axes.set_xticks(range(len(series)), [uid[-8:] for uid in series], rotation=90, fontsize=8)
    axes.set_xlabel("series (end of its UID)")
    axes.grid(alpha=0.3)
    return figure


def explorer(run: Run) -> Any:
    """Show a chart of one quantity with a menu to choose it (ipywidgets).

    Parameters
    ----------
    run : Run
        A run whose tables have been built.

    Returns
    -------
    ipywidgets.VBox

    Raises
    ------
    UsageError
        MISSING_EXTRA without ipywidgets.
    """
    need_package("ipywidgets", extra="colab", purpose="the explorer")
    import ipywidgets

    menu = ipywidgets.Dropdown(options=QUANTITIES, value=_VOLUME, description="quantity")
    shown = ipywidgets.Image(format="png", value=_feature_png(run, _VOLUME))

    def chosen(change: Any) -> None:
        shown.value = _feature_png(run, str(change["new"]))

    menu.observe(chosen, names="value")
    return ipywidgets.VBox([menu, shown])


def _feature_png(run: Run, quantity: str) -> bytes:
    from io import BytesIO

    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 3.5), dpi=_DPI, layout="constrained")
    plt.close(figure)
    _draw_feature(axes, run, quantity)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def overlap_chart(overlaps: Sequence[ProductOverlap]) -> Any:
    """Plot Dice and Hausdorff distances of each organ: one point per series, and the median as a line.

    Parameters
    ----------
    overlaps : sequence of ProductOverlap
        What :func:`ctenrich.evaluate.products.compare_products` returned.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from statistics import median

    plt = pyplot()
    figure, both = plt.subplots(1, 2, figsize=(10, 3.6), dpi=_DPI, layout="constrained")
    plt.close(figure)
    labels = sorted({(o.structure_name, o.model) for o in overlaps})
    for axes, name, title in ((both[0], "dice_score", "Dice, 0 to 1"), (both[1], "hausdorff_distance_95", "HD95, mm")):
        for y, label in enumerate(labels):
            values = [getattr(o, name) for o in overlaps if (o.structure_name, o.model) == label]
            known = [float(v) for v in values if v is not None]
            axes.scatter(known, [y] * len(known), s=28, alpha=0.8)
            if known:
                axes.plot([median(known)] * 2, [y - 0.3, y + 0.3], color="black")
        axes.set_yticks(range(len(labels)), [f"{organ}\n{model[:24]}" for organ, model in labels], fontsize=7)
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    return figure


def reviews(run: Run, most: int = 10) -> Any:
    """One row per series that a person should look at, the strongest reasons first.

    Parameters
    ----------
    run : Run
        A run whose tables have been built.
    most : int
        The first so many rows.

    Returns
    -------
    pandas.DataFrame
    """
    need_package("pandas", extra="colab", purpose="a table in a notebook")
    import pandas as pd

    ranked = unusual_series(run.workspace, most)
    rows = [{"series": o.series[-12:], "score": round(o.score, 1), "reasons": "; ".join(o.reasons[:3])} for o in ranked]
    return pd.DataFrame(rows, columns=["series", "score", "reasons"])

"""Doses of a series for its page: metrics of every organ and product with their bounds, and dose-volume curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ctenrich.report.series_tables import words

__all__ = ["dose_curves", "dose_part"]

Row = dict[str, Any]

_SHOWN = {
    "Volume[cc]": "Volume, cm³", "Mean[Gy]": "Mean, Gy", "Max[Gy]": "Max, Gy", "D95%[Gy]": "D95%, Gy",
    "D2cc[Gy]": "D2cc, Gy", "V20Gy[%]": "V20Gy, %",
}  # fmt: skip
"""Metric -> its column."""
_SOURCES = {
    "dose_reference": "dose reference of the plan",
    "beam_doses": "sum of fractions × Beam Dose, the dose at a point: the plan has no dose reference",
    "table": "the user's registry",
}
"""Source of a prescribed dose -> words."""
_STEPS = ("step_slice_mm", "step_row_mm", "step_column_mm")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#666666", "#000000")
"""Okabe and Ito's colours, which people with any colour vision can tell apart."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""One for each product."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 290, 68, 14, 42


def dose_part(
    metrics: Sequence[Mapping[str, Any]], curves: Sequence[Mapping[str, Any]], checks: Sequence[Row]
) -> Row | None:
    """Doses as the template shows them.

    Parameters
    ----------
    metrics, curves, checks : sequence of mapping
        Rows of one series of the tables dose_metrics, dvh_curves and dose_checks.

    Returns
    -------
    dict or None
        None for a series without rows.
    """
    if not metrics and not checks:
        return None
    cells = {(r["organ"], r["product"], r["metric"]): r for r in metrics}
    places = sorted({(r["organ"], r["product"]) for r in metrics})
    names = [name for name in _SHOWN if any(r["metric"] == name for r in metrics)]
    rows = [
        {
            "organ": words(organ),
            "product": product,
            "cells": [_cell(cells.get((organ, product, name))) for name in names],
            "sampling": _sampling(cells[organ, product, names[0]]) if names else "",
        }
        for organ, product in places
    ]
    first = metrics[0] if metrics else {}
    return {
        "names": [_SHOWN[name] for name in names],
        "rows": rows,
        "curves": dose_curves(curves),
        "checks": [{"severity": r["severity"], "sentence": r["sentence"]} for r in checks],
        "doses": (first.get("doses") or "").replace("1 x ", ""),
        "prescription": _prescription(first),
    }


def _prescription(row: Mapping[str, Any]) -> str:
    """Prescribed dose with its source in words."""
    if not row.get("prescription_gy"):
        return "not known"
    sources = str(row["prescription_source"]).split(" + ")
    return f"{row['prescription_gy']:g} Gy ({' and '.join(_SOURCES.get(one, one) for one in sources)})"


def _cell(row: Mapping[str, Any] | None) -> Row:
    """Text of a metric, and below it what it is at least and at most."""
    if row is None:
        return {"text": "", "bounds": ""}
    if row["value"] is None:
        least = f"at least {row['lower']:.2f}" if row["lower"] is not None else ""
        return {"text": row["reason"], "bounds": least}
    if row["lower"] is None or row["upper"] is None:
        return {"text": f"{row['value']:.2f}", "bounds": ""}
    return {"text": f"{row['value']:.2f}", "bounds": f"{row['lower']:.2f} to {row['upper']:.2f}"}


def _sampling(row: Mapping[str, Any]) -> str:
    """Distances of the sampling points, mm: between slices, rows and columns."""
    steps = [row.get(name) for name in _STEPS]
    return " × ".join(f"{step:.2f}" for step in steps if step is not None) if None not in steps else ""


def dose_curves(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw cumulative dose-volume curves: a colour for each organ, a dash for each product.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of one series of the table dvh_curves.

    Returns
    -------
    Markup
        An ``svg`` element with a text alternative, and a list as its legend; empty without rows.
    """
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        lines.setdefault((row["organ"], row["product"]), []).append((row["dose_gy"], row["volume_share"]))
    if not lines:
        return Markup("")
    top = max(dose for points in lines.values() for dose, _ in points) or 1.0
    organs = sorted({organ for organ, _ in lines})
    products = sorted({product for _, product in lines})
    parts, legend = [_axes(top)], []
    for (organ, product), points in sorted(lines.items()):
        colour = _COLOURS[organs.index(organ) % len(_COLOURS)]
        dash = _DASHES[products.index(product) % len(_DASHES)]
        path = " ".join(f"{_x(dose, top):.1f},{_y(share):.1f}" for dose, share in sorted(points))
        parts.append(
            Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-dasharray="{}"/>').format(
                path, colour, dash
            )
        )
        legend.append(
            Markup(
                '<li><svg width="28" height="8" aria-hidden="true"><line x1="0" x2="28" y1="4" y2="4" stroke="{}" '
                'stroke-width="2" stroke-dasharray="{}"/></svg>{}, {}</li>'
            ).format(colour, dash, words(organ), product)
        )
    alternative = f"Dose-volume curves of {', '.join(map(words, organs))}; by {', '.join(products)}"
    return Markup(
        '<svg class="dvh" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg><ul class="dvh">{}</ul>'
    ).format(alternative, _WIDTH + 20, _HEIGHT, Markup("").join(parts), Markup("").join(legend))


def _x(dose: float, top: float) -> float:
    return _LEFT + (_WIDTH - _LEFT) * dose / top


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - share)


def _axes(top: float) -> Markup:
    line = Markup(
        '<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" stroke="#8884"/><text x="4" y="{:.1f}">{:.0f} %</text>'
    )
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts = [line.format(_LEFT, _WIDTH, _y(s), _y(s), _y(s) + 4, 100 * s) for s in shares]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 1000) if top / s <= 10)
    label = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>')
    parts += [label.format(_x(n * step, top), _HEIGHT - 23, n * step) for n in range(int(top / step) + 1)]
    parts.append(
        Markup('<text x="{}" y="{}" text-anchor="end">dose, Gy; share of the volume</text>').format(_WIDTH, _HEIGHT - 3)
    )
    return Markup("").join(parts)

"""Doses of a series for its page: metrics of every organ and product with their bounds, and dose-volume curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

__all__ = ["dose_curves", "dose_part"]

Row = dict[str, Any]

_SHOWN = ("Volume[cc]", "Mean[Gy]", "Max[Gy]", "D95%[Gy]", "D2cc[Gy]", "V20Gy[%]")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#666666", "#000000")
"""Okabe and Ito's colours, which people with any colour vision can tell apart."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""One for each product."""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 260, 44, 36


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
        {"organ": organ, "product": product, "cells": [_cell(cells.get((organ, product, name))) for name in names]}
        for organ, product in places
    ]
    first = metrics[0] if metrics else {}
    prescription = first.get("prescription_gy")
    return {
        "names": names,
        "rows": rows,
        "curves": dose_curves(curves),
        "checks": [{"severity": r["severity"], "sentence": r["sentence"]} for r in checks],
        "doses": first.get("doses") or "",
        "prescription": f"{prescription:g} Gy ({first['prescription_source']})" if prescription else "not known",
    }


def _cell(row: Mapping[str, Any] | None) -> Row:
    """Text of a metric, and what it is at least and at most."""
    if row is None:
        return {"text": "", "title": ""}
    if row["value"] is None:
        least = f", at least {row['lower']:.2f}" if row["lower"] is not None else ""
        return {"text": f"{row['reason']}{least}", "title": ""}
    if row["lower"] is None or row["upper"] is None:
        return {"text": f"{row['value']:.2f}", "title": ""}
    title = f"{row['lower']:.2f} to {row['upper']:.2f} {row['unit']}"
    return {"text": f"{row['value']:.2f}", "title": title}


def dose_curves(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw cumulative dose-volume curves: a colour for each organ, a dash for each product.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of one series of the table dvh_curves.

    Returns
    -------
    Markup
        An ``svg`` element with a legend and a text alternative; empty without rows.
    """
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        lines.setdefault((row["organ"], row["product"]), []).append((row["dose_gy"], row["volume_share"]))
    if not lines:
        return Markup("")
    top = max(dose for points in lines.values() for dose, _ in points) or 1.0
    organs = sorted({organ for organ, _ in lines})
    products = sorted({product for _, product in lines})
    parts = [_axes(top)]
    for n, ((organ, product), points) in enumerate(sorted(lines.items())):
        colour = _COLOURS[organs.index(organ) % len(_COLOURS)]
        dash = _DASHES[products.index(product) % len(_DASHES)]
        path = " ".join(f"{_x(dose, top):.1f},{_y(share):.1f}" for dose, share in sorted(points))
        parts.append(
            Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-dasharray="{}"/>').format(
                path, colour, dash
            )
        )
        y = 14 + 16 * n
        parts.append(
            Markup(
                '<line x1="650" x2="676" y1="{0}" y2="{0}" stroke="{1}" stroke-width="2" stroke-dasharray="{2}"/>'
                '<text x="682" y="{3}">{4}, {5}</text>'
            ).format(y, colour, dash, y + 4, organ, product[:28])
        )
    height = max(_HEIGHT, 20 + 16 * len(lines))
    alternative = f"Dose-volume curves of {', '.join(organs)}; by {', '.join(products)}"
    return Markup('<svg class="dvh" role="img" aria-label="{}" viewBox="0 0 920 {}">{}</svg>').format(
        alternative, height, Markup("").join(parts)
    )


def _x(dose: float, top: float) -> float:
    return _LEFT + (_WIDTH - _LEFT) * dose / top


def _y(share: float) -> float:
    return 8 + (_HEIGHT - _BOTTOM - 8) * (1 - share)


def _axes(top: float) -> Markup:
    line = Markup(
        '<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" stroke="#8884"/><text x="4" y="{:.1f}">{:.0f} %</text>'
    )
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts = [line.format(_LEFT, _WIDTH, _y(s), _y(s), _y(s) + 4, 100 * s) for s in shares]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 1000) if top / s <= 10)
    for n in range(int(top / step) + 1):
        text = "{:g}" if n else "{:g} Gy"
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                _x(n * step, top), _HEIGHT - 14, text.format(n * step)
            )
        )
    return Markup("").join(parts)

"""Draw small charts as inline SVG with a text alternative, without scripts, fonts or requests elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

__all__ = ["Bar", "bars"]


class Bar(NamedTuple):
    """One bar of a chart."""

    name: str
    value: float
    text: str
    """Shown beside the bar."""


def bars(rows: Sequence[Bar], label: str) -> Markup:
    """Draw horizontal bars.

    Parameters
    ----------
    rows : sequence of Bar
        From top to bottom.
    label : str
        Title of the text alternative.

    Returns
    -------
    Markup
        An ``svg`` element; empty without rows.
    """
    if not rows:
        return Markup("")
    longest = max(row.value for row in rows) or 1.0
    parts = []
    for index, (name, value, text) in enumerate(rows):
        y = 24 * index
        width = 200 * value / longest
        parts.append(
            Markup(
                '<text class="name" x="392" y="{}">{}</text><rect class="bar" x="400" y="{}" width="{:.1f}" '
                'height="14" rx="2"/><text x="{:.1f}" y="{}">{}</text>'
            ).format(y + 16, _short(name), y + 5, max(width, 1), 408 + width, y + 16, text)
        )
    alternative = f"{label}: " + "; ".join(f"{row.name} {row.text}" for row in rows)
    return Markup('<svg class="bars" role="img" aria-label="{}" viewBox="0 0 700 {}">{}</svg>').format(
        alternative, 24 * len(rows) + 4, Markup("").join(parts)
    )


def _short(name: str, most: int = 52) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"

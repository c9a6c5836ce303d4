"""Draw small charts as inline SVG with a text alternative, without scripts, fonts or requests elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

__all__ = ["Bar", "bands", "bars"]

_BAND_COLOURS = ("#8c6bb1", "#4292c6", "#41ab5d", "#d94801", "#c51b8a", "#6a6a6a")


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


def bands(
    width: int,
    height: int,
    lines: Sequence[tuple[str, float]],
    regions: Sequence[tuple[str, Sequence[tuple[float, float]]]],
) -> Markup:
    """Draw the overlay of a coronal picture: named landmark lines, and region bands to its right.

    Parameters
    ----------
    width, height : int
        Pixels of the picture.
    lines : sequence of (name, y)
        Landmarks, y in pixels from the top.
    regions : sequence of (name, ranges)
        Ranges of y (top, bottom) of each region.

    Returns
    -------
    Markup
        An ``svg`` element with its whole width in ``data-width``.
    """
    parts = []
    positions = _spread_labels([y for _, y in lines], 11, height)
    for (name, y), label_y in zip(lines, positions, strict=True):
        parts.append(
            Markup(
                '<path class="mark" d="M0 {0:.1f} H{1}"/><path class="lead" d="M{1} {0:.1f} L{2} {3:.1f}"/>'
                '<text class="lm" x="{4}" y="{5:.1f}">{6}</text>'
            ).format(y, width, width + 10, label_y, width + 13, label_y + 3.5, name)
        )
    start = width + (74 if lines else 12)
    for index, (name, ranges) in enumerate(regions):
        x = start + 20 * index
        colour = _BAND_COLOURS[index % len(_BAND_COLOURS)]
        for top, bottom in ranges:
            parts.append(
                Markup('<rect x="{}" y="{:.1f}" width="14" height="{:.1f}" rx="2" fill="{}"/>').format(
                    x, top, max(bottom - top, 1), colour
                )
            )
        parts.append(_band_name(name, x + 11, ranges, height))
    total = start + 20 * len(regions) + 4
    text = "; ".join([f"landmark {n}" for n, _ in lines] + [f"region {n}" for n, _ in regions])
    return Markup('<svg class="bands" role="img" aria-label="{}" viewBox="0 0 {} {}" data-width="{}">{}</svg>').format(
        text or "no landmark and no region", total, height, total, Markup("").join(parts)
    )


def _band_name(name: str, x: float, ranges: Sequence[tuple[float, float]], height: float) -> Markup:
    """Label of a region: rotated inside its longest band if it fits, else below the band, or above it at the foot."""
    top, bottom = max(ranges, key=lambda r: r[1] - r[0], default=(0.0, height))
    needed = 6.2 * len(name)
    if bottom - top >= needed:
        kind, y, anchor = "bd", (top + bottom) / 2, "middle"
    elif bottom + needed + 4 <= height:
        kind, y, anchor = "bd out", bottom + 4, "end"
    else:
        kind, y, anchor = "bd out", top - 4, "start"
    return Markup('<text class="{}" text-anchor="{}" transform="translate({},{:.1f}) rotate(-90)">{}</text>').format(
        kind, anchor, x, y, name
    )


def _spread_labels(values: Sequence[float], least: float, height: float) -> list[float]:
    """Positions for labels near `values`, at least `least` apart where they fit."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    out = list(values)
    floor = least / 2
    for i in order:
        out[i] = max(values[i], floor)
        floor = out[i] + least
    ceiling = height - least / 2
    for i in reversed(order):
        out[i] = min(out[i], ceiling)
        ceiling = out[i] - least
    return out

"""Bland-Altman plots as SVG: differences of pairs of measurements over their means, with the limits of agreement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np

from ctenrich.evaluate.retest import FeatureRepeatability

__all__ = ["bland_altman_svg"]

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 150, 48, 56
_MARGIN = 0.08
"""Share of the range that is added on both sides."""


def bland_altman_svg(one: FeatureRepeatability) -> str:
    """Draw the Bland-Altman plot of a feature.

    Returns
    -------
    str
        An SVG document with title and description; without points if no pair has both values.
    """
    statistics = one.statistics
    complete = np.isfinite(one.first) & np.isfinite(one.second)
    means = (one.first[complete] + one.second[complete]) / 2
    differences = one.second[complete] - one.first[complete]
    unit = f" ({one.measured.unit})" if one.measured.unit not in ("", "1") else ""
    title = f"{one.measured.feature}, {one.measured.segment}, {one.measured.product}"
    lines = []
    if statistics.bias is not None and statistics.limit_low is not None and statistics.limit_high is not None:
        lines = [
            ("+1.96 SD", statistics.limit_high),
            ("mean", statistics.bias),
            ("-1.96 SD", statistics.limit_low),
        ]
    across = _Axis([*means.tolist()], _LEFT, _WIDTH - _RIGHT)
    up = _Axis([*differences.tolist(), *(value for _, value in lines), 0.0], _HEIGHT - _BOTTOM, _TOP)
    text = "; ".join(f"{name} {value:.4g}" for name, value in lines) or statistics.note
    size, font = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"', 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {font} fill="#222">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(f'Bland-Altman plot of {len(means)} pairs: {text}')}</desc>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="14" font-weight="bold">{escape(_short(title))}</text>',
        *_frame(across, up),
        _label(f'x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 14}"', f"mean of test and retest{unit}"),
        _label(f'transform="translate(18 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)"', f"retest - test{unit}"),
        *(_line(name, value, up.place(value)) for name, value in lines),
        *(
            f'<circle cx="{across.place(x):.2f}" cy="{up.place(y):.2f}" r="4" fill="#1f5fa8" fill-opacity="0.75"/>'
            for x, y in zip(means.tolist(), differences.tolist(), strict=True)
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Axis:
    """A linear scale of pixels over values.

    Parameters
    ----------
    values : list of float
        Values that must be on the axis.
    start, end : int
        Pixels of its ends.
    """

    def __init__(self, values: list[float], start: int, end: int) -> None:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        margin = _MARGIN * (high - low) or max(abs(high), 1.0) * _MARGIN
        self.low, self.high = low - margin, high + margin
        self.start, self.end = start, end

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        raw = (self.high - self.low) / 4
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
        for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            yield number * step


def _frame(across: _Axis, up: _Axis) -> Iterator[str]:
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    yield f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#222"/>'
    for value in across.ticks():
        x = across.place(value)
        yield f'<path d="M{x:.2f} {bottom}v5" stroke="#222"/>'
        yield f'<text x="{x:.2f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>'
    for value in up.ticks():
        y = up.place(value)
        yield f'<path d="M{left} {y:.2f}h-5" stroke="#222"/>'
        yield f'<text x="{left - 8}" y="{y + 4:.2f}" text-anchor="end">{value:g}</text>'


def _line(name: str, value: float, y: float) -> str:
    dash = "" if name == "mean" else ' stroke-dasharray="6 4"'
    right = _WIDTH - _RIGHT
    return (
        f'<path d="M{_LEFT} {y:.2f}H{right}" stroke="#b03a2e"{dash}/>'
        f'<text x="{right + 6}" y="{y + 4:.2f}">{escape(f"{name} {value:.4g}")}</text>'
    )


def _label(place: str, text: str) -> str:
    return f'<text {place} text-anchor="middle">{escape(text)}</text>'


def _short(text: str, most: int = 76) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

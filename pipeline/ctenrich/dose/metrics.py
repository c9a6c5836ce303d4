"""Dose metrics of a structure from the doses of its samples: no histogram, linear interpolation between samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["STANDARD_METRICS", "DoseSamples", "Metric", "curve_of", "metric_value", "parse_metric"]

Floats = NDArray[np.float64]
Quantity = Literal["volume", "mean", "min", "max", "dose_at_share", "dose_at_volume", "share_at_dose", "volume_at_dose"]

_STEP = 0.1
"""Gy between the points of a curve."""
_ROUNDING = 1e-9
"""Share of a dose by which a sample may be below it and still have it: the product of an integer and a scaling."""
_FORM = re.compile(
    r"(?P<plain>volume|mean|min|max)|D(?P<amount>\d+(?:\.\d+)?)(?P<unit>%|cc)|V(?P<dose>\d+(?:\.\d+)?)Gy\[(?P<of>%|cc)\]",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One dose metric, with the name that TG-263 gives it."""

    name: str
    quantity: Quantity
    unit: str
    """Gy, cm3 or %."""
    at: float = 0.0
    """Percent of the volume, cm3, or Gy."""


def parse_metric(name: str) -> Metric:
    """Parse the name of a metric.

    Parameters
    ----------
    name : str
        ``volume``, ``mean``, ``min``, ``max``, ``D95%``, ``D2cc``, ``V20Gy[%]`` or ``V20Gy[cc]``; the unit of a
        result may follow (``D95%[Gy]``).

    Returns
    -------
    Metric

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    found = _FORM.fullmatch(
        name.strip().removesuffix("[Gy]").removesuffix("[cc]" if name.lower() == "volume[cc]" else "")
    )
    if found is None:
        hint = "metrics are volume, mean, min, max, D95%, D2cc, V20Gy[%] and V20Gy[cc]"
        raise UsageError(Reason.BAD_PARAMETER, f"{name[:40]!r} is no dose metric", hint)
    if found["plain"]:
        plain = found["plain"].lower()
        units = {"volume": "cm3"}
        names = {"volume": "Volume[cc]", "mean": "Mean[Gy]", "min": "Min[Gy]", "max": "Max[Gy]"}
        return Metric(name=names[plain], quantity=plain, unit=units.get(plain, "Gy"))  # type: ignore[arg-type]
    if found["amount"]:
        amount, cubic = float(found["amount"]), found["unit"].lower() == "cc"
        if not cubic and amount > 100:
            raise UsageError(Reason.BAD_PARAMETER, f"{name[:40]!r} asks for more than 100 % of a volume")
        quantity: Quantity = "dose_at_volume" if cubic else "dose_at_share"
        return Metric(name=f"D{amount:g}{'cc' if cubic else '%'}[Gy]", quantity=quantity, unit="Gy", at=amount)
    dose, cubic = float(found["dose"]), found["of"].lower() == "cc"
    quantity = "volume_at_dose" if cubic else "share_at_dose"
    unit = "cc" if cubic else "%"
    return Metric(name=f"V{dose:g}Gy[{unit}]", quantity=quantity, unit="cm3" if cubic else "%", at=dose)


STANDARD_METRICS: tuple[Metric, ...] = tuple(
    parse_metric(name)
    for name in (
        "volume", "mean", "min", "max", "D98%", "D95%", "D50%", "D2%", "D2cc", "D1cc", "D0.1cc", "D0.03cc",
        "V5Gy[%]", "V20Gy[%]", "V30Gy[%]", "V45Gy[%]", "V5Gy[cc]", "V20Gy[cc]", "V30Gy[cc]", "V45Gy[cc]",
    )
)  # fmt: skip
"""The metrics that are computed where none are asked for."""


@dataclass(frozen=True)
class DoseSamples:
    """Doses at the sampling points of a structure that are inside the dose grid."""

    doses: NDArray[np.floating]
    """Gy, falling."""
    volumes: NDArray[np.floating] | float
    """mm3 that each sample stands for, in the same order; one number where it is the same for all."""
    outside: float = 0.0
    """mm3 of the structure outside the dose grid."""

    @cached_property
    def inside(self) -> float:
        """mm3 inside the dose grid."""
        if isinstance(self.volumes, float):
            return self.volumes * self.doses.size
        return float(np.sum(self.volumes, dtype=np.float64))

    @property
    def volume(self) -> float:
        """mm3 of the structure."""
        return self.inside + self.outside

    @property
    def coverage(self) -> float:
        """Share of the structure inside the dose grid."""
        return 1.0 if not self.outside else self.inside / self.volume

    @cached_property
    def _ends(self) -> Floats:
        """mm3 of all samples up to and including each."""
        assert not isinstance(self.volumes, float)
        return np.cumsum(self.volumes, dtype=np.float64)

    def dose_at(self, volume: float) -> float:
        """Dose that the hottest part of the structure of this volume has at least.

        Linear interpolation between samples, each at the middle of its volume; the maximum at 0, the minimum at the
        whole volume inside the grid.

        Parameters
        ----------
        volume : float
            mm3, at most the volume inside the grid.
        """
        count = self.doses.size
        if isinstance(self.volumes, float):
            place = volume / self.volumes - 0.5
            lower = min(max(int(np.floor(place)), 0), count - 1)
            upper = min(lower + 1, count - 1)
            share = min(max(place - lower, 0.0), 1.0)
        else:
            ends = self._ends

            def middle(n: int) -> float:
                return float(ends[n] - 0.5 * self.volumes[n])  # type: ignore[index]

            lower = int(np.searchsorted(ends, volume))
            lower = min(lower, count - 1)
            if middle(lower) > volume and lower > 0:
                lower -= 1
            upper = min(lower + 1, count - 1)
            gap = middle(upper) - middle(lower)
            share = min(max((volume - middle(lower)) / gap, 0.0), 1.0) if gap > 0 else 0.0
        first, second = float(self.doses[lower]), float(self.doses[upper])
        return first + share * (second - first)

    def volume_at(self, dose: float) -> float:
        """mm3 inside the grid with at least a dose in Gy."""
        threshold = dose * (1 - _ROUNDING)
        number = self.doses.size - int(np.searchsorted(self.doses[::-1], threshold, side="left"))
        if isinstance(self.volumes, float):
            return number * self.volumes
        return float(self._ends[number - 1]) if number else 0.0

    @cached_property
    def mean(self) -> float:
        """Gy, over the volume inside the grid."""
        if isinstance(self.volumes, float):
            return float(np.mean(self.doses, dtype=np.float64))
        return float(np.sum(self.doses * self.volumes, dtype=np.float64) / self.inside)


def metric_value(samples: DoseSamples, metric: Metric) -> float | Reason:
    """Value of a metric.

    Parameters
    ----------
    samples : DoseSamples
    metric : Metric

    Returns
    -------
    float or Reason
        In the metric's unit; EMPTY_STRUCTURE, DOSE_INCOMPLETE or BEYOND_VOLUME where it has no value.
    """
    if not samples.volume:
        return Reason.EMPTY_STRUCTURE
    if metric.quantity == "volume":
        return samples.volume / 1000
    if metric.quantity == "dose_at_volume" and metric.at * 1000 > samples.volume * (1 + 1e-9):
        return Reason.BEYOND_VOLUME
    if samples.outside:
        return Reason.DOSE_INCOMPLETE
    return _value(samples, metric)


def lower_bound_of_incomplete(samples: DoseSamples, metric: Metric) -> float | None:
    """What a metric has at least, whatever the dose outside the grid is; None where nothing follows.

    It holds for the hot end: D_x of at most half of the volume, absolute V_x, and the maximum.

    Parameters
    ----------
    samples : DoseSamples
        Of a structure that is not wholly inside the dose grid.
    metric : Metric
    """
    if not samples.doses.size:
        return None
    if metric.quantity in {"max", "volume_at_dose"}:
        return _value(samples, metric)
    wanted = {"dose_at_share": metric.at / 100 * samples.volume, "dose_at_volume": metric.at * 1000}
    volume = wanted.get(metric.quantity)
    if volume is None or volume > 0.5 * samples.volume or volume > samples.inside:
        return None
    return samples.dose_at(volume)


def _value(samples: DoseSamples, metric: Metric) -> float:
    match metric.quantity:
        case "mean":
            return samples.mean
        case "min":
            return float(samples.doses[-1])
        case "max":
            return float(samples.doses[0])
        case "dose_at_share":
            return samples.dose_at(metric.at / 100 * samples.volume)
        case "dose_at_volume":
            return samples.dose_at(metric.at * 1000)
        case "share_at_dose":
            return 100 * samples.volume_at(metric.at) / samples.volume
        case "volume_at_dose":
            return samples.volume_at(metric.at) / 1000
        case _:
            return samples.volume / 1000


def curve_of(samples: DoseSamples, *, step: float = _STEP) -> tuple[Floats, Floats]:
    """Cumulative dose-volume curve.

    Parameters
    ----------
    samples : DoseSamples
    step : float
        Gy between two points.

    Returns
    -------
    doses : array, (n,)
        Gy: 0, step, 2 step, ..., the last above the maximum.
    volumes : array, (n,)
        cm3 inside the grid with at least this dose.
    """
    top = float(samples.doses[0]) if samples.doses.size else 0.0
    doses: Floats = step * np.arange(int(np.floor(top / step)) + 2, dtype=np.float64)
    return doses, np.array([samples.volume_at(float(dose)) / 1000 for dose in doses])

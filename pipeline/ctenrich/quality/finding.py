"""One finding of a check, and its weight in the ranked list."""

from __future__ import annotations

from dataclasses import dataclass

from ctenrich.records import Severity

__all__ = ["Finding", "above", "below", "note", "outside"]

_WEIGHTS = {Severity.ERROR: 10.0, Severity.WARNING: 3.0, Severity.NOTE: 0.0}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found in one organ of one product of one series."""

    organ: str
    """Key of mappings/segments.csv; empty: the series or the product as a whole."""
    check: str
    value: float | None
    low: float | None = None
    """Lower limit; None if there is none."""
    high: float | None = None
    """Upper limit."""
    unit: str = ""
    severity: Severity = Severity.WARNING
    sentence: str
    slice_index: int | None = None
    """Slice of the source volume on which to look."""

    @property
    def weight(self) -> float:
        """Weight in the ranked list: by severity, up to twice as much the further a value is beyond its limit."""
        base = _WEIGHTS[self.severity]
        if self.value is None:
            return base
        if self.low is not None and self.value < self.low:
            return base * (1 + min(1.0, (self.low - self.value) / (abs(self.low) or 1.0)))
        if self.high is not None and self.value > self.high:
            return base * (1 + min(1.0, (self.value - self.high) / (abs(self.high) or 1.0)))
        return base


def outside(
    organ: str,
    check: str,
    value: float,
    limits: tuple[float, float],
    unit: str,
    *,
    severity: Severity = Severity.WARNING,
) -> Finding | None:
    """Finding for a value outside a range; None if it is inside.

    Parameters
    ----------
    organ, check : str
    value : float
    limits : (float, float)
    unit : str
        Unit, and words that follow the value.
    severity : Severity

    Returns
    -------
    Finding or None
    """
    low, high = limits
    if low <= value <= high:
        return None
    word = "less than" if value < low else "more than"
    sentence = f"{organ}: {check.replace('_', ' ')} {value:.4g} {unit}, {word} the usual {low:g} to {high:g} {unit}"
    return Finding(
        organ=organ, check=check, value=value, low=low, high=high, unit=unit, severity=severity, sentence=sentence
    )


def below(
    organ: str, check: str, value: float, low: float, sentence: str, *, severity: Severity = Severity.ERROR
) -> Finding:
    """Finding for a value below its limit.

    Parameters
    ----------
    organ, check : str
    value, low : float
    sentence : str
    severity : Severity
    """
    return Finding(organ=organ, check=check, value=value, low=low, severity=severity, sentence=sentence)


def above(
    organ: str, check: str, value: float, high: float, sentence: str, *, severity: Severity = Severity.ERROR
) -> Finding:
    """Finding for a value above its limit.

    Parameters
    ----------
    organ, check : str
    value, high : float
    sentence : str
    severity : Severity
    """
    return Finding(organ=organ, check=check, value=value, high=high, severity=severity, sentence=sentence)


def note(organ: str, check: str, sentence: str, value: float | None = None) -> Finding:
    """Finding that is worth knowing and no sign of a mistake.

    Parameters
    ----------
    organ, check, sentence : str
    value : float, optional
    """
    return Finding(organ=organ, check=check, value=value, severity=Severity.NOTE, sentence=sentence)

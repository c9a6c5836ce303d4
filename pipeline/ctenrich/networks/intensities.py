"""Steps that turn Hounsfield units into a network's input, with the results of the same transforms of MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Intensity", "IntensityStep", "apply_intensities"]


class IntensityStep(StrEnum):
    """Steps by name; `Intensity.values` are their numbers."""

    CLIP = "clip"
    """Lowest and highest value."""
    RANGE = "range"
    """a, b, c, d: a becomes c, b becomes d, all others in proportion (``ScaleIntensityRanged`` without clip)."""
    STANDARD = "standard"
    """Mean and standard deviation: (value - mean) / deviation."""
    ZSCORE = "zscore"
    """The same with mean and deviation of the volume itself (``NormalizeIntensityd``)."""
    ZSCORE_NONZERO = "zscore_nonzero"
    """The same of the values other than 0, which alone are changed (``nonzero=True``)."""
    MINMAX = "minmax"
    """Values of the result's minimum and maximum (``ScaleIntensityd``)."""

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return {"clip": 2, "range": 4, "standard": 2, "minmax": 2}.get(self.value, 0)


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """One step."""

    step: IntensityStep
    values: tuple[float, ...] = ()


def apply_intensities(data: torch.Tensor, steps: Sequence[Intensity]) -> torch.Tensor:
    """Apply steps in their order.

    Parameters
    ----------
    data : tensor, float32
        May be changed.
    steps : sequence of Intensity

    Returns
    -------
    tensor, float32
    """
    for step in steps:
        data = _apply(data, step)
    return data


def _apply(data: torch.Tensor, step: Intensity) -> torch.Tensor:
    values = step.values
    if step.step is IntensityStep.CLIP:
        return data.clamp_(values[0], values[1])
    if step.step is IntensityStep.RANGE:
        a_min, a_max, b_min, b_max = values
        return (data - a_min) / (a_max - a_min) * (b_max - b_min) + b_min
    if step.step is IntensityStep.STANDARD:
        return (data - values[0]) / values[1]
    if step.step is IntensityStep.MINMAX:
        lowest, highest = data.min(), data.max()
        if bool(lowest == highest):
            return data * values[0]
        return (data - lowest) / (highest - lowest) * (values[1] - values[0]) + values[0]
    return _zscore(data, nonzero=step.step is IntensityStep.ZSCORE_NONZERO)


def _zscore(data: torch.Tensor, *, nonzero: bool) -> torch.Tensor:
    inside = data != 0 if nonzero else None
    if inside is not None and not bool(inside.any()):
        return data
    values = data if inside is None else data[inside]
    mean, deviation = values.mean().item(), values.std(correction=0).item()
    changed = (values - mean) / (deviation or 1.0)
    if inside is None:
        return changed
    data[inside] = changed
    return data

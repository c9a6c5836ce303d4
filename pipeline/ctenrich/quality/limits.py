"""Read the limits of the checks from limits.toml, or from a file of the user's with the same tables."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["Limits", "OrganLimits", "load_limits"]

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class OrganLimits:
    """What is usual for an organ of an adult; None where nothing is stated."""

    volume_ml: Range | None = None
    female: Range | None = None
    """Volume where the sex is known."""
    male: Range | None = None
    extent_mm: Range | None = None
    """Longest side of the bounding box."""
    hu: Range | None = None
    """Median attenuation."""
    foreign_hu: Range | None = None
    """Voxels outside this range are other tissue."""
    foreign_share: float = 1.0
    scores: Range | None = None
    """Slice scores of body part regression at the organ's centre."""
    tube: bool = False
    """Ends abruptly along z by definition."""
    covers: float | None = None
    """Least share of the height of the lungs that it spans."""
    width_by_depth: Range | None = None
    """Width by depth of a tube's cross-sections, from their second moments; the median over its slices."""

    def volume_of(self, sex: str | None) -> Range | None:
        """Range of the volume, mL, by sex (F, M) where it is known."""
        return {"F": self.female, "M": self.male}.get(sex or "") or self.volume_ml


@dataclass(frozen=True, kw_only=True)
class Limits:
    """All limits: numbers by check and name, and by organ."""

    numbers: Mapping[str, Mapping[str, float]]
    organs: Mapping[str, OrganLimits] = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all limits, hexadecimal."""
        organs = {name: asdict(limits) for name, limits in self.organs.items()}
        text = json.dumps([{k: dict(v) for k, v in self.numbers.items()}, organs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def number(self, check: str, name: str) -> float:
        """One number of a check's table."""
        return float(self.numbers[check][name])

    def organ(self, name: str) -> OrganLimits:
        """Limits of an organ; empty ones for an organ that is not listed."""
        return self.organs.get(name, _NOTHING)


_NOTHING = OrganLimits()


def load_limits(path: Path | None = None) -> Limits:
    """Load the limits.

    Parameters
    ----------
    path : Path, optional
        A TOML file whose numbers replace those of the package.

    Returns
    -------
    Limits

    Raises
    ------
    UsageError
        BAD_SETTINGS if the file is not TOML, or has a table or number that the package's file does not have.
    """
    own = _packaged()
    if path is None:
        return own
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(Reason.NOT_FOUND, f"there is no file {path}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name} is not a TOML file: {error}") from error
    numbers = {check: dict(values) for check, values in own.numbers.items()}
    organs = dict(own.organs)
    for check, values in found.items():
        if check == "organs" and isinstance(values, dict):
            organs |= {name: _organ_limits(name, row, organs.get(name, _NOTHING)) for name, row in values.items()}
            continue
        known = numbers.get(check)
        wrong = [key for key in values if known is None or key not in known] if isinstance(values, dict) else [check]
        if known is None or wrong:
            raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: there is no limit {check}.{wrong[0] if wrong else ''}")
        known.update(values)
    return Limits(numbers=numbers, organs=organs)


@cache
def _packaged() -> Limits:
    found = tomllib.loads((files(__package__) / "limits.toml").read_text("utf-8"))
    organs = {name: _organ_limits(name, row, _NOTHING) for name, row in found.pop("organs").items()}
    return Limits(numbers=found, organs=organs)


def _organ_limits(name: str, row: Any, base: OrganLimits) -> OrganLimits:
    known = {f.name for f in fields(OrganLimits)}
    if not isinstance(row, dict) or set(row) - known:
        raise UsageError(Reason.BAD_SETTINGS, f"organs.{name}: limits are {', '.join(sorted(known))}")
    values = {f.name: getattr(base, f.name) for f in fields(OrganLimits)}
    for key, value in row.items():
        values[key] = (float(value[0]), float(value[1])) if isinstance(value, list) and len(value) == 2 else value
    return OrganLimits(**values)

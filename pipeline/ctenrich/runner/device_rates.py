"""Measured rates of kinds of devices, which ship with the package: ``device_rates.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason

__all__ = ["DEFAULT_DEVICE", "DeviceRates", "device_rates", "rates_of_device"]

DEFAULT_DEVICE = "cpu-2"
"""Kind of device whose rates serve a machine that has none of its own."""


@dataclass(frozen=True, kw_only=True)
class DeviceRates:
    """What was measured on one kind of device."""

    device: str
    """Description of the machine."""
    source: str
    """What was measured, how, and by which version."""
    seconds: Mapping[str, float]
    """``stage`` or ``stage:kind`` -> seconds per slice of 512 x 512 pixels."""


@cache
def device_rates() -> Mapping[str, DeviceRates]:
    """Return the rates of all kinds of devices, by name."""
    content = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return MappingProxyType({name: DeviceRates(**entry) for name, entry in content.items()})


def rates_of_device(name: str) -> DeviceRates:
    """Return the rates of a kind of device.

    Parameters
    ----------
    name : str
        One of :func:`device_rates`.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown name.
    """
    known = device_rates()
    if name not in known:
        hint = did_you_mean(name, list(known), f"there are {', '.join(known)}")
        raise UsageError(Reason.BAD_PARAMETER, f"nothing was measured on a device {name[:40]!r}", hint)
    return known[name]

"""Device and precision that networks run with: one choice, the same for every kind of product."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import torch

__all__ = ["PRECISIONS", "check_device", "check_device_name", "check_precision", "choose_device"]

PRECISIONS = ("fp32", "bf16", "fp16")
"""Precisions of a forward pass, as ``segment.precision`` names them; weights are always read as fp32."""


def check_device_name(name: str) -> str:
    """Return `name` if it has the form of a device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    UsageError
        BAD_SETTINGS.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        hint = did_you_mean(name, ("auto", "cpu", "cuda"), "use auto, cpu or cuda:N")
        raise UsageError(Reason.BAD_SETTINGS, f"{name!r} is not a device", hint)
    return name


def choose_device(name: str) -> torch.device:
    """Return the device that a setting names: ``auto`` is the first CUDA device of the machine, else its CPU.

    Raises
    ------
    UsageError
        BAD_SETTINGS if the name is not a device, or if the device is not on this machine.
    """
    import torch  # heavy; only products with a network need it

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(check_device_name(name))
    missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if missing:
        raise UsageError(Reason.BAD_SETTINGS, f"this machine has no device {name}", "use auto, cpu or cuda:N")
    return device


def check_device(name: str) -> None:
    """Refuse a device that does not exist, also where no network is going to run on it.

    Only a CUDA device is looked for with torch, so that a run without networks starts without it.

    Raises
    ------
    UsageError
        BAD_SETTINGS if the name is not a device, or if the device is not on this machine.
    """
    if check_device_name(name).startswith("cuda"):
        choose_device(name)


def check_precision(name: str) -> str:
    """Return `name` if it is one of `PRECISIONS`.

    Raises
    ------
    UsageError
        BAD_SETTINGS.
    """
    if name not in PRECISIONS:
        raise UsageError(Reason.BAD_SETTINGS, f"unknown precision {name!r}", f"use {', '.join(PRECISIONS)}")
    return name

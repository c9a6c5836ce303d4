"""What runs at the same time: resources of this machine by name, and what each step takes of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ctenrich.errors import UsageError
from ctenrich.flows.records import Step
from ctenrich.reasons import Reason

__all__ = ["Allotment", "Capacity", "FreeResources", "Needs", "needs_of", "parse_capacity"]

_CPU, _GPU = "cpu", "gpu"
_RESOURCE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(\d{1,4})")


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Resources of a machine."""

    cpus: float
    gpus: tuple[str, ...] | None = None
    """Names of the GPUs, e.g. ``0``; None: not stated, one step with a GPU runs at a time."""
    tags: Mapping[str, int] = field(default_factory=dict)
    """Name of a resource -> how many there are."""


def parse_capacity(resources: Sequence[str]) -> Capacity:
    """Parse resources that are stated as ``NAME=NUMBER``.

    Parameters
    ----------
    resources : sequence of str
        ``cpu=8`` (otherwise the CPUs that this process may use), ``gpu=2`` (GPUs ``0`` and ``1``), and names that
        ``tags`` of steps ask for.

    Returns
    -------
    Capacity

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    found: dict[str, int] = {}
    for text in resources:
        match = _RESOURCE.fullmatch(text)
        if match is None or match[1] in found or (match[1] == _CPU and match[2] == "0"):
            hint = "write NAME=NUMBER once per name, e.g. cpu=8, gpu=1 or a tag of your own"
            raise UsageError(Reason.BAD_PARAMETER, f"{text[:80]!r} states no resource", hint)
        found[match[1]] = int(match[2])
    cpus = found.pop(_CPU, len(os.sched_getaffinity(0)))
    gpus = tuple(map(str, range(found.pop(_GPU)))) if _GPU in found else None
    return Capacity(cpus=cpus, gpus=gpus, tags=found)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a step takes while it runs."""

    cpus: float = 1.0
    gpu: bool = False
    device: str = ""
    """Name of the GPU; empty: any."""
    tags: frozenset[str] = frozenset()
    """Takes one of each."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the resources."""
        return self.tags | {_CPU} | ({_GPU} if self.gpu else set())


def needs_of(step: Step) -> Needs:
    """Return what a step takes; one that states no ``cpus`` counts as one."""
    return Needs(cpus=step.limits.cpus or 1.0, gpu=step.gpu, device=step.device, tags=frozenset(step.tags))


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """What a step was given."""

    needs: Needs
    device: str = ""
    """Name of its GPU; empty: none, or not stated which."""


class FreeResources:
    """Resources that no running step has.

    Parameters
    ----------
    capacity : Capacity
        All of them.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._cpus = capacity.cpus
        self._gpus = [""] if capacity.gpus is None else list(capacity.gpus)
        self._tags = dict(capacity.tags)

    def lacking(self, needs: Needs) -> frozenset[str]:
        """Names of the resources of which too few are free; empty: the step can start."""
        found = {tag for tag in needs.tags if self._tags.get(tag, 0) < 1}
        if self._cpus < needs.cpus:
            found.add(_CPU)
        if needs.gpu and self._device(needs) is None:
            found.add(_GPU)
        return frozenset(found)

    def take(self, needs: Needs) -> Allotment:
        """Take what a step needs; `lacking` is empty."""
        self._cpus -= needs.cpus
        for tag in needs.tags:
            self._tags[tag] -= 1
        device = self._device(needs) if needs.gpu else None
        if device is not None:
            self._gpus.remove(device)
        return Allotment(needs=needs, device=device or "")

    def give_back(self, allotment: Allotment) -> None:
        """Free what a step had."""
        self._cpus += allotment.needs.cpus
        for tag in allotment.needs.tags:
            self._tags[tag] += 1
        if allotment.needs.gpu:
            self._gpus = sorted([*self._gpus, allotment.device])

    def _device(self, needs: Needs) -> str | None:
        """A free GPU that a step may have."""
        fitting: Iterable[str] = (one for one in self._gpus if one in ("", needs.device) or not needs.device)
        return next(iter(fitting), None)

"""Check the graph of a flow's steps: each mount has one producer, everything is read, and there is no circle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from ctenrich.errors import did_you_mean
from ctenrich.flows.findings import Findings
from ctenrich.flows.records import DST, SRC, Position, Role, Step

__all__ = ["check_graph"]


def check_graph(steps: Sequence[Step], roles: Sequence[Role], end: Position, findings: Findings) -> None:
    """Add a fault for each thing that keeps the steps from being run in an order.

    Results of built-in products have names of their own, so several of them may write to ``dst``; of containers and
    commands only one may.

    Parameters
    ----------
    steps : sequence of Step
        The steps.
    roles : sequence of Role
        Roles are sources like ``src``.
    end : Position
        Place of the list, for faults of the whole.
    findings : Findings
        Gets the faults.
    """
    _check_names(steps, findings)
    sources = {SRC, *(role.name for role in roles)}
    producers: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        for mount in step.outputs:
            producers[mount.source].append(step)
            if mount.source in sources:
                findings.fault(step.place, f"{mount.source} is an input of the flow; {step.name} cannot write it")
        paths = {mount.target for mount in step.inputs} & {mount.target for mount in step.outputs}
        for path in sorted(paths):
            findings.fault(step.place, f"{step.name} reads and writes {path}")
    for name, makers in producers.items():
        if len(makers) > 1 and not (name == DST and sum(not step.use for step in makers) < 2):
            names = " and ".join(step.name for step in makers)
            findings.fault(makers[1].place, f"{names} both write {name}; one mount has one producer")
    if steps and DST not in producers:
        findings.fault(end, f"no model writes {DST}: there would be no result")
    _check_reads(steps, sources, producers, findings)
    _check_order(steps, producers, findings)


def _check_names(steps: Sequence[Step], findings: Findings) -> None:
    seen: set[str] = set()
    for step in steps:
        if step.name in seen:
            findings.fault(step.place, f"two models are called {step.name}")
        seen.add(step.name)


def _check_reads(
    steps: Sequence[Step], sources: set[str], producers: dict[str, list[Step]], findings: Findings
) -> None:
    read = {mount.source for step in steps for mount in step.inputs}
    if steps and not read & sources:
        findings.fault(steps[0].place, f"no model reads {SRC} or a role")
    for step in steps:
        for mount in step.inputs:
            if mount.source == DST:
                findings.fault(step.place, f"{step.name} reads {DST}, which is for results only")
            elif mount.source not in sources and mount.source not in producers:
                hint = did_you_mean(mount.source, [*sources, *producers])
                findings.fault(step.place, f"nothing produces {mount.source}, which {step.name} reads", hint)
        for mount in step.outputs:
            if mount.source not in read and mount.source != DST:
                hint = f"remove it, or let another model read it; results go to {DST}"
                findings.fault(step.place, f"nothing reads {mount.source}, which {step.name} writes", hint)


def _check_order(steps: Sequence[Step], producers: dict[str, list[Step]], findings: Findings) -> None:
    before = {
        number: {
            steps.index(maker)
            for mount in step.inputs
            if mount.source not in (SRC, DST)
            for maker in producers.get(mount.source, ())
        }
        for number, step in enumerate(steps)
    }
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        circle = [steps[number] for number in error.args[1]]
        findings.fault(circle[0].place, f"the models wait for each other: {' -> '.join(step.name for step in circle)}")

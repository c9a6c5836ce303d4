"""Read a flow file: everything that is wrong with it is found before any image meets it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import CtenrichError, UsageError, did_you_mean
from ctenrich.flows.errors import BadFlowError
from ctenrich.flows.findings import Findings
from ctenrich.flows.graph_checks import check_graph
from ctenrich.flows.read_sending import read_close, read_destination, read_hook
from ctenrich.flows.read_steps import read_step, read_subfolders
from ctenrich.flows.read_triggers import read_roles, read_triggers
from ctenrich.flows.records import Destination, Flow, Step, When
from ctenrich.flows.static_files import static_path
from ctenrich.flows.yaml_nodes import MAX_BYTES, Node, read_nodes
from ctenrich.inference.kinds import BUILT_IN, GROUP
from ctenrich.inference.products import parse_segmenter
from ctenrich.reasons import Reason
from ctenrich.resources import plugins

__all__ = ["Machine", "parse_flow", "read_flow"]

_KEYS = (
    "name", "version", "priority", "triggers", "never", "roles", "close", "models", "steps", "subfolders",
    "tar_subdir", "destinations", "return_to_sender_on_ports", "return_to_sender_on_port", "fallback", "shadow", "when",
    "hooks", "extra",
)  # fmt: skip
_SPELLINGS = {
    "steps": "models",
    "tar_subdir": "subfolders",
    "return_to_sender_on_port": "return_to_sender_on_ports",
}
"""Another spelling -> the one that is used."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine has; a flow that needs something else is refused when it is read."""

    has_image: Callable[[str], bool] | None = None
    """Whether a container image is there; None: it is not asked."""
    gpus: tuple[str, ...] | None = None
    """Names of its GPUs, e.g. ``0``; None: it is not asked."""
    tags: frozenset[str] | None = None
    """Resources that steps may ask for by name; None: it is not asked."""
    cpus: float | None = None
    """CPUs for containers; None: it is not asked."""
    commands: frozenset[str] | None = None
    """Programs that steps may run; None: it is not asked."""
    static: str | None = None
    """Folder of static files, empty if there is none; None: it is not asked."""
    has_containers: bool = True
    """Whether containers can be run."""


def read_flow(path: Path, machine: Machine | None = None) -> Flow:
    """Read a flow file.

    Parameters
    ----------
    path : Path
        YAML file.
    machine : Machine, optional
        What images and devices the flow may need; None: they are not asked.

    Returns
    -------
    Flow
        Checked, with notes about spellings that were normalised and about risks.

    Raises
    ------
    UsageError
        NOT_FOUND; BAD_FLOW (`BadFlowError`) with all faults.
    """
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(Reason.NOT_FOUND, f"{path.name} cannot be read: {error.strerror}") from error
    return parse_flow(content, path, machine)


def parse_flow(content: bytes, path: Path, machine: Machine | None = None) -> Flow:
    """Parse the content of a flow file.

    Parameters
    ----------
    content : bytes
        Its bytes.
    path : Path
        Names the flow if the file does not.
    machine : Machine, optional
        As `read_flow`.

    Returns
    -------
    Flow

    Raises
    ------
    BadFlowError
        BAD_FLOW, with all faults.
    """
    top, findings = read_nodes(content, path.name), Findings()
    entries = _entries(top, findings)
    roles = read_roles(entries["roles"], findings) if "roles" in entries else ()
    triggers = read_triggers(entries["triggers"], "triggers", findings) if "triggers" in entries else ()
    never = read_triggers(entries["never"], "never", findings) if "never" in entries else ()
    if not triggers and not roles:
        place = entries["triggers"].place if "triggers" in entries else top.place
        findings.fault(place, "a flow needs triggers or roles", "- {} is a trigger that every file matches")
    for one in never:
        if not one.conditions:
            findings.fault(one.place, "never: a trigger without conditions excludes every case")
    subfolders = read_subfolders(entries.get("subfolders"), findings)
    models = entries.get("models")
    items = findings.items(models, "models") if models is not None else ()
    steps = tuple(read_step(one, number, subfolders, findings) for number, one in enumerate(items, 1))
    if not steps:
        findings.fault(models.place if models is not None else top.place, "a flow needs models")
    check_graph(steps, roles, models.place if models is not None else top.place, findings)
    for step in steps:
        _check_step(step, machine or Machine(), findings)
    names = [role.name for role in roles]
    flow = Flow(
        name=findings.text(entries.get("name"), "name") or path.stem,
        version=findings.text(entries.get("version"), "version"),
        path=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        triggers=triggers,
        never=never,
        roles=roles,
        close=read_close(entries["close"], names, findings) if "close" in entries else None,
        steps=steps,
        destinations=_destinations(entries.get("destinations"), findings),
        return_to_sender_ports=_ports(entries.get("return_to_sender_on_ports"), findings),
        priority=findings.whole(entries.get("priority"), "priority", (0, 5)),
        fallback=findings.flag(entries.get("fallback"), "fallback"),
        shadow=_shadow(entries, findings),
        when=_when(entries, findings),
        when_place=entries["when"].place if "when" in entries else top.place,
        hooks=tuple(read_hook(one, findings) for one in findings.items(entries["hooks"], "hooks"))
        if "hooks" in entries
        else (),
        extra=_extra(entries.get("extra"), findings),
        notes=tuple(sorted(findings.notes, key=lambda note: note.place)),
    )
    if findings.faults:
        raise BadFlowError(path.name, tuple(findings.faults))
    return flow


def _entries(top: Node, findings: Findings) -> dict[str, Node]:
    """Entries of a file by the names that are used here."""
    found: dict[str, Node] = {}
    for key, node in findings.entries(top, _KEYS, "a flow").items():
        name = _SPELLINGS.get(key, key)
        if key not in (name, "steps"):
            findings.note(top.keys[key], f"{key} is taken as {name}")
        if name in found:
            findings.fault(top.keys[key], f"{name} is stated under two names")
        found[name] = node
    return found


def _destinations(node: Node | None, findings: Findings) -> tuple[Destination, ...]:
    if node is None:
        return ()
    found = tuple(read_destination(one, findings) for one in findings.items(node, "destinations"))
    seen: set[str] = set()
    for one in found:
        if one.name in seen:
            findings.fault(one.place, f"two destinations are called {one.name}")
        seen.add(one.name)
    return found


def _ports(node: Node | None, findings: Findings) -> tuple[int, ...]:
    if node is None:
        return ()
    nodes = findings.items(node, "return_to_sender_on_ports") if not node.is_text else (node,)
    if node.is_text:
        findings.note(node.place, "return_to_sender_on_ports: one port is taken as a list of one")
    return tuple(findings.whole(one, "a port", (1, 65535)) for one in nodes)


def _when(entries: dict[str, Node], findings: Findings) -> When:
    """When a flow may run."""
    found = findings.choice(entries.get("when"), "when", When, When.ANY)
    if found is not When.ANY:
        findings.note(entries["when"].place, f"when: {found}: a listener has no off-peak hours, and refuses this flow")
    return found


def _shadow(entries: dict[str, Node], findings: Findings) -> bool:
    """Whether a flow is a shadow; it does not state what a shadow never does."""
    shadow = findings.flag(entries.get("shadow"), "shadow")
    for key in ("destinations", "return_to_sender_on_ports", "hooks", "fallback", "close") if shadow else ():
        if key in entries and entries[key].value:
            hint = "a shadow sends nothing, and runs when the case closes for other flows"
            findings.fault(entries[key].place, f"{key} of a flow with shadow: true has no effect", hint)
    return shadow


def _extra(node: Node | None, findings: Findings) -> dict[str, object]:
    if node is None:
        return {}
    findings.mapping(node, "extra")
    found = node.plain()
    return found if isinstance(found, dict) else {}


def _check_step(step: Step, machine: Machine, findings: Findings) -> None:
    """Refuse a step that this machine can never run."""
    if step.use:
        _check_use(step, findings)
    elif not step.image:
        _check_command(step, machine, findings)
    elif not machine.has_containers:
        findings.fault(step.place, f"{step.name}: containers cannot be run here")
    elif machine.has_image is not None and not machine.has_image(step.image):
        findings.fault(
            step.place, f"the image {step.image} is not on this machine", "images are never pulled implicitly"
        )
    _check_static(step, machine, findings)
    if step.gpu and machine.gpus is not None:
        if not machine.gpus:
            findings.fault(step.place, f"{step.name} needs a GPU, and this machine has none")
        elif step.device and step.device not in machine.gpus:
            findings.fault(step.place, f"there is no GPU {step.device}", did_you_mean(step.device, machine.gpus))
    if machine.tags is not None:
        for tag in step.tags:
            findings.is_known(step.place, tag, "a tag", sorted(machine.tags))
    if machine.cpus is not None and step.limits.cpus > machine.cpus:
        message = f"{step.name} needs {step.limits.cpus:g} CPUs, and containers may have {machine.cpus:g}"
        findings.fault(step.place, message)


def _check_command(step: Step, machine: Machine, findings: Findings) -> None:
    """Refuse a program that the station does not allow by name."""
    if step.command and machine.commands is not None and step.command[0] not in machine.commands:
        hint = "name its absolute path in commands of [run], in station.toml"
        findings.fault(step.place, f"{step.command[0]} is not among the commands that are allowed here", hint)


def _check_static(step: Step, machine: Machine, findings: Findings) -> None:
    if machine.static is None:
        return
    for mount in step.static_mounts:
        try:
            static_path(machine.static, mount.source)
        except UsageError as error:
            findings.fault(step.place, error.message, error.hint)


def _check_use(step: Step, findings: Findings) -> None:
    """Refuse a built-in product that does not exist; its model is opened when the flow runs."""
    kind, _, model = step.use.partition(":")
    known = sorted({*BUILT_IN, *plugins(GROUP)})
    if kind not in known:
        hint = did_you_mean(kind, known, f"known: {', '.join(known)}")
        findings.fault(step.place, f"there is no product {kind!r}", hint)
        return
    if kind == "bodypart":
        if not model:
            findings.fault(step.place, "bodypart needs a model: bodypart:MODEL")
        return
    try:
        parse_segmenter(step.use)
    except CtenrichError as error:
        findings.fault(step.place, f"use: {error.message}", error.hint)

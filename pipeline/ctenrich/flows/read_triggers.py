"""Read triggers, vetoes and roles of a flow file."""

from __future__ import annotations

import re

from ctenrich.errors import did_you_mean
from ctenrich.flows.attributes import AttributeProblem, parse_attribute
from ctenrich.flows.findings import Findings
from ctenrich.flows.patterns import PatternProblem, check_regex
from ctenrich.flows.records import DST, SRC, Condition, Pattern, Position, Role, Trigger
from ctenrich.flows.yaml_nodes import Node

__all__ = ["read_roles", "read_triggers"]

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_UID = re.compile(r"(?:\d+(?:\\?\.)){3,}\d+")
_SERIES = "series"
_OPTION = re.compile(r"[a-z_]+")
"""A key of a role that is no keyword: those begin with a capital letter."""


def read_triggers(node: Node, name: str, findings: Findings) -> tuple[Trigger, ...]:
    """Read a list of triggers.

    Parameters
    ----------
    node : Node
        The list.
    name : str
        ``triggers`` or ``never``.
    findings : Findings
        Gets faults and notes.

    Returns
    -------
    tuple of Trigger
    """
    if isinstance(node.value, dict):
        findings.fault(node.place, f"{name} must be a list of mappings", "begin each trigger with - and a blank")
        return ()
    return tuple(_trigger(one, findings) for one in findings.items(node, name))


def _trigger(node: Node, findings: Findings) -> Trigger:
    conditions = []
    for key, value in findings.mapping(node, "a trigger").items():
        try:
            attribute = parse_attribute(key)
        except AttributeProblem as problem:
            findings.fault(node.keys[key], str(problem), problem.hint)
            continue
        if attribute.name != key:
            findings.note(node.keys[key], f"{key} is {attribute.name}")
        patterns = tuple(one for item in _pattern_nodes(value, key, findings) for one in _pattern(item, findings))
        if attribute.name.endswith("UID"):
            for pattern in patterns:
                _check_uid(pattern, attribute.name, findings)
        conditions.append(Condition(attribute=attribute, patterns=patterns))
    return Trigger(conditions=tuple(conditions), place=node.place)


def _pattern_nodes(node: Node, key: str, findings: Findings) -> tuple[Node, ...]:
    if node.is_text:
        findings.note(node.place, f"{key}: one pattern is taken as a list of one")
        return (node,)
    if not isinstance(node.value, tuple) or not node.value:
        hint = "write '.*' for: the attribute is there"
        findings.fault(node.place, f"{key} needs a pattern or a list of patterns", hint)
        return ()
    return node.value


def _pattern(node: Node, findings: Findings) -> tuple[Pattern, ...]:
    if not node.is_text:
        findings.fault(node.place, "a pattern must be a text")
        return ()
    negative = node.text.startswith("~")
    regex = node.text[1:] if negative else node.text
    if negative and not regex:
        findings.fault(node.place, "~ without a pattern excludes every file")
        return ()
    if regex.startswith("~"):
        findings.note(node.place, f"{node.text} means: {regex} is not found; only the first ~ negates")
    try:
        remark = check_regex(regex)
    except PatternProblem as problem:
        findings.fault(_place_in(node, problem.offset + negative), str(problem))
        return ()
    if remark:
        findings.note(node.place, f"{regex}: {remark}")
    return (Pattern(text=node.text, regex=regex, negative=negative, place=node.place),)


def _place_in(node: Node, offset: int) -> Position:
    """Place of a character of a text, where text and file have the same characters."""
    if node.style in ("|", ">", '"') or "\n" in node.text or (node.style == "'" and "'" in node.text):
        return node.place
    return Position(node.place.line, node.place.column + offset + bool(node.style))


def _check_uid(pattern: Pattern, name: str, findings: Findings) -> None:
    if _UID.fullmatch(pattern.regex):
        findings.note(
            pattern.place,
            f"{name}: {pattern.regex} is found in every UID that continues it; ^{re.escape(pattern.regex)}$ is that UID"
            if "\\" not in pattern.regex
            else f"{name}: {pattern.regex} is found in every UID that continues it; put it between ^ and $",
        )


def read_roles(node: Node, findings: Findings) -> tuple[Role, ...]:
    """Read the roles of a flow: name -> a trigger, or a list of triggers of which a file must match one.

    Parameters
    ----------
    node : Node
        The mapping.
    findings : Findings
        Gets faults and notes.

    Returns
    -------
    tuple of Role
    """
    roles = []
    for name, value in findings.mapping(node, "roles").items():
        place = node.keys[name]
        if _ROLE.fullmatch(name) is None or name in (SRC, DST):
            findings.fault(place, f"a role cannot be called {name!r}", "use letters, digits, _ and -; not src or dst")
            continue
        series = 1
        nodes = value.value if isinstance(value.value, tuple) else (value,)
        if isinstance(value.value, dict) and _SERIES in value.value:
            series = findings.whole(value.value[_SERIES], f"{name}.series", (1, 1000), 1)
            rest = {key: one for key, one in value.value.items() if key != _SERIES}
            nodes = (Node(rest, value.place, value.keys),)
        for one in nodes:
            if isinstance(one.value, dict):
                for key in filter(_OPTION.fullmatch, one.value):
                    hint = did_you_mean(key, [_SERIES], "a role has keywords with patterns, and series")
                    findings.fault(one.keys[key], f"role {name} has no key {key}", hint)
            if not isinstance(one.value, dict) or not one.value:
                findings.fault(one.place, f"role {name} needs keywords with patterns")
        good = [one for one in nodes if isinstance(one.value, dict) and not any(map(_OPTION.fullmatch, one.value))]
        roles.append(Role(name=name, triggers=tuple(_trigger(one, findings) for one in good), series=series))
    return tuple(roles)

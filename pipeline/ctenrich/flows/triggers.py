"""Match the files of a case with a flow: whether it fires, with which files, and why.

A file matches a trigger if every pattern of every condition holds: a positive one is found in the text of the value
(``re.search``), a negative one is not. An attribute that a file lacks has no text: no positive pattern holds, every
negative one does. A flow fires if each trigger matches a file, each role has its series, and no file matches `never`.
Its input is every file that matches a trigger or a role, once, in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ctenrich.flows.patterns import search
from ctenrich.flows.records import Attribute, Flow, Pattern, Trigger

__all__ = ["CaseFile", "Failure", "FlowMatch", "TextFile", "attributes_of", "file_matches", "match_flow", "match_flows"]


class CaseFile(Protocol):
    """A file of a case, as triggers see it."""

    @property
    def series(self) -> str:
        """Series Instance UID."""

    def text(self, attribute: Attribute) -> str | None:
        """Text of an attribute; None if the file lacks it."""


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A file whose texts are known."""

    series: str
    texts: Mapping[Attribute, str]

    def text(self, attribute: Attribute) -> str | None:
        """Text of an attribute; None if the file lacks it."""
        return self.texts.get(attribute)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a flow did not fire, for the file that came nearest."""

    part: str
    """``trigger 2``, ``role PET``, ``never 1``, ``fallback``."""
    attribute: str = ""
    pattern: str = ""
    """The pattern that failed; of `never` the one that was found."""
    text: str | None = None
    """Text that the pattern was searched in; None if the file lacks the attribute."""
    near: bool = False
    """Whether this pattern was the only one that failed for a file, and the only part of the flow."""


@dataclass(frozen=True, kw_only=True)
class FlowMatch:
    """How a flow and a case fit."""

    flow: str
    """Name of the flow."""
    fires: bool
    wanted: bool
    """Whether a file matches one of its triggers or roles."""
    files: tuple[int, ...] = ()
    """Places of the input in the list of files."""
    roles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Role -> places of its files."""
    failures: tuple[Failure, ...] = ()
    """What is missing or forbidden; empty if the flow fires."""


def attributes_of(flows: Sequence[Flow]) -> tuple[Attribute, ...]:
    """Attributes that flows ask about, each once."""
    found = (
        condition.attribute
        for flow in flows
        for trigger in (*flow.triggers, *flow.never, *(one for role in flow.roles for one in role.triggers))
        for condition in trigger.conditions
    )
    return tuple(dict.fromkeys(found))


def _holds(pattern: Pattern, text: str | None) -> bool:
    if text is None:
        return pattern.negative
    return search(pattern.regex, text) is not pattern.negative


def file_matches(file: CaseFile, trigger: Trigger) -> bool:
    """Return whether a file matches a trigger.

    Parameters
    ----------
    file : CaseFile
        The file.
    trigger : Trigger
        The trigger.

    Returns
    -------
    bool

    Raises
    ------
    InputError
        SLOW_PATTERN.
    """
    return all(
        _holds(pattern, file.text(condition.attribute))
        for condition in trigger.conditions
        for pattern in condition.patterns
    )


def match_flow(flow: Flow, files: Sequence[CaseFile]) -> FlowMatch:
    """Match one flow with the files of a case, without regard to other flows.

    Parameters
    ----------
    flow : Flow
        The flow.
    files : sequence of CaseFile
        The files of the case, in the order of arrival.

    Returns
    -------
    FlowMatch

    Raises
    ------
    InputError
        SLOW_PATTERN.
    """
    by_trigger = [_matching(files, (trigger,)) for trigger in flow.triggers]
    roles = {role.name: _matching(files, role.triggers) for role in flow.roles}
    failures = [
        _nearest(f"trigger {number}", trigger, files)
        for number, (trigger, found) in enumerate(zip(flow.triggers, by_trigger, strict=True), 1)
        if not found
    ]
    for role in flow.roles:
        series = {files[place].series for place in roles[role.name]}
        if len(series) < role.series:
            missing = _nearest(f"role {role.name}", role.triggers[0], files) if not series else None
            failures.append(missing or Failure(part=f"role {role.name}", text=f"{len(series)} of {role.series} series"))
    if len(failures) > 1:
        failures = [_without_near(one) for one in failures]
    failures.extend(_vetoes(flow, files))
    found = sorted({place for places in (*by_trigger, *roles.values()) for place in places})
    fires = not failures
    return FlowMatch(
        flow=flow.name,
        fires=fires,
        wanted=bool(found),
        files=tuple(found) if fires else (),
        roles=roles if fires else {},
        failures=tuple(failures),
    )


def match_flows(flows: Sequence[Flow], files: Sequence[CaseFile]) -> tuple[FlowMatch, ...]:
    """Match flows with the files of a case: a flow with `fallback` fires only if no other one does.

    Parameters
    ----------
    flows : sequence of Flow
        The flows.
    files : sequence of CaseFile
        The files of the case.

    Returns
    -------
    tuple of FlowMatch
        One for each flow, in the same order.

    Raises
    ------
    InputError
        SLOW_PATTERN.
    """
    found = [match_flow(flow, files) for flow in flows]
    return apply_fallback(flows, found)


def apply_fallback(flows: Sequence[Flow], matches: Sequence[FlowMatch]) -> tuple[FlowMatch, ...]:
    """Let flows with `fallback` fire only where no other one does; a shadow does not count."""
    others = any(match.fires for flow, match in zip(flows, matches, strict=True) if not (flow.fallback or flow.shadow))
    return tuple(
        FlowMatch(flow=match.flow, fires=False, wanted=match.wanted, failures=(Failure(part="fallback"),))
        if others and flow.fallback and match.fires
        else match
        for flow, match in zip(flows, matches, strict=True)
    )


def _matching(files: Sequence[CaseFile], triggers: Sequence[Trigger]) -> tuple[int, ...]:
    return tuple(place for place, file in enumerate(files) if any(file_matches(file, trigger) for trigger in triggers))


def _nearest(part: str, trigger: Trigger, files: Sequence[CaseFile]) -> Failure:
    """The first pattern that failed for the file with the fewest that did."""
    best: tuple[int, Failure] | None = None
    for file in files:
        failed = [
            (condition.attribute, pattern)
            for condition in trigger.conditions
            for pattern in condition.patterns
            if not _holds(pattern, file.text(condition.attribute))
        ]
        if best is None or len(failed) < best[0]:
            attribute, pattern = failed[0]
            text = file.text(attribute)
            best = (
                len(failed),
                Failure(part=part, attribute=attribute.name, pattern=pattern.text, text=text, near=len(failed) == 1),
            )
    return best[1] if best else Failure(part=part)


def _without_near(failure: Failure) -> Failure:
    return Failure(part=failure.part, attribute=failure.attribute, pattern=failure.pattern, text=failure.text)


def _vetoes(flow: Flow, files: Sequence[CaseFile]) -> list[Failure]:
    """For each trigger of `never` that a file matches, its first pattern with the text."""
    found = []
    for number, trigger in enumerate(flow.never, 1):
        file = next((one for one in files if file_matches(one, trigger)), None)
        if file is not None:
            condition = trigger.conditions[0]
            pattern, text = condition.patterns[0].text, file.text(condition.attribute)
            found.append(
                Failure(part=f"never {number}", attribute=condition.attribute.name, pattern=pattern, text=text)
            )
    return found

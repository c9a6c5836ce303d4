"""Decides with the flows of a station when a case is complete, and which flows run on it.

A case closes as soon as a flow fires whose rule is fulfilled, and no other flow that fires has to wait. Flows that want
the case and lack images do not delay the others: when their images come, the case reopens as a revision that has all
images of the study, and flows whose input is the same as before do not run again. If no flow fires, the case waits as
long as the flows that want it say (`at_most`), else as the station's rule says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.dicom.texts import read_texts
from ctenrich.errors import CtenrichError
from ctenrich.flows.closing import AfterAtMost, CloseRule
from ctenrich.flows.expected import ModalityFile, has_expected
from ctenrich.flows.folder import FlowFolder, LoadedFlow
from ctenrich.flows.records import Flow
from ctenrich.flows.step_graph import machine_of
from ctenrich.flows.triggers import (
    Failure,
    FlowMatch,
    apply_fallback,
    attributes_of,
    match_flow,
)
from ctenrich.listener.cases import CaseState
from ctenrich.listener.config import StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.flow_rows import FlowDecision
from ctenrich.listener.flow_sending import check_for_listener
from ctenrich.listener.station import Station

__all__ = ["CaseFlows", "CaseTimes", "Decision", "case_flows"]

_RELOAD_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class CaseTimes:
    """What rules about time ask of a case."""

    quiet: float
    """Seconds since its last image."""
    open: float
    """Seconds since it was opened."""
    released: Callable[[], bool]
    """Whether all associations with its images were released."""
    waiting: bool = False
    """Whether it is still open after `at_most`."""

    def fulfil(self, rule: CloseRule) -> bool:
        """Whether a rule is fulfilled as far as time is concerned."""
        return self.released() if rule.when == "association" else self.quiet >= rule.seconds


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of an open revision now."""

    state: CaseState | None
    """None: it stays open."""
    reason: str = ""
    flows: tuple[FlowDecision, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _StationFile(ModalityFile):
    number: int


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """Flows matched with the files of a case."""

    key: tuple[object, ...]
    decisions: tuple[FlowDecision, ...]
    expected: tuple[bool, ...]
    """For each flow whether what its rule expects is there."""
    station_expected: bool
    """The same for the station's rule."""


_STAY = Decision(state=None)


class CaseFlows:
    """Matches the flows of a folder with cases.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Read only here.
    flows : FlowFolder
        The flows; reloaded now and then.
    rule : CloseRule
        The station's rule, for flows without one.
    """

    def __init__(self, station: Station, database: StationDatabase, flows: FlowFolder, rule: CloseRule) -> None:
        self._station = station
        self._database = database
        self._folder = flows
        self._rule = rule
        self._flows = flows.flows
        self._next_reload = 0.0
        self._texts: dict[int, dict[int, _StationFile | None]] = {}
        self._evaluations: dict[int, _Evaluation] = {}

    def reload(self) -> None:
        """Read changed flow files, every few seconds at most."""
        if time.monotonic() < self._next_reload:
            return
        self._next_reload = time.monotonic() + _RELOAD_SECONDS
        if self._folder.update():
            self._texts.clear()
            self._evaluations.clear()
        self._flows = self._folder.flows

    def forget(self, open_cases: set[int]) -> None:
        """Drop what is remembered of cases that are not open any more."""
        for case in set(self._texts) - open_cases:
            del self._texts[case]
            self._evaluations.pop(case, None)

    def decide(self, case: int, revision: int, times: CaseTimes) -> Decision:
        """Decide about an open revision.

        Parameters
        ----------
        case, revision : int
            Numbers.
        times : CaseTimes
            How long it is open and quiet.

        Returns
        -------
        Decision
        """
        rules = {flow.close or self._rule for flow in self._flows} | {self._rule}
        late = any(rule.at_most and times.open >= rule.at_most for rule in rules)
        if not late and not any(times.fulfil(rule) for rule in rules):
            return _STAY
        evaluation = self._evaluate(case, revision)
        decisions = list(evaluation.decisions)
        wanting = [number for number, one in enumerate(decisions) if one.wanted and not one.flow.shadow]
        if not wanting:
            return self._by_station_rule(evaluation, decisions, times)
        firing = []
        for number in wanting:
            if not decisions[number].fires:
                continue
            rule, expected = self._rule_of(decisions[number].flow), evaluation.expected[number]
            then = _after(rule, times)
            if (times.fulfil(rule) and expected) or then == "run":
                firing.append(number)
            elif expected and then is None:
                return _STAY  # it is complete, and images may still come
            else:
                missing = (Failure(part="close"),)
                reason = "AT_MOST" if then else ""
                decisions[number] = replace(decisions[number], fires=False, failures=missing, reason=reason)
        if firing:
            return Decision(state=CaseState.CLOSED, flows=tuple(decisions))
        wishes = [one.flow.close for number, one in enumerate(decisions) if number in wanting and one.flow.close]
        if not wishes:
            return self._by_station_rule(evaluation, decisions, times)
        return _without_firing(wishes, decisions, times)

    def decide_now(self, case: int, revision: int) -> tuple[FlowDecision, ...]:
        """Match the flows with a revision as it is, without rules about time: for a case that is run again."""
        return self._evaluate(case, revision).decisions

    def _by_station_rule(self, evaluation: _Evaluation, decisions: list[FlowDecision], times: CaseTimes) -> Decision:
        if times.fulfil(self._rule) and evaluation.station_expected:
            return Decision(state=CaseState.CLOSED, flows=tuple(decisions))
        return _ended(_after(self._rule, times), decisions, times)

    def _rule_of(self, flow: Flow) -> CloseRule:
        return flow.close or self._rule

    # ------------------------------------------------------------ matching

    def _evaluate(self, case: int, revision: int) -> _Evaluation:
        rows = self._database.rows(
            "SELECT id FROM instances WHERE case_id = ? AND revision <= ? AND conflict = 0 ORDER BY id",
            (case, revision),
        )
        key = (revision, *(row["id"] for row in rows))
        found = self._evaluations.get(case)
        if found is not None and found.key == key:
            return found
        files = [file for row in rows if (file := self._file(case, row["id"])) is not None]
        matches = [self._match(flow, files) for flow in self._flows]
        good = [one for one in matches if isinstance(one, FlowMatch)]
        flows = [flow for flow, one in zip(self._flows, matches, strict=True) if isinstance(one, FlowMatch)]
        settled = dict(zip((flow.name for flow in flows), apply_fallback(flows, good), strict=True))
        found = _Evaluation(
            key=key,
            decisions=tuple(
                self._decision(flow, settled.get(flow.name), one, files)
                for flow, one in zip(self._flows, matches, strict=True)
            ),
            expected=tuple(has_expected(flow.roles, self._rule_of(flow), files) for flow in self._flows),
            station_expected=has_expected((), self._rule, files),
        )
        self._evaluations[case] = found
        return found

    @staticmethod
    def _match(flow: Flow, files: list[_StationFile]) -> FlowMatch | CtenrichError:
        """Match one flow; an error of its patterns is an error of this flow alone."""
        try:
            return match_flow(flow, files)
        except CtenrichError as error:
            return error

    def _decision(
        self, flow: Flow, match: FlowMatch | None, found: FlowMatch | CtenrichError, files: list[_StationFile]
    ) -> FlowDecision:
        content = self._folder.content(flow.name)
        if match is None:
            reason = found.reason.value if isinstance(found, CtenrichError) else ""
            return FlowDecision(flow=flow, content=content, fires=False, wanted=False, reason=reason)
        return FlowDecision(
            flow=flow,
            content=content,
            fires=match.fires,
            wanted=match.wanted,
            files=tuple(files[place].number for place in match.files),
            roles={name: tuple(files[place].number for place in places) for name, places in match.roles.items()},
            failures=match.failures,
        )

    def _file(self, case: int, number: int) -> _StationFile | None:
        """Texts of a received object; None if its header cannot be read: it matches no trigger."""
        known = self._texts.setdefault(case, {})
        if number not in known:
            row = self._database.rows(
                "SELECT path, series_instance_uid, modality FROM instances WHERE id = ?", (number,)
            )[0]
            attributes = attributes_of(self._flows)
            try:
                texts = read_texts(self._station.received / row["path"], [one.tag for one in attributes])
            except CtenrichError:
                known[number] = None
            else:
                known[number] = _StationFile(
                    number=number,
                    series=row["series_instance_uid"],
                    modality=row["modality"],
                    texts={one: texts[one.tag] for one in attributes if one.tag in texts},
                )
        return known[number]


def _after(rule: CloseRule, times: CaseTimes) -> AfterAtMost | None:
    """What a rule says once its longest time has passed; None before."""
    return rule.then if rule.at_most and times.open >= rule.at_most else None


def _without_firing(rules: list[CloseRule], decisions: list[FlowDecision], times: CaseTimes) -> Decision:
    """No flow fires, and some want the case: it waits for what they lack, as long as their rules say."""
    if any(not rule.at_most or times.open < rule.at_most for rule in rules):
        return _STAY
    after = {rule.then for rule in rules}
    return _ended("wait" if "wait" in after else "run" if "run" in after else "discard", decisions, times)


def _ended(then: AfterAtMost | None, decisions: list[FlowDecision], times: CaseTimes) -> Decision:
    """Decision about a case that is open for too long, and in which no flow fires."""
    if then is None or (then == "wait" and times.waiting):
        return _STAY
    if then == "wait":
        return Decision(state=CaseState.WAITING, reason="AT_MOST")
    if then == "run":
        return Decision(state=CaseState.CLOSED, reason="AT_MOST", flows=tuple(decisions))
    shadows = tuple(replace(one, fires=False) if one.fires else one for one in decisions)  # nothing runs any more
    return Decision(state=CaseState.SKIPPED, reason="AT_MOST", flows=shadows)


def case_flows(
    station: Station,
    database: StationDatabase,
    config: StationConfig,
    changed: Callable[[LoadedFlow], None] = lambda _: None,
) -> CaseFlows | None:
    """Return the flows of a station; None if what runs is configured without flows.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Its database.
    config : StationConfig
        The folder, the rule for flows without one, and what flows may use.
    changed : callable
        Called with each flow file whose version or error has changed.

    Returns
    -------
    CaseFlows or None
    """
    if not config.flows:
        return None
    folder = FlowFolder(
        Path(config.flows),
        machine_of(config.run),
        changed=changed,
        check=lambda flow: check_for_listener(flow, config),
    )
    return CaseFlows(station, database, folder, config.close)

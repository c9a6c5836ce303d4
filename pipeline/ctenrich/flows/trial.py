"""Try flows on a catalog: which studies they would have fired on, per month, and which they nearly did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ctenrich.errors import CtenrichError
from ctenrich.flows.attributes import identifies_patient
from ctenrich.flows.catalog_files import CatalogStudy
from ctenrich.flows.expected import ModalityFile, has_expected
from ctenrich.flows.records import Flow
from ctenrich.flows.triggers import Failure, FlowMatch, apply_fallback, match_flow
from ctenrich.reasons import Reason

__all__ = ["FlowOutcome", "FlowTrial", "MonthCount", "NearMiss", "decide", "try_flows"]


@dataclass(frozen=True, kw_only=True)
class FlowOutcome:
    """What a flow does with a complete study."""

    flow: str
    fires: bool
    files: tuple[int, ...] = ()
    """Places of the input in the list of files."""
    roles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Role -> places of its files."""
    failures: tuple[Failure, ...] = ()
    reason: str = ""
    """SLOW_PATTERN: the flow fails."""

    @property
    def near_miss(self) -> Failure | None:
        """The one thing that kept the flow from firing; None if there were more, or it fired."""
        if self.fires or len(self.failures) != 1:
            return None
        (failure,) = self.failures
        return failure if failure.near or failure.part.startswith(("never", "close")) else None


def decide(flows: Sequence[Flow], files: Sequence[ModalityFile]) -> tuple[FlowOutcome, ...]:
    """Decide which flows fire on a study of which all files have come.

    Parameters
    ----------
    flows : sequence of Flow
        The flows.
    files : sequence of ModalityFile
        The files of the study.

    Returns
    -------
    tuple of FlowOutcome
        One per flow, in the same order.
    """
    matches: dict[str, FlowMatch] = {}
    slow: dict[str, Reason] = {}
    for flow in flows:
        try:
            matches[flow.name] = match_flow(flow, files)
        except CtenrichError as error:
            slow[flow.name] = error.reason
    good = [flow for flow in flows if flow.name in matches]
    settled = dict(zip(matches, apply_fallback(good, list(matches.values())), strict=True))
    return tuple(
        FlowOutcome(flow=flow.name, fires=False, reason=slow[flow.name].value)
        if flow.name in slow
        else _outcome(flow, settled[flow.name], files)
        for flow in flows
    )


def _outcome(flow: Flow, match: FlowMatch, files: Sequence[ModalityFile]) -> FlowOutcome:
    rule = flow.close
    runs_anyway = rule is not None and bool(rule.at_most) and rule.then == "run"
    if match.fires and rule is not None and not runs_anyway and not has_expected(flow.roles, rule, files):
        return FlowOutcome(flow=flow.name, fires=False, failures=(Failure(part="close"),))
    return FlowOutcome(flow=flow.name, fires=match.fires, files=match.files, roles=match.roles, failures=match.failures)


@dataclass(frozen=True, kw_only=True)
class MonthCount:
    """Studies of a month."""

    flow: str
    month: str
    studies: int
    """Studies of the catalog in that month."""
    fired: int
    images: int
    """Images in the inputs of the flow."""
    near_misses: int
    failed: int
    """Studies on which a pattern of the flow took too long."""


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """One pattern, role or rule that alone kept a flow from firing."""

    flow: str
    failure: Failure
    """Its text is withheld where it is about the patient."""
    studies: int
    example: str
    """Study Instance UID of the first."""


@dataclass(frozen=True, kw_only=True)
class FlowTrial:
    """What flows would have done with the studies of a catalog."""

    months: tuple[MonthCount, ...]
    near_misses: tuple[NearMiss, ...]
    """The most frequent first."""
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Flow -> Study Instance UIDs on which it fires."""


def try_flows(flows: Sequence[Flow], studies: Iterable[CatalogStudy], *, examples: int = 3) -> FlowTrial:
    """Decide about all studies, and count.

    Parameters
    ----------
    flows : sequence of Flow
        The flows.
    studies : iterable of CatalogStudy
        The studies.
    examples : int
        Studies that are named for each flow.

    Returns
    -------
    FlowTrial
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    found: dict[str, list[str]] = {flow.name: [] for flow in flows}
    near: Counter[tuple[str, Failure]] = Counter()
    first: dict[tuple[str, Failure], str] = {}
    for study, outcome in _outcomes(flows, studies):
        name, month = outcome.flow, study.month
        counts[name, month, "studies"] += 1
        counts[name, month, "failed"] += bool(outcome.reason)
        if outcome.fires:
            counts[name, month, "fired"] += 1
            counts[name, month, "images"] += sum(study.files[place].images for place in outcome.files)
            if len(found[name]) < examples:
                found[name].append(study.study_instance_uid)
        elif outcome.near_miss is not None:
            counts[name, month, "near"] += 1
            key = (name, _without_identifiers(outcome.near_miss))
            near[key] += 1
            first.setdefault(key, study.study_instance_uid)
    order = {flow.name: number for number, flow in enumerate(flows)}
    keys = sorted({key[:2] for key in counts}, key=lambda key: (order[key[0]], key[1]))
    misses = [
        NearMiss(flow=flow, failure=failure, studies=number, example=first[flow, failure])
        for (flow, failure), number in near.items()
    ]
    return FlowTrial(
        months=tuple(
            MonthCount(
                flow=flow,
                month=month,
                studies=counts[flow, month, "studies"],
                fired=counts[flow, month, "fired"],
                images=counts[flow, month, "images"],
                near_misses=counts[flow, month, "near"],
                failed=counts[flow, month, "failed"],
            )
            for flow, month in keys
        ),
        near_misses=tuple(sorted(misses, key=lambda one: (order[one.flow], -one.studies, one.example))),
        examples={name: tuple(uids) for name, uids in found.items()},
    )


def _outcomes(flows: Sequence[Flow], studies: Iterable[CatalogStudy]) -> Iterator[tuple[CatalogStudy, FlowOutcome]]:
    for study in studies:
        for outcome in decide(flows, study.files):
            yield study, outcome


def _without_identifiers(failure: Failure) -> Failure:
    return replace(failure, text="(withheld)") if failure.text and identifies_patient(failure.attribute) else failure

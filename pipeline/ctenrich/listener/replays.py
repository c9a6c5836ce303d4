"""Run flows on a case without sending anything, and compare their results with those that the case has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.flows.builtin import flow_folder_name, products_by_source
from ctenrich.flows.closing import CloseRule
from ctenrich.flows.comparison import COMPARISON, ComparedResult, compare_results, lowest_dice, write_comparison
from ctenrich.flows.folder import FlowFolder
from ctenrich.flows.reader import parse_flow
from ctenrich.flows.records import SRC, Flow
from ctenrich.flows.request import RunRequest
from ctenrich.flows.running import End, EndState, FlowEnd, results_of, run_flow
from ctenrich.flows.step_graph import check_containers, machine_of
from ctenrich.listener.audit import append_event
from ctenrich.listener.case_flows import CaseFlows
from ctenrich.listener.cases import CaseState, case_of
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.flow_rows import FlowDecision, FlowRow, FlowState, flow_content, flow_rows
from ctenrich.listener.station import Station
from ctenrich.reasons import Reason

__all__ = ["ReplayedFlow", "compare_shadow", "replay_with_flows"]

_HAS_RESULTS = (FlowState.DONE, FlowState.UNCHANGED)


@dataclass(frozen=True, kw_only=True)
class ReplayedFlow:
    """How a flow ended that was run on a case without sending anything."""

    flow: str
    end: End
    compared: tuple[ComparedResult, ...] = ()
    """Beside the results that the case has of the flow of this name."""
    table: Path | None = None
    """Its file; None if the case has no results of this flow."""


def compare_shadow(station: Station, database: StationDatabase, row: FlowRow, found: FlowEnd) -> End:
    """Compare the results of a shadow with those of the other flows of its revision.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Its database.
    row : FlowRow
        The shadow.
    found : FlowEnd
        How it ended.

    Returns
    -------
    End
        How it ended, with the comparison in its message; the table is ``comparison.csv`` in its folder.
    """
    if found.end.state is not EndState.DONE:
        return found.end
    compared: list[ComparedResult] = []
    names = []
    for other in flow_rows(database, row.case, row.revision):
        if other.flow == row.flow or other.state not in _HAS_RESULTS or _is_shadow(database, other):
            continue
        folder = _folder_with_results(station, database, other)
        if folder is not None:
            names.append(other.flow)
            compared += compare_results(results_of(folder), found.files, (row.flow, other.flow))
    folder = station.revision(row.case, row.revision) / "flows" / flow_folder_name(row.flow)
    write_comparison(folder / COMPARISON, compared)
    message = (
        f"shadow, compared with {', '.join(names)}: {_summary(compared)}" if names else "shadow, nothing to compare"
    )
    return replace(found.end, message="; ".join(filter(None, (found.end.message, message))))


def replay_with_flows(
    station: Station, database: StationDatabase, case: int, flows: Path, request: RunRequest
) -> Iterator[ReplayedFlow]:
    """Run flows of a folder on the images of a case; nothing is sent, and the case stays as it is.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Its database, which is only read.
    case : int
        Number of the case; its last revision counts.
    flows : Path
        Folder of flow files.
    request : RunRequest
        Settings of the products.

    Yields
    ------
    ReplayedFlow
        Each flow that fires, when it has ended. Its results are below ``cases/NUMBER/replays/N``.

    Raises
    ------
    UsageError
        BAD_PARAMETER if the images of the case may still come, NOT_FOUND for a folder without flow files and if the
        images were deleted; the error of a flow file.
    OSError
        The disk is full.
    """
    last = case_of(database, case)[0]
    if last.state in (CaseState.OPEN, CaseState.WAITING):
        raise UsageError(Reason.BAD_PARAMETER, f"case {case} is {last.state}: its images may still come")
    if not database.rows("SELECT id FROM instances WHERE case_id = ? LIMIT 1", (case,)):
        raise UsageError(Reason.NOT_FOUND, f"the images of case {case} were deleted", "see [keep] in station.toml")
    folder = FlowFolder(flows, machine_of(request), check=_check)
    for one in folder.loaded:
        if one.error is not None:
            raise one.error
    if not folder.flows:
        raise UsageError(Reason.NOT_FOUND, f"there is no flow file in {flows}", "flow files end with .yaml or .yml")
    decisions = CaseFlows(station, database, folder, CloseRule()).decide_now(case, last.revision)
    out = _new_folder(station.cases / f"{case:06d}" / "replays")
    for decision in decisions:
        if not decision.fires:
            continue
        flow = decision.flow
        known = {"case": case, "revision": last.revision, "flow": flow.name, "sha256": flow.sha256}
        append_event(station.audit, "flow replayed", **known)
        target = out / flow_folder_name(flow.name)
        found = run_flow(flow, _sources(station, database, case, decision), target, request)
        yield _beside_old(station, database, (case, last.revision), target, found, flow.name)
        if found.end.state is EndState.INTERRUPTED:
            return


def _check(flow: Flow) -> None:
    products_by_source(flow)
    check_containers(flow)


def _new_folder(parent: Path) -> Path:
    """Make the folder of a replay, named by the next number."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (parent / str(number)).mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return parent / str(number)


def _sources(
    station: Station, database: StationDatabase, case: int, decision: FlowDecision
) -> dict[str, dict[str, Path]]:
    """Received files of a flow by source and name, in the order of their arrival."""
    chosen = {SRC: decision.files, **decision.roles}
    rows = database.rows("SELECT id, path FROM instances WHERE case_id = ? ORDER BY id", (case,))
    paths = {row["id"]: station.received / row["path"] for row in rows}
    return {name: {paths[number].name: paths[number] for number in sorted(found)} for name, found in chosen.items()}


def _beside_old(
    station: Station, database: StationDatabase, place: tuple[int, int], folder: Path, found: FlowEnd, name: str
) -> ReplayedFlow:
    """Compare what a flow made in a folder with the newest results that a case has of the flow of this name."""
    case, last = place
    for revision in range(last, 0, -1) if found.end.state is EndState.DONE else ():
        for row in flow_rows(database, case, revision):
            if row.flow == name and row.state is FlowState.DONE:
                old = results_of(station.revision(case, revision) / "flows" / flow_folder_name(name))
                rows = compare_results(old, found.files, (name, f"{name} (revision {revision})"))
                write_comparison(folder / COMPARISON, rows)
                return ReplayedFlow(flow=name, end=found.end, compared=rows, table=folder / COMPARISON)
    return ReplayedFlow(flow=name, end=found.end)


def _folder_with_results(station: Station, database: StationDatabase, row: FlowRow) -> Path | None:
    """Folder with the results of a flow; of one that did not change, that of the revision in which it was done."""
    for revision in range(row.revision, 0, -1):
        for one in flow_rows(database, row.case, revision):
            same = (one.flow, one.sha256, one.files) == (row.flow, row.sha256, row.files)
            if same and one.state is FlowState.DONE:
                return station.revision(row.case, revision) / "flows" / flow_folder_name(one.flow)
    return None


def _is_shadow(database: StationDatabase, row: FlowRow) -> bool:
    return parse_flow(flow_content(database, row.sha256), Path(row.flow)).shadow


def _summary(rows: Sequence[ComparedResult]) -> str:
    lowest = lowest_dice(rows)
    masks = sum(one.dice is not None for one in rows)
    changed = sum(one.difference not in (None, 0) for one in rows if one.quantity not in ("mask", "objects"))
    return (
        f"{masks} masks"
        + ("" if lowest is None else f", lowest Dice {lowest:.4f}")
        + f", {changed} other values differ"
    )

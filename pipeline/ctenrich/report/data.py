"""Read the data of a report from the tables of a run; nothing is computed from voxels."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import State
from ctenrich.select.consort import Consort, Exclusion, FlowStage
from ctenrich.workspace import Workspace

__all__ = ["Group", "Point", "RunData", "flow_of", "load_run"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One value of one series."""

    series: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """The values of one quantity for one organ (or region) and one product."""

    quantity: str
    unit: str
    organ: str
    product: str
    points: tuple[Point, ...]


@dataclass(kw_only=True)
class RunData:
    """All data of the pages."""

    name: str
    series: list[Row]
    outcomes: list[Row]
    issues: list[Row]
    timings: list[Row]
    runs: list[Row]
    objects: list[Row]
    segments: list[Row]
    landmarks: list[Row]
    rois: list[Row] = field(default_factory=list)
    quality: list[Row] = field(default_factory=list)
    """Findings of ``ctenrich quality``, if it was called."""
    evaluation: list[Row] = field(default_factory=list)
    """Rows of ``ctenrich evaluate``, if it was called."""
    features: list[Group] = field(default_factory=list)
    lung: list[Group] = field(default_factory=list)
    regions: list[Group] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    measurements: dict[str, list[Row]] = field(default_factory=dict)
    """CT series -> rows of product, segment, quantity, value, unit."""
    lock: Row = field(default_factory=dict)

    @property
    def products(self) -> list[str]:
        """Keys of the products, sorted."""
        return sorted({r["product"] for r in (*self.outcomes, *self.objects) if r["product"]})

    @cached_property
    def states(self) -> dict[str, str]:
        """State of each series; without a ledger, done if it has objects."""
        ends = {o["SeriesInstanceUID"]: State.DONE.value for o in self.objects}
        ends |= {r["SeriesInstanceUID"]: r["state"] for r in self.outcomes if not r["product"]}
        return ends

    def state(self, series: str) -> str:
        """State of a series; empty if unknown."""
        return self.states.get(series, "")


def load_run(workspace: Workspace) -> RunData:
    """Read the tables of a run.

    Raises
    ------
    UsageError
        NOT_PREPARED if the tables have not been built.
    """
    if not (workspace.tables / "series.parquet").is_file():
        raise UsageError(
            Reason.NOT_PREPARED, "the run has no tables yet", "build the tables first: ctenrich report RUN"
        )
    data = RunData(
        name=workspace.root.name,
        series=_table_rows(workspace, "series"),
        outcomes=_table_rows(workspace, "outcomes"),
        issues=_table_rows(workspace, "issues"),
        timings=_table_rows(workspace, "timings"),
        runs=_table_rows(workspace, "runs"),
        objects=_table_rows(workspace, "objects"),
        segments=_table_rows(workspace, "segments"),
        landmarks=_table_rows(workspace, "landmarks"),
        rois=_table_rows(workspace, "rois"),
        quality=_table_rows(workspace, "quality"),
        evaluation=_table_rows(workspace, "evaluation"),
    )
    data.measurements = _measurements(workspace, data)
    data.features = _features(data)
    data.regions = _region_shares(workspace, data)
    data.lung = _lung_heights(workspace, data)
    data.excluded, data.lock = _selection(workspace)
    return data


def _table_rows(workspace: Workspace, name: str, columns: list[str] | None = None) -> list[Row]:
    import pyarrow.parquet as pq

    path = workspace.tables / f"{name}.parquet"
    rows: list[Row] = pq.read_table(path, columns=columns).to_pylist() if path.is_file() else []
    return rows


def _measurements(workspace: Workspace, data: RunData) -> dict[str, list[Row]]:
    made_by = {o["SOPInstanceUID"]: o for o in data.objects}
    names = {(s["SeriesInstanceUID"], s["product"], s["segment_number"]): s["segment"] for s in data.segments}
    columns = ["SOPInstanceUID", "segmentationSegmentNumber", "Quantity", "Units", "Value", "valueFloat", "findingSite"]
    out: dict[str, list[Row]] = defaultdict(list)
    for row in _table_rows(workspace, "quantitative_measurements", columns):
        made = made_by.get(row["SOPInstanceUID"])
        number = row["segmentationSegmentNumber"]
        if made is None or number is None or row["valueFloat"] is None:
            continue
        series, product = made["SeriesInstanceUID"], made["product"]
        site = (row["findingSite"] or {}).get("CodeMeaning") or f"segment {number}"
        out[series].append(
            {
                "product": product,
                "segment": names.get((series, product, number)) or site,
                "quantity": (row["Quantity"] or {}).get("CodeMeaning") or "",
                "unit": (row["Units"] or {}).get("CodeValue") or "",
                "value": row["valueFloat"],
            }
        )
    return dict(out)


def _features(data: RunData) -> list[Group]:
    points: dict[tuple[str, str, str, str], list[Point]] = defaultdict(list)
    for series in sorted(data.measurements):
        for row in data.measurements[series]:
            key = (row["quantity"], row["unit"], row["segment"], row["product"])
            points[key].append(Point(series, row["value"]))
    return [
        Group(quantity=quantity, unit=unit, organ=organ, product=product, points=tuple(values))
        for (quantity, unit, organ, product), values in sorted(points.items())
    ]


def _region_shares(workspace: Workspace, data: RunData) -> list[Group]:
    """Percentage of the slices of each series in each region, from the regions SRs."""
    made_by = {o["SOPInstanceUID"]: o for o in data.objects if o["kind"] == "regions_sr"}
    slices = {s["SeriesInstanceUID"]: s["slices"] for s in data.series}
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in _table_rows(
        workspace, "image_level_annotations", ["SOPInstanceUID", "Value", "region", "ReferencedSOPInstanceUID"]
    ):
        made = made_by.get(row["SOPInstanceUID"])
        if made is not None and row["Value"] is not None:
            key = (row["region"] or row["Value"]["CodeMeaning"], made["product"], made["SeriesInstanceUID"])
            found[key].add(row["ReferencedSOPInstanceUID"])
    scored = sorted({(o["product"], o["SeriesInstanceUID"]) for o in made_by.values()})
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for region in sorted({key[0] for key in found}):
        for product, series in scored:
            if slices.get(series):
                share = 100 * len(found.get((region, product, series), ())) / slices[series]
                groups[region, product].append(Point(series, share))
    return [
        Group(quantity="Share of slices", unit="%", organ=region, product=product, points=tuple(points))
        for (region, product), points in groups.items()
    ]


def _lung_heights(workspace: Workspace, data: RunData) -> list[Group]:
    """Distance between the slices of lung_start and lung_end, mm."""
    distance = {
        (r["SeriesInstanceUID"], r["slice_index"]): r["distance"]
        for r in _table_rows(workspace, "slices", ["SeriesInstanceUID", "slice_index", "distance"])
    }
    ends: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in data.landmarks:
        position = distance.get((row["SeriesInstanceUID"], row["slice_index"]))
        if row["landmark"] in ("lung_start", "lung_end") and position is not None:
            ends[row["product"], row["SeriesInstanceUID"]][row["landmark"]] = position
    groups: dict[str, list[Point]] = defaultdict(list)
    for (product, series), both in sorted(ends.items()):
        if len(both) == 2:
            groups[product].append(Point(series, abs(both["lung_end"] - both["lung_start"])))
    return [
        Group(quantity="Lung height", unit="mm", organ="lungs", product=product, points=tuple(points))
        for product, points in groups.items()
    ]


def _selection(workspace: Workspace) -> tuple[Counter[str], Row]:
    """Read the reasons of the excluded series, and the lock file."""
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()
    path = workspace.root / "cohort.excluded.parquet"
    if path.is_file():
        names = pq.read_schema(path).names
        column = next((n for n in ("reason", "reasons") if n in names), None)
        for row in pq.read_table(path, columns=[column] if column else []).to_pylist():
            value = row[column] if column else None
            counts[str((value[0] if value else "") if isinstance(value, list) else value)] += 1
    lock = workspace.root / "cohort.lock.json"
    found = json.loads(lock.read_bytes()) if lock.is_file() else {}
    return counts, found if isinstance(found, dict) else {}


_REASONS_SHOWN = 12
"""Reasons that the diagram shows at a stage; the rest are summed up."""


def flow_of(data: RunData) -> Consort:
    """Count the run's flow diagram: series that the query found, that were selected, and that were finished."""
    ends = Counter(data.state(s["SeriesInstanceUID"]) or "not started" for s in data.series)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for row in data.outcomes:
        if not row["product"] and row["state"] != State.DONE.value:
            reasons[row["state"]][row["reason"] or row["state"]] += 1
    left = [(f"{state}: {reason}", n) for state, found in sorted(reasons.items()) for reason, n in found.most_common()]
    known = {*reasons, State.DONE.value}
    left += [(state, n) for state, n in sorted(ends.items()) if state not in known]
    stages = []
    if data.excluded:
        total = len(data.series) + sum(data.excluded.values())
        stages.append(_flow_stage("Series examined by the query", total, data.excluded.most_common()))
    stages.append(_flow_stage("Series selected", len(data.series), left))
    stages.append(_flow_stage("Series done", ends[State.DONE.value], []))
    return Consort(("series",), tuple(stages))


def _flow_stage(label: str, count: int, excluded: list[tuple[str, int]]) -> FlowStage:
    shown = excluded[:_REASONS_SHOWN]
    rest = excluded[_REASONS_SHOWN:]
    if rest:
        shown = [*shown, (f"{len(rest)} more reasons", sum(n for _, n in rest))]
    return FlowStage(label, {"series": count}, tuple(Exclusion(reason, {"series": n}) for reason, n in shown))

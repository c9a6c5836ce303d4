"""Read the data of a report from the tables of a run: summaries of the cohort, and all rows of some series."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.catalog.engine import arrow_table
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import State
from ctenrich.results.schema import arrow_schema
from ctenrich.select.consort import Consort, Exclusion, FlowStage
from ctenrich.workspace import Workspace

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = [
    "CohortData",
    "Group",
    "RunData",
    "SeriesRows",
    "flow_of",
    "load_cohort",
    "load_features",
    "load_part",
    "open_tables",
]

Row = dict[str, Any]

_OF_SERIES = ("series", "outcomes", "issues", "timings", "objects", "segments", "landmarks", "rois")
"""Tables whose rows are about one CT series each."""
_OTHERS = (
    "runs",
    "slices",
    "quantitative_measurements",
    "image_level_annotations",
    "quality",
    "quality_ranking",
    "deep_features",
    "evaluation",
    "dose_metrics",
    "dvh_curves",
    "dose_checks",
)
_MEMORY = "1GB"
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Group:
    """The values of one quantity for one organ (or region) and one product."""

    quantity: str
    unit: str
    organ: str
    product: str
    series: NDArray[np.int32]
    """Positions in :attr:`CohortData.series`."""
    values: NDArray[np.float64]


@dataclass(kw_only=True)
class RunData:
    """All rows of some series: what their pages show."""

    series: list[Row]
    outcomes: list[Row]
    issues: list[Row]
    timings: list[Row]
    objects: list[Row]
    segments: list[Row]
    landmarks: list[Row]
    rois: list[Row] = field(default_factory=list)
    quality: list[Row] = field(default_factory=list)
    """Findings of ``ctenrich quality``, if it was called."""
    evaluation: list[Row] = field(default_factory=list)
    """Rows of ``ctenrich evaluate``, if it was called."""
    dose_metrics: list[Row] = field(default_factory=list)
    """Rows of ``ctenrich dose run``, if it was called."""
    dvh_curves: list[Row] = field(default_factory=list)
    dose_checks: list[Row] = field(default_factory=list)
    measurements: dict[str, list[Row]] = field(default_factory=dict)
    """CT series -> rows of product, segment, quantity, value, unit."""

    @cached_property
    def states(self) -> dict[str, str]:
        """State of each series; without a ledger, done if it has objects."""
        ends = {o["SeriesInstanceUID"]: State.DONE.value for o in self.objects}
        ends |= {r["SeriesInstanceUID"]: r["state"] for r in self.outcomes if not r["product"]}
        return ends

    def state(self, series: str) -> str:
        """State of a series; empty if unknown."""
        return self.states.get(series, "")


class SeriesRows:
    """Rows of all series, kept by column; a row is made when it is asked for.

    Parameters
    ----------
    table : pyarrow.Table
        One row per series.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, place: int) -> Row:
        return {name: self._table[name][place].as_py() for name in self._table.column_names}

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self._table.slice(start, _ROWS_AT_ONCE).to_pylist()

    def column(self, name: str) -> list[Any]:
        """Values of one column, in the order of the series."""
        if name not in self._columns:
            self._columns[name] = self._table[name].to_pylist()
        return self._columns[name]

    def part(self, start: int, count: int) -> dict[str, list[Any]]:
        """Columns of `count` series from `start` on."""
        found: dict[str, list[Any]] = self._table.slice(start, count).to_pydict()
        return found


@dataclass(kw_only=True)
class CohortData:
    """What the first page shows of the cohort: one row per series, and summaries."""

    name: str
    series: SeriesRows
    """State, reason, number of objects, products, versions of their objects and seconds of each series, and the columns
    of the table ``series`` that the first page shows."""
    outcomes: list[Row]
    """Product, state, reason, number of series."""
    issues: list[Row]
    """Severity, rule, checker, number, message of one of them."""
    timings: list[Row]
    """Stage, product, number, median, largest and sum of seconds, peak memory."""
    runs: list[Row]
    objects: int
    measurements: int
    products: list[str]
    scored: int
    """Products of series with landmarks."""
    landmarks: list[Row]
    """Landmark and number of series in which it was found, head first."""
    absent: list[Row]
    """Series, product and organ of each organ that was looked for and not found, and of each lung end."""
    lung: list[Group] = field(default_factory=list)
    regions: list[Group] = field(default_factory=list)
    quantities: list[Row] = field(default_factory=list)
    """Quantity, unit and number of values of the measurements, volumes first."""
    excluded: Counter[str] = field(default_factory=Counter)
    lock: Row = field(default_factory=dict)

    @cached_property
    def places(self) -> dict[str, int]:
        """Series Instance UID -> position in :attr:`series`."""
        return {uid: place for place, uid in enumerate(self.series.column("SeriesInstanceUID"))}

    @cached_property
    def series_issues(self) -> int:
        """Number of issues that are errors."""
        return sum(int(row["n"]) for row in self.issues if row["severity"] == "error")


@contextmanager
def open_tables(workspace: Workspace) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the tables of a run in DuckDB, each under its name; a table that the run lacks is empty.

    Raises
    ------
    UsageError
        NOT_PREPARED if the tables have not been built.
    """
    import duckdb

    if not (workspace.tables / "series.parquet").is_file():
        raise UsageError(
            Reason.NOT_PREPARED, "the run has no tables yet", "build the tables first: ctenrich report RUN"
        )
    with duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "autoload_known_extensions": "false"}) as db:
        for name in (*_OF_SERIES, *_OTHERS):
            path = workspace.tables / f"{name}.parquet"
            if path.is_file():
                db.read_parquet(str(path), hive_partitioning=False).create_view(name)
            else:
                db.register(name, arrow_schema(name).empty_table())
        yield db


def rows_of(db: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] = ()) -> list[Row]:
    """Run a query and return its rows by the names of their columns.

    Parameters
    ----------
    db : DuckDBPyConnection
        The tables.
    query : str
        A SELECT with ``?`` for values.
    values : sequence
        Values to bind.

    Returns
    -------
    list of dict
    """
    found = db.execute(query, list(values))
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


# ---------------------------------------------------------------- some series


def load_part(db: duckdb.DuckDBPyConnection, uids: Sequence[str]) -> RunData:
    """Load all rows of some series.

    Parameters
    ----------
    db : DuckDBPyConnection
        The tables; see :func:`open_tables`.
    uids : sequence of str
        Series Instance UIDs.

    Returns
    -------
    RunData
    """
    rows: dict[str, Any] = {name: rows_of(db, query, [list(uids)]) for name, query in _PART.items()}
    data = RunData(**rows)
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows_of(db, _PART_MEASUREMENTS, [list(uids)]):
        found[row.pop("series")].append(row)
    data.measurements = dict(found)
    return data


_PART = {
    "series": "SELECT * FROM series WHERE SeriesInstanceUID IN (SELECT unnest(?)) ORDER BY SeriesInstanceUID",
    "outcomes": "SELECT * FROM outcomes WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "issues": "SELECT * FROM issues WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "timings": "SELECT * FROM timings WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "objects": "SELECT * FROM objects WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "segments": "SELECT * FROM segments WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "landmarks": "SELECT * FROM landmarks WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "rois": "SELECT * FROM rois WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "quality": "SELECT * FROM quality WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "evaluation": "SELECT * FROM evaluation WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "dose_metrics": "SELECT * FROM dose_metrics WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "dvh_curves": "SELECT * FROM dvh_curves WHERE SeriesInstanceUID IN (SELECT unnest(?))",
    "dose_checks": "SELECT * FROM dose_checks WHERE SeriesInstanceUID IN (SELECT unnest(?))",
}
_PART_MEASUREMENTS = """
SELECT o.SeriesInstanceUID AS series, o.product,
  coalesce(s.segment, m.findingSite.CodeMeaning, 'segment ' || m.segmentationSegmentNumber) AS segment,
  coalesce(m.Quantity.CodeMeaning, '') AS quantity, coalesce(m.Units.CodeValue, '') AS unit, m.valueFloat AS value
FROM quantitative_measurements AS m
JOIN objects AS o ON o.SOPInstanceUID = m.SOPInstanceUID
LEFT JOIN segments AS s ON s.SeriesInstanceUID = o.SeriesInstanceUID AND s.product = o.product
  AND s.segment_number = m.segmentationSegmentNumber
WHERE o.SeriesInstanceUID IN (SELECT unnest(?)) AND m.segmentationSegmentNumber IS NOT NULL AND m.valueFloat IS NOT NULL
  AND o.kind IS DISTINCT FROM 'features_sr'
ORDER BY ALL
"""


# ---------------------------------------------------------------- the cohort


def load_cohort(workspace: Workspace, db: duckdb.DuckDBPyConnection) -> CohortData:
    """Load what the first page shows.

    Parameters
    ----------
    workspace : Workspace
        The run.
    db : DuckDBPyConnection
        Its tables; see :func:`open_tables`.

    Returns
    -------
    CohortData
    """
    excluded, lock = _selection(workspace)
    totals = rows_of(db, _TOTALS)[0]
    data = CohortData(
        name=workspace.root.name,
        series=SeriesRows(_with_versions(arrow_table(db.execute(_SERIES)))),
        outcomes=rows_of(db, _OUTCOMES),
        issues=rows_of(db, _ISSUES),
        timings=rows_of(db, _TIMINGS),
        runs=rows_of(db, "SELECT command, version, executor FROM runs"),
        landmarks=rows_of(db, _LANDMARKS),
        absent=rows_of(db, _ABSENT),
        quantities=sorted(rows_of(db, _QUANTITIES), key=_volumes_first),
        products=[row["product"] for row in rows_of(db, _PRODUCTS)],
        excluded=excluded,
        lock=lock,
        **totals,
    )
    data.lung = _groups(arrow_table(db.execute(_with_places(_LUNG))), "Lung height", "mm")
    data.regions = _groups(arrow_table(db.execute(_with_places(_REGIONS))), "Share of slices", "%")
    return data


def _with_versions(table: pa.Table) -> pa.Table:
    """Divide the column of products with the version of their objects into two."""
    import pyarrow as pa

    place = table.schema.get_field_index("products")
    found = table["products"].combine_chunks()
    products, versions = (
        pa.ListArray.from_arrays(found.offsets, found.values.field(name)) for name in ("product", "version")
    )
    return table.set_column(place, "products", products).append_column("versions", versions)


def _volumes_first(row: Row) -> int:
    name = str(row["quantity"]).lower()
    return ("volume" not in name) * 2 + ("voxel" not in name)


def load_features(db: duckdb.DuckDBPyConnection, quantity: Mapping[str, Any]) -> list[Group]:
    """Load the values of one quantity, a group per organ and product.

    Parameters
    ----------
    db : DuckDBPyConnection
        The tables.
    quantity : mapping
        One of :attr:`CohortData.quantities`.

    Returns
    -------
    list of Group
    """
    found = arrow_table(db.execute(_with_places(_FEATURES), [quantity["quantity"], quantity["unit"]]))
    return _groups(found, quantity["quantity"], quantity["unit"])


def _with_places(query: str) -> str:
    """Query for rows (organ, product, place, value) from one for (organ, product, series, value); sorted.

    A place is the position of a series in :attr:`CohortData.series`; series that are not there have -1.
    """
    return _PLACES.format(query=query)


def _groups(found: pa.Table, quantity: str, unit: str) -> list[Group]:
    """Split rows (organ, product, place, value), sorted by organ and product, into groups."""
    if not found.num_rows:
        return []
    organs, products = (found[name].combine_chunks().dictionary_encode() for name in ("organ", "product"))
    keys = [column.indices.to_numpy(zero_copy_only=False) for column in (organs, products)]
    names = [column.dictionary.to_pylist() for column in (organs, products)]
    values = found["value"].to_numpy().astype(np.float64)
    places = found["place"].to_numpy().astype(np.int32)
    new = np.flatnonzero((np.diff(keys[0]) != 0) | (np.diff(keys[1]) != 0)) + 1
    edges = [0, *new.tolist(), values.size]
    return [
        Group(
            quantity=quantity,
            unit=unit,
            organ=str(names[0][keys[0][low]]),
            product=str(names[1][keys[1][low]]),
            series=places[low:high],
            values=values[low:high],
        )
        for low, high in pairwise(edges)
    ]


_PLACES = """
WITH found AS ({query}), places AS (
  SELECT SeriesInstanceUID, CAST(row_number() OVER (ORDER BY SeriesInstanceUID) - 1 AS INTEGER) AS place FROM series
)
SELECT f.organ, f.product, coalesce(p.place, -1) AS place, CAST(f.value AS DOUBLE) AS value
FROM found AS f LEFT JOIN places AS p ON p.SeriesInstanceUID = f.series ORDER BY f.organ, f.product, f.series
"""
_SERIES = """
SELECT s.SeriesInstanceUID, s.StudyInstanceUID, s.PatientID, s.collection_id, s.license_short_name, s.viewer_url,
  s.slices, s.slice_spacing,
  coalesce(o.state, CASE WHEN w.n > 0 THEN 'done' END, '') AS state, coalesce(o.reason, '') AS reason,
  coalesce(w.n, 0) AS objects, coalesce(p.products, []) AS products, t.seconds
FROM series AS s
LEFT JOIN (SELECT * FROM outcomes WHERE product = '') AS o ON o.SeriesInstanceUID = s.SeriesInstanceUID
LEFT JOIN (SELECT SeriesInstanceUID, count(*) AS n FROM objects GROUP BY 1) AS w
  ON w.SeriesInstanceUID = s.SeriesInstanceUID
LEFT JOIN (
  SELECT SeriesInstanceUID, list_sort(list({'product': product, 'version': version})) AS products
  FROM (
    SELECT SeriesInstanceUID, product, CASE WHEN count(SOPInstanceUID) = 0 THEN '' ELSE
      left(sha256(array_to_string(list_sort(list(SOPInstanceUID) FILTER (SOPInstanceUID IS NOT NULL)), '|')), 16)
      END AS version
    FROM (
      SELECT SeriesInstanceUID, product, SOPInstanceUID FROM objects
      UNION ALL SELECT SeriesInstanceUID, product, NULL FROM outcomes
    ) WHERE product <> '' GROUP BY 1, 2
  ) GROUP BY 1
) AS p ON p.SeriesInstanceUID = s.SeriesInstanceUID
LEFT JOIN (SELECT SeriesInstanceUID, sum(seconds) AS seconds FROM timings GROUP BY 1) AS t
  ON t.SeriesInstanceUID = s.SeriesInstanceUID
ORDER BY s.SeriesInstanceUID
"""
_OUTCOMES = """
SELECT product, state, coalesce(reason, '') AS reason, count(*) AS n FROM outcomes GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_ISSUES = """
SELECT severity, rule, checker, count(*) AS n, min(message) AS message FROM issues GROUP BY 1, 2, 3
ORDER BY CASE severity WHEN 'error' THEN 0 WHEN 'warning' THEN 1 WHEN 'note' THEN 2 ELSE 3 END, n DESC, rule
"""
_TIMINGS = """
SELECT stage, product, count(*) AS n, median(seconds) AS median, max(seconds) AS largest, sum(seconds) AS total,
  coalesce(max(peak_memory), 0) AS memory
FROM timings GROUP BY 1, 2 ORDER BY total DESC
"""
_PRODUCTS = """
SELECT DISTINCT product FROM (SELECT product FROM outcomes UNION ALL SELECT product FROM objects)
WHERE product <> '' ORDER BY 1
"""
_TOTALS = """
SELECT (SELECT count(*) FROM objects) AS objects,
  (SELECT count(*) FROM quantitative_measurements
   WHERE segmentationSegmentNumber IS NOT NULL AND valueFloat IS NOT NULL) AS measurements,
  (SELECT count(DISTINCT (SeriesInstanceUID, product)) FROM landmarks) AS scored
"""
_LANDMARKS = """
SELECT landmark, count(slice_index) AS n FROM landmarks GROUP BY 1 ORDER BY max(score) DESC, 1
"""
_ABSENT = """
SELECT SeriesInstanceUID AS series, product, segment AS organ, '' AS why FROM segments WHERE absent
UNION ALL
SELECT SeriesInstanceUID, product, landmark, coalesce(absent_reason, 'not on any slice') FROM landmarks
WHERE landmark IN ('lung_start', 'lung_end') AND slice_index IS NULL
ORDER BY ALL
"""
_QUANTITIES = """
SELECT coalesce(Quantity.CodeMeaning, '') AS quantity, coalesce(Units.CodeValue, '') AS unit, count(*) AS n
FROM quantitative_measurements AS m WHERE segmentationSegmentNumber IS NOT NULL AND valueFloat IS NOT NULL
  AND NOT EXISTS (FROM objects AS o WHERE o.SOPInstanceUID = m.SOPInstanceUID AND o.kind = 'features_sr')
GROUP BY 1, 2 ORDER BY 1, 2
"""
"""What is compared between series; norms of feature vectors of several networks are not one quantity."""
_FEATURES = """
SELECT coalesce(s.segment, m.findingSite.CodeMeaning, 'segment ' || m.segmentationSegmentNumber) AS organ,
  o.product AS product, o.SeriesInstanceUID AS series, m.valueFloat AS value
FROM quantitative_measurements AS m
JOIN objects AS o ON o.SOPInstanceUID = m.SOPInstanceUID
LEFT JOIN segments AS s ON s.SeriesInstanceUID = o.SeriesInstanceUID AND s.product = o.product
  AND s.segment_number = m.segmentationSegmentNumber
WHERE m.segmentationSegmentNumber IS NOT NULL AND m.valueFloat IS NOT NULL AND o.kind IS DISTINCT FROM 'features_sr'
  AND coalesce(m.Quantity.CodeMeaning, '') = ? AND coalesce(m.Units.CodeValue, '') = ?
"""
_LUNG = """
SELECT 'lungs' AS organ, l.product AS product, l.SeriesInstanceUID AS series,
  max(s.distance) - min(s.distance) AS value
FROM landmarks AS l
JOIN slices AS s ON s.SeriesInstanceUID = l.SeriesInstanceUID AND s.slice_index = l.slice_index
WHERE l.landmark IN ('lung_start', 'lung_end') AND s.distance IS NOT NULL
GROUP BY 1, 2, 3 HAVING count(DISTINCT l.landmark) = 2
"""
_REGIONS = """
WITH made AS (
  SELECT o.SOPInstanceUID, o.product, o.SeriesInstanceUID, s.slices FROM objects AS o
  JOIN series AS s ON s.SeriesInstanceUID = o.SeriesInstanceUID WHERE o.kind = 'regions_sr' AND s.slices > 0
), found AS (
  SELECT coalesce(a.region, a.Value.CodeMeaning) AS region, m.product, m.SeriesInstanceUID,
    count(*) AS n
  FROM image_level_annotations AS a JOIN made AS m ON m.SOPInstanceUID = a.SOPInstanceUID
  WHERE a.Value.CodeMeaning IS NOT NULL GROUP BY 1, 2, 3
)
SELECT r.region AS organ, m.product AS product, m.SeriesInstanceUID AS series,
  100.0 * coalesce(f.n, 0) / m.slices AS value
FROM (SELECT DISTINCT region FROM found) AS r CROSS JOIN made AS m
LEFT JOIN found AS f ON f.region = r.region AND f.product = m.product AND f.SeriesInstanceUID = m.SeriesInstanceUID
"""


# ---------------------------------------------------------------- selection and flow


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


def flow_of(data: CohortData) -> Consort:
    """Count the run's flow diagram: series that the query found, that were selected, and that were finished."""
    ends = Counter(state or "not started" for state in data.series.column("state"))
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for row in data.outcomes:
        if not row["product"] and row["state"] != State.DONE.value:
            reasons[row["state"]][row["reason"] or row["state"]] += row["n"]
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

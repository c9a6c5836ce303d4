"""Run a selection query and turn its rows into a cohort, excluded series with reasons, and balanced totals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ctenrich.catalog.base import Catalog, QueryResult, ask
from ctenrich.catalog.damage import Damage, DamageKind
from ctenrich.catalog.queries import Query, bind, load_query
from ctenrich.errors import InconsistencyError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, SeriesEntry, SeriesFacts
from ctenrich.select.cohort_hash import sha256_in_order
from ctenrich.select.companions import attach_companions
from ctenrich.select.damage import note_damage, with_unreadable, without_damaged
from ctenrich.select.spool import SeriesSpool, SpooledSeries, heads_of, instance_type

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EXCLUDED_COLUMNS", "Selection", "excluded_table", "select_cohort"]

_TASK = "Select series"
EXCLUDED_COLUMNS = (
    "collection_id",
    "patient_id",
    "study_instance_uid",
    "series_instance_uid",
    "num_instances",
    "reason",
    "reasons",
    "detail",
)
"""Columns of the table of excluded series; ``reason`` is the first of ``reasons``, ``detail`` what the query adds."""


@dataclass(frozen=True)
class Selection:
    """What one selection found, and what is needed to run it again."""

    cohort: Cohort
    excluded: pa.Table
    """A row an excluded series: `EXCLUDED_COLUMNS`."""
    query: Query
    parameters: dict[str, object]
    """Every parameter with its value, defaults too."""
    catalog: str
    """folder, parquet, idc or bigquery."""
    catalog_version: str
    engine: str
    bytes_read: int | None = None
    notes: tuple[str, ...] = field(default=())
    """What the catalog does not know, for the user."""


def select_cohort(
    query: str | Path | Query,
    catalog: Catalog,
    parameters: Mapping[str, object],
    *,
    name: str = "cohort",
    companions: bool = True,
    progress: Progress = SILENT,
) -> Selection:
    """Run a selection query on a catalog.

    Parameters
    ----------
    query : str, Path or Query
        A file, or the name of one in queries/. Its rows are series (``SeriesInstanceUID``, ``failed``, ``instances``
        and more, as select_ct_series.sql describes them) or instances (``SeriesInstanceUID``, ``SOPInstanceUID``,
        ``gcs_url``), which then make up series that fail nothing.
    catalog : Catalog
        Where to ask.
    parameters : mapping
        Values of the query's @parameters; text is read as the type that the query's header states.
    name : str
        Name of the cohort.
    companions : bool
        Also look for the RTSTRUCT and SEG instances of the selected series' patients.
    progress : Progress
        Told what is being done.

    Returns
    -------
    Selection
        Also where nothing was selected: the caller decides whether that is an error (EMPTY_COHORT).

    Raises
    ------
    UsageError
        NOT_FOUND, BAD_QUERY, BAD_PARAMETER, MISSING_COLUMN, and errors of the catalog.
    InconsistencyError
        INCONSISTENT_TOTALS: a series of the start set is lost or counted twice.
    """
    loaded = query if isinstance(query, Query) else load_query(query)
    progress.start(_TASK, 2 if companions else 1)
    values = {key: value for key, (_, value) in bind(loaded, parameters).items()}
    found = _select_rows(loaded, catalog, {**parameters, **_incomplete(loaded, catalog)}, progress)
    progress.advance(_TASK)
    series, excluded, read = found.series, found.excluded, found.bytes_read
    heads = heads_of(series)
    if companions and catalog.instance_level and heads:
        heads, looked_up = attach_companions(heads, catalog, values, progress)
        read = None if read is None else read + (looked_up.bytes_read or 0)
        progress.advance(_TASK)
    damage = _damage_in(catalog)
    noted = note_damage(heads, damage)
    if isinstance(series, SpooledSeries):
        series.set_heads(noted)
    else:
        series = noted
    progress.finish(_TASK)
    return Selection(
        cohort=Cohort(name, series, sha256_in_order(series)),
        excluded=excluded_table(with_unreadable(excluded, damage, values)),
        query=loaded,
        parameters=values,
        catalog=catalog.name,
        catalog_version=catalog.version,
        engine=catalog.engine,
        bytes_read=read,
        notes=(*getattr(catalog, "notes", ()), *(_left_out_objects(catalog) if companions else ())),
    )


def _left_out_objects(catalog: Catalog) -> tuple[str, ...]:
    """A note on the plans and doses of a crawled catalog, which a cohort of series has no place for."""
    counts = catalog.radiotherapy_counts() if isinstance(catalog, _CrawledCatalog) else {}
    listed = ", ".join(f"{number} {modality}" for modality, number in counts.items())
    return (f"{listed} in the catalog are not part of a cohort: ctenrich treatments uses them",) if listed else ()


def _incomplete(query: Query, catalog: Catalog) -> dict[str, object]:
    """The parameter of the series that lack slices, where a query that keeps one series per study asks for it."""
    damage = _damage_in(catalog) if query.parameter("incomplete") is not None else ()
    found = sorted({item.series for item in damage if item.kind in {DamageKind.SLICE, DamageKind.CONTRADICTION}})
    return {"incomplete": found} if found else {}


def _damage_in(catalog: Catalog) -> tuple[Damage, ...]:
    """What a catalog of files could not read."""
    found: tuple[Damage, ...] = catalog.damage() if isinstance(catalog, _CrawledCatalog) else ()
    return found


@runtime_checkable
class _CrawledCatalog(Protocol):
    """A catalog that was made by reading files."""

    def damage(self) -> tuple[Damage, ...]:
        """Files that could not be read."""

    def radiotherapy_counts(self) -> Mapping[str, int]:
        """Instances by modality, of RTPLAN and RTDOSE."""


@runtime_checkable
class _PartedCatalog(Protocol):
    """A catalog that answers for some studies at a time, so that memory does not grow with its size."""

    def run_in_parts(self, query: Query, parameters: Mapping[str, object]) -> Iterator[QueryResult]:
        """The rows of each part; no series is in two of them."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Chosen series, sorted by UID, and the rows of the excluded ones."""

    series: tuple[SeriesEntry, ...] | SpooledSeries
    excluded: list[dict[str, Any]]
    bytes_read: int | None


def _select_rows(query: Query, catalog: Catalog, parameters: Mapping[str, object], progress: Progress) -> _Rows:
    """Ask a query, of a catalog that can do so part by part, and divide its series into chosen and excluded ones."""
    spool = SeriesSpool()
    excluded: list[dict[str, Any]] = []
    read = None
    for result in _answers(query, catalog, parameters, progress):
        chosen = _divide(result, query, catalog)
        spool.add(chosen.heads, chosen.instances)
        excluded += chosen.excluded
        read = result.bytes_read
        del result, chosen  # before the next part is asked for
    excluded.sort(key=lambda row: str(row["series_instance_uid"]))
    return _Rows(series=spool.series(), excluded=excluded, bytes_read=read)


def _answers(
    query: Query, catalog: Catalog, parameters: Mapping[str, object], progress: Progress
) -> Iterator[QueryResult]:
    if isinstance(catalog, _PartedCatalog):
        yield from catalog.run_in_parts(query, parameters)
    else:
        yield ask(catalog, query, parameters, progress)


@dataclass(frozen=True, kw_only=True)
class _Divided:
    """The series of one answer."""

    heads: list[SeriesEntry]
    """The chosen ones without their instances, sorted by UID."""
    instances: pa.ListArray
    """The instances of each."""
    excluded: list[dict[str, Any]]


def _divide(result: QueryResult, query: Query, catalog: Catalog) -> _Divided:
    """The chosen series of an answer, and the rows of the excluded ones."""
    import pyarrow as pa

    if "SeriesInstanceUID" not in result.table.column_names:
        raise UsageError(Reason.MISSING_COLUMN, f"{query.name} has no column SeriesInstanceUID")
    # the instances stay columns: an object for each would take most of the memory
    nested = result.table["instances"] if "instances" in result.table.column_names else None
    rows = (result.table if nested is None else result.table.drop_columns(["instances"])).to_pylist()
    if nested is None and "series_url" not in result.table.column_names:
        rows = _grouped(rows, query.name)
    chosen: list[int] = []
    heads: list[SeriesEntry] = []
    excluded: list[dict[str, Any]] = []
    for at, row in sorted(enumerate(rows), key=lambda pair: str(pair[1]["SeriesInstanceUID"])):
        reasons = _reasons(row, query.name)
        if reasons:
            excluded.append(_excluded_row(row, reasons))
        else:
            chosen.append(at)
            heads.append(_entry(row, catalog))
    if nested is None:
        instances = _lists_of([_instances_of(rows[at]) for at in chosen])
    else:
        instances = _lists_in(nested.take(pa.array(chosen, pa.int64())))
    kept = without_damaged(heads, instances.value_lengths().to_pylist(), excluded, _damage_in(catalog))
    if len(kept) < len(heads):
        heads, instances = [heads[at] for at in kept], instances.take(pa.array(kept, pa.int64()))
    _balance(rows, heads, excluded)
    return _Divided(heads=heads, instances=instances, excluded=excluded)


def _grouped(rows: list[dict[str, Any]], query: str) -> list[dict[str, Any]]:
    """Rows of instances as rows of series."""
    series: dict[str, dict[str, Any]] = {}
    for row in rows:
        url = row.get("gcs_url") or row.get("url")
        if not url:
            message = f"{query} gives neither the column instances nor gcs_url, so there is nothing to fetch"
            raise UsageError(Reason.MISSING_COLUMN, message)
        first = series.setdefault(str(row["SeriesInstanceUID"]), {**row, "instances": [], "failed": []})
        first["instances"].append(
            {
                "SOPInstanceUID": row.get("SOPInstanceUID") or "",
                "url": url,
                "size": row.get("instance_size"),
                "md5": row.get("instance_hash"),
            }
        )
    for row in series.values():
        row["num_instances"] = len(row["instances"])
        row["instances"].sort(key=lambda i: (i["SOPInstanceUID"], i["url"]))
    return list(series.values())


def _reasons(row: Mapping[str, Any], query: str) -> tuple[Reason, ...]:
    failed = row.get("failed")
    if not failed:
        return ()
    try:
        found = {Reason(code) for code in failed}
    except ValueError as error:
        raise UsageError(Reason.BAD_QUERY, f"{query} gives a reason that is not in the list: {error}") from None
    return tuple(reason for reason in Reason if reason in found)


def _instances_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if row.get("series_url"):
        return [{"sop_instance_uid": "", "url": row["series_url"], "size": row.get("size_bytes")}]
    return [
        {
            "sop_instance_uid": i["SOPInstanceUID"] or "",
            "url": i["url"] or "",
            "size": i.get("size"),
            "md5": i.get("md5"),
        }
        for i in row["instances"]
    ]


def _lists_of(instances: list[list[dict[str, Any]]]) -> pa.ListArray:
    """Lists of instances in the type of a cohort file."""
    import pyarrow as pa

    return pa.array(instances, pa.list_(instance_type()))


def _lists_in(nested: pa.ChunkedArray) -> pa.ListArray:
    """The lists of a query's column ``instances`` in the type of a cohort file, made from their columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = instance_type()
    lists = pa.concat_arrays([pa.array([], nested.type), *nested.chunks])
    ends = pa.array([0, *accumulate(length or 0 for length in lists.value_lengths().to_pylist())], pa.int32())
    flat = lists.flatten()
    if not len(flat):
        return pa.ListArray.from_arrays(ends, pa.array([], kind))
    columns = {field.name: column for field, column in zip(flat.type, flat.flatten(), strict=True)}
    nothing = pa.nulls(len(flat))
    uid, url = (pc.fill_null(columns[name].cast(pa.string()), "") for name in ("SOPInstanceUID", "url"))
    others = (columns.get("size", nothing), columns.get("md5", nothing), nothing)
    values = [column.cast(field.type) for column, field in zip((uid, url, *others), kind, strict=True)]
    return pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(values, fields=list(kind)))


def _entry(row: Mapping[str, Any], catalog: Catalog) -> SeriesEntry:
    known = row.get("geometry_known")
    return SeriesEntry(
        collection_id=row.get("collection_id") or "",
        patient_id=row.get("PatientID") or "",
        study_instance_uid=row.get("StudyInstanceUID") or "",
        series_instance_uid=row["SeriesInstanceUID"],
        instances=(),
        crdc_series_uuid=row.get("crdc_series_uuid") or "",
        geometry_known=catalog.instance_level if known is None else bool(known),
        license_short_name=row.get("license_short_name") or "",
        source_doi=row.get("Source_DOI") or "",
        expected_instances=row.get("num_instances") if catalog.complete else None,
        facts=_facts(row),
    )


def _facts(row: Mapping[str, Any]) -> SeriesFacts:
    """Attributes of a series, of those columns that the query has."""
    values = {keyword.lower(): value for keyword, value in row.items()}
    return SeriesFacts(**{f.name: values.get(f.name.replace("_", ""), values.get(f.name)) for f in fields(SeriesFacts)})


def _excluded_row(row: Mapping[str, Any], reasons: tuple[Reason, ...]) -> dict[str, Any]:
    return {
        "collection_id": row.get("collection_id") or "",
        "patient_id": row.get("PatientID") or "",
        "study_instance_uid": row.get("StudyInstanceUID") or "",
        "series_instance_uid": row["SeriesInstanceUID"] or "",
        "num_instances": row.get("num_instances"),
        "reason": reasons[0].value,
        "reasons": [reason.value for reason in reasons],
        "detail": row.get("detail"),
    }


def excluded_table(rows: list[dict[str, Any]]) -> pa.Table:
    """The table of excluded series."""
    import pyarrow as pa

    types = {"num_instances": pa.int64(), "reasons": pa.list_(pa.string())}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in EXCLUDED_COLUMNS])
    return pa.Table.from_pylist(rows, schema)


def _balance(rows: list[dict[str, Any]], chosen: Sequence[SeriesEntry], excluded: Sequence[dict[str, Any]]) -> None:
    start = [str(row["SeriesInstanceUID"]) for row in rows]
    if len(set(start)) != len(start):
        message = f"the query gives {len(start) - len(set(start))} series more than once"
        raise InconsistencyError(Reason.INCONSISTENT_TOTALS, message, "a selection has one row a series")
    ended = [s.series_instance_uid for s in chosen] + [str(row["series_instance_uid"]) for row in excluded]
    if len(start) != len(ended):
        raise InconsistencyError(Reason.INCONSISTENT_TOTALS, f"{len(start)} series came in, {len(ended)} came out")

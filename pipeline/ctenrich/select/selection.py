"""Run a selection query and turn its rows into a cohort, excluded series with reasons, and balanced totals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ctenrich.catalog.base import Catalog, QueryResult, ask
from ctenrich.catalog.damage import Damage, DamageKind
from ctenrich.catalog.queries import Query, bind, load_query
from ctenrich.errors import InconsistencyError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Instance, SeriesEntry, SeriesFacts
from ctenrich.select.companions import attach_companions
from ctenrich.select.damage import note_damage, with_unreadable, without_damaged

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EXCLUDED_COLUMNS", "Selection", "cohort_sha256", "excluded_table", "select_cohort", "select_rows"]

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


def cohort_sha256(series: Iterable[SeriesEntry]) -> str:
    """Hash over the sorted series and instance UIDs (URLs where a catalog has no instances)."""
    digest = hashlib.sha256()
    for entry in sorted(series, key=lambda s: s.series_instance_uid):
        digest.update(f"S {entry.series_instance_uid}\n".encode())
        for name in sorted(i.sop_instance_uid or i.url for i in entry.instances):
            digest.update(f"I {name}\n".encode())
    return digest.hexdigest()


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
    result = ask(catalog, loaded, {**parameters, **_incomplete(loaded, catalog)}, progress)
    progress.advance(_TASK)
    selection = select_rows(result, loaded, values, catalog, name)
    series = selection.cohort.series
    if companions and catalog.instance_level and series:
        series, looked_up = attach_companions(series, catalog, values, progress)
        read = None if selection.bytes_read is None else selection.bytes_read + (looked_up.bytes_read or 0)
        selection = replace(selection, bytes_read=read)
        progress.advance(_TASK)
    series = note_damage(series, _damage_in(catalog))
    progress.finish(_TASK)
    left_out = _left_out_objects(catalog) if companions else ()
    cohort = replace(selection.cohort, series=series)
    return replace(selection, cohort=cohort, notes=(*selection.notes, *left_out))


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


def select_rows(
    result: QueryResult, query: Query, parameters: dict[str, object], catalog: Catalog, name: str
) -> Selection:
    """Make a selection of a query's rows.

    Parameters
    ----------
    result : QueryResult
        Rows of series or of instances, see :func:`select_cohort`.
    query : Query
        The query that was asked.
    parameters : dict
        Its bound parameters, for the lock.
    catalog : Catalog
        Where it was asked.
    name : str
        Name of the cohort.

    Returns
    -------
    Selection
        Chosen and excluded series.

    Raises
    ------
    UsageError
        MISSING_COLUMN.
    InconsistencyError
        INCONSISTENT_TOTALS: a series is lost or counted twice.
    """
    if "SeriesInstanceUID" not in result.table.column_names:
        raise UsageError(Reason.MISSING_COLUMN, f"{query.name} has no column SeriesInstanceUID")
    # the instances of a series become Python objects only with their series, not all at once
    nested = result.table["instances"] if "instances" in result.table.column_names else None
    rows = (result.table if nested is None else result.table.drop_columns(["instances"])).to_pylist()
    if nested is None and "series_url" not in result.table.column_names:
        rows = _grouped(rows, query.name)
    chosen: list[SeriesEntry] = []
    excluded: list[dict[str, Any]] = []
    for at, row in sorted(enumerate(rows), key=lambda pair: str(pair[1]["SeriesInstanceUID"])):
        reasons = _reasons(row, query.name)
        if reasons:
            excluded.append(_excluded_row(row, reasons))
        else:
            chosen.append(_entry(row if nested is None else {**row, "instances": nested[at].as_py()}, catalog))
    chosen = without_damaged(chosen, excluded, _damage_in(catalog))
    _balance(rows, chosen, excluded)
    excluded = with_unreadable(excluded, _damage_in(catalog), parameters)
    cohort = Cohort(name, tuple(chosen), cohort_sha256(chosen))
    return Selection(
        cohort=cohort,
        excluded=excluded_table(excluded),
        query=query,
        parameters=parameters,
        catalog=catalog.name,
        catalog_version=catalog.version,
        engine=catalog.engine,
        bytes_read=result.bytes_read,
        notes=tuple(getattr(catalog, "notes", ())),
    )


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
    try:
        found = {Reason(code) for code in row.get("failed") or ()}
    except ValueError as error:
        raise UsageError(Reason.BAD_QUERY, f"{query} gives a reason that is not in the list: {error}") from None
    return tuple(reason for reason in Reason if reason in found)


def _entry(row: Mapping[str, Any], catalog: Catalog) -> SeriesEntry:
    if row.get("series_url"):
        instances: tuple[Instance, ...] = (Instance("", row["series_url"], row.get("size_bytes")),)
    else:
        instances = tuple(
            Instance(i["SOPInstanceUID"] or "", i["url"] or "", i.get("size"), i.get("md5")) for i in row["instances"]
        )
    known = row.get("geometry_known")
    return SeriesEntry(
        collection_id=row.get("collection_id") or "",
        patient_id=row.get("PatientID") or "",
        study_instance_uid=row.get("StudyInstanceUID") or "",
        series_instance_uid=row["SeriesInstanceUID"],
        instances=instances,
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


def _balance(rows: list[dict[str, Any]], chosen: list[SeriesEntry], excluded: list[dict[str, Any]]) -> None:
    start = [str(row["SeriesInstanceUID"]) for row in rows]
    if len(set(start)) != len(start):
        message = f"the query gives {len(start) - len(set(start))} series more than once"
        raise InconsistencyError(Reason.INCONSISTENT_TOTALS, message, "a selection has one row a series")
    ended = [s.series_instance_uid for s in chosen] + [str(row["series_instance_uid"]) for row in excluded]
    if len(start) != len(ended):
        raise InconsistencyError(Reason.INCONSISTENT_TOTALS, f"{len(start)} series came in, {len(ended)} came out")

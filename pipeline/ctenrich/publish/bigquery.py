"""Load a run's tables into BigQuery: create, append or replace one run; with descriptions, partitions, clusters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from ctenrich.catalog.bigquery import open_client
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.privacy import check_identity_removed
from ctenrich.reasons import Reason
from ctenrich.results.complete import check_tables
from ctenrich.results.views import available_views, published_view
from ctenrich.storage.google import google_errors
from ctenrich.workspace import Workspace, sha256_of_file

__all__ = ["PARTITIONS", "BigQueryOptions", "Mode", "publish_bigquery"]

_PLACE = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\.[A-Za-z0-9_]{1,1024}")
_KEYS = {
    "series": ("SeriesInstanceUID",),
    "slices": ("SeriesInstanceUID",),
    "segmentations": ("segmented_SeriesInstanceUID", "SOPInstanceUID"),
    "quantitative_measurements": ("sourceSegmentedSeriesUID", "SOPInstanceUID"),
    "qualitative_measurements": ("sourceSegmentedSeriesUID", "SOPInstanceUID"),
    "measurement_groups": ("sourceSegmentedSeriesUID", "SOPInstanceUID"),
    "image_level_annotations": ("ReferencedSeriesInstanceUID", "SOPInstanceUID"),
    "dicom_metadata": ("SOPInstanceUID",),
}
"""Columns that a table is clustered by in BigQuery, after run_id: what questions filter by."""
_GROWS = "dicom_metadata"
"""The table whose columns are the attributes that were written: it grows with the objects."""
PARTITIONS = 4000
"""Partitions of a table: the rows of a run are in one, chosen by a hash of its identifier."""
_SAME = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD", "DECIMAL": "NUMERIC"}


class Mode(StrEnum):
    """What happens to a table that is there already."""

    CREATE = "create"
    """It must not be there."""
    APPEND = "append"
    """Rows are added; a run whose rows are there already is left as it is."""
    REPLACE = "replace"
    """The rows of this run are replaced, those of other runs stay."""


@dataclass(frozen=True, kw_only=True)
class BigQueryOptions:
    """How tables are loaded."""

    mode: Mode = Mode.REPLACE
    """How existing tables are treated."""
    location: str = "US"
    """Location of a new dataset; an existing one must have it."""
    identified: bool = False
    """Whether patients may be among them who can be identified."""


@dataclass(frozen=True)
class _Run:
    """The run whose rows are loaded."""

    identifier: str
    mode: Mode

    @property
    def partition(self) -> int:
        return int(hashlib.sha256(self.identifier.encode()).hexdigest()[:8], 16) % PARTITIONS


def publish_bigquery(
    workspace: Workspace,
    place: str,
    *,
    options: BigQueryOptions | None = None,
    client: Any = None,
    progress: Progress = SILENT,
) -> dict[str, int]:
    """Load the run's tables into a BigQuery dataset, with descriptions, partitions and clusters.

    Every table gets the columns ``run_id``, by which a run is replaced or appended only once, and ``run_partition``, a
    hash of it, by which the table is partitioned: replacing a run reads and writes one partition.

    Parameters
    ----------
    workspace : Workspace
        A run whose tables have been built.
    place : str
        ``PROJECT.DATASET``.
    options : BigQueryOptions, optional
        Replaces the run's rows in a dataset in the US by default, and refuses identified patients.
    client : google.cloud.bigquery.Client, optional
        Default: one with the credentials of the environment.
    progress : Progress
        Receives one step per table.

    Returns
    -------
    dict
        Table -> number of rows that this run has there.

    Raises
    ------
    UsageError
        BAD_PARAMETER, MISSING_EXTRA, NO_CREDENTIALS, BAD_RUN (a table of an older schema), NOT_PREPARED;
        IDENTITY_NOT_REMOVED, see `ctenrich.publish.privacy`.
    TransientError
        RETRY_EXHAUSTED (quota, a service that failed), CATALOG_UNREACHABLE. What was loaded stays; a second call
        goes on.
    """
    if _PLACE.fullmatch(place) is None:
        raise UsageError(Reason.BAD_PARAMETER, "the dataset is named PROJECT.DATASET")
    files = sorted(workspace.tables.glob("*.parquet"))
    if not files:
        raise UsageError(Reason.NOT_PREPARED, "the run has no tables yet", "run: ctenrich report RUN")
    check_tables(workspace)
    chosen = options or BigQueryOptions()
    check_identity_removed(workspace, identified=chosen.identified)
    run = _Run(_run_id(workspace), chosen.mode)
    out: dict[str, int] = {}
    with google_errors():
        opened = client or open_client(place.split(".", maxsplit=1)[0])
        _make_dataset(opened, place, chosen.location)
        progress.start("bigquery", len(files))
        for path in files:
            out[path.stem] = _load_table(opened, place, path, run)
            progress.advance("bigquery")
        for name, view in available_views(out).items():
            _replace_view(opened, f"{place}.{name}", published_view(view, place), view.purpose)
        progress.finish("bigquery")
    return out


def _replace_view(client: Any, name: str, statement: str, description: str) -> None:
    """Make a view; one that an earlier version made is replaced."""
    from google.cloud import bigquery

    view = bigquery.Table(name)
    view.view_query = statement
    view.description = description
    client.delete_table(name, not_found_ok=True)
    client.create_table(view)


def _run_id(workspace: Workspace) -> str:
    config = workspace.root / "run.json"
    return sha256_of_file(config)[:16] if config.is_file() else workspace.root.name


def _make_dataset(client: Any, place: str, location: str) -> None:
    from google.cloud import bigquery

    wanted = bigquery.Dataset(place)
    wanted.location = location
    found = client.create_dataset(wanted, exists_ok=True)
    if found.location and found.location.upper() != location.upper():
        message = f"the dataset is in {found.location}, not in {location}"
        raise UsageError(Reason.BAD_PARAMETER, message, f"--location {found.location}, or another dataset")


def _load_table(client: Any, place: str, path: Path, run: _Run) -> int:
    from google.api_core.exceptions import NotFound

    assert re.fullmatch(r"[a-z_]+", path.stem)
    schema = _bigquery_schema(path)
    name = f"{place}.{path.stem}"
    try:
        found = client.get_table(name)
    except NotFound:
        found = None
    if found is None:
        client.create_table(_new_table(name, path, schema))
    else:
        if run.mode is Mode.CREATE:
            raise UsageError(Reason.BAD_RUN, f"the table {path.stem} is there already", "append to it or replace")
        _check_schema(client, path.stem, found, schema)
        rows = _rows_of(path)
        if run.mode is Mode.APPEND and rows and _ask(client, f"SELECT COUNT(*) AS n FROM `{name}`", run) == rows:  # noqa: S608 - as below
            return rows
        _ask(client, f"DELETE FROM `{name}`", run)  # noqa: S608 - parts of the name were checked
    return _load_rows(client, name, path, run, schema)


def _rows_of(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _new_table(name: str, path: Path, schema: list[Any]) -> Any:
    """The table with its partitions (by run) and clusters (by run, series, object)."""
    import pyarrow.parquet as pq
    from google.cloud import bigquery

    table = bigquery.Table(name, schema=schema)
    bounds: Any = bigquery.PartitionRange(start=0, end=PARTITIONS, interval=1)
    table.range_partitioning = bigquery.RangePartitioning(bounds, field="run_partition")
    keys = [k for k in _KEYS.get(path.stem, ("SeriesInstanceUID",)) if k in {f.name for f in schema}]
    table.clustering_fields = ["run_id", *keys][:4]
    version = (pq.read_schema(path).metadata or {}).get(b"ctenrich_schema", b"").decode()
    table.description = f"Written by ctenrich publish; schema {version}"
    return table


def _load_rows(client: Any, name: str, path: Path, run: _Run, schema: list[Any]) -> int:
    from google.cloud import bigquery

    rows = _rows_of(path)
    if rows == 0:
        return 0
    make: Any = bigquery.ParquetOptions
    options = make()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(
        source_format="PARQUET", write_disposition="WRITE_APPEND", schema=schema, parquet_options=options
    )
    with _stamped(path, run) as file:
        client.load_table_from_file(file, name, job_config=config).result()
    return rows


@contextmanager
def _stamped(path: Path, run: _Run) -> Iterator[IO[bytes]]:
    """The table with the columns of its run, as a file of its own; a part at a time is in memory."""
    import tempfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(path)
    own = [pa.field("run_id", pa.string()), pa.field("run_partition", pa.int64())]
    schema = pa.schema([*source.schema_arrow.remove_metadata(), *own])
    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(file, schema, use_compliant_nested_type=True) as writer:
            for part in source.iter_batches(batch_size=65536):
                stamps = [pa.array([value] * len(part), f.type) for f, value in zip(own, _stamp(run), strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays([*part.columns, *stamps], schema=schema))
        file.seek(0)
        yield file


def _stamp(run: _Run) -> tuple[str, int]:
    return run.identifier, run.partition


def _ask(client: Any, verb: str, run: _Run) -> int:
    """Count or remove this run's rows of a table whose name was checked."""
    from google.cloud import bigquery

    given = [
        bigquery.ScalarQueryParameter("run_id", "STRING", run.identifier),
        bigquery.ScalarQueryParameter("run_partition", "INT64", run.partition),
    ]
    config = bigquery.QueryJobConfig(query_parameters=given)
    where = "WHERE run_partition = @run_partition AND run_id = @run_id"
    rows = list(client.query(f"{verb} {where}", job_config=config).result())
    return int(rows[0]["n"]) if rows else 0


def _check_schema(client: Any, stem: str, table: Any, wanted: Sequence[Any]) -> None:
    """Refuse a table that lacks a column or has it in another type; let the one that grows grow."""
    problem = _difference(table.schema, wanted)
    if stem == _GROWS and not _difference(table.schema, wanted, lacks=False):
        if problem:
            table.schema = _united(table.schema, wanted)
            client.update_table(table, ["schema"])
        return
    if problem:
        message = f"the table {stem} has another schema than this version's: {problem}"
        raise UsageError(Reason.BAD_RUN, message, "publish to a new dataset")


def _difference(found: Sequence[Any], wanted: Sequence[Any], place: str = "", *, lacks: bool = True) -> str:
    """What hinders rows of the `wanted` fields in a table of the `found` ones; empty if nothing does."""
    have = {f.name.lower(): f for f in found}
    for field in wanted:
        name, there = f"{place}{field.name}", have.get(field.name.lower())
        if there is None:
            if lacks:
                return f"it lacks {name}"
            continue
        kinds = [_SAME.get(f.field_type, f.field_type) for f in (there, field)]
        if kinds[0] != kinds[1] or (there.mode == "REPEATED") != (field.mode == "REPEATED"):
            return f"{name} is {there.mode} {kinds[0]} there, {field.mode} {kinds[1]} here"
        inner = _difference(there.fields, field.fields, f"{name}.", lacks=lacks)
        if inner:
            return inner
    return ""


def _united(found: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """The fields of both, those that are there first, at every depth."""
    new = {f.name.lower(): f for f in wanted}
    out = []
    for field in found:
        other = new.pop(field.name.lower(), None)
        if other is not None and field.fields:
            inner = _united(field.fields, other.fields)
            field = _record(field, inner)  # noqa: PLW2901 - the same field, united
        out.append(field)
    return [*out, *new.values()]


def _record(field: Any, inner: list[Any]) -> Any:
    from google.cloud import bigquery

    return bigquery.SchemaField(field.name, "RECORD", field.mode, description=field.description, fields=inner)


def _bigquery_schema(path: Path) -> list[Any]:
    import pyarrow.parquet as pq
    from google.cloud import bigquery

    fields = [_field(f) for f in pq.read_schema(path)]
    own = [
        bigquery.SchemaField("run_id", "STRING", description="Identifies the run that wrote the row"),
        bigquery.SchemaField("run_partition", "INTEGER", description="Hash of run_id: the table's partition"),
    ]
    return [*fields, *own]


def _field(field: Any) -> Any:
    import pyarrow.types as kinds
    from google.cloud import bigquery

    kind, mode = field.type, "NULLABLE"
    if kinds.is_list(kind):
        kind, mode = kind.value_type, "REPEATED"
    text = (field.metadata or {}).get(b"description", b"").decode()
    if kinds.is_struct(kind):
        inner = [_field(f) for f in kind]
        return bigquery.SchemaField(field.name, "RECORD", mode, description=text, fields=inner)
    return bigquery.SchemaField(field.name, _type_name(kind), mode, description=text)


def _type_name(kind: Any) -> str:
    import pyarrow.types as kinds

    tests: list[tuple[Callable[[Any], bool], str]] = [
        (kinds.is_string, "STRING"),
        (kinds.is_integer, "INTEGER"),
        (kinds.is_floating, "FLOAT"),
        (kinds.is_boolean, "BOOLEAN"),
        (kinds.is_decimal, "NUMERIC"),
        (kinds.is_date, "DATE"),
        (kinds.is_time, "TIME"),
        (kinds.is_timestamp, "TIMESTAMP"),
    ]
    return next(name for test, name in tests if test(kind))

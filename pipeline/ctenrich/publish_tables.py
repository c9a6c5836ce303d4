"""Bring a run's tables to BigQuery: create, append or replace one run, with descriptions and clustering."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.publish import google_errors
from ctenrich.reasons import Reason
from ctenrich.workspace import Workspace, sha256_of_file

__all__ = ["Mode", "publish_bigquery"]

_PLACE = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\.[A-Za-z0-9_]{1,1024}")
_KEYS = {
    "series": ("SeriesInstanceUID",),
    "slices": ("SeriesInstanceUID",),
    "segmentations": ("segmented_SeriesInstanceUID", "SOPInstanceUID"),
    "quantitative_measurements": ("sourceSegmentedSeriesUID", "SOPInstanceUID"),
    "qualitative_measurements": ("sourceSegmentedSeriesUID", "SOPInstanceUID"),
    "measurement_groups": ("sourceSegmentedSeriesUID", "SOPInstanceUID"),
    "image_level_annotations": ("ReferencedSeriesInstanceUID", "SOPInstanceUID"),
}
"""Columns that a table is clustered by in BigQuery: what questions filter by."""


class Mode(StrEnum):
    """What happens to a table that is there already."""

    CREATE = "create"
    """It must not be there."""
    APPEND = "append"
    """Rows are added; rows of the same run are not added twice."""
    REPLACE = "replace"
    """The rows of this run are replaced, those of other runs stay."""


def publish_bigquery(
    workspace: Workspace,
    place: str,
    *,
    mode: Mode = Mode.REPLACE,
    location: str = "US",
    client: Any = None,
    progress: Progress = SILENT,
) -> dict[str, int]:
    """Load the run's tables into a BigQuery dataset, with descriptions and clustering.

    Every table gets a column ``run_id``, by which a run is replaced or appended only once.

    Parameters
    ----------
    place : str
        ``PROJECT.DATASET``.

    Returns
    -------
    dict
        Table -> number of rows that this run has there.

    Raises
    ------
    UsageError
        BAD_PARAMETER, MISSING_EXTRA, NO_CREDENTIALS, BAD_RUN (a table of an older schema), NOT_PREPARED.
    TransientError
        RETRY_EXHAUSTED (quota).
    """
    if _PLACE.fullmatch(place) is None:
        raise UsageError(Reason.BAD_PARAMETER, "the dataset is named PROJECT.DATASET")
    files = sorted(workspace.tables.glob("*.parquet"))
    if not files:
        raise UsageError(Reason.NOT_PREPARED, "the run has no tables yet", "run: ctenrich report RUN")
    out: dict[str, int] = {}
    with google_errors():
        opened = client or _bigquery_client(place.split(".", maxsplit=1)[0], location)
        _make_dataset(opened, place, location)
        progress.start("bigquery", len(files))
        for path in files:
            out[path.stem] = _load_table(opened, place, path, _run_id(workspace), mode)
            progress.advance("bigquery")
        progress.finish("bigquery")
    return out


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
        raise UsageError(Reason.BAD_PARAMETER, message, "name its location, or another dataset")


def _load_table(client: Any, place: str, path: Path, run_id: str, mode: Mode) -> int:
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    schema = _bigquery_schema(path)
    name = f"{place}.{path.stem}"
    try:
        found = client.get_table(name)
    except NotFound:
        found = None
    if found is not None:
        if mode is Mode.CREATE:
            raise UsageError(Reason.BAD_RUN, f"the table {path.stem} is there already", "append to it or replace")
        _check_schema(path.stem, found.schema, schema)
        _forget(client, name, run_id, path.stem)
    else:
        table = bigquery.Table(name, schema=schema)
        keys = [k for k in _KEYS.get(path.stem, ()) if k in {f.name for f in schema}]
        table.clustering_fields = ["run_id", *keys][:4]
        client.create_table(table)
    return _load_rows(client, name, path, run_id, schema)


def _load_rows(client: Any, name: str, path: Path, run_id: str, schema: list[Any]) -> int:
    from io import BytesIO

    import pyarrow as pa
    import pyarrow.parquet as pq
    from google.cloud import bigquery

    table = pq.read_table(path)
    if table.num_rows == 0:
        return 0
    table = table.append_column(pa.field("run_id", pa.string()), pa.array([run_id] * table.num_rows))
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer, use_compliant_nested_type=True)
    buffer.seek(0)
    make: Any = bigquery.ParquetOptions
    options = make()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(
        source_format="PARQUET", write_disposition="WRITE_APPEND", schema=schema, parquet_options=options
    )
    client.load_table_from_file(buffer, name, job_config=config).result()
    return int(table.num_rows)


def _forget(client: Any, name: str, run_id: str, stem: str) -> None:
    """Remove this run's rows from a table whose name was checked."""
    from google.cloud import bigquery

    assert re.fullmatch(r"[a-z_]+", stem)
    parameter = bigquery.ScalarQueryParameter("run_id", "STRING", run_id)
    config = bigquery.QueryJobConfig(query_parameters=[parameter])
    client.query(f"DELETE FROM `{name}` WHERE run_id = @run_id", job_config=config).result()  # noqa: S608


def _check_schema(stem: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    have = {f.name: f.field_type for f in found}
    missing = [f.name for f in wanted if f.name not in have]
    if missing:
        message = f"the table {stem} has an older schema: it lacks {missing[0]}"
        raise UsageError(Reason.BAD_RUN, message, "publish to a new dataset")


def _bigquery_schema(path: Path) -> list[Any]:
    import pyarrow.parquet as pq
    from google.cloud import bigquery

    fields = [_field(f) for f in pq.read_schema(path)]
    return [*fields, bigquery.SchemaField("run_id", "STRING", description="Identifies the run that wrote the row")]


def _field(field: Any) -> Any:
    import pyarrow.types as kinds
    from google.cloud import bigquery

    kind, mode = field.type, "NULLABLE"
    if kinds.is_list(kind):
        kind, mode = kind.value_type, "REPEATED"
    text = (field.metadata or {}).get(b"description", b"").decode() or None
    if kinds.is_struct(kind):
        return bigquery.SchemaField(field.name, "RECORD", mode, text, fields=[_field(f) for f in kind])
    return bigquery.SchemaField(field.name, _type_name(kind), mode, text)


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


def _bigquery_client(project: str, location: str) -> Any:
    from google.cloud import bigquery

    return bigquery.Client(project=project, location=location)

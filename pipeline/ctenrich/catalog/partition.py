"""Ask a query for some studies at a time, so that its memory does not grow with the catalog."""

from __future__ import annotations

import errno
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctenrich.catalog.base import QueryResult
from ctenrich.catalog.engine import LEAST_MEMORY, arrow_batches, duckdb_error
from ctenrich.catalog.image_parts import SplitSession, run_in_image_parts, split_query
from ctenrich.catalog.instances import ImageFilter, run_with_instances
from ctenrich.catalog.queries import PARTITION, Query, bind
from ctenrich.errors import InputError
from ctenrich.reasons import Reason

__all__ = ["default_memory", "run_in_parts"]

_BYTES_PER_IMAGE, _BYTES_PER_JUDGED_IMAGE = 6000, 2000
"""Memory per image that a selection takes at its peak; the second if its instances are listed outside of the query."""
_LARGEST_PART, _BYTES_PER_IMAGE_OF_PART = 700_000, 6000
"""Images of a part, if there are parts: as many as the query sorts without temporary files of its own.

A part takes more memory than as many images at once: it is read from temporary files, beside what is already chosen.
"""
_BYTES_PER_ROW_OF_PART = 3000
"""The same if only the rows that a query makes of single images are written."""
_BATCH = 100_000
"""Images that are divided into parts at a time."""
_INSTANCES = "dicom_all"
_PART = "part_of_catalog"
_FILTERS = (("collections", "collection_id"), ("series", "SeriesInstanceUID"))
"""Parameters that restrict the images which a query reads, with their column."""


def default_memory() -> int:
    """Half of this machine's memory, in bytes."""
    import psutil

    return int(psutil.virtual_memory().total) // 2


def run_in_parts(
    connection: Any, query: Query, parameters: Mapping[str, object], local: Mapping[str, str], memory: int
) -> Iterator[QueryResult]:
    """Run a query, for as many studies at a time as the memory allows.

    The images are read once and written by part to a temporary folder, and the query is then asked for each part. All
    images of a series are in one part, and all series of a study. What is written are the rows that the first step of
    the query makes of single images, or all columns that it names if it has no such step.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Its limit of memory is changed.
    query : Query
        The query; one that states no partition is asked once.
    parameters : mapping
        Values of its @parameters.
    local : mapping
        Tables that the query may read: name in lower case -> name in DuckDB.
    memory : int
        Bytes that the selection may take.

    Yields
    ------
    QueryResult
        The rows of a part; no series is in two of them.

    Raises
    ------
    UsageError
        BAD_QUERY, BAD_PARAMETER, MISSING_COLUMN.
    InputError
        OUT_OF_MEMORY; DISK_FULL: no room for the temporary files.
    TransientError
        CATALOG_UNREACHABLE: a file of the catalog cannot be read.
    """
    import pyarrow.dataset as ds

    engine_memory = max(memory // 2, LEAST_MEMORY)
    parts = _number_of_parts(connection, query, parameters, local, memory)
    images = _images(query, bind(query, parameters), local[_INSTANCES]) if _INSTANCES in local else None
    if parts <= 1 or images is None:
        yield run_with_instances(connection, query, parameters, local, images, engine_memory)
        return
    split = split_query(query) if query.partition == PARTITION else None
    with tempfile.TemporaryDirectory(prefix="ctenrich-select-") as folder:
        connection.execute(f"SET memory_limit = '{engine_memory}B'")
        if split is not None:
            images_of_part = min(max(memory // _BYTES_PER_ROW_OF_PART, 1), _LARGEST_PART)
            session = SplitSession(connection, query, split, parameters, local)
            yield from run_in_image_parts(session, Path(folder), images=images_of_part, memory=memory)
            return
        _write_parts(connection, query, images, parts, Path(folder))
        for path in sorted(Path(folder).iterdir()):
            connection.register(_PART, ds.dataset(path, format="ipc"))
            try:
                here, tables = replace(images, table=_PART), {**local, _INSTANCES: _PART}
                yield run_with_instances(connection, query, parameters, tables, here, engine_memory)
            finally:
                connection.unregister(_PART)


def _number_of_parts(
    connection: Any, query: Query, parameters: Mapping[str, object], local: Mapping[str, str], memory: int
) -> int:
    if query.partition != PARTITION or _INSTANCES not in local:
        return 1
    images = _images(query, bind(query, parameters), local[_INSTANCES])
    at_once, in_part = (
        (_BYTES_PER_JUDGED_IMAGE, _BYTES_PER_IMAGE_OF_PART)
        if query.lists_instances
        else (_BYTES_PER_IMAGE, _BYTES_PER_IMAGE)
    )
    count = _count(connection, query, images)
    return 1 if count * at_once <= memory else math.ceil(count / min(max(memory // in_part, 1), _LARGEST_PART))


def _images(query: Query, bound: Mapping[str, tuple[str, object]], table: str) -> ImageFilter:
    """The images that the query's parameters leave.

    Its patients restrict nothing: images of a patient who was not asked for may have the UID of a series that is.
    """
    terms: list[str] = []
    values: list[object] = []
    for name, column in _FILTERS:
        if query.parameter(name) is not None and bound[name][1]:
            terms.append(f"list_contains(?::VARCHAR[], {column})")
            values.append(bound[name][1])
    return ImageFilter(table=table, condition=" AND ".join(terms) or "TRUE", values=values)


def _count(connection: Any, query: Query, images: ImageFilter) -> int:
    import duckdb

    sql = f"SELECT count(*) FROM {images.table} WHERE Modality = 'CT' AND {images.condition}"  # noqa: S608 - own names
    try:
        return int(connection.execute(sql, images.values).fetchone()[0])
    except duckdb.Error as error:
        raise duckdb_error(error, query.name) from error


def _write_parts(connection: Any, query: Query, images: ImageFilter, parts: int, folder: Path) -> None:
    """Write the images of all series with CT images into a folder per part, with the columns that the query names."""
    import duckdb
    import pyarrow.dataset as ds

    instances, condition = images.table, images.condition
    known = [row[0] for row in connection.execute(f"DESCRIBE {instances}").fetchall()]
    named = {word.lower() for word in re.findall(r"\w+", query.text)}
    columns = ", ".join(f'i."{name}"' for name in known if name.lower() in named)
    sql = f"""
        WITH series AS (
          SELECT
            coalesce(SeriesInstanceUID, '') AS uid,
            hash(min(coalesce(StudyInstanceUID, ''))) % {parts} AS {_PART}
          FROM {instances}
          WHERE {condition}
          GROUP BY 1
          HAVING bool_or(Modality = 'CT')
        )
        SELECT {columns}, series.{_PART}
        FROM {instances} AS i
        JOIN series ON coalesce(i.SeriesInstanceUID, '') = series.uid
        WHERE {condition}
    """  # noqa: S608 - names are those of the catalog's own tables and columns
    try:
        rows = arrow_batches(connection.execute(sql, [*images.values, *images.values]), _BATCH)
        ipc = ds.IpcFileFormat()  # read once: encoding as Parquet would take longer than it saves
        ds.write_dataset(
            rows,
            folder,
            format=ipc,
            file_options=ipc.make_write_options(compression="lz4"),
            partitioning=[_PART],
            min_rows_per_group=_BATCH // 10,
        )
    except duckdb.Error as error:
        raise duckdb_error(error, query.name) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        message = "there is no room for the temporary files of a selection"
        raise InputError(Reason.DISK_FULL, message, "set TMPDIR to a folder with more room") from error

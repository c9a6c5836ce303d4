"""Judge images in parts: the narrow rows that a query makes of single images are written once, divided by study.

A part has whole studies, and about as many images as were asked for. Its file holds record batches of Arrow in the
order in which the catalog gives the images; texts that few images differ in are stored once per batch.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.catalog.base import QueryResult
from ctenrich.catalog.engine import arrow_batches, arrow_table, duckdb_error, table_map
from ctenrich.catalog.image_rows import IMAGES, LISTED_COLUMNS, SplitQuery, split_images
from ctenrich.catalog.instances import with_instances, without_instances
from ctenrich.catalog.queries import Query, bind
from ctenrich.catalog.sql import tree_to_duckdb
from ctenrich.errors import InputError
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlglot import exp

__all__ = ["SplitSession", "run_in_image_parts", "split_query"]

_SERIES, _PART, _NUMBER = "SeriesInstanceUID", "part_of_images", "number"
_PLACES, _TABLE = "series_of_parts", "dicom_all"
_LARGEST_BATCH, _SMALLEST_BATCH, _BYTES_PER_BATCHED_IMAGE = 200_000, 2_000, 8_000
"""Images that are divided at a time, and the memory of the selection for each of them."""
_REPEATED = 0.5
"""A text column is stored as a dictionary if at most this share of the values of its first batch differ."""


@dataclass(frozen=True, kw_only=True)
class _Statement:
    """One part of a split query, translated for DuckDB."""

    sql: str
    values: Mapping[str, object]


def split_query(query: Query) -> SplitQuery | None:
    """The parts of a query that can be asked in parts of its images' rows; None for one of another form.

    Parameters
    ----------
    query : Query
        The query.

    Returns
    -------
    SplitQuery or None
        Without its list of instances.
    """
    return split_images(without_instances(query).text, _TABLE) if query.lists_instances else None


class SplitSession:
    """A split query on one connection.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where it is asked.
    query : Query
        The query.
    split : SplitQuery
        Its parts, without the list of instances.
    parameters : mapping
        Values of its @parameters.
    local : mapping
        Tables that the query may read: name in lower case -> name in DuckDB.
    """

    def __init__(
        self,
        connection: Any,
        query: Query,
        split: SplitQuery,
        parameters: Mapping[str, object],
        local: Mapping[str, str],
    ) -> None:
        self.connection, self.query, self.split = connection, query, split
        bound = bind(query, parameters)
        self._types = {name: kind for name, (kind, _) in bound.items()}
        self._values = {name: value for name, (_, value) in bound.items()}
        own = {IMAGES: IMAGES, **{name: name for name, _ in split.summaries}}
        self._tables = {**table_map(query, local), **own}

    def statement(self, tree: exp.Query) -> _Statement:
        """Translate a part of the query."""
        sql = tree_to_duckdb(tree.copy(), self._types, self._tables)
        return _Statement(sql=sql, values=self._used(sql))

    def _used(self, sql: str) -> dict[str, object]:
        return {name: value for name, value in self._values.items() if re.search(rf"\${name}\b", sql)}

    def table(self, statement: _Statement) -> pa.Table:
        """Rows of a statement."""
        import duckdb

        try:
            return arrow_table(self.connection.execute(statement.sql, statement.values or None))
        except duckdb.Error as error:
            raise duckdb_error(error, self.query.name) from error

    @contextmanager
    def registered(self, tables: Mapping[str, pa.Table]) -> Iterator[None]:
        """Make Arrow tables known to DuckDB."""
        with ExitStack() as stack:
            for name, table in tables.items():
                self.connection.register(name, table)
                stack.callback(self.connection.unregister, name)
            yield


def run_in_image_parts(session: SplitSession, folder: Path, *, images: int, memory: int) -> Iterator[QueryResult]:
    """Run a split query for as many studies at a time as have some number of images.

    Parameters
    ----------
    session : SplitSession
        The query.
    folder : Path
        An empty folder for temporary files.
    images : int
        Images of a part; a part has more where a single study has.
    memory : int
        Bytes that the selection may take.

    Yields
    ------
    QueryResult
        The rows of a part; no series is in two of them.

    Raises
    ------
    UsageError, InputError, TransientError
        As :func:`ctenrich.catalog.partition.run_in_parts`.
    """
    import pyarrow as pa

    query, split = session.query, session.split
    series = session.statement(split.series)
    places = _places(session.table(series), images)
    with session.registered({_PLACES: places}):
        _write_parts(session, folder, min(max(memory // _BYTES_PER_BATCHED_IMAGE, _SMALLEST_BATCH), _LARGEST_BATCH))
        summaries = {name: session.table(_of_placed_series(session.statement(tree))) for name, tree in split.summaries}
    rest = session.statement(split.rest)
    for number, uids in _uids_of_parts(places):
        begin = time.monotonic()
        path = folder / _file_name(number)
        part = _read_part(path, uids)
        path.unlink()
        with session.registered({**summaries, IMAGES: part}):
            judged = session.table(rest)
            listed = with_instances(query, judged, part, uids)
            if listed is None:
                listed = session.table(session.statement(_whole(query)))
        del part, judged
        yield QueryResult(listed, None, time.monotonic() - begin)
        del listed
        pa.default_memory_pool().release_unused()


def _places(series: pa.Table, images: int) -> pa.Table:
    """Give each series a part, and a number in it; the series of a study are in one part."""
    import numpy as np
    import pyarrow as pa

    series = series.sort_by([("study", "ascending"), ("uid", "ascending")])
    studies = series["study"].combine_chunks().dictionary_encode().indices.to_numpy()
    ends = np.cumsum(series["images"].to_numpy())
    first_of_study = np.searchsorted(studies, studies)  # sorted by study, so that codes ascend
    before = np.concatenate([[0], ends])[first_of_study]
    _, part = np.unique(before // images, return_inverse=True)
    number = np.arange(len(part)) - np.searchsorted(part, part)
    columns = {"uid": series["uid"], _PART: pa.array(part, pa.int32()), _NUMBER: pa.array(number, pa.int32())}
    return pa.table(columns)


def _uids_of_parts(places: pa.Table) -> Iterator[tuple[int, pa.StringArray]]:
    """Number of each part, and the Series Instance UIDs of its series by their numbers."""
    import numpy as np

    part = places[_PART].to_numpy()
    uids = places["uid"].combine_chunks()
    for number in range(int(part.max(initial=-1)) + 1):
        start, end = (int(np.searchsorted(part, number, side)) for side in ("left", "right"))
        yield number, uids[start:end]


def _of_placed_series(statement: _Statement) -> _Statement:
    """Leave out the rows of series that are in no part."""
    sql = f"SELECT * FROM ({statement.sql}) WHERE {_SERIES} IN (SELECT uid FROM {_PLACES})"  # noqa: S608 - translated
    return replace(statement, sql=sql)


def _whole(query: Query) -> exp.Query:
    split = split_images(query.text, _TABLE)
    assert split is not None  # it was split without its instances
    return split.rest


def _file_name(part: int) -> str:
    return f"{part}.arrows"


# ---------------------------------------------------------------- files


def _write_parts(session: SplitSession, folder: Path, rows: int) -> None:
    """Write the rows of all images that are judged into a file for each part."""
    import duckdb

    images = session.statement(session.split.images)
    sql = f"""
        SELECT image.* EXCLUDE ({_SERIES}), place.{_NUMBER}, place.{_PART}
        FROM ({images.sql}) AS image
        JOIN {_PLACES} AS place ON image.{_SERIES} = place.uid
    """  # noqa: S608 - a translated query and own names
    try:
        with closing(_PartFiles(folder)) as files:
            for batch in arrow_batches(session.connection.execute(sql, images.values or None), rows):
                files.add(batch)
    except duckdb.Error as error:
        raise duckdb_error(error, session.query.name) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        message = "there is no room for the temporary files of a selection"
        raise InputError(Reason.DISK_FULL, message, "set TMPDIR to a folder with more room") from error


class _PartFiles:
    """A file of record batches for each part."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, tuple[Any, Any]] = {}
        self._repeated: tuple[str, ...] | None = None
        """Columns whose texts are stored once per batch."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Divide a batch."""
        import numpy as np
        import pyarrow as pa

        if not batch.num_rows:
            return
        if self._repeated is None:
            self._repeated = tuple(field.name for field in batch.schema if _is_repeated(batch, field))
        columns = {name: batch.column(name) for name in batch.schema.names if name != _PART}
        for name in self._repeated:
            columns[name] = columns[name].dictionary_encode()
        part = batch.column(_PART).to_numpy()
        order = np.argsort(part, kind="stable")
        sorted_batch = pa.RecordBatch.from_pydict(columns).take(pa.array(order))
        numbers, starts = np.unique(part[order], return_index=True)
        for number, start, end in zip(numbers, starts, [*starts[1:], len(order)], strict=True):
            here = sorted_batch.slice(start, end - start)
            self._writer(int(number), here.schema).write_batch(_compact(here, self._repeated))

    def _writer(self, part: int, schema: pa.Schema) -> Any:
        import pyarrow as pa

        if part not in self._writers:
            file = pa.OSFile(str(self._folder / _file_name(part)), "wb")
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writers[part] = pa.ipc.new_stream(file, schema, options=options), file
        return self._writers[part][0]

    def close(self) -> None:
        """Close all files."""
        for writer, file in self._writers.values():
            writer.close()
            file.close()


def _is_repeated(batch: pa.RecordBatch, field: pa.Field) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    if field.name in LISTED_COLUMNS or not pa.types.is_string(field.type):
        return False
    return bool(pc.count_distinct(batch.column(field.name)).as_py() <= batch.num_rows * _REPEATED)


def _compact(batch: pa.RecordBatch, names: tuple[str, ...]) -> pa.RecordBatch:
    """Leave those texts out of the dictionaries that no row has."""
    import numpy as np
    import pyarrow as pa

    for name in names:
        column = batch.column(name)
        used = np.unique(column.indices.drop_null().to_numpy())
        place = np.zeros(len(column.dictionary), np.int32)
        place[used] = np.arange(len(used))
        indices = pa.array(place).take(column.indices)
        values = column.dictionary.take(pa.array(used))
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, batch.schema.field(at), pa.DictionaryArray.from_arrays(indices, values))
    return batch


def _read_part(path: Path, uids: pa.StringArray) -> pa.Table:
    """The rows of a part, with the Series Instance UID of each."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        table = reader.read_all()
    series = [pa.DictionaryArray.from_arrays(chunk, uids) for chunk in table[_NUMBER].chunks]
    return table.append_column(_SERIES, pa.chunked_array(series, pa.dictionary(pa.int32(), pa.string())))

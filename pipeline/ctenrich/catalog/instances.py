"""Judge series without their instances, then list the instances of those that were chosen.

A query that lists the instances of every series carries four texts of every image through all its sorts and joins.
Where its header states what the list is (``-- Instances:``), the query is asked without it, and the images of the
chosen series are read and ordered here: that takes less time and memory, and gives the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ctenrich.catalog.base import QueryResult
from ctenrich.catalog.engine import arrow_table, duckdb_error, run_on_duckdb
from ctenrich.catalog.queries import Query

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["ImageFilter", "run_with_instances", "with_instances", "without_instances"]

_COLUMN = "instances"
_CHOSEN = "chosen_series"
_AXES = ("r1", "r2", "r3", "c1", "c2", "c3")


@dataclass(frozen=True, kw_only=True)
class ImageFilter:
    """The images that a query reads."""

    table: str
    """Name in DuckDB."""
    condition: str
    """SQL over its columns."""
    values: list[object]
    """Values of the condition's parameters."""


def run_with_instances(
    connection: Any,
    query: Query,
    parameters: Mapping[str, object],
    local: Mapping[str, str],
    images: ImageFilter | None,
    memory: int,
) -> QueryResult:
    """Run a query whose header states what its list of instances is.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Its limit of memory is changed.
    query : Query
        The query; one without that statement is asked as it is.
    parameters : mapping
        Values of its @parameters.
    local : mapping
        Tables that the query may read: name in lower case -> name in DuckDB.
    images : ImageFilter
        Images among which are all that the query reads; None where a catalog has no table of them.
    memory : int
        Bytes that DuckDB may take.

    Returns
    -------
    QueryResult
        The rows that :func:`ctenrich.catalog.engine.run_on_duckdb` gives.
    """
    if not query.lists_instances or images is None:
        return run_on_duckdb(connection, query, parameters, local, memory)
    answer = run_on_duckdb(connection, without_instances(query), parameters, local, memory)
    lists = _instances(connection, query.name, answer.table, images)
    if lists is None:
        return run_on_duckdb(connection, query, parameters, local, memory)
    return replace(answer, table=_with_column(query, answer.table, lists))


def without_instances(query: Query) -> Query:
    """The query without its list of instances."""
    return replace(query, text=f"SELECT * EXCEPT ({_COLUMN}) FROM (\n{query.text}\n)")  # noqa: S608 - the query itself


def with_instances(query: Query, judged: pa.Table, images: pa.Table, uids: pa.StringArray) -> pa.Table | None:
    """Add the list of instances to an answer.

    Parameters
    ----------
    query : Query
        The query whose answer it is.
    judged : pyarrow.Table
        The answer without instances.
    images : pyarrow.Table
        All images that were judged: ``number`` of the series, SOPInstanceUID, gcs_url, instance_size, instance_hash,
        the position ``x``, ``y``, ``z`` in mm and the direction cosines ``r1`` to ``r3`` and ``c1`` to ``c3``.
    uids : pyarrow.StringArray
        Series Instance UID of each number.

    Returns
    -------
    pyarrow.Table or None
        None where only the whole query knows the instances or their order.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen, counts = _chosen(judged)
    place = np.full(len(uids), -1)
    here = pc.index_in(judged["SeriesInstanceUID"].combine_chunks(), uids).to_numpy(zero_copy_only=False)[chosen]
    place[here] = np.arange(len(here))
    number = place[images["number"].to_numpy()]
    rows = np.flatnonzero(number >= 0)
    geometry = {name: images[name].to_numpy()[rows] for name in ("x", "y", "z", *_AXES)}
    order = _order(number[rows], geometry, counts[chosen])
    if order is None:
        return None
    names = ["SOPInstanceUID", "gcs_url", "instance_size", "instance_hash"]
    ordered = images.select(names).combine_chunks().take(pa.array(rows[order]))
    return _with_column(query, judged, _lists([ordered[name] for name in names], counts))


def _with_column(query: Query, answer: pa.Table, lists: pa.Array) -> pa.Table:
    place = [column.name for column in query.columns].index(_COLUMN)
    return answer.add_column(place, _COLUMN, lists)


def _chosen(judged: pa.Table) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Whether each row fails no rule, and the number of its instances that are listed."""
    import numpy as np
    import pyarrow.compute as pc

    chosen = pc.equal(pc.list_value_length(judged["failed"]), 0).to_numpy()
    return chosen, np.where(chosen, judged["num_instances"].to_numpy(), 0)


def _lists(columns: list[pa.ChunkedArray], counts: npt.NDArray[np.int64]) -> pa.Array:
    """Lists of so many of the instances whose UIDs, addresses, sizes and checksums are given in order."""
    import numpy as np
    import pyarrow as pa

    uid, url, size, md5 = map(_one, columns)
    fields = {"SOPInstanceUID": uid, "url": url, "size": size.cast(pa.int64()), "md5": md5}
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    structs = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    return pa.ListArray.from_arrays(pa.array(offsets), structs)


def _instances(connection: Any, name: str, judged: pa.Table, images: ImageFilter) -> pa.Array | None:
    """The instances of each row, an empty list where a rule failed.

    None if the images are others than those that were judged, or two have one position: then only the query knows.
    """
    import duckdb
    import numpy as np
    import pyarrow as pa

    chosen, counts = _chosen(judged)
    rows = np.flatnonzero(chosen)
    uids = judged["SeriesInstanceUID"].take(pa.array(rows)).combine_chunks()
    connection.register(_CHOSEN, pa.table({"uid": uids, "number": pa.array(np.arange(len(rows)))}))
    sql = f"""
        SELECT
          chosen.number,
          coalesce(SOPInstanceUID, '') AS SOPInstanceUID,
          gcs_url AS url,
          CAST(instance_size AS BIGINT) AS size,
          instance_hash AS md5,
          {_values()}
        FROM {images.table} AS i
        JOIN {_CHOSEN} AS chosen ON coalesce(i.SeriesInstanceUID, '') = chosen.uid
        WHERE Modality = 'CT' AND {images.condition}
    """  # noqa: S608 - names are those of the catalog's own tables and columns
    try:
        found = arrow_table(connection.execute(sql, images.values))
    except duckdb.Error as error:
        raise duckdb_error(error, name) from error
    finally:
        connection.unregister(_CHOSEN)
    geometry = {name: found[name].to_numpy() for name in ("x", "y", "z", *_AXES)}
    order = _order(found["number"].to_numpy(), geometry, counts[chosen])
    if order is None:
        return None
    ordered = found.take(pa.array(order))
    return _lists([ordered[name] for name in ("SOPInstanceUID", "url", "size", "md5")], counts)


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])


def _values() -> str:
    """Position and direction cosines as the queries read them."""
    attributes = [("ImagePositionPatient", ("x", "y", "z")), ("ImageOrientationPatient", _AXES)]
    return ", ".join(
        f"TRY_CAST(trim({attribute}[{at}]) AS DOUBLE) AS {name}"
        for attribute, names in attributes
        for at, name in enumerate(names, 1)
    )


def _order(
    number: npt.NDArray[np.int64], geometry: Mapping[str, npt.NDArray[np.float64]], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64] | None:
    """Order of images by series, and along the slice normal as the queries compute it."""
    import numpy as np

    if not np.array_equal(np.bincount(number, minlength=len(counts)), counts):
        return None
    if not len(number):
        return np.zeros(0, np.int64)
    by_series = np.argsort(number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    middle = []
    for name in _AXES:
        values = geometry[name][by_series]
        middle.append((np.minimum.reduceat(values, starts) + np.maximum.reduceat(values, starts)) / 2)
    m1, m2, m3, m4, m5, m6 = middle
    normal = (m2 * m6 - m3 * m5, m3 * m4 - m1 * m6, m1 * m5 - m2 * m4)
    length = np.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2])
    x, y, z = (geometry[name] for name in ("x", "y", "z"))
    with np.errstate(all="ignore"):
        distance = (x * normal[0][number] + y * normal[1][number] + z * normal[2][number]) / length[number]
    order = np.lexsort((distance, number))
    gaps = np.diff(distance[order])
    same_series = np.diff(number[order]) == 0
    return order if np.all(gaps[same_series] > 0) else None

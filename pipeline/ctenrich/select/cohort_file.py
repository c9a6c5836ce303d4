"""The cohort file: one row per series, with nested instances. It is read series by series, however large it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import (
    Cohort,
    Companion,
    CompanionLink,
    Instance,
    Issue,
    SeriesEntry,
    SeriesFacts,
    Severity,
)
from ctenrich.select.cohort_hash import cohort_sha256
from ctenrich.select.sizes import SeriesSize, size_of_series
from ctenrich.select.spool import SpooledSeries, instance_type
from ctenrich.select.values_digest import ValuesDigest
from ctenrich.workspace import require_file, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = [
    "StoredSeries",
    "check_path",
    "cohort_schema",
    "cohort_table",
    "entries_at",
    "open_cohort",
    "read_cohort",
    "remember_check",
    "sizes_of",
    "uids_of",
    "write_cohort_table",
    "write_extended_cohort",
]

_AT_ONCE = 256
"""Series that are Python objects at a time."""
_ROW_GROUP = 4 * _AT_ONCE
"""Series per row group of the file."""
_NAME, _HASH, _VALUES = b"ctenrich.cohort", b"ctenrich.cohort_sha256", b"ctenrich.values_sha256"
_ROWS = b"ctenrich.rows_sha256"
"""Hash of the rows in files of version 0.1.0, which have no `_VALUES`."""
_CHECKED = "checked.json"
"""Suffix of the file that remembers that a cohort file has been checked."""

_NOTE = ("rule", "severity", "object", "message")
_FACTS = fields(SeriesFacts)
_SIZES = ("num_instances", "size_bytes", "storage")
_ENTRY = frozenset(f.name for f in fields(SeriesEntry))
_INSTANCE = tuple(f.name for f in fields(Instance))
_ADDED = frozenset({"notes", "facts", *_SIZES})
"""Columns that cohort files of version 0.1.0 do not have."""


def cohort_schema() -> pa.Schema:
    """Arrow schema of a cohort file: one row per series, with instances and companions nested."""
    import pyarrow as pa

    text = pa.string()
    companion = pa.struct(
        [("modality", text), ("series_instance_uid", text), ("instance", instance_type()), ("link", text)]
    )
    return pa.schema(
        [
            ("collection_id", text),
            ("patient_id", text),
            ("study_instance_uid", text),
            ("series_instance_uid", text),
            ("crdc_series_uuid", text),
            ("license_short_name", text),
            ("source_doi", text),
            ("geometry_known", pa.bool_()),
            ("expected_instances", pa.int64()),
            ("instances", pa.list_(instance_type())),
            ("companions", pa.list_(companion)),
            ("notes", pa.list_(pa.struct([(name, text) for name in _NOTE]))),
            ("facts", pa.struct([(f.name, pa.float64() if f.name == "slice_thickness" else text) for f in _FACTS])),
            ("num_instances", pa.int64()),
            ("size_bytes", pa.int64()),
            ("storage", text),
        ]
    )


# ---------------------------------------------------------------- writing


def cohort_table(cohort: Cohort) -> pa.Table:
    """A cohort as an Arrow table, with the metadata of a cohort file."""
    import pyarrow as pa

    digest = ValuesDigest(cohort_schema().names)
    parts = [cohort_schema().empty_table(), *map(digest.add, _tables_of(cohort.series))]
    table = pa.concat_tables(parts).combine_chunks()
    return table.replace_schema_metadata(_metadata(cohort.name, cohort.sha256, digest))


def write_cohort_table(path: Path, name: str, sha256: str, series: Iterable[SeriesEntry]) -> None:
    """Write a cohort file in bounded memory.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Name of the cohort.
    sha256 : str
        :func:`ctenrich.select.cohort_hash.cohort_sha256` of the series.
    series : iterable of SeriesEntry
        The series, in their order.
    """
    import pyarrow.parquet as pq

    digest = ValuesDigest(cohort_schema().names)
    with pq.ParquetWriter(path, cohort_schema(), compression="zstd") as writer:
        for table in _tables_of(series):
            writer.write_table(digest.add(table), row_group_size=_ROW_GROUP)
        writer.add_key_value_metadata(_metadata(name, sha256, digest))


def write_extended_cohort(path: Path, cohort: Cohort, columns: pa.Table) -> None:
    """Write a cohort file with further columns, which are checked like its own.

    Parameters
    ----------
    path : Path
        The file.
    cohort : Cohort
        The series, in their order; its hash is written as it is.
    columns : pyarrow.Table
        Further columns, one row per series.
    """
    import pyarrow.parquet as pq

    table = cohort_table(cohort)
    for name in columns.column_names:
        table = table.append_column(columns.schema.field(name), columns[name])
    table = table.replace_schema_metadata(None)
    digest = ValuesDigest(table.column_names)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for start in range(0, table.num_rows, _ROW_GROUP):
            writer.write_table(digest.add(table.slice(start, _ROW_GROUP)), row_group_size=_ROW_GROUP)
        writer.add_key_value_metadata(_metadata(cohort.name, cohort.sha256, digest))


def _metadata(name: str, sha256: str, digest: ValuesDigest) -> dict[bytes, bytes]:
    return {_NAME: name.encode(), _HASH: sha256.encode(), _VALUES: digest.hexdigest(sha256).encode()}


def _tables_of(series: Iterable[SeriesEntry]) -> Iterator[pa.Table]:
    """Tables of `_ROW_GROUP` series each."""
    import pyarrow as pa

    listed = series.listed(_AT_ONCE) if isinstance(series, SpooledSeries) else _listed(series)
    parts: list[pa.Table] = []
    for entries, instances in listed:
        parts.append(_table_of(entries, instances))
        if len(parts) * _AT_ONCE == _ROW_GROUP:
            yield pa.concat_tables(parts)
            parts = []
    if parts:
        yield pa.concat_tables(parts)


def _listed(series: Iterable[SeriesEntry]) -> Iterator[tuple[list[SeriesEntry], pa.ListArray]]:
    """So many series at a time, and the instances of each as a list."""
    remaining = iter(series)
    while entries := list(islice(remaining, _AT_ONCE)):
        yield entries, _instances_of(entries)


def _table_of(entries: list[SeriesEntry], instances: pa.ListArray) -> pa.Table:
    """Some series as a table; their instances are columns without an object for each."""
    import pyarrow as pa

    schema = cohort_schema()
    place = schema.get_field_index("instances")
    names = schema.names[:9]
    sizes = _sizes_in(instances)
    rows = [_row(entry, names, size) for entry, size in zip(entries, sizes, strict=True)]
    table = pa.Table.from_pylist(rows, schema.remove(place))
    return table.add_column(place, schema.field(place), instances)


def _instances_of(entries: list[SeriesEntry]) -> pa.ListArray:
    """Lists of instances, one for each series."""
    import pyarrow as pa

    kind = instance_type()
    ends = list(accumulate((len(entry.instances) for entry in entries), initial=0))
    columns = [
        pa.array([getattr(i, field.name) for entry in entries for i in entry.instances], field.type) for field in kind
    ]
    structs = pa.StructArray.from_arrays(columns, fields=list(kind))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), structs, type=pa.list_(kind))


def _sizes_in(instances: pa.ListArray) -> Iterator[dict[str, Any]]:
    """The columns `_SIZES` of each list of instances, as :func:`size_of_series` defines them."""
    import pyarrow.compute as pc

    flat = instances.flatten()
    sizes, urls = pc.fill_null(flat.field("size"), 0), flat.field("url")
    counts = instances.value_lengths().to_pylist()
    ends = [0, *accumulate(counts)]

    def sums(values: pa.Array) -> list[int]:
        total = [0, *pc.cumulative_sum(values).to_pylist()]
        return [total[end] - total[start] for start, end in pairwise(ends)]

    known, local, without = (
        sums(marks.cast("int64"))
        for marks in (pc.not_equal(sizes, 0), pc.starts_with(urls, "file:"), pc.equal(urls, ""))
    )
    for count, total, has_size, files, none in zip(counts, sums(sizes), known, local, without, strict=True):
        yield {
            "num_instances": count,
            "size_bytes": total if has_size else None,
            "storage": "unknown" if none else "local" if files == count else "remote",
        }


def _row(entry: SeriesEntry, names: list[str], sizes: dict[str, Any]) -> dict[str, Any]:
    """All values of a series but its instances."""
    return {
        **{name: getattr(entry, name) for name in names},
        "companions": [
            {
                "modality": c.modality,
                "series_instance_uid": c.series_instance_uid,
                "instance": _instance(c.instance),
                "link": c.link.value,
            }
            for c in entry.companions
        ],
        "notes": [{name: str(getattr(note, name)) for name in _NOTE} for note in entry.notes],
        "facts": asdict(entry.facts),
        **sizes,
    }


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "url": instance.url,
        "size": instance.size,
        "md5": instance.md5,
        "crc32c": instance.crc32c,
    }


# ---------------------------------------------------------------- reading


class StoredSeries(Sequence[SeriesEntry]):
    """The series of a cohort file. Each pass reads the file again; only one batch of series is in memory.

    Parameters
    ----------
    path : Path
        A cohort file; it must not change while it is in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _open_parquet(path) as file:
            self._length = int(file.metadata.num_rows)
            self._columns = frozenset(file.schema_arrow.names)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[SeriesEntry]:
        return self.in_batches(_AT_ONCE)

    def in_batches(self, at_once: int) -> Iterator[SeriesEntry]:
        """All series, of which so many at a time are Python objects."""
        with _open_parquet(self._path) as file:
            for batch in file.iter_batches(at_once):
                yield from _entries(batch)

    @overload
    def __getitem__(self, index: int) -> SeriesEntry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SeriesEntry, ...]: ...
    def __getitem__(self, index: int | slice) -> SeriesEntry | tuple[SeriesEntry, ...]:
        if isinstance(index, slice):
            wanted = range(self._length)[index]
            found = dict(zip(sorted(wanted), self.at(set(wanted)), strict=True))
            return tuple(found[at] for at in wanted)
        return next(self.at({range(self._length)[index]}))

    def at(self, wanted: Collection[int]) -> Iterator[SeriesEntry]:
        """Series at some positions, in order; parts of the file without one of them are not read."""
        import pyarrow as pa

        with _open_parquet(self._path) as file:
            first = 0
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                here = [at for at in range(first, end) if at in wanted]
                start, first = first, end
                if not here:
                    continue
                for batch in file.iter_batches(_AT_ONCE, row_groups=[group]):
                    chosen = [at - start for at in here if start <= at < start + batch.num_rows]
                    start += batch.num_rows
                    if chosen:
                        yield from _entries(batch.take(pa.array(chosen)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def uids(self) -> list[str]:
        """Series Instance UIDs, in order."""
        with _open_parquet(self._path) as file:
            uids: list[str] = file.read(["series_instance_uid"])["series_instance_uid"].to_pylist()
        return uids

    def patients(self) -> dict[str, str]:
        """Series Instance UID -> Patient ID."""
        names = ["series_instance_uid", "patient_id"]
        with _open_parquet(self._path) as file:
            table = file.read(names)
        return dict(zip(*(table[name].to_pylist() for name in names), strict=True))

    def sizes(self) -> Iterator[SeriesSize]:
        """Number of slices, bytes and storage of each series, in order, without its instances."""
        if not self._columns.issuperset(_SIZES):  # written by version 0.1.0
            yield from map(size_of_series, self)
            return
        columns = ["series_instance_uid", "expected_instances", *_SIZES, "license_short_name", "source_doi"]
        with _open_parquet(self._path) as file:
            for batch in file.iter_batches(64 * _AT_ONCE, columns=columns):
                for uid, expected, found, *rest in zip(*(batch[name].to_pylist() for name in columns), strict=True):
                    yield SeriesSize(uid, expected or found, *rest)


def read_cohort(path: Path) -> Cohort:
    """Open a cohort file and check all its values; the series are read from it when they are asked for.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_COHORT if it is not a cohort file or its rows were changed since it was written.
    """
    cohort = _stated_cohort(path)
    _check_values(path, cohort)
    return cohort


def open_cohort(path: Path) -> Cohort:
    """Open a cohort file like :func:`read_cohort`; its values are checked only once.

    That they have been checked is remembered in a file beside it, until size or modification time change.
    """
    cohort = _stated_cohort(path)
    with suppress(OSError, ValueError):
        if json.loads(check_path(path).read_bytes()) == _seen(path, cohort):
            return cohort
    _check_values(path, cohort)
    remember_check(path, cohort)
    return cohort


def remember_check(path: Path, cohort: Cohort) -> None:
    """Record that a cohort file has been checked, for :func:`open_cohort`.

    Parameters
    ----------
    path : Path
        The cohort file; where its folder cannot be written, it is checked whenever it is opened.
    cohort : Cohort
        What it contains.
    """
    with suppress(OSError):
        write_bytes(check_path(path), json.dumps(_seen(path, cohort)).encode() + b"\n")


def check_path(path: Path) -> Path:
    """Return the file that records when a cohort file was checked."""
    return path.with_name(f"{path.stem}.{_CHECKED}")


def _seen(path: Path, cohort: Cohort) -> dict[str, object]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": cohort.sha256}


def entries_at(cohort: Cohort, positions: Collection[int]) -> Iterator[SeriesEntry]:
    """Return the series of a cohort at some positions, in order.

    Parameters
    ----------
    cohort : Cohort
        The cohort.
    positions : collection of int
        From 0; each once.

    Returns
    -------
    iterator of SeriesEntry
    """
    series = cohort.series
    return series.at(positions) if isinstance(series, StoredSeries) else (series[at] for at in sorted(positions))


def uids_of(cohort: Cohort) -> list[str]:
    """Return the Series Instance UIDs of a cohort, in order."""
    series = cohort.series
    return series.uids() if isinstance(series, StoredSeries) else [entry.series_instance_uid for entry in series]


def patients_of(cohort: Cohort) -> dict[str, str]:
    """Return the Patient ID of each Series Instance UID of a cohort."""
    series = cohort.series
    if isinstance(series, StoredSeries):
        return series.patients()
    return {entry.series_instance_uid: entry.patient_id for entry in series}


def sizes_of(cohort: Cohort) -> Iterator[SeriesSize]:
    """Return the sizes of the series of a cohort, in order."""
    series = cohort.series
    return series.sizes() if isinstance(series, StoredSeries) else map(size_of_series, series)


def _stated_cohort(path: Path) -> Cohort:
    """The cohort that the file's footer states."""
    require_file(path, "name a cohort file (.parquet) that ctenrich select wrote")
    with _open_parquet(path) as file:
        schema, metadata = file.schema_arrow, file.metadata.metadata or {}
    missing = [name for name in cohort_schema().names if name not in schema.names and name not in _ADDED]
    if missing:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is no cohort file: it lacks {', '.join(missing)}")
    with _typed_errors(path):
        return Cohort(metadata.get(_NAME, b"cohort").decode(), StoredSeries(path), metadata.get(_HASH, b"").decode())


def _check_values(path: Path, cohort: Cohort) -> None:
    with _open_parquet(path) as file:
        metadata = file.metadata.metadata or {}
        names = file.schema_arrow.names
        if _VALUES in metadata:
            digest = ValuesDigest(names)
            for table in _row_groups(file):
                digest.add(table)
            equal = digest.hexdigest(cohort.sha256) == metadata[_VALUES].decode("ascii", "replace")
            if equal:  # the file is as it was written, so that its rows can be read
                return
        else:
            with _typed_errors(path):
                rows_sha256 = _rows_sha256(file)
                if rows_sha256 == metadata.get(_ROWS, b"").decode() and cohort_sha256(cohort.series) == cohort.sha256:
                    return
    with _typed_errors(path):  # what is wrong with the rows is said before that they were changed
        cohort_sha256(cohort.series)
    hint = "make it anew with: ctenrich select"
    raise UsageError(Reason.BAD_COHORT, f"the series of {path.name} are not those that were selected", hint)


def _row_groups(file: pq.ParquetFile) -> Iterator[pa.Table]:
    """Tables of `_ROW_GROUP` rows each, whatever the row groups of the file are."""
    import pyarrow as pa

    rest: list[pa.RecordBatch] = []
    count = 0
    for batch in file.iter_batches(_ROW_GROUP):
        at = 0
        while at < batch.num_rows:
            part = batch.slice(at, _ROW_GROUP - count)
            at += part.num_rows
            rest.append(part)
            count += part.num_rows
            if count == _ROW_GROUP:
                yield pa.Table.from_batches(rest)
                rest, count = [], 0
    if rest:
        yield pa.Table.from_batches(rest)


def _rows_sha256(file: pq.ParquetFile) -> str:
    """The hash of all rows that version 0.1.0 wrote."""
    digest = hashlib.sha256()
    for batch in file.iter_batches(_AT_ONCE):
        for row in batch.to_pylist():
            digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not a file of Python: if Arrow's threads let go of it while the interpreter ends, the process is aborted.
        with pa.OSFile(str(path)) as handle, pq.ParquetFile(handle) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names of columns are decoded at any time
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is not a Parquet file") from error


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} has names that are not UTF-8") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} has rows of another form") from error


def _entries(batch: pa.RecordBatch) -> Iterator[SeriesEntry]:
    """Series of some rows; their instances are made from columns, without a dictionary for each."""
    lists = batch.column("instances")
    flat = lists.flatten()
    columns = {field.name: column.to_pylist() for field, column in zip(flat.type, flat.flatten(), strict=True)}
    instances = map(Instance, *(columns.get(name, [None] * len(flat)) for name in _INSTANCE))
    others = batch.select([name for name in batch.schema.names if name != "instances"])
    for row, length in zip(others.to_pylist(), lists.value_lengths().to_pylist(), strict=True):
        yield _entry(row, tuple(islice(instances, length or 0)))


def _entry(row: dict[str, Any], instances: tuple[Instance, ...]) -> SeriesEntry:
    known = {name: value for name, value in row.items() if name in _ENTRY}
    return SeriesEntry(
        **{
            **known,
            "instances": instances,
            "companions": tuple(
                Companion(**{**c, "instance": Instance(**c["instance"]), "link": CompanionLink(c["link"])})
                for c in row["companions"]
            ),
            "notes": tuple(Issue(**{**n, "severity": Severity(n["severity"])}) for n in row.get("notes") or ()),
            "facts": SeriesFacts(**(row.get("facts") or {})),
        }
    )

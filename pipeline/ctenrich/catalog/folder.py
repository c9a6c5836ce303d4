"""The folder catalog: DICOM files on disk, crawled into a DuckDB file whose `dicom_all` has IDC's columns.

The file holds: ``instances`` (one row per file with a DICOM instance), ``files`` (what was crawled, with size and
time of change, so that a second crawl reads only what is new), ``faults`` (what was wrong with which file), ``crawls``
(when each crawl began and ended) and the views ``dicom_all`` and ``series``. ``gcs_url``, IDC's "where the object is",
holds the ``file://`` URL. An image that is there twice counts once, whether the two files have the same bytes or only
the same pixels and geometry; two different images with one SOP Instance UID stay both, so that selection can refuse
their series.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ctenrich.catalog.base import CatalogKind, CatalogOptions, Estimate, QueryResult
from ctenrich.catalog.crawl import (
    Batch,
    EntryKind,
    FileFault,
    FoundEntry,
    FoundFile,
    find_files,
    in_parts,
    md5_of,
    read_batches,
    utf8_name,
)
from ctenrich.catalog.damage import Damage, find_damage
from ctenrich.catalog.engine import LEAST_MEMORY, duckdb_error, run_on_duckdb
from ctenrich.catalog.partition import default_memory, run_in_parts
from ctenrich.catalog.queries import Query
from ctenrich.catalog.schema import COLUMNS, RADIOTHERAPY_COLUMNS, RADIOTHERAPY_MODALITIES, duckdb_type
from ctenrich.dicom.ct_slice import same_image
from ctenrich.errors import InputError, UsageError, count
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason

__all__ = ["KIND", "FolderCatalog", "IndexSummary", "add_files", "index_folders"]

_TASK = "Read headers"
_AT_ONCE = 100_000
"""Rows that are Python objects at a time."""
_FOUND_AT_ONCE = 20_000
"""Paths that are Python objects at a time."""
_CRAWL_MEMORY = 600_000_000
"""Bytes that DuckDB may take while a catalog is written; what does not fit goes to a temporary folder beside it. One
group of rows of its some 700 columns and their parts takes about 200 MB."""
_LAYOUT = 4
"""1: version 0.1.0, without the table of crawls and with fewer columns of faults; 2: without radiotherapy; 3: without
birth dates."""
_OWN = frozenset({"instances", "files", "faults", "about", "crawls"})
"""Tables that only the crawl uses."""


@dataclass(frozen=True)
class IndexSummary:
    """What a crawl found; counts are of the whole catalog unless stated otherwise."""

    files: int
    """Plain files below the folders."""
    read: int
    """Files whose header was read by this crawl (new or changed)."""
    removed: int
    """Files that are gone since the last crawl."""
    instances: int
    """DICOM instances, copies of one file counted once."""
    copies: int
    """Further files with the same bytes, or the same image, as another."""
    series: int
    ct_series: int
    other_files: int
    """Files that hold no DICOM instance."""
    links: int
    """Symbolic links, which are not followed."""
    faults: tuple[tuple[str, int], ...]
    """(reason, files) of what was wrong with DICOM files."""
    kept: tuple[tuple[str, int], ...] = ()
    """(collection_id, instances) below the folders that were read by an earlier crawl and keep another collection."""

    def __str__(self) -> str:
        text = (
            f"{count(self.instances, 'DICOM instance')} in {self.series} series ({self.ct_series} with CT) "
            f"from {count(self.files, 'file')}; {self.read} read now, {self.removed} gone, "
            f"{count(self.copies, 'copy')}, {self.other_files} not DICOM, {count(self.links, 'link')} not followed"
        )
        text += "".join(f"\n{reason}: {count(number, 'file')}" for reason, number in self.faults)
        return text + "".join(
            f"\n{count(number, 'instance')} indexed before: the collection {name} is kept; "
            "for another, index into a new catalog"
            for name, number in self.kept
        )


def index_folders(
    folders: Sequence[Path],
    catalog_file: Path,
    *,
    collection_id: str = "local",
    processes: int = 2,
    progress: Progress = SILENT,
) -> IndexSummary:
    """Index folders of DICOM files in a catalog; only the headers of new and changed files are read.

    Parameters
    ----------
    folders : sequence of Path
        Searched with their subfolders; symbolic links are not followed.
    catalog_file : Path
        DuckDB file; created or updated: rows of files below `folders` that no longer exist are removed.
    collection_id : str
        collection_id of the rows that are read now.
    processes : int
        Processes that read headers.
    progress : Progress
        Receives one step per file.

    Returns
    -------
    IndexSummary
        Counts of files, instances, series and faults.

    Raises
    ------
    UsageError
        NOT_FOUND: a folder is missing. BAD_PARAMETER: the file is not such a catalog.
    InputError
        EMPTY_INPUT: no DICOM instance. NO_CT: none of Modality CT. The catalog is kept in both cases.
    """
    import duckdb

    if not collection_id or len(collection_id) > 64 or not collection_id.replace("_", "").replace("-", "").isalnum():
        raise UsageError(Reason.BAD_PARAMETER, "a collection_id has letters, digits, _ and -")
    found = find_files(folders)
    catalog_file.parent.mkdir(parents=True, exist_ok=True)
    with _open(catalog_file, read_only=False) as connection:
        try:
            _create(connection)
            _store_found(connection, found)
            _begin_crawl(connection, folders)
            todo, gone = _compare(connection, folders)
            _store_closed(connection, folders)
            progress.start(_TASK, todo)
            for batch in read_batches(_files_to_read(connection, todo), collection_id, processes):
                _store(connection, batch)
                progress.advance(_TASK, len(batch.files))
            progress.finish(_TASK)
            _mark_copies(connection)
            connection.execute(
                "UPDATE crawls SET ended = now() WHERE ended IS NULL AND id = (SELECT max(id) FROM crawls)"
            )
            summary = _summary(connection, todo, gone)
            kept = _kept_collections(connection, folders, collection_id)
        except duckdb.Error as error:
            raise duckdb_error(error, "index") from error
    if summary.instances == 0:
        message, hint = f"no DICOM file among {count(summary.files, 'file')}", "point to the folder of the files"
        if summary.links:
            message += f", and {count(summary.links, 'link')}, which are not followed"
            hint += ", not to links to them"
        raise InputError(Reason.EMPTY_INPUT, message, hint)
    if summary.ct_series == 0:
        raise InputError(Reason.NO_CT, f"{count(summary.instances, 'DICOM instance')}, none of them CT")
    return replace(summary, kept=kept)


def add_files(catalog_file: Path, files: Sequence[FoundFile], *, folder: Path, collection_id: str = "local") -> None:
    """Add files to a catalog that are known to be new, without searching their folder.

    Parameters
    ----------
    catalog_file : Path
        DuckDB file; created or updated.
    files : sequence of FoundFile
        Files that the catalog does not have, or has from before, unchanged; no two of them with the same bytes.
    folder : Path
        The folder that they are below.
    collection_id : str
        collection_id of their rows.

    Raises
    ------
    UsageError
        BAD_PARAMETER: the file is not such a catalog, or another process has it open.
    """
    import duckdb

    with _open(catalog_file, read_only=False) as connection:
        try:
            _create(connection)
            _begin_crawl(connection, [folder])
            _forget(connection, "SELECT unnest($names)", {"names": [file.name for file in files]})
            for batch in read_batches(files, collection_id, 1):
                _store(connection, batch)
            connection.execute(
                "UPDATE crawls SET ended = now() WHERE ended IS NULL AND id = (SELECT max(id) FROM crawls)"
            )
            connection.execute("DELETE FROM crawls WHERE id < (SELECT max(id) FROM crawls) AND ended IS NOT NULL")
        except duckdb.Error as error:
            raise duckdb_error(error, "index") from error


def _open(path: Path, *, read_only: bool) -> Any:
    import duckdb

    config: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    if read_only:
        config["enable_external_access"] = "false"
    else:
        config["memory_limit"] = f"{_CRAWL_MEMORY}B"
    try:
        return duckdb.connect(str(path), read_only=read_only, config=config)
    except duckdb.Error as error:
        hint = "it is not a catalog, or another process is writing it"
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} cannot be opened as a catalog", hint) from error


_FAULT_COLUMNS = {"study": "VARCHAR", "modality": "VARCHAR", "lost": "BOOLEAN"}
"""Columns of ``faults`` that version 0.1.0 did not have."""


def _create(connection: Any) -> None:
    columns = ", ".join(f'"{c.name}" {duckdb_type(c)}' for c in COLUMNS if c not in RADIOTHERAPY_COLUMNS)
    names = ", ".join(f'"{c.name}"' for c in COLUMNS)
    connection.execute(f"CREATE TABLE IF NOT EXISTS instances ({columns}, local_path VARCHAR, is_copy BOOLEAN)")
    connection.execute('ALTER TABLE instances ADD COLUMN IF NOT EXISTS "PatientBirthDate" DATE')
    for column in RADIOTHERAPY_COLUMNS:  # batches without such objects do not have these columns
        # a literal: DuckDB cannot replay its log if the default of an added column calls a function, as [] does
        default = "'[]'" if column.repeated else "NULL"
        connection.execute(
            f'ALTER TABLE instances ADD COLUMN IF NOT EXISTS "{column.name}" {duckdb_type(column)} DEFAULT {default}'
        )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS files (path VARCHAR, size BIGINT, mtime_ns BIGINT, is_instance BOOLEAN)"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS faults (path VARCHAR, reason VARCHAR, message VARCHAR, series VARCHAR)"
    )
    for name, kind in _FAULT_COLUMNS.items():
        connection.execute(f"ALTER TABLE faults ADD COLUMN IF NOT EXISTS {name} {kind}")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS crawls (id BIGINT, folders VARCHAR[], started TIMESTAMPTZ, ended TIMESTAMPTZ)"
    )
    connection.execute("CREATE TABLE IF NOT EXISTS about (layout INTEGER)")
    (layout,) = connection.execute("SELECT max(layout) FROM about").fetchone()
    if layout in (2, 3):
        again = "SELECT local_path FROM instances WHERE Modality IN (SELECT unnest($modalities))"
        _forget(connection, again, {"modalities": list(RADIOTHERAPY_MODALITIES)})
    if layout == 1:
        # version 0.1.0 read fewer kinds of files, and noted less about those that it could not read
        again = (
            "SELECT path FROM files WHERE NOT is_instance OR path IN (SELECT path FROM faults) "
            "UNION SELECT local_path FROM instances WHERE starts_with(Modality, 'RT')"
        )
        _forget(connection, again)
    connection.execute("DELETE FROM about")
    connection.execute("INSERT INTO about VALUES (?)", [_LAYOUT])
    connection.execute(f"CREATE OR REPLACE VIEW dicom_all AS SELECT {names} FROM instances WHERE NOT is_copy")  # noqa: S608 - our own columns


def _begin_crawl(connection: Any, folders: Sequence[Path]) -> None:
    """Note that a crawl began; it takes the place of unfinished ones of the same folders, or of folders above them."""
    roots = [folder.resolve() for folder in folders]
    for number, earlier in connection.execute("SELECT id, folders FROM crawls WHERE ended IS NULL").fetchall():
        if all(any(Path(name).is_relative_to(root) for root in roots) for name in earlier):
            connection.execute("DELETE FROM crawls WHERE id = ?", [number])
    connection.execute(
        "INSERT INTO crawls SELECT coalesce(max(id), 0) + 1, ?, now(), NULL FROM crawls",
        [[utf8_name(str(root)) for root in roots]],
    )


def _store_found(connection: Any, entries: Iterable[FoundEntry]) -> None:
    """Write what the file system has to a temporary table, whose order is that of the paths."""
    import pyarrow as pa

    connection.execute("CREATE TEMP TABLE found (path BLOB, name VARCHAR, size BIGINT, mtime_ns BIGINT, kind VARCHAR)")
    for part in in_parts(entries, _FOUND_AT_ONCE):
        columns = {
            "path": [os.fsencode(entry.path) for entry in part],
            "name": [utf8_name(entry.path) for entry in part],
            "size": [entry.size for entry in part],
            "mtime_ns": [entry.mtime_ns for entry in part],
            "kind": [entry.kind.value for entry in part],
        }
        connection.register("part_of_found", pa.table(columns))
        connection.execute("INSERT INTO found SELECT * FROM part_of_found")
        connection.unregister("part_of_found")


def _prefixes(folders: Sequence[Path]) -> dict[str, object]:
    """Starts of the paths below folders, as a parameter of `_BELOW`."""
    return {"prefixes": [utf8_name(str(folder.resolve())).rstrip("/") + "/" for folder in folders]}


_BELOW = "EXISTS (SELECT 1 FROM (SELECT unnest($prefixes) AS prefix) WHERE starts_with({path}, prefix))"


def _store_closed(connection: Any, folders: Sequence[Path]) -> None:
    """Folders that could not be listed are faults like files, which may be lost to the series around them."""
    known = "SELECT path FROM faults WHERE modality = '(folder)' AND " + _BELOW.format(path="path || '/'")  # noqa: S608 - our own text
    _forget(connection, known, _prefixes(folders))
    closed = connection.execute("SELECT name FROM found WHERE kind = $kind", {"kind": EntryKind.CLOSED.value})
    faults = [
        FileFault(path, Reason.IO_ERROR.value, "the folder cannot be listed", "", "", "(folder)", True)
        for (path,) in sorted(closed.fetchall())
    ]
    if faults:
        connection.executemany("INSERT INTO faults VALUES (?, ?, ?, ?, ?, ?, ?)", faults)


def _compare(connection: Any, folders: Sequence[Path]) -> tuple[int, int]:
    """Forget changed files and those that are gone; returns the numbers of files to read and of files that are gone.

    The temporary table ``todo`` has the files to read, by path.
    """
    connection.execute(
        "CREATE TEMP TABLE todo AS SELECT found.path, found.name, found.size, found.mtime_ns FROM found "
        "LEFT JOIN files ON files.path = found.name WHERE kind = $kind "
        "AND (files.size IS DISTINCT FROM found.size OR files.mtime_ns IS DISTINCT FROM found.mtime_ns) "
        "ORDER BY found.path",
        {"kind": EntryKind.FILE.value},
    )
    absent = "SELECT path FROM files ANTI JOIN (SELECT name FROM found WHERE kind = $kind) f ON path = f.name WHERE "
    parameters = {**_prefixes(folders), "kind": EntryKind.FILE.value}
    gone = _forget(connection, absent + _BELOW.format(path="path"), parameters)
    _forget(connection, "SELECT name FROM todo SEMI JOIN files ON files.path = name")
    (todo,) = connection.execute("SELECT count(*) FROM todo").fetchone()
    return int(todo), gone


def _files_to_read(connection: Any, number: int) -> Iterator[FoundFile]:
    for start in range(0, number, _FOUND_AT_ONCE):
        rows = connection.execute(
            "SELECT path, size, mtime_ns FROM todo WHERE rowid >= $start AND rowid < $stop ORDER BY rowid",
            {"start": start, "stop": start + _FOUND_AT_ONCE},
        ).fetchall()
        yield from (FoundFile(os.fsdecode(path), size, mtime_ns) for path, size, mtime_ns in rows)


def _forget(connection: Any, paths: str, parameters: Mapping[str, object] | None = None) -> int:
    """Remove all rows of the files that a query lists; returns their number."""
    connection.execute(f"CREATE TEMP TABLE forgotten AS SELECT * FROM ({paths}) p(path)", parameters or {})  # noqa: S608 - our own queries
    (number,) = connection.execute("SELECT count(*) FROM forgotten").fetchone()
    if number:
        connection.execute("DELETE FROM instances WHERE local_path IN (SELECT path FROM forgotten)")
        for table in ("files", "faults"):
            connection.execute(f"DELETE FROM {table} WHERE path IN (SELECT path FROM forgotten)")  # noqa: S608 - our own tables
    connection.execute("DROP TABLE forgotten")
    return int(number)


def _store(connection: Any, batch: Batch) -> None:
    """Add one batch in one transaction, so that a stopped crawl goes on where it was."""
    import pyarrow as pa

    other = set(batch.other)
    files = [(f.name, f.size, f.mtime_ns, f.name not in other) for f in batch.files]
    names = ("path", "size", "mtime_ns", "is_instance")
    connection.register("batch", pa.ipc.open_stream(batch.instances).read_all())
    connection.register("batch_files", pa.table([list(column) for column in zip(*files, strict=True)], names=names))
    connection.execute("BEGIN")
    connection.execute("INSERT INTO instances BY NAME SELECT *, FALSE AS is_copy FROM batch")
    connection.execute("INSERT INTO files BY NAME SELECT * FROM batch_files")
    # a text or picture beside the images is no fault
    faults = [
        f for f in batch.faults if f.lost or f.reason != Reason.NOT_DICOM or f.path.lower().endswith((".dcm", ".ima"))
    ]
    if faults:
        connection.executemany("INSERT INTO faults VALUES (?, ?, ?, ?, ?, ?, ?)", faults)
    connection.execute("COMMIT")
    connection.unregister("batch")
    connection.unregister("batch_files")


def _mark_copies(connection: Any) -> None:
    """Mark all but the first of files that hold the same bytes, or the same CT image, under one SOP Instance UID."""
    import pyarrow as pa

    connection.execute("CREATE TEMP TABLE copied (path VARCHAR)")
    for part in in_parts(_copies(connection.cursor()), _FOUND_AT_ONCE):
        connection.register("part_of_copied", pa.table({"path": part}))
        connection.execute("INSERT INTO copied SELECT * FROM part_of_copied")
        connection.unregister("part_of_copied")
    connection.execute(
        "UPDATE instances SET is_copy = local_path IN (SELECT path FROM copied) "
        "WHERE is_copy OR local_path IN (SELECT path FROM copied)"
    )


def _copies(cursor: Any) -> Iterator[str]:
    cursor.execute(
        "SELECT SOPInstanceUID, local_path, coalesce(Modality = 'CT', FALSE) FROM instances WHERE SOPInstanceUID IN "
        "(SELECT SOPInstanceUID FROM instances WHERE SOPInstanceUID <> '' GROUP BY 1 HAVING count(*) > 1) ORDER BY 1, 2"
    )
    rows = (row for part in iter(lambda: cursor.fetchmany(_FOUND_AT_ONCE), []) for row in part)
    for _, group in groupby(rows, key=itemgetter(0)):
        files = list(group)
        yield from _copies_among([path for _, path, _ in files], all(is_ct for _, _, is_ct in files))


def _copies_among(paths: Sequence[str], is_ct: bool) -> list[str]:
    """Files that hold the same as an earlier one of the list."""
    kept: list[tuple[str, str]] = []
    copies = []
    for path in paths:
        digest = md5_of(path)
        if any(
            (digest and digest == other) or (is_ct and same_image(Path(path), Path(first))) for first, other in kept
        ):
            copies.append(path)
        else:
            kept.append((path, digest))
    return copies


def _kept_collections(connection: Any, folders: Sequence[Path], collection_id: str) -> tuple[tuple[str, int], ...]:
    """Collections other than the given one of the instances below `folders`."""
    found = connection.execute(
        "SELECT collection_id, count(*) FROM instances WHERE collection_id <> $own AND "  # noqa: S608 - our own text
        + _BELOW.format(path="local_path")
        + " GROUP BY 1 ORDER BY 1",
        {"own": collection_id, **_prefixes(folders)},
    ).fetchall()
    return tuple((name, int(number)) for name, number in found)


def _summary(connection: Any, read: int, removed: int) -> IndexSummary:
    def one(sql: str) -> int:
        return int(connection.execute(sql).fetchone()[0])

    faults = connection.execute("SELECT reason, count(DISTINCT path) FROM faults GROUP BY 1 ORDER BY 1").fetchall()
    series = "SELECT count(DISTINCT coalesce(SeriesInstanceUID, '')) FROM dicom_all"
    return IndexSummary(
        files=one("SELECT count(*) FROM found WHERE kind = 'file'"),
        read=read,
        removed=removed,
        instances=one("SELECT count(*) FROM dicom_all"),
        copies=one("SELECT count(*) FROM instances WHERE is_copy"),
        series=one(series),
        ct_series=one(f"{series} WHERE Modality = 'CT'"),
        other_files=one("SELECT count(*) FROM files WHERE NOT is_instance"),
        links=one("SELECT count(*) FROM found WHERE kind = 'link'"),
        faults=tuple((reason, int(count)) for reason, count in faults),
    )


class FolderCatalog:
    """A DuckDB file that `index_folders` made, opened for reading.

    Parameters
    ----------
    path : Path
        The file.
    partial : bool
        Answer queries although the last crawl did not end.
    memory : int, optional
        Bytes that a selection may take; None: half of this machine's memory.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_PARAMETER if the file is something else.
    """

    name = "folder"
    instance_level = True
    complete = False

    def __init__(self, path: Path, *, partial: bool = False, memory: int | None = None) -> None:
        import duckdb

        if not path.is_file():
            raise UsageError(Reason.NOT_FOUND, f"there is no catalog {path.name}", "make it with: ctenrich index")
        self._connection = _open(path, read_only=True)
        self._partial = partial
        self._memory = memory or default_memory()
        self._damage: tuple[Damage, ...] | None = None
        try:
            self._layout = int(self._connection.execute("SELECT max(layout) FROM about").fetchone()[0] or 0)
            self._unfinished = self._unfinished_folders()
        except (duckdb.Error, TypeError) as error:
            self._connection.close()
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a catalog of ctenrich") from error

    def _unfinished_folders(self) -> tuple[str, ...]:
        if self._layout < 2:
            return ()
        rows = self._connection.execute("SELECT folders FROM crawls WHERE ended IS NULL ORDER BY id").fetchall()
        return tuple(dict.fromkeys(name for (folders,) in rows for name in folders))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: an unfinished crawl, a catalog of an earlier version."""
        if self._unfinished:
            return (f"INCOMPLETE CATALOG: {_unfinished_text(self._unfinished)}; series and slices may be missing",)
        if self._layout < 2:
            text = (
                "the catalog was made by an earlier version, which noted neither the end of its crawl nor every "
                "unreadable file: run ctenrich index again"
            )
            return (text,)
        return ()

    @property
    def engine(self) -> str:
        """Name and version of the engine."""
        import duckdb

        return f"duckdb {duckdb.__version__}"

    @property
    def version(self) -> str:
        """Hash over the UIDs and sizes of all instances, in an order that does not depend on the crawl."""
        self._connection.execute(f"SET memory_limit = '{max(self._memory // 2, LEAST_MEMORY)}B'")
        rows = self._connection.execute(
            "SELECT coalesce(SOPInstanceUID, ''), instance_size FROM dicom_all ORDER BY ALL"
        )
        digest, separator = hashlib.sha256(b"["), ""
        while part := rows.fetchmany(_AT_ONCE):
            digest.update((separator + ", ".join(map(repr, part))).encode())
            separator = ", "
        digest.update(b"]")
        return "folder-" + digest.hexdigest()[:16]

    @property
    def connection(self) -> Any:
        """The read-only DuckDB connection."""
        return self._connection

    def run(self, query: Query, parameters: Mapping[str, object]) -> QueryResult:
        """Answer a query on ``dicom_all``, or on tables that the user added to the file (clinical ones).

        Parameters
        ----------
        query : Query
            The query, in BigQuery's dialect.
        parameters : mapping
            Values of its @parameters.

        Returns
        -------
        QueryResult
            The rows.

        Raises
        ------
        UsageError
            UNFINISHED_CRAWL unless the catalog was opened with `partial`; BAD_QUERY, BAD_PARAMETER, MISSING_COLUMN.
        """
        return run_on_duckdb(self._connection, query, parameters, self._tables(), self._memory)

    def run_in_parts(self, query: Query, parameters: Mapping[str, object]) -> Iterator[QueryResult]:
        """Answer a query for as many studies at a time as the memory allows, see :func:`run_in_parts`."""
        return run_in_parts(self._connection, query, parameters, self._tables(), self._memory)

    def _tables(self) -> dict[str, str]:
        """Tables that a query may read; raises UNFINISHED_CRAWL."""
        if self._unfinished and not self._partial:
            hint = "run the same ctenrich index again (it goes on where it stopped), or select with --partial"
            raise UsageError(Reason.UNFINISHED_CRAWL, _unfinished_text(self._unfinished), hint)
        rows = self._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        added = {name.lower(): name for (name,) in rows if name not in _OWN}
        return {**added, "dicom_all": "dicom_all"}

    def damage(self) -> tuple[Damage, ...]:
        """Files that could not be read, copies that were left out, and the CT series that they concern."""
        if self._damage is None:
            self._damage = find_damage(self._connection) if self._layout >= 2 else ()
        return self._damage

    def radiotherapy_counts(self) -> dict[str, int]:
        """Instances of Modality RTPLAN and RTDOSE, by modality; those that there are none of are left out."""
        sql = "SELECT Modality, count(*) FROM dicom_all WHERE Modality IN ('RTPLAN', 'RTDOSE') GROUP BY 1 ORDER BY 1"
        return {name: int(number) for name, number in self._connection.execute(sql).fetchall()}

    def estimate(self, query: Query, parameters: Mapping[str, object]) -> Estimate | None:
        """Nothing is billed."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _unfinished_text(folders: Sequence[str]) -> str:
    names = ", ".join(Path(name).name for name in folders[:3]) + (", ..." if len(folders) > 3 else "")
    return f"the last crawl of {names} did not end"


def _open_kind(argument: str, options: CatalogOptions) -> FolderCatalog | None:
    if not argument:
        return None
    return FolderCatalog(Path(argument), partial=options.partial, memory=options.memory)


KIND = CatalogKind(form="folder:FILE", open=_open_kind)

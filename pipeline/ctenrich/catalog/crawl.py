"""Read the headers of many files, in processes of their own, as batches of rows."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ctenrich.catalog.headers import FileHeader, read_header
from ctenrich.catalog.schema import COLUMNS, RADIOTHERAPY_COLUMNS, RADIOTHERAPY_MODALITIES, arrow_schema
from ctenrich.dicom.fast_header import HEAD
from ctenrich.dicom.other_files import kind_of_other_file
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason

__all__ = [
    "Batch",
    "EntryKind",
    "FileFault",
    "FoundEntry",
    "FoundFile",
    "find_files",
    "in_parts",
    "md5_of",
    "read_batches",
    "utf8_name",
]

BATCH = 256
"""Files that one process reads at a time: what is lost when a crawl is stopped."""


_UID = re.compile(r"[0-9.]{1,64}")
_IMAGE_SUFFIX = re.compile(r"|\.(dcm|dicom|ima|img|[0-9]+)")


@dataclass(frozen=True)
class FoundFile:
    """A file as the file system knows it."""

    path: str
    """As Python opens it: bytes that are not UTF-8 are surrogates."""
    size: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """The path as UTF-8 text."""
        return utf8_name(self.path)


class EntryKind(StrEnum):
    """What an entry of the file system is to a crawl."""

    FILE = "file"
    LINK = "link"
    """A symbolic link, which is not followed."""
    CLOSED = "closed"
    """A folder that cannot be listed."""


class FoundEntry(NamedTuple):
    """A file, link or closed folder below some folders."""

    path: str
    """As Python opens it."""
    kind: EntryKind
    size: int = 0
    mtime_ns: int = 0


_T = TypeVar("_T")


def in_parts(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    """Divide items into tuples, which are made as they are taken.

    Parameters
    ----------
    items : iterable
        What is divided.
    size : int
        Items of a tuple; the last one may be shorter.

    Returns
    -------
    iterator of tuple
        In the order of the items.
    """
    source = iter(items)
    return iter(lambda: tuple(islice(source, size)), ())


def utf8_name(path: str) -> str:
    """Write a path as UTF-8 text; a byte that is not UTF-8 becomes a backslash, an x and two hexadecimal digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class FileFault(NamedTuple):
    """Something wrong with one file."""

    path: str
    reason: str
    message: str
    series: str
    """Series Instance UID; empty where it is not known."""
    study: str = ""
    """Study Instance UID; empty where it is not known."""
    modality: str = ""
    """Modality; empty where it is not known."""
    lost: bool = False
    """Whether the file may hold an instance that the catalog has in no series."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows, faults and other files of one batch of files."""

    files: tuple[FoundFile, ...]
    instances: bytes
    """Arrow stream: one row per DICOM instance, with the columns of dicom_all and ``local_path``.

    A batch without an object of radiotherapy lacks `RADIOTHERAPY_COLUMNS`, whose values are then the defaults.
    """
    faults: tuple[FileFault, ...]
    other: tuple[str, ...]
    """Paths of files that hold no DICOM instance."""


def find_files(folders: Sequence[Path]) -> Iterator[FoundEntry]:
    """Find all plain files below folders, each once.

    Parameters
    ----------
    folders : sequence of Path
        Searched with their subfolders; symbolic links are not followed.

    Returns
    -------
    iterator of FoundEntry
        In no order, found as they are taken. A file or folder that goes away meanwhile is left out.

    Raises
    ------
    UsageError
        NOT_FOUND for a folder that is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(Reason.NOT_FOUND, f"there is no folder {utf8_name(folder.name)}")
    roots = {folder.resolve() for folder in folders}
    return _entries_below([str(root) for root in roots if not any(above in roots for above in root.parents)])


def _entries_below(waiting: list[str]) -> Iterator[FoundEntry]:
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif (found := _found_entry(entry)) is not None:
                        yield found
        except FileNotFoundError:
            continue
        except OSError:
            yield FoundEntry(place, EntryKind.CLOSED)


def _found_entry(entry: os.DirEntry[str]) -> FoundEntry | None:
    if entry.is_symlink():
        return FoundEntry(entry.path, EntryKind.LINK)
    if not entry.is_file(follow_symlinks=False):
        return None
    try:
        stat = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return FoundEntry(entry.path, EntryKind.FILE, stat.st_size, stat.st_mtime_ns)


def read_batches(files: Iterable[FoundFile], collection_id: str, processes: int) -> Iterator[Batch]:
    """Read the headers of files in batches, in several processes where that is worth their start.

    Parameters
    ----------
    files : iterable of FoundFile
        In the order in which their rows are wanted; taken as they are read.
    collection_id : str
        collection_id of the rows.
    processes : int
        Processes that read headers.

    Yields
    ------
    Batch
        In the order of `files`.

    Raises
    ------
    InputError
        WORKER_DIED if a reading process was killed.
    """
    parts = in_parts(files, BATCH)
    first = list(islice(parts, 3))
    remaining = chain(first, parts)
    if processes <= 1 or len(first) < 3:
        yield from (_read_batch(part, collection_id) for part in remaining)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running: list[Future[Batch]] = []
        try:
            while True:
                ahead = 2 * processes - len(running)
                running += [pool.submit(_read_batch, part, collection_id) for part in islice(remaining, ahead)]
                if not running:
                    return
                yield running.pop(0).result()
        except BrokenProcessPool:
            message = "a process that read headers died (memory, or a crash in a library)"
            raise InputError(Reason.WORKER_DIED, message, "index again: what was read is kept") from None
        finally:
            for future in running:
                future.cancel()


def _read_batch(files: tuple[FoundFile, ...], collection_id: str) -> Batch:
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    faults: list[FileFault] = []
    other: list[str] = []
    for file in files:
        header = read_header(Path(file.path))
        if file.name != file.path:
            unnamed = (Reason.IO_ERROR, "the name of the file, or of a folder above it, is not UTF-8: rename it")
            header = FileHeader(None, (*header.faults, unnamed), header.row)
        faults += _file_faults(file, header)
        if header.row is None:
            other.append(file.name)
            continue
        own = {"collection_id": collection_id, "instance_size": file.size, "gcs_url": Path(file.path).as_uri()}
        rows.append({**_EMPTY, **header.row, **own, "local_path": file.path})
    schema = _batch_schema(rows)
    try:
        table = pa.Table.from_pylist(rows, schema)
    except Exception:  # noqa: BLE001  a value that no column can hold; its file is found by trying each
        table = _table_of_the_good(rows, schema, faults, other)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    return Batch(files=files, instances=sink.getvalue().to_pybytes(), faults=tuple(faults), other=tuple(other))


def _batch_schema(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Columns that some row may have; an empty column costs as much to build as a filled one."""
    import pyarrow as pa

    radiotherapy = any(row["Modality"] in RADIOTHERAPY_MODALITIES for row in rows)
    columns = COLUMNS if radiotherapy else COLUMNS[: -len(RADIOTHERAPY_COLUMNS)]
    return arrow_schema(columns).append(pa.field("local_path", pa.string()))


_EMPTY: dict[str, Any] = {c.name: [] if c.repeated else None for c in COLUMNS}


def _table_of_the_good(rows: list[dict[str, Any]], schema: Any, faults: list[FileFault], other: list[str]) -> Any:
    """The rows that fit the columns; the file of every other row is a fault, and lost to its series."""
    import pyarrow as pa

    good = []
    for row in rows:
        try:
            pa.Table.from_pylist([row], schema)
        except Exception as error:  # noqa: BLE001  Arrow and text codecs raise several kinds
            message = f"a value of the header does not fit its column ({type(error).__name__})"
            series, study = row["SeriesInstanceUID"] or "", row["StudyInstanceUID"] or ""
            modality = "CT" if row["Modality"] == "CT" else ""
            faults.append(
                FileFault(row["local_path"], Reason.DECODE_ERROR.value, message, series, study, modality, True)
            )
            other.append(row["local_path"])
        else:
            good.append(row)
    return pa.Table.from_pylist(good, schema)


def _file_faults(file: FoundFile, header: FileHeader) -> list[FileFault]:
    """Faults of one file; one that may be lost to its series names the series where its first bytes do."""
    if not header.faults:
        return []
    row = header.row or header.withheld or {}
    series, study, modality = (
        str(row.get(name) or "") for name in ("SeriesInstanceUID", "StudyInstanceUID", "Modality")
    )
    lost = False
    if header.row is None or not modality or _UID.fullmatch(series) is None:
        start = _first_bytes(file.path)
        lost = header.withheld is not None or _may_be_instance(file, header, start)
        series = series or find_text(start, 0x0020000E)
        study = study or find_text(start, 0x0020000D)
        modality = modality or find_text(start, 0x00080060) or ("RTSTRUCT" if _RT_STRUCTURE_SET in start else "")
    return [
        FileFault(file.name, reason.value, message, series, study, modality, lost) for reason, message in header.faults
    ]


_RT_STRUCTURE_SET = RT_STRUCTURE_SET.encode()


def _first_bytes(path: str) -> bytes:
    try:
        with Path(path).open("rb") as handle:
            return handle.read(HEAD)
    except OSError:
        return b""


def _may_be_instance(file: FoundFile, header: FileHeader, start: bytes) -> bool:
    """Whether a file without a usable row may be an image of a series beside it."""
    if header.row is not None or start[128:132] == b"DICM":
        return True
    name = Path(file.name)
    if name.name.startswith(".") or _IMAGE_SUFFIX.fullmatch(name.suffix.lower()) is None:
        return False
    try:
        return kind_of_other_file(Path(file.path)) is None
    except OSError:
        return True


def find_text(start: bytes, tag: int) -> str:
    """Value of a UID or code string in the first bytes of a damaged file, wherever its element is.

    Parameters
    ----------
    start : bytes
        The first bytes of a file.
    tag : int
        Tag of an element of VR UI or CS.

    Returns
    -------
    str
        The first value that consists of plausible characters; empty if there is none.
    """
    key = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    at = start.find(key)
    while at >= 0:
        explicit = start[at + 4 : at + 6] in {b"UI", b"CS"}
        length = int.from_bytes(start[at + 6 : at + 8] if explicit else start[at + 4 : at + 8], "little")
        value = start[at + 8 : at + 8 + length].strip(b" \0")
        if 0 < length <= 64 and re.fullmatch(rb"[0-9A-Z_.]+", value):
            return value.decode("ascii")
        at = start.find(key, at + 1)
    return ""


def md5_of(path: str) -> str:
    """Hex MD5 of a file's bytes (IDC's instance_hash); empty if it cannot be read."""
    try:
        with Path(path).open("rb") as handle:
            return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return ""

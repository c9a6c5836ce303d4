"""Read the headers of many files, in processes of their own, as batches of rows."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ctenrich.catalog.headers import read_header
from ctenrich.catalog.schema import COLUMNS, arrow_schema
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason

__all__ = ["Batch", "FileFault", "FoundFile", "find_files", "md5_of", "read_batches"]

BATCH = 256
"""Files that one process reads at a time: what is lost when a crawl is stopped."""


@dataclass(frozen=True)
class FoundFile:
    """A file as the file system knows it."""

    path: str
    size: int
    mtime_ns: int


class FileFault(NamedTuple):
    """Something wrong with one file."""

    path: str
    reason: str
    message: str
    series: str
    """Series Instance UID; empty where it is not known."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows, faults and other files of one batch of files."""

    files: tuple[FoundFile, ...]
    instances: bytes
    """Arrow stream: one row per DICOM instance, with the columns of dicom_all and ``local_path``."""
    faults: tuple[FileFault, ...]
    other: tuple[str, ...]
    """Paths of files that hold no DICOM instance."""


def find_files(folders: Sequence[Path]) -> tuple[list[FoundFile], list[str]]:
    """All plain files below `folders`, sorted by path, and the links that were not followed.

    Raises
    ------
    UsageError
        NOT_FOUND for a folder that is not there.
    """
    found: dict[str, FoundFile] = {}
    links: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(Reason.NOT_FOUND, f"there is no folder {folder.name}")
        waiting = [str(folder.resolve())]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        links.append(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        stat = entry.stat(follow_symlinks=False)
                        found[entry.path] = FoundFile(entry.path, stat.st_size, stat.st_mtime_ns)
    return [found[path] for path in sorted(found)], sorted(links)


def read_batches(files: Sequence[FoundFile], collection_id: str, processes: int) -> Iterator[Batch]:
    """Read the headers of files in batches, in several processes where that is worth their start.

    Parameters
    ----------
    files : sequence of FoundFile
        In the order in which their rows are wanted.
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
    parts = [tuple(files[at : at + BATCH]) for at in range(0, len(files), BATCH)]
    if processes <= 1 or len(parts) <= 2:
        yield from (_read_batch(part, collection_id) for part in parts)
        return
    context = multiprocessing.get_context("spawn")
    remaining = iter(parts)
    with ProcessPoolExecutor(min(processes, len(parts)), mp_context=context) as pool:
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
        path = Path(file.path)
        header = read_header(path)
        series = (header.row or {}).get("SeriesInstanceUID") or ""
        faults += [FileFault(file.path, reason.value, message, series) for reason, message in header.faults]
        if header.row is None:
            other.append(file.path)
            continue
        url = path.as_uri()
        own = {"collection_id": collection_id, "instance_size": file.size, "gcs_url": url, "local_path": file.path}
        rows.append({**header.row, **own})
    schema = arrow_schema().append(pa.field("local_path", pa.string()))
    empty: dict[str, Any] = {c.name: [] if c.repeated else None for c in COLUMNS}
    table = pa.Table.from_pylist([{**empty, **row} for row in rows], schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    return Batch(files=files, instances=sink.getvalue().to_pybytes(), faults=tuple(faults), other=tuple(other))


def md5_of(path: str) -> str:
    """Hex MD5 of a file's bytes (what IDC calls instance_hash); empty if it cannot be read."""
    try:
        with Path(path).open("rb") as handle:
            return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return ""

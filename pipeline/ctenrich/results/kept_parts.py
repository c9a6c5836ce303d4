"""Keep the parts of large tables, so that only those with changed series are made again."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import ctenrich
from ctenrich.results.parts import WorkerPool
from ctenrich.workspace import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KeptParts", "Part", "file_states", "parts_of", "software_version", "stable_parts"]

W = TypeVar("W")
_HASH = 32
"""Bytes of SHA-256."""
_SUFFIX = ".part"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of some series or files in some tables."""

    tables: dict[str, pa.Table]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known about these rows, as JSON has it."""


@dataclass(frozen=True)
class KeptParts:
    """Parts of tables in files, each named by the hash of everything that it was made from.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    version : str
        Version of the software that makes them; see :func:`software_version`.
    """

    folder: Path
    version: str

    def name(self, *made_from: str) -> str:
        """Name of the part that is made from these texts."""
        digest = hashlib.sha256("\x1f".join((self.version, *made_from)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:32]

    def find(self, name: str, *, only: str = "") -> Part | None:
        """Load a part; None if it is not kept, or was damaged.

        Parameters
        ----------
        name : str
            Its name.
        only : str
            The one table whose rows are wanted; empty: all tables.
        """
        import pyarrow as pa

        try:
            content = (self.folder / f"{name}{_SUFFIX}").read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content[_HASH:]).digest() != content[:_HASH]:
            return None
        header_end = content.index(b"\n", _HASH) + 1
        header = json.loads(content[_HASH:header_end])
        tables, start = {}, header_end
        buffer = pa.py_buffer(content)
        for table, size in header["tables"].items():
            if only in ("", table):
                tables[table] = pa.ipc.open_stream(buffer.slice(start, size)).read_all()
            start += size
        return Part(tables=tables, facts=header["facts"])

    def keep(self, name: str, part: Part) -> None:
        """Write a part."""
        import pyarrow as pa

        streams = {}
        for table, rows in part.tables.items():
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
                writer.write_table(rows)
            streams[table] = sink.getvalue().to_pybytes()
        header = {"tables": {table: len(stream) for table, stream in streams.items()}, "facts": part.facts}
        content = b"".join((json.dumps(header).encode(), b"\n", *streams.values()))
        with atomic_path(self.folder / f"{name}{_SUFFIX}") as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)

    def remove_others(self, names: Iterable[str]) -> None:
        """Delete the parts that do not belong to the tables any more."""
        used = {f"{name}{_SUFFIX}" for name in names}
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name not in used:
                    path.unlink(missing_ok=True)


def parts_of(
    pool: WorkerPool, make: Callable[[W], tuple[str, Part]], work: Iterable[W], kept: KeptParts | None
) -> Iterator[tuple[str, Part]]:
    """Make or find parts, in order.

    Parameters
    ----------
    pool : WorkerPool
        Where they are made. Other processes hand over the names of parts that they keep, and not the rows.
    make : callable
        A function of a module: work -> (name, part).
    work : iterable
        What each part is made from.
    kept : KeptParts, optional
        Where `make` keeps parts.
    """
    if kept is None or not pool.is_parallel:
        yield from pool.map(make, work)
        return
    waiting: deque[W] = deque()

    def noted() -> Iterator[W]:
        for one in work:
            waiting.append(one)
            yield one

    for name in pool.map(partial(_name_of, make), noted()):
        one = waiting.popleft()
        found = kept.find(name)
        yield (name, found) if found is not None else make(one)


def _name_of(make: Callable[[W], tuple[str, Part]], work: W) -> str:
    return make(work)[0]


def software_version() -> str:
    """Hash of all files of the package: tables of other code or other mappings are made again."""
    root = Path(ctenrich.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".csv", ".toml", ".json", ".sql"):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def file_states(root: Path, paths: Iterable[Path]) -> str:
    """Name, size and modification time of files, and of all files in folders.

    Parameters
    ----------
    root : Path
        Folder from which the names are stated, so that a run can be moved.
    paths : iterable of Path
        Files and folders; what is not there counts as absent.
    """
    return "\n".join(state for path in paths for state in _states(str(path), len(str(root))))


def _states(path: str, skip: int) -> Iterator[str]:
    try:
        found = os.stat(path)  # noqa: PTH116 - text: a Path takes longer than the system's answer
        inside = sorted(entry.path for entry in os.scandir(path)) if os.path.isdir(path) else []  # noqa: PTH112
    except FileNotFoundError:
        return
    if not inside:
        yield f"{path[skip:]}:{found.st_size}:{found.st_mtime_ns}"
    for entry in inside:
        yield from _states(entry, skip)


def stable_parts(names: Iterable[str], smallest: int, largest: int) -> Iterator[tuple[int, int]]:
    """Divide a sorted list so that another entry changes the part that it is in, and seldom the next one.

    A part ends behind an entry whose hash says so.

    Parameters
    ----------
    names : iterable of str
        The list.
    smallest, largest : int
        Number of entries of a part; the last one may have fewer.

    Yields
    ------
    tuple of int
        Position of the first entry of a part and of the first one behind it.
    """
    start = end = 0
    for end, name in enumerate(names, 1):
        ends_here = crc32(name.encode("utf-8", "surrogateescape")) % max(1, largest - smallest) == 0
        if end - start >= largest or (ends_here and end - start >= smallest):
            yield start, end
            start = end
    if start < end:
        yield start, end

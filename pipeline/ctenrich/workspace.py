"""The run's folder: layout, atomic writes, records and arrays on disk.

All files are written through this module, to a temporary name in the same folder that is flushed and renamed, so that a
reader sees a complete file or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError, UnsafeInputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Product

__all__ = [
    "DIVIDED_FORMAT",
    "FORMAT",
    "RUN_FILE",
    "Workspace",
    "atomic_open",
    "atomic_path",
    "check_uid",
    "files_below",
    "input_files",
    "load_array",
    "load_record",
    "remove_temporaries",
    "require_file",
    "reserve_space",
    "save_array",
    "save_record",
    "sha256_of_array",
    "sha256_of_file",
    "sync_folders",
    "write_bytes",
]

FORMAT = 1
"""Format of ``run.json`` and of a folder whose series have their folders in ``series``."""
DIVIDED_FORMAT = 2
"""Format of a folder whose series have their folders in 256 folders of ``series``; earlier versions do not open it."""
RUN_FILE = "run.json"
"""File that states the format of a run's folder, its products and its settings."""
_SERIES = "series"
_PARTS = frozenset(f"{number:02x}" for number in range(256))
"""Names of the folders that the folders of series are divided over."""
_UID = re.compile(r"[0-9.]{1,64}")
_ADAPTERS: dict[type, Any] = {}
T = TypeVar("T")


def check_uid(uid: str) -> str:
    """Return `uid` if it is safe as a folder name: digits and dots, at most 64 characters (PS3.5 section 9).

    Raises
    ------
    UnsafeInputError
        UNSAFE_IDENTIFIER if it is not; the message does not contain the value.
    """
    if _UID.fullmatch(uid) is None or uid.strip(".") == "":
        raise UnsafeInputError(Reason.UNSAFE_IDENTIFIER, f"an identifier of {len(uid)} characters is not a DICOM UID")
    return uid


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success flush the file and rename it to `path`, otherwise remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_file(path: Path, hint: str = "") -> None:
    """Check that a file that the user named exists.

    Parameters
    ----------
    path : Path
        The file; the message shows it as it was named.
    hint : str
        What to name instead.

    Raises
    ------
    UsageError
        NOT_FOUND.
    """
    if path.is_dir():
        raise UsageError(Reason.NOT_FOUND, f"{path} is a folder, not a file", hint)
    if not path.is_file():
        raise UsageError(Reason.NOT_FOUND, f"there is no file {path}", hint)


def remove_temporaries(root: Path, *, but: str = "") -> None:
    """Remove partial files of killed processes below `root`; those of running processes are kept.

    Parameters
    ----------
    root : Path
        A folder; it need not exist.
    but : str
        Name of a folder in `root` that is not entered.
    """
    import psutil

    for folder, folders, files in os.walk(root):  # files that others remove meanwhile are skipped
        if but and folder == str(root) and but in folders:
            folders.remove(but)
        for name in (n for n in (*folders, *files) if n.startswith(".") and n.endswith(".tmp")):
            if psutil.pid_exists(_writer_of(name)):
                continue
            if name in folders:
                shutil.rmtree(Path(folder, name), ignore_errors=True)
            else:
                Path(folder, name).unlink(missing_ok=True)


def _writer_of(name: str) -> int:
    """Return the process ID in a temporary name ``.name.PID.token.tmp``; -1 if there is none."""
    parts = name.split(".")
    return int(parts[-3]) if len(parts) > 3 and re.fullmatch(r"[0-9]{1,9}", parts[-3]) else -1


@contextmanager
def atomic_open(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that gets its name only if the block ends without an error.

    Parameters
    ----------
    path : Path
        The file.
    mode : str
        Mode of :func:`open`.

    Yields
    ------
    file object
    """
    with atomic_path(path) as temporary, temporary.open(mode) as handle:
        yield handle


def write_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a small file atomically.

    Parameters
    ----------
    path : Path
        The file; its folder is created.
    data : bytes
        Its content.
    durable : bool
        Whether the file must be there under its name after a power failure: the folder is flushed too.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    if durable:
        sync_folders([path.parent])


def files_below(folder: Path, *, closed: list[Path] | None = None) -> list[tuple[Path, os.stat_result]]:
    """List the regular files below a folder with their status, by path; links are left out and not followed.

    Files and folders that others rename or delete meanwhile are passed over.

    Parameters
    ----------
    folder : Path
        The folder.
    closed : list of Path, optional
        Gets the folders that this process may not list.

    Returns
    -------
    list of (Path, os.stat_result)

    Raises
    ------
    InputError
        IO_ERROR for a folder that this process may not list, unless it goes into `closed`: what is in it would be
        missing without a word.
    """
    found: list[tuple[Path, os.stat_result]] = []
    for path in _paths_below(folder, closed):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.append((path, status))
    return found


def input_files(top: Path) -> list[Path]:
    """List the files of a folder that a user named, links to files among them, or the one file; sorted.

    Parameters
    ----------
    top : Path
        A file, or a folder with its subfolders; links to folders are not followed.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        IO_ERROR for a folder that this process may not list.
    """
    return sorted(path for path in _paths_below(top, None) if path.is_file()) if top.is_dir() else [top]


def _paths_below(folder: Path, closed: list[Path] | None) -> Iterator[Path]:
    """Everything but folders below a folder, one folder after the other."""

    def refuse(error: OSError) -> None:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):  # it is gone
            return
        if closed is None:
            message = f"a folder of {folder.name} cannot be read: {error.strerror}"
            raise InputError(Reason.IO_ERROR, message, "make it readable for this user, or take it away") from error
        closed.append(Path(error.filename))

    for place, names, files in os.walk(folder, followlinks=False, onerror=refuse):
        names.sort()
        yield from (Path(place, name) for name in sorted(files))


def sync_folders(folders: Iterable[Path]) -> None:
    """Make renames in folders last through a power failure (fsync of each folder)."""
    for folder in sorted(set(folders)):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # file systems without it
                raise
        finally:
            os.close(descriptor)


def _type_adapter(cls: type) -> Any:
    from pydantic import TypeAdapter

    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def save_record(path: Path, record: object, *, durable: bool = False) -> None:
    """Save a record as JSON, atomically and with reproducible bytes.

    Parameters
    ----------
    path : Path
        The file.
    record : object
        A frozen dataclass of :mod:`ctenrich.records`.
    durable : bool
        See :func:`write_bytes`. Records of stages need it not: the manifest flushes their folders.
    """
    write_bytes(path, _type_adapter(type(record)).dump_json(record, indent=1) + b"\n", durable=durable)


def load_record(path: Path, cls: type[T]) -> T:
    """Load a record that :func:`save_record` wrote; types are checked strictly.

    Parameters
    ----------
    path : Path
        The file.
    cls : type
        Class of the record.

    Returns
    -------
    object
        The record.

    Raises
    ------
    InputError
        NOT_PREPARED if there is no such file, BAD_RUN if it does not contain such a record.
    """
    from pydantic import ValidationError

    try:
        return cast("T", _type_adapter(cls).validate_json(path.read_bytes()))
    except FileNotFoundError:
        hint = "run the stages before it first"
        raise InputError(Reason.NOT_PREPARED, f"{path.name} has not been made yet", hint) from None
    except ValidationError as error:
        message = f"{path.name} does not hold a {cls.__name__}: {error.error_count()} errors"
        raise InputError(Reason.BAD_RUN, message) from error


def reserve_space(path: Path) -> None:
    """Allocate all blocks of a file that is going to be written through a memory map, where the system can.

    A full disk is then an error here; without the blocks the kernel would end the process at the write (SIGBUS).

    Raises
    ------
    OSError
        ENOSPC if the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("rb+") as handle:
        os.posix_fallocate(handle.fileno(), 0, os.fstat(handle.fileno()).st_size)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Save an array as ``.npy`` in C order, atomically; :func:`load_array` loads it.

    Parameters
    ----------
    path : Path
        The file.
    array : array
        Any shape and type except objects.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.ascontiguousarray(array), allow_pickle=False)


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map an array that :func:`save_array` wrote, read-only."""
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def sha256_of_file(path: Path) -> str:
    """Compute the SHA-256 of a file in bounded memory, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_array(array: NDArray[Any]) -> str:
    """Compute the SHA-256 of an array's type, shape and values (C order), hexadecimal."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for part in array if array.ndim == 3 else (array,):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


class Workspace:
    """The folder of one run.

    Layout: ``series/<SeriesInstanceUID>/{source/, volume/, <product folder>/{masks/, scores/, objects/*.dcm}}``,
    ``tables/*.parquet``, ``report/``. In a run of format :data:`DIVIDED_FORMAT`, which ``run.json`` states, a series
    has its folder in ``series/<first two hexadecimal digits of the SHA-256 of its UID>``.

    Every stage saves its record under a fixed name: ``fetched.json``, ``sorted.json`` and ``volume.json`` in the
    series' folder, ``masks.json``, ``scores.json``, ``shape.json``, ``landmarks.json``, ``regions.json``,
    ``objects.json`` and ``proof.json`` in the product's folder.

    Parameters
    ----------
    root : Path
        The run's folder; created on the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self._divided: bool | None = None

    @property
    def is_divided(self) -> bool:
        """Whether the folders of the series are divided over 256 folders; a run has one format as long as it exists."""
        if self._divided is None:
            found = _format_of(self.root / RUN_FILE)
            if found is None:  # no run yet: asked again when there is one
                return False
            self._divided = found == DIVIDED_FORMAT
        return self._divided

    def series_path(self, series_instance_uid: str) -> str:
        """Return the path of a series' folder below the run's, with ``/``; the only place that makes one of a UID."""
        return self._series_path(check_uid(series_instance_uid))

    def _series_path(self, name: str) -> str:
        if self.is_divided:
            return f"{_SERIES}/{hashlib.sha256(name.encode()).hexdigest()[:2]}/{name}"
        return f"{_SERIES}/{name}"

    def series_dir(self, series_instance_uid: str) -> Path:
        """Folder of a series."""
        return self.root / self.series_path(series_instance_uid)

    def product_dir(self, series_instance_uid: str, product: Product) -> Path:
        """Folder of a product of a series."""
        return self.series_dir(series_instance_uid) / _check_product_folder(product.folder)

    def resolve(self, series_instance_uid: str, path: str) -> Path:
        """Return the absolute path of a path in a record; relative ones must be inside the series' folder."""
        if Path(path).is_absolute():
            return Path(path)
        folder = self.series_dir(series_instance_uid)
        full = (folder / path).resolve()
        if not full.is_relative_to(folder):
            raise UnsafeInputError(Reason.UNSAFE_PATH, "a path is outside the series' folder")
        return full

    def relative(self, series_instance_uid: str, path: Path) -> str:
        """Return the path that a record stores for a file in the series' folder."""
        return path.resolve().relative_to(self.series_dir(series_instance_uid)).as_posix()

    @property
    def tables(self) -> Path:
        """Folder of the result tables."""
        return self.root / "tables"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.root / "report"

    def series_uids(self) -> list[str]:
        """Series that have a folder, sorted."""
        top = self.root / _SERIES
        if not self.is_divided:
            return _folders_in(top)
        return sorted(name for part in _folders_in(top) if part in _PARTS for name in _folders_in(top / part))

    def series_dirs(self) -> Iterator[Path]:
        """Folders of the series that have one, by Series Instance UID."""
        return (self.root / self._series_path(name) for name in self.series_uids())

    def object_files(self, product_folder: str = "") -> Iterator[Path]:
        """List the DICOM objects of the results, by series, product and name.

        Parameters
        ----------
        product_folder : str
            Folder of a product; empty: of all products.
        """
        for series in self.series_dirs():
            for product in [product_folder] if product_folder else _folders_in(series):
                yield from sorted((series / product / "objects").glob("*.dcm"))


def _format_of(path: Path) -> int | None:
    """Return the format that a ``run.json`` states; None if there is no such file or it cannot be read."""
    try:
        found = json.loads(path.read_bytes())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def _folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _check_product_folder(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.,=+-]{1,200}", name) is None or name.startswith("."):
        hint = "use letters, digits, _ . - in model names"
        raise UsageError(Reason.BAD_PARAMETER, f"{name!r} cannot name a product", hint)
    return name

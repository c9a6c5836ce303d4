"""Static files of a station, such as weights, that steps see read-only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

__all__ = ["hash_of_static", "static_path"]

_ARCHIVES = (".tar", ".tar.gz", ".tgz")


def static_path(folder: str, name: str) -> Path:
    """Return the static file or folder of a name.

    RadDeploy unpacks archives: an archive that a flow names is here the folder of its name without suffix.

    Parameters
    ----------
    folder : str
        Folder of the static files of the station; empty: it has none.
    name : str
        As the flow states it.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        NOT_FOUND.
    """
    if not folder:
        hint = "name their folder in static of [run], in station.toml"
        raise UsageError(Reason.NOT_FOUND, f"{name}: there is no folder of static files", hint)
    suffix = next((one for one in sorted(_ARCHIVES, key=len, reverse=True) if name.endswith(one)), "")
    path = Path(folder) / (name.removesuffix(suffix) if suffix else name)
    if not path.exists():
        hint = f"unpack {name} into a folder {path.name} of the static files" if suffix else ""
        raise UsageError(Reason.NOT_FOUND, f"{path.name} is not among the static files", hint)
    return path


def hash_of_static(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a static mount, by its path in it.

    Raises
    ------
    UsageError
        UNSAFE_PATH: a link, of which the container would not see the target.
    """
    return {str(one.relative_to(path)): _hash_of(one) for one in _files(path)}


def _files(path: Path) -> Iterator[Path]:
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_symlink():
            raise UsageError(Reason.UNSAFE_PATH, f"{path.name} has a link", "static files are copies, not links")
        if one.is_file():
            yield one


def _hash_of(path: Path) -> str:
    status = path.stat()
    return _cached_hash(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _cached_hash(path: Path, _size: int, _modified: int, _inode: int) -> str:
    return sha256_of_file(path)

"""Local folders as a storage: no link is followed, nothing is opened outside the folder that was named."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ctenrich.errors import IncompleteError, InputError, TransientError, UnsafeInputError, UsageError, is_disk_full
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.storage.base import Storage, StoredObject, Transfer, name_taken, verify_file
from ctenrich.workspace import atomic_path, files_below, sha256_of_file

__all__ = ["LocalStorage", "check_regular", "local_path"]


def local_path(url: str) -> Path:
    """Path of a ``file:`` URL, which must be absolute and on this machine.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not path.is_absolute() or "\0" in str(path):
        raise UsageError(Reason.BAD_PARAMETER, "a local file needs a URL of the form file:///absolute/path")
    return path


def check_regular(path: Path) -> os.stat_result:
    """Status of a regular file that is no link.

    Raises
    ------
    IncompleteError
        INCOMPLETE if there is no such file.
    UnsafeInputError
        UNSAFE_PATH for links, devices, pipes and folders.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise IncompleteError(Reason.INCOMPLETE, f"a file of the series is not there: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeInputError(Reason.UNSAFE_PATH, "a file of the series is a link, a folder or a device")
    return status


class LocalStorage(Storage):
    """Files below local folders, addressed as ``file:///absolute/path``."""

    def list_objects(self, url: str) -> list[StoredObject]:
        """All regular files below a folder, by path; links are left out, and never followed.

        Files that another process renames or deletes meanwhile are left out.
        """
        root = local_path(url)
        if root.is_symlink() or not root.is_dir():
            raise IncompleteError(Reason.INCOMPLETE, "a folder of the series is not there, or is a link")
        return [_stored_object(path, status) for path, status in files_below(root)]

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Copy files."""
        for transfer in transfers:
            source = local_path(transfer.url)
            check_regular(source)
            try:
                with atomic_path(transfer.path) as temporary:
                    shutil.copyfile(source, temporary, follow_symlinks=False)
                    verify_file(temporary, transfer)
            except TransientError as error:
                raise InputError(error.reason, error.message) from error
            except OSError as error:
                if is_disk_full(error):
                    raise
                raise InputError(Reason.IO_ERROR, f"a file could not be copied: {error.strerror}") from error
            progress.advance("fetch")

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Copy a file; it appears by a rename, or by a link that fails if another writer was first."""
        target = local_path(url)
        if replace:
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
            return _stored_file(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            shutil.copyfile(source, staged)
            os.link(staged, target)
        except FileExistsError:
            if sha256_of_file(target) != sha256_of_file(source):
                raise name_taken() from None
        finally:
            staged.unlink(missing_ok=True)
        return _stored_file(target)


def _stored_file(path: Path) -> StoredObject:
    return _stored_object(path, path.lstat())


def _stored_object(path: Path, status: os.stat_result) -> StoredObject:
    return StoredObject(path.as_uri(), status.st_size, version=str(status.st_mtime_ns))

"""What differs between a data set and its previous release, by the manifests of both."""

from __future__ import annotations

import csv
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.release.contents import OBJECTS, TABLES
from ctenrich.workspace import atomic_path

__all__ = [
    "CHANGES",
    "MANIFEST",
    "Change",
    "Manifest",
    "changes_text",
    "compare_manifests",
    "read_manifest",
    "write_changes",
]

MANIFEST = "manifest-sha256.txt"
CHANGES = ("CHANGES.md", "changes.csv")
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file that differs between two releases."""

    path: str
    what: str
    """``added``, ``removed`` or ``changed``."""
    old_sha256: str = ""
    new_sha256: str = ""


class Manifest:
    """The manifest of a release: path and SHA-256 of each file, read line by line.

    Parameters
    ----------
    folder : Path
        Folder of the release.

    Raises
    ------
    UsageError
        NOT_FOUND if the folder has no manifest, BAD_PARAMETER if a line of it is not as the release wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / MANIFEST
        if not self._path.is_file():
            raise UsageError(Reason.NOT_FOUND, f"{folder.name} has no {MANIFEST}", "name the folder of a release")
        self._sorted = all(one < two for (one, _), (two, _) in pairwise(self._lines()))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Path and SHA-256 of every file, by path; one that somebody has sorted otherwise is read whole."""
        return iter(self._lines() if self._sorted else sorted(dict(self._lines()).items()))

    def _lines(self) -> Iterator[tuple[str, str]]:
        with self._path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                match = _LINE.fullmatch(line.rstrip("\r\n"))
                if match is None:
                    raise UsageError(Reason.BAD_PARAMETER, f"line {number} of the previous {MANIFEST} is damaged")
                yield match[2], match[1]


def read_manifest(folder: Path) -> dict[str, str]:
    """Read the manifest of a release: path -> SHA-256.

    Raises
    ------
    UsageError
        See :class:`Manifest`.
    """
    return dict(Manifest(folder))


def compare_manifests(old: Iterable[tuple[str, str]], new: Iterable[tuple[str, str]]) -> Iterator[Change]:
    """Compare the objects and tables of two releases.

    Parameters
    ----------
    old, new : iterable of (str, str)
        Path and SHA-256, sorted by path. Metadata files are left out.

    Yields
    ------
    Change
        By path.
    """
    sides = (((path, 0, sha256) for path, sha256 in old), ((path, 1, sha256) for path, sha256 in new))
    for path, group in groupby(heapq.merge(*sides), key=lambda item: item[0]):
        sha256 = {side: value for _, side, value in group}
        if path.partition("/")[0] not in (OBJECTS, TABLES) or sha256.get(0) == sha256.get(1):
            continue
        what = "added" if 0 not in sha256 else "removed" if 1 not in sha256 else "changed"
        yield Change(path=path, what=what, old_sha256=sha256.get(0, ""), new_sha256=sha256.get(1, ""))


def changes_text(counts: Mapping[tuple[str, str], int] | None) -> str:
    """Markdown about the changes: (folder, what) -> number of files; None: there is no previous release."""
    if counts is None:
        return "# Changes\n\nThis is the first release.\n"
    if not counts:
        return "# Changes\n\nObjects and tables are those of the previous release, byte for byte.\n"
    lines = ["# Changes", "", "Compared with the previous release; each file is in changes.csv.", ""]
    for folder, text in ((OBJECTS, "DICOM objects"), (TABLES, "tables")):
        found = {what: counts.get((folder, what), 0) for what in ("added", "removed", "changed")}
        parts = [f"{number} {what}" for what, number in found.items() if number]
        lines.append(f"- {text}: {', '.join(parts) or 'no change'}")
    return "\n".join(lines) + "\n"


def write_changes(path: Path, changes: Iterable[Change]) -> dict[tuple[str, str], int]:
    """Write a CSV with one row per file that differs; no file if there is none.

    Parameters
    ----------
    path : Path
        The file.
    changes : iterable of Change
        Each is written when it is found.

    Returns
    -------
    dict
        (folder, what) -> number of files.
    """
    counts: Counter[tuple[str, str]] = Counter()
    rows = iter(changes)
    first = next(rows, None)
    if first is None:
        return {}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "change", "old_sha256", "new_sha256"))
        for one in chain([first], rows):
            counts[one.path.partition("/")[0], one.what] += 1
            writer.writerow((one.path, one.what, one.old_sha256, one.new_sha256))
    return dict(counts)

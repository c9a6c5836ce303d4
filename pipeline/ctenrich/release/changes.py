"""What differs between a data set and its previous release, by the manifests of both."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.release.contents import OBJECTS, TABLES

__all__ = ["CHANGES", "MANIFEST", "Change", "changes_table", "changes_text", "compare_manifests", "read_manifest"]

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


def read_manifest(folder: Path) -> dict[str, str]:
    """Read the manifest of a release: path -> SHA-256.

    Raises
    ------
    UsageError
        NOT_FOUND if the folder has no manifest, BAD_PARAMETER if a line of it is not as the release wrote it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(Reason.NOT_FOUND, f"{folder.name} has no {MANIFEST}", "name the folder of a release")
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UsageError(Reason.BAD_PARAMETER, f"line {number} of the previous {MANIFEST} is damaged")
        found[match[2]] = match[1]
    return found


def compare_manifests(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Change, ...]:
    """Compare the objects and tables of two releases.

    Parameters
    ----------
    old, new : mapping of str to str
        Path -> SHA-256. Metadata files are left out.

    Returns
    -------
    tuple of Change
        Sorted by path.
    """
    found = []
    for path in sorted({*old, *new}):
        if path.partition("/")[0] not in (OBJECTS, TABLES) or old.get(path) == new.get(path):
            continue
        what = "added" if path not in old else "removed" if path not in new else "changed"
        found.append(Change(path=path, what=what, old_sha256=old.get(path, ""), new_sha256=new.get(path, "")))
    return tuple(found)


def changes_text(changes: tuple[Change, ...] | None) -> str:
    """Markdown about the changes; None: there is no previous release."""
    if changes is None:
        return "# Changes\n\nThis is the first release.\n"
    if not changes:
        return "# Changes\n\nObjects and tables are those of the previous release, byte for byte.\n"
    counts = Counter((change.path.partition("/")[0], change.what) for change in changes)
    lines = ["# Changes", "", "Compared with the previous release; each file is in changes.csv.", ""]
    for folder, text in ((OBJECTS, "DICOM objects"), (TABLES, "tables")):
        parts = [f"{counts[folder, what]} {what}" for what in ("added", "removed", "changed") if counts[folder, what]]
        lines.append(f"- {text}: {', '.join(parts) or 'no change'}")
    return "\n".join(lines) + "\n"


def changes_table(changes: tuple[Change, ...]) -> str:
    """CSV with one row per file that differs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "change", "old_sha256", "new_sha256"))
    writer.writerows((c.path, c.what, c.old_sha256, c.new_sha256) for c in changes)
    return text.getvalue()

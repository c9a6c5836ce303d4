"""The journal of a folder of results: what became of each file, in lines of JSON that name no patient."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import write_bytes

__all__ = ["FOLDER", "Entry", "Journal", "check_settings"]

FOLDER = "pseudonymise"
"""Folder of journal and report in the folder of results; no pseudonym is in lower case."""
Counts = tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of a file."""

    source: str
    """Keyed code of its path below the folder."""
    state: str
    """Keyed code of its size and the time of its last change."""
    patient: str
    """Pseudonym; empty where the patient is not known."""
    path: str = ""
    """Of the result; empty where the file was refused."""
    size: int = 0
    reason: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    counts: Counts = ()
    """(attribute, outcome, elements)."""


class Journal:
    """Appends entries to the journal; those of files with the same counts share them.

    Parameters
    ----------
    out : Path
        Folder of results.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / FOLDER / "journal.jsonl"
        self._patterns: dict[Counts, int] = {}
        self.entries: dict[str, Entry] = {}
        """Code of the source -> its last entry."""
        self._load()

    def _load(self) -> None:
        if not self.path.is_file():
            return
        known: dict[int, Counts] = {}
        with self.path.open("rb") as handle:
            for line in handle:
                try:
                    row: dict[str, Any] = json.loads(line)
                except ValueError:  # the line that a kill has cut, and what follows on it
                    continue
                if "counts" in row:
                    known[row["pattern"]] = tuple((name, outcome, number) for name, outcome, number in row["counts"])
                elif row["pattern"] in known:
                    counts = known[row.pop("pattern")]
                    self.entries[row["source"]] = Entry(**row | {"notes": tuple(row["notes"]), "counts": counts})
        self._patterns = {counts: number for number, counts in known.items()}

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self.path.open("ab")
        self._handle.write(b"\n")  # ends a line that a kill has cut
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()

    def add(self, entry: Entry) -> None:
        """Append an entry."""
        if entry.counts not in self._patterns:
            self._patterns[entry.counts] = max(self._patterns.values(), default=0) + 1
            self._write({"pattern": self._patterns[entry.counts], "counts": entry.counts})
        self._write(vars(entry) | {"counts": None, "pattern": self._patterns[entry.counts]})
        self.entries[entry.source] = entry

    def _write(self, row: Mapping[str, Any]) -> None:
        row = {name: value for name, value in row.items() if value is not None}
        self._handle.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._handle.flush()


def check_settings(out: Path, settings: Mapping[str, str]) -> None:
    """Keep the settings of a folder of results, or compare them with those that it was made with.

    Parameters
    ----------
    out : Path
        The folder; created.
    settings : mapping
        Everything on which the bytes of results depend; nothing in it is secret.

    Raises
    ------
    UsageError
        BAD_PARAMETER if the folder was made with others, or holds other files.
    """
    path = out / FOLDER / "settings.json"
    hint = "name a new folder"
    if path.is_file():
        try:
            before = json.loads(path.read_bytes())
        except ValueError:
            before = {}
        different = sorted(name for name in settings if before.get(name) != settings[name])
        if different:
            message = f"the folder of results was made with another {', '.join(different)}"
            raise UsageError(Reason.BAD_PARAMETER, message, hint)
        return
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(Reason.BAD_PARAMETER, "the folder of results holds other files", hint)
    write_bytes(path, json.dumps(settings, indent=1).encode() + b"\n")

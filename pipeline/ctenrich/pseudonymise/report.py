"""Write the report of a folder of results: what was kept, changed, removed and refused, without any identifier."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.pseudonymise.journal import FOLDER, Entry
from ctenrich.workspace import write_bytes

__all__ = ["Summary", "write_report"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Numbers of a folder of results."""

    written: int
    """Files whose result is there."""
    skipped: int
    """Of them, those that an earlier call had written."""
    refused: Mapping[str, int]
    """Reason -> files."""
    copies: int
    """Equal copies of files that were written."""
    other: int
    """Files that are no DICOM objects; they are not copied."""
    patients: int
    notes: Mapping[str, int]
    """Note -> files."""


def write_report(
    out: Path, settings: Mapping[str, str], entries: Sequence[Entry], *, skipped: int, copies: int, other: int
) -> Summary:
    """Write report.json, attributes.csv and files.csv.

    Parameters
    ----------
    out : Path
        Folder of results.
    settings : mapping
        Settings of the folder.
    entries : sequence of Entry
        Last entry of each file.
    skipped, copies, other : int
        See :class:`Summary`.

    Returns
    -------
    Summary
    """
    written = [one for one in entries if not one.reason]
    summary = Summary(
        written=len(written),
        skipped=skipped,
        refused=dict(sorted(Counter(one.reason for one in entries if one.reason).items())),
        copies=copies,
        other=other,
        patients=len({one.patient for one in written}),
        notes=dict(sorted(Counter(note for one in written for note in one.notes).items())),
    )
    folder = out / FOLDER
    attributes = list(_attribute_rows(written))
    outcomes: Counter[str] = Counter()
    for _, outcome, elements, _ in attributes:
        outcomes[outcome] += elements
    report = {"settings": dict(settings), "files": vars(summary), "elements": dict(sorted(outcomes.items()))}
    write_bytes(folder / "report.json", json.dumps(report, indent=1).encode() + b"\n")
    write_bytes(folder / "attributes.csv", _table(("attribute", "outcome", "elements", "files"), attributes))
    rows = sorted((one.patient, one.path, one.size, one.reason, one.detail, "; ".join(one.notes)) for one in entries)
    write_bytes(folder / "files.csv", _table(("patient", "path", "size", "reason", "detail", "notes"), rows))
    return summary


def _attribute_rows(entries: Iterable[Entry]) -> Iterable[tuple[str, str, int, int]]:
    elements: Counter[tuple[str, str]] = Counter()
    files: Counter[tuple[str, str]] = Counter()
    patterns = Counter(one.counts for one in entries)
    for counts, number in patterns.items():
        for attribute, outcome, amount in counts:
            elements[attribute, outcome] += amount * number
            files[attribute, outcome] += number
    for attribute, outcome in sorted(elements):
        yield attribute, outcome, elements[attribute, outcome], files[attribute, outcome]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")

"""Rows of mapping files as the linter sees them: their name, their group and their codes."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctenrich import __version__
from ctenrich.codes.terminology import dictionary_meanings
from ctenrich.records import Issue, Severity
from ctenrich.resources import folder as resource_folder

__all__ = [
    "EMPTY_WORDS",
    "CodeTriple",
    "KnownConcept",
    "MappingRow",
    "clean_cell",
    "code_columns",
    "known_concepts",
    "known_meanings",
    "mapping_issue",
    "read_rows",
    "sides_in",
]

EMPTY_WORDS = frozenset({"none", "nan", "null", "n/a", "na"})
_PARTS = (("scheme", "code", "meaning"), ("CodingSchemeDesignator", "CodeValue", "CodeMeaning"))
_GROUP_COLUMNS = ("task", "model")


@dataclass(frozen=True, kw_only=True)
class CodeTriple:
    """A code in a row of a file."""

    file: str
    line: int
    key: str
    column: str
    """The columns' common prefix, e.g. ``type``."""
    scheme: str
    value: str
    meaning: str

    @property
    def place(self) -> str:
        """Where the code is: ``file:line``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class MappingRow:
    """A row of a mapping file."""

    file: str
    line: int
    group: str
    """Task or model that the row belongs to, if the file has such a column; names are unique in a group."""
    key: str
    """Name, unique in the file; in tables of labels: task, network and number."""
    cells: Mapping[str, str]
    codes: Mapping[str, CodeTriple]
    """Prefix of the columns -> code; only complete ones."""

    @property
    def place(self) -> str:
        """Where the row is: ``file:line``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class KnownConcept:
    """Entry of concepts.csv about a code."""

    meaning: str
    status: str
    instead: str


def read_rows(path: Path) -> list[MappingRow]:
    """Read the rows of a file, with the codes that are complete and in use."""
    numbered = _read_numbered_rows(path)
    columns = code_columns(numbered[0][1]) if numbered else []
    return [_mapping_row(path.name, line, cells, columns) for line, cells in numbered]


def _mapping_row(
    file: str, line: int, cells: dict[str, str], columns: list[tuple[str, tuple[str, str, str]]]
) -> MappingRow:
    key = _row_key(cells)
    codes: dict[str, CodeTriple] = {}
    for prefix, names in columns:
        scheme, value, meaning = (clean_cell(cells[name]) for name in names)
        if scheme and value and meaning and cells.get("status", "current") == "current":
            codes[prefix] = CodeTriple(
                file=file, line=line, key=key, column=prefix, scheme=scheme, value=value, meaning=meaning
            )
    group = next((cells[column].strip() for column in _GROUP_COLUMNS if column in cells), "")
    return MappingRow(file=file, line=line, group=group, key=key, cells=cells, codes=codes)


def _read_numbered_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        return [(reader.line_num, {k or "": v or "" for k, v in row.items() if k is not None}) for row in reader]


def code_columns(row: Mapping[str, str]) -> list[tuple[str, tuple[str, str, str]]]:
    """Find the columns that hold codes: (prefix, columns of scheme, value and meaning)."""
    out = []
    for column in row:
        for parts in _PARTS:
            if column.endswith(parts[1]) and (column == parts[1] or column[: -len(parts[1])][-1] in "_."):
                prefix = column[: -len(parts[1])]
                columns = tuple(prefix + part for part in parts)
                if all(c in row for c in columns):
                    out.append((prefix.strip("_."), (columns[0], columns[1], columns[2])))
    return out


def _row_key(row: Mapping[str, str]) -> str:
    cells = [value.strip() for column, value in row.items() if column.strip()]
    if "task" in row:
        return " ".join(row[column].strip() for column in ("task", "model", "label") if column in row)
    if "model" in row:
        return " ".join(cells[:2])
    return cells[0] if cells else ""


def clean_cell(cell: str) -> str:
    """Return the text of a cell; empty for the word None and its like."""
    text = cell.strip()
    return "" if text.casefold() in EMPTY_WORDS else text


def sides_in(text: str) -> set[str]:
    """Return which of the words left and right a name or a meaning contains."""
    return set(re.findall(r"(?:^|[^a-z])(left|right)(?![a-z])", text.casefold()))


@cache
def known_concepts() -> dict[tuple[str, str], tuple[KnownConcept, ...]]:
    """Return what concepts.csv knows about codes: (scheme, value) -> entries."""
    path = resource_folder("mappings") / "concepts.csv"
    out: dict[tuple[str, str], tuple[KnownConcept, ...]] = {}
    for _line, row in _read_numbered_rows(path) if path.is_file() else []:
        known = KnownConcept(row["meaning"].strip(), row["status"].strip(), row["instead"].strip())
        key = row["scheme"].strip(), row["code"].strip()
        out[key] = (*out.get(key, ()), known)
    return out


@cache
def known_meanings(scheme: str) -> dict[str, tuple[str, ...]]:
    """Return the meanings of a scheme's codes in DICOM's dictionary and in concepts.csv."""
    out = dict(dictionary_meanings(scheme))
    for (other, value), known in known_concepts().items():
        current = tuple(k.meaning for k in known if k.status == "current")
        if other == scheme and current:
            out[value] = (*out.get(value, ()), *current)
    return out


def mapping_issue(rule: str, severity: Severity, place: str, message: str) -> Issue:
    """Make the issue of a finding.

    Parameters
    ----------
    rule : str
        Name of the rule.
    severity : Severity
        Error, warning or note.
    place : str
        ``file:line``.
    message : str
        What is wrong.

    Returns
    -------
    Issue
        With the linter as its checker.
    """
    return Issue(rule, severity, place, message, "ctenrich mappings", __version__)

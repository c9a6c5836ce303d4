"""Check mapping files: reports file:line, the fault, and the nearest valid code.

Any CSV can be checked whose code columns come in threes: ``X_scheme, X_code, X_meaning`` (ours) or DICOM's keywords
``...CodingSchemeDesignator, ...CodeValue, ...CodeMeaning`` (with any prefix).

Errors (the file cannot be used): an impossible code (SNOMED CT check digit, UCUM grammar, IBSI form), an incomplete
code, a duplicate name, a meaning that belongs to another code. Warnings (to be reviewed): the word None, leading or
trailing blanks, one meaning with several codes, one code with several meanings, a concept that has been replaced or
means something other than the row, an unknown IBSI identifier, a lost laterality. Notes: a code that is in no
dictionary of this package.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctenrich import __version__
from ctenrich.codes.terminology import code_fault, dictionary_meanings, nearest_code, plain_meaning
from ctenrich.records import Issue, Severity
from ctenrich.resources import folder as resource_folder

__all__ = ["check_mappings"]

_EMPTY_WORDS = frozenset({"none", "nan", "null", "n/a", "na"})
_PARTS = (("scheme", "code", "meaning"), ("CodingSchemeDesignator", "CodeValue", "CodeMeaning"))


@dataclass(frozen=True, kw_only=True)
class _Triple:
    """A code in a row of a file."""

    file: str
    line: int
    key: str
    column: str
    scheme: str
    value: str
    meaning: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class _Known:
    """Entry of concepts.csv about a code."""

    meaning: str
    status: str
    instead: str


def check_mappings(folder: Path) -> tuple[Issue, ...]:
    """Check every CSV in a folder.

    Parameters
    ----------
    folder : Path
        Its files are checked one by one and against each other.

    Returns
    -------
    tuple of Issue
        In order of file and line; ``object`` is ``file:line``.
    """
    issues: list[Issue] = []
    triples: list[_Triple] = []
    for path in sorted(Path(folder).glob("*.csv")):
        issues += _check_file(path, triples)
    for triple in triples:
        issues += _check_code(triple)
    issues += _check_across(triples)
    return tuple(sorted(issues, key=_issue_order))


def _issue_order(issue: Issue) -> tuple[str, int, str, str]:
    file, _, line = issue.object.rpartition(":")
    return file, int(line), issue.rule, issue.message


def _mapping_issue(rule: str, severity: Severity, place: str, message: str) -> Issue:
    return Issue(rule, severity, place, message, "ctenrich mappings", __version__)


# ---------------------------------------------------------------- one file


def _check_file(path: Path, triples: list[_Triple]) -> Iterator[Issue]:
    try:
        rows = _read_numbered_rows(path)
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8"
        yield _mapping_issue("ENCODING", Severity.ERROR, f"{path.name}:1", message)
        return
    except csv.Error as error:
        yield _mapping_issue("ENCODING", Severity.ERROR, f"{path.name}:1", f"it is not a CSV file: {error}")
        return
    groups = _code_columns(rows[0][1]) if rows else []
    seen: dict[str, int] = {}
    for line, row in rows:
        place = f"{path.name}:{line}"
        key = _row_key(row)
        if key in seen:
            yield _mapping_issue("DUPLICATE", Severity.ERROR, place, f"{key!r} is also in line {seen[key]}")
        seen.setdefault(key, line)
        yield from _check_cells(place, row, groups)
        for prefix, columns in groups:
            scheme, value, meaning = (_clean_cell(row[c]) for c in columns)
            if scheme and value and meaning and row.get("status", "current") == "current":
                triples.append(
                    _Triple(
                        file=path.name,
                        line=line,
                        key=key,
                        column=prefix,
                        scheme=scheme,
                        value=value,
                        meaning=meaning,
                    )
                )
        yield from _check_side(place, key, row)


def _read_numbered_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        return [(reader.line_num, {k or "": v or "" for k, v in row.items() if k is not None}) for row in reader]


def _code_columns(row: Mapping[str, str]) -> list[tuple[str, tuple[str, str, str]]]:
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
    """The name of a row, unique in its file; in tables of labels: task, network and number."""
    if "task" in row:
        return " ".join(row[column].strip() for column in ("task", "model", "label") if column in row)
    return next((value.strip() for column, value in row.items() if column.strip()), "")


def _clean_cell(cell: str) -> str:
    text = cell.strip()
    return "" if text.casefold() in _EMPTY_WORDS else text


def _check_cells(
    place: str, row: Mapping[str, str], groups: Sequence[tuple[str, tuple[str, str, str]]]
) -> Iterator[Issue]:
    for column, cell in row.items():
        if cell != cell.strip() or "\u00a0" in cell:
            yield _mapping_issue(
                "BLANK",
                Severity.WARNING,
                place,
                f"{column} has a leading or trailing blank, or a no-break space: {cell!r}",
            )
    for prefix, columns in groups:
        cells = [row[c] for c in columns]
        words = {c.strip() for c in cells if c.strip().casefold() in _EMPTY_WORDS}
        if words:
            message = f"{prefix or 'code'} contains the word {min(words)!r}: leave it empty"
            yield _mapping_issue("LITERAL_NONE", Severity.WARNING, place, message)
        filled = [bool(_clean_cell(c)) for c in cells]
        if any(filled) and not all(filled):
            missing = ", ".join(c for c, full in zip(columns, filled, strict=True) if not full)
            yield _mapping_issue("INCOMPLETE", Severity.ERROR, place, f"{missing} is empty")


def _check_side(place: str, key: str, row: Mapping[str, str]) -> Iterator[Issue]:
    side = re.search(r"(?:^|[_\-. ])(left|right)(?:$|[_\-. ])", key.casefold())
    if side is None:
        return
    elsewhere = " ".join(v for c, v in row.items() if c.endswith(("meaning", "CodeMeaning"))).casefold()
    if side[1] not in elsewhere:
        yield _mapping_issue(
            "LATERALITY", Severity.WARNING, place, f"{key!r} names a side, but no code of the row means {side[1]}"
        )


# ---------------------------------------------------------------- one code


def _check_code(triple: _Triple) -> Iterator[Issue]:
    known = _known_meanings(triple.scheme)
    fault = code_fault(triple.scheme, triple.value)
    if fault:
        nearest = nearest_code(triple.scheme, triple.value, triple.meaning, known)
        hint = f"; did you mean {nearest} ({known[nearest][0]})?" if nearest else ""
        yield _mapping_issue(
            "IMPOSSIBLE_CODE", Severity.ERROR, triple.place, f"{triple.column or 'code'}: {fault}{hint}"
        )
        return
    superseded = _superseded(triple)
    if superseded is not None:
        message = f"{triple.value} ({triple.meaning}) is {superseded.status}: use {superseded.instead}"
        yield _mapping_issue("CONCEPT", Severity.WARNING, triple.place, message)
    elif triple.value in known:
        yield from _check_meaning(triple, known)
    elif triple.scheme == "IBSI":
        nearest = nearest_code("IBSI", triple.value, triple.meaning, known)
        hint = f"; did you mean {nearest}?" if nearest else ""
        yield _mapping_issue(
            "UNKNOWN_IBSI", Severity.WARNING, triple.place, f"{triple.value} is not a known IBSI id{hint}"
        )
    elif triple.scheme not in {"UCUM", "99CTENRICH"}:
        message = f"{triple.scheme} {triple.value} ({triple.meaning}) is in no dictionary of this package"
        yield _mapping_issue("UNKNOWN_CODE", Severity.NOTE, triple.place, message)
    yield from _check_compound(triple)


def _check_meaning(triple: _Triple, known: Mapping[str, tuple[str, ...]]) -> Iterator[Issue]:
    meanings = known[triple.value]
    if triple.scheme == "UCUM" or any(_meanings_agree(triple.meaning, m) for m in meanings):
        return
    wanted = plain_meaning(triple.meaning)
    others = [v for v, ms in known.items() if wanted in {plain_meaning(m) for m in ms} and v != triple.value]
    message = f"{triple.scheme} {triple.value} means {meanings[0]!r}, not {triple.meaning!r}"
    if others:
        yield _mapping_issue("WRONG_CODE", Severity.ERROR, triple.place, f"{message}: use {others[0]}")
    else:
        yield _mapping_issue("MEANING", Severity.WARNING, triple.place, message)


def _meanings_agree(a: str, b: str) -> bool:
    """Whether the words of one meaning are a subset of the other's, ignoring plurals."""
    words = [{w.rstrip("s") for w in plain_meaning(m).split()} for m in (a, b)]
    return bool(words[0] and words[1]) and (words[0] <= words[1] or words[1] <= words[0])


def _check_compound(triple: _Triple) -> Iterator[Issue]:
    words = re.fullmatch(r"([a-z]{3,})-([a-z]{3,})", triple.key)
    if words is None or {triple.scheme} & {"UCUM"}:
        return
    meaning = triple.meaning.casefold()
    lost = [w for w in words.groups() if w not in meaning]
    if len(lost) == 1:
        message = f"{triple.value} ({triple.meaning}) means only part of {triple.key!r}: {lost[0]} is lost"
        yield _mapping_issue("CONCEPT", Severity.WARNING, triple.place, message)


@cache
def _concepts() -> dict[tuple[str, str], tuple[_Known, ...]]:
    path = resource_folder("mappings") / "concepts.csv"
    out: dict[tuple[str, str], tuple[_Known, ...]] = {}
    for _line, row in _read_numbered_rows(path) if path.is_file() else []:
        known = _Known(row["meaning"].strip(), row["status"].strip(), row["instead"].strip())
        key = row["scheme"].strip(), row["code"].strip()
        out[key] = (*out.get(key, ()), known)
    return out


@cache
def _known_meanings(scheme: str) -> dict[str, tuple[str, ...]]:
    out = dict(dictionary_meanings(scheme))
    for (other, value), known in _concepts().items():
        current = tuple(k.meaning for k in known if k.status == "current")
        if other == scheme and current:
            out[value] = (*out.get(value, ()), *current)
    return out


def _superseded(triple: _Triple) -> _Known | None:
    for known in _concepts().get((triple.scheme, triple.value), ()):
        doubtful = known.status == "doubtful" and known.meaning.casefold() == triple.meaning.casefold()
        if known.status == "older" or doubtful:
            return known
    return None


# ---------------------------------------------------------------- across files


def _check_across(triples: Sequence[_Triple]) -> Iterator[Issue]:
    judged = [t for t in triples if t.file != "concepts.csv"]
    by_meaning: dict[tuple[str, str], list[_Triple]] = defaultdict(list)
    by_code: dict[tuple[str, str], list[_Triple]] = defaultdict(list)
    for t in judged:
        by_meaning[t.scheme, t.meaning.casefold()].append(t)
        by_code[t.scheme, t.value].append(t)
    for (scheme, _meaning), group in sorted(by_meaning.items()):
        codes = list(dict.fromkeys(t.value for t in group))
        if len(codes) > 1:
            places = ", ".join(f"{v} in {next(t.place for t in group if t.value == v)}" for v in codes)
            message = f"{scheme} {group[0].meaning!r} has several codes: {places}"
            yield _mapping_issue("SEVERAL_CODES", Severity.WARNING, group[-1].place, message)
    for (scheme, value), group in sorted(by_code.items()):
        meanings = list(dict.fromkeys(t.meaning.casefold() for t in group))
        if len(meanings) > 1:
            places = ", ".join(
                f"{m!r} in {next(t.place for t in group if t.meaning.casefold() == m)}" for m in meanings
            )
            message = f"{scheme} {value} has several meanings: {places}"
            yield _mapping_issue("SEVERAL_MEANINGS", Severity.WARNING, group[-1].place, message)

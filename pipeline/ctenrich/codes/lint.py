"""Check mapping files: reports file:line, the fault, and the nearest valid code.

Any CSV can be checked whose code columns come in threes: ``X_scheme, X_code, X_meaning`` (ours) or DICOM's keywords
``...CodingSchemeDesignator, ...CodeValue, ...CodeMeaning`` (with any prefix).

Errors (the file cannot be used): an impossible code (SNOMED CT check digit, UCUM grammar, IBSI form), an incomplete
code, a duplicate name, a meaning that belongs to another code, a side that contradicts another one, left and right with
equal codes. Warnings (to be reviewed): the word None, leading or trailing blanks, one meaning with several codes, one
code with several meanings, a concept that has been replaced, is an organ as a whole or means something other than the
row, an unknown IBSI identifier, a lost laterality, one concept for two labels of a task. Notes: a code that is in no
dictionary of this package.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ctenrich.codes.lint_rows import (
    EMPTY_WORDS,
    CodeTriple,
    KnownConcept,
    MappingRow,
    clean_cell,
    code_columns,
    known_concepts,
    known_meanings,
    mapping_issue,
    read_rows,
)
from ctenrich.codes.lint_structures import check_structures
from ctenrich.codes.terminology import code_fault, nearest_code, plain_meaning
from ctenrich.records import Issue, Severity

__all__ = ["check_mappings"]

_WHOLE_BODY = "38266002"
"""Entire body: the one concept of an entirety that DICOM itself uses for regions (CID 4031)."""


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
    files: dict[str, list[MappingRow]] = {}
    issues: list[Issue] = []
    for path in sorted(Path(folder).glob("*.csv")):
        try:
            files[path.name] = read_rows(path)
        except UnicodeDecodeError as error:
            message = f"byte {error.start} is not UTF-8"
            issues.append(mapping_issue("ENCODING", Severity.ERROR, f"{path.name}:1", message))
        except csv.Error as error:
            message = f"it is not a CSV file: {error}"
            issues.append(mapping_issue("ENCODING", Severity.ERROR, f"{path.name}:1", message))
    for rows in files.values():
        issues += _check_file(rows)
    triples = [triple for rows in files.values() for row in rows for triple in row.codes.values()]
    for triple in triples:
        issues += _check_code(triple)
    issues += _check_across(triples)
    issues += check_structures(files)
    return tuple(sorted(issues, key=_issue_order))


def _issue_order(issue: Issue) -> tuple[str, int, str, str]:
    file, _, line = issue.object.rpartition(":")
    return file, int(line), issue.rule, issue.message


# ---------------------------------------------------------------- one file


def _check_file(rows: Sequence[MappingRow]) -> Iterator[Issue]:
    groups = code_columns(rows[0].cells) if rows else []
    seen: dict[str, int] = {}
    for row in rows:
        if row.key in seen:
            message = f"{row.key!r} is also in line {seen[row.key]}"
            yield mapping_issue("DUPLICATE", Severity.ERROR, row.place, message)
        seen.setdefault(row.key, row.line)
        yield from _check_cells(row.place, row.cells, groups)
        yield from _check_side(row.place, row.key, row.cells)


def _check_cells(
    place: str, row: Mapping[str, str], groups: Sequence[tuple[str, tuple[str, str, str]]]
) -> Iterator[Issue]:
    for column, cell in row.items():
        if cell != cell.strip() or "\u00a0" in cell:
            yield mapping_issue(
                "BLANK",
                Severity.WARNING,
                place,
                f"{column} has a leading or trailing blank, or a no-break space: {cell!r}",
            )
    for prefix, columns in groups:
        cells = [row[c] for c in columns]
        words = {c.strip() for c in cells if c.strip().casefold() in EMPTY_WORDS}
        if words:
            message = f"{prefix or 'code'} contains the word {min(words)!r}: leave it empty"
            yield mapping_issue("LITERAL_NONE", Severity.WARNING, place, message)
        filled = [bool(clean_cell(c)) for c in cells]
        if any(filled) and not all(filled):
            missing = ", ".join(c for c, full in zip(columns, filled, strict=True) if not full)
            yield mapping_issue("INCOMPLETE", Severity.ERROR, place, f"{missing} is empty")


def _check_side(place: str, key: str, row: Mapping[str, str]) -> Iterator[Issue]:
    side = re.search(r"(?:^|[_\-. ])(left|right)(?:$|[_\-. ])", key.casefold())
    if side is None:
        return
    elsewhere = " ".join(v for c, v in row.items() if c.endswith(("meaning", "CodeMeaning"))).casefold()
    if side[1] not in elsewhere:
        yield mapping_issue(
            "LATERALITY", Severity.WARNING, place, f"{key!r} names a side, but no code of the row means {side[1]}"
        )


# ---------------------------------------------------------------- one code


def _check_code(triple: CodeTriple) -> Iterator[Issue]:
    known = known_meanings(triple.scheme)
    fault = code_fault(triple.scheme, triple.value)
    if fault:
        nearest = nearest_code(triple.scheme, triple.value, triple.meaning, known)
        hint = f"; did you mean {nearest} ({known[nearest][0]})?" if nearest else ""
        yield mapping_issue(
            "IMPOSSIBLE_CODE", Severity.ERROR, triple.place, f"{triple.column or 'code'}: {fault}{hint}"
        )
        return
    superseded = _superseded(triple)
    if superseded is not None:
        rule = "ENTIRE" if superseded.status == "entire" else "CONCEPT"
        message = f"{triple.value} ({triple.meaning}) is {superseded.status}: use {superseded.instead}"
        if rule == "ENTIRE":
            message = f"{triple.value} ({triple.meaning}) means {superseded.meaning!r}, an organ as a whole"
            message += f": use the structure {superseded.instead}" if superseded.instead else ": use the structure"
        yield mapping_issue(rule, Severity.WARNING, triple.place, message)
    elif triple.value in known:
        yield from _check_meaning(triple, known)
    elif triple.scheme == "IBSI":
        nearest = nearest_code("IBSI", triple.value, triple.meaning, known)
        hint = f"; did you mean {nearest}?" if nearest else ""
        yield mapping_issue(
            "UNKNOWN_IBSI", Severity.WARNING, triple.place, f"{triple.value} is not a known IBSI id{hint}"
        )
    elif triple.scheme not in {"UCUM", "99CTENRICH"}:
        message = f"{triple.scheme} {triple.value} ({triple.meaning}) is in no dictionary of this package"
        yield mapping_issue("UNKNOWN_CODE", Severity.NOTE, triple.place, message)
    yield from _check_compound(triple)


def _check_meaning(triple: CodeTriple, known: Mapping[str, tuple[str, ...]]) -> Iterator[Issue]:
    meanings = known[triple.value]
    if triple.scheme == "UCUM" or any(_meanings_agree(triple.meaning, m) for m in meanings):
        return
    wanted = plain_meaning(triple.meaning)
    others = [v for v, ms in known.items() if wanted in {plain_meaning(m) for m in ms} and v != triple.value]
    message = f"{triple.scheme} {triple.value} means {meanings[0]!r}, not {triple.meaning!r}"
    if others:
        yield mapping_issue("WRONG_CODE", Severity.ERROR, triple.place, f"{message}: use {others[0]}")
    else:
        yield mapping_issue("MEANING", Severity.WARNING, triple.place, message)


def _meanings_agree(a: str, b: str) -> bool:
    """Whether the words of one meaning are a subset of the other's, ignoring plurals."""
    words = [{w.rstrip("s") for w in plain_meaning(m).split()} for m in (a, b)]
    return bool(words[0] and words[1]) and (words[0] <= words[1] or words[1] <= words[0])


def _check_compound(triple: CodeTriple) -> Iterator[Issue]:
    words = re.fullmatch(r"([a-z]{3,})-([a-z]{3,})", triple.key)
    if words is None or {triple.scheme} & {"UCUM"}:
        return
    meaning = triple.meaning.casefold()
    lost = [w for w in words.groups() if w not in meaning]
    if len(lost) == 1:
        message = f"{triple.value} ({triple.meaning}) means only part of {triple.key!r}: {lost[0]} is lost"
        yield mapping_issue("CONCEPT", Severity.WARNING, triple.place, message)


def _superseded(triple: CodeTriple) -> KnownConcept | None:
    for known in known_concepts().get((triple.scheme, triple.value), ()):
        doubtful = known.status == "doubtful" and known.meaning.casefold() == triple.meaning.casefold()
        if known.status in {"older", "entire"} or doubtful:
            return known
    meanings = known_meanings(triple.scheme).get(triple.value, ())
    entire = next((m for m in meanings if m.casefold().startswith("entire ")), "")
    if entire and triple.scheme == "SCT" and triple.value != _WHOLE_BODY:
        return KnownConcept(entire, "entire", "")
    return None


# ---------------------------------------------------------------- across files


def _check_across(triples: Sequence[CodeTriple]) -> Iterator[Issue]:
    judged = [t for t in triples if t.file != "concepts.csv"]
    by_meaning: dict[tuple[str, str], list[CodeTriple]] = defaultdict(list)
    by_code: dict[tuple[str, str], list[CodeTriple]] = defaultdict(list)
    for t in judged:
        by_meaning[t.scheme, t.meaning.casefold()].append(t)
        by_code[t.scheme, t.value].append(t)
    for (scheme, _meaning), group in sorted(by_meaning.items()):
        codes = list(dict.fromkeys(t.value for t in group))
        if len(codes) > 1:
            places = ", ".join(f"{v} in {next(t.place for t in group if t.value == v)}" for v in codes)
            message = f"{scheme} {group[0].meaning!r} has several codes: {places}"
            yield mapping_issue("SEVERAL_CODES", Severity.WARNING, group[-1].place, message)
    for (scheme, value), group in sorted(by_code.items()):
        meanings = list(dict.fromkeys(t.meaning.casefold() for t in group))
        if len(meanings) > 1:
            places = ", ".join(
                f"{m!r} in {next(t.place for t in group if t.meaning.casefold() == m)}" for m in meanings
            )
            message = f"{scheme} {value} has several meanings: {places}"
            yield mapping_issue("SEVERAL_MEANINGS", Severity.WARNING, group[-1].place, message)

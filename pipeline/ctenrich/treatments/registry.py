"""Read the user's registry of patients, and their delivered fractions, from CSV files."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import require_file

__all__ = ["DeliveredFractions", "RegistryRow", "not_found_detail", "read_delivered", "read_registry"]

_ID = "PatientID"
_COLUMNS = (_ID, "site", "plans", "intended_fractions", "delivered_fractions", "prescription_gy")


@dataclass(frozen=True, kw_only=True)
class RegistryRow:
    """One treatment that the user expects."""

    line: int
    patient_id: str
    site: str = ""
    plans: tuple[str, ...] = ()
    """Labels of its plans; empty: all plans of the patient."""
    intended_fractions: int | None = None
    delivered_fractions: int | None = None
    """Of the dominant plan."""
    prescription: float | None = None
    """Gy."""


@dataclass(frozen=True, kw_only=True)
class DeliveredFractions:
    """Delivered fractions of plans, as a table states them."""

    by_uid: Mapping[str, int]
    """SOP Instance UID of the plan -> fractions."""
    by_label: Mapping[tuple[str, str], int]
    """(Patient ID, label or name of the plan) -> fractions."""


def read_registry(path: Path) -> tuple[RegistryRow, ...]:
    """Read a registry: a CSV file with the column PatientID, and site, plans, intended_fractions and others if needed.

    Patient IDs are text: leading zeros stay, blanks around them do not. Labels of several plans are separated by ``|``.
    A row that repeats another one exactly counts once.

    Raises
    ------
    UsageError
        NOT_FOUND, EMPTY_INPUT, or BAD_PARAMETER with the number of the line.
    """
    rows = []
    for line, row in _rows(path, _COLUMNS, (_ID,)):
        rows.append(
            RegistryRow(
                line=line,
                patient_id=row[_ID],
                site=row.get("site", ""),
                plans=tuple(part.strip() for part in row.get("plans", "").split("|") if part.strip()),
                intended_fractions=_count(path, line, row.get("intended_fractions", "")),
                delivered_fractions=_count(path, line, row.get("delivered_fractions", "")),
                prescription=_dose(path, line, row.get("prescription_gy", "")),
            )
        )
    unique = {replace(row, line=0): row for row in reversed(rows)}
    kept = sorted(unique.values(), key=lambda r: r.line)
    seen: dict[str, RegistryRow] = {}
    for one in kept:
        first = seen.setdefault(one.patient_id, one)
        if first is not one and not (first.plans and one.plans):
            message = f"{path.name}: lines {first.line} and {one.line} have one Patient ID and differ"
            hint = "several treatments of one patient need the labels of their plans, in the column plans"
            raise UsageError(Reason.BAD_PARAMETER, message, hint)
    return tuple(kept)


def read_delivered(path: Path) -> DeliveredFractions:
    """Read delivered fractions: a CSV file with ``fractions`` and ``SOPInstanceUID``, or ``PatientID`` and ``plan``.

    Raises
    ------
    UsageError
        NOT_FOUND, EMPTY_INPUT, or BAD_PARAMETER with the number of the line.
    """
    by_uid: dict[str, int] = {}
    by_label: dict[tuple[str, str], int] = {}
    for line, row in _rows(path, ("SOPInstanceUID", _ID, "plan", "fractions"), ("fractions",)):
        number = _count(path, line, row["fractions"])
        assert number is not None
        if row.get("SOPInstanceUID"):
            by_uid[row["SOPInstanceUID"]] = number
        elif row.get(_ID) and row.get("plan"):
            by_label[row[_ID], row["plan"].casefold()] = number
        else:
            message = f"line {line} of {path.name} names no plan: SOPInstanceUID, or PatientID and plan"
            raise UsageError(Reason.BAD_PARAMETER, message)
    return DeliveredFractions(by_uid=by_uid, by_label=by_label)


def _rows(path: Path, columns: Collection[str], needed: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    require_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            names = {name: next((c for c in columns if c.casefold() == (name or "").strip().casefold()), None)
                     for name in reader.fieldnames or ()}  # fmt: skip
            found = []
            for row in reader:
                values = {known: (row[name] or "").strip() for name, known in names.items() if known}
                if any(values.values()):
                    found.append((reader.line_num, values))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a CSV file in UTF-8") from error
    missing = [name for name in needed if name not in names.values()]
    if missing:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} has no column {missing[0]}")
    if not found:
        raise UsageError(Reason.EMPTY_INPUT, f"{path.name} has no row")
    for line, row in found:
        for name in needed:
            if not row[name]:
                raise UsageError(Reason.BAD_PARAMETER, f"line {line} of {path.name} has no {name}")
    return found


def _count(path: Path, line: int, text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1000):
        raise UsageError(Reason.BAD_PARAMETER, f"line {line} of {path.name}: {text[:20]!r} is no number of fractions")
    return int(text)


def _dose(path: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        dose = float(text)
    except ValueError:
        dose = 0.0
    if not 0 < dose < 1000:
        raise UsageError(Reason.BAD_PARAMETER, f"line {line} of {path.name}: {text[:20]!r} is no dose in Gy")
    return dose


def not_found_detail(patient_id: str, known: Collection[str]) -> str:
    """Describe a Patient ID that the catalog does not have; one that differs by zeros or blanks only is pointed out.

    Parameters
    ----------
    patient_id : str
        As the registry states it.
    known : collection of str
        Patient IDs of the catalog.
    """
    bare = _bare(patient_id)
    similar = sorted(one for one in known if _bare(one) == bare)
    if similar:
        return f"the catalog has {', '.join(map(repr, similar[:3]))}, which differs by zeros, blanks or case"
    return "the catalog has no radiotherapy object of this Patient ID"


def _bare(patient_id: str) -> str:
    return "".join(patient_id.split()).lstrip("0").casefold()

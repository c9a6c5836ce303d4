"""Decisions of people about treatments: an append-only table; to undo one is another row."""

from __future__ import annotations

import csv
import datetime as dt
import getpass
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = [
    "Decision",
    "DecisionKind",
    "add_decision",
    "decided_names",
    "decisions_path",
    "effective_decisions",
    "read_decisions",
]


class DecisionKind(StrEnum):
    """What a person can decide."""

    PLAN = "plan"
    """`value` is the SOP Instance UID of the dominant plan."""
    STRUCTURE_SET = "structure_set"
    """`value` is the SOP Instance UID of the structure set that is used."""
    DOSE = "dose"
    """`value` is the SOP Instance UID of a dose that is not used."""
    EXCLUDE = "exclude"
    """The patient is left out; `value` is empty or the SOP Instance UID of a plan that is left out."""
    ONE_PATIENT = "one_patient"
    """Objects of this Patient ID that state different birth dates or sexes are of one patient; `value` is empty."""
    NAME = "name"
    """`value` is NAME=STANDARD: an ROI name and the standard name that it stands for."""
    UNDO = "undo"
    """`value` is the number of an earlier decision, which holds no more."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One row of the table."""

    number: int
    """From 1, in the order of the table."""
    kind: DecisionKind
    patient_id: str
    """Empty for a name that holds for all patients, and for `undo`."""
    value: str
    user: str
    time: str
    """UTC, as 2026-11-28T23:10:00+00:00."""
    why: str

    @property
    def roi_name(self) -> str:
        """Of a decision on a name: the name of the ROI."""
        return self.value.rpartition("=")[0].strip()

    @property
    def standard_name(self) -> str:
        """Of a decision on a name: the standard name."""
        return self.value.rpartition("=")[2].strip()


_COLUMNS = tuple(one.name for one in fields(Decision))


def decisions_path(path: Path) -> Path:
    """Where the decisions about the treatments of a file are."""
    return path.with_name(f"{path.stem}.decisions.csv")


def read_decisions(path: Path) -> tuple[Decision, ...]:
    """Read a table of decisions; none if the file does not exist.

    Raises
    ------
    UsageError
        BAD_PARAMETER with the number of a line that is no decision, or whose number is not that of its row.
    """
    if not path.is_file():
        return ()
    found: list[Decision] = []
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is no table of decisions")
            for row in reader:
                values = {name: row[name] or "" for name in _COLUMNS}
                kind = DecisionKind(values.pop("kind"))
                found.append(Decision(number=int(values.pop("number")), kind=kind, **values))
                if found[-1].number != len(found):
                    message = f"line {reader.line_num} of {path.name}: rows are only ever added; one is missing"
                    raise UsageError(Reason.BAD_PARAMETER, message)
    except (UnicodeDecodeError, csv.Error, ValueError, KeyError) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} has a row that is no decision") from error
    return tuple(found)


def add_decision(path: Path, kind: DecisionKind, value: str, why: str, *, patient_id: str = "", user: str = "") -> int:
    """Add a decision to the table.

    Parameters
    ----------
    path : Path
        The table; created if it does not exist.
    kind : DecisionKind
        What is decided.
    value : str
        See :class:`DecisionKind`.
    why : str
        The reason, for whoever reads it later.
    patient_id : str
        Whom it concerns.
    user : str
        Who decides; default: the name of the account.

    Returns
    -------
    int
        Number of the decision.

    Raises
    ------
    UsageError
        BAD_PARAMETER: no reason, nothing to undo, or a value that does not fit the kind.
    """
    known = read_decisions(path)
    if not why.strip():
        raise UsageError(Reason.BAD_PARAMETER, "a decision needs a reason (--why)")
    if kind is DecisionKind.UNDO and not (value.isascii() and value.isdigit() and 0 < int(value) <= len(known)):
        raise UsageError(Reason.BAD_PARAMETER, f"there is no decision {value[:20]!r} to undo")
    if kind is DecisionKind.NAME and not all(part.strip() for part in value.rpartition("=")[::2]):
        raise UsageError(Reason.BAD_PARAMETER, "a name is decided as NAME=STANDARD, e.g. 'Long L=Lung_L'")
    if kind is DecisionKind.ONE_PATIENT and value.strip():
        raise UsageError(Reason.BAD_PARAMETER, "one_patient has no value: it concerns the patient of --patient")
    if kind not in {DecisionKind.NAME, DecisionKind.UNDO} and not patient_id:
        raise UsageError(Reason.BAD_PARAMETER, f"a decision on {kind.value} concerns a patient (--patient)")
    decision = Decision(
        number=len(known) + 1,
        kind=kind,
        patient_id=patient_id,
        value=value.strip(),
        user=user or getpass.getuser(),
        time=_now(),
        why=" ".join(why.split()),
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    if not path.is_file():
        writer.writeheader()
    writer.writerow(asdict(decision))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as handle:
        handle.write(text.getvalue())
    return decision.number


def effective_decisions(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """Return the decisions that hold: none that was undone; an undo can be undone itself."""
    known = tuple(decisions)
    undone: set[int] = set()
    for one in reversed(known):
        if one.kind is DecisionKind.UNDO and one.number not in undone:
            undone.add(int(one.value))
    return tuple(one for one in known if one.kind is not DecisionKind.UNDO and one.number not in undone)


def decided_names(decisions: Iterable[Decision], patient_id: str) -> Mapping[str, Decision]:
    """Return the decisions on names that hold for a patient.

    Parameters
    ----------
    decisions : iterable of Decision
        Those that hold.
    patient_id : str
        Patient ID.

    Returns
    -------
    dict
        ROI name -> decision. One on the patient beats one on all patients, and a later one beats an earlier one.
    """
    names = [one for one in decisions if one.kind is DecisionKind.NAME and one.patient_id in ("", patient_id)]
    return {one.roi_name: one for one in sorted(names, key=lambda one: (bool(one.patient_id), one.number))}


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = dt.datetime.fromtimestamp(int(epoch), dt.UTC) if epoch.isdigit() else dt.datetime.now(dt.UTC)
    return moment.isoformat(timespec="seconds")

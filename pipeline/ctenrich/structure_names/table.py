"""The table of names: proposals for a person to accept, checks of what was accepted, and the mapping made of it."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ctenrich.codes.mappings import GENERAL, Code, SegmentCode, load_segments, standard_code
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.resources import folder
from ctenrich.structure_names.evidence import OrganEvidence
from ctenrich.structure_names.propose import propose_name
from ctenrich.structure_names.run_masks import RoiEvidence
from ctenrich.structure_names.standard import relative_base, segment_of, standard_names, standard_of
from ctenrich.structure_names.targets import check_target, is_target
from ctenrich.treatments.records import Treatment
from ctenrich.workspace import require_file, write_bytes

__all__ = [
    "NameFinding",
    "NameRow",
    "check_names",
    "name_rows",
    "read_names",
    "write_mapping",
    "write_names",
]


@dataclass(frozen=True, kw_only=True)
class NameRow:
    """One name of ROIs, with its proposals."""

    name: str
    """As it is in the structure sets."""
    structure_sets: int
    patients: int
    interpreted_types: str = ""
    """Types that the structure sets state, with their numbers: a hint, never a proof."""
    proposal_1: str = ""
    score_1: str = ""
    why_1: str = ""
    proposal_2: str = ""
    proposal_3: str = ""
    seen_side: str = ""
    """Sides on which the ROIs of this name are, with their numbers."""
    warning: str = ""
    accept: str = ""
    """To be filled in: a name, ``=`` for the first proposal, ``-`` for none. Empty: not decided."""

    @property
    def accepted(self) -> str:
        """The accepted name; empty if there is none."""
        return self.proposal_1 if self.accept == "=" else "" if self.accept == "-" else self.accept


@dataclass(frozen=True, kw_only=True)
class NameFinding:
    """Something wrong with an accepted name."""

    name: str
    accepted: str
    severity: str
    """error or warning."""
    message: str


@dataclass
class _Counts:
    sets: int = 0
    patients: set[str] = field(default_factory=set)
    types: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
    """Standard names that people decided on; empty text: ROIs without a decision."""


_COLUMNS = tuple(one.name for one in fields(NameRow))


def name_rows(treatments: Sequence[Treatment], evidence: Iterable[RoiEvidence] = ()) -> list[NameRow]:
    """Propose standard names for all names of ROIs in the structure sets that treatments use.

    Parameters
    ----------
    treatments : sequence of Treatment
        The treatments.
    evidence : iterable of RoiEvidence
        Where the ROIs are; empty without masks.

    Returns
    -------
    list of NameRow
        The most frequent name first. `accept` has the name that people decided on for all ROIs of a name, and
        is empty otherwise: nothing is renamed without a person.
    """
    counts: dict[str, _Counts] = defaultdict(_Counts)
    for treatment in treatments:
        for structures in treatment.used_structure_sets:
            for name in {roi.name for roi in structures.rois}:
                counts[name].sets += 1
                counts[name].patients.add(treatment.patient_id)
            for roi in structures.rois:
                counts[roi.name].types[roi.interpreted_type or "none"] += 1
                counts[roi.name].decided[roi.standard_name] += 1
    seen: dict[str, list[OrganEvidence]] = defaultdict(list)
    for one in evidence:
        seen[one.name].append(one.evidence)
    rows = [_row(name, found, seen.get(name, [])) for name, found in counts.items() if name]
    return sorted(rows, key=lambda row: (-row.structure_sets, row.name))


def _row(name: str, counts: _Counts, seen: Sequence[OrganEvidence]) -> NameRow:
    proposals = [propose_name(name, one) for one in seen] or [propose_name(name)]
    best = Counter(p.candidates[0].name if p.candidates else "" for p in proposals).most_common(1)[0][0]
    proposal = next(p for p in proposals if (p.candidates[0].name if p.candidates else "") == best)
    warnings = Counter(text for one in proposals for text in one.warnings)
    firsts = {p.candidates[0].name for p in proposals if p.candidates}
    if len(firsts) > 1:
        warnings[f"the ROIs of this name are {', '.join(sorted(firsts))}"] = len(proposals)
    names = [one.name for one in proposal.candidates] + ["", "", ""]
    decided = list(counts.decided)
    if len(decided) > 1:
        listed = ", ".join(f"{one or 'undecided'}: {number}" for one, number in sorted(counts.decided.items()))
        warnings[f"decisions differ between the ROIs of this name ({listed})"] = sum(counts.decided.values())
    first = proposal.candidates[0] if proposal.candidates else None
    return NameRow(
        name=name,
        structure_sets=counts.sets,
        patients=len(counts.patients),
        interpreted_types=_numbers(counts.types),
        proposal_1=names[0],
        score_1=f"{first.score:.2f}" if first else "",
        why_1=first.why if first else "",
        proposal_2=names[1],
        proposal_3=names[2],
        seen_side=_numbers(Counter(one.side or "middle" for one in seen)),
        warning="; ".join(f"{text} ({number})" if seen else text for text, number in warnings.items()),
        accept=decided[0] if len(decided) == 1 else "",
    )


def _numbers(counts: Mapping[str, int]) -> str:
    return " ".join(f"{name}:{number}" for name, number in sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def write_names(rows: Iterable[NameRow], path: Path, *, keep: Iterable[NameRow] = ()) -> None:
    """Write the table of names as CSV.

    Parameters
    ----------
    rows : iterable of NameRow
        The names.
    path : Path
        The CSV file.
    keep : iterable of NameRow
        Rows of an earlier table, whose column `accept` is kept.
    """
    accepted = {row.name: row.accept for row in keep if row.accept}
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**asdict(row), "accept": row.accept or accepted.get(row.name, "")})
    write_bytes(path, text.getvalue().encode())


def read_names(path: Path) -> list[NameRow]:
    """Read a table of names.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_PARAMETER if it lacks a column or has a name twice.
    """
    require_file(path, "make it with: ctenrich names propose")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a CSV file in UTF-8") from error
    found = []
    for row in rows:
        if not {"name", "accept"} <= row.keys():
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is no table of names: it needs name and accept")
        values = {key: (row.get(key) or "").strip() for key in _COLUMNS}
        numbers = {key: int(values.pop(key) or 0) for key in ("structure_sets", "patients")}
        found.append(NameRow(**{**values, "name": row["name"]}, **numbers))  # type: ignore[arg-type]
    twice = [name for name, number in Counter(row.name for row in found).items() if number > 1]
    if twice:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} has the name {twice[0]!r} twice")
    return found


# ---------------------------------------------------------------- checks


def check_names(rows: Sequence[NameRow], treatments: Sequence[Treatment] = ()) -> list[NameFinding]:
    """Check what a person accepted.

    Parameters
    ----------
    rows : sequence of NameRow
        The table of names.
    treatments : sequence of Treatment
        To find structure sets in which two ROIs would get one name.

    Returns
    -------
    list of NameFinding
        Errors: a name that TG-263 does not have, a side that contradicts the ROI's name, two ROIs of one
        structure set with one name. Warnings: names of targets that break its rules, names that contradict geometry.
    """
    found = [finding for row in rows if row.accepted for finding in _row_findings(row)]
    accepted = {row.name: row.accepted for row in rows if row.accepted}
    merged: dict[tuple[str, ...], int] = Counter()
    for treatment in treatments:
        for structures in treatment.used_structure_sets:
            groups: dict[str, list[str]] = defaultdict(list)
            for roi in structures.rois:
                if roi.name in accepted:
                    groups[accepted[roi.name]].append(roi.name)
            for standard, names in groups.items():
                if len(names) > 1:
                    merged[standard, *sorted(names)] += 1
    for (standard, *names), number in sorted(merged.items()):
        text = f"{', '.join(map(repr, names))} would have one name in {number} structure sets"
        found.append(NameFinding(name=names[0], accepted=standard, severity="error", message=text))
    return found


def _row_findings(row: NameRow) -> list[NameFinding]:
    def finding(severity: str, message: str) -> NameFinding:
        return NameFinding(name=row.name, accepted=row.accepted, severity=severity, message=message)

    found = []
    parsed = propose_name(row.name).parsed
    standard = standard_of(row.accepted)
    if is_target(row.accepted):
        fault = check_target(row.accepted)
        if fault:
            found.append(finding("warning", f"TG-263's rules for targets: {fault}"))
    elif standard is None and relative_base(row.accepted) is None:
        known = did_you_mean(row.accepted, standard_names(), "")
        found.append(finding("error", "it is no name of TG-263" + (f"; {known}" if known else "")))
    if standard is not None and parsed.side in {"L", "R"} and standard.side.value in {"L", "R"}:
        if parsed.side != standard.side.value:
            severity = "warning" if "the ROI is on the" in row.warning else "error"
            found.append(finding(severity, f"the ROI's name states another side ({parsed.side})"))
    elif row.warning:
        found.append(finding("warning", row.warning))
    return found


# ---------------------------------------------------------------- application


def write_mapping(rows: Sequence[NameRow], target: Path) -> int:
    """Write the accepted names, with their codes, as a mapping folder for ``ctenrich run --mappings``.

    Parameters
    ----------
    rows : sequence of NameRow
        The table of names; rows without an accepted name are left out.
    target : Path
        Folder; gets ``segments.csv``.

    Returns
    -------
    int
        Names of ROIs that are mapped.

    Raises
    ------
    UsageError
        BAD_PARAMETER: an accepted name is no name of TG-263.
    """
    for finding in check_names(rows):
        if finding.severity == "error":
            text = f"{finding.name!r} -> {finding.accepted!r}: {finding.message}"
            raise UsageError(Reason.BAD_PARAMETER, text, "ctenrich names check lists all findings")
    labels: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.accepted:
            labels[row.accepted].append(row.name)
    with (folder("mappings") / "segments.csv").open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        columns = list(reader.fieldnames or ())
        package = {row["name"]: row for row in reader}
    general = load_segments(folder("mappings") / "rois.csv")[GENERAL]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for accepted, names in sorted(labels.items()):
        writer.writerow(_mapping_row(accepted, names, package, general))
    target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / "segments.csv", buffer.getvalue().encode())
    return sum(map(len, labels.values()))


def _mapping_row(
    accepted: str, names: Sequence[str], package: Mapping[str, dict[str, str]], general: SegmentCode
) -> dict[str, str]:
    """The row of segments.csv for an accepted name: the package's own if it has one, else one by its code.

    Targets get none of the package's rows, which state the lung as their region.
    """
    known = package.get(segment_of(accepted))
    if known is not None:
        labels = [*filter(None, known["labels"].split("|")), accepted, *names]
        return {**known, "labels": "|".join(dict.fromkeys(_label(one) for one in labels))}
    code = standard_code(accepted) or general
    row = {"name": accepted, "labels": "|".join(dict.fromkeys(map(_label, names)))}
    row |= _columns_of(code, "category", "type", "laterality", "region", "region_modifier", "finding")
    return row | {"colour": "#{:02X}{:02X}{:02X}".format(*code.colour)}


def _columns_of(code: SegmentCode, *parts: str) -> dict[str, str]:
    """Columns of segments.csv for some of the codes of a segment."""
    found: dict[str, str] = {}
    for part in parts:
        own: Code | None = getattr(code, part)
        values = (own.scheme, own.value, own.meaning) if own is not None else ("", "", "")
        found |= {f"{part}_{key}": value for key, value in zip(("scheme", "code", "meaning"), values, strict=True)}
    return found


def _label(name: str) -> str:
    return name.replace("|", " ")

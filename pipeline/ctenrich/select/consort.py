"""The flow of exclusions (CONSORT): how many patients, studies and series came in, left for what, and remain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason, current_code
from ctenrich.select.files import read_cohort, read_excluded

__all__ = ["Consort", "Exclusion", "Stage", "consort_of", "consort_svg", "consort_text", "load_consort"]

LEVELS = ("patients", "studies", "series")


@dataclass(frozen=True)
class Exclusion:
    """What was left out for one reason, by level."""

    label: str
    counts: dict[str, int]
    note: str = ""


@dataclass(frozen=True)
class Stage:
    """A box of the diagram: how many there are, and what is left out on the way to the next box."""

    label: str
    counts: dict[str, int]
    exclusions: tuple[Exclusion, ...] = ()


@dataclass(frozen=True)
class Consort:
    """A diagram: its levels (patients, studies, series, or what is counted) and boxes from first to last."""

    levels: tuple[str, ...]
    stages: tuple[Stage, ...]

    def unaccounted(self) -> tuple[tuple[str, str, int], ...]:
        """(box, level, number) that left a box without a reason; a negative number came from nowhere."""
        missing = []
        for here, after in zip(self.stages, self.stages[1:], strict=False):
            for level in self.levels:
                gone = sum(exclusion.counts.get(level, 0) for exclusion in here.exclusions)
                rest = here.counts.get(level, 0) - gone - after.counts.get(level, 0)
                if rest:
                    missing.append((here.label, level, rest))
        return tuple(missing)

    @property
    def balanced(self) -> bool:
        """Whether everything is accounted for."""
        return not self.unaccounted()


def consort_of(cohort_file: Path) -> Consort:
    """The diagram of a cohort file, from it and from the excluded series beside it.

    Series leave in the order of the rules, each for the first rule that it fails. A study or patient leaves with the
    last of its series: it is counted where that series is.
    """
    kept = [(s.patient_id, s.study_instance_uid) for s in read_cohort(cohort_file).series]
    rows = [row | {"reason": current_code(row["reason"])} for row in read_excluded(cohort_file).to_pylist()]
    order = {reason.value: place for place, reason in enumerate(Reason)}
    last: dict[tuple[str, str], int] = {}
    for row in rows:
        place = order[row["reason"]]
        for key in (("patients", row["patient_id"]), ("studies", row["study_instance_uid"])):
            last[key] = max(last.get(key, -1), place)
    for patient, study in kept:
        last.pop(("patients", patient), None)
        last.pop(("studies", study), None)
    exclusions = []
    for code in sorted({row["reason"] for row in rows}, key=order.__getitem__):
        counts = {level: sum(k[0] == level and at == order[code] for k, at in last.items()) for level in LEVELS[:2]}
        counts["series"] = sum(row["reason"] == code for row in rows)
        exclusions.append(Exclusion(code, counts, Reason(code).sentence))
    all_keys = kept + [(row["patient_id"], row["study_instance_uid"]) for row in rows]
    start = Stage("Start set", _count(all_keys), tuple(exclusions))
    return Consort(LEVELS, (start, Stage("Selected", _count(kept))))


def _count(keys: Sequence[tuple[str, str]]) -> dict[str, int]:
    return {"patients": len({p for p, _ in keys}), "studies": len({s for _, s in keys}), "series": len(keys)}


def load_consort(path: Path) -> Consort:
    """Read a diagram's numbers from a JSON file.

    ``{"levels": ["patients"], "stages": [{"label": "Eligible", "counts": {"patients": 100}, "exclusions": [{"label":
    "No scan", "counts": {"patients": 10}}]}, {"label": "Analysed", "counts": {"patients": 90}}]}``

    Raises
    ------
    UsageError
        NOT_FOUND or BAD_COHORT.
    """
    if not path.is_file():
        raise UsageError(Reason.NOT_FOUND, f"there is no file {path.name}")
    try:
        return _from_json(json.loads(path.read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} does not hold the numbers of a diagram") from error


def _from_json(data: Mapping[str, Any]) -> Consort:
    def counts(item: Mapping[str, Any]) -> dict[str, int]:
        return {str(level): int(item["counts"][level]) for level in data["levels"]}

    stages = tuple(
        Stage(
            str(stage["label"]),
            counts(stage),
            tuple(Exclusion(str(e["label"]), counts(e), str(e.get("note", ""))) for e in stage.get("exclusions", ())),
        )
        for stage in data["stages"]
    )
    return Consort(tuple(map(str, data["levels"])), stages)


def _numbers(counts: Mapping[str, int], levels: Sequence[str]) -> str:
    return ", ".join(f"{counts.get(level, 0):,} {level}" for level in levels)


def consort_text(consort: Consort) -> str:
    """The diagram as text, with what is unaccounted for in so many words."""
    lines: list[str] = []
    for number, stage in enumerate(consort.stages):
        lines.append(f"{stage.label}: {_numbers(stage.counts, consort.levels)}")
        for exclusion in stage.exclusions:
            note = f" - {exclusion.note}" if exclusion.note else ""
            lines.append(f"  |-- {exclusion.label}: {_numbers(exclusion.counts, consort.levels)}{note}")
        lines += [f"  |-- UNACCOUNTED FOR: {text}" for text in _missing(consort, stage.label)]
        if number + 1 < len(consort.stages):
            lines.append("  v")
    total = consort.unaccounted()
    lines.append("The books balance." if not total else "The books do not balance: " + _verdict(total))
    return "\n".join(lines) + "\n"


def _missing(consort: Consort, label: str) -> list[str]:
    return [f"{rest:,} {level}" for box, level, rest in consort.unaccounted() if box == label]


def _verdict(total: Sequence[tuple[str, str, int]]) -> str:
    return "; ".join(f"{rest:,} {level} unaccounted for after {box!r}" for box, level, rest in total) + "."


_SVG_TEXT = '<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}">{text}</text>'
_LINE = 20
_LEFT, _RIGHT, _WIDTH = 300, 360, 760


def consort_svg(consort: Consort) -> str:
    """The diagram as an SVG picture (no script, no font or picture from elsewhere)."""
    parts: list[str] = []
    y = 10
    for number, stage in enumerate(consort.stages):
        y = _draw_box(parts, 10, y, _LEFT, [stage.label, *_lines(stage.counts, consort.levels)], "#dbeafe")
        last = number + 1 == len(consort.stages)
        top = y
        for exclusion in stage.exclusions:
            text = [exclusion.label, _numbers(exclusion.counts, consort.levels)]
            y = _side_box(parts, y, text, "#fef3c7")
        for missing in _missing(consort, stage.label):
            y = _side_box(parts, y, ["UNACCOUNTED FOR", missing], "#fecaca")
        if not last:
            parts.append(_line(160, top, 160, y + 24, arrow=True))
            y += 24
    total = consort.unaccounted()
    end = "The books balance." if not total else "The books do not balance: " + _verdict(total)
    parts.append(_SVG_TEXT.format(x=10, y=y + 28, size=13, weight="bold", fill="#111827", text=escape(end)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 44}" width="{_WIDTH}" role="img" '
        f'font-family="sans-serif"><title>Flow of exclusions</title><defs><marker id="arrow" markerWidth="8" '
        f'markerHeight="8" refX="6" refY="4" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#374151"/></marker></defs>'
        + "".join(parts)
        + "</svg>\n"
    )


def _lines(counts: Mapping[str, int], levels: Sequence[str]) -> list[str]:
    return [f"{counts.get(level, 0):,} {level}" for level in levels]


def _side_box(parts: list[str], y: int, text: list[str], fill: str) -> int:
    end = _draw_box(parts, _RIGHT, y + 10, _WIDTH - _RIGHT - 10, text, fill)
    middle = (y + 10 + end) // 2
    parts.append(_line(160, middle, _RIGHT, middle, arrow=True))
    return end


def _draw_box(parts: list[str], x: int, y: int, width: int, text: list[str], fill: str) -> int:
    height = 14 + _LINE * len(text)
    parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{fill}" stroke="#374151"/>')
    for row, line in enumerate(text):
        weight = "bold" if row == 0 else "normal"
        at = y + _LINE * (row + 1)
        parts.append(_SVG_TEXT.format(x=x + 10, y=at, size=13, weight=weight, fill="#111827", text=escape(line)))
    return y + height


def _line(x1: int, y1: int, x2: int, y2: int, *, arrow: bool) -> str:
    end = ' marker-end="url(#arrow)"' if arrow else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#374151"{end}/>'

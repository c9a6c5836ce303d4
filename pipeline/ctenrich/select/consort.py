"""CONSORT flow diagrams: how many patients, studies and series enter, are excluded for which reason, and remain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason, current_code
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.files import read_excluded
from ctenrich.workspace import require_file

__all__ = [
    "Consort",
    "Exclusion",
    "FlowStage",
    "Imbalance",
    "consort_of",
    "consort_svg",
    "consort_text",
    "load_consort",
    "parse_consort",
]

LEVELS = ("patients", "studies", "series")


@dataclass(frozen=True)
class Exclusion:
    """What is excluded for one reason, counted at each level."""

    label: str
    counts: dict[str, int]
    note: str = ""


@dataclass(frozen=True)
class FlowStage:
    """A box of the diagram: how many there are, and what is excluded before the next box."""

    label: str
    counts: dict[str, int]
    exclusions: tuple[Exclusion, ...] = ()


class Imbalance(NamedTuple):
    """What one stage lost without a reason."""

    stage: str
    level: str
    number: int
    """Negative if the next stage has more than was left."""


@dataclass(frozen=True)
class Consort:
    """A diagram: its levels (patients, studies, series, or whatever is counted) and its stages from first to last."""

    levels: tuple[str, ...]
    stages: tuple[FlowStage, ...]

    def unaccounted(self) -> tuple[Imbalance, ...]:
        """Return what left a stage without a reason."""
        missing = []
        for here, following in pairwise(self.stages):
            for level in self.levels:
                excluded = sum(exclusion.counts.get(level, 0) for exclusion in here.exclusions)
                rest = here.counts.get(level, 0) - excluded - following.counts.get(level, 0)
                if rest:
                    missing.append(Imbalance(here.label, level, rest))
        return tuple(missing)

    @property
    def balanced(self) -> bool:
        """Whether everything is accounted for."""
        return not self.unaccounted()


def consort_of(cohort_file: Path) -> Consort:
    """Count the diagram of a cohort file, from the file and from the excluded series beside it.

    Each series is excluded by the first rule that it fails, in the order of the rules. A study or patient is excluded
    together with the last of its series and is counted under that series' reason.
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
    start = FlowStage("Start set", _count(all_keys), tuple(exclusions))
    return Consort(LEVELS, (start, FlowStage("Selected", _count(kept))))


def _count(keys: Sequence[tuple[str, str]]) -> dict[str, int]:
    return {"patients": len({p for p, _ in keys}), "studies": len({s for _, s in keys}), "series": len(keys)}


def load_consort(path: Path) -> Consort:
    """Read the counts of a diagram from a JSON file.

    ``{"levels": ["patients"], "stages": [{"label": "Eligible", "counts": {"patients": 100}, "exclusions": [{"label":
    "No scan", "counts": {"patients": 10}}]}, {"label": "Analysed", "counts": {"patients": 90}}]}``

    Raises
    ------
    UsageError
        NOT_FOUND or BAD_COHORT.
    """
    require_file(path)
    try:
        return parse_consort(json.loads(path.read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} does not hold the counts of a flow diagram") from error


def parse_consort(data: Mapping[str, Any]) -> Consort:
    """Return the diagram of counts, as :func:`load_consort` reads them from a JSON file."""

    def counts(item: Mapping[str, Any]) -> dict[str, int]:
        return {str(level): int(item["counts"][level]) for level in data["levels"]}

    stages = tuple(
        FlowStage(
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
    """Return the diagram as text; whatever is unaccounted for is listed."""
    lines: list[str] = []
    for number, stage in enumerate(consort.stages):
        lines.append(f"{stage.label}: {_numbers(stage.counts, consort.levels)}")
        for exclusion in stage.exclusions:
            note = f" - {exclusion.note}" if exclusion.note else ""
            lines.append(f"  |-- {exclusion.label}: {_numbers(exclusion.counts, consort.levels)}{note}")
        lines += [f"  |-- UNACCOUNTED FOR: {text}" for text in _missing_from(consort, stage.label)]
        if number + 1 < len(consort.stages):
            lines.append("  v")
    lines.append(_balance_sentence(consort))
    return "\n".join(lines) + "\n"


def _missing_from(consort: Consort, label: str) -> list[str]:
    return [f"{one.number:,} {one.level}" for one in consort.unaccounted() if one.stage == label]


def _balance_sentence(consort: Consort) -> str:
    missing = [f"{one.number:,} {one.level} unaccounted for after {one.stage!r}" for one in consort.unaccounted()]
    return f"The numbers do not add up: {'; '.join(missing)}." if missing else "The numbers add up."


# ---------------------------------------------------------------- drawing

_LINE_HEIGHT = 20
_WIDTH = 744
_BOX = (8, 300)
_SIDE_BOX = (356, 380)
_ARROW_X = 158
_SIDE_LETTERS = 52
"""Letters that fit into one line of a side box."""
_MARKER = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" class="tip"/></marker></defs>'
)
_STYLE = (
    "<style>text{fill:#111827;font:13px sans-serif}.head{font-weight:bold}.arrow{stroke:#374151;fill:none;"
    "marker-end:url(#tip)}.tip{fill:#374151}rect{stroke:#374151}.box{fill:#dbeafe}.left{fill:#fef3c7}"
    ".missing{fill:#fecaca}</style>"
)


def consort_svg(consort: Consort, *, standalone: bool = True) -> str:
    """Draw the diagram as SVG, without scripts, fonts or pictures from elsewhere.

    Parameters
    ----------
    consort : Consort
        The diagram.
    standalone : bool
        Whether the picture brings its colours; a page that embeds it styles its classes ``box``, ``left``,
        ``missing``, ``head``, ``arrow`` and ``tip``.

    Returns
    -------
    str
        One ``svg`` element of the class ``flow``, with the diagram in words as its label.
    """
    parts: list[str] = []
    top = 8
    for number, stage in enumerate(consort.stages):
        top = _draw_box(parts, _BOX, top, [stage.label, *_level_lines(stage.counts, consort.levels)], "box")
        start = top
        sides = [("left", [line for one in stage.exclusions for line in _exclusion_lines(one, consort.levels)])]
        sides.append(("missing", [f"Unaccounted for: {text}" for text in _missing_from(consort, stage.label)]))
        for kind, lines in sides:
            if lines:
                bottom = _draw_box(parts, _SIDE_BOX, top + 10, lines, kind, heading=False)
                parts.append(f'<path class="arrow" d="M{_ARROW_X} {(top + 10 + bottom) / 2} H{_SIDE_BOX[0] - 4}"/>')
                top = bottom
        if number + 1 < len(consort.stages):
            parts.append(f'<path class="arrow" d="M{_ARROW_X} {start} V{top + 20}"/>')
            top += 24
    verdict = "The numbers add up." if consort.balanced else "The numbers do not add up."
    parts.append(_text(_BOX[0], top + 28, verdict))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flow" role="img" aria-label="{escape(_in_words(consort))}" '
        f'viewBox="0 0 {_WIDTH} {top + 40}">{_STYLE if standalone else ""}{_MARKER}{"".join(parts)}</svg>\n'
    )


def _level_lines(counts: Mapping[str, int], levels: Sequence[str]) -> list[str]:
    return [f"{counts.get(level, 0):,} {level}" for level in levels]


def _exclusion_lines(exclusion: Exclusion, levels: Sequence[str]) -> list[str]:
    label, numbers = exclusion.label.replace("_", " "), _numbers(exclusion.counts, levels)
    line = f"{numbers}: {label}"
    return [line] if len(line) <= _SIDE_LETTERS else [label, numbers]


def _in_words(consort: Consort) -> str:
    sentences = []
    for stage in consort.stages:
        sentences.append(f"{stage.label}: {_numbers(stage.counts, consort.levels)}.")
        sentences += [
            f"Excluded: {_numbers(one.counts, consort.levels)}, {one.label.replace('_', ' ')}."
            for one in stage.exclusions
        ]
    return " ".join([*sentences, _balance_sentence(consort)])


def _draw_box(
    parts: list[str], place: tuple[int, int], top: int, lines: Sequence[str], kind: str, *, heading: bool = True
) -> int:
    """Add a box with its lines of text, and return its lower edge; `place` is its left edge and width."""
    left, width = place
    height = 14 + _LINE_HEIGHT * len(lines)
    parts.append(f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>')
    for row, line in enumerate(lines):
        parts.append(_text(left + 12, top + _LINE_HEIGHT * (row + 1), line, heading=heading and row == 0))
    return top + height


def _text(x: int, y: int, text: str, *, heading: bool = False) -> str:
    kind = ' class="head"' if heading else ""
    return f'<text{kind} x="{x}" y="{y}">{escape(text)}</text>'

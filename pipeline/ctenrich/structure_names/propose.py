"""Propose standard names for the name of an ROI: synonyms in several languages, then edit distance, then geometry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from ctenrich.structure_names.evidence import OrganEvidence
from ctenrich.structure_names.parse import ParsedName, fold, parse_name
from ctenrich.structure_names.standard import (
    RELATIVE,
    Side,
    bases_by_synonym,
    find_standard,
    name_of_side,
    relative_base,
    standard_names,
)

__all__ = ["Candidate", "Proposal", "propose_name"]

_CLOSE = 0.72
"""Least similarity of a synonym to a name."""
_SURE = 0.5
"""Least Dice of an ROI and an organ that names it by geometry."""
_CLEAR = 0.8
"""Least Dice of an ROI and an organ that contradicts the ROI's name."""
_INSIDE = 0.95
"""Least share of an ROI inside an organ that contradicts the name of another organ."""
_AIRWAYS = ("Trachea", "Bronch", "Carina")
"""Organs that masks of the lungs may contain."""
_MOST = 3
_RELATIVE = "relative to the treated side"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A standard name for an ROI."""

    name: str
    """With the qualifier of the ROI, if it has one: ``Heart^old``, ``SpinalCord_PRV05``."""
    standard: str
    """The name of TG-263."""
    score: float
    """0 to 1."""
    why: str
    """synonym, spelling or geometry, with what it was compared with."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The candidates for one name."""

    name: str
    """As the structure set has it."""
    parsed: ParsedName
    candidates: tuple[Candidate, ...]
    """Best first, three at most."""
    warnings: tuple[str, ...] = ()
    """Contradictions, e.g. the name states left and the ROI is on the right."""


def propose_name(name: str, evidence: OrganEvidence | None = None) -> Proposal:
    """Propose standard names for an ROI.

    Parameters
    ----------
    name : str
        Name of the ROI.
    evidence : OrganEvidence, optional
        Where the ROI is and which organs it overlaps.

    Returns
    -------
    Proposal
        No candidate has a side that the name does not state, unless geometry shows it; one that contradicts geometry
        is marked in the warnings.
    """
    parsed = parse_name(name)
    exact = find_standard(name.strip().strip("*!"))
    if exact is not None:
        candidates = [Candidate(name=exact.name, standard=exact.name, score=1.0, why="it is a name of TG-263")]
    elif parsed.target:
        target = _target_name(name, parsed.target)
        candidates = [Candidate(name=target, standard=parsed.target, score=0.9, why=f"target {parsed.target}")]
    elif parsed.relative and not parsed.side:
        candidates = _relative_names(parsed)
    else:
        candidates = _on_one_side(name) or _by_spelling(parsed)
    warnings = ["the name states left and right"] if parsed.contradicts else []
    if evidence is not None:
        warnings += _side_warnings(parsed, candidates, evidence) + _organ_warnings(parsed, candidates, evidence)
        if candidates and candidates[0].why == _RELATIVE:
            candidates += _seen_sides(candidates, evidence)
        elif not parsed.target:
            candidates = _with_geometry(parsed, candidates, evidence)
    return Proposal(name=name, parsed=parsed, candidates=tuple(candidates[:_MOST]), warnings=tuple(warnings))


def _target_name(name: str, kind: str) -> str:
    """Name of a target as TG-263 writes it, from type, classifier, number and dose of a name: ``PTV-1`` is ``PTV1``."""
    rest = re.match(rf"(?i).*?{kind}[ _-]?([npsv](?![a-z]))?[ _-]*(\d{{1,2}}(?!\d))?[ _-]*(\d{{3,5}}(?!\d))?", name)
    if rest is None:
        return kind
    return kind + (rest[1] or "").lower() + (rest[2] or "") + (f"_{rest[3]}" if rest[3] else "")


# ---------------------------------------------------------------- spelling


def _on_one_side(name: str) -> list[Candidate]:
    """Structures of one side alone, whose synonym states it as a whole: ``RUL`` and ``right upper lobe``."""
    text = fold(name)
    found = [standard_names()[base] for base in sorted(bases_by_synonym().get(text, ())) if base in standard_names()]
    return [
        Candidate(name=one.name, standard=one.name, score=1.0, why=f"synonym {text}")
        for one in found
        if one.side in {Side.LEFT, Side.RIGHT}
    ]


def _by_spelling(parsed: ParsedName) -> list[Candidate]:
    core = fold(parsed.core)
    if not core or core.isdigit():
        return []
    scored = [
        (score, base, text) for text, score in _similar(core, parsed.core) for base in sorted(bases_by_synonym()[text])
    ]
    best: dict[str, Candidate] = {}
    for score, base, text in sorted(scored, key=lambda one: (-one[0], one[1], one[2])):
        standard = _sided(base, parsed)
        if standard is None or standard in best:
            continue
        why = f"synonym {text}" if score >= 1 else f"spelling like {text}"
        name = _qualified(standard, parsed)
        best[standard] = Candidate(name=name, standard=standard, score=round(score, 3), why=why)
    return sorted(best.values(), key=lambda one: -one.score)


def _relative_names(parsed: ParsedName) -> list[Candidate]:
    """Names of pairs of organs relative to the treated side, which differs from patient to patient."""
    out: dict[str, Candidate] = {}
    for one in _by_spelling(replace(parsed, side=Side.LEFT.value)):
        base = standard_names()[one.standard].base
        name = f"{base}^{RELATIVE[parsed.relative]}"
        if relative_base(name) is not None:
            name += _qualified("", replace(parsed, margin=None))
            out.setdefault(name, replace(one, name=name, standard=one.standard, why=_RELATIVE))
    return list(out.values()) if parsed.margin is None and not parsed.subtracts else []


def _seen_sides(candidates: list[Candidate], evidence: OrganEvidence) -> list[Candidate]:
    """The names of the side on which an ROI with a relative name is."""
    sided = [
        name_of_side(standard_names()[one.standard].base, Side(evidence.side)) for one in candidates if evidence.side
    ]
    return [
        Candidate(name=found.name, standard=found.name, score=0.9, why="side by geometry")
        for found in sided
        if found is not None
    ]


def _sided(base: str, parsed: ParsedName) -> str | None:
    """Standard name of a base on the side that the name states."""
    found = name_of_side(base, Side(parsed.side))
    if found is None and parsed.side == Side.BOTH:
        found = name_of_side(base, Side.NONE)
    if found is None and parsed.side and _unsided(base):
        return None  # heart left is no heart
    return found.name if found is not None else None


def _unsided(base: str) -> bool:
    return name_of_side(base, Side.LEFT) is None


def _qualified(standard: str, parsed: ParsedName) -> str:
    """The standard name with margin, subtracted target and qualifiers, as TG-263 writes them."""
    name = standard
    if parsed.subtracts:
        name += f"-{parsed.subtracts}"
    if parsed.margin is not None:
        base, _, side = name.rpartition("_")
        margin = f"_PRV{parsed.margin:02d}" if parsed.margin else "_PRV"
        name = f"{base}{margin}_{side}" if side in {"L", "R"} else name + margin
    return name + "".join(f"^{one}" for one in parsed.qualifiers)


@lru_cache(maxsize=8192)
def _similar(core: str, words: str) -> tuple[tuple[str, float], ...]:
    """Synonyms that a folded text is like, with their similarity; 1 for an equal one."""
    known = bases_by_synonym()
    turned = fold(" ".join(reversed(words.split())))
    if core in known or turned in known:
        return tuple((text, 1.0) for text in dict.fromkeys((core, turned)) if text in known)
    found = []
    for text in known:
        score = max(similarity(core, text), similarity(turned, text) if turned != core else 0.0)
        if score >= _CLOSE:
            found.append((text, score))
    return tuple(sorted(found, key=lambda one: -one[1])[:20])


def similarity(a: str, b: str) -> float:
    """Return 1 minus the edit distance (Levenshtein, neighbours swapped count once) over the longer length.

    Parameters
    ----------
    a, b : str
        Folded texts. Texts that are too short to tell apart by one letter are compared exactly.
    """
    longer = max(len(a), len(b))
    if min(len(a), len(b)) < 4:
        return float(a == b)
    if abs(len(a) - len(b)) > (1 - _CLOSE) * longer:
        return 0.0
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        earlier, before, row = before, row, [i]
        for j, y in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return 1 - row[-1] / longer


# ---------------------------------------------------------------- geometry


def _side_warnings(parsed: ParsedName, candidates: Iterable[Candidate], evidence: OrganEvidence) -> list[str]:
    if parsed.relative and not parsed.side:
        return _relative_warnings(parsed, evidence)
    stated = parsed.side
    known = standard_names()
    for one in candidates:
        stated = stated or known[one.standard].side.value
        break
    if stated in {"L", "R"} and evidence.side in {"L", "R"} and stated != evidence.side:
        words = {"L": "left", "R": "right"}
        return [f"the name states {words[stated]}, the ROI is on the {words[evidence.side]}"]
    return []


def _organ_warnings(parsed: ParsedName, candidates: list[Candidate], evidence: OrganEvidence) -> list[str]:
    """A name that is that of one organ, of an ROI that is clearly another one or lies inside another one."""
    if not candidates or candidates[0].score < 1 or not parsed.is_plain:
        return []
    stated = standard_names()[candidates[0].standard]
    if stated.kind != "anatomy":
        return []
    for segment, dice in evidence.organs[:1]:
        seen = standard_names().get(_by_segment().get(segment, ""))
        if dice >= _CLEAR and seen is not None and seen.base != stated.base:
            return [f"the name states {stated.name}, the ROI is {seen.name} (Dice {dice:.2f} with {segment})"]
    for segment, share in evidence.contained[:1]:
        around = standard_names().get(_by_segment().get(segment, ""))
        separate = stated.segment and not stated.base.startswith(_AIRWAYS)
        if share >= _INSIDE and separate and around is not None and around.base != stated.base:
            return [f"the name states {stated.name}, {share:.0%} of the ROI is inside {segment}"]
    return []


def _relative_warnings(parsed: ParsedName, evidence: OrganEvidence) -> list[str]:
    if not evidence.treated or not evidence.side:
        return []
    if (evidence.side == evidence.treated) == (parsed.relative == "ipsilateral"):
        return []
    words = {"L": "left", "R": "right"}
    where = f"the ROI is on the {words[evidence.side]} and the treated side is {words[evidence.treated]}"
    return [f"the name states {parsed.relative}, {where}"]


def _with_geometry(parsed: ParsedName, candidates: list[Candidate], evidence: OrganEvidence) -> list[Candidate]:
    """Candidates by geometry before those by spelling; a side that geometry refutes is replaced by the right one."""
    known = standard_names()
    by_segment = _by_segment()
    found = [
        Candidate(
            name=_qualified(by_segment[segment], parsed),
            standard=by_segment[segment],
            score=round(dice, 3),
            why=f"geometry: Dice {dice:.2f} with {segment}",
        )
        for segment, dice in evidence.organs
        if dice >= _SURE and segment in by_segment
    ]
    kept = []
    for one in candidates:
        standard = known[one.standard]
        if evidence.side in {"L", "R"} and standard.side in {Side.LEFT, Side.RIGHT} and standard.side != evidence.side:
            other = name_of_side(standard.base, Side(evidence.side))
            if other is not None:
                why = f"{one.why}; side by geometry"
                kept.append(
                    Candidate(name=_qualified(other.name, parsed), standard=other.name, score=one.score, why=why)
                )
            continue
        if not parsed.side and evidence.side in {"L", "R"} and standard.side is not Side.LEFT:
            own = name_of_side(standard.base, Side(evidence.side))
            if own is not None and one.why != "it is a name of TG-263":
                why = f"{one.why}; side by geometry"
                kept.append(Candidate(name=_qualified(own.name, parsed), standard=own.name, score=one.score, why=why))
        kept.append(one)
    agreed = {one.standard for one in found} & {one.standard for one in kept}
    merged = [one for one in found if one.standard in agreed] + [one for one in found if one.standard not in agreed]
    return list({one.standard: one for one in reversed([*merged, *kept])}.values())[::-1]


@lru_cache(maxsize=1)
def _by_segment() -> Mapping[str, str]:
    return {one.segment: one.name for one in standard_names().values() if one.segment and one.kind == "anatomy"}

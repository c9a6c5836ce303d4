"""Checks of the doses of a treatment and of a cohort: maxima, targets, coverage, courses, sides, outliers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctenrich.dose.plan import PlanFacts
from ctenrich.dose.structures import StructureDose
from ctenrich.records import DoseCheck, SegmentMasks
from ctenrich.treatments.records import Treatment

__all__ = ["StructureValues", "check_cohort", "check_contours", "check_course", "check_treatment"]

_HOTTEST, _LEAST = 120.0, 100.0
"""Percent of the prescription that the maximum of a dose should have at most and at least."""
_TARGET_LOW, _TARGET_HIGH = 95.0, 107.0
"""Percent of the prescription for the median of a target (ICRU 83 and 50)."""
_CURATIVE = 40.0
"""Gy below which a course of curative intent is probably not complete."""
_SIDED = 1.2
"""Ratio of the mean doses of a left and a right organ from which a dose has a side."""
_FEWEST = 10
"""Series with a value, below which no outliers are looked for."""
_FAR = 5.0
"""Robust standard deviations (from the median absolute deviation) of an outlier."""
_TARGET = re.compile(r"(gtv|ctv|ptv|itv|tumou?r|target)", re.IGNORECASE)
_PARTLY_DRAWN = frozenset(
    {
        "contours.off_slice",
        "contours.tilted",
        "contours.beyond_image",
        "contours.missing_slices",
        "contours.unreadable",
        "contours.other_series",
    }
)
"""Issues of contours that leave a part of a structure out."""
_SIDE_WORDS = {
    "left": re.compile(r"(?<![a-z])(left|links|li|sin|lt|l)(?![a-z])", re.IGNORECASE),
    "right": re.compile(r"(?<![a-z])(right|rechts|re|dex|rt|r)(?![a-z])", re.IGNORECASE),
}


@dataclass(frozen=True, kw_only=True)
class StructureValues:
    """The values of a structure that the checks use."""

    product: str
    name: str
    coverage: float
    mean: float | None
    median: float | None

    @classmethod
    def of(cls, found: StructureDose, product: str) -> StructureValues:
        """Take them from the metrics of a structure.

        Parameters
        ----------
        found : StructureDose
        product : str
            Product that it belongs to.
        """
        values = {one.metric.name: one.value for one in found.values}
        return cls(
            product=product,
            name=found.name,
            coverage=found.coverage,
            mean=values.get("Mean[Gy]"),
            median=values.get("D50%[Gy]"),
        )


def check_treatment(
    maximum: float, prescription: float | None, structures: Sequence[StructureValues], plans: Sequence[PlanFacts] = ()
) -> list[DoseCheck]:
    """Check the dose of one treatment.

    Parameters
    ----------
    maximum : float
        Largest dose of the grid, Gy.
    prescription : float or None
        Gy; None where it is not known: the checks that need it are left out, with a note.
    structures : sequence of StructureValues
        Of all products.
    plans : sequence of PlanFacts
        Intent and label are used.

    Returns
    -------
    list of DoseCheck
    """
    out = list(_prescribed(maximum, prescription, structures))
    for one in structures:
        if one.coverage < 1:
            text = f"the dose grid covers {100 * one.coverage:.1f} % of {one.name}"
            out.append(_finding("dose.coverage", text, one, one.coverage, 1.0))
    dose = prescription if prescription is not None else maximum
    for plan in plans:
        if plan.intent == "CURATIVE" and dose < _CURATIVE:
            text = f"the plan's intent is curative, and the dose is {dose:.1f} Gy: the course may be incomplete"
            out.append(DoseCheck(rule="dose.course", severity="warning", sentence=text, value=dose, limit=_CURATIVE))
    out += _sides(structures, plans)
    return out


def check_contours(masks: SegmentMasks) -> list[DoseCheck]:
    """State which segments were drawn from a part of their contours: their doses are those of that part.

    Parameters
    ----------
    masks : SegmentMasks
        With the issues of its contours.

    Returns
    -------
    list of DoseCheck
        With the severity of the issue.
    """
    names = {segment.name for segment in masks.segments if not segment.absent}
    return [
        DoseCheck(
            rule="dose.contours",
            severity=issue.severity.value,
            sentence=f"{issue.object}: {issue.message}: its doses are those of what was drawn",
            organ=issue.object,
            product=str(masks.product),
        )
        for issue in masks.issues
        if issue.rule in _PARTLY_DRAWN and issue.object in names
    ]


def check_course(treatment: Treatment) -> list[DoseCheck]:
    """Check that the planned fractions were delivered, as far as a table or records state them.

    The RT Dose of a plan is that of its planned fractions, unless the plan was changed to those that were delivered.

    Parameters
    ----------
    treatment : Treatment

    Returns
    -------
    list of DoseCheck
    """
    plan = treatment.dominant_plan
    delivered, planned = (plan.fractions_delivered, plan.fractions_planned) if plan is not None else (None, None)
    if not delivered or not planned or delivered == planned:
        return []
    text = f"{delivered} fractions were delivered and {planned} planned"
    if treatment.scale is None:
        text += ": the dose is that of the planned ones"
    else:
        text += f": the dose times {treatment.scale} is right only if the RT Dose is that of the delivered ones"
    return [DoseCheck(rule="dose.course", severity="warning", sentence=text, value=delivered, limit=planned)]


def _prescribed(
    maximum: float, prescription: float | None, structures: Sequence[StructureValues]
) -> Iterator[DoseCheck]:
    if prescription is None:
        text = "no prescribed dose is known: no relative values, and no checks that need them"
        yield DoseCheck(rule="dose.prescription", severity="note", sentence=text)
        return
    share = 100 * maximum / prescription
    if share > _HOTTEST or share < _LEAST:
        limit = _HOTTEST if share > _HOTTEST else _LEAST
        word = "above" if share > _HOTTEST else "below"
        text = f"the maximum is {share:.1f} % of the prescribed {prescription:g} Gy, {word} {limit:g} %"
        yield DoseCheck(rule="dose.maximum", severity="warning", sentence=text, value=share, limit=limit)
    for one in structures:
        if one.median is None or not _TARGET.search(one.name):
            continue
        median = 100 * one.median / prescription
        if not _TARGET_LOW <= median <= _TARGET_HIGH:
            limit = _TARGET_LOW if median < _TARGET_LOW else _TARGET_HIGH
            text = f"the median of {one.name} is {median:.1f} % of the prescribed {prescription:g} Gy"
            yield _finding("dose.target_median", text, one, median, limit)


def _finding(rule: str, text: str, one: StructureValues, value: float, limit: float) -> DoseCheck:
    return DoseCheck(
        rule=rule, severity="warning", sentence=text, product=one.product, organ=one.name, value=value, limit=limit
    )


def _sides(structures: Sequence[StructureValues], plans: Sequence[PlanFacts]) -> Iterator[DoseCheck]:
    """Side of the dose, by the means of a pair of organs, against the side in the plan's label and targets' names."""
    labels = " ".join(plan.label for plan in plans)
    targets = " ".join(sorted({one.name for one in structures if _TARGET.search(one.name)}))
    stated = [(text, _named_sides(names)) for text, names in (("the plan's label", labels), ("the target", targets))]
    means = {(one.product, one.name): one.mean for one in structures if one.mean}
    for (product, name), left in means.items():
        right = means.get((product, name.replace("left", "right"))) if "left" in name else None
        if left is None or right is None:
            continue
        ratio = left / right
        if 1 / _SIDED < ratio < _SIDED:
            continue
        side = "left" if ratio >= _SIDED else "right"
        for what, sides in stated:
            if len(sides) == 1 and sides[0] != side:
                text = f"by {name} and its counterpart the dose is on the {side}, and {what} states {sides[0]}"
                yield DoseCheck(
                    rule="dose.side", severity="warning", sentence=text, product=product, organ=name, value=ratio,
                    limit=1.0,
                )  # fmt: skip


def _named_sides(names: str) -> list[str]:
    return [side for side, words in _SIDE_WORDS.items() if words.search(names.replace("_", " "))]


def check_cohort(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, DoseCheck]]:
    """Find series whose mean dose of an organ is far from that of the other series.

    Parameters
    ----------
    metrics : sequence of mapping
        Rows of the metrics of all series, with SeriesInstanceUID, product, organ, metric and value.

    Returns
    -------
    list of (str, DoseCheck)
        Series Instance UID and finding, for organs of at least ten series.
    """
    groups: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for row in metrics:
        if row["metric"] == "Mean[Gy]" and row["value"] is not None:
            place = (row["product"], row["organ"])
            groups.setdefault(place, []).append((row["SeriesInstanceUID"], row["value"]))
    out = []
    for (product, organ), members in sorted(groups.items()):
        values = np.array([value for _, value in members])
        middle = float(np.median(values))
        deviation = 1.4826 * float(np.median(np.abs(values - middle)))
        if len(members) < _FEWEST or not deviation:
            continue
        for uid, value in members:
            distance = (value - middle) / deviation
            if abs(distance) > _FAR:
                others = f"the median of {len(members)} series is {middle:.2f} Gy"
                text = f"the mean dose of {organ} is {value:.2f} Gy; {others}"
                check = DoseCheck(
                    rule="dose.outlier", severity="warning", sentence=text, product=product, organ=organ,
                    value=value, limit=middle + float(np.copysign(_FAR * deviation, distance)),
                )  # fmt: skip
                out.append((uid, check))
    return out

"""Rules by which treatments are made: what they need, how plans are chosen, and named rules of inclusion (TOML)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.treatments.records import Plan, Treatment
from ctenrich.workspace import require_file

__all__ = ["InclusionRule", "TreatmentRules", "load_rules"]

_PARTS = ("structures", "plan", "dose")
_CHOICES = {
    "plans": ("dominant", "first", "last"),
    "structures": ("plan", "newest"),
    "treatments": ("patient", "images"),
}


@dataclass(frozen=True, kw_only=True)
class InclusionRule:
    """A named rule: a treatment that fails one of its conditions is excluded under its name."""

    name: str
    reason: str = ""
    """Sentence for those that fail; empty: the condition that failed."""
    plan_label: str = ""
    """Pattern that the dominant plan's label or name must match (a regular expression, the whole text, any case)."""
    plan_intent: tuple[str, ...] = ()
    plan_approval: tuple[str, ...] = ()
    fractions_min: int | None = None
    """Planned fractions of the dominant plan."""
    fractions_max: int | None = None
    delivered_min: int | None = None
    """Delivered fractions of the dominant plan."""
    prescription_min: float | None = None
    """Gy, of the dominant plan."""
    prescription_max: float | None = None
    structures: tuple[str, ...] = ()
    """Patterns of ROI names; each must match an ROI of a structure set that is used."""
    date_min: str = ""
    """Plan date as 2020-12-31; without a plan, that of the structure set."""
    date_max: str = ""
    site: tuple[str, ...] = ()

    def failure(self, treatment: Treatment) -> str:
        """Return the condition that a treatment fails; empty if it fails none.

        An attribute that is not stated fails every condition on it.
        """
        plan = treatment.dominant_plan
        failed = (
            _failed_choice(self, plan, treatment.site) or _failed_range(self, plan) or _failed_date(self, treatment)
        )
        if failed:
            return failed
        names = [roi.name for one in treatment.used_structure_sets for roi in one.rois]
        for pattern in self.structures:
            if not any(_matches(pattern, name) for name in names):
                return f"no ROI matches {pattern!r}"
        return ""


def _failed_choice(rule: InclusionRule, plan: Plan | None, site: str) -> str:
    label, name = (plan.label, plan.name) if plan else ("", "")
    if rule.plan_label and not (_matches(rule.plan_label, label) or _matches(rule.plan_label, name)):
        return f"the plan's label {label!r} does not match {rule.plan_label!r}"
    for title, stated, allowed in (
        ("plan intent", plan.intent if plan else "", rule.plan_intent),
        ("approval status", plan.approval if plan else "", rule.plan_approval),
        ("site", site, rule.site),
    ):
        if allowed and stated.casefold() not in {one.casefold() for one in allowed}:
            return f"the {title} is {stated or 'not stated'}"
    return ""


def _failed_range(rule: InclusionRule, plan: Plan | None) -> str:
    prescribed = plan.prescription.dose if plan and plan.prescription else None
    planned = plan.fractions_planned if plan else None
    delivered = plan.fractions_delivered if plan else None
    for title, value, low, high in (
        ("planned fractions", planned, rule.fractions_min, rule.fractions_max),
        ("delivered fractions", delivered, rule.delivered_min, None),
        ("prescribed dose in Gy", prescribed, rule.prescription_min, rule.prescription_max),
    ):
        if low is None and high is None:
            continue
        if value is None:
            return f"{title}: not stated"
        if (low is not None and value < low) or (high is not None and value > high):
            return f"{title}: {value:g}"
    return ""


def _failed_date(rule: InclusionRule, treatment: Treatment) -> str:
    plan = treatment.dominant_plan
    used = treatment.used_structure_sets
    date = (plan.stamp if plan else used[0].stamp if used else "")[:10]
    if (rule.date_min or rule.date_max) and not date:
        return "the date is not stated"
    if (rule.date_min and date < rule.date_min) or (rule.date_max and date > rule.date_max):
        return f"the date is {date}"
    return ""


@dataclass(frozen=True, kw_only=True)
class TreatmentRules:
    """How treatments are made."""

    require: tuple[str, ...] = _PARTS
    """Parts that a treatment needs besides its planning CT: structures, plan, dose."""
    treatments: str = "patient"
    """``patient``: one treatment per patient; ``images``: one per planning CT."""
    plans: str = "dominant"
    """``dominant``: most delivered, else most planned fractions, else first; ``first``, ``last``: by date."""
    boost: str = r".*(boost|\bbst\b|_bst).*"
    """Pattern of the labels of boost plans."""
    plan_labels: str = ""
    """Pattern of labels of the plans that are considered; empty: all."""
    excluded_labels: str = r".*(\bqa\b|verif|phantom).*"
    """Pattern of labels of plans that are left out."""
    structures: str = "plan"
    """``plan``: the structure set of the plan, else inconclusive; ``newest``: of several, the newest."""
    rules: tuple[InclusionRule, ...] = ()

    def is_boost(self, plan: Plan) -> bool:
        """Whether the label or name of a plan is that of a boost."""
        return _matches(self.boost, plan.label) or _matches(self.boost, plan.name)

    def considers(self, plan: Plan) -> str:
        """Return why a plan is not considered; empty if it is."""
        if plan.approval == "REJECTED":
            return "its Approval Status is REJECTED"
        if self.plan_labels and not (_matches(self.plan_labels, plan.label) or _matches(self.plan_labels, plan.name)):
            return f"its label {plan.label!r} does not match {self.plan_labels!r}"
        if self.excluded_labels and _matches(self.excluded_labels, plan.label):
            return f"its label {plan.label!r} matches {self.excluded_labels!r}"
        return ""

    @cached_property
    def requires(self) -> frozenset[str]:
        """`require` as a set."""
        return frozenset(self.require)


def _matches(pattern: str, text: str) -> bool:
    return bool(pattern) and re.fullmatch(pattern, text, re.IGNORECASE) is not None


def load_rules(path: Path) -> TreatmentRules:
    """Read rules from a TOML file: the fields of :class:`TreatmentRules`, and a table ``[[rule]]`` per inclusion rule.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_SETTINGS for anything that is not such a file.
    """
    require_file(path)
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name} is not a TOML file: {error}") from error
    tables = data.pop("rule", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: a rule is written as a table [[rule]]")
    rules = tuple(InclusionRule(**_values(InclusionRule, one, path)) for one in tables)
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: two rules have one name")
    found = TreatmentRules(**_values(TreatmentRules, data, path), rules=rules)
    for field_name, choices in _CHOICES.items():
        value = getattr(found, field_name)
        if value not in choices:
            raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: {field_name} is one of {', '.join(choices)}")
    unknown = found.requires - set(_PARTS)
    if unknown:
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: require knows {', '.join(_PARTS)}, not {min(unknown)!r}")
    return found


_PATTERNS = frozenset({"plan_label", "boost", "plan_labels", "excluded_labels"})


def _values(kind: type, data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    known = {one.name: str(one.type) for one in fields(kind) if one.name != "rules"}
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in known:
            hint = did_you_mean(name, known, f"known: {', '.join(known)}")
            raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: there is no {name!r}", hint)
        values[name] = _typed(name, known[name], value, path)
    if kind is InclusionRule and not values.get("name"):
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: a rule needs a name")
    return values


def _typed(name: str, kind: str, value: Any, path: Path) -> Any:
    if kind.startswith("tuple"):
        value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        fits = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    elif kind.startswith("int"):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif kind.startswith("float"):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        value = str(value) if name.startswith("date_") else value  # a date of TOML
        fits = isinstance(value, str)
    if not fits:
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: {name} has a value of the wrong type")
    for pattern in (
        (value,) if name in _PATTERNS else value if name == "structures" and kind.startswith("tuple") else ()
    ):
        try:
            re.compile(pattern)
        except re.error as error:
            message = f"{path.name}: {name}: {pattern!r} is not a regular expression: {error}"
            raise UsageError(Reason.BAD_SETTINGS, message) from None
    return value

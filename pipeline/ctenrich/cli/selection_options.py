"""Options of ``ctenrich select`` for the rules on attributes: each sets one @parameter of the query."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, NamedTuple

import typer

__all__ = ["RULE_OPTIONS", "RuleOption", "with_rule_options"]


class RuleOption(NamedTuple):
    """One option and the parameter that it sets."""

    flag: str
    parameter: str
    type: Any
    help: str
    commas: bool = False
    """Whether a comma separates values; free text may contain one."""


_VALUES = "repeatable; * is any text"
_CODES = "a,b,... or repeatable; * is any text"
RULE_OPTIONS = (
    RuleOption("--manufacturer", "manufacturers", list[str], f"Only these manufacturers, e.g. 'SIEMENS*' ({_VALUES})."),
    RuleOption("--model", "models", list[str], f"Only these scanner models ({_VALUES})."),
    RuleOption("--kernel", "kernels", list[str], f"Only these convolution kernels, e.g. B30f ({_CODES}).", True),
    RuleOption("--body-part", "body_parts", list[str], f"Only these body parts examined, e.g. CHEST ({_CODES}).", True),
    RuleOption("--position", "positions", list[str], "Only these patient positions, e.g. HFS,FFS.", True),
    RuleOption("--description", "descriptions", list[str], f"Only these series descriptions ({_VALUES})."),
    RuleOption("--contrast", "contrast", str, "yes: only with a contrast agent; no: only without."),
    RuleOption("--exclude-derived", "exclude_derived", bool, "Leave out images whose Image Type begins with DERIVED."),
    RuleOption("--sex", "sexes", list[str], "Only patients of this sex: M, F or O.", True),
    RuleOption("--min-age", "age_min", float, "Smallest age of the patient, years."),
    RuleOption("--max-age", "age_max", float, "Largest age of the patient, years."),
    RuleOption("--from-date", "study_date_min", str, "Earliest study date, e.g. 2020-01-31."),
    RuleOption("--to-date", "study_date_max", str, "Latest study date."),
)
"""A new rule of the queries is one line here."""


def with_rule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `RULE_OPTIONS` to a command; it receives those that were given as ``rules``, by the name of the parameter.

    Parameters
    ----------
    command : callable
        A command with a parameter ``rules``, which is no option itself.

    Returns
    -------
    callable
        The command for `typer.Typer.command`.
    """
    own = [p for name, p in inspect.signature(command, eval_str=True).parameters.items() if name != "rules"]
    added = [
        inspect.Parameter(
            option.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if option.type is bool else None,
            annotation=Annotated[
                option.type if option.type is bool else option.type | None,
                typer.Option(option.flag, help=option.help, rich_help_panel="Rules on attributes"),
            ],
        )
        for option in RULE_OPTIONS
    ]

    @wraps(command)
    def with_rules(**given: Any) -> None:
        rules = {option.parameter: _values(option, given.pop(option.parameter)) for option in RULE_OPTIONS}
        command(**given, rules={name: value for name, value in rules.items() if value not in (None, False, [])})

    parameters = [*own, *added]
    with_rules.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_rules.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_rules


def _values(option: RuleOption, given: Any) -> Any:
    if not option.commas or given is None:
        return given
    return [value.strip() for text in given for value in text.split(",") if value.strip()]

"""Options of ``ctenrich select`` for the rules on attributes: each sets one @parameter of the query."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer

__all__ = ["RuleOptions"]

_VALUES = "repeatable; * is any text"
_CODES = "a,b,... or repeatable; * is any text"
_LISTS = frozenset({"kernels", "body_parts", "positions", "sexes"})
"""Parameters in whose options a comma separates values; free text may contain one."""


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """Rules on attributes; each field has the name of the @parameter that it sets."""

    heading: ClassVar[str] = "Rules on attributes"

    manufacturers: Annotated[
        list[str] | None,
        typer.Option("--manufacturer", help=f"Only these manufacturers, e.g. 'SIEMENS*' ({_VALUES})."),
    ] = None
    models: Annotated[list[str] | None, typer.Option("--model", help=f"Only these scanner models ({_VALUES}).")] = None
    kernels: Annotated[
        list[str] | None, typer.Option("--kernel", help=f"Only these convolution kernels, e.g. B30f ({_CODES}).")
    ] = None
    body_parts: Annotated[
        list[str] | None, typer.Option("--body-part", help=f"Only these body parts examined, e.g. CHEST ({_CODES}).")
    ] = None
    positions: Annotated[
        list[str] | None, typer.Option("--position", help="Only these patient positions, e.g. HFS,FFS.")
    ] = None
    descriptions: Annotated[
        list[str] | None, typer.Option("--description", help=f"Only these series descriptions ({_VALUES}).")
    ] = None
    contrast: Annotated[
        str | None,
        typer.Option(metavar="yes|no", help="yes: only with a contrast agent; no: only without."),
    ] = None
    exclude_derived: Annotated[
        bool, typer.Option("--exclude-derived", help="Leave out images whose Image Type begins with DERIVED.")
    ] = False
    sexes: Annotated[
        list[str] | None, typer.Option("--sex", metavar="M|F|O", help="Only patients of this sex: M, F or O.")
    ] = None
    age_min: Annotated[
        float | None, typer.Option("--min-age", metavar="YEARS", help="Smallest age of the patient, years.")
    ] = None
    age_max: Annotated[
        float | None, typer.Option("--max-age", metavar="YEARS", help="Largest age of the patient, years.")
    ] = None
    study_date_min: Annotated[
        str | None, typer.Option("--from-date", metavar="DATE", help="Earliest study date, e.g. 2020-01-31.")
    ] = None
    study_date_max: Annotated[str | None, typer.Option("--to-date", metavar="DATE", help="Latest study date.")] = None

    def parameters(self) -> dict[str, object]:
        """Return the parameters whose options were given, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _values(name, value) for name, value in given.items() if value not in (None, False, [])}

    @classmethod
    def flags(cls) -> dict[str, str]:
        """Return the parameter that each option sets: flag -> name."""
        hints = get_type_hints(cls, include_extras=True)
        return {_flag(field.name, hints[field.name]): field.name for field in fields(cls)}


def _flag(name: str, hint: Any) -> str:
    _, info = get_args(hint)
    given = (info.default, *(info.param_decls or ()))  # in an annotation typer keeps the first flag as the default
    return next(
        (flag for flag in given if isinstance(flag, str) and flag.startswith("--")), f"--{name.replace('_', '-')}"
    )


def _values(name: str, given: Any) -> object:
    if name not in _LISTS:
        return given
    return [value.strip() for text in given for value in text.split(",") if value.strip()]

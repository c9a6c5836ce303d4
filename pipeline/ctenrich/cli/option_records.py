"""Commands with option records: every field of a dataclass becomes an option, listed under the record's heading."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

__all__ = ["flatten"]

_WORDS: tuple[tuple[type, str], ...] = ((Path, "PATH"), (int, "N"), (float, "NUMBER"), (str, "TEXT"))


def flatten(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose option records are replaced by their fields, and whose options all have a metavar.

    Parameters
    ----------
    command : callable
        Its parameters are arguments and options of typer, or option records: frozen, keyword-only dataclasses whose
        fields are annotated as options. The class attribute ``heading`` of a record is the heading of its options in
        the help text.

    Returns
    -------
    callable
        The command for `typer.Typer.command`, which builds the records from the options that were given.

    Raises
    ------
    TypeError
        A parameter is neither a record nor annotated for typer.
    """
    signature = inspect.signature(command, eval_str=True)
    records: dict[str, Any] = {
        name: p.annotation for name, p in signature.parameters.items() if is_dataclass(p.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in records:
            parameters += [_parameter_of(field, records[name]) for field in fields(records[name])]
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=_with_metavar(name, parameter.annotation), kind=kind))

    @wraps(command)
    def flat(**given: Any) -> None:
        built = {
            name: record(**{field.name: given.pop(field.name) for field in fields(record)})
            for name, record in records.items()
        }
        command(**given, **built)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {p.name: p.annotation for p in parameters}
    return flat


def _parameter_of(field: Field[Any], record: Any) -> inspect.Parameter:
    """The option of a record's field."""
    hint = _with_metavar(field.name, get_type_hints(record, include_extras=True)[field.name])
    value, info = get_args(hint)
    info = copy(info)
    info.rich_help_panel = getattr(record, "heading", None)
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[value, info]
    )


def _with_metavar(name: str, annotation: Any) -> Any:
    """The annotation, with a metavar that fits its type where none is given."""
    value, info = get_args(annotation) if get_origin(annotation) is Annotated else (annotation, None)
    if not isinstance(info, OptionInfo | ArgumentInfo):
        raise TypeError(f"{name} is neither an option, an argument nor an option record")
    if info.metavar is not None:
        return annotation
    info = copy(info)
    argument = isinstance(info, ArgumentInfo)
    info.metavar = name.upper().replace("_", "-") if argument else _word(value)
    return Annotated[value, info]


def _word(value: Any) -> str | None:
    """Metavar of an option by the type of its value; None for a flag."""
    kinds = [kind for kind in (get_args(value) or (value,)) if kind is not NoneType]
    kind = kinds[0]
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member.value) for member in kind)
    if kind is bool:
        return None
    return next((word for known, word in _WORDS if isinstance(kind, type) and issubclass(kind, known)), None)

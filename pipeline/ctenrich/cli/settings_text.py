"""Settings as text: every setting with its type, default and explanation, and as a commented TOML file."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ctenrich import settings as module
from ctenrich.settings import Settings

__all__ = ["Section", "Setting", "sections", "toml_template", "toml_text", "toml_value"]

_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting."""

    name: str
    type: str
    """In words, e.g. ``whole number``."""
    default: Any
    text: str
    """Explanation: the docstring of the field."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table of the TOML file."""

    name: str
    text: str
    settings: tuple[Setting, ...]


def sections() -> tuple[Section, ...]:
    """Return every section with its settings, explained by the docstrings of the records.

    Returns
    -------
    tuple of Section
        In the order of :class:`ctenrich.settings.Settings`.
    """
    docs = _docstrings()
    found = []
    for field in fields(Settings):
        record = type(getattr(Settings(), field.name))
        hints = get_type_hints(record)
        rows = tuple(
            Setting(
                name=one.name,
                type=_type_in_words(hints[one.name]),
                default=one.default,
                text=docs[record.__name__, one.name],
            )
            for one in fields(record)
        )
        found.append(Section(name=field.name, text=" ".join((record.__doc__ or "").split()), settings=rows))
    return tuple(found)


def toml_template() -> str:
    """Return a settings file in which every setting is explained and commented out.

    Returns
    -------
    str
        TOML that changes nothing until a line is uncommented.
    """
    parts = ["# Settings of ctenrich: remove the # before a line to change its value."]
    for section in sections():
        parts += ["", *_comment(section.text), f"[{section.name}]"]
        for setting in section.settings:
            parts += [*_comment(setting.text)]
            value = "" if setting.default is None else f" {toml_value(setting.default)}"
            parts.append(f"# {setting.name} ={value}" + ("" if value else f"  ({setting.type}; not set)"))
    return "\n".join(parts) + "\n"


def toml_text(settings: Settings, *, changed_only: bool = False) -> str:
    """Return settings as a TOML file, each changed value with its default.

    Parameters
    ----------
    settings : Settings
        The values.
    changed_only : bool
        Leave out what has its default.

    Returns
    -------
    str
        Read by :func:`ctenrich.settings.load_settings`, it gives the same settings.
    """
    parts: list[str] = []
    for section in sections():
        values = getattr(settings, section.name)
        lines = []
        for setting in section.settings:
            value = getattr(values, setting.name)
            if value == setting.default and changed_only:
                continue
            if value is None:
                lines.append(f"# {setting.name} is not set")
                continue
            default = "not set" if setting.default is None else toml_value(setting.default)
            mark = "" if value == setting.default else f"  # default: {default}"
            lines.append(f"{setting.name} = {toml_value(value)}{mark}")
        if lines:
            parts += ["", f"[{section.name}]", *lines]
    return "\n".join(parts[1:]) + "\n" if parts else ""


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]


def toml_value(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)  # a JSON text, number or truth value is the same in TOML


def _type_in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"list of {_type_in_words(get_args(hint)[0])}s"
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    return _TYPES[kinds[0]]


def _docstrings() -> dict[tuple[str, str], str]:
    """(record, field) -> the text below the field in the source."""
    found = {}
    for record in ast.parse(inspect.getsource(module)).body:
        if not isinstance(record, ast.ClassDef):
            continue
        for line, below in zip(record.body, record.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                assert isinstance(below.value, ast.Constant)
                found[record.name, line.target.id] = " ".join(str(below.value.value).split())
    return found

"""Queries as files: the SQL, and the header comment that states purpose, parameters and columns.

A query file begins with a comment of this form (two spaces and more of indent inside a list)::

    -- Purpose: one sentence or more,
    --   continued on indented lines.
    -- Partition: StudyInstanceUID
    -- Instances: images of Modality CT along the slice normal
    -- Parameters:
    --   @collections ARRAY<STRING> = [] -- collections to search; none: all
    -- Columns:
    --   slice_spacing FLOAT64 [mm] -- distance of neighbouring slices along the slice normal,
    --       goes on with more indent

``Partition`` states that the series of a study are judged without those of other studies, so that the query may be
asked for some studies at a time. ``Instances`` states what the column ``instances`` is where ``failed`` is empty
(``SOPInstanceUID``, ``url``, ``size`` and ``md5`` of as many images as ``num_instances`` says), so that it may be made
outside of the query. A parameter without ``= default`` must be given. Defaults are JSON; ``{a, b}`` after
it lists the allowed texts. A query of a user's own may leave the header away: its parameters are then those that the
text names, with the types of the values that are given.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctenrich.catalog.sql import parameter_names
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.resources import folder

__all__ = [
    "GivenFloat",
    "GivenInt",
    "OutputColumn",
    "Parameter",
    "Query",
    "bind",
    "load_query",
    "parse_query",
    "shipped_queries",
]

_NAME = re.compile(r"[A-Za-z_]\w{0,127}")
_ENTRY = re.compile(
    r"^\s{2,}(@?\w+)\s+([A-Z][A-Z0-9_<>, ]*?)(?:\s+=\s+(.+?))?(?:\s+\{([^}]*)\})?(?:\s+\[([^\]]*)\])?\s+--\s+(.*)$"
)
_TYPES = ("STRING", "INT64", "FLOAT64", "BOOL", "ARRAY<STRING>", "ARRAY<INT64>", "ARRAY<FLOAT64>")
_REQUIRED = object()
PARTITION = "StudyInstanceUID"
"""The partition that a query's header may state."""
INSTANCES = "images of Modality CT along the slice normal"
"""What a query's header may state of its column ``instances``."""


@dataclass(frozen=True)
class Parameter:
    """One @parameter of a query."""

    name: str
    type: str
    """STRING, INT64, FLOAT64, BOOL or ARRAY<...> of the first three."""
    default: object = _REQUIRED
    description: str = ""
    choices: tuple[str, ...] = ()
    """The texts that are allowed; none: all."""

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is _REQUIRED


@dataclass(frozen=True)
class OutputColumn:
    """One column of a query's result, as its header describes it."""

    name: str
    type: str
    unit: str
    description: str


@dataclass(frozen=True)
class Query:
    """A query with the parameters and columns of its header."""

    name: str
    text: str
    purpose: str = ""
    parameters: tuple[Parameter, ...] = ()
    columns: tuple[OutputColumn, ...] = ()
    has_header: bool = False
    partition: str = ""
    """``StudyInstanceUID``: the rows of a study, and of a series, do not depend on others; empty: any may depend."""
    lists_instances: bool = False
    """Whether the header states that ``instances`` are the CT images of the series along the slice normal."""

    @property
    def sha256(self) -> str:
        """Hash of the text as it is run."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of that name, if there is one."""
        return next((p for p in self.parameters if p.name == name), None)


def shipped_queries() -> tuple[str, ...]:
    """Names of the queries that travel with the package, sorted."""
    return tuple(sorted(path.stem for path in folder("queries").glob("*.sql")))


def load_query(query: str | Path) -> Query:
    """Read a query: a path, or the name of one in queries/.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_QUERY for a header that cannot be read.
    """
    path = Path(query)
    if not path.is_file():
        if _NAME.fullmatch(str(query)) is None or not (folder("queries") / f"{query}.sql").is_file():
            raise UsageError(
                Reason.NOT_FOUND,
                f"there is no query {path.name}",
                did_you_mean(path.name, shipped_queries(), f"shipped: {', '.join(shipped_queries())}"),
            )
        path = folder("queries") / f"{query}.sql"
    try:
        return parse_query(path.stem, path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(Reason.BAD_QUERY, f"{path.name} is not UTF-8 text") from error


def parse_query(name: str, text: str) -> Query:
    """Read the header comment of a query's text.

    Parameters
    ----------
    name : str
        Name of the query, for messages.
    text : str
        SQL, which begins with comments that state purpose, parameters and columns.

    Returns
    -------
    Query
        With its parameters and columns; without a header both are empty.

    Raises
    ------
    UsageError
        BAD_QUERY for a header that cannot be read.
    """
    purpose: list[str] = []
    stated = {"Partition": "", "Instances": ""}
    entries: dict[str, list[str]] = {"Parameters": [], "Columns": []}
    section = ""
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        body = line[2:].rstrip()
        title = re.match(r"^\s?(Purpose|Partition|Instances|Parameters|Columns):\s*(.*)$", body)
        if title:
            section = title[1]
            purpose.extend([title[2]] if section == "Purpose" else [])
            if section in stated:
                stated[section] = title[2].strip()
        elif section == "Purpose" and body.strip():
            purpose.append(body.strip())
        elif section in entries and body.strip():
            if body.startswith(" " * 6) and entries[section]:
                entries[section][-1] += " " + body.strip()
            else:
                entries[section].append(body)
    if stated["Partition"] not in {"", PARTITION}:
        raise UsageError(Reason.BAD_QUERY, f"the header of {name} states another partition than {PARTITION}")
    if stated["Instances"] not in {"", INSTANCES}:
        raise UsageError(Reason.BAD_QUERY, f"the header of {name} states other instances than: {INSTANCES}")
    parameters = tuple(_parameter(name, _entry(name, line)) for line in entries["Parameters"])
    found = (_entry(name, line) for line in entries["Columns"])
    columns = tuple(OutputColumn(m[1], m[2].strip(), m[5] or "", m[6]) for m in found)
    return Query(
        name,
        text,
        " ".join(purpose),
        parameters,
        columns,
        bool(section),
        stated["Partition"],
        bool(stated["Instances"]),
    )


def _entry(name: str, body: str) -> re.Match[str]:
    match = _ENTRY.match(body)
    if match is None:
        raise UsageError(
            Reason.BAD_QUERY,
            f"the header of {name} has a line that is neither a section nor an entry: {body.strip()[:80]!r}",
        )
    return match


def _parameter(query: str, match: re.Match[str]) -> Parameter:
    name, kind = match[1].removeprefix("@"), match[2].replace(" ", "")
    if kind not in _TYPES:
        raise UsageError(Reason.BAD_QUERY, f"parameter {name} of {query} has the unknown type {kind}")
    if match[3] is None:
        return Parameter(name, kind, description=match[6])
    try:
        default = json.loads(match[3])
    except json.JSONDecodeError as error:
        raise UsageError(Reason.BAD_QUERY, f"the default of {name} in {query} is not JSON") from error
    choices = tuple(choice.strip() for choice in (match[4] or "").split(",") if choice.strip())
    return Parameter(name, kind, _check(name, kind, default), match[6], choices)


class GivenInt(int):
    """A whole number of a command line; `text` is how it was written, for parameters that are text (``00123``)."""

    text: str


class GivenFloat(float):
    """A decimal number of a command line; `text` is how it was written."""

    text: str


def bind(query: Query, given: Mapping[str, object]) -> dict[str, tuple[str, object]]:
    """Check values against a query's parameters.

    Text is accepted for every type, as it comes from a command line: ``true``, ``2.5``, ``a,b`` or ``["a", "b"]``.

    Parameters
    ----------
    query : Query
        The query.
    given : mapping
        Values by the name of the parameter.

    Returns
    -------
    dict
        Name -> (BigQuery type, value) of every parameter; defaults are filled in.

    Raises
    ------
    UsageError
        BAD_PARAMETER: unknown, missing, or of the wrong type.
    """
    known = {p.name: p for p in query.parameters} if query.has_header else _inferred(query, given)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"known: {', '.join(known) or 'none'}")
            raise UsageError(Reason.BAD_PARAMETER, f"{query.name} has no parameter {name[:60]!r}", hint)
    bound: dict[str, tuple[str, object]] = {}
    for name, parameter in known.items():
        if name not in given and parameter.required:
            raise UsageError(Reason.BAD_PARAMETER, f"{query.name} needs the parameter {name}", parameter.description)
        value = _check(name, parameter.type, given[name]) if name in given else parameter.default
        allowed = (*parameter.choices, *([None] if parameter.default is None else []))
        if parameter.choices and value not in allowed:
            raise UsageError(Reason.BAD_PARAMETER, f"{name} is one of {', '.join(parameter.choices)}")
        bound[name] = (parameter.type, value)
    return bound


def _inferred(query: Query, given: Mapping[str, object]) -> dict[str, Parameter]:
    names = parameter_names(query.text)
    return {name: Parameter(name, _type_of(name, given[name]) if name in given else "STRING") for name in names}


def _type_of(name: str, value: object) -> str:
    if isinstance(value, (list, tuple)):
        inner = {_type_of(name, item) for item in value} or {"STRING"}
        if len(inner) > 1 or "BOOL" in inner or any(kind.startswith("ARRAY") for kind in inner):
            raise UsageError(Reason.BAD_PARAMETER, f"the list {name} mixes types")
        return f"ARRAY<{inner.pop()}>"
    for kind, python in (("BOOL", bool), ("INT64", int), ("FLOAT64", float), ("STRING", str)):
        if isinstance(value, python):
            return kind
    raise UsageError(Reason.BAD_PARAMETER, f"{name} has a value of the type {type(value).__name__}")


def _check(name: str, kind: str, value: object) -> object:
    """`value` as the Python type of `kind`; None stays None."""
    if value is None:
        return None
    if isinstance(value, (GivenInt, GivenFloat)):
        value = value.text
    if kind.startswith("ARRAY<"):
        return [_check(name, kind[6:-1], item) for item in _items(name, value)]
    if isinstance(value, str) and kind != "STRING":
        return _from_text(name, kind, value)
    fits = {
        "STRING": isinstance(value, str),
        "BOOL": isinstance(value, bool),
        "INT64": isinstance(value, int) and not isinstance(value, bool),
        "FLOAT64": isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value),
    }[kind]
    if not fits:
        raise UsageError(Reason.BAD_PARAMETER, f"{name} wants {kind}, not {type(value).__name__}")
    if kind == "INT64" and not -(2**63) <= int(str(value)) < 2**63:
        raise UsageError(Reason.BAD_PARAMETER, f"{name} is too large for {kind}")
    return float(str(value)) if kind == "FLOAT64" else value


def _items(name: str, value: object) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str):
        raise UsageError(Reason.BAD_PARAMETER, f"{name} wants a list, not {type(value).__name__}")
    if value.lstrip().startswith("["):
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError as error:
            raise UsageError(Reason.BAD_PARAMETER, f"{name} is not a JSON list") from error
        return list(parsed)
    return [item.strip() for item in value.split(",") if item.strip()]


def _from_text(name: str, kind: str, text: str) -> object:
    word = text.strip().lower()
    if word in {"", "null", "none"}:
        return None
    if kind == "BOOL":
        if word not in {"true", "false", "yes", "no", "1", "0"}:
            raise UsageError(Reason.BAD_PARAMETER, f"{name} wants true or false")
        return word in {"true", "yes", "1"}
    try:
        number: float = int(word) if kind == "INT64" else float(word)
    except ValueError:
        raise UsageError(Reason.BAD_PARAMETER, f"{name} wants a number ({kind})") from None
    return _check(name, kind, number)

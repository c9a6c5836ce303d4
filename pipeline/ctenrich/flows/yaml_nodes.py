"""Read YAML of untrusted flow files into mappings, lists and texts that know their place in the file.

Scalars stay the text that was written (``000123``, ``1.0`` and ``NO`` are no numbers or booleans here), keys are
unique, and size, depth and the expansion of aliases are limited.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ctenrich.flows.errors import BadFlowError, Fault
from ctenrich.flows.records import Position

__all__ = ["MAX_BYTES", "Node", "read_nodes"]

MAX_BYTES = 256 * 1024
"""Largest flow file."""
_MAX_NODES = 20_000
"""Values of a file, those that aliases repeat included."""
_MAX_DEPTH = 24
_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value"))
_QUOTE_HINT = "write regular expressions in single quotes: there a backslash is a backslash"


@dataclass(frozen=True)
class Node:
    """A value of a YAML file."""

    value: str | tuple[Node, ...] | dict[str, Node]
    """Text, list or mapping."""
    place: Position
    keys: dict[str, Position]
    """Of a mapping: where its keys are."""
    kind: str = ""
    """Of a text: what YAML takes it for, e.g. ``int``, ``bool``, ``null``, or ``str``."""
    style: str = ""
    """Of a text: its quote, or ``|`` or ``>``; empty for a plain one."""

    @property
    def is_text(self) -> bool:
        """Whether the value is a scalar other than null."""
        return isinstance(self.value, str) and self.kind != "null"

    @property
    def is_null(self) -> bool:
        """Whether nothing was written."""
        return self.kind == "null"

    @property
    def text(self) -> str:
        """The text as written."""
        assert isinstance(self.value, str)
        return self.value

    @property
    def items(self) -> tuple[Node, ...]:
        """The items of a list."""
        assert isinstance(self.value, tuple)
        return self.value

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping."""
        assert isinstance(self.value, dict)
        return self.value

    def plain(self) -> Any:
        """Return the value as YAML has it: numbers and booleans where it was written as one."""
        if isinstance(self.value, dict):
            return {key: one.plain() for key, one in self.value.items()}
        if isinstance(self.value, tuple):
            return [one.plain() for one in self.value]
        return _scalar(self.value, self.kind)


def _scalar(text: str, kind: str) -> Any:
    if kind == "null":
        return None
    if kind == "bool":
        return text.casefold() in ("true", "yes", "on")
    try:
        if kind == "int":
            return int(text.replace("_", ""), 0)
        if kind == "float":
            return float(text.replace("_", ""))
    except ValueError:
        return text
    return text


def read_nodes(content: bytes, name: str) -> Node:
    """Parse a file.

    Parameters
    ----------
    content : bytes
        Its content.
    name : str
        Its name, for messages.

    Returns
    -------
    Node
        The top of the file, a mapping.

    Raises
    ------
    BadFlowError
        It is not YAML, too large or deep, has a repeated key, a tag of another type, or is not a mapping.
    """
    import yaml  # heavy for commands that read no flow

    if len(content) > MAX_BYTES:
        raise _bad(name, Position(1, 1), f"the file is larger than {MAX_BYTES // 1024} KB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise _bad(name, Position(line, column), "the file is not UTF-8") from None
    try:
        _check_size(yaml, text, name)
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        quoted = "quoted scalar" in str(error.context or "") and "escape" not in str(error.problem or "")
        mark = error.context_mark if quoted else error.problem_mark or error.context_mark
        place = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        raise _bad(name, place, f"this is not YAML: {error.problem or error.context}", _hint(error)) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise _bad(name, place, "a control character cannot be part of YAML") from error
    if len(documents) != 1 or not isinstance(documents[0], yaml.MappingNode):
        raise _bad(name, Position(1, 1), "a flow file is one mapping: triggers, models, destinations ...")
    return _Converter(yaml, name).node(documents[0], 0)


def _hint(error: Any) -> str:
    problem = str(error.problem or "")
    if "unknown escape character" in problem:
        return _QUOTE_HINT
    if "quoted scalar" in str(error.context or ""):
        return f"a quote that begins at line {error.context_mark.line + 1} is not closed"
    if "but got" in problem:
        return _QUOTE_HINT
    if "'\\t'" in problem:
        return "indent with blanks, not with tabs"
    return ""


def _bad(name: str, place: Position, message: str, hint: str = "") -> BadFlowError:
    return BadFlowError(name, (Fault(place=place, message=message, hint=hint),))


def _check_size(yaml: Any, text: str, name: str) -> None:
    """Refuse a file with too many or too deeply nested values before anything recursive reads it."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH or number > _MAX_NODES:
            place = Position(event.start_mark.line + 1, event.start_mark.column + 1)
            raise _bad(name, place, f"more than {_MAX_DEPTH} levels, or more than {_MAX_NODES} values")


class _Converter:
    """Converts the nodes of PyYAML, and counts them: an alias counts for all that it repeats."""

    def __init__(self, yaml: Any, name: str) -> None:
        self._yaml = yaml
        self._name = name
        self._number = 0

    def node(self, node: Any, depth: int) -> Node:
        place = Position(node.start_mark.line + 1, node.start_mark.column + 1)
        self._number += 1
        if self._number > _MAX_NODES or depth > _MAX_DEPTH:
            raise _bad(self._name, place, "aliases repeat too much")
        if isinstance(node, self._yaml.ScalarNode):
            if node.tag not in _TAGS:
                raise _bad(self._name, place, f"values of the type {node.tag} are not accepted")
            return Node(node.value, place, {}, node.tag.removeprefix(_TAG), node.style or "")
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            raise _bad(self._name, place, f"values of the type {node.tag} are not accepted")
        if isinstance(node, self._yaml.SequenceNode):
            return Node(tuple(self.node(item, depth + 1) for item in node.value), place, {})
        return self._mapping(node, place, depth)

    def _mapping(self, node: Any, place: Position, depth: int) -> Node:
        own: dict[str, Node] = {}
        keys: dict[str, Position] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            where = Position(key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, self._yaml.ScalarNode):
                raise _bad(self._name, where, "a key must be a text")
            if key.tag == f"{_TAG}merge":
                for one in self._merged(value, depth, where):
                    merged = {**one.entries, **merged}
                    keys = {**one.keys, **keys}
                continue
            if key.value in own:
                raise _bad(self._name, where, f"{key.value} is there twice; only one of them would count")
            own[key.value] = self.node(value, depth + 1)
            keys[key.value] = where
        return Node({**merged, **own}, place, keys)

    def _merged(self, value: Any, depth: int, where: Position) -> Iterator[Node]:
        """The mappings behind a merge key ``<<``; of two with one key the first counts."""
        nodes = value.value if isinstance(value, self._yaml.SequenceNode) else [value]
        for one in nodes:
            if not isinstance(one, self._yaml.MappingNode):
                raise _bad(self._name, where, "<< needs a mapping")
            yield self.node(one, depth + 1)

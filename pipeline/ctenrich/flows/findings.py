"""Collect the faults and notes of a flow file while it is read, and convert its values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.flows.closing import parse_duration
from ctenrich.flows.errors import Fault
from ctenrich.flows.records import Note, Position
from ctenrich.flows.yaml_nodes import Node

__all__ = ["Findings"]

_YES = frozenset({"true", "yes", "on"})
_NO = frozenset({"false", "no", "off"})
E = TypeVar("E", bound=StrEnum)


class Findings:
    """Faults and notes, and conversions that add a fault where a value does not fit."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.notes: list[Note] = []

    def fault(self, place: Position, message: str, hint: str = "") -> None:
        """Add a fault."""
        self.faults.append(Fault(place=place, message=message, hint=hint))

    def note(self, place: Position, message: str) -> None:
        """Add a note."""
        self.notes.append(Note(place=place, message=message))

    def mapping(self, node: Node, name: str) -> dict[str, Node]:
        """Entries of a mapping; null is an empty one."""
        if isinstance(node.value, dict):
            return node.value
        if not node.is_null:
            self.fault(node.place, f"{name} must be a mapping")
        return {}

    def entries(self, node: Node, known: Sequence[str], name: str) -> dict[str, Node]:
        """Entries of a mapping whose keys must be among the known ones."""
        found = self.mapping(node, name)
        for key in found:
            if key not in known:
                hint = did_you_mean(key, known) or f"known: {', '.join(known)}"
                self.fault(node.keys[key], f"{name} has no key {key}", hint)
        return {key: one for key, one in found.items() if key in known and not one.is_null}

    def items(self, node: Node, name: str) -> tuple[Node, ...]:
        """Items of a list; null is an empty one."""
        if isinstance(node.value, tuple):
            return node.value
        if not node.is_null:
            self.fault(node.place, f"{name} must be a list", "begin each item with - and a blank")
        return ()

    def text(self, node: Node | None, name: str, default: str = "") -> str:
        """A text as written."""
        if node is None:
            return default
        if not node.is_text:
            self.fault(node.place, f"{name} must be a text")
            return default
        return node.text

    def texts(self, node: Node | None, name: str) -> tuple[str, ...]:
        """A list of texts; a single text is a list of one."""
        if node is None:
            return ()
        if node.is_text:
            return (node.text,)
        return tuple(self.text(one, f"an item of {name}") for one in self.items(node, name))

    def flag(self, node: Node | None, name: str, default: bool = False) -> bool:
        """``true`` or ``false``."""
        if node is None:
            return default
        text = node.text.casefold() if node.is_text else ""
        if text not in _YES | _NO:
            self.fault(node.place, f"{name} must be true or false")
        return text in _YES

    def whole(self, node: Node | None, name: str, limits: tuple[int, int], default: int = 0) -> int:
        """A whole number between two limits."""
        if node is None:
            return default
        text = node.text.strip() if node.is_text else ""
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and limits[0] <= int(text) <= limits[1]):
            self.fault(node.place, f"{name} must be a whole number from {limits[0]} to {limits[1]}")
            return default
        return int(text)

    def duration(self, node: Node | None, name: str, default: float) -> float:
        """Seconds."""
        if node is None:
            return default
        try:
            return parse_duration(self.text(node, name, "0"))
        except UsageError as error:
            self.fault(node.place, f"{name}: {error.message}", error.hint)
            return default

    def choice(self, node: Node | None, name: str, kinds: type[E], default: E) -> E:
        """A member of an enumeration."""
        if node is None:
            return default
        text = self.text(node, name, default.value)
        return kinds(text) if self.is_known(node.place, text, name, [one.value for one in kinds]) else default

    def is_known(self, place: Position, text: str, name: str, known: Iterable[str]) -> bool:
        """Whether a text is among the known ones; otherwise a fault is added."""
        names = list(known)
        if text in names:
            return True
        self.fault(place, f"{name} cannot be {text!r}", did_you_mean(text, names, f"choose from {', '.join(names)}"))
        return False

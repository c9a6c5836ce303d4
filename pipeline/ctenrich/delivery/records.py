"""Records of the queue of deliveries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ctenrich.delivery.destination import Destination, Hook, HookEvent
from ctenrich.delivery.headers import ObjectHeader

__all__ = ["Batch", "DeliveryRow", "DeliveryState", "DeliveryTotals", "FlowNotice", "QueuedObject"]


class DeliveryState(StrEnum):
    """State of an object on its way to a destination."""

    HELD = "held"
    """Waits until a person releases it."""
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    WARNING = "warning"
    """The destination has it, and answered with a warning status (0xB000 to 0xBFFF, for instance)."""
    FAILED = "failed"
    DROPPED = "dropped"
    """Not sent: a person dropped it, a later revision replaced it, or it would have begun a loop."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Objects of a revision of a case, for one destination."""

    case: int
    revision: int
    destination: Destination
    files: tuple[Path, ...]
    flow: str = ""
    priority: int = 3
    held: str = ""
    """Reason code for which they are held at any destination; empty: the destination decides."""
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FlowNotice:
    """How a flow ended on a revision of a case, whether or not it has results to send."""

    case: int
    revision: int
    flow: str
    event: HookEvent
    """``done`` or ``failed``."""
    reasons: tuple[str, ...] = ()
    hooks: tuple[Hook, ...]


@dataclass(frozen=True, kw_only=True)
class DeliveryRow:
    """Objects of a batch that share a state and a reason, as commands and pages show them."""

    case: int
    revision: int
    flow: str
    destination: str
    state: DeliveryState
    reason: str
    detail: str
    """Of the last attempt of one of them."""
    objects: int
    sends: int
    """Attempts that transmitted an object, over all of them."""
    confirmed: int
    """Objects that the destination was asked about afterwards and has."""
    next_attempt: float | None


@dataclass(frozen=True, kw_only=True)
class QueuedObject:
    """An object to send, or to ask about."""

    number: int
    destination: str
    header: ObjectHeader
    sends: int
    asks: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class DeliveryTotals:
    """Numbers of objects by state; ``planned`` is their sum at any moment."""

    planned: int = 0
    held: int = 0
    queued: int = 0
    sending: int = 0
    sent: int = 0
    warning: int = 0
    failed: int = 0
    dropped: int = 0

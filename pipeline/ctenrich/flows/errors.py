"""What is wrong with a flow file: one finding for each fault, with line and column."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.flows.records import Flow, Position
from ctenrich.reasons import Reason

__all__ = ["BadFlowError", "Fault", "refused"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a flow file."""

    place: Position
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"line {self.place.line}, column {self.place.column}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class BadFlowError(UsageError):
    """A flow file that cannot be used.

    Parameters
    ----------
    name : str
        Name of the file.
    faults : tuple of Fault
        All that was found, in the order of the file.
    """

    def __init__(self, name: str, faults: tuple[Fault, ...]) -> None:
        self.name = name
        self.faults = tuple(sorted(faults, key=lambda fault: fault.place))
        more = f"; {len(faults) - 1} more" if len(faults) > 1 else ""
        super().__init__(Reason.BAD_FLOW, f"{name}: {self.faults[0]}{more}", "ctenrich flow check lists all faults")

    def __reduce__(self) -> tuple[type[BadFlowError], tuple[str, tuple[Fault, ...]]]:
        return type(self), (self.name, self.faults)


def refused(flow: Flow, place: Position, message: str, hint: str = "") -> BadFlowError:
    """Return the error of a flow that was read and cannot be run here.

    Parameters
    ----------
    flow : Flow
        The flow.
    place : Position
        What in its file cannot be run.
    message : str
        Why.
    hint : str
        What to write instead.

    Returns
    -------
    BadFlowError
        BAD_FLOW.
    """
    return BadFlowError(Path(flow.path).name, (Fault(place=place, message=message, hint=hint),))

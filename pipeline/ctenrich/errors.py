"""The error tree: every failure that a user can meet has a type and a reason code.

::

    CtenrichError                 reason, message, hint
    +-- UsageError                what the user asked for cannot be done as asked (exit code 2)
    +-- InputError                the data cannot be used; the series or product ends, the run goes on
    |   +-- GeometryError         slices do not form one regular volume
    |   +-- IncompleteError       objects are missing; never a shorter volume
    |   +-- UnsafeInputError      refused for safety (path, link, archive, bomb)
    +-- ModelError                weights, labels or plans cannot be used; found before any work starts
    +-- ToolError                 a program that we call failed or is missing
    +-- EncodingError             a DICOM object could not be made or proven
    +-- InconsistencyError                totals do not balance
    +-- TransientError            may succeed when tried again (network, quota, lease)
        +-- RetryExhaustedError   was tried again, a bounded number of times (no longer retryable)

What may be retried is a type, never a message: ``isinstance(error, TransientError) and error.retryable``.
"""

from __future__ import annotations

from typing import ClassVar

from ctenrich.reasons import Reason

__all__ = [
    "CtenrichError",
    "EncodingError",
    "GeometryError",
    "IncompleteError",
    "InconsistencyError",
    "InputError",
    "ModelError",
    "RetryExhaustedError",
    "ToolError",
    "TransientError",
    "UnsafeInputError",
    "UsageError",
]


class CtenrichError(Exception):
    """Base of all errors that ctenrich raises on purpose.

    Parameters
    ----------
    reason : Reason
        Stable code that ends up in the ledger, the tables and the report.
    message : str
        What happened, for a person. Carries no patient name or identifier.
    hint : str, optional
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, reason: Reason, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.reason.value}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[type[CtenrichError], tuple[Reason, str, str]]:
        return type(self), (self.reason, self.message, self.hint)


class UsageError(CtenrichError):
    """The request itself is wrong: an unknown parameter, a missing file, a malformed query."""

    exit_code: ClassVar[int] = 2


class InputError(CtenrichError):
    """The data cannot be used. Ends one series or product, never the cohort."""


class GeometryError(InputError):
    """The slices do not form one regular volume."""


class IncompleteError(InputError):
    """Objects that belong to the series are missing."""


class UnsafeInputError(InputError):
    """The input was refused because reading it could harm: path, link, archive or bomb."""


class ModelError(CtenrichError):
    """Weights, labels or plans cannot be used. Raised before any work starts."""


class ToolError(CtenrichError):
    """A program that ctenrich calls is missing, failed or ran out of time."""


class EncodingError(CtenrichError):
    """A DICOM object could not be made, or what was made could not be proven."""


class InconsistencyError(CtenrichError):
    """Totals do not balance: something entered that neither came out nor has a reason."""


class TransientError(CtenrichError):
    """May succeed when it is tried again: network, quota, lease."""

    retryable: ClassVar[bool] = True


class RetryExhaustedError(TransientError):
    """Was tried again a bounded number of times, and given up."""

    retryable: ClassVar[bool] = False

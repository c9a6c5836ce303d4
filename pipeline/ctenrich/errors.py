"""The tree of errors: every failure that a user can see has a type and a reason code.

::

    CtenrichError                 reason, message, hint
    +-- UsageError                the request is wrong (exit code 2)
    +-- InputError                the data cannot be used; the series or product ends, the run goes on
    |   +-- GeometryError         slices do not form one regular volume
    |   +-- IncompleteError       objects are missing; never a shorter volume
    |   +-- UnsafeInputError      refused for safety (path, link, archive, decompression bomb)
    +-- ModelError                weights, labels or plans cannot be used; found before any work starts
    |   +-- UnknownModelError     there is no such model here (exit code 2)
    +-- ToolError                 an external program failed or is missing
    +-- EncodingError             a DICOM object could not be created or proven
    +-- InconsistencyError        totals are inconsistent
    +-- TransientError            may succeed on a later attempt (network, quota, lease)
        +-- RetryExhaustedError   the maximum number of attempts was reached (no longer retryable)

The type of an error decides whether it may be retried, never its message:
``isinstance(error, TransientError) and error.retryable``.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar

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
    "UnknownModelError",
    "UnsafeInputError",
    "UsageError",
    "count",
    "did_you_mean",
    "is_disk_full",
]


_PLURALS = {"series": "series", "study": "studies", "copy": "copies", "hash": "hashes"}


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 object``, ``2 objects``, ``2 studies``.

    Parameters
    ----------
    number : int
        How many.
    noun : str
        In the singular; the plural is that of its last word.

    Returns
    -------
    str
    """
    *before, last = noun.split(" ")
    word = last if number == 1 else _PLURALS.get(last, f"{last}s")
    return " ".join((f"{number}", *before, word))


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint that names what a mistyped name is like.

    Parameters
    ----------
    name : str
        What was typed.
    known : iterable of str
        What could have been meant.
    otherwise : str
        Hint if nothing is like it; also added after a suggestion.

    Returns
    -------
    str
    """
    spellings = {text.casefold(): text for text in known}
    found = [spellings[text] for text in get_close_matches(name.casefold(), spellings, n=2, cutoff=0.6)]
    return " ".join(filter(None, (f"did you mean {' or '.join(found)}?" if found else "", otherwise)))


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, means that the disk or the user's quota is full.

    Libraries that write files report it by `errno`, by an error code of SQLite, or in the text of their own errors.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, CtenrichError) and error.reason is Reason.DISK_FULL:
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            return True
        if any(text in str(error) for text in ("No space left on device", "database or disk is full")):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


class CtenrichError(Exception):
    """Base of all errors that ctenrich raises on purpose.

    Parameters
    ----------
    reason : Reason
        Stable code that is written to the ledger, the tables and the report.
    message : str
        What happened, as a sentence for the user. Contains no patient name or identifier.
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
        self.issues: tuple[Any, ...] = ()
        """What was found before the error (:class:`ctenrich.records.Issue`), for the table `issues`."""

    def __str__(self) -> str:
        text = f"{self.reason.value}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.message, self.hint), {"issues": self.issues}


class UsageError(CtenrichError):
    """The request itself is wrong: an unknown parameter, a missing file, a malformed query."""

    exit_code: ClassVar[int] = 2


class InputError(CtenrichError):
    """The data cannot be used. This ends one series or product, never the cohort."""


class GeometryError(InputError):
    """The slices do not form one regular volume."""


class IncompleteError(InputError):
    """Objects that belong to the series are missing."""


class UnsafeInputError(InputError):
    """The input was refused for safety: path, link, archive or decompression bomb."""


class ModelError(CtenrichError):
    """Weights, labels or plans cannot be used. Raised before any work starts."""


class UnknownModelError(ModelError):
    """The request names a model that does not exist, or is not on this machine yet."""

    exit_code: ClassVar[int] = 2


class ToolError(CtenrichError):
    """A program that ctenrich calls is missing, failed or ran out of time."""


class EncodingError(CtenrichError):
    """A DICOM object could not be created, or the created object could not be proven."""


class InconsistencyError(CtenrichError):
    """Totals are inconsistent: an input has neither a result nor a reason."""


class TransientError(CtenrichError):
    """The operation may succeed on a later attempt: network, quota, lease."""

    retryable: ClassVar[bool] = True


class RetryExhaustedError(TransientError):
    """The operation still failed after the maximum number of attempts."""

    retryable: ClassVar[bool] = False

"""Try again what may succeed: bounded, with growing pauses and jitter, and one final reason that states the count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from ctenrich.errors import CtenrichError, InputError, RetryExhaustedError, TransientError
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings

__all__ = ["LONGEST_PAUSE", "BusyError", "retry_after", "retrying"]

LONGEST_PAUSE = 30.0
"""Seconds; a store that asks for more is asked again after these."""
T = TypeVar("T")


class BusyError(TransientError):
    """The store is busy and said how long to stay away.

    Parameters
    ----------
    pause : float
        Seconds.
    """

    def __init__(self, reason: Reason, message: str, hint: str = "", pause: float = 0.0) -> None:
        super().__init__(reason, message, hint)
        self.pause = pause

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.message, self.hint, self.pause)


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that an answer's Retry-After asks for (RFC 9110, 10.2.3: a number, or a date); None: it asks nothing."""
    value = (headers or {}).get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_PAUSE)
    try:
        wanted = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(wanted, 0.0), LONGEST_PAUSE)


def retrying(action: Callable[[], T], settings: FetchSettings) -> T:
    """Call `action` until it succeeds, at most `settings.tries` times; only TransientErrors are tried again.

    The pauses grow, with jitter; what a store asks for with Retry-After is kept, up to `LONGEST_PAUSE`.

    Parameters
    ----------
    action : callable
        Called without arguments.
    settings : FetchSettings
        `tries`, and `backoff` in seconds.

    Returns
    -------
    object
        What `action` returns.

    Raises
    ------
    RetryExhaustedError
        RETRY_EXHAUSTED, with the number of tries and the last failure.
    InputError
        CHECKSUM: the bytes came wrong every time.
    """
    tries = max(1, settings.tries)
    growing = wait_exponential(multiplier=settings.backoff, max=LONGEST_PAUSE) + wait_random(0, settings.backoff)

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.pause if isinstance(error, BusyError) else 0.0
        return max(growing(state), min(asked, LONGEST_PAUSE))

    loop = Retrying(
        stop=stop_after_attempt(tries),
        wait=pause,
        retry=retry_if_exception(lambda error: isinstance(error, CtenrichError) and error.retryable),
        retry_error_callback=_give_up,
    )
    return loop(action)


def _give_up(state: RetryCallState) -> Any:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, CtenrichError)
    if error.reason is Reason.CHECKSUM:
        raise InputError(error.reason, f"{error.message}, {state.attempt_number} times") from error
    message = f"given up after {state.attempt_number} tries: {error.message}"
    raise RetryExhaustedError(Reason.RETRY_EXHAUSTED, message) from error

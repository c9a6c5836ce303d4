"""Try again what may succeed: bounded, with growing pauses and jitter, and one final reason that states the count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from ctenrich.errors import CtenrichError, InputError, RetryExhaustedError
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings

__all__ = ["LONGEST_PAUSE", "retrying"]

LONGEST_PAUSE = 30.0
T = TypeVar("T")


def retrying(action: Callable[[], T], settings: FetchSettings) -> T:
    """Call `action` until it succeeds, at most `settings.tries` times; only TransientErrors are tried again.

    Raises
    ------
    RetryExhaustedError
        RETRY_EXHAUSTED, with the number of tries and the last failure.
    InputError
        CHECKSUM: the bytes came wrong every time.
    """
    tries = max(1, settings.tries)
    loop = Retrying(
        stop=stop_after_attempt(tries),
        wait=wait_exponential(multiplier=settings.backoff, max=LONGEST_PAUSE) + wait_random(0, settings.backoff),
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

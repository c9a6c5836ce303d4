"""Regular expressions of triggers: checked when a flow is read, searched with a limit of time.

The engine is Python's `re`, as in RadDeploy, so that the same file means the same. It backtracks: a pattern such as
``(a+)+$`` can take years for 40 characters. When a flow is read, each pattern is tried on texts made of its own
characters; what is found later is ended by a timer of processor time, and the flow, not the listener, fails.
"""

from __future__ import annotations

import re
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from ctenrich.errors import InputError
from ctenrich.reasons import Reason

__all__ = ["SEARCH_SECONDS", "PatternProblem", "SlowPatternError", "check_regex", "search"]

SEARCH_SECONDS = 1.0
"""Processor time that one search may take; usual are millionths."""
_PROBE_SECONDS = 0.1
_PROBE_LENGTH = 60
_MAX_PATTERN = 2000
_LITERAL = re.compile(r"[A-Za-z0-9 _.^-]")


class SlowPatternError(InputError):
    """A search that was ended: the pattern takes exponential time on a text."""


class PatternProblem(ValueError):  # noqa: N818  a finding about a text, like re.error
    """A regular expression that cannot be used.

    Parameters
    ----------
    message : str
        What is wrong.
    offset : int
        Character of the expression, from 0.
    """

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@lru_cache(maxsize=4096)
def check_regex(regex: str) -> str:
    """Compile an expression and try it on texts that would show exponential time.

    Returns
    -------
    str
        A remark of the engine about an expression that will change its meaning; empty if there is none.

    Raises
    ------
    PatternProblem
        It does not compile, or takes too long.
    """
    if len(regex) > _MAX_PATTERN:
        raise PatternProblem(f"the pattern is longer than {_MAX_PATTERN} characters")
    control = next((number for number, character in enumerate(regex) if character < " "), -1)
    if control >= 0:
        raise PatternProblem(
            "the pattern holds a control character, as \\b in double quotes gives: use single quotes", control
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            re.compile(regex)
        except re.error as error:
            raise PatternProblem(f"no regular expression: {error.msg}", error.pos or 0) from error
        except (OverflowError, RecursionError) as error:
            raise PatternProblem("the pattern is too large or too deeply nested") from error
    try:
        for text in _probes(regex):
            search(regex, text, seconds=_PROBE_SECONDS)
    except SlowPatternError as error:
        raise PatternProblem("the pattern takes exponential time: a repeated group repeats in several ways") from error
    return str(caught[0].message) if caught else ""


def _probes(regex: str) -> Iterator[str]:
    """Texts of repeated characters of an expression, ended so that it fails at the last moment."""
    found = list(dict.fromkeys((*_LITERAL.findall(regex), "a", "0")))[:12]
    for character in found:
        yield character * _PROBE_LENGTH + "\x7f"
    yield "".join(found) * (_PROBE_LENGTH // len(found)) + "\x7f"


def search(regex: str, text: str, *, seconds: float | None = None) -> bool:
    """Return whether ``re.search`` finds an expression in a text.

    The time is limited in the main thread, where a timer of processor time can end a search.

    Parameters
    ----------
    regex : str
        The expression.
    text : str
        The text.
    seconds : float, optional
        Processor time; None: `SEARCH_SECONDS`.

    Returns
    -------
    bool

    Raises
    ------
    SlowPatternError
        SLOW_PATTERN.
    """
    return _search(regex, text, SEARCH_SECONDS if seconds is None else seconds)


@lru_cache(maxsize=65536)
def _search(regex: str, text: str, seconds: float) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = re.compile(regex)
    with _time_limit(seconds):
        return compiled.search(text) is not None


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SlowPatternError(Reason.SLOW_PATTERN, f"a search took longer than {seconds:g} s", "rewrite the pattern")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)

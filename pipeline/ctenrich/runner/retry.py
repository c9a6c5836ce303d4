"""What follows a job that came back: record its result, try it again, postpone its series, or stop the run."""

from __future__ import annotations

from enum import Enum, auto

from ctenrich.reasons import Reason
from ctenrich.runner.job import JobResult

__all__ = ["NextStep", "PostponedSeries", "RetryPolicy"]


class NextStep(Enum):
    """What the runner does with a result."""

    ACCEPT = auto()
    """The result is final, success or failure."""
    RETRY = auto()
    """Submit the job again, as its next attempt."""
    POSTPONE = auto()
    """Start the series again after another one has ended."""
    STOP = auto()
    """Stop the run: every other job would fail in the same way."""


class RetryPolicy:
    """Decides by the kind of the failure and the number of attempts.

    Parameters
    ----------
    postpone_if_disk_full : bool
        Whether series that end make disk space for others (``fetch.delete_after_use``).
    tries : int
        Attempts of a job in all, if its failures are transient.
    """

    def __init__(self, *, postpone_if_disk_full: bool, tries: int = 3) -> None:
        self._postpone_if_disk_full = postpone_if_disk_full
        self._tries = tries

    def decide(self, result: JobResult, *, others_at_work: bool) -> NextStep:
        """Return what follows a result.

        Parameters
        ----------
        result : JobResult
            Of a job whose lease is still held.
        others_at_work : bool
            Whether another series is in flight, which may free disk space when it ends.
        """
        failure = result.failure
        if failure is None:
            return NextStep.ACCEPT
        if failure.fatal:
            return NextStep.STOP
        if failure.reason is Reason.DISK_FULL and self._postpone_if_disk_full and others_at_work:
            return NextStep.POSTPONE
        if failure.retryable and result.job.attempt < self._tries:
            return NextStep.RETRY
        return NextStep.ACCEPT


class PostponedSeries:
    """Series that must not start before another series has ended."""

    def __init__(self) -> None:
        self._ended = 0
        self._since: dict[str, int] = {}

    def add(self, series_instance_uid: str) -> None:
        """Postpone a series."""
        self._since[series_instance_uid] = self._ended

    def series_ended(self) -> None:
        """Let all postponed series start: one has ended."""
        self._ended += 1

    def __contains__(self, series_instance_uid: str) -> bool:
        """Return whether no series has ended since this one was postponed."""
        return self._since.get(series_instance_uid) == self._ended

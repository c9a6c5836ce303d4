"""Read a ledger, also while a runner writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from ctenrich.ledger.database import Database
from ctenrich.ledger.rows import IssueRow, ProductKey, RunRow, TimingRow
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Outcome, Severity, State

__all__ = ["LedgerReader"]


class LedgerReader:
    """Plan, outcomes, timings, issues and starts of one run.

    Parameters
    ----------
    path : Path
        ``ledger.sqlite`` of the run.

    Raises
    ------
    UsageError
        BAD_RUN if there is no such file, or it is not a ledger of this version.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(Path(path), read_only=True)

    def close(self) -> None:
        """Close the file; the ledger cannot be used afterwards."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self) -> list[ProductKey]:
        """Return the planned products, in the order of the plan."""
        rows = self._database.rows("SELECT series_instance_uid, product FROM plan ORDER BY position")
        return [ProductKey(**row) for row in rows]

    def outcomes(self) -> list[Outcome]:
        """Return all outcomes, in the order of the plan."""
        rows = self._database.rows(
            "SELECT o.* FROM outcomes o LEFT JOIN plan USING (series_instance_uid, product) "
            "ORDER BY plan.position, o.series_instance_uid, o.product"
        )
        return [
            Outcome(
                series_instance_uid=row["series_instance_uid"],
                product=row["product"],
                state=State(row["state"]),
                stage=row["stage"],
                reason=Reason(row["reason"]) if row["reason"] else None,
                message=row["message"],
                seconds=row["seconds"],
                peak_memory=row["peak_memory"],
            )
            for row in rows
        ]

    def timings(self) -> list[TimingRow]:
        """Return all timings, in the order in which they were recorded."""
        return [TimingRow(**row) for row in self._database.rows("SELECT * FROM timings ORDER BY finished, stage")]

    def issues(self) -> list[IssueRow]:
        """Return all issues, sorted by series, product, stage, rule, object and message."""
        rows = self._database.rows(
            "SELECT * FROM issues ORDER BY series_instance_uid, product, stage, rule, object, message"
        )
        return [
            IssueRow(
                series_instance_uid=row["series_instance_uid"],
                product=row["product"],
                stage=row["stage"],
                issue=Issue(
                    rule=row["rule"],
                    severity=Severity(row["severity"]),
                    object=row["object"],
                    message=row["message"],
                    checker=row["checker"],
                    checker_version=row["checker_version"],
                ),
            )
            for row in rows
        ]

    def runs(self) -> list[RunRow]:
        """Return every start of a runner, the first one first."""
        return [RunRow(**row) for row in self._database.rows("SELECT * FROM runs ORDER BY started")]

    def leased_series(self) -> list[str]:
        """Return the Series Instance UIDs of the series that a runner holds a lease of, whether it expired or not."""
        rows = self._database.rows("SELECT series_instance_uid FROM leases WHERE owner != '' ORDER BY 1")
        return [row["series_instance_uid"] for row in rows]

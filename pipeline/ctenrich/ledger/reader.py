"""Read a ledger, also while a runner writes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from ctenrich.ledger.database import Database, damaged_ledger
from ctenrich.ledger.rows import (
    IssueRow,
    LedgerPart,
    OutcomeCounts,
    OutcomeTotals,
    ProductKey,
    RunRow,
    StageTotal,
    TimingRow,
)
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Outcome, Severity, State

__all__ = ["NOT_REQUESTED", "LedgerReader"]

NOT_REQUESTED = "bodypart:none"
"""Version 0.1.0 planned this product where no body part model was named; it was never asked for, and is not read."""

_RANGE = "series_instance_uid >= ?1 AND (?2 IS NULL OR series_instance_uid < ?2)"
"""Condition of a range of series: the first one, and the first one after it or NULL."""

_CHOSEN = "(?1 = 'null' AND product != ?2 OR product IN (SELECT value FROM json_each(?1)))"
"""Condition of chosen products, with the values of `_chosen`."""


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
        return [ProductKey(**row) for row in rows if row["product"] != NOT_REQUESTED]

    def outcomes(self) -> list[Outcome]:
        """Return all outcomes, in the order of the plan."""
        return self._outcomes(
            "SELECT o.* FROM outcomes o LEFT JOIN plan USING (series_instance_uid, product) "
            "ORDER BY plan.position, o.series_instance_uid, o.product"
        )

    def failures(self, reasons: Collection[str] = ()) -> list[ProductKey]:
        """Return the products that failed or were skipped, in the order of the plan.

        Parameters
        ----------
        reasons : collection of str
            Only those with one of these reason codes; empty: all.
        """
        rows = self._database.rows(
            "SELECT o.series_instance_uid, o.product, o.reason FROM outcomes o "
            "LEFT JOIN plan USING (series_instance_uid, product) WHERE o.state IN (?, ?) "
            "ORDER BY plan.position, o.series_instance_uid, o.product",
            (State.FAILED.value, State.SKIPPED.value),
        )
        return [
            ProductKey(row["series_instance_uid"], row["product"])
            for row in rows
            if row["product"] != NOT_REQUESTED and (not reasons or row["reason"] in reasons)
        ]

    def ended_series(self) -> set[str]:
        """Return the Series Instance UIDs of all series that have an outcome and were not left out by a budget."""
        with_outcome = self._database.rows("SELECT series_instance_uid FROM outcomes WHERE product = ''")
        left_out = self._database.rows(  # apart, so that both are read from an index only
            "SELECT series_instance_uid FROM outcomes WHERE product = '' AND state = ?",
            (State.NOT_STARTED_BUDGET.value,),
        )
        return {row[0] for row in with_outcome}.difference(row[0] for row in left_out)

    def ends(self, products: Sequence[str] | None = None) -> OutcomeCounts:
        """Count the outcomes by state and by reason, from an index.

        Parameters
        ----------
        products : sequence of str, optional
            Only these, ``""`` for the series themselves; None: all.
        """
        rows = self._database.rows(
            f"SELECT state, reason, count(*) AS number FROM outcomes WHERE {_CHOSEN} "  # noqa: S608 - constant
            "GROUP BY state, reason ORDER BY state, reason",
            _chosen(products),
        )
        states: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with _readable_values():
            for row in rows:
                states[State(row["state"]).value] += row["number"]
                if row["reason"]:
                    reasons[Reason(row["reason"]).value] += row["number"]
        return OutcomeCounts(states=dict(states), reasons=dict(reasons))

    def totals(self, products: Sequence[str] | None = None) -> OutcomeTotals:
        """Count planned products and their outcomes, and compare the two.

        Parameters
        ----------
        products : sequence of str, optional
            Only these, ``""`` for the series themselves; None: all.
        """
        values = _chosen(products)
        planned = self._database.rows(
            f"SELECT count(*) FROM plan WHERE {_CHOSEN}",  # noqa: S608 - constant
            values,
        )[0][0]
        ends = self.ends(products)
        joined = self._database.rows(
            f"SELECT count(*) FROM plan WHERE {_CHOSEN} AND EXISTS (SELECT 1 FROM outcomes o WHERE "  # noqa: S608 - constant
            "o.series_instance_uid = plan.series_instance_uid AND o.product = plan.product)",
            values,
        )[0][0]
        return OutcomeTotals(
            planned=planned,
            missing=planned - joined,
            unplanned=sum(ends.states.values()) - joined,
            states=ends.states,
            reasons=ends.reasons,
        )

    def outcomes_of(self, series_instance_uid: str) -> dict[str, Outcome]:
        """Return the outcomes of one series: product -> outcome, in the order of the plan; ``""`` is the series."""
        found = self._outcomes(
            "SELECT o.* FROM outcomes o LEFT JOIN plan USING (series_instance_uid, product) "
            "WHERE o.series_instance_uid = ? ORDER BY plan.position, o.product",
            (series_instance_uid,),
        )
        return {outcome.product: outcome for outcome in found}

    def _outcomes(self, sql: str, values: tuple[str | None, ...] = ()) -> list[Outcome]:
        rows = self._database.rows(sql, values)
        with _readable_values():
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
                if row["product"] != NOT_REQUESTED
            ]

    def timings(self) -> list[TimingRow]:
        """Return all timings, in the order in which they were recorded."""
        return [TimingRow(**row) for row in self._database.rows("SELECT * FROM timings ORDER BY finished, stage")]

    def some_timings(self, limit: int) -> list[TimingRow]:
        """Return all timings; if there are far more than `limit`, about so many that are spread over the whole run."""
        last = self._database.rows("SELECT coalesce(max(rowid), 0) FROM timings")[0][0]
        if last <= limit:
            return self.timings()
        rows = self._database.rows(
            "WITH RECURSIVE chosen(id) AS (SELECT 1 UNION ALL SELECT id + ?1 FROM chosen WHERE id + ?1 <= ?2) "
            "SELECT timings.* FROM chosen JOIN timings ON timings.rowid = chosen.id",
            (-(-last // limit), last),
        )
        return [TimingRow(**row) for row in rows]

    def stage_totals(self) -> list[StageTotal]:
        """Return count, median and totals of the timings of every stage that has run."""
        rows = self._database.rows(
            "SELECT stage, count(*) AS count, total(cpu_seconds) AS cpu_seconds, max(peak_memory) AS peak_memory "
            "FROM timings GROUP BY stage"
        )
        found = []
        for row in rows:
            middle = self._database.rows(
                "SELECT avg(seconds) FROM (SELECT seconds FROM timings WHERE stage = ? ORDER BY seconds "
                "LIMIT ? OFFSET ?)",
                (row["stage"], 2 - row["count"] % 2, (row["count"] - 1) // 2),
            )
            found.append(StageTotal(**row, median_seconds=middle[0][0]))
        return found

    def issues(self) -> list[IssueRow]:
        """Return all issues, sorted by series, product, stage, rule, object and message."""
        return self._issues("", None)

    def series(self) -> set[str]:
        """Return the Series Instance UIDs of all series with an outcome, a timing or an issue."""
        rows = self._database.rows(
            "SELECT series_instance_uid FROM outcomes UNION SELECT series_instance_uid FROM timings "
            "UNION SELECT series_instance_uid FROM issues"
        )
        return {row[0] for row in rows}

    def part(self, first: str, after: str | None) -> LedgerPart:
        """Return outcomes, timings and issues of a range of series, sorted by series and product.

        Parameters
        ----------
        first : str
            Smallest Series Instance UID, as texts are sorted.
        after : str or None
            Smallest one that is not part of the range; None: there is none.
        """
        timings = self._database.rows(
            f"SELECT * FROM timings WHERE {_RANGE} "  # noqa: S608 - constant
            "ORDER BY series_instance_uid, product, stage, attempt",
            (first, after),
        )
        outcomes = self._outcomes(
            f"SELECT * FROM outcomes WHERE {_RANGE} ORDER BY series_instance_uid, product",  # noqa: S608 - constant
            (first, after),
        )
        with _readable_values():
            rows = tuple(TimingRow(**row) for row in timings)
        return LedgerPart(tuple(outcomes), rows, tuple(self._issues(first, after)))

    def _issues(self, first: str, after: str | None) -> list[IssueRow]:
        rows = self._database.rows(
            f"SELECT * FROM issues WHERE {_RANGE} "  # noqa: S608 - constant
            "ORDER BY series_instance_uid, product, stage, rule, object, message",
            (first, after),
        )
        with _readable_values():
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
        rows = self._database.rows("SELECT * FROM runs ORDER BY started")
        with _readable_values():
            return [RunRow(**row) for row in rows]

    def leased_series(self) -> list[str]:
        """Return the Series Instance UIDs of the series that a runner holds a lease of, whether it expired or not."""
        rows = self._database.rows("SELECT series_instance_uid FROM leases WHERE owner != '' ORDER BY 1")
        return [row["series_instance_uid"] for row in rows]


def _chosen(products: Sequence[str] | None) -> tuple[str, str]:
    return json.dumps(None if products is None else list(products)), NOT_REQUESTED


@contextmanager
def _readable_values() -> Iterator[None]:
    """Raise DAMAGED_LEDGER for a state, reason, severity or column that no version of this software writes."""
    try:
        yield
    except (ValueError, TypeError, IndexError) as error:
        raise damaged_ledger(str(error)[:100]) from error

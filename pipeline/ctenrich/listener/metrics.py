"""Metrics of a station in the text format of Prometheus; no label holds a name or identifier of a patient."""

from __future__ import annotations

import threading
from collections import Counter
from types import MappingProxyType

from ctenrich.delivery.metrics import DELIVERY_METRICS
from ctenrich.listener.cases import CaseState
from ctenrich.listener.database import StationDatabase

__all__ = ["METRICS", "Counters", "render"]

METRICS = MappingProxyType(
    {
        "ctenrich_received_total": ("counter", "Objects by what became of them: stored, duplicate, conflict, refused."),
        "ctenrich_received_bytes_total": ("counter", "Bytes of the objects that were stored."),
        "ctenrich_refused_total": ("counter", "Connections and associations that were refused, by reason."),
        "ctenrich_associations_total": ("counter", "Associations and deliveries by how they ended."),
        "ctenrich_associations_open": ("gauge", "Associations at this moment."),
        "ctenrich_watch_files": ("gauge", "Files of the watch folder: growing, junk, closed, taken but not deleted."),
        "ctenrich_cases": ("gauge", "Revisions of cases by state."),
        "ctenrich_cases_held": ("gauge", "Cases that are held."),
        "ctenrich_case_seconds_sum": ("counter", "Seconds between the closing and the end of the revisions that ran."),
        "ctenrich_case_seconds_count": ("counter", "Number of revisions that ran."),
        "ctenrich_disk_free_bytes": ("gauge", "Free bytes of the disk of the station."),
        "ctenrich_disk_reserve_bytes": ("gauge", "Free bytes below which objects are refused."),
        **DELIVERY_METRICS,
    }
)
"""Name -> type and meaning."""


class Counters:
    """Counts events of one process; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, name: str, label: str = "", value: str = "", amount: int = 1) -> None:
        """Count an event.

        Parameters
        ----------
        name : str
            A counter of :data:`METRICS`.
        label, value : str
            Label and its value.
        amount : int
            How much.
        """
        with self._lock:
            self._counts[name, label, value] += amount

    def items(self) -> list[tuple[tuple[str, str, str], int]]:
        """Counters with label and value, sorted."""
        with self._lock:
            return sorted(self._counts.items())


def render(counters: Counters, database: StationDatabase, gauges: dict[tuple[str, str, str], float]) -> str:
    """Return all metrics as text.

    Parameters
    ----------
    counters : Counters
        Events of this process.
    database : StationDatabase
        Of the station.
    gauges : dict
        (name, label, value) -> further numbers.

    Returns
    -------
    str
        Prometheus' text format 0.0.4.
    """
    values: dict[tuple[str, str, str], float] = {**dict(counters.items()), **gauges}
    states = {row["state"]: row["number"] for row in database.rows(
        "SELECT state, count(*) AS number FROM revisions GROUP BY state"
    )}  # fmt: skip
    for state in CaseState:
        values["ctenrich_cases", "state", state.value] = states.get(state.value, 0)
    values["ctenrich_cases_held", "", ""] = database.value("SELECT count(*) FROM cases WHERE held <> ''")
    row = database.rows(
        "SELECT count(*) AS number, sum(ended - closed) AS seconds FROM revisions "
        "WHERE state IN ('done', 'failed') AND closed IS NOT NULL AND ended IS NOT NULL"
    )[0]
    values["ctenrich_case_seconds_sum", "", ""] = max(0.0, row["seconds"] or 0.0)
    values["ctenrich_case_seconds_count", "", ""] = row["number"]
    lines = []
    for name, (kind, meaning) in METRICS.items():
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        found = sorted((key, value) for key, value in values.items() if key[0] == name)
        for (_, label, text), value in found or [((name, "", ""), 0)]:
            labels = f'{{{label}="{text}"}}' if label else ""
            lines.append(f"{name}{labels} {value:g}" if value < 1e6 else f"{name}{labels} {value:.0f}")
    return "\n".join(lines) + "\n"

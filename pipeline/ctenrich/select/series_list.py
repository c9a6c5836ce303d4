"""Somebody's list of series instead of a query's choice: every one of them is judged, and none is lost."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ctenrich.catalog.base import Catalog
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.select.selection import Selection, excluded_table, select_cohort
from ctenrich.select.spool import heads_of
from ctenrich.workspace import require_file

__all__ = ["read_series_list", "select_series_list"]

_UID = re.compile(r"[0-9.]{1,64}")
_COLUMN = "SeriesInstanceUID"


def read_series_list(path: Path) -> tuple[str, ...]:
    """Read Series Instance UIDs from a file: one per line, or the column SeriesInstanceUID of a CSV.

    Raises
    ------
    UsageError
        NOT_FOUND, EMPTY_INPUT, or BAD_PARAMETER with the number of the line that holds no UID.
    """
    require_file(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not text") from error
    try:
        found = _numbered_uids(lines)
    except csv.Error as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a CSV file: {error}") from error
    for number, text in found:
        if _UID.fullmatch(text.strip()) is None:
            raise UsageError(Reason.BAD_PARAMETER, f"line {number} of {path.name} holds no Series Instance UID")
    if not found:
        raise UsageError(Reason.EMPTY_INPUT, f"{path.name} names no series")
    return tuple(dict.fromkeys(text.strip() for _, text in found))


def _numbered_uids(lines: Sequence[str]) -> list[tuple[int, str]]:
    if lines and _COLUMN in next(csv.reader(lines[:1])):
        return [(number, row[_COLUMN] or "") for number, row in enumerate(csv.DictReader(lines), start=2)]
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def select_series_list(
    series: Sequence[str],
    catalog: Catalog,
    parameters: Mapping[str, object] | None = None,
    *,
    name: str = "cohort",
    progress: Progress = SILENT,
) -> Selection:
    """Apply the rules of the shipped query for this catalog to the series of a list.

    Parameters
    ----------
    series : sequence of str
        Series Instance UIDs, as `read_series_list` returns them.
    catalog : Catalog
        The catalog that contains the series.
    parameters : mapping, optional
        Further @parameters of the query.
    name : str
        Name of the cohort.
    progress : Progress
        Receives the steps of the catalog.

    Returns
    -------
    Selection
        Series that the catalog does not have are excluded as NOT_IN_CATALOG.
    """
    query = "select_ct_series" if catalog.instance_level else "select_idc_series"
    given = {**(parameters or {}), "series": list(series)}
    return with_missing(select_cohort(query, catalog, given, name=name, progress=progress))


def with_missing(selection: Selection) -> Selection:
    """The same selection, with each series of its parameter ``series`` that the catalog lacks as NOT_IN_CATALOG."""
    rows = selection.excluded.to_pylist()
    chosen = {s.series_instance_uid for s in heads_of(selection.cohort.series)}
    known = chosen | {row["series_instance_uid"] for row in rows}
    reason = Reason.NOT_IN_CATALOG.value
    asked = selection.parameters.get("series")
    for uid in asked if isinstance(asked, list) else ():
        if uid not in known:
            empty = dict.fromkeys(("collection_id", "patient_id", "study_instance_uid"), "")
            rows.append({**empty, "series_instance_uid": uid, "reason": reason, "reasons": [reason]})
    rows.sort(key=lambda row: str(row["series_instance_uid"]))
    return replace(selection, excluded=excluded_table(rows))

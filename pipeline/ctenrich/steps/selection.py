"""Selecting a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctenrich.catalog import open_catalog
from ctenrich.catalog.base import Catalog
from ctenrich.catalog.bigquery import BigQueryCatalog, check_table_name
from ctenrich.catalog.folder import index_folders
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Cohort
from ctenrich.select.cohort_file import cohort_table
from ctenrich.select.compare import CohortDiff, relock
from ctenrich.select.files import without_local_paths, without_patients, write_cohort
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.select.series_list import read_series_list, select_series_list
from ctenrich.settings import FetchSettings

__all__ = ["SelectRequest", "index", "select", "select_request"]


def index(
    folders: Sequence[str | Path], catalog: str | Path, *, collection_id: str = "local", progress: Progress = SILENT
) -> Any:
    """Index folders of DICOM files in a DuckDB catalog; only new and changed files are read.

    Parameters
    ----------
    folders : sequence of str or Path
        Searched with their subfolders.
    catalog : str or Path
        DuckDB file; created or updated.
    collection_id : str
        collection_id of the rows that are read now.
    progress : Progress
        Receives one step per file.

    Returns
    -------
    IndexSummary
        Numbers of files, instances, series and faults.

    Raises
    ------
    UsageError
        NOT_FOUND: a folder is missing. BAD_PARAMETER: the file is not such a catalog.
    """
    return index_folders([Path(f) for f in folders], Path(catalog), collection_id=collection_id, progress=progress)


def select(
    query: str | Path,
    catalog: str,
    out: str | Path,
    *,
    parameters: Mapping[str, object] | None = None,
    progress: Progress = SILENT,
) -> Cohort:
    """Select series by SQL; write the cohort file, and beside it the excluded series and the lock.

    Parameters
    ----------
    query : str or Path
        A file, or the name of one in queries/.
    catalog : str
        ``folder:FILE``, ``idc``, ``parquet:URI`` or ``bigquery[:PROJECT]``.
    out : str or Path
        Cohort file (``.parquet``).
    parameters : mapping, optional
        Values of the query's @parameters.
    progress : Progress
        Receives the steps of the catalog.

    Returns
    -------
    Cohort
        The selected series.

    Raises
    ------
    CtenrichError
        The errors of the catalog and of the query.
    """
    selection = select_cohort(
        str(query), open_catalog(catalog), parameters or {}, name=Path(out).stem, progress=progress
    )
    write_cohort(selection, Path(out))
    return selection.cohort


@dataclass(frozen=True)
class SelectRequest:
    """Arguments of ``ctenrich select``."""

    query: str
    catalog: str
    out: Path
    parameters: Mapping[str, object]
    series_list: Path | None = None
    lock: Path | None = None
    save_table: str | None = None
    byte_limit: int | None = None
    portable: bool = False
    """Whether the cohort file is written without the paths of this computer."""
    identified: bool = False
    """Whether the BigQuery table may have the Patient IDs of a catalog of the user's own."""
    partial: bool = False
    """Select from a folder catalog although its last crawl did not end."""
    memory: int | None = None
    """Bytes that selecting may take; None: half of this machine's memory."""
    fetch: FetchSettings | None = None
    """How an archive is reached; None: as the default settings have it."""


def select_request(request: SelectRequest, *, progress: Progress = SILENT) -> tuple[Selection, CohortDiff | None]:
    """Select by a query, a list of series or a lock; write the cohort file and, if requested, a BigQuery table.

    Parameters
    ----------
    request : SelectRequest
        Exactly one of `query`, `series_list` and `lock` is given.
    progress : Progress
        Receives the steps of the catalog.

    Returns
    -------
    tuple of Selection and (CohortDiff or None)
        The selected series, and their differences from the lock, if one was given.

    Raises
    ------
    UsageError
        BAD_PARAMETER unless exactly one of query, list and lock is given, or where parameters are given beside a lock;
        the errors of the catalog.
    """
    if sum(map(bool, (request.query, request.series_list, request.lock))) != 1:
        raise UsageError(Reason.BAD_PARAMETER, "give exactly one of QUERY, --series-list and --lock")
    given = ", ".join(sorted(request.parameters))
    if request.lock is not None and given:
        hint = f"leave them out to repeat the selection of {request.lock.name}, or give its query in place of the lock"
        raise UsageError(Reason.BAD_PARAMETER, f"a lock has its own parameters, so these cannot be set: {given}", hint)
    if request.series_list is not None and "series" in request.parameters:
        raise UsageError(Reason.BAD_PARAMETER, "give the series in --series-list or as a parameter, not both")
    catalog = open_catalog(
        request.catalog,
        byte_limit=request.byte_limit,
        partial=request.partial,
        memory=request.memory,
        fetch=request.fetch,
    )
    table = _table_writer(catalog, request.save_table)
    difference: CohortDiff | None = None
    name = request.out.stem
    if request.lock is not None:
        selection, difference = relock(request.lock, catalog, name=name, progress=progress)
    elif request.series_list is not None:
        chosen = read_series_list(request.series_list)
        selection = select_series_list(chosen, catalog, request.parameters, name=name, progress=progress)
    else:
        selection = select_cohort(request.query, catalog, request.parameters, name=name, progress=progress)
    if request.portable:
        selection = replace(selection, cohort=without_local_paths(selection.cohort))
    write_cohort(selection, request.out)
    if request.save_table and table is not None:
        shared = without_local_paths(selection.cohort)
        if selection.catalog not in _PUBLIC_CATALOGS and not request.identified:
            shared = without_patients(shared)
        table.save_table(request.save_table, cohort_table(shared))
    return selection, difference


_PUBLIC_CATALOGS = frozenset({"idc", "bigquery"})
"""Catalogs of collections whose patients' identity was removed before they were published."""


def _table_writer(catalog: Catalog, name: str | None) -> BigQueryCatalog | None:
    """Return the catalog that writes the BigQuery table `name`; checks name and credentials before the selection."""
    if not name:
        return None
    check_table_name(name)
    return catalog if isinstance(catalog, BigQueryCatalog) else BigQueryCatalog(name.partition(".")[0])

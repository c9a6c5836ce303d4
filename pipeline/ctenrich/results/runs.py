"""Write the run tables from the records and the ledger of a run, as Parquet beside the object tables.

Series are read in parts of a fixed size, by several processes if there are many; a part is written before the next
ones are needed, so that memory does not grow with the cohort.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.reader import LedgerReader
from ctenrich.progress import SILENT, Progress
from ctenrich.results.kept_parts import KeptParts, Part, file_states, parts_of, stable_parts
from ctenrich.results.organs import cohort_rows, flag_organs
from ctenrich.results.outliers import find_outliers
from ctenrich.results.parts import TableFiles, WorkerPool
from ctenrich.results.schema import RUN_TABLES, arrow_schema
from ctenrich.results.series_rows import RECORD_TABLES, add_record_rows
from ctenrich.workspace import Workspace, load_record

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["build_run_tables"]

Row = dict[str, Any]

_RENAME = {"series_instance_uid": "SeriesInstanceUID"}
_SMALLEST, _LARGEST = 32, 96
"""Series of a part; the row groups of the tables are these parts, whatever the number of processes."""
_PARALLEL_FROM = 256
_LEDGER_TABLES = ("outcomes", "issues", "timings")
_SERIES_TABLES = (*RECORD_TABLES, *_LEDGER_TABLES, "cohort_series")
"""Tables with rows of single series."""


@dataclass(frozen=True)
class _Requests:
    """The part of ``run.json`` that names the products."""

    products: tuple[RequestedProduct, ...]


@dataclass(frozen=True, kw_only=True)
class _SeriesPart:
    """Some series in the order of their UIDs, with their rows of the cohort file."""

    workspace: Workspace
    uids: tuple[str, ...]
    after: str | None
    """First Series Instance UID of the next part; None for the last part."""
    cohort: Mapping[str, Row]
    kept: KeptParts | None = None


def build_run_tables(
    workspace: Workspace, *, progress: Progress = SILENT, processes: int = 1, kept: KeptParts | None = None
) -> tuple[dict[str, Path], list[str]]:
    """Write the run tables of a run.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    progress : Progress
        Advanced by every series.
    processes : int
        Processes that read records; those of a few hundred series are read in this process. The bytes are the same.
    kept : KeptParts, optional
        Where parts are kept, and found again if nothing of which they were made has changed.

    Returns
    -------
    tables : dict
        Table name -> file.
    names : list of str
        Names of the kept parts.
    """
    ledger = workspace.root / "ledger.sqlite"
    cohort = _Cohort(workspace.root / "cohort.parquet")
    uids = sorted({*workspace.series_uids(), *cohort.uids, *_series_of_ledger(ledger)})
    schemas = {name: arrow_schema(name) for name in RUN_TABLES if name != "organs"}
    names: list[str] = []
    progress.start("records", len(uids))
    with (
        WorkerPool(processes if len(uids) >= _PARALLEL_FROM else 1) as pool,
        _organs_file(workspace.tables) as organs,
        TableFiles(workspace.tables, schemas) as tables,
    ):
        for name, part in parts_of(pool, _kept_or_made, _parts(workspace, uids, cohort, kept), kept):
            names.append(name)
            organs.write_table(part.tables.pop("organs"))
            progress.advance("records", part.tables["series"].num_rows)
            tables.write(part.tables)
        tables.write(
            {
                "products": _arrow_table("products", _requested_rows(workspace.root / "run.json")),
                "runs": _arrow_table("runs", _run_rows(ledger)),
            }
        )
    progress.finish("records")
    return {name: workspace.tables / f"{name}.parquet" for name in RUN_TABLES}, names


def _parts(workspace: Workspace, uids: Sequence[str], cohort: _Cohort, kept: KeptParts | None) -> Iterator[_SeriesPart]:
    for start, end in stable_parts(uids, _SMALLEST, _LARGEST):
        chosen = tuple(uids[start:end])
        after = uids[end] if end < len(uids) else None
        yield _SeriesPart(workspace=workspace, uids=chosen, after=after, cohort=cohort.rows(chosen), kept=kept)


def _kept_or_made(part: _SeriesPart) -> tuple[str, Part]:
    """Load the kept rows of some series with the name of the part, or make them."""
    ledger = _ledger_rows(part)
    if part.kept is None:
        return "", Part(tables=_tables_of_series(part, ledger))
    folders = [part.workspace.series_dir(uid) for uid in part.uids]
    made_from = ("|".join(part.uids), repr(part.cohort), repr(ledger), file_states(part.workspace.root, folders))
    name = part.kept.name("series", *made_from)
    found = part.kept.find(name)
    if found is None:
        found = Part(tables=_tables_of_series(part, ledger))
        part.kept.keep(name, found)
    return name, found


def _tables_of_series(part: _SeriesPart, ledger: Mapping[str, list[Row]]) -> dict[str, pa.Table]:
    """Make the rows of some series; the flags of ``organs`` lack those that need the whole cohort."""
    rows: dict[str, list[Row]] = {name: [] for name in _SERIES_TABLES}
    rows |= ledger
    for uid in part.uids:
        add_record_rows(part.workspace, uid, part.cohort.get(uid, {}), rows)
    _add_patients(rows)
    rows["cohort_series"] = cohort_rows(rows)
    flag_organs(rows["organs"], rows["cohort_series"], rows["issues"])
    return {name: _arrow_table(name, found) for name, found in rows.items()}


def _arrow_table(name: str, rows: list[Row]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=arrow_schema(name))


def _add_patients(rows: dict[str, list[Row]]) -> None:
    """Add the Patient ID of the cohort file to the rows of every table."""
    patients = {row["SeriesInstanceUID"]: row.get("PatientID") for row in rows["series"]}
    for found in rows.values():
        for row in found:
            if "SeriesInstanceUID" in row:
                row["PatientID"] = patients.get(row["SeriesInstanceUID"])


# ---------------------------------------------------------------- cohort file and run.json


_COHORT_COLUMNS = {
    "SeriesInstanceUID": "seriesinstanceuid",
    "StudyInstanceUID": "studyinstanceuid",
    "PatientID": "patientid",
    "collection_id": "collectionid",
    "license_short_name": "licenseshortname",
    "source_doi": "sourcedoi",
    "_idc": "crdcseriesuuid",
    "_facts": "facts",
}
"""Name here -> column of the cohort file, without regard to case and underscores."""


class _Cohort:
    """Columns of a cohort file that the run tables repeat, kept as Arrow data.

    Parameters
    ----------
    path : Path
        The cohort file; without it there are no series.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.uids: dict[str, int] = {}
        """Series Instance UID -> its first row."""
        if not path.is_file():
            return
        names = {n.lower().replace("_", ""): n for n in pq.read_schema(path).names}
        self._found = {key: names[name] for key, name in _COHORT_COLUMNS.items() if name in names}
        self._table = pq.read_table(path, columns=sorted(set(self._found.values())))
        for index, uid in enumerate(self._table[self._found["SeriesInstanceUID"]].to_pylist()):
            self.uids.setdefault(str(uid), index)

    def rows(self, uids: Sequence[str]) -> dict[str, Row]:
        """Rows of the series that the cohort has, by Series Instance UID."""
        known = [uid for uid in uids if uid in self.uids]
        if not known:
            return {}
        found = self._table.take([self.uids[uid] for uid in known]).to_pylist()
        return {
            uid: {key: row[column] for key, column in self._found.items()}
            for uid, row in zip(known, found, strict=True)
        }


def _requested_rows(path: Path) -> list[Row]:
    """One row per product that was requested; none for a folder without ``run.json``."""
    if not path.is_file():
        return []
    return [
        {
            "product": str(request.product),
            "alias": request.alias or None,
            "kind": str(request.product.kind),
            "model": request.product.model or None,
            "model_sha256": request.model_sha256 or None,
            "missing": str(request.missing) if request.missing else None,
        }
        for request in load_record(path, _Requests).products
    ]


# ---------------------------------------------------------------- ledger


def _series_of_ledger(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with LedgerReader(path) as ledger:
        return ledger.series()


def _run_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with LedgerReader(path) as ledger:
        return [_table_row(asdict(start), arrow_schema("runs").names) for start in ledger.runs()]


def _ledger_rows(part: _SeriesPart) -> dict[str, list[Row]]:
    """Rows of the tables of some series that come from the ledger; none if there is no ledger."""
    path = part.workspace.root / "ledger.sqlite"
    if not path.is_file():
        return {}
    with LedgerReader(path) as ledger:
        found = ledger.part(part.uids[0], part.after)
    issues = [
        {"series_instance_uid": r.series_instance_uid, "product": r.product, "stage": r.stage, **asdict(r.issue)}
        for r in found.issues
    ]
    rows = {
        "outcomes": [asdict(outcome) | {"reason": outcome.reason or ""} for outcome in found.outcomes],
        "issues": issues,
        "timings": [asdict(timing) for timing in found.timings],
    }
    return {name: [_table_row(row, arrow_schema(name).names) for row in made] for name, made in rows.items()}


def _table_row(row: Row, columns: Sequence[str]) -> Row:
    """Rename and convert the values of a ledger row, and drop those that the table has no column for."""
    renamed = {_RENAME.get(key, key): value for key, value in row.items()}
    for key in ("started", "finished"):
        if isinstance(renamed.get(key), float):
            renamed[key] = datetime.fromtimestamp(renamed[key], UTC)
    return {key: value for key, value in renamed.items() if key in columns}


# ---------------------------------------------------------------- organs


@contextmanager
def _organs_file(folder: Path) -> Iterator[Any]:
    """Yield a writer of rows of ``organs``; outliers among their volumes are flagged when all rows are there."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    schema = arrow_schema("organs")
    with TemporaryDirectory(prefix=".organs-", dir=folder) as temporary:
        path = Path(temporary) / "organs.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            yield writer
        columns = pq.read_table(path, columns=["product", "organ", "volume_ml"])
        groups = [columns[name].combine_chunks().dictionary_encode().indices for name in ("product", "organ")]
        volumes = columns["volume_ml"].to_numpy(zero_copy_only=False)
        keys = np.stack([group.to_numpy(zero_copy_only=False) for group in groups], axis=1)
        outliers = find_outliers(keys, volumes)
        start = 0
        with TableFiles(folder, {"organs": schema}) as out, pq.ParquetFile(path) as kept:
            for number in range(kept.num_row_groups):
                table = kept.read_row_group(number)
                out.write({"organs": _flagged(table, outliers, start)})
                start += table.num_rows


def _flagged(table: pa.Table, outliers: Mapping[int, float], start: int) -> pa.Table:
    """Add the outliers among the rows from row `start` of the whole table to the reasons for a review."""
    found = {index - start: outliers[index] for index in range(start, start + table.num_rows) if index in outliers}
    if not found:
        return table
    rows = table.to_pylist()
    for index, score in found.items():
        reasons = [f"volume outlier (z {score:+.1f})", *filter(None, [rows[index]["review_reasons"]])]
        rows[index] |= {"needs_review": True, "review_reasons": "; ".join(reasons)}
    return _arrow_table("organs", rows)

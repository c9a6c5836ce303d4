"""The files of a data set: objects and tables of a run's finished products, copied with their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ctenrich.errors import InputError, UsageError
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.records import Product
from ctenrich.results.complete import check_tables
from ctenrich.results.describe import DescribedColumn, described_columns
from ctenrich.results.query import table_files
from ctenrich.results.schema import OBJECT_TABLES, TABLE_TEXTS
from ctenrich.results.tables import object_files
from ctenrich.review.store import ReviewStore
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, atomic_open, atomic_path, sha256_of_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["OBJECTS", "TABLES", "Contents", "ReleasedFile", "ReleasedTable", "copy_contents", "plan_contents"]

OBJECTS = "dicom"
"""Folder of the objects in a data set."""
TABLES = "tables"
_RELEASED_TABLES = (
    *("organs", "cohort_series", *OBJECT_TABLES, "series", "slices", "segments", "rois", "landmarks", "proofs"),
    *("radiomics_features", "deep_features", "evaluation", "evaluation_differences"),
    *("evaluation_variance", "repeatability", "dose_metrics", "dvh_curves", "dose_checks"),
)
"""Tables about results. Not released: those about the calls, machines and reviewers of a run."""
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ReleasedFile:
    """One file of a data set."""

    path: str
    """Relative to the data set's folder, with ``/``."""
    media_type: str
    text: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ReleasedTable:
    """A table of a data set."""

    name: str
    text: str
    """What one row is."""
    rows: int
    columns: tuple[DescribedColumn, ...]


@dataclass(frozen=True, kw_only=True)
class _PlannedObject:
    source: Path
    target: str
    sop_instance_uid: str
    kind: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What of a run is released."""

    products: frozenset[tuple[str, str]]
    """(Series Instance UID, key of the product)."""
    objects: tuple[_PlannedObject, ...]
    left_out: int
    """Objects of products that are not done, or were not accepted."""
    workspace: Workspace

    @property
    def series(self) -> int:
        """Number of series with a released product."""
        return len({uid for uid, _ in self.products})

    def kinds(self) -> dict[str, int]:
        """Kind of objects -> number, in alphabetical order."""
        found: dict[str, int] = {}
        for item in self.objects:
            found[item.kind] = found.get(item.kind, 0) + 1
        return dict(sorted(found.items()))

    def parsed_products(self) -> Iterator[tuple[str, Product]]:
        """Series Instance UID and product, sorted, of those whose records are there."""
        store = SeriesStore(self.workspace)
        for uid in sorted({uid for uid, _ in self.products}):
            yield from ((uid, product) for product in store.products(uid) if (uid, str(product)) in self.products)


def plan_contents(workspace: Workspace, *, accepted_only: bool = False) -> Contents:
    """Choose the objects of a run that are released: those of products that are done, with a passed proof.

    Parameters
    ----------
    workspace : Workspace
        The run, with its tables.
    accepted_only : bool
        Whether only products are released that reviewers have accepted.

    Returns
    -------
    Contents

    Raises
    ------
    UsageError
        NOT_PREPARED if the tables are missing or older than the objects, or if nothing can be released; BAD_RUN if the
        tables have another schema.
    """
    import pyarrow.parquet as pq

    files = table_files(workspace)
    if not {"objects", "outcomes", "proofs"} <= set(files):
        raise UsageError(Reason.NOT_PREPARED, "the run has no tables yet", "run: ctenrich report RUN")
    check_tables(workspace)
    done = _done_products(files["outcomes"]) & _proven_products(files["proofs"])
    if accepted_only:
        done &= ReviewStore(workspace).accepted()
    rows = pq.read_table(files["objects"], columns=list(_OBJECT_COLUMNS)).to_pylist()
    listed = {r["path"] for r in rows}
    there = {path.relative_to(workspace.root).as_posix() for path in object_files(workspace)}
    if listed != there:
        message = f"{len(listed ^ there)} objects are not as the tables list them"
        raise UsageError(Reason.NOT_PREPARED, message, "run: ctenrich report RUN")
    chosen = [r for r in rows if (r["SeriesInstanceUID"], r["product"]) in done]
    if not chosen:
        what = "accepted" if accepted_only else "done, with a passed proof"
        raise UsageError(Reason.NOT_PREPARED, f"no product of the run is {what}", "look at: ctenrich status RUN")
    objects = sorted((_planned_object(workspace, row) for row in chosen), key=lambda item: item.target)
    released = frozenset((r["SeriesInstanceUID"], r["product"]) for r in chosen)
    return Contents(products=released, objects=tuple(objects), left_out=len(rows) - len(chosen), workspace=workspace)


_OBJECT_COLUMNS = ("path", "SeriesInstanceUID", "product", "SOPInstanceUID", "kind", "sha256")
_ROWS = 65_536
"""Rows of tables of outcomes and checks in memory."""


def _done_products(outcomes: Path) -> set[tuple[str, str]]:
    """(Series Instance UID, product) of every product that is done."""
    import pyarrow.parquet as pq

    found: set[tuple[str, str]] = set()
    with pq.ParquetFile(outcomes) as file:
        for batch in file.iter_batches(_ROWS, columns=["SeriesInstanceUID", "product", "state"]):
            rows = zip(*(batch[name].to_pylist() for name in ("SeriesInstanceUID", "product", "state")), strict=True)
            found.update((uid, product) for uid, product, state in rows if product and state == "done")
    return found


def _proven_products(proofs: Path) -> set[tuple[str, str]]:
    """(Series Instance UID, product) of every product of which each check passed."""
    import pyarrow.parquet as pq

    proven: set[tuple[str, str]] = set()
    failed: set[tuple[str, str]] = set()
    with pq.ParquetFile(proofs) as file:
        for batch in file.iter_batches(_ROWS, columns=["SeriesInstanceUID", "product", "passed"]):
            rows = zip(*(batch[name].to_pylist() for name in ("SeriesInstanceUID", "product", "passed")), strict=True)
            for uid, product, passed in rows:
                (proven if passed else failed).add((uid, product))
    return proven - failed


def _planned_object(workspace: Workspace, row: dict[str, Any]) -> _PlannedObject:
    uid, product, _, name = PurePosixPath(row["path"]).parts[-4:]  # .../UID/PRODUCT/objects/NAME
    target = PurePosixPath(OBJECTS, uid, product, name).as_posix()
    return _PlannedObject(
        source=workspace.root / row["path"],
        target=target,
        sop_instance_uid=row["SOPInstanceUID"],
        kind=row["kind"],
        sha256=row["sha256"],
    )


def copy_contents(
    contents: Contents, out: Path, progress: Progress
) -> tuple[tuple[ReleasedFile, ...], tuple[ReleasedTable, ...]]:
    """Copy objects and tables; tables get the rows of the released products only.

    Parameters
    ----------
    contents : Contents
        What is released.
    out : Path
        Folder of the data set.
    progress : Progress
        Advanced by one for every file.

    Returns
    -------
    files : tuple of ReleasedFile
        Objects and tables, sorted by path.
    tables : tuple of ReleasedTable
        The tables, in the order in which tables are listed.

    Raises
    ------
    InputError
        HASH_MISMATCH if an object has changed since the tables were written.
    """
    import pyarrow.parquet as pq

    sources = {name: path for name, path in table_files(contents.workspace).items() if name in _RELEASED_TABLES}
    progress.start("release", len(contents.objects) + len(sources))
    found = []
    for item in contents.objects:
        found.append(_copy_object(item, out))
        progress.advance("release")
    uids = frozenset(item.sop_instance_uid for item in contents.objects)
    tables = []
    for name in (name for name in TABLE_TEXTS if name in sources):
        target = out / TABLES / f"{name}.parquet"
        rows = _copy_table(sources[name], target, _filter_of(name, contents.products, uids))
        columns = described_columns(pq.read_schema(target))
        tables.append(ReleasedTable(name=name, text=TABLE_TEXTS[name], rows=rows, columns=columns))
        found.append(
            ReleasedFile(
                path=f"{TABLES}/{name}.parquet",
                media_type="application/vnd.apache.parquet",
                text=f"Table {name}: one row per {TABLE_TEXTS[name]}",
                size=target.stat().st_size,
                sha256=sha256_of_file(target),
            )
        )
        progress.advance("release")
    progress.finish("release")
    return tuple(sorted(found, key=lambda item: item.path)), tuple(tables)


def _copy_object(item: _PlannedObject, out: Path) -> ReleasedFile:
    digest = hashlib.sha256()
    target = out / item.target
    target.parent.mkdir(parents=True, exist_ok=True)
    with item.source.open("rb") as reading, atomic_open(target) as writing:
        while block := reading.read(_BLOCK):
            digest.update(block)
            writing.write(block)
        size = writing.tell()
    if digest.hexdigest() != item.sha256:
        message = f"object {item.sop_instance_uid} has changed since the tables were written"
        raise InputError(Reason.HASH_MISMATCH, message, "run: ctenrich verify RUN, then ctenrich report RUN")
    return ReleasedFile(path=item.target, media_type="application/dicom", text=item.kind, size=size, sha256=item.sha256)


_Filter = Callable[[dict[str, list[Any]], int], bool]


def _filter_of(name: str, products: frozenset[tuple[str, str]], objects: frozenset[str]) -> _Filter:
    """Return whether a row of a table is of a released product; rows that are of no product stay."""

    def keep(columns: dict[str, list[Any]], row: int) -> bool:
        if name in OBJECT_TABLES:
            return columns["SOPInstanceUID"][row] in objects
        product = columns["product"][row] if "product" in columns else None
        if not product:
            return True
        return (columns["SeriesInstanceUID"][row], product) in products

    return keep


def _copy_table(source: Path, target: Path, keep: _Filter) -> int:
    """Copy the rows of a table that are kept, part by part; returns their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with (
        pq.ParquetFile(source) as reading,
        atomic_path(target) as temporary,
        pq.ParquetWriter(temporary, reading.schema_arrow) as writing,
    ):
        for batch in reading.iter_batches():
            part = pa.Table.from_batches([batch])
            keys = _key_columns(part)
            chosen = part.filter(pa.array([keep(keys, row) for row in range(part.num_rows)], pa.bool_()))
            writing.write_table(chosen)
            rows += chosen.num_rows
    return rows


def _key_columns(part: pa.Table) -> dict[str, list[Any]]:
    names = ("SOPInstanceUID", "SeriesInstanceUID", "product")
    return {name: part[name].to_pylist() for name in names if name in part.column_names}

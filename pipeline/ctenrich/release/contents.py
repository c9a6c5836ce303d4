"""The files of a data set: objects and tables of a run's finished products, copied with their hashes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError, UsageError
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.release.chosen import ChosenProducts, ObjectUids, ProductFact
from ctenrich.results.complete import check_tables
from ctenrich.results.describe import DescribedColumn, described_columns
from ctenrich.results.query import table_files
from ctenrich.results.schema import OBJECT_TABLES, TABLE_TEXTS
from ctenrich.review.store import ReviewStore
from ctenrich.workspace import Workspace, atomic_open, atomic_path, sha256_of_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "OBJECTS",
    "TABLES",
    "Contents",
    "ReleasedFile",
    "ReleasedObjects",
    "ReleasedTable",
    "copy_objects",
    "copy_tables",
    "manifest_line",
    "plan_contents",
]

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
class ReleasedObjects:
    """The objects of a data set; their paths and hashes are in its manifest."""

    number: int
    size: int
    """Bytes of all of them."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What of a run is released; the objects are read from the tables when they are needed."""

    products: ChosenProducts
    """Those with an object that is released have the fact HAS_OBJECTS."""
    kinds: Mapping[str, int]
    """Kind of objects -> number, in alphabetical order."""
    left_out: int
    """Objects of products that are not done, or were not accepted."""
    workspace: Workspace
    series: int
    """Number of series with a released product."""

    @property
    def objects(self) -> int:
        """Number of objects."""
        return sum(self.kinds.values())

    def is_released(self, series: str, product: str) -> bool:
        """Whether a product is part of the data set."""
        return ProductFact.HAS_OBJECTS in self.products.of(series, product)

    def planned(self) -> Iterator[_PlannedObject]:
        """The objects by their paths in the data set, those of some series at a time in memory."""
        for rows in _in_order_of_paths(_rows_of_series(table_files(self.workspace)["objects"])):
            chosen = (row for row in rows if self.is_released(row["SeriesInstanceUID"], row["product"]))
            yield from sorted((_planned_object(self.workspace, row) for row in chosen), key=lambda item: item.target)


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
    files = table_files(workspace)
    if not {"objects", "outcomes", "proofs"} <= set(files):
        raise UsageError(Reason.NOT_PREPARED, "the run has no tables yet", "run: ctenrich report RUN")
    check_tables(workspace)
    products = ChosenProducts()
    _note_done(products, files["outcomes"])
    _note_proofs(products, files["proofs"])
    accepted = ReviewStore(workspace).accepted() if accepted_only else None
    _check_listed(workspace, files["objects"])
    kinds: Counter[str] = Counter()
    left_out, series = 0, 0
    for rows in _rows_of_series(files["objects"]):
        before = sum(kinds.values())
        for row in rows:
            key = (row["SeriesInstanceUID"], row["product"])
            if products.is_proven(*key) and (accepted is None or key in accepted):
                products.add(*key, ProductFact.HAS_OBJECTS)
                kinds[row["kind"]] += 1
            else:
                left_out += 1
        series += sum(kinds.values()) > before
    if not kinds:
        what = "accepted" if accepted_only else "done, with a passed proof"
        raise UsageError(Reason.NOT_PREPARED, f"no product of the run is {what}", "look at: ctenrich status RUN")
    counts = dict(sorted(kinds.items()))
    return Contents(products=products, kinds=counts, left_out=left_out, workspace=workspace, series=series)


_OBJECT_COLUMNS = ("path", "SeriesInstanceUID", "product", "SOPInstanceUID", "kind", "sha256")
_ROWS = 16_384
"""Rows of tables of objects, outcomes and checks in memory."""


def _rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Values of some columns of a table, row by row."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(_ROWS, columns=list(columns)):
            yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _note_done(products: ChosenProducts, outcomes: Path) -> None:
    for uid, product, state in _rows(outcomes, ("SeriesInstanceUID", "product", "state")):
        if product and state == "done":
            products.add(uid, product, ProductFact.DONE)


def _note_proofs(products: ChosenProducts, proofs: Path) -> None:
    for uid, product, passed in _rows(proofs, ("SeriesInstanceUID", "product", "passed")):
        products.add(uid, product, ProductFact.CHECKED if passed else ProductFact.FAILED)


def _rows_of_series(objects: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows of the table ``objects``, those of one series at a time; they are in the order of the UIDs."""
    rows = (dict(zip(_OBJECT_COLUMNS, values, strict=True)) for values in _rows(objects, _OBJECT_COLUMNS))
    return (list(group) for _, group in groupby(rows, key=lambda row: row["SeriesInstanceUID"]))


def _in_order_of_paths(groups: Iterable[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    """Series that are in the order of their UIDs, in that of ``UID/``: 1.2.3/ comes after 1.2.3.4/."""
    waiting: list[list[dict[str, Any]]] = []
    for rows in groups:
        uid = rows[0]["SeriesInstanceUID"]
        while waiting and not uid.startswith(f"{waiting[-1][0]['SeriesInstanceUID']}."):
            yield waiting.pop()
        waiting.append(rows)
    while waiting:
        yield waiting.pop()


def _check_listed(workspace: Workspace, objects: Path) -> None:
    """Refuse tables that do not list the objects that are there.

    Both are read by series. The series of a table are in the order of their UIDs; in one where they are not, a series
    would be read twice and differ, and the table has to be made again.
    """
    differing = 0
    folders = iter(_SeriesObjects(workspace))
    folder = next(folders, None)
    for rows in _rows_of_series(objects):
        uid = rows[0]["SeriesInstanceUID"]
        while folder is not None and folder[0] < uid:
            differing += len(folder[1])
            folder = next(folders, None)
        listed = {row["path"] for row in rows}
        there: set[str] = set()
        if folder is not None and folder[0] == uid:
            there, folder = folder[1], next(folders, None)
        differing += len(listed ^ there)
    while folder is not None:
        differing += len(folder[1])
        folder = next(folders, None)
    if differing:
        message = f"{differing} objects are not as the tables list them"
        raise UsageError(Reason.NOT_PREPARED, message, "run: ctenrich report RUN")


class _SeriesObjects:
    """Series Instance UID and the paths of its objects, by UID."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __iter__(self) -> Iterator[tuple[str, set[str]]]:
        root = self._workspace.root
        for uid, group in groupby(self._workspace.object_files(), key=lambda path: path.parts[-4]):
            yield uid, {path.relative_to(root).as_posix() for path in group}


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


def copy_objects(contents: Contents, out: Path, manifest: IO[bytes], progress: Progress) -> ReleasedObjects:
    """Copy the objects, and write a line of the manifest for each, by path.

    Parameters
    ----------
    contents : Contents
        What is released.
    out : Path
        Folder of the data set.
    manifest : file object
        Gets the lines.
    progress : Progress
        Advanced by one for every file, those of :func:`copy_tables` among them.

    Returns
    -------
    ReleasedObjects

    Raises
    ------
    InputError
        HASH_MISMATCH if an object has changed since the tables were written.
    """
    progress.start("release", contents.objects + len(_released_tables(contents)))
    number, size = 0, 0
    for item in contents.planned():
        size += _copy_object(item, out)
        number += 1
        manifest.write(manifest_line(item.target, item.sha256))
        progress.advance("release")
    return ReleasedObjects(number=number, size=size)


def manifest_line(path: str, sha256: str) -> bytes:
    """Return a line of a manifest, as ``sha256sum`` reads it.

    Parameters
    ----------
    path : str
        Relative to the data set's folder.
    sha256 : str
        Hash of the file, hexadecimal.
    """
    return f"{sha256}  {path}\n".encode()


def _released_tables(contents: Contents) -> dict[str, Path]:
    files = table_files(contents.workspace)
    return {name: files[name] for name in TABLE_TEXTS if name in files and name in _RELEASED_TABLES}


def copy_tables(
    contents: Contents, out: Path, progress: Progress
) -> tuple[tuple[ReleasedFile, ...], tuple[ReleasedTable, ...]]:
    """Copy the tables, with the rows of the released products only.

    Parameters
    ----------
    contents : Contents
        What is released.
    out : Path
        Folder of the data set.
    progress : Progress
        Advanced by one for every table.

    Returns
    -------
    files : tuple of ReleasedFile
        The tables, sorted by path.
    tables : tuple of ReleasedTable
        The tables, in the order in which tables are listed.
    """
    import pyarrow.parquet as pq

    uids = ObjectUids((item.sop_instance_uid for item in contents.planned()), contents.objects)
    found, tables = [], []
    for name, source in _released_tables(contents).items():
        target = out / TABLES / f"{name}.parquet"
        rows = _copy_table(source, target, _filter_of(name, contents, uids))
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


def _copy_object(item: _PlannedObject, out: Path) -> int:
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
    return int(size)


_Filter = Callable[["pa.Table"], NDArray[np.bool_]]


def _filter_of(name: str, contents: Contents, objects: ObjectUids) -> _Filter:
    """Return which rows of a table are of a released product, shape (rows,); rows that are of no product stay."""

    def of_objects(part: pa.Table) -> NDArray[np.bool_]:
        values, places = _encoded(part, "SOPInstanceUID")
        kept: NDArray[np.bool_] = objects.contain(values)[places]
        return kept

    def of_products(part: pa.Table) -> NDArray[np.bool_]:
        if "product" not in part.column_names:
            return np.ones(part.num_rows, np.bool_)
        products, places = _encoded(part, "product")
        series, series_places = _encoded(part, "SeriesInstanceUID")
        pairs, inverse = np.unique(series_places * len(products) + places, return_inverse=True)
        keys = [(series[pair // len(products)], products[pair % len(products)]) for pair in pairs.tolist()]
        kept = [not product or (uid is not None and contents.is_released(uid, product)) for uid, product in keys]
        return np.array(kept, np.bool_)[inverse]

    return of_objects if name in OBJECT_TABLES else of_products


def _encoded(part: pa.Table, name: str) -> tuple[list[str | None], NDArray[np.int64]]:
    """Different values of a column, and for each row which of them it has, shape (rows,)."""
    import pyarrow.compute as pc

    column = pc.dictionary_encode(part[name].combine_chunks(), null_encoding="encode")
    return column.dictionary.to_pylist(), column.indices.to_numpy(zero_copy_only=False).astype(np.int64)


_NARROW_ROWS = 65_536
"""Rows of a table that is copied in memory, and in each of its row groups."""
_WIDE_ROWS = 8_192
"""The same of a table with more than `_WIDE` columns, nested ones counted each: 65,536 would take a gigabyte."""
_WIDE = 128


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
        rows_at_once = _WIDE_ROWS if reading.metadata.num_columns > _WIDE else _NARROW_ROWS
        for batch in reading.iter_batches(rows_at_once):
            part = pa.Table.from_batches([batch])
            chosen = part.filter(pa.array(keep(part), pa.bool_()))
            writing.write_table(chosen)
            rows += chosen.num_rows
    return rows

"""Write a run's result tables: object tables from the DICOM files alone, run tables from the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ctenrich.dicom.nested import SEQUENCE_LIMIT, Nested, media_class, read_nested
from ctenrich.dicom.sop_classes import SEGMENTATION, SEGMENTATION_CLASSES
from ctenrich.progress import SILENT, Progress
from ctenrich.results.complete import begin_tables, complete_tables
from ctenrich.results.metadata import Tree, base_tree, conform, grow, metadata_schema, tree_to_rows
from ctenrich.results.rows import Rows, object_rows
from ctenrich.results.runs import build_run_tables
from ctenrich.results.schema import OBJECT_TABLES, STRICT_TABLES, arrow_schema
from ctenrich.results.strict import strict_rows
from ctenrich.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["METADATA", "build_object_tables", "build_tables", "object_files"]

METADATA = "dicom_metadata"
_CHUNK = 24
_PARALLEL_FROM = 96
_TABLES = (*OBJECT_TABLES, *(f"strict_{name}" for name in STRICT_TABLES))


def build_tables(workspace: Workspace, *, progress: Progress = SILENT, processes: int = 1) -> dict[str, Path]:
    """Write ``tables/*.parquet`` of a run.

    The object tables (with IDC's names and types) and ``dicom_metadata`` are read back from
    ``series/*/*/objects/*.dcm``; deleting the tables and calling this again gives the same bytes. The run tables come
    from the records and the ledger; without a ledger, those of the ledger are empty. ``tables/tables.json`` marks the
    set as complete when the last table is there.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    progress : Progress
        Advanced by every file.
    processes : int
        Processes that read files; a few files are read in this process.

    Returns
    -------
    dict
        Table name -> file.
    """
    begin_tables(workspace)
    files = object_files(workspace)
    out = build_object_tables(files, workspace.tables, progress=progress, processes=processes)
    out.update(build_run_tables(workspace))
    complete_tables(workspace, out)
    return out


def object_files(workspace: Workspace) -> list[Path]:
    """List the written DICOM objects of a run, in a fixed order."""
    return sorted((workspace.root / "series").glob("*/*/objects/*.dcm"))


def build_object_tables(
    files: Sequence[Path], folder: Path, *, progress: Progress = SILENT, processes: int = 1
) -> dict[str, Path]:
    """Write the object tables of any DICOM SEG and SR files into `folder`.

    Every file is read once. The SEGs come first, because the strict tables keep only groups whose SEG is available.
    The columns of ``dicom_metadata`` are known when the last file has been read, so its parts are joined at the end.

    Parameters
    ----------
    files : sequence of Path
        DICOM files, ours or others.
    folder : Path
        Where the Parquet files are written.
    progress : Progress
        Advanced by every file.
    processes : int
        Processes that read files; a few files are read in this process.

    Returns
    -------
    dict
        Table name -> file.
    """
    segmentations = {path for path in files if media_class(path) in SEGMENTATION_CLASSES}
    reports = [path for path in files if path not in segmentations]
    known: dict[str, str] = {}
    tree = base_tree()
    progress.start("tables", len(files))
    with _Pool(processes if len(files) >= _PARALLEL_FROM else 1) as pool, _Writers(folder) as writers:
        for part in ([path for path in files if path in segmentations], reports):
            chunks = [(tuple(part[i : i + _CHUNK]), dict(known)) for i in range(0, len(part), _CHUNK)]
            for result in pool.map(_rows_of_files, chunks):
                grow(tree, [tree_to_rows(result.tree)])
                known.update(result.segmentations)
                writers.write(result)
                progress.advance("tables", result.files)
        writers.finish(metadata_schema(tree))
    progress.finish("tables")
    return {name: folder / f"{name}.parquet" for name in (*_TABLES, METADATA)}


@dataclass(frozen=True)
class _FileRows:
    """Results of some files: tables, their attributes, and the series of each SEG among them."""

    files: int
    tables: dict[str, pa.Table]
    metadata: pa.Table
    tree: Tree
    segmentations: dict[str, str]


def _rows_of_files(work: tuple[tuple[Path, ...], Mapping[str, str]]) -> _FileRows:
    paths, known = work
    segmentations = dict(known)
    rows: Rows = defaultdict(list)
    tree: Tree = {}
    raw: list[Nested] = []
    for path in paths:
        data = read_nested(path)
        if data.get("SOPClassUID") == SEGMENTATION:
            segmentations[data["SOPInstanceUID"]] = data["SeriesInstanceUID"]
        found = object_rows(data)
        for part in (found, strict_rows(found, segmentations)):
            for name, more in part.items():
                rows[name] += more
        raw.append(read_nested(path, limit=SEQUENCE_LIMIT) if path.stat().st_size > SEQUENCE_LIMIT else data)
        grow(tree, [raw[-1]])
    tables = {name: _arrow_table(rows[name], arrow_schema(name)) for name in _TABLES}
    return _FileRows(len(paths), tables, _arrow_table(raw, metadata_schema(tree)), tree, segmentations)


def _arrow_table(rows: list[Nested], schema: Any) -> pa.Table:
    """Rows as an Arrow table; a missing list is empty, as BigQuery's REPEATED is (inside records it may be NULL)."""
    import pyarrow as pa
    import pyarrow.types as kinds

    lists = [field.name for field in schema if kinds.is_list(field.type)]
    for row in rows:
        for name in lists:
            if row.get(name) is None:
                row[name] = []
    return pa.Table.from_pylist(rows, schema=schema)


@dataclass
class _Pool:
    """Maps a function over items in order, in this process or in several."""

    processes: int
    _executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Pool:
        if self.processes > 1:
            from multiprocessing import get_context

            self._executor = ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(self, function: Any, work: Sequence[Any]) -> Iterator[Any]:
        return self._executor.map(function, work) if self._executor else map(function, work)


class _Writers:
    """Writes one Parquet file per table; all appear together when the block ends without an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[Path] = []

    def __enter__(self) -> _Writers:
        import pyarrow.parquet as pq

        self._folder.mkdir(parents=True, exist_ok=True)
        self._writers = {}
        with ExitStack() as stack:  # an error here removes the temporary files of the tables before it
            self._spill = Path(stack.enter_context(TemporaryDirectory(prefix=".metadata-", dir=self._folder)))
            for name in _TABLES:
                temporary = stack.enter_context(atomic_path(self._folder / f"{name}.parquet"))
                writer = pq.ParquetWriter(temporary, arrow_schema(name), compression="zstd")
                self._writers[name] = stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def write(self, result: _FileRows) -> None:
        """Add the rows of some files."""
        import pyarrow.parquet as pq

        for name, table in result.tables.items():
            if table.num_rows:
                self._writers[name].write_table(table)
        part = self._spill / f"{len(self._parts)}.parquet"
        pq.write_table(result.metadata, part)
        self._parts.append(part)

    def finish(self, schema: Any) -> None:
        """Write ``dicom_metadata`` with the columns of all files."""
        import pyarrow.parquet as pq

        target = self._folder / f"{METADATA}.parquet"
        with atomic_path(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in self._parts:
                writer.write_table(conform(pq.read_table(part), schema))

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

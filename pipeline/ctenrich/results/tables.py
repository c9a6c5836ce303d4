"""Write a run's result tables: object tables from the DICOM files alone, run tables from the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ctenrich.dicom.nested import SEQUENCE_LIMIT, Nested, media_class, read_nested
from ctenrich.dicom.sop_classes import SEGMENTATION, SEGMENTATION_CLASSES
from ctenrich.progress import SILENT, Progress
from ctenrich.results.complete import begin_tables, complete_tables
from ctenrich.results.metadata import Tree, base_tree, conform, grow, metadata_schema, tree_to_rows
from ctenrich.results.parts import TableFiles, WorkerPool
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
        Advanced by every file, and by every series.
    processes : int
        Processes that read files and records; a few are read in this process.

    Returns
    -------
    dict
        Table name -> file.
    """
    begin_tables(workspace)
    files = object_files(workspace)
    out = build_object_tables(files, workspace.tables, progress=progress, processes=processes)
    out.update(build_run_tables(workspace, progress=progress, processes=processes))
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
    schemas = {name: arrow_schema(name) for name in _TABLES}
    with (
        WorkerPool(processes if len(files) >= _PARALLEL_FROM else 1) as pool,
        _Metadata(folder) as metadata,
        TableFiles(folder, schemas) as tables,
    ):
        for part in ([path for path in files if path in segmentations], reports):
            seen = dict(known)
            chunks = ((tuple(part[i : i + _CHUNK]), seen) for i in range(0, len(part), _CHUNK))
            for result in pool.map(_rows_of_files, chunks):
                grow(tree, [tree_to_rows(result.tree)])
                known.update(result.segmentations)
                tables.write(result.tables)
                metadata.add(result.metadata)
                progress.advance("tables", result.files)
        metadata.finish(metadata_schema(tree))
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


class _Metadata:
    """Rows of ``dicom_metadata``, kept in files until the columns of all of them are known."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[Path] = []

    def __enter__(self) -> _Metadata:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._temporary = TemporaryDirectory(prefix=".metadata-", dir=self._folder)
        self._spill = Path(self._temporary.name)
        return self

    def add(self, table: pa.Table) -> None:
        """Keep the rows of some files."""
        import pyarrow.parquet as pq

        part = self._spill / f"{len(self._parts)}.parquet"
        pq.write_table(table, part)
        self._parts.append(part)

    def finish(self, schema: Any) -> None:
        """Write ``dicom_metadata`` with the columns of all files."""
        import pyarrow.parquet as pq

        target = self._folder / f"{METADATA}.parquet"
        with atomic_path(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in self._parts:
                writer.write_table(conform(pq.read_table(part), schema))

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

"""Fill a run's result tables: the object tables from the written DICOM files alone, the run tables from its records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.progress import SILENT, Progress
from ctenrich.results.metadata import Tree, base_tree, grow, metadata_schema
from ctenrich.results.nested import SEQUENCE_LIMIT, Nested, read_nested
from ctenrich.results.rows import SEGMENTATION, Rows, object_rows
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


def build_tables(workspace: Workspace, *, progress: Progress = SILENT, processes: int = 2) -> dict[str, Path]:
    """Write ``tables/*.parquet`` of a run.

    The object tables (with IDC's names and types) and ``dicom_metadata`` are read back from
    ``series/*/*/objects/*.dcm``; deleting the tables and calling this again gives the same bytes. The run tables come
    from the records and the ledger; a run without a ledger has empty ones.

    Returns
    -------
    dict
        Table name -> file.
    """
    from ctenrich.results.runs import build_run_tables

    files = object_files(workspace)
    out = build_object_tables(files, workspace.tables, progress=progress, processes=processes)
    out.update(build_run_tables(workspace, files))
    return out


def object_files(workspace: Workspace) -> list[Path]:
    """The written DICOM objects of a run, in a fixed order."""
    return sorted((workspace.root / "series").glob("*/*/objects/*.dcm"))


def build_object_tables(
    files: Sequence[Path], folder: Path, *, progress: Progress = SILENT, processes: int = 2
) -> dict[str, Path]:
    """Write the object tables of any DICOM SEG and SR files into `folder`."""
    tree, segmentations = base_tree(), {}
    progress.start("tables", len(files))
    chunks = [tuple(files[i : i + _CHUNK]) for i in range(0, len(files), _CHUNK)]
    with _Pool(processes if len(files) >= _PARALLEL_FROM else 1) as pool:
        for part, found in pool.map(_survey, [(c,) for c in chunks]):
            grow(tree, [_as_row(part)])
            segmentations.update(found)
        work = [(c, segmentations, tree) for c in chunks]
        with _Writers(folder, metadata_schema(tree)) as writers:
            for tables in pool.map(_convert, work):
                writers.write(tables)
                progress.advance("tables", _CHUNK)
    progress.finish("tables")
    return {name: folder / f"{name}.parquet" for name in (*_TABLES, METADATA)}


def _survey(work: tuple[tuple[Path, ...]]) -> tuple[Tree, dict[str, str]]:
    """Attributes that some files have, and the series of each SEG among them."""
    tree: Tree = {}
    segmentations: dict[str, str] = {}
    for path in work[0]:
        data = read_nested(path, limit=SEQUENCE_LIMIT)
        grow(tree, [data])
        if data.get("SOPClassUID") == SEGMENTATION:
            segmentations[data["SOPInstanceUID"]] = data["SeriesInstanceUID"]
    return tree, segmentations


def _as_row(tree: Tree) -> Nested:
    return {k: None if v is None else [_as_row(v)] for k, v in tree.items()}


def _convert(work: tuple[tuple[Path, ...], Mapping[str, str], Tree]) -> dict[str, pa.Table]:
    paths, segmentations, tree = work
    rows: Rows = defaultdict(list)
    raw: list[Nested] = []
    for path in paths:
        data = read_nested(path)
        found = object_rows(data)
        for part in (found, strict_rows(found, segmentations)):
            for name, more in part.items():
                rows[name] += more
        raw.append(read_nested(path, limit=SEQUENCE_LIMIT) if path.stat().st_size > SEQUENCE_LIMIT else data)
    out = {name: _arrow(rows[name], arrow_schema(name)) for name in _TABLES}
    out[METADATA] = _arrow(raw, metadata_schema(tree))
    return out


def _arrow(rows: list[Nested], schema: Any) -> pa.Table:
    """Rows as an Arrow table; a missing list is empty, as BigQuery's REPEATED is."""
    import pyarrow as pa

    return pa.Table.from_pylist([_filled(row, schema) for row in rows], schema=schema)


def _filled(row: Nested, fields: Iterable[Any]) -> Nested:
    import pyarrow.types as kinds

    out: Nested = {}
    for field in fields:
        value, kind = row.get(field.name), field.type
        if kinds.is_list(kind):
            inner = kind.value_type
            value = value or []
            out[field.name] = [_filled(v, inner) for v in value] if kinds.is_struct(inner) else value
        elif kinds.is_struct(kind) and value is not None:
            out[field.name] = _filled(value, kind)
        else:
            out[field.name] = value
    return out


@dataclass
class _Pool:
    """Maps in order, in this process or in several."""

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
    """One Parquet file a table; all appear together when the block ends well."""

    def __init__(self, folder: Path, metadata: Any) -> None:
        self._schemas = {name: arrow_schema(name) for name in _TABLES} | {METADATA: metadata}
        self._folder = folder

    def __enter__(self) -> _Writers:
        from contextlib import ExitStack

        import pyarrow.parquet as pq

        self._stack = ExitStack()
        self._writers = {}
        for name, schema in self._schemas.items():
            temporary = self._stack.enter_context(atomic_path(self._folder / f"{name}.parquet"))
            self._writers[name] = self._stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
        return self

    def write(self, tables: Mapping[str, pa.Table]) -> None:
        for name, table in tables.items():
            if table.num_rows:
                self._writers[name].write_table(table)

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

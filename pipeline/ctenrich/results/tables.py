"""Write a run's result tables: object tables from the DICOM files alone, run tables from the records."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ctenrich.dicom.nested import SEQUENCE_LIMIT, Nested, media_class, read_nested
from ctenrich.dicom.sop_classes import SEGMENTATION, SEGMENTATION_CLASSES
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.results.complete import begin_tables, complete_tables
from ctenrich.results.kept_parts import KeptParts, Part, file_states, parts_of, software_version, stable_parts
from ctenrich.results.metadata import (
    Tree,
    base_tree,
    conform,
    grow,
    metadata_schema,
    narrow_schema,
    tree_to_rows,
)
from ctenrich.results.parts import RowGroups, TableFiles, WorkerPool
from ctenrich.results.rows import Rows, object_rows
from ctenrich.results.runs import build_run_tables
from ctenrich.results.schema import OBJECT_TABLES, STRICT_TABLES, arrow_schema
from ctenrich.results.strict import strict_rows
from ctenrich.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["METADATA", "build_object_tables", "build_tables", "object_files"]

METADATA = "dicom_metadata"
_SMALLEST, _LARGEST = 16, 40
"""Files of a part."""
_MANY = 96
"""Files that are read by several processes, and whose parts are kept."""
_METADATA_ROWS = 1000
"""Rows of a row group of ``dicom_metadata``, where there are many: it has hundreds of columns."""
_TABLES = (*OBJECT_TABLES, *(f"strict_{name}" for name in STRICT_TABLES))


def build_tables(workspace: Workspace, *, progress: Progress = SILENT, processes: int = 1) -> dict[str, Path]:
    """Write ``tables/*.parquet`` of a run.

    The object tables (with IDC's names and types) and ``dicom_metadata`` are read back from
    the products' folders; deleting the tables and calling this again gives the same bytes. The run tables come
    from the records and the ledger; without a ledger, those of the ledger are empty. ``tables/tables.json`` marks the
    set as complete when the last table is there.

    The rows of a large run are kept in parts of some files or series in ``tables/parts``. A part is made again if one
    of its files has another size or modification time, or the software is another one.

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
    files = ObjectFiles(workspace)
    kept = KeptParts(workspace.tables / "parts", software_version()) if len(files) >= _MANY else None
    out, parts = _build_object_tables(files, workspace.tables, progress, processes, kept)
    out_of_run, parts_of_run = build_run_tables(workspace, progress=progress, processes=processes, kept=kept)
    out.update(out_of_run)
    if kept is not None:
        kept.remove_others((*parts, *parts_of_run))
    complete_tables(workspace, out)
    return out


def object_files(workspace: Workspace) -> list[Path]:
    """List the written DICOM objects of a run, in a fixed order."""
    return list(ObjectFiles(workspace))


class ObjectFiles:
    """The written DICOM objects of a run, in a fixed order; the folders are read again for each pass.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._count: int | None = None

    def __iter__(self) -> Iterator[Path]:
        yield from self._workspace.object_files()

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count


def build_object_tables(
    files: Sequence[Path], folder: Path, *, progress: Progress = SILENT, processes: int = 1
) -> dict[str, Path]:
    """Write the object tables of any DICOM SEG and SR files into `folder`.

    Every file is read once. The SEGs come first, because the strict tables keep only groups whose SEG is available.

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
    return _build_object_tables(files, folder, progress, processes, None)[0]


def _build_object_tables(
    files: Sequence[Path] | ObjectFiles, folder: Path, progress: Progress, processes: int, kept: KeptParts | None
) -> tuple[dict[str, Path], list[str]]:
    """Write the tables; also return the names of the parts that were kept.

    The columns of ``dicom_metadata`` are known when the last file has been read, so its parts are joined at the end.
    """
    available: dict[str, str] = {}
    names: list[str] = []
    tree = base_tree()
    progress.start("tables", len(files))
    schemas = {name: arrow_schema(name) for name in _TABLES}
    with (
        WorkerPool(processes if len(files) >= _MANY else 1) as pool,
        _Metadata(folder, kept) as metadata,
        TableFiles(folder, schemas) as tables,
    ):
        for segmentations in (True, False):  # all paths of a large run would take gigabytes
            listed = (path for path in files if (media_class(path) in SEGMENTATION_CLASSES) is segmentations)
            for name, part in parts_of(pool, _kept_or_read, _work(listed, folder.parent, kept), kept):
                names.append(name)
                grow(tree, [tree_to_rows(part.facts["tree"])])
                available.update(part.facts["segmentations"])
                metadata.add(name, part.tables.pop(METADATA))
                tables.write({name: _with_available(name, rows, available) for name, rows in part.tables.items()})
                progress.advance("tables", part.facts["files"])
        metadata.finish(metadata_schema(tree))
    progress.finish("tables")
    return {name: folder / f"{name}.parquet" for name in (*_TABLES, METADATA)}, names


@dataclass(frozen=True)
class _Work:
    """Files of a part, the folder that has them, and where parts are kept."""

    files: tuple[Path, ...]
    root: Path
    kept: KeptParts | None


def _work(files: Iterable[Path], root: Path, kept: KeptParts | None) -> Iterator[_Work]:
    waiting: list[Path] = []

    def names() -> Iterator[str]:
        for path in files:
            waiting.append(path)
            yield path.as_posix().removeprefix(root.as_posix())

    for start, end in stable_parts(names(), _SMALLEST, _LARGEST):
        chosen = tuple(waiting[: end - start])
        del waiting[: end - start]
        yield _Work(chosen, root, kept)


def _kept_or_read(work: _Work) -> tuple[str, Part]:
    """Load the kept part of some files with its name, or read the files."""
    if work.kept is None:
        return "", _part_of_files(work.files)
    name = work.kept.name("objects", file_states(work.root, work.files))
    found = work.kept.find(name)
    if found is None:
        found = _part_of_files(work.files)
        work.kept.keep(name, found)
    return name, found


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's search for circular references: nested rows have none, and it visits all of them many times."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_collector_paused()
def _part_of_files(paths: Sequence[Path]) -> Part:
    """Read files. The strict tables have the groups of all SEGs, available or not."""
    rows: Rows = defaultdict(list)
    segmentations: dict[str, str] = {}
    tree: Tree = {}
    raw: list[Nested] = []
    all_read = True
    for path in paths:
        data = read_nested(path)
        if data.get("SOPClassUID") == SEGMENTATION:
            segmentations[data["SOPInstanceUID"]] = data["SeriesInstanceUID"]
        found = object_rows(data)
        for part in (found, strict_rows(found)):
            for name, more in part.items():
                rows[name] += more
        if path.stat().st_size > SEQUENCE_LIMIT:
            all_read = False
            data = read_nested(path, limit=SEQUENCE_LIMIT)
        raw.append(data)
        grow(tree, [raw[-1]])
    content = _content_tree(tree) if all_read else None
    tables: dict[str, pa.Table] = {}
    for name in OBJECT_TABLES:
        tables[name] = _arrow_table(rows[name], narrow_schema(arrow_schema(name), "contentSequence", content))
    for name in STRICT_TABLES:
        tables[f"strict_{name}"] = _strict_table(name, rows, tables[name])
    tables[METADATA] = _arrow_table(raw, metadata_schema(tree))
    return Part(tables=tables, facts={"files": len(paths), "tree": tree, "segmentations": segmentations})


def _content_tree(tree: Tree) -> Tree | None:
    """Attributes of all measurement groups, two levels below the root of a report."""
    containers = tree.get("ContentSequence")
    return containers.get("ContentSequence") if containers is not None else None


def _strict_table(name: str, rows: Rows, extended: pa.Table) -> pa.Table:
    """Make a strict table; rows that are those of the extended table are taken from there."""
    wanted, schema = rows[f"strict_{name}"], arrow_schema(f"strict_{name}")
    places = {id(row): place for place, row in enumerate(rows[name])}
    if not wanted or any(id(row) not in places for row in wanted):
        return _arrow_table(wanted, schema)
    found = extended.select(schema.names).take([places[id(row)] for row in wanted])
    return found.replace_schema_metadata(schema.metadata)


def _with_available(name: str, rows: pa.Table, available: Mapping[str, str]) -> pa.Table:
    """Rows with all columns; those of a strict table if their SEG is available, with the series of the SEG."""
    import pyarrow as pa

    rows = conform(rows, arrow_schema(name))
    place = rows.schema.get_field_index("segmentationSeriesUID")
    if not name.startswith("strict_") or place < 0 or not rows.num_rows:
        return rows
    series = [available.get(uid) for uid in rows["segmentationInstanceUID"].to_pylist()]
    rows = rows.set_column(place, rows.schema.field(place), pa.array(series, rows.schema.field(place).type))
    return rows.filter(rows.column(place).is_valid())


def _arrow_table(rows: list[Nested], schema: Any) -> pa.Table:
    """Rows as an Arrow table; a missing list is empty, as BigQuery's REPEATED is (inside records it may be NULL)."""
    import pyarrow as pa
    import pyarrow.types as kinds

    if not rows:
        return schema.empty_table()
    lists = [field.name for field in schema if kinds.is_list(field.type)]
    for row in rows:
        for name in lists:
            if row.get(name) is None:
                row[name] = []
    return pa.Table.from_pylist(rows, schema=schema)


class _Metadata:
    """Rows of ``dicom_metadata`` until the columns of all of them are known: in kept parts, else in temporary files."""

    def __init__(self, folder: Path, kept: KeptParts | None) -> None:
        self._folder = folder
        self._kept = kept
        self._parts: list[str] = []

    def __enter__(self) -> _Metadata:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._temporary = TemporaryDirectory(prefix=".metadata-", dir=self._folder)
        self._spilled = KeptParts(Path(self._temporary.name), "")
        return self

    def add(self, name: str, table: pa.Table) -> None:
        """Note the rows of some files, which the part with this name has."""
        if self._kept is None:
            name = str(len(self._parts))
            self._spilled.keep(name, Part(tables={METADATA: table}))
        self._parts.append(name)

    def finish(self, schema: Any) -> None:
        """Write ``dicom_metadata`` with the columns of all files.

        Raises
        ------
        UsageError
            NOT_PREPARED if a part was deleted or damaged meanwhile.
        """
        import pyarrow.parquet as pq

        parts = self._kept or self._spilled
        target = self._folder / f"{METADATA}.parquet"
        with atomic_path(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            groups = RowGroups(writer, _METADATA_ROWS, _METADATA_ROWS)
            for name in self._parts:
                part = parts.find(name, only=METADATA)
                if part is None:
                    message = "a part of the tables was deleted or damaged while they were written"
                    raise UsageError(Reason.NOT_PREPARED, message, "run: ctenrich report RUN")
                groups.add(conform(part.tables[METADATA], schema))
            groups.flush()

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

"""The cohort on disk: NAME.parquet, and beside it NAME.excluded.parquet and NAME.lock.json."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Instance, SeriesEntry
from ctenrich.select.cohort_file import write_cohort_table
from ctenrich.select.lock import lock_of
from ctenrich.select.selection import EXCLUDED_COLUMNS, Selection
from ctenrich.select.spool import SpooledSeries
from ctenrich.workspace import atomic_path, require_file, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "excluded_path",
    "lock_path",
    "read_excluded",
    "without_local_paths",
    "without_patients",
    "write_cohort",
]


def excluded_path(path: Path) -> Path:
    """Where the excluded series of a cohort file are."""
    return path.with_name(f"{path.stem}.excluded.parquet")


def lock_path(path: Path) -> Path:
    """Where the lock of a cohort file is."""
    return path.with_name(f"{path.stem}.lock.json")


def without_local_paths(cohort: Cohort) -> Cohort:
    """Copy of a cohort in which the files of this computer have no address; those of buckets keep theirs."""
    series = cohort.series
    if isinstance(series, SpooledSeries):
        return replace(cohort, series=series.changed(_without_local_paths, _without_paths_in))
    return replace(cohort, series=tuple(_without_local_paths(entry) for entry in series))


def _without_local_paths(entry: SeriesEntry) -> SeriesEntry:
    companions = tuple(replace(c, instance=_without_path(c.instance)) for c in entry.companions)
    return replace(entry, instances=tuple(map(_without_path, entry.instances)), companions=companions)


def _without_paths_in(lists: pa.ListArray) -> pa.ListArray:
    """:func:`_without_path` of all instances of lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = lists.flatten()
    columns = dict(zip(flat.type.names, flat.flatten(), strict=True))
    columns["url"] = pc.if_else(pc.starts_with(columns["url"], "file:"), "", columns["url"])
    structs = pa.StructArray.from_arrays(list(columns.values()), fields=list(flat.type))
    lengths = lists.value_lengths().to_pylist()
    return pa.ListArray.from_arrays(pa.array([0, *accumulate(lengths)], pa.int32()), structs, type=lists.type)


def _without_path(instance: Instance) -> Instance:
    return replace(instance, url="") if instance.url.startswith("file:") else instance


def without_patients(cohort: Cohort) -> Cohort:
    """Copy of a cohort without what describes patients: Patient ID, age, sex, study date and series description."""
    return replace(cohort, series=tuple(_without_patient(entry) for entry in cohort.series))


def _without_patient(entry: SeriesEntry) -> SeriesEntry:
    # a series description is free text, in which scanners' operators write names
    facts = replace(entry.facts, study_date=None, patient_age=None, patient_sex=None, series_description=None)
    return replace(entry, patient_id="", facts=facts)


def write_cohort(selection: Selection, path: Path) -> None:
    """Write the cohort file, ``NAME.excluded.parquet`` and ``NAME.lock.json``; the cohort file last.

    Parameters
    ----------
    selection : Selection
        Cohort, excluded series, and what the query took.
    path : Path
        The cohort file, ``NAME.parquet``.
    """
    import pyarrow.parquet as pq

    with atomic_path(excluded_path(path)) as temporary:
        pq.write_table(selection.excluded, temporary, compression="zstd")
    write_bytes(lock_path(path), json.dumps(lock_of(selection), indent=1, ensure_ascii=False).encode() + b"\n")
    cohort = selection.cohort
    with atomic_path(path) as temporary:
        write_cohort_table(temporary, cohort.name, cohort.sha256, cohort.series)


def read_excluded(path: Path) -> pa.Table:
    """Read the excluded series beside a cohort file.

    Raises
    ------
    UsageError
        BAD_COHORT if the file has other columns or cannot be read.
    """
    import pyarrow as pa

    table = _read_table(excluded_path(path))
    if "detail" not in table.column_names:  # written by version 0.1.0
        table = table.append_column("detail", pa.nulls(table.num_rows, pa.string()))
    if tuple(table.column_names[: len(EXCLUDED_COLUMNS)]) != EXCLUDED_COLUMNS:
        raise UsageError(Reason.BAD_COHORT, f"{excluded_path(path).name} is not a list of excluded series")
    return table.select(EXCLUDED_COLUMNS)  # those of treatments have more


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path, "name a cohort file (.parquet) that ctenrich select wrote")
    try:
        # Not a file of Python: if Arrow's threads let go of it while the interpreter ends, the process is aborted.
        with pa.OSFile(str(path)) as handle:
            table = pq.read_table(handle)
        table.validate(full=True)  # texts are UTF-8
        _ = table.column_names  # names are decoded when they are asked for
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is not a Parquet file") from error
    return table

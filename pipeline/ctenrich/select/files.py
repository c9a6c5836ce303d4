"""The cohort on disk: NAME.parquet, and beside it NAME.excluded.parquet and NAME.lock.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Companion, CompanionLink, Instance, Issue, SeriesEntry, SeriesFacts, Severity
from ctenrich.select.lock import lock_of
from ctenrich.select.selection import EXCLUDED_COLUMNS, Selection, cohort_sha256
from ctenrich.workspace import atomic_path, require_file, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "cohort_schema",
    "cohort_table",
    "excluded_path",
    "lock_path",
    "read_cohort",
    "read_excluded",
    "without_local_paths",
    "without_patients",
    "write_cohort",
]

_AT_ONCE = 256
"""Series that are turned into rows at a time, so that a million instances are never there twice as Python objects."""
_NAME, _HASH, _ROWS = b"ctenrich.cohort", b"ctenrich.cohort_sha256", b"ctenrich.rows_sha256"


def excluded_path(path: Path) -> Path:
    """Where the excluded series of a cohort file are."""
    return path.with_name(f"{path.stem}.excluded.parquet")


def lock_path(path: Path) -> Path:
    """Where the lock of a cohort file is."""
    return path.with_name(f"{path.stem}.lock.json")


def cohort_schema() -> pa.Schema:
    """Arrow schema of a cohort file: one row per series, with instances and companions nested."""
    import pyarrow as pa

    text = pa.string()
    instance = [("sop_instance_uid", text), ("url", text), ("size", pa.int64()), ("md5", text), ("crc32c", text)]
    companion = pa.struct(
        [("modality", text), ("series_instance_uid", text), ("instance", pa.struct(instance)), ("link", text)]
    )
    return pa.schema(
        [
            ("collection_id", text),
            ("patient_id", text),
            ("study_instance_uid", text),
            ("series_instance_uid", text),
            ("crdc_series_uuid", text),
            ("license_short_name", text),
            ("source_doi", text),
            ("geometry_known", pa.bool_()),
            ("expected_instances", pa.int64()),
            ("instances", pa.list_(pa.struct(instance))),
            ("companions", pa.list_(companion)),
            ("notes", pa.list_(pa.struct([(name, text) for name in _NOTE]))),
            ("facts", pa.struct([(f.name, pa.float64() if f.name == "slice_thickness" else text) for f in _FACTS])),
        ]
    )


_NOTE = ("rule", "severity", "object", "message")
_FACTS = fields(SeriesFacts)
_ADDED = frozenset({"notes", "facts"})
"""Columns that cohort files of version 0.1.0 do not have."""


def cohort_table(cohort: Cohort) -> pa.Table:
    """A cohort as an Arrow table."""
    import pyarrow as pa

    schema, digest = cohort_schema(), hashlib.sha256()
    parts = [schema.empty_table()]
    for at in range(0, len(cohort.series), _AT_ONCE):
        rows = [_row(entry, schema.names[:9]) for entry in cohort.series[at : at + _AT_ONCE]]
        parts.append(pa.Table.from_pylist(rows, schema))
        _add_rows(digest, parts[-1].to_pylist())
    stated = {_NAME: cohort.name, _HASH: cohort.sha256, _ROWS: digest.hexdigest()}
    table = pa.concat_tables(parts).combine_chunks()
    return table.replace_schema_metadata({key: value.encode() for key, value in stated.items()})


def without_local_paths(cohort: Cohort) -> Cohort:
    """Copy of a cohort in which the files of this computer have no address; those of buckets keep theirs."""
    return replace(cohort, series=tuple(_without_local_paths(entry) for entry in cohort.series))


def _without_local_paths(entry: SeriesEntry) -> SeriesEntry:
    companions = tuple(replace(c, instance=_without_path(c.instance)) for c in entry.companions)
    return replace(entry, instances=tuple(map(_without_path, entry.instances)), companions=companions)


def _without_path(instance: Instance) -> Instance:
    return replace(instance, url="") if instance.url.startswith("file:") else instance


def without_patients(cohort: Cohort) -> Cohort:
    """Copy of a cohort without what describes patients: Patient ID, age, sex, study date and series description."""
    return replace(cohort, series=tuple(_without_patient(entry) for entry in cohort.series))


def _without_patient(entry: SeriesEntry) -> SeriesEntry:
    # a series description is free text, in which scanners' operators write names
    facts = replace(entry.facts, study_date=None, patient_age=None, patient_sex=None, series_description=None)
    return replace(entry, patient_id="", facts=facts)


def _row(entry: SeriesEntry, names: list[str]) -> dict[str, Any]:
    return {
        **{name: getattr(entry, name) for name in names},
        "instances": [_instance(i) for i in entry.instances],
        "companions": [
            {
                "modality": c.modality,
                "series_instance_uid": c.series_instance_uid,
                "instance": _instance(c.instance),
                "link": c.link.value,
            }
            for c in entry.companions
        ],
        "notes": [{name: str(getattr(note, name)) for name in _NOTE} for note in entry.notes],
        "facts": asdict(entry.facts),
    }


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "url": instance.url,
        "size": instance.size,
        "md5": instance.md5,
        "crc32c": instance.crc32c,
    }


def _add_rows(digest: Any, rows: list[dict[str, Any]]) -> None:
    """Hash all values of the rows, so that an edited URL or size is detected."""
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode())


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

    for target, table in ((excluded_path(path), selection.excluded), (path, cohort_table(selection.cohort))):
        if target == path:
            write_bytes(lock_path(path), json.dumps(lock_of(selection), indent=1, ensure_ascii=False).encode() + b"\n")
        with atomic_path(target) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def read_cohort(path: Path) -> Cohort:
    """Read a cohort file.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_COHORT if it is not a cohort file or its rows were changed since it was written.
    """
    table = _read_table(path)
    try:
        return _checked_cohort(path, table)
    except UnicodeDecodeError as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} has names that are not UTF-8") from error


def _checked_cohort(path: Path, table: pa.Table) -> Cohort:
    wanted = cohort_schema()
    missing = [name for name in wanted.names if name not in table.column_names and name not in _ADDED]
    if missing:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is no cohort file: it lacks {', '.join(missing)}")
    try:
        series, rows_sha256 = _series_of(table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} has rows of another form") from error
    metadata = table.schema.metadata or {}
    stated, found = metadata.get(_HASH, b"").decode(), cohort_sha256(series)
    if stated != found or metadata.get(_ROWS, b"").decode() != rows_sha256:
        hint = "make it anew with: ctenrich select"
        raise UsageError(Reason.BAD_COHORT, f"the series of {path.name} are not those that were selected", hint)
    return Cohort(metadata.get(_NAME, b"cohort").decode(), series, found)


def _series_of(table: pa.Table) -> tuple[tuple[SeriesEntry, ...], str]:
    digest = hashlib.sha256()
    series: list[SeriesEntry] = []
    for at in range(0, table.num_rows, _AT_ONCE):
        rows = table.slice(at, _AT_ONCE).to_pylist()
        series += [_entry(row) for row in rows]
        _add_rows(digest, rows)
    return tuple(series), digest.hexdigest()


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
    if tuple(table.column_names) != EXCLUDED_COLUMNS:
        raise UsageError(Reason.BAD_COHORT, f"{excluded_path(path).name} is not a list of excluded series")
    return table


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path, "name a cohort file (.parquet) that ctenrich select wrote")
    try:
        # Not a file of Python: if Arrow's threads let go of it while the interpreter ends, the process is aborted.
        with pa.OSFile(str(path)) as handle:
            return pq.read_table(handle)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is not a Parquet file") from error


def _entry(row: dict[str, Any]) -> SeriesEntry:
    return SeriesEntry(
        **{
            **row,
            "instances": tuple(Instance(**i) for i in row["instances"]),
            "companions": tuple(
                Companion(**{**c, "instance": Instance(**c["instance"]), "link": CompanionLink(c["link"])})
                for c in row["companions"]
            ),
            "notes": tuple(Issue(**{**n, "severity": Severity(n["severity"])}) for n in row.get("notes") or ()),
            "facts": SeriesFacts(**(row.get("facts") or {})),
        }
    )

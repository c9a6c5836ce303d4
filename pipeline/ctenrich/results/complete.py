"""The mark of a complete set of tables: ``tables/tables.json`` with the schema version and the hash of each file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.results.schema import SCHEMA_VERSION
from ctenrich.workspace import Workspace, sha256_of_file, write_bytes

__all__ = ["TablesMark", "begin_tables", "check_tables", "complete_tables", "tables_mark"]

_NAME = "tables.json"
_HINT = "run: ctenrich report RUN"


@dataclass(frozen=True, kw_only=True)
class TablesMark:
    """Content of the mark."""

    complete: bool
    schema_version: str
    files: Mapping[str, str] = field(default_factory=dict)
    """Name of the Parquet file -> SHA-256."""


def begin_tables(workspace: Workspace) -> None:
    """Mark the tables of a run as incomplete, before the first of them is written."""
    _write(workspace, {"complete": False, "schema_version": SCHEMA_VERSION, "files": {}})


def complete_tables(workspace: Workspace, files: Mapping[str, Path]) -> None:
    """Mark the tables of a run as complete.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    files : mapping of str to Path
        Name of each table -> its file.
    """
    hashes = {path.name: sha256_of_file(path) for path in sorted(files.values())}
    _write(workspace, {"complete": True, "schema_version": SCHEMA_VERSION, "files": hashes})


def tables_mark(workspace: Workspace) -> TablesMark | None:
    """Return the mark of a run's tables; None if there is none, because version 0.1.0 wrote the tables."""
    try:
        found = json.loads((workspace.tables / _NAME).read_bytes())
        return TablesMark(
            complete=found["complete"] is True,
            schema_version=str(found["schema_version"]),
            files={str(name): str(sha256) for name, sha256 in found["files"].items()},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return TablesMark(complete=False, schema_version="")


def check_tables(workspace: Workspace) -> None:
    """Refuse a set of tables that was not written to its end, or lacks a file.

    Raises
    ------
    UsageError
        NOT_PREPARED if the set is not complete, BAD_RUN if it has another schema.
    """
    mark = tables_mark(workspace)
    if mark is None:
        return
    if not mark.complete:
        raise UsageError(Reason.NOT_PREPARED, "the run's tables were not written to the end", _HINT)
    if mark.schema_version != SCHEMA_VERSION:
        message = f"the tables have schema {mark.schema_version}, this software reads {SCHEMA_VERSION}"
        raise UsageError(Reason.BAD_RUN, message, _HINT)
    missing = sorted(name for name in mark.files if not (workspace.tables / name).is_file())
    if missing:
        raise UsageError(Reason.NOT_PREPARED, f"the run's tables are not complete: {missing[0]} is not there", _HINT)


def _write(workspace: Workspace, content: dict[str, object]) -> None:
    write_bytes(workspace.tables / _NAME, json.dumps(content, indent=1).encode() + b"\n", durable=True)

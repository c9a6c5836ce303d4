"""Start local-bigquery offline: ``PYTHON run_local_bigquery.py PORT GRPC_PORT FOLDER`` (in its own environment).

DuckDB's extensions come from Python packages and are loaded into every connection, so that nothing is downloaded.
The service runs on DuckDB, too, and does not know that in BigQuery the alias of an UNNEST wins over a column of its
name: `ctenrich.catalog.unnest` is added to its rules.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import duckdb
from duckdb_extensions import import_extension

NAMES = ("ducklake", "httpfs", "spatial")
_connect = duckdb.connect


def connect(*arguments: Any, **options: Any) -> Any:
    """As duckdb.connect, with the extensions, and the time zone set where DuckDB takes it."""
    config = dict(options.pop("config", None) or {})
    zone = config.pop("TimeZone", None)
    config["autoinstall_known_extensions"] = "false"
    connection = _connect(*arguments, config=config, **options)
    for name in NAMES:
        connection.load_extension(name)
    if zone:
        with contextlib.suppress(duckdb.Error):
            connection.execute(f"SET TimeZone = '{zone}'")
    return connection


def add_unnest_names() -> None:
    """Add the names of UNNEST to the rules by which the service translates a statement."""
    from local_bigquery.sql.rules import STATEMENT_RULES

    path = Path(__file__).resolve().parents[2] / "pipeline" / "ctenrich" / "catalog" / "unnest.py"
    spec = importlib.util.spec_from_file_location("unnest_names", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    def rule(tree: Any, _context: object) -> Any:
        module.resolve_unnest_names(tree)
        return tree

    STATEMENT_RULES.insert(0, rule)


for extension in NAMES:
    import_extension(extension)
duckdb.connect = connect

if __name__ == "__main__":
    add_unnest_names()
    from local_bigquery.cli import main

    port, grpc_port, folder = sys.argv[1:]
    main(["serve", "--host", "127.0.0.1", "--port", port, "--grpc-port", grpc_port, "--data-dir", folder])

"""Start local-bigquery offline: ``PYTHON run_local_bigquery.py PORT GRPC_PORT FOLDER`` (in its own environment).

DuckDB's extensions come from Python packages and are loaded into every connection, so that nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import sys
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


for extension in NAMES:
    import_extension(extension)
duckdb.connect = connect

if __name__ == "__main__":
    from local_bigquery.cli import main

    port, grpc_port, folder = sys.argv[1:]
    main(["serve", "--host", "127.0.0.1", "--port", port, "--grpc-port", grpc_port, "--data-dir", folder])

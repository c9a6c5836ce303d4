"""A BigQuery service on this machine for the tests, asked with Google's own client."""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import need_package, skip_or_fail

from ctenrich.catalog.schema import Column

_LAUNCHER = Path(__file__).with_name("run_local_bigquery.py")
PROJECT = "bigquery-public-data"


def _python() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ctenrich-services"
    base = Path(os.environ.get("CTENRICH_SERVICES_DIR") or cache)
    return Path(os.environ.get("CTENRICH_LOCAL_BIGQUERY_PYTHON") or base / "local-bigquery" / "bin" / "python")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def local_bigquery(folder: Path) -> Iterator[str]:
    """Start the service; gives ``http://127.0.0.1:PORT``. Skips (or fails) where it is not installed."""
    need_package("bigquery", "google.cloud.bigquery")
    python = _python()
    if not python.is_file():
        skip_or_fail("bigquery", "local-bigquery is not installed: scripts/install_local_bigquery.sh")
    port, grpc_port = free_port(), free_port()
    log = (folder / "service.log").open("wb")
    command = [str(python), str(_LAUNCHER), str(port), str(grpc_port), str(folder)]
    server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        for _ in range(240):
            if server.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.25)
        else:
            skip_or_fail("bigquery", "local-bigquery does not answer")
        if server.poll() is not None:
            text = (folder / "service.log").read_text(errors="replace")[-400:]
            skip_or_fail("bigquery", f"local-bigquery does not start: {text}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()


def fields(columns: Sequence[Column]) -> list[Any]:
    """Columns as BigQuery's schema."""
    from google.cloud import bigquery

    return [bigquery.SchemaField(c.name, c.type, c.mode, fields=fields(c.fields)) for c in columns]


def _json_value(value: Any) -> Any:
    """Dates and times as BigQuery reads them from JSON."""
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


def load_table(endpoint: str, table: str, columns: Sequence[Column], rows: list[dict[str, Any]]) -> None:
    """Make ``bigquery-public-data.DATASET.TABLE`` of JSON rows."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    options = {"api_endpoint": endpoint}
    with bigquery.Client(PROJECT, AnonymousCredentials(), client_options=options) as client:
        client.create_dataset(f"{PROJECT}.{table.split('.', maxsplit=1)[0]}", exists_ok=True)
        config = bigquery.LoadJobConfig(schema=fields(columns), write_disposition="WRITE_TRUNCATE")
        values = [{name: _json_value(value) for name, value in row.items()} for row in rows]
    client.load_table_from_json(values, f"{PROJECT}.{table}", job_config=config).result(timeout=120)

"""Services that the tests of catalogs share: BigQuery and S3 on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import need_package
from tests.services.bigquery_service import local_bigquery


@pytest.fixture(scope="module")
def bigquery_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A BigQuery service; skips where it is not installed."""
    with local_bigquery(Path(tmp_path_factory.mktemp("bigquery"))) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """An S3 service (moto)."""
    need_package("s3", "moto")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()

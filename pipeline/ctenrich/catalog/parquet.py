"""The parquet catalog: IDC's BigQuery tables as Parquet files in a folder or bucket, asked with DuckDB.

Layout: ``ROOT/idc_vN/TABLE/*.parquet`` and ``ROOT/idc_vN_clinical/TABLE/*.parquet``, as IDC publishes them without an
account below ``s3://idc-open-metadata/bigquery_export``; ROOT may also name one ``idc_vN`` or hold TABLE folders.
Local files are read by DuckDB itself; buckets through Arrow, so that no extension has to be downloaded. In both cases
only the columns that a query names are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ctenrich.catalog.base import CatalogKind, CatalogOptions, Estimate, QueryResult
from ctenrich.catalog.engine import IDC_PROJECT, run_on_duckdb
from ctenrich.catalog.partition import default_memory, run_in_parts
from ctenrich.catalog.queries import Query
from ctenrich.catalog.sql import table_names
from ctenrich.errors import TransientError, UsageError
from ctenrich.reasons import Reason

__all__ = ["KIND", "ParquetCatalog"]

_DATASET = re.compile(r"idc_v\d+(_clinical)?")
_TABLE = re.compile(r"\w{1,128}")
_CONNECT, _REQUEST = 10, 60
"""Seconds to wait for a connection, and for an answer."""


class ParquetCatalog:
    """Tables as Parquet files.

    Parameters
    ----------
    uri : str
        A folder, ``s3://...`` or ``gs://...``; buckets are read anonymously unless AWS_ACCESS_KEY_ID is set.
        AWS_ENDPOINT_URL names another S3 service.
    memory : int, optional
        Bytes that a selection may take; None: half of this machine's memory.
    """

    name = "parquet"
    instance_level = True
    complete = True

    def __init__(self, uri: str, *, memory: int | None = None) -> None:
        import duckdb

        self._memory = memory or default_memory()
        self._root = uri.rstrip("/")
        self._files, self._path = _file_system(self._root)
        self._connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        self._datasets: set[str] = set()
        self._known: dict[str, str] = {}

    @property
    def engine(self) -> str:
        """Name and version of the engine."""
        import duckdb

        return f"duckdb {duckdb.__version__}"

    @property
    def version(self) -> str:
        """The datasets that the last query read."""
        return "+".join(sorted(self._datasets)) or "unknown"

    @property
    def connection(self) -> Any:
        """The DuckDB connection."""
        return self._connection

    def run(self, query: Query, parameters: Mapping[str, object]) -> QueryResult:
        """Answer a query on any table of the layout.

        Raises
        ------
        TransientError
            CATALOG_UNREACHABLE.
        UsageError
            BAD_QUERY for a table that is not there.
        """
        self._open_tables(query)
        return run_on_duckdb(self._connection, query, parameters, self._known, self._memory)

    def run_in_parts(self, query: Query, parameters: Mapping[str, object]) -> Iterator[QueryResult]:
        """Answer a query for as many studies at a time as the memory allows, see :func:`run_in_parts`."""
        self._open_tables(query)
        return run_in_parts(self._connection, query, parameters, self._known, self._memory)

    def _open_tables(self, query: Query) -> None:
        names = table_names(query.text)
        for name in names:
            self._open(name)
        self._datasets = {name.split(".")[1] for name in names if name.count(".") == 2} or {Path(self._path).name}

    def estimate(self, query: Query, parameters: Mapping[str, object]) -> Estimate | None:
        """Nothing is billed."""
        return None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _open(self, name: str) -> None:
        project, dataset, table = ("", "", name) if "." not in name else [*name.split("."), ""][:3]
        if _TABLE.fullmatch(table) is None or (dataset and _DATASET.fullmatch(dataset) is None):
            return  # refused with its reason when the query is translated
        if (project and project != IDC_PROJECT) or table.lower() in self._known:
            return
        for place in self._places(dataset, table):
            if self._register(place, table):
                self._known[table.lower()] = table
                return

    def _places(self, dataset: str, table: str) -> list[str]:
        last = self._path.rsplit("/", 1)
        inside = [f"{self._path}/{dataset}/{table}"] if dataset else []
        beside = [f"{last[0]}/{dataset}/{table}"] if dataset and len(last) == 2 and _DATASET.fullmatch(last[1]) else []
        here = not dataset or last[-1] == dataset or _DATASET.fullmatch(last[-1]) is None
        plain = [f"{self._path}/{table}"] if here else []
        return [*inside, *beside, *plain]

    def _register(self, place: str, table: str) -> bool:
        import pyarrow as pa
        import pyarrow.dataset as ds
        from pyarrow import fs

        if self._files is None:
            if not any(Path(place).glob("*.parquet")):
                return False
            self._connection.read_parquet(f"{place}/*.parquet").create_view(table)
            return True
        try:
            found = self._files.get_file_info(fs.FileSelector(place, allow_not_found=True))
            paths = sorted(info.path for info in found if info.path.endswith(".parquet"))
            if not paths:
                return False
            self._connection.register(table, ds.dataset(paths, filesystem=self._files, format="parquet"))
        except (OSError, pa.ArrowException) as error:
            message = "the bucket cannot be read: " + str(error).splitlines()[0][:200]
            raise TransientError(Reason.CATALOG_UNREACHABLE, message) from error
        return True


def _file_system(uri: str) -> tuple[Any, str]:
    """Arrow file system and path below it; None for local folders."""
    from pyarrow import fs

    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
        options: dict[str, Any] = (
            {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme} if endpoint.netloc else {}
        )
        files = fs.S3FileSystem(
            anonymous="AWS_ACCESS_KEY_ID" not in os.environ,
            region=os.environ.get("AWS_REGION", "us-east-1"),
            connect_timeout=_CONNECT,
            request_timeout=_REQUEST,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
            **options,
        )
        return files, uri.removeprefix("s3://")
    if scheme == "gs":
        import datetime as dt

        return fs.GcsFileSystem(anonymous=True, retry_time_limit=dt.timedelta(seconds=_REQUEST)), uri.removeprefix(
            "gs://"
        )
    path = uri.removeprefix("file://")
    if "://" in path:
        raise UsageError(Reason.BAD_PARAMETER, f"parquet: takes a folder, s3:// or gs://, not {scheme}://")
    if not Path(path).is_dir():
        raise UsageError(Reason.NOT_FOUND, f"there is no folder {Path(path).name}")
    return None, str(Path(path).resolve())


def _open_kind(argument: str, options: CatalogOptions) -> ParquetCatalog | None:
    return ParquetCatalog(argument, memory=options.memory) if argument else None


KIND = CatalogKind(form="parquet:URI", open=_open_kind)

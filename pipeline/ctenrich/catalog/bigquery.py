"""The bigquery catalog: IDC's public tables on BigQuery, with a dry run, a price and a limit before every query."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ctenrich.catalog.base import CatalogKind, CatalogOptions, Estimate, QueryResult, parse_table_name
from ctenrich.catalog.engine import IDC_PROJECT
from ctenrich.catalog.queries import Query, bind
from ctenrich.catalog.sql import table_names
from ctenrich.errors import CtenrichError, TransientError, UsageError
from ctenrich.reasons import Reason
from ctenrich.storage.google import Failure, google_error, google_failure

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BYTE_LIMIT", "KIND", "BigQueryCatalog", "check_table_name", "open_client"]

BYTE_LIMIT = 50 * 1024**3
"""Default limit of the bytes that a query may read: the selection of a large collection reads 10 to 30 GB."""
PRICE_PER_TIB = 6.25
"""US dollars, list price of on-demand queries; the first TiB of a month is free."""
_CONNECT, _REQUEST, _ANSWER = 5.0, 60.0, 900.0
INDEX_TABLES = frozenset({"idc_index", "prior_versions_index", "volume_geometry_index", "ct_index"})
_TABLE = re.compile(r"[\w-]{1,64}\.\w{1,128}\.\w{1,128}")


class BigQueryCatalog:
    """IDC on BigQuery.

    Parameters
    ----------
    project : str
        Who pays; empty: the project of the credentials.
    byte_limit : int
        A query that would read more is not run. The dry run states an upper bound: collections are pruned later.
    endpoint : str
        Another service that speaks BigQuery's protocol (tests); default: BIGQUERY_EMULATOR_HOST, else Google.
    index_dataset : str
        ``project.dataset`` of a copy of IDC's series index (``idc_index`` and its kin), which IDC itself keeps outside
        BigQuery; empty: queries on them are refused.

    Raises
    ------
    UsageError
        MISSING_EXTRA, NO_CREDENTIALS.
    TransientError
        CATALOG_UNREACHABLE, within seconds.
    """

    name = "bigquery"
    instance_level = True
    complete = True

    def __init__(
        self, project: str = "", *, byte_limit: int = BYTE_LIMIT, endpoint: str = "", index_dataset: str = ""
    ) -> None:
        self._client = open_client(project, endpoint)
        from google.cloud import bigquery

        self._bigquery = bigquery
        self._limit = byte_limit
        self._index_dataset = index_dataset
        self._datasets: set[str] = set()

    @property
    def engine(self) -> str:
        """Name and version of the client."""
        return f"google-cloud-bigquery {self._bigquery.__version__}"

    @property
    def version(self) -> str:
        """The datasets that the last query read."""
        return "+".join(sorted(self._datasets)) or "unknown"

    def _config(self, query: Query, parameters: Mapping[str, object], **options: Any) -> Any:
        values: list[Any] = []
        for name, (kind, value) in bind(query, parameters).items():
            if kind.startswith("ARRAY<"):
                values.append(self._bigquery.ArrayQueryParameter(name, kind[6:-1], value))
            else:
                values.append(self._bigquery.ScalarQueryParameter(name, kind, value))  # type: ignore[arg-type]
        if self._index_dataset:
            options["default_dataset"] = self._index_dataset
        return self._bigquery.QueryJobConfig(query_parameters=values, **options)

    def _check_tables(self, query: Query) -> None:
        self._datasets = set()
        for name in table_names(query.text):
            if self._index_dataset and name in INDEX_TABLES:
                self._datasets.add(self._index_dataset.rsplit(".", 1)[-1])
                continue
            table = parse_table_name(name)
            if table is None or table.project != IDC_PROJECT or table.idc_version is None:
                hint = f"tables are {IDC_PROJECT}.idc_vN.TABLE, with a pinned version"
                raise UsageError(Reason.BAD_QUERY, f"the table {name[:120]} is not in the list", hint)
            self._datasets.add(table.dataset)

    def estimate(self, query: Query, parameters: Mapping[str, object]) -> Estimate | None:
        """Dry run: bytes that the query would read at most, and their list price."""
        self._check_tables(query)
        job = self._ask(query, self._config(query, parameters, dry_run=True, use_query_cache=False))
        read = int(job.total_bytes_processed or 0)
        return Estimate(read, read / 1024**4 * PRICE_PER_TIB)

    def run(self, query: Query, parameters: Mapping[str, object]) -> QueryResult:
        """Dry run, compare with the limit, run.

        Raises
        ------
        UsageError
            BYTE_LIMIT, BAD_QUERY, MISSING_COLUMN, NO_CREDENTIALS.
        TransientError
            CATALOG_UNREACHABLE.
        """
        estimate = self.estimate(query, parameters)
        assert estimate is not None
        if estimate.bytes > self._limit:
            message = (
                f"{query.name} would read up to {estimate.bytes / 1e9:.1f} GB (${estimate.price_usd:.2f}), "
                f"the limit is {self._limit / 1e9:.1f} GB"
            )
            raise UsageError(Reason.BYTE_LIMIT, message, "name collections, or raise the limit")
        begin = time.monotonic()
        job = self._ask(query, self._config(query, parameters, maximum_bytes_billed=self._limit))
        try:
            table = job.result(timeout=_ANSWER).to_arrow(create_bqstorage_client=False)
        except Exception as error:
            raise _query_error(error, query.name) from error
        return QueryResult(table, int(job.total_bytes_processed or 0), time.monotonic() - begin)

    def save_table(self, name: str, table: pa.Table) -> None:
        """Write a table to ``project.dataset.table``, replacing it.

        Raises
        ------
        UsageError
            BAD_PARAMETER for another form of name; else as `run`.
        """
        import io

        import pyarrow.parquet as pq

        check_table_name(name)
        options = self._bigquery.ParquetOptions()  # type: ignore[no-untyped-call]
        options.enable_list_inference = True
        config = self._bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
        config.parquet_options = options
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        buffer.seek(0)
        try:
            self._client.load_table_from_file(buffer, name, job_config=config).result(timeout=_ANSWER)
        except Exception as error:
            raise _query_error(error, "the table") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, query: Query, config: Any) -> Any:
        from google.api_core.retry import Retry

        try:
            return self._client.query(
                query.text, job_config=config, timeout=_REQUEST, retry=Retry(timeout=_REQUEST), job_retry=None
            )
        except Exception as error:
            raise _query_error(error, query.name) from error


def check_table_name(name: str) -> None:
    """Check that a name has the form ``project.dataset.table``.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    if _TABLE.fullmatch(name) is None:
        raise UsageError(Reason.BAD_PARAMETER, "a BigQuery table is project.dataset.table")


def open_client(project: str, endpoint: str = "") -> Any:
    """Google's client of BigQuery.

    Parameters
    ----------
    project : str
        Who pays; empty: the project of the credentials.
    endpoint : str
        Another service that speaks BigQuery's protocol; default: BIGQUERY_EMULATOR_HOST, else Google.

    Returns
    -------
    google.cloud.bigquery.Client
        To be closed by the caller.

    Raises
    ------
    UsageError
        MISSING_EXTRA, NO_CREDENTIALS.
    TransientError
        CATALOG_UNREACHABLE, within seconds.
    """
    try:
        from google.cloud import bigquery
    except ImportError as error:
        hint = "pip install 'ctenrich[cloud]'"
        raise UsageError(Reason.MISSING_EXTRA, "google-cloud-bigquery is not installed", hint) from error
    from google.auth.exceptions import DefaultCredentialsError

    endpoint = endpoint or os.environ.get("BIGQUERY_EMULATOR_HOST", "")
    if endpoint:
        from google.auth.credentials import AnonymousCredentials

        url = endpoint if "://" in endpoint else f"http://{endpoint}"
        check_reachable(url)
        options = {"api_endpoint": url}
        return bigquery.Client(project or "local", AnonymousCredentials(), client_options=options)  # type: ignore[no-untyped-call]
    try:
        return bigquery.Client(project or None)
    except (DefaultCredentialsError, OSError) as error:
        hint = "run: gcloud auth application-default login; or use --catalog parquet: or idc, which need no account"
        raise UsageError(Reason.NO_CREDENTIALS, "no Google credentials or project were found", hint) from error


def check_reachable(url: str) -> None:
    """Fail at once if the port does not accept connections: the client itself would retry for minutes."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT).close()
    except OSError as error:
        raise TransientError(Reason.CATALOG_UNREACHABLE, f"port {port} does not accept connections") from error


def _query_error(error: Exception, name: str) -> CtenrichError:
    """The error for a query or load job that the client raised an exception for."""
    if isinstance(error, CtenrichError):
        return error
    failure, text, _, _ = google_failure(error)
    column = re.search(r"Unrecognized name: (\S+)|column \"?([^\"\s]+)\"? not found", text)
    if column:
        missing = column[1] or column[2]
        return UsageError(Reason.MISSING_COLUMN, f"{name} needs the column {missing}, which the catalog lacks")
    if "bytesBilledLimitExceeded" in str(error) or "bytes billed" in text:
        return UsageError(Reason.BYTE_LIMIT, f"{name}: {text}")
    if failure in {Failure.NOT_FOUND, Failure.REQUEST_REFUSED}:
        return UsageError(Reason.BAD_QUERY, f"{name}: {text}")
    if failure in {Failure.SERVICE_FAILED, Failure.UNREACHABLE}:
        return TransientError(Reason.CATALOG_UNREACHABLE, f"{name}: {text}")
    return google_error(error)


def _open_kind(argument: str, options: CatalogOptions) -> BigQueryCatalog:
    limit = BYTE_LIMIT if options.byte_limit is None else options.byte_limit
    return BigQueryCatalog(argument, byte_limit=limit)


KIND = CatalogKind(form="bigquery[:PROJECT]", open=_open_kind)

"""Query published result tables on BigQuery: the same SQL as for a run on disk, with its price in advance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctenrich.catalog.base import Estimate, parse_table_name
from ctenrich.catalog.bigquery import BYTE_LIMIT, BigQueryCatalog
from ctenrich.catalog.engine import IDC_PROJECT
from ctenrich.catalog.queries import Query, load_query, parse_query, shipped_queries
from ctenrich.catalog.sql import table_names
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PLACE", "PublishedTables", "is_remote"]

PLACE = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\.[A-Za-z0-9_]{1,1024}")
"""``PROJECT.DATASET`` with the letters that BigQuery allows."""
_SCHEME = "bigquery:"


def is_remote(text: str) -> bool:
    """Whether `text` names published tables rather than a folder."""
    return text.startswith(_SCHEME)


class PublishedTables(BigQueryCatalog):
    """The tables that ``ctenrich publish`` loaded into a dataset.

    Tables without a dataset in their name are those of the dataset; ``bigquery-public-data.idc_vN...`` are IDC's own.

    Parameters
    ----------
    place : str
        ``PROJECT.DATASET``, with or without ``bigquery:`` before it; ``bigquery-public-data.idc_vN`` are IDC's tables.
    project : str
        Project that pays; default: the project of `place`.
    byte_limit : int
        Most bytes that a query may read.
    endpoint : str
        Another service that speaks BigQuery's protocol; default: BIGQUERY_EMULATOR_HOST, else Google.

    Raises
    ------
    UsageError
        BAD_PARAMETER (not a dataset's name), MISSING_EXTRA, NO_CREDENTIALS.
    TransientError
        CATALOG_UNREACHABLE.
    """

    def __init__(self, place: str, *, project: str = "", byte_limit: int = BYTE_LIMIT, endpoint: str = "") -> None:
        self._place = place.removeprefix(_SCHEME)
        if PLACE.fullmatch(self._place) is None:
            raise UsageError(Reason.BAD_PARAMETER, "the dataset is named bigquery:PROJECT.DATASET")
        payer = project or self._place.split(".", maxsplit=1)[0]
        super().__init__(payer, byte_limit=byte_limit, endpoint=endpoint)

    def estimate_query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Estimate:
        """Estimate by a dry run the most bytes that a query reads, and their list price; nothing is billed.

        Parameters
        ----------
        sql : str
            As for `run_query`.
        parameters : mapping, optional
            Values to bind.

        Returns
        -------
        Estimate

        Raises
        ------
        UsageError
            As `run_query`.
        """
        found = self.estimate(_parse_remote_query(sql), dict(parameters or {}))
        assert found is not None
        return found

    def run_query(self, sql: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        """Run one SELECT; parameters are bound, never written into the text.

        Parameters
        ----------
        sql : str
            A ``.sql`` file, the name of a query in queries/, or a statement in BigQuery's SQL with ``@parameters``.
        parameters : mapping, optional
            Values to bind.

        Returns
        -------
        pyarrow.Table

        Raises
        ------
        UsageError
            NOT_FOUND, BAD_QUERY, BAD_PARAMETER, MISSING_COLUMN, BYTE_LIMIT, NO_CREDENTIALS.
        TransientError
            CATALOG_UNREACHABLE.
        """
        return self.run(_parse_remote_query(sql), dict(parameters or {})).table

    def _config(self, query: Query, parameters: Mapping[str, object], **options: Any) -> Any:
        return super()._config(query, parameters, default_dataset=self._place, **options)

    def _check_tables(self, query: Query) -> None:
        """Refuse tables other than those of the dataset and IDC's pinned ones."""
        self._datasets = {self._place}
        for name in table_names(query.text):
            if "." not in name or name.startswith(f"{self._place}."):
                continue
            table = parse_table_name(name)
            if table is None or table.project != IDC_PROJECT or table.idc_version is None:
                hint = f"tables are those of {self._place}, or {IDC_PROJECT}.idc_vN.TABLE with a pinned version"
                raise UsageError(Reason.BAD_QUERY, f"the table {name[:120]} is not in the list", hint)
            self._datasets.add(table.dataset)


def _parse_remote_query(sql: str) -> Query:
    text = sql.strip()
    if text.lower().endswith(".sql") or text in shipped_queries():
        return load_query(text)
    return parse_query("the statement", text)

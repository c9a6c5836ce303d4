"""Where metadata is asked: four catalogs behind one protocol."""

from __future__ import annotations

from pathlib import Path

from ctenrich.catalog.base import Catalog
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["Catalog", "open_catalog"]


def open_catalog(spec: str, *, byte_limit: int | None = None) -> Catalog:
    """Open a catalog by its specification.

    Parameters
    ----------
    spec : str
        ``folder:FILE`` (made by `index_folders`), ``idc`` (the series index that pip installs; ``idc:fetch``
        fetches its geometry tables too), ``parquet:URI`` (a folder or bucket with IDC's
        BigQuery export) or ``bigquery[:PROJECT]`` (PROJECT pays).
    byte_limit : int, optional
        Bytes that one BigQuery query may read; None: 50 GiB. Other catalogs bill nothing.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another specification; else what the catalog says.
    """
    kind, _, rest = spec.partition(":")
    if kind == "folder" and rest:
        from ctenrich.catalog.folder import FolderCatalog

        return FolderCatalog(Path(rest))
    if spec in {"idc", "idc:fetch"}:
        from ctenrich.catalog.idc_index import IdcIndexCatalog

        return IdcIndexCatalog(fetch=spec == "idc:fetch")
    if kind == "parquet" and rest:
        from ctenrich.catalog.parquet import ParquetCatalog

        return ParquetCatalog(rest)
    if kind == "bigquery":
        from ctenrich.catalog.bigquery import BYTE_LIMIT, BigQueryCatalog

        return BigQueryCatalog(rest, byte_limit=BYTE_LIMIT if byte_limit is None else byte_limit)
    hint = "folder:FILE, idc, idc:fetch, parquet:URI or bigquery[:PROJECT]"
    raise UsageError(Reason.BAD_PARAMETER, f"there is no catalog {spec[:80]!r}", hint)

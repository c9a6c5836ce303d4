"""Where metadata is asked: four catalogs behind one protocol."""

from __future__ import annotations

from pathlib import Path

from ctenrich.catalog.base import Catalog
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["Catalog", "open_catalog"]


def open_catalog(spec: str) -> Catalog:
    """Open a catalog by its specification.

    Parameters
    ----------
    spec : str
        ``folder:FILE`` (made by `index_folders`), ``idc`` (the series index that pip installs), ``parquet:URI`` (a
        folder or bucket with IDC's BigQuery export) or ``bigquery[:PROJECT]`` (PROJECT pays).

    Raises
    ------
    UsageError
        BAD_PARAMETER for another specification; else what the catalog says.
    """
    kind, _, rest = spec.partition(":")
    if kind == "folder" and rest:
        from ctenrich.catalog.folder import FolderCatalog

        return FolderCatalog(Path(rest))
    hint = "folder:FILE, idc, parquet:URI or bigquery[:PROJECT]"
    raise UsageError(Reason.BAD_PARAMETER, f"there is no catalog {spec[:80]!r}", hint)

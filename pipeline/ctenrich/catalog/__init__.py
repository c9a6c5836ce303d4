"""Catalogs: where metadata is queried. Kinds are registered by name and imported when one of them is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctenrich.catalog.base import Catalog, CatalogKind, CatalogOptions
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.resources import plugins, registered

if TYPE_CHECKING:
    from ctenrich.settings import FetchSettings

__all__ = ["CATALOGS", "GROUP", "Catalog", "CatalogKind", "CatalogOptions", "open_catalog"]

CATALOGS = {
    "folder": "ctenrich.catalog.folder:KIND",
    "idc": "ctenrich.catalog.idc_index:KIND",
    "parquet": "ctenrich.catalog.parquet:KIND",
    "bigquery": "ctenrich.catalog.bigquery:KIND",
    "dicom": "ctenrich.archives.catalog:DICOM",
    "dicomweb+https": "ctenrich.archives.catalog:DICOMWEB",
    "dicomweb+http": "ctenrich.archives.catalog:DICOMWEB_HTTP",
    "xnat+https": "ctenrich.archives.catalog:XNAT",
    "xnat+http": "ctenrich.archives.catalog:XNAT_HTTP",
    "tcia": "ctenrich.archives.catalog:TCIA_COLLECTION",
    "nbia+https": "ctenrich.archives.catalog:NBIA",
    "nbia+http": "ctenrich.archives.catalog:NBIA_HTTP",
}
"""Kind of catalog -> its `CatalogKind`. A new kind is a module with a KIND and one line here."""
GROUP = "ctenrich.catalogs"
"""Entry point group in which other packages register a `CatalogKind` by the name of the kind."""


def open_catalog(
    spec: str,
    *,
    byte_limit: int | None = None,
    partial: bool = False,
    memory: int | None = None,
    fetch: FetchSettings | None = None,
) -> Catalog:
    """Open a catalog by its specification, ``KIND`` or ``KIND:ARGUMENT``.

    Parameters
    ----------
    spec : str
        ``folder:FILE`` (made by `index_folders`), ``idc`` (the series index that pip installs; ``idc:fetch``
        fetches its geometry tables too), ``parquet:URI`` (a folder or bucket with IDC's BigQuery export),
        ``bigquery[:PROJECT]`` (PROJECT pays), ``dicom://HOST:PORT/AET`` (a DICOM node), or a kind
        that another package registers.
    byte_limit : int, optional
        Bytes that one BigQuery query may read; None: 50 GiB. Other catalogs bill nothing.
    partial : bool
        Answer queries on a folder catalog although its last crawl did not end.
    memory : int, optional
        Bytes that a selection may take on a folder or Parquet catalog; None: half of this machine's memory.
    fetch : FetchSettings, optional
        How archives are reached: titles, certificates, time limits; None: as the default settings have it.

    Returns
    -------
    Catalog
        To be closed by the caller.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown kind or argument; BAD_PLUGIN; what opening the catalog raises.
    """
    name, _, argument = spec.partition(":")
    kind = _kind_of(name)
    options = CatalogOptions(byte_limit=byte_limit, partial=partial, memory=memory, fetch=fetch)
    catalog = kind.open(argument, options) if kind is not None else None
    if catalog is None:
        forms = [known.form for known in map(_kind_of, [*CATALOGS, *plugins(GROUP)]) if known is not None]
        names = [] if kind is not None else [*CATALOGS, *plugins(GROUP)]
        hint = did_you_mean(name, names, f"{', '.join(forms[:-1])} or {forms[-1]}")
        raise UsageError(Reason.BAD_PARAMETER, f"there is no catalog {spec[:80]!r}", hint)
    return catalog


def _kind_of(name: str) -> CatalogKind | None:
    found = registered(name, CATALOGS, GROUP)
    if found is None or isinstance(found, CatalogKind):
        return found
    message = f"{name!r} in {GROUP} is a {type(found).__name__}, not a CatalogKind"
    raise UsageError(Reason.BAD_PLUGIN, message, "update or uninstall the package that registers it")

"""The catalog protocol: answer queries in BigQuery's dialect, estimate their price, name the version of the data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from ctenrich.catalog.queries import Query
    from ctenrich.progress import Progress
    from ctenrich.settings import FetchSettings

__all__ = [
    "Catalog",
    "CatalogKind",
    "CatalogOptions",
    "Estimate",
    "QueryResult",
    "TableName",
    "ask",
    "parse_table_name",
]

_PINNED = re.compile(r"idc_v(\d+)(_clinical)?")


@dataclass(frozen=True)
class Estimate:
    """What a query would read, before it is run."""

    bytes: int
    price_usd: float
    """List price without the free monthly allowance."""


@dataclass(frozen=True)
class QueryResult:
    """The rows of a query, and what it took."""

    table: pa.Table
    bytes_read: int | None = None
    """Bytes billed or read; None where the engine does not report them."""
    seconds: float = 0.0


class Catalog(Protocol):
    """Where metadata is asked. The SQL is BigQuery's dialect for every catalog."""

    name: str
    """Kind of catalog: folder, parquet, idc, bigquery, dicom, dicomweb, xnat, nbia."""
    instance_level: bool
    """Whether there is one row per instance with its geometry; else geometry is checked after the fetch."""
    complete: bool
    """Whether the catalog lists every instance of its series (an archive's own index), so that counts are claims."""

    @property
    def engine(self) -> str:
        """Name and version of the engine that answers."""

    @property
    def version(self) -> str:
        """Version of the data that the last query read: ``idc_v25`` or a hash of what was crawled."""

    def run(self, query: Query, parameters: Mapping[str, object]) -> QueryResult:
        """Answer `query`; `parameters` are checked against its header first."""

    def estimate(self, query: Query, parameters: Mapping[str, object]) -> Estimate | None:
        """What `run` would read; None where nothing is billed."""

    def close(self) -> None:
        """Let go of files and connections."""


@dataclass(frozen=True, kw_only=True)
class CatalogOptions:
    """What the user may set for any catalog."""

    byte_limit: int | None = None
    """Bytes that one billed query may read; None: the catalog's own limit."""
    partial: bool = False
    """Whether queries are answered although the catalog is known to be incomplete."""
    memory: int | None = None
    """Bytes that a selection may take; None: half of this machine's memory."""
    fetch: FetchSettings | None = None
    """How archives are reached; None: as the default settings have it."""


@dataclass(frozen=True, kw_only=True)
class CatalogKind:
    """One kind of catalog, as it is registered."""

    form: str
    """How a user writes it, e.g. ``folder:FILE``."""
    open: Callable[[str, CatalogOptions], Catalog | None]
    """Opens the catalog for what follows ``KIND:``; None where that is not an argument of this kind."""


def ask(catalog: Catalog, query: Query, parameters: Mapping[str, object], progress: Progress) -> QueryResult:
    """Run a query; where bytes are billed, first report how many it reads at most, and their list price.

    Parameters
    ----------
    catalog : Catalog
        Where to ask.
    query : Query
        The query, in BigQuery's dialect.
    parameters : mapping
        Values of its @parameters.
    progress : Progress
        Gets the price as a note.

    Returns
    -------
    QueryResult
        The rows, and what reading them took.
    """
    estimate = catalog.estimate(query, parameters)
    if estimate is not None:
        cost = f"up to {estimate.bytes / 1e9:.3f} GB: at most ${estimate.price_usd:.2f} (list price)"
        progress.note(f"{query.name} reads {cost}")
    return catalog.run(query, parameters)


@dataclass(frozen=True)
class TableName:
    """A table of the Imaging Data Commons as queries write it."""

    project: str
    dataset: str
    table: str

    @property
    def idc_version(self) -> int | None:
        """N of idc_vN; None if the dataset is not a pinned version."""
        match = _PINNED.fullmatch(self.dataset)
        return int(match[1]) if match else None

    @property
    def clinical(self) -> bool:
        """Whether the dataset holds clinical tables."""
        return self.dataset.endswith("_clinical")


def parse_table_name(text: str) -> TableName | None:
    """Split ``project.dataset.table``; None if it has another form."""
    parts = text.strip("`").split(".")
    return TableName(*parts) if len(parts) == 3 else None

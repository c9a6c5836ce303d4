"""The idc catalog: IDC's index of series that pip installs, one row a series, without the geometry of instances.

Read straight from the Parquet files of the package ``idc-index-data`` with DuckDB. ``volume_geometry_index`` and
``ct_index`` do not come with the package; where they were fetched (into its folder, or where ``idc-index`` keeps what
it fetches) they are used. ``idc:fetch`` fetches what is missing; where that fails, or was not asked for, the table is
empty, and the geometry of every series is unknown until its images are fetched: `IdcIndexCatalog.notes` states that.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from ctenrich.catalog.base import CatalogKind, CatalogOptions, Estimate, QueryResult
from ctenrich.catalog.engine import run_on_duckdb
from ctenrich.catalog.idc_fetch import fetch_index
from ctenrich.catalog.queries import Query
from ctenrich.errors import TransientError, UsageError
from ctenrich.reasons import Reason

__all__ = ["KIND", "IdcIndexCatalog"]

_OPTIONAL = {
    "volume_geometry_index": (
        "SeriesInstanceUID VARCHAR, single_orientation BOOLEAN, orthogonal_orientation BOOLEAN, "
        "unique_slice_positions BOOLEAN, consistent_in_plane_row BOOLEAN, consistent_in_plane_col BOOLEAN, "
        "consistent_pixel_spacing BOOLEAN, consistent_image_dimensions BOOLEAN, uniform_slice_spacing BOOLEAN, "
        "regularly_spaced_3d_volume BOOLEAN"
    ),
    "ct_index": "SeriesInstanceUID VARCHAR, ImageType VARCHAR[], SliceThickness DOUBLE",
}

_ATTRIBUTES = (
    "ManufacturerModelName",
    "BodyPartExamined",
    "SeriesDescription",
    "StudyDate",
    "PatientAge",
    "PatientSex",
)
"""Columns by which users filter; they are NULL where an index lacks them."""
_UNKNOWN = "the geometry of series is unknown until their images are fetched (idc:fetch asks for the geometry tables)"


class IdcIndexCatalog:
    """IDC's series index.

    Parameters
    ----------
    folder : Path, optional
        Where ``idc_index.parquet`` and the others are; default: the installed package.
    fetch : bool
        Fetch ``volume_geometry_index`` and ``ct_index`` where they are missing, within a bounded wait.
    fetched : Path, optional
        Where fetched tables are kept; default: where ``idc-index`` keeps them for this version.

    Raises
    ------
    UsageError
        MISSING_EXTRA if the package is not installed; NOT_FOUND if the folder holds no index.
    """

    name = "idc"
    instance_level = False
    complete = True

    def __init__(self, folder: Path | None = None, *, fetch: bool = False, fetched: Path | None = None) -> None:
        import duckdb

        self._folder = folder or _package_folder()
        self._fetched = fetched or _fetched_folder(self._number)
        self.notes: tuple[str, ...] = ()
        """What the user should know of the tables that are missing."""
        index = self._folder / "idc_index.parquet"
        if not index.is_file():
            raise UsageError(Reason.NOT_FOUND, f"there is no idc_index.parquet in {self._folder.name}")
        self._connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        self._view("idc_index", index)
        prior = self._folder / "prior_versions_index.parquet"
        if prior.is_file():
            self._view("prior_versions_index", prior)
        for name, columns in _OPTIONAL.items():
            found = self._find(name, fetch=fetch and not self.notes)
            if found is not None:
                self._view(name, found)
            else:
                self._connection.execute(f'CREATE TABLE "{name}" ({columns})')
                self.notes += () if self.notes else (_UNKNOWN,)

    def _view(self, name: str, path: Path) -> None:
        relation = self._connection.read_parquet(str(path))
        lacking = [column for column in _ATTRIBUTES if name == "idc_index" and column not in relation.columns]
        relation.project(", ".join(["*", *(f"CAST(NULL AS VARCHAR) AS {column}" for column in lacking)])).create_view(
            name
        )

    def _find(self, name: str, *, fetch: bool) -> Path | None:
        for place in (self._folder, self._fetched):
            if (place / f"{name}.parquet").is_file():
                return place / f"{name}.parquet"
        if not fetch:
            return None
        try:
            return fetch_index(name, self._number, self._fetched)
        except TransientError as error:
            self.notes += (f"{error.message}; {_UNKNOWN}",)
            return None

    @property
    def _number(self) -> str:
        return self.version.removeprefix("idc-index-data ")

    @property
    def engine(self) -> str:
        """Name and version of the engine."""
        import duckdb

        return f"duckdb {duckdb.__version__}"

    @property
    def version(self) -> str:
        """Version of the index; its first number is IDC's version."""
        try:
            return f"idc-index-data {package_version('idc-index-data')}"
        except ModuleNotFoundError:
            return "idc-index-data unknown"

    @property
    def connection(self) -> Any:
        """The DuckDB connection."""
        return self._connection

    def run(self, query: Query, parameters: Mapping[str, object]) -> QueryResult:
        """Answer a query on ``idc_index``, ``prior_versions_index``, ``volume_geometry_index`` and ``ct_index``."""
        names = [row[0] for row in self._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        names += [row[0] for row in self._connection.execute("SELECT view_name FROM duckdb_views()").fetchall()]
        known = {n: n for n in names if n in {"idc_index", "prior_versions_index", *_OPTIONAL}}
        return run_on_duckdb(self._connection, query, parameters, known)

    def estimate(self, query: Query, parameters: Mapping[str, object]) -> Estimate | None:
        """Nothing is billed."""
        return None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _fetched_folder(version: str) -> Path:
    """Where idc-index keeps the tables that it fetches."""
    try:
        import platformdirs
    except ImportError:
        return Path.home() / ".local" / "share" / "idc_index_data" / version
    return Path(platformdirs.user_data_dir("idc_index_data", "IDC", version))


def _package_folder() -> Path:
    spec = importlib.util.find_spec("idc_index_data")
    if spec is None or spec.origin is None:
        hint = "pip install 'ctenrich[cloud]' (or idc-index-data alone)"
        raise UsageError(Reason.MISSING_EXTRA, "the package idc-index-data is not installed", hint)
    return Path(spec.origin).parent


def _open_kind(argument: str, options: CatalogOptions) -> IdcIndexCatalog | None:
    return IdcIndexCatalog(fetch=argument == "fetch") if argument in {"", "fetch"} else None


KIND = CatalogKind(form="idc[:fetch]", open=_open_kind)

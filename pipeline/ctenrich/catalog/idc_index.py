"""The idc catalog: IDC's index of series that pip installs, one row a series, without the geometry of instances.

Read straight from the Parquet files of the package ``idc-index-data`` with DuckDB. ``volume_geometry_index`` and
``ct_index`` do not come with the package; where they were fetched (into its folder, or where ``idc-index`` keeps what
it fetches) they are used, else they are empty, and the geometry of every series is unknown until it is fetched.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from ctenrich.catalog.base import Estimate, QueryResult
from ctenrich.catalog.engine import run_on_duckdb
from ctenrich.catalog.queries import Query
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["IdcIndexCatalog"]

_OPTIONAL = {
    "volume_geometry_index": (
        "SeriesInstanceUID VARCHAR, single_orientation BOOLEAN, orthogonal_orientation BOOLEAN, "
        "unique_slice_positions BOOLEAN, consistent_in_plane_row BOOLEAN, consistent_in_plane_col BOOLEAN, "
        "consistent_pixel_spacing BOOLEAN, consistent_image_dimensions BOOLEAN, uniform_slice_spacing BOOLEAN, "
        "regularly_spaced_3d_volume BOOLEAN"
    ),
    "ct_index": "SeriesInstanceUID VARCHAR, ImageType VARCHAR[], SliceThickness VARCHAR",
}


class IdcIndexCatalog:
    """IDC's series index.

    Parameters
    ----------
    folder : Path, optional
        Where ``idc_index.parquet`` and the others are; default: the installed package.

    Raises
    ------
    UsageError
        MISSING_EXTRA if the package is not installed; NOT_FOUND if the folder holds no index.
    """

    name = "idc"
    instance_level = False
    complete = True

    def __init__(self, folder: Path | None = None) -> None:
        import duckdb

        self._folder = folder or _package_folder()
        index = self._folder / "idc_index.parquet"
        if not index.is_file():
            raise UsageError(Reason.NOT_FOUND, f"there is no idc_index.parquet in {self._folder.name}")
        self._connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        self._view("idc_index", index)
        prior = self._folder / "prior_versions_index.parquet"
        if prior.is_file():
            self._view("prior_versions_index", prior)
        for name, columns in _OPTIONAL.items():
            found = next((p for p in self._places(name) if p.is_file()), None)
            if found is not None:
                self._view(name, found)
            else:
                self._connection.execute(f'CREATE TABLE "{name}" ({columns})')

    def _view(self, name: str, path: Path) -> None:
        self._connection.read_parquet(str(path)).create_view(name)

    def _places(self, name: str) -> list[Path]:
        fetched = Path.home() / ".local/share/idc_index_data" / self.version.removeprefix("idc-index-data ")
        return [self._folder / f"{name}.parquet", fetched / f"{name}.parquet"]

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


def _package_folder() -> Path:
    spec = importlib.util.find_spec("idc_index_data")
    if spec is None or spec.origin is None:
        hint = "pip install 'ctenrich[cloud]' (or idc-index-data alone)"
        raise UsageError(Reason.MISSING_EXTRA, "the package idc-index-data is not installed", hint)
    return Path(spec.origin).parent

"""Archives as catalogs: the CT series of a search, as a series index without the geometry of instances.

The series are searched for when a query is run, by the patients, series and study dates that its parameters name, and
become the table ``idc_index``, which ``select_idc_series`` reads. An attribute that a rule asks about and that the
archive does not return is read from the headers of the series' images.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctenrich.archives.archive import SERIES_ATTRIBUTES, Archive, ArchiveSearch, ArchiveSeries
from ctenrich.archives.dicomweb import DicomwebArchive
from ctenrich.archives.nbia import TCIA, NbiaArchive
from ctenrich.archives.node import NodeArchive
from ctenrich.archives.xnat import XnatArchive
from ctenrich.catalog.base import CatalogKind, CatalogOptions, Estimate, QueryResult
from ctenrich.catalog.engine import run_on_duckdb
from ctenrich.catalog.headers import read_header
from ctenrich.catalog.queries import Query, bind
from ctenrich.errors import InputError, count
from ctenrich.progress import SILENT
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage import open_storage
from ctenrich.storage.base import Transfer

__all__ = [
    "DICOM",
    "DICOMWEB",
    "DICOMWEB_HTTP",
    "NBIA",
    "NBIA_HTTP",
    "TCIA_COLLECTION",
    "XNAT",
    "XNAT_HTTP",
    "ArchiveCatalog",
]

_ASKED = {
    "manufacturers": "Manufacturer",
    "models": "ManufacturerModelName",
    "body_parts": "BodyPartExamined",
    "descriptions": "SeriesDescription",
    "sexes": "PatientSex",
    "age_min": "PatientAge",
    "age_max": "PatientAge",
    "study_date_min": "StudyDate",
    "study_date_max": "StudyDate",
}
"""Parameter of a rule -> attribute, which is the same in all instances of a series."""
_ASKED_OF_IMAGES = {"exclude_derived": "ImageType", "slice_thickness_min": "", "slice_thickness_max": ""}
"""Parameter of a rule on an attribute in which the instances of a series may differ."""
_UNKNOWN = "an archive does not confirm the geometry of a series: it is checked after the fetch"
_TABLES = {
    "idc_index": (
        "collection_id VARCHAR, PatientID VARCHAR, StudyInstanceUID VARCHAR, SeriesInstanceUID VARCHAR, "
        "crdc_series_uuid VARCHAR, license_short_name VARCHAR, source_DOI VARCHAR, SOPClassUID VARCHAR, "
        "instanceCount BIGINT, series_size_MB DOUBLE, series_aws_url VARCHAR, Modality VARCHAR, "
        "analysis_result_id VARCHAR, " + ", ".join(f"{name} VARCHAR" for name in SERIES_ATTRIBUTES)
    ),
    "volume_geometry_index": (
        "SeriesInstanceUID VARCHAR, single_orientation BOOLEAN, orthogonal_orientation BOOLEAN, "
        "unique_slice_positions BOOLEAN, consistent_in_plane_row BOOLEAN, consistent_in_plane_col BOOLEAN, "
        "consistent_pixel_spacing BOOLEAN, consistent_image_dimensions BOOLEAN, uniform_slice_spacing BOOLEAN, "
        "regularly_spaced_3d_volume BOOLEAN"
    ),
    "ct_index": "SeriesInstanceUID VARCHAR, ImageType VARCHAR[], SliceThickness DOUBLE",
}


class ArchiveCatalog:
    """The CT series of an archive.

    Parameters
    ----------
    archive : Archive
        Where series are searched for.
    settings : FetchSettings
        How headers are fetched.
    """

    instance_level = False
    complete = True

    def __init__(self, archive: Archive, settings: FetchSettings) -> None:
        import duckdb

        self.name = archive.name
        self._archive = archive
        self._settings = settings
        self._connection = duckdb.connect(config={"enable_external_access": "false"})
        for name, columns in _TABLES.items():
            self._connection.execute(f"CREATE TABLE {name} ({columns})")
        self.notes: tuple[str, ...] = ()
        """What the archive does not return, and what was read from headers instead."""
        self._version = "unknown"

    @property
    def archive(self) -> Archive:
        """The archive itself."""
        return self._archive

    @property
    def engine(self) -> str:
        """Name and version of the engine."""
        import duckdb

        return f"duckdb {duckdb.__version__}"

    @property
    def version(self) -> str:
        """Hash over the series, and their numbers of instances, that the last query found."""
        return self._version

    @property
    def connection(self) -> Any:
        """The DuckDB connection."""
        return self._connection

    def run(self, query: Query, parameters: Mapping[str, object]) -> QueryResult:
        """Search the archive, and answer a query on the series that were found.

        Parameters
        ----------
        query : Query
            A query on ``idc_index``; its parameters ``patients``, ``series``, ``study_date_min`` and
            ``study_date_max`` restrict the search.
        parameters : mapping
            Values of its @parameters.

        Returns
        -------
        QueryResult

        Raises
        ------
        UsageError
            BAD_PARAMETER, BAD_QUERY, MISSING_COLUMN, NO_CREDENTIALS.
        TransientError
            CATALOG_UNREACHABLE: the archive does not answer, or its answers are incomplete.
        """
        values = {name: value for name, (_, value) in bind(query, parameters).items()}
        search = ArchiveSearch(
            patients=_texts(values.get("patients")),
            series=_texts(values.get("series")),
            first_date=str(values.get("study_date_min") or "").replace("-", ""),
            last_date=str(values.get("study_date_max") or "").replace("-", ""),
        )
        notes: list[str] = []
        found = self._archive.find_series(search, notes, SILENT)
        found = self._with_headers(found, values, notes)
        self._fill(found)
        self.notes = (*notes, _UNKNOWN)
        return run_on_duckdb(self._connection, query, parameters, {name: name for name in _TABLES})

    def estimate(self, query: Query, parameters: Mapping[str, object]) -> Estimate | None:
        """Nothing is billed."""
        return None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _with_headers(
        self, found: list[ArchiveSeries], values: Mapping[str, object], notes: list[str]
    ) -> list[ArchiveSeries]:
        """Read from images what a rule asks about and the archive did not return."""
        asked = {keyword for name, keyword in _ASKED.items() if values.get(name) not in (None, [])}
        of_images = any(values.get(name) for name in _ASKED_OF_IMAGES)
        out, read = [], 0
        for one in found:
            lacking = asked - one.attributes.keys()
            lacks_images = of_images and (not one.image_type or one.slice_thickness is None)
            if lacking or lacks_images:
                read += 1
                out.append(self._from_headers(one, whole=lacks_images))
            else:
                out.append(one)
        if read:
            text = "the archive does not return all attributes that the rules ask about: headers were read"
            notes.append(f"{count(read, 'series')}: {text}")
        return out

    def _from_headers(self, one: ArchiveSeries, *, whole: bool) -> ArchiveSeries:
        storage = open_storage(one.url, self._settings)
        objects = storage.list_objects(one.url)
        with tempfile.TemporaryDirectory(prefix="ctenrich-") as folder:
            moves = [
                Transfer(stored.url, Path(folder, f"{number}.dcm"), stored.size, stored.md5)
                for number, stored in enumerate(objects if whole else objects[:1])
            ]
            storage.download(moves)
            rows = [row for move in moves if (row := read_header(move.path).row) is not None]
        if len(rows) < len(moves):
            raise InputError(Reason.DECODE_ERROR, "the header of an image cannot be read")
        read = {name: _column_text(rows[0][name]) for name in SERIES_ATTRIBUTES} if rows else {}
        attributes = {**{name: value for name, value in read.items() if value}, **one.attributes}
        if not whole:
            return replace(one, attributes=attributes)
        types = {tuple(row["ImageType"]) for row in rows}
        thickness = [float(row["SliceThickness"]) for row in rows if _is_number(row["SliceThickness"])]
        return replace(
            one,
            attributes=attributes,
            image_type=types.pop() if len(types) == 1 else one.image_type,
            slice_thickness=max(thickness) if thickness and len(thickness) == len(rows) else one.slice_thickness,
        )

    def _fill(self, found: Sequence[ArchiveSeries]) -> None:
        for name in _TABLES:
            self._connection.execute(f"DELETE FROM {name}")  # noqa: S608 - our own tables
        if found:
            rows = [_index_row(one) for one in found]
            marks = ", ".join("?" * len(rows[0]))
            self._connection.executemany(f"INSERT INTO idc_index VALUES ({marks})", rows)  # noqa: S608 - question marks
            images = [(one.series_instance_uid, list(one.image_type) or None, one.slice_thickness) for one in found]
            self._connection.executemany("INSERT INTO ct_index VALUES (?, ?, ?)", images)
        listed = "\n".join(f"{one.series_instance_uid} {one.instances}" for one in found)
        self._version = f"{self.name}-{hashlib.sha256(listed.encode()).hexdigest()[:16]}"


def _index_row(one: ArchiveSeries) -> tuple[object, ...]:
    uids = (one.patient_id, one.study_instance_uid, one.series_instance_uid)
    size = None if one.size is None else one.size / 1e6
    terms = (one.licence or None, one.doi or None)
    described = (None, *terms, one.sop_class_uid or None, one.instances, size, one.url, "CT", None)
    return (one.collection_id, *uids, *described, *(one.attributes.get(name) for name in SERIES_ATTRIBUTES))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()


def _column_text(value: object) -> str:
    text = "" if value is None else str(value)
    return text.strip()


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and float(text) >= 0
    except ValueError:
        return False


def _options(options: CatalogOptions) -> FetchSettings:
    return options.fetch or FetchSettings()


def _open_node(argument: str, options: CatalogOptions) -> ArchiveCatalog | None:
    settings = _options(options)
    return ArchiveCatalog(NodeArchive(f"dicom:{argument}", settings), settings) if argument else None


def _open_dicomweb(scheme: str) -> Callable[[str, CatalogOptions], ArchiveCatalog | None]:
    def open_(argument: str, options: CatalogOptions) -> ArchiveCatalog | None:
        settings = _options(options)
        return ArchiveCatalog(DicomwebArchive(f"{scheme}:{argument}", settings), settings) if argument else None

    return open_


def _open_xnat(scheme: str) -> Callable[[str, CatalogOptions], ArchiveCatalog | None]:
    def open_(argument: str, options: CatalogOptions) -> ArchiveCatalog | None:
        settings = _options(options)
        return ArchiveCatalog(XnatArchive(f"{scheme}:{argument}", settings), settings) if argument else None

    return open_


def _open_nbia(root: str) -> Callable[[str, CatalogOptions], ArchiveCatalog | None]:
    """Function that opens a collection, named after the root of its archive."""

    def open_(argument: str, options: CatalogOptions) -> ArchiveCatalog | None:
        settings = _options(options)
        return ArchiveCatalog(NbiaArchive(f"{root}{argument}", settings), settings) if argument else None

    return open_


DICOM = CatalogKind(form="dicom://HOST:PORT/AET", open=_open_node)
DICOMWEB = CatalogKind(form="dicomweb+https://HOST/ROOT", open=_open_dicomweb("dicomweb+https"))
DICOMWEB_HTTP = CatalogKind(form="dicomweb+http://HOST/ROOT", open=_open_dicomweb("dicomweb+http"))
XNAT = CatalogKind(form="xnat+https://HOST/PROJECT", open=_open_xnat("xnat+https"))
XNAT_HTTP = CatalogKind(form="xnat+http://HOST/PROJECT", open=_open_xnat("xnat+http"))
NBIA = CatalogKind(form="nbia+https://HOST/PATH/COLLECTION", open=_open_nbia("nbia+https:"))
NBIA_HTTP = CatalogKind(form="nbia+http://HOST/PATH/COLLECTION", open=_open_nbia("nbia+http:"))
TCIA_COLLECTION = CatalogKind(form="tcia:COLLECTION", open=_open_nbia(f"{TCIA}/"))

"""DICOMweb stores as archives: QIDO-RS lists series and instances, WADO-RS retrieves them (PS3.18 10.4, 10.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from pydicom.datadict import tag_for_keyword

from ctenrich.archives.archive import (
    SERIES_ATTRIBUTES,
    ArchiveSearch,
    ArchiveSeries,
    Place,
    instance_url,
    place_of,
    series_url,
)
from ctenrich.archives.multipart import first_part_of
from ctenrich.archives.node import tls_files
from ctenrich.archives.received import check_received, is_received
from ctenrich.archives.web import WebClient, bearer_authorization, download_at_once
from ctenrich.errors import CtenrichError, IncompleteError, TransientError, UsageError, count
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import Storage, StoredObject, Transfer
from ctenrich.storage.retry import retrying
from ctenrich.workspace import atomic_path

__all__ = ["DicomwebArchive", "DicomwebStorage"]

_PREFIX = "dicomweb+"
_JSON = "application/dicom+json"
_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Objects in the transfer syntax in which they are stored (PS3.18 8.7.3.5.2)."""
_PAGE = 1000
_MOST_PAGES = 1000
_AT_ONCE = 8
_SERIES_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances")
_IMAGE_KEYS = ("SOPInstanceUID", "SOPClassUID", "ImageType", "SliceThickness")


class DicomwebArchive:
    """A DICOMweb store.

    Parameters
    ----------
    address : str
        ``dicomweb+https://HOST/ROOT`` or ``dicomweb+http://...``.
    settings : FetchSettings
        Certificates, time limits.
    """

    name = "dicomweb"

    def __init__(self, address: str, settings: FetchSettings) -> None:
        self._root = address.rstrip("/")
        self._settings = settings
        self._client = _client(self._root, settings)

    def find_series(self, search: ArchiveSearch, notes: list[str], progress: Progress) -> list[ArchiveSeries]:
        """Search for series; a search without patients, series or dates lists those of the whole store.

        Parameters
        ----------
        search : ArchiveSearch
            One request per patient, or per series.
        notes : list of str
            Gets what the user should know of the answers.
        progress : Progress
            Receives one step per series.

        Returns
        -------
        list of ArchiveSeries
            Sorted by UID.

        Raises
        ------
        UsageError
            BAD_PARAMETER for a Patient ID with wildcards; NO_CREDENTIALS.
        RetryExhaustedError
            RETRY_EXHAUSTED: the store did not answer.
        """
        if any(set("*?\\") & set(patient) for patient in search.patients):
            raise UsageError(Reason.BAD_PARAMETER, "a Patient ID with *, ? or \\ cannot be searched for in an archive")
        rows: dict[str, dict[str, Any]] = {}
        for query in _queries(search):
            for row in self._rows("/series", query, (*_SERIES_KEYS, *SERIES_ATTRIBUTES), "SeriesInstanceUID"):
                wanted = (not search.patients or _text(row, "PatientID") in search.patients) and (
                    not search.series or _text(row, "SeriesInstanceUID") in search.series
                )
                if wanted and _text(row, "Modality") in search.modalities:
                    rows[_text(row, "SeriesInstanceUID")] = row
        found, unsafe = [], 0
        progress.start("query", len(rows))
        for _, row in sorted(rows.items()):
            try:
                found.append(self._series_of(row))
            except CtenrichError as error:
                if error.reason is not Reason.UNSAFE_IDENTIFIER:
                    raise
                unsafe += 1
            progress.advance("query")
        progress.finish("query")
        if unsafe:
            notes.append(f"{count(unsafe, 'series')} left out: the UID is not a DICOM UID")
        return found

    def _rows(self, path: str, query: Mapping[str, str], fields: Sequence[str], key: str) -> Iterator[dict[str, Any]]:
        return _pages(self._client, self._settings, f"{_web(self._root)}{path}", {**query, **_fields(fields)}, key)

    def _series_of(self, row: dict[str, Any]) -> ArchiveSeries:
        study, series = _text(row, "StudyInstanceUID"), _text(row, "SeriesInstanceUID")
        url = series_url(self._root, study, series)
        path = f"/studies/{study}/series/{series}/instances"
        images = {_text(one, "SOPInstanceUID"): one for one in self._rows(path, {}, _IMAGE_KEYS, "SOPInstanceUID")}
        classes = {_text(one, "SOPClassUID") for one in images.values()}
        types = {tuple(map(str, _values(one, "ImageType"))) for one in images.values()}
        thickness = [float(text) for one in images.values() if (text := _text(one, "SliceThickness"))]
        stated = _text(row, "NumberOfSeriesRelatedInstances")
        return ArchiveSeries(
            collection_id=urlsplit(self._root).hostname or "",
            patient_id=_text(row, "PatientID"),
            study_instance_uid=study,
            series_instance_uid=series,
            modality=_text(row, "Modality"),
            url=url,
            instances=max(len(images), int(stated) if stated.isdigit() else 0) or None,
            sop_class_uid=classes.pop() if len(classes) == 1 else "",
            attributes={name: value for name in SERIES_ATTRIBUTES if (value := _text(row, name))},
            image_type=types.pop() if len(types) == 1 else (),
            slice_thickness=max(thickness) if thickness and len(thickness) == len(images) else None,
        )


class DicomwebStorage(Storage):
    """Objects of DICOMweb stores, as ``dicomweb+https://HOST/ROOT/studies/S/series/R/instances/I``.

    An object is kept if its answer is complete (Content-Length, delimiter of the multipart message) and the UIDs in it
    are those of its URL.
    """

    def list_objects(self, url: str) -> list[StoredObject]:
        """List the instances of a series (QIDO-RS)."""
        place = place_of(url)
        path = f"{_web(place.root)}/studies/{place.study}/series/{place.series}/instances"
        client = _client(place.root, self._settings)
        rows = _pages(client, self._settings, path, {}, "SOPInstanceUID")
        uids = sorted({_text(row, "SOPInstanceUID") for row in rows})
        if not uids:
            raise IncompleteError(Reason.INCOMPLETE, "the archive lists no instance of the series")
        return [StoredObject(instance_url(url, uid)) for uid in uids]

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Retrieve objects (WADO-RS), some at once; files that an interrupted retrieval has left are kept."""
        clients = {root: _client(root, self._settings) for root in {place_of(t.url).root for t in transfers}}

        def one(transfer: Transfer) -> None:
            place = place_of(transfer.url)
            if not is_received(transfer.path, place):
                transfer.path.unlink(missing_ok=True)
                retrying(lambda: _retrieve(clients[place.root], transfer, place), self._settings)
            progress.advance("fetch")

        download_at_once(transfers, one, min(_AT_ONCE, self._settings.parallel_objects))

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Refused: ``ctenrich publish`` sends objects."""
        raise UsageError(
            Reason.BAD_PARAMETER, "an archive is not written to by URL", "ctenrich publish RUN https://..."
        )

    def refuses_overwriting(self, url: str) -> bool:
        """An archive is no place for shared files."""
        return False


def _retrieve(client: WebClient, transfer: Transfer, place: Place) -> None:
    with atomic_path(transfer.path) as temporary:
        kind = client.download(_web(transfer.url), temporary, _DICOM)
        content = first_part_of(kind, temporary.read_bytes())
        if content is None:
            raise TransientError(Reason.CHECKSUM, "the archive's answer ends inside an object")
        temporary.write_bytes(content)
        check_received(temporary, place)


def _client(root: str, settings: FetchSettings) -> WebClient:
    if urlsplit(root).scheme not in ("dicomweb+https", "dicomweb+http") or not urlsplit(root).hostname:
        hint = "dicomweb+https://HOST/ROOT"
        raise UsageError(Reason.BAD_PARAMETER, f"{root[:120]} is not the address of a DICOMweb store", hint)
    return WebClient(tls_files(settings), settings.timeout, bearer_authorization(_web(root)))


def _web(url: str) -> str:
    return url.removeprefix(_PREFIX)


def _queries(search: ArchiveSearch) -> list[dict[str, str]]:
    dates = {"StudyDate": f"{search.first_date}-{search.last_date}"} if search.first_date or search.last_date else {}
    kind = {"Modality": search.modalities[0]} if len(search.modalities) == 1 else {}
    if search.patients:
        return [{"PatientID": patient, **kind, **dates} for patient in search.patients]
    if search.series:
        return [{"SeriesInstanceUID": uid} for uid in search.series]
    return [{**kind, **dates}]


def _fields(keywords: Sequence[str]) -> dict[str, str]:
    return {"includefield": ",".join(map(_tag, keywords))}


def _pages(
    client: WebClient, settings: FetchSettings, url: str, query: Mapping[str, str], key: str
) -> Iterator[dict[str, Any]]:
    """Rows of all pages of an answer; stores may give fewer rows than were asked for, or ignore the offset."""
    offset = 0
    seen: set[str] = set()
    for _ in range(_MOST_PAGES):
        address = f"{url}?{urlencode({**query, 'limit': _PAGE, 'offset': offset}, safe=',')}"
        rows = retrying(lambda address=address: client.json(address, _JSON), settings) or []  # type: ignore[misc]
        new = [row for row in rows if _text(row, key) not in seen]
        seen |= {_text(row, key) for row in new}
        yield from (row for row in new if _text(row, key))
        if not new:
            return
        offset += len(rows)
    raise TransientError(Reason.CATALOG_UNREACHABLE, f"the archive's answer has more than {_MOST_PAGES} pages")


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


def _values(row: Mapping[str, Any], keyword: str) -> list[Any]:
    """Values of an element in the DICOM JSON model (PS3.18 F.2)."""
    element = row.get(_tag(keyword))
    return list(element.get("Value") or []) if isinstance(element, dict) else []


def _text(row: Mapping[str, Any], keyword: str) -> str:
    values = _values(row, keyword)
    return "" if not values or values[0] is None else str(values[0]).strip()

"""TCIA's public interface as an archive: NBIA lists the series of a collection, and gives each as a ZIP file.

The interface is version 4 of NBIA's search interface, which needs no account for public collections.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from ctenrich.archives.archive import ArchiveSearch, ArchiveSeries, Place, instance_url, place_of, series_url
from ctenrich.archives.node import tls_files
from ctenrich.archives.received import check_received, is_received
from ctenrich.archives.web import WebClient
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.values import text
from ctenrich.errors import CtenrichError, IncompleteError, TransientError, UnsafeInputError, UsageError, count
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import ReadOnlyStorage, StoredObject, Transfer
from ctenrich.storage.retry import retrying
from ctenrich.workspace import atomic_path, check_uid

__all__ = ["TCIA", "NbiaArchive", "NbiaStorage"]

TCIA = "nbia+https://services.cancerimagingarchive.net/nbia-api/services/v4"
"""Address of The Cancer Imaging Archive, without a collection."""
_PREFIX = "nbia+"
_FORM = "tcia:COLLECTION or nbia+https://HOST/PATH/COLLECTION"
_MANIFEST = "md5hashes.csv"
"""Last member of a ZIP file: columns Filename and MD5Hash. A file that the server broke off has none."""
_LARGEST_OBJECT = 64 * 1024**2
"""Bytes of an instance; an answer with more than this for every instance of the series is not unpacked."""
_LARGEST_MANIFEST = 16 * 1024**2
_OTHER_MEMBERS = 8
"""Members of a ZIP file beside the instances: checksums, licence."""
_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)
"""What zipfile raises for a ZIP file that is cut, damaged, encrypted or of an unknown method."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/(?P<kind>[a-z-]+)/(?P<version>\d\.\d)")
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_ATTRIBUTES = ("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "SeriesDescription")


class NbiaArchive:
    """A collection of an NBIA, such as The Cancer Imaging Archive.

    Parameters
    ----------
    address : str
        ``nbia+https://HOST/PATH/COLLECTION``.
    settings : FetchSettings
        Certificates, time limits.
    """

    name = "nbia"

    def __init__(self, address: str, settings: FetchSettings) -> None:
        root, _, collection = address.rstrip("/").rpartition("/")
        if not urlsplit(root).hostname or not collection:
            raise UsageError(Reason.BAD_PARAMETER, f"{address[:120]} names no collection", _FORM)
        self._root, self._collection = f"{root}/{collection}", unquote(collection)
        self._settings = settings
        self._client = _client(root, settings)

    def find_series(self, search: ArchiveSearch, notes: list[str], progress: Progress) -> list[ArchiveSeries]:
        """List the CT series of the collection, with licence and DOI.

        Parameters
        ----------
        search : ArchiveSearch
            One request per patient, or per series. Dates restrict what was found; a series without a study date is not
            left out by them.
        notes : list of str
            Gets the number of series that were left out because a UID is none.
        progress : Progress
            Receives one step per request.

        Returns
        -------
        list of ArchiveSeries
            Sorted by UID.

        Raises
        ------
        RetryExhaustedError
            RETRY_EXHAUSTED: the archive did not answer.
        InputError
            RETRIEVE_REFUSED.
        """
        found: dict[str, ArchiveSeries] = {}
        unsafe = 0
        queries = [{"PatientID": patient} for patient in search.patients]
        kind = {"Modality": search.modalities[0]} if len(search.modalities) == 1 else {}
        queries = queries or [{"SeriesInstanceUID": uid} for uid in search.series] or [{}]
        progress.start("query", len(queries))
        for query in queries:
            for row in self._rows("getSeries", {"Collection": self._collection, **kind, **query}):
                if not self._is_wanted(row, search):
                    continue
                try:
                    one = _series_of(row, self._root)
                except CtenrichError as error:
                    if error.reason is not Reason.UNSAFE_IDENTIFIER:
                        raise
                    unsafe += 1
                else:
                    found[one.series_instance_uid] = one
            progress.advance("query")
        progress.finish("query")
        if unsafe:
            notes.append(f"{count(unsafe, 'series')} left out: a UID is not a DICOM UID")
        return [found[uid] for uid in sorted(found)]

    def _rows(self, request: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        return _rows_of(self._client, self._settings, _request_url(self._root, request, query))

    def _is_wanted(self, row: Mapping[str, Any], search: ArchiveSearch) -> bool:
        date = _date_of(row)
        return (
            _text(row, "Collection").casefold() == self._collection.casefold()
            and _text(row, "Modality") in search.modalities
            and (not search.patients or _text(row, "PatientID") in search.patients)
            and (not search.series or _text(row, "SeriesInstanceUID") in search.series)
            and (not date or (search.first_date or "0") <= date <= (search.last_date or "9"))
        )


class NbiaStorage(ReadOnlyStorage):
    """Instances of series, as ``nbia+https://HOST/PATH/COLLECTION/studies/S/series/R/instances/I``.

    A series arrives as one ZIP file with the MD5 of every member. An instance is kept if its bytes have that MD5 and
    its UIDs are those of its URL.
    """

    archive = "The Cancer Imaging Archive"
    instead = "see ctenrich release"

    def __init__(self, settings: FetchSettings) -> None:
        super().__init__(settings)
        self._counts: dict[str, int] = {}
        """Series Instance UID -> number of its instances."""

    def list_objects(self, url: str) -> list[StoredObject]:
        """List the instances of a series."""
        place = place_of(url)
        address = _request_url(place.root, "getSOPInstanceUIDs", {"SeriesInstanceUID": place.series})
        rows = _rows_of(_client(place.root, self._settings), self._settings, address)
        uids = sorted({uid for row in rows if (uid := _text(row, "SOPInstanceUID"))})
        if not uids:
            raise IncompleteError(Reason.INCOMPLETE, "the archive lists no instance of the series")
        self._counts[place.series] = len(uids)
        return [StoredObject(instance_url(url, uid)) for uid in uids]

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Download the ZIP file of each series of which an instance is missing, and keep the instances asked for."""
        missing: dict[tuple[str, str], list[tuple[Place, Transfer]]] = {}
        for transfer in transfers:
            place = place_of(transfer.url)
            if is_received(transfer.path, place):
                progress.advance("fetch")
            else:
                missing.setdefault((place.root, place.series), []).append((place, transfer))
        for wanted in missing.values():
            retrying(lambda wanted=wanted: self._retrieve(wanted), self._settings)  # type: ignore[misc]
            progress.advance("fetch", len(wanted))

    def _retrieve(self, wanted: Sequence[tuple[Place, Transfer]]) -> None:
        """Download the ZIP file of a series, and unpack the instances that are wanted."""
        place, first = wanted[0]
        if place.series not in self._counts:
            self.list_objects(series_url(place.root, place.study, place.series))
        most = self._counts[place.series]
        address = _request_url(place.root, "getImageWithMD5Hash", {"SeriesInstanceUID": place.series}, form="")
        first.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".nbia-", dir=first.path.parent) as scratch:
            path = Path(scratch, "series.zip")
            limit = most * _LARGEST_OBJECT + _LARGEST_MANIFEST
            _client(place.root, self._settings).download(address, path, most=limit)
            try:
                with zipfile.ZipFile(path) as archive:
                    _unpack(archive, Path(scratch), wanted, most)
            except _DAMAGED as error:
                raise TransientError(Reason.CHECKSUM, "the archive's ZIP file is damaged or cut") from error


def _client(root: str, settings: FetchSettings) -> WebClient:
    parts = urlsplit(root)
    if parts.scheme not in ("nbia+https", "nbia+http") or not parts.hostname:
        raise UsageError(Reason.BAD_PARAMETER, f"{root[:120]} is not the address of an NBIA", _FORM)
    return WebClient(tls_files(settings), settings.timeout, lambda: "")


def _request_url(root: str, request: str, query: Mapping[str, str], form: str = "json") -> str:
    """URL of a request; the collection at the end of the root is no part of it."""
    service = root.rpartition("/")[0].removeprefix(_PREFIX)
    return f"{service}/{request}?{urlencode({**query, **({'format': form} if form else {})}, quote_via=quote)}"


def _rows_of(client: WebClient, settings: FetchSettings, url: str) -> list[dict[str, Any]]:
    """Rows of an answer; an empty answer is an empty table."""
    answer = retrying(lambda: client.json(url), settings)
    if answer is None:
        return []
    if not isinstance(answer, list):
        raise TransientError(Reason.CATALOG_UNREACHABLE, "the answer is not a table of NBIA")
    return [row for row in answer if isinstance(row, dict)]


def _series_of(row: Mapping[str, Any], root: str) -> ArchiveSeries:
    study, series = _text(row, "StudyInstanceUID"), check_uid(_text(row, "SeriesInstanceUID"))
    known = {name: value for name in _ATTRIBUTES if (value := _text(row, name))}
    date = _date_of(row)
    return ArchiveSeries(
        collection_id=_text(row, "Collection"),
        patient_id=_text(row, "PatientID"),
        study_instance_uid=study,
        series_instance_uid=series,
        modality=_text(row, "Modality"),
        url=series_url(root, study, series),
        instances=_whole(row.get("ImageCount")),
        size=_whole(row.get("FileSize")),
        attributes={**known, **({"StudyDate": date} if date else {})},
        licence=_licence_of(row),
        doi=_doi_of(row),
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).strip()


def _whole(value: object) -> int | None:
    found = str(value)
    return int(found) if found.isascii() and found.isdigit() and found != "0" else None


def _date_of(row: Mapping[str, Any]) -> str:
    """Study Date as YYYYMMDD; empty where it is missing or has another form than a date that begins with the year."""
    match = re.match(r"(\d{4})-(\d{2})-(\d{2})\b", _text(row, "StudyDate"))
    return "".join(match.groups()) if match else ""


def _licence_of(row: Mapping[str, Any]) -> str:
    """Short name of the licence: that of a Creative Commons address, else the stated name."""
    match = _CREATIVE_COMMONS.search(_text(row, "LicenseURI"))
    if match is None:
        return _text(row, "LicenseName")
    return "CC0 1.0" if match["kind"] == "zero" else f"CC {match['kind'].upper()} {match['version']}"


def _doi_of(row: Mapping[str, Any]) -> str:
    """DOI in lower case, as IDC writes it; upper and lower case do not matter in DOIs."""
    match = _DOI.search(_text(row, "DataDescriptionURI"))
    return match[0].rstrip("/").lower() if match else ""


def _unpack(archive: zipfile.ZipFile, scratch: Path, wanted: Sequence[tuple[Place, Transfer]], most: int) -> None:
    places = {place.instance: (place, transfer) for place, transfer in wanted}
    for number, (member, digest) in enumerate(_members(archive, most)):
        path = scratch / f"{number}.dcm"
        with archive.open(member) as source:
            content = source.read(_LARGEST_OBJECT + 1)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest:
            raise TransientError(Reason.CHECKSUM, "a file of the archive's ZIP file does not have its MD5")
        path.write_bytes(content)
        with open_dicom(path, tags=("SOPInstanceUID",)) as parsed:
            uid = text(parsed.dataset, "SOPInstanceUID")
        place, transfer = places.pop(uid, (None, None))
        if place is not None and transfer is not None:
            check_received(path, place)
            with atomic_path(transfer.path) as temporary:
                path.replace(temporary)
        path.unlink(missing_ok=True)
    if places:
        message = f"{count(len(places), 'object')} of the series are not in the archive's ZIP file"
        raise IncompleteError(Reason.INCOMPLETE, message)


def _members(archive: zipfile.ZipFile, most: int) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """DICOM files of a ZIP file with their MD5, after number, names and sizes of all members were judged."""
    listed = archive.infolist()
    members = {info.filename: info for info in listed}
    if len(listed) > most + _OTHER_MEMBERS:
        message = f"the archive's ZIP file has {len(listed)} members for {count(most, 'instance')}"
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, message)
    for name, info in members.items():
        if _NAME.fullmatch(name) is None or name.startswith("."):
            raise UnsafeInputError(Reason.UNSAFE_PATH, "the archive's ZIP file has a member with an unsafe name")
        limit = _LARGEST_MANIFEST if name == _MANIFEST else _LARGEST_OBJECT
        if info.file_size > limit:
            message = f"a member of the archive's ZIP file would unpack to {info.file_size} bytes"
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, message)
    if len(members) != len(listed):
        raise UnsafeInputError(Reason.UNSAFE_PATH, "the archive's ZIP file has two members of one name")
    if _MANIFEST not in members:
        raise TransientError(Reason.CHECKSUM, "the archive's ZIP file ends before the list of its checksums")
    table = archive.read(_MANIFEST).decode("utf-8-sig", "replace")
    rows = csv.DictReader(io.StringIO(table))
    digests = {row.get("Filename", ""): str(row.get("MD5Hash", "")).lower() for row in rows}
    for name, info in members.items():
        if name in digests:
            yield info, digests[name]
        elif name.lower().endswith(".dcm"):
            raise TransientError(Reason.CHECKSUM, "a file of the archive's ZIP file has no checksum")

"""XNAT as an archive: its REST interface lists sessions and scans of a project, and gives their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ctenrich.archives.archive import ArchiveSearch, ArchiveSeries
from ctenrich.archives.node import tls_files
from ctenrich.archives.web import WebClient, basic_authorization, download_at_once
from ctenrich.errors import CtenrichError, IncompleteError, TransientError, UnsafeInputError, UsageError, count
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import ReadOnlyStorage, StoredObject, Transfer, verify_file
from ctenrich.storage.retry import retrying
from ctenrich.workspace import atomic_path, check_uid

__all__ = ["XnatArchive", "XnatStorage"]

_PREFIX = "xnat+"
_AT_ONCE = 4
_RESOURCES = ("DICOM", "secondary")
"""Labels of the resources of a scan that hold DICOM files."""
_FORM = "xnat+https://HOST/PROJECT"


class XnatArchive:
    """A project of an XNAT.

    Parameters
    ----------
    address : str
        ``xnat+https://HOST/PROJECT``; the path of XNAT, where it has one, comes before the project.
    settings : FetchSettings
        Certificates, time limits.
    """

    name = "xnat"

    def __init__(self, address: str, settings: FetchSettings) -> None:
        root, _, project = address.rstrip("/").rpartition("/")
        if not urlsplit(root).hostname or not project:
            raise UsageError(Reason.BAD_PARAMETER, f"{address[:120]} names no project of an XNAT", _FORM)
        self._root, self._project = root, unquote(project)
        self._settings = settings
        self._client = _client(root, settings)

    def find_series(self, search: ArchiveSearch, notes: list[str], progress: Progress) -> list[ArchiveSeries]:
        """List the scans of the project that are wanted.

        The Patient ID is that of the DICOM headers as XNAT keeps it with the session, else the label of the subject.

        Parameters
        ----------
        search : ArchiveSearch
            Restricts patients, series and dates of sessions.
        notes : list of str
            Gets the numbers of scans without UID, and without DICOM files.
        progress : Progress
            Receives one step per session.

        Returns
        -------
        list of ArchiveSeries
            Sorted by UID.

        Raises
        ------
        UsageError
            NO_CREDENTIALS.
        IncompleteError
            INCOMPLETE: there is no such project, or it is not open to this account.
        RetryExhaustedError
            RETRY_EXHAUSTED: XNAT did not answer.
        """
        path = f"/data/projects/{quote(self._project, safe='')}"
        labels = {one.get("ID", ""): str(one.get("label", "")) for one in self._results(f"{path}/subjects")}
        sessions = [one for one in self._results(f"{path}/experiments") if _is_session(one, search)]
        found: dict[str, ArchiveSeries] = {}
        left_out: dict[str, int] = {}
        progress.start("query", len(sessions))
        for session in sessions:
            for item in self._get(f"/data/experiments/{quote(str(session['ID']), safe='')}").get("items") or []:
                for one in _scans_of(item, (self._root, self._project), labels, search.modalities, left_out):
                    if (not search.patients or one.patient_id in search.patients) and (
                        not search.series or one.series_instance_uid in search.series
                    ):
                        _add(found, one)
            progress.advance("query")
        progress.finish("query")
        what = "CT scan" if search.modalities == ("CT",) else "scan"
        notes += [f"{count(number, what)} left out: {why}" for why, number in sorted(left_out.items())]
        return [found[uid] for uid in sorted(found)]

    def _results(self, path: str) -> list[dict[str, Any]]:
        return _results_of(self._get(path, "&limit=*"))  # all rows, whatever the server's own limit is

    def _get(self, path: str, more: str = "") -> dict[str, Any]:
        return _answer(self._client, self._settings, f"{_web(self._root)}{path}?format=json{more}")


class XnatStorage(ReadOnlyStorage):
    """Files of scans, as ``xnat+https://HOST/data/experiments/E/scans/S/resources/R/files/NAME``.

    XNAT states the size of each file, and its MD5 where checksums are kept: both are compared.
    """

    archive = "XNAT"
    instead = "send objects to its DICOM receiver: publish"

    def __init__(self, settings: FetchSettings) -> None:
        super().__init__(settings)
        self._clients: dict[str, WebClient] = {}

    def _client(self, url: str) -> WebClient:
        """The client of the XNAT of a URL: one session for the listing and the files."""
        root = _root_of(url)
        if root not in self._clients:
            self._clients[root] = _client(root, self._settings)
        return self._clients[root]

    def list_objects(self, url: str) -> list[StoredObject]:
        """List the files of a resource of a scan."""
        root = _root_of(url)
        answer = _answer(self._client(url), self._settings, f"{_web(url).rstrip('/')}?format=json")
        found = [_stored_object(root, row) for row in _results_of(answer)]
        if not found:
            raise IncompleteError(Reason.INCOMPLETE, "XNAT lists no file of the scan")
        return sorted(found, key=lambda one: one.url)

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Download files, some at once."""
        clients = {transfer.url: self._client(transfer.url) for transfer in transfers}

        def one(transfer: Transfer) -> None:
            def ask() -> None:
                with atomic_path(transfer.path) as temporary:
                    clients[transfer.url].download(_web(transfer.url), temporary)
                    verify_file(temporary, transfer)

            transfer.path.unlink(missing_ok=True)
            retrying(ask, self._settings)
            progress.advance("fetch")

        download_at_once(transfers, one, min(_AT_ONCE, self._settings.parallel_objects))


def _client(root: str, settings: FetchSettings) -> WebClient:
    parts = urlsplit(root)
    if parts.scheme not in ("xnat+https", "xnat+http") or not parts.hostname:
        raise UsageError(Reason.BAD_PARAMETER, f"{root[:120]} is not the address of an XNAT", _FORM)
    return WebClient(tls_files(settings), settings.timeout, basic_authorization(parts.hostname, "CTENRICH_XNAT"))


def _web(url: str) -> str:
    return url.removeprefix(_PREFIX)


def _root_of(url: str) -> str:
    root, found, _ = url.partition("/data/experiments/")
    if not found:
        raise UsageError(Reason.BAD_PARAMETER, f"{url[:160]} is not the URL of files of a scan in XNAT")
    return root


def _answer(client: WebClient, settings: FetchSettings, url: str) -> dict[str, Any]:
    answer = retrying(lambda: client.json(url), settings)
    if not isinstance(answer, dict):  # a page of the login is HTML, and no JSON
        raise TransientError(Reason.CATALOG_UNREACHABLE, "the answer is not one of XNAT's REST interface")
    return answer


def _results_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = (answer.get("ResultSet") or {}).get("Result")
    if not isinstance(rows, list):
        raise TransientError(Reason.CATALOG_UNREACHABLE, "the answer is not a listing of XNAT")
    return [row for row in rows if isinstance(row, dict)]


def _is_session(row: Mapping[str, Any], search: ArchiveSearch) -> bool:
    """Whether an experiment is an imaging session, with a date that is asked for; one without a date is looked at."""
    date = str(row.get("date") or "").replace("-", "")
    in_time = not date or (search.first_date or "0") <= date <= (search.last_date or "9")
    return bool(row.get("ID")) and str(row.get("xsiType", "")).endswith("SessionData") and in_time


def _scans_of(
    item: Mapping[str, Any],
    archive: tuple[str, str],
    labels: Mapping[str, str],
    modalities: Sequence[str],
    left_out: dict[str, int],
) -> Iterator[ArchiveSeries]:
    """Scans of a session, of some modalities; `archive` is address and project."""
    root, project = archive
    session = item.get("data_fields") or {}
    for scan in _children(item, "scans/scan"):
        fields = scan.get("data_fields") or {}
        kind = str((scan.get("meta") or {}).get("xsi:type", ""))
        modality = str(fields.get("modality") or ("CT" if kind == "xnat:ctScanData" else ""))
        if modality not in modalities:
            continue
        files = {str(f.get("label")): f for one in _children(scan, "file") if (f := one.get("data_fields"))}
        label = next((name for name in _RESOURCES if name in files), "")
        why = _why_left_out(session, fields, label)
        if why:
            left_out[why] = left_out.get(why, 0) + 1
            continue
        names = (str(session["ID"]), str(fields["ID"]), label)
        experiment, number, resource = (quote(name, safe="") for name in names)
        yield ArchiveSeries(
            collection_id=project,
            patient_id=str(session.get("dcmPatientId") or labels.get(str(session.get("subject_ID")), "")),
            study_instance_uid=str(session["UID"]),
            series_instance_uid=str(fields["UID"]),
            modality=modality,
            url=f"{root}/data/experiments/{experiment}/scans/{number}/resources/{resource}/files/",
            instances=_whole(files[label].get("file_count")),
            size=_whole(files[label].get("file_size")),
            attributes=_attributes(session, fields),
        )


def _children(item: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    found = [child.get("items") or [] for child in item.get("children") or [] if child.get("field") == field]
    return [one for items in found for one in items]


def _why_left_out(session: Mapping[str, Any], fields: Mapping[str, Any], label: str) -> str:
    try:
        check_uid(str(session.get("UID") or ""))
        check_uid(str(fields.get("UID") or ""))
    except CtenrichError:
        return "XNAT has no UID of the scan or of its session"
    return "" if label and session.get("ID") and fields.get("ID") else "the scan has no DICOM files"


def _attributes(session: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, str]:
    known = {
        "Manufacturer": fields.get("scanner/manufacturer"),
        "ManufacturerModelName": fields.get("scanner/model"),
        "SeriesDescription": fields.get("series_description"),
        "StudyDate": str(session.get("date") or "").replace("-", ""),
    }
    return {name: str(value) for name, value in known.items() if value}


def _add(found: dict[str, ArchiveSeries], one: ArchiveSeries) -> None:
    """A series that is in XNAT twice is refused: nothing states which one is meant."""
    if one.series_instance_uid in found:
        message = "two scans of the project have one Series Instance UID"
        raise UsageError(Reason.BAD_PARAMETER, message, "name the series that are wanted, or delete one of the scans")
    found[one.series_instance_uid] = one


def _stored_object(root: str, row: Mapping[str, Any]) -> StoredObject:
    path = str(row.get("URI") or "")
    if not path.startswith("/data/experiments/") or ".." in unquote(path).split("/"):
        raise UnsafeInputError(Reason.UNSAFE_PATH, "XNAT gives an address of a file outside its experiments")
    digest = str(row.get("digest") or "")
    return StoredObject(
        f"{root}{quote(path, safe='/%')}", _whole(row.get("Size")), digest if len(digest) == 32 else None
    )


def _whole(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None

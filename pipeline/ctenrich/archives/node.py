"""DICOM nodes as archives: C-FIND lists series and instances, C-GET or C-MOVE retrieves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ctenrich.archives.archive import ArchiveSearch, ArchiveSeries, Place, instance_url, place_of
from ctenrich.archives.nodes import Node, TlsFiles, check_titles
from ctenrich.archives.query import find_node_series, node_query, text_of
from ctenrich.archives.received import is_received
from ctenrich.archives.retrieve import Request, retrieve
from ctenrich.errors import IncompleteError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import Storage, StoredObject, Transfer
from ctenrich.storage.retry import retrying

__all__ = ["NodeArchive", "NodeStorage", "node_address", "tls_files"]

FORM = "dicom://HOST:PORT/AET"


def node_address(url: str, settings: FetchSettings) -> tuple[str, Node]:
    """Parse the address of a node.

    Parameters
    ----------
    url : str
        ``dicom://HOST:PORT/AET`` or ``dicom://AET@HOST:PORT``.
    settings : FetchSettings
        Title of this side and certificates.

    Returns
    -------
    (str, Node)
        The address in the first form, and the node.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another form, or a title that is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{url[:120]} is not an address: {error}", FORM) from None
    titles = [title for title in (parts.username, parts.path.strip("/")) if title]
    if parts.scheme != "dicom" or not parts.hostname or not port or len(titles) != 1:
        raise UsageError(Reason.BAD_PARAMETER, f"{url[:120]} is not the address of a DICOM node", FORM)
    check_titles((titles[0], settings.dicom_title))
    tls = tls_files(settings) if settings.dicom_tls else None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    node = Node(host=parts.hostname, port=port, called=titles[0], calling=settings.dicom_title, tls=tls)
    return f"dicom://{host}:{port}/{titles[0]}", node


def tls_files(settings: FetchSettings) -> TlsFiles:
    """Return the certificates that the settings name."""
    paths = [Path(name) if name else None for name in (settings.tls_ca, settings.tls_certificate, settings.tls_key)]
    return TlsFiles(ca=paths[0], certificate=paths[1], key=paths[2])


class NodeArchive:
    """A DICOM node.

    Parameters
    ----------
    address : str
        ``dicom://HOST:PORT/AET`` or ``dicom://AET@HOST:PORT``.
    settings : FetchSettings
        Title of this side, certificates, time limits.
    """

    name = "dicom"

    def __init__(self, address: str, settings: FetchSettings) -> None:
        self._root, self._node = node_address(address, settings)
        self._settings = settings

    def find_series(self, search: ArchiveSearch, notes: list[str], progress: Progress) -> list[ArchiveSeries]:
        """Search for series, see :func:`ctenrich.archives.query.find_node_series`."""
        with node_query(self._node, self._settings.timeout) as query:
            return find_node_series(query, self._root, search, notes, progress)


class NodeStorage(Storage):
    """Objects of DICOM nodes, addressed as ``dicom://HOST:PORT/AET/studies/S/series/R/instances/I``.

    A node states neither size nor checksum. That an object is whole is known from the protocol, which marks the last
    fragment of a message (PS3.8 9.3.5); that it is the one requested, from the UIDs in it.
    """

    def list_objects(self, url: str) -> list[StoredObject]:
        """List the instances of a series by C-FIND; CATALOG_UNREACHABLE is tried again."""
        place = place_of(url)
        _, node = node_address(place.root, self._settings)

        def ask() -> list[str]:
            with node_query(node, self._settings.timeout) as query:
                return [text_of(row, "SOPInstanceUID") for row in query.instances(place.study, place.series)]

        uids = retrying(ask, self._settings)
        if not uids:
            raise IncompleteError(Reason.INCOMPLETE, f"the node {node} lists no instance of the series")
        return [StoredObject(instance_url(url, uid)) for uid in uids]

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Retrieve objects, series by series; files that an interrupted retrieval has left are kept."""
        groups: dict[Place, dict[str, Path]] = {}
        for transfer in transfers:
            place = place_of(transfer.url)
            groups.setdefault(place._replace(instance=""), {})[place.instance] = transfer.path
        for place, paths in groups.items():
            self._retrieve(place, paths, progress)

    def _retrieve(self, place: Place, paths: dict[str, Path], progress: Progress) -> None:
        _, node = node_address(place.root, self._settings)
        port = self._settings.dicom_port if self._settings.dicom_retrieval == "move" else None

        def missing() -> dict[str, Path]:
            return {uid: path for uid, path in paths.items() if not is_received(path, place._replace(instance=uid))}

        def ask() -> None:
            left = missing()
            if left:  # one request for the series, as long as nothing of it is here
                whole = len(left) == len(paths) > 1
                request = Request(study=place.study, series=place.series, root=place.root, paths=left, whole=whole)
                retrieve(node, request, port=port, timeout=self._settings.timeout, progress=progress)

        absent = missing()
        progress.advance("fetch", len(paths) - len(absent))
        for path in absent.values():
            path.unlink(missing_ok=True)
        retrying(ask, self._settings)

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Refused: ``ctenrich publish`` sends objects."""
        hint = "ctenrich publish RUN dicom://HOST:PORT/AET"
        raise UsageError(Reason.BAD_PARAMETER, "a DICOM node is not written to by URL", hint)

    def refuses_overwriting(self, url: str) -> bool:
        """A node is no place for shared files."""
        return False

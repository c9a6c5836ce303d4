"""Look at a run in OHIF with no PACS: a small server on the loopback that shows this run's CT, SEG and SR only."""

from __future__ import annotations

import hmac
import json
import mimetypes
import re
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ctenrich.errors import InputError, UsageError
from ctenrich.ohif import app_config, clean_index
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, EncodedObjects, ObjectKind, SortedSeries
from ctenrich.viewpages import front_page, report_page, single_frame
from ctenrich.workspace import Workspace, check_uid, load_record

__all__ = ["DEFAULT_PORT", "RunView", "ViewServer", "serve"]

DEFAULT_PORT = 8790
"""The port that the report's local links lead to."""
_COOKIE = "ctenrich_view"
_CT_KEYS = """
SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID Modality InstanceNumber
SeriesNumber SeriesDescription StudyDescription StudyDate SeriesDate PatientID Rows Columns
PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PixelSpacing
ImageOrientationPatient ImagePositionPatient ImageType WindowCenter WindowWidth RescaleIntercept RescaleSlope
SliceThickness NumberOfFrames ReferencedSeriesSequence SegmentSequence SharedFunctionalGroupsSequence
"""
_ALWAYS_LISTS = ("PerFrameFunctionalGroupsSequence", "SegmentSequence")
_POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class _Shown:
    """One written object and the folder of its product."""

    product: str
    item: EncodedObject
    path: Path


class RunView:
    """What a run has to show: series with their slices and objects.

    Parameters
    ----------
    workspace : Workspace
        The run.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = threading.Lock()
        self._studies: dict[str, bytes] = {}
        self._open: dict[Path, Any] = {}

    @cached_property
    def series(self) -> list[str]:
        """Series that can be shown: those that were sorted."""
        root = self.workspace
        return [uid for uid in root.series_uids() if (root.room(uid) / "sorted.json").is_file()]

    def objects(self, uid: str) -> list[_Shown]:
        """Written objects of a series, by product and kind."""
        out = []
        for record in sorted(self.workspace.room(uid).glob("*/objects.json")):
            try:
                found = load_record(record, EncodedObjects)
            except InputError:
                continue
            for item in found.objects:
                path = self.workspace.resolve(uid, item.path)
                if path.is_file():
                    out.append(_Shown(str(found.product), item, path))
        return out

    def slices(self, uid: str) -> list[Path]:
        """Files of a series' slices, in slice order."""
        record = load_record(self.workspace.room(uid) / "sorted.json", SortedSeries)
        return [self.workspace.resolve(uid, one.path) for one in record.slices]

    def file(self, uid: str, name: str) -> Path:
        """A slice by its index, or a written object by its SOP Instance UID."""
        if name.isdigit():
            slices = self.slices(uid)
            if int(name) < len(slices):
                return slices[int(name)]
        for shown in self.objects(uid):
            if shown.item.sop_instance_uid == name:
                return shown.path
        raise UsageError(Reason.NOT_FOUND, "the run has no such file")

    def frame(self, path: Path, number: int) -> bytes:
        """One frame of a SEG (from 1) as a file of its own: OHIF asks for frames one by one."""
        import pydicom

        with self._lock:
            if path not in self._open:
                self._open = {path: pydicom.dcmread(path)}
            data = self._open[path]
        frames = int(data.get("NumberOfFrames") or 1)
        if not 1 <= number <= frames or data.file_meta.TransferSyntaxUID.is_compressed:
            raise UsageError(Reason.NOT_FOUND, "the object has no such frame")
        return single_frame(data, number)

    def study(self, uid: str) -> bytes:
        """The series and its SEGs as OHIF's dicomjson."""
        with self._lock:
            if uid not in self._studies:
                self._studies[uid] = json.dumps(self._study(uid)).encode()
            return self._studies[uid]

    def _study(self, uid: str) -> dict[str, Any]:
        ct = [_instance(path, f"/files/{uid}/{k}") for k, path in enumerate(self.slices(uid))]
        series = [_series(ct)]
        segments = [shown for shown in self.objects(uid) if shown.item.kind is ObjectKind.SEG]
        series += [_series([_instance(s.path, f"/files/{uid}/{s.item.sop_instance_uid}/frames/1")]) for s in segments]
        first = ct[0]["metadata"]
        study = {
            "StudyInstanceUID": first["StudyInstanceUID"],
            "StudyDate": first.get("StudyDate", ""),
            "StudyDescription": first.get("StudyDescription", ""),
            "PatientName": "",
            "PatientID": first.get("PatientID", ""),
            "NumInstances": sum(len(s["instances"]) for s in series),
            "Modalities": "CT",
            "series": series,
        }
        return {"studies": [study]}

    def opening(self, uid: str, product: str = "") -> str:
        """Address in OHIF: the SEG of a product (the first one if none is named) over its CT."""
        segments = [s for s in self.objects(uid) if s.item.kind is ObjectKind.SEG]
        chosen = [s for s in segments if s.product == product] or segments
        study = json.loads(self.study(uid))["studies"][0]["StudyInstanceUID"]
        first = chosen[0].item.series_instance_uid if chosen else uid
        return f"/viewer/dicomjson?url=/study/{uid}.json&StudyInstanceUIDs={study}&initialSeriesInstanceUID={first}"


def _series(instances: list[dict[str, Any]]) -> dict[str, Any]:
    data = instances[0]["metadata"]
    names = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate")
    return {**{n: data[n] for n in names if n in data}, "instances": instances}


def _instance(path: Path, address: str) -> dict[str, Any]:
    import pydicom

    data = pydicom.dcmread(path, stop_before_pixels=True)
    if data.get("Modality") != "SEG":
        wanted = set(_CT_KEYS.split())
        return {"metadata": _natural(e for e in data if e.keyword in wanted), "url": f"dicomweb:{address}"}
    return {"metadata": _natural(data), "url": f"dicomweb:{address}"}


def _natural(data: Any) -> dict[str, Any]:
    """A data set as keyword -> plain value, as dcmjs names it; OHIF wants single items of a sequence unwrapped."""
    out: dict[str, Any] = {}
    for element in data:
        if not element.keyword or element.value is None or element.value == "":
            continue
        if element.VR == "SQ":
            items = [_natural(item) for item in element.value]
            out[element.keyword] = items[0] if len(items) == 1 and element.keyword not in _ALWAYS_LISTS else items
        elif element.VM > 1:
            out[element.keyword] = [_plain(v) for v in element.value]
        else:
            out[element.keyword] = _plain(element.value)
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value if type(value) in (int, str) else (int(value) if isinstance(value, int) else str(value))
    if isinstance(value, float) or hasattr(value, "__float__"):
        return float(value)
    return str(value)


# ---------------------------------------------------------------- server


@dataclass
class ViewServer:
    """The server; ``with ViewServer(...) as server`` runs it in a thread.

    Parameters
    ----------
    view : RunView
        What is shown.
    ohif : Path
        OHIF's built site.
    port : int
        0: any free port.
    pacs : str
        DICOMweb root of a PACS to show instead of the run (through this server, so that the browser stays here).
    """

    view: RunView
    ohif: Path
    port: int = DEFAULT_PORT
    pacs: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __enter__(self) -> ViewServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        self._server.daemon_threads = True
        self._server.owner = self  # type: ignore[attr-defined]
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def root(self) -> str:
        """Address without the token."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, series: str = "") -> str:
        """Address to open first: it hands the browser its cookie."""
        return f"{self.root}{f'/open/{series}' if series else '/'}?token={self.token}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ctenrich"
    sys_version = ""

    @property
    def owner(self) -> ViewServer:
        found: ViewServer = self.server.owner  # type: ignore[attr-defined]
        return found

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        try:
            self._answer()
        except (InputError, UsageError) as error:
            self._text(str(error.message), HTTPStatus.NOT_FOUND)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        hosts = {f"127.0.0.1:{self.owner.port}", f"localhost:{self.owner.port}"}
        if self.headers.get("Host") not in hosts:
            return self._text("This server answers this computer only.", HTTPStatus.FORBIDDEN)
        token = (asked.get("token") or [""])[0]
        if token and hmac.compare_digest(token.encode(), self.owner.token.encode()):
            rest = "&".join(f"{k}={v[0]}" for k, v in asked.items() if k != "token")
            return self._redirect(parts.path + (f"?{rest}" if rest else ""), cookie=True)
        if not self._known():
            return self._text("Open the address that ctenrich view printed.", HTTPStatus.FORBIDDEN)
        return self._route(parts.path, (asked.get("product") or [""])[0])

    def _known(self) -> bool:
        pairs = (c.strip().partition("=") for c in self.headers.get("Cookie", "").split(";"))
        found = next((value for name, _, value in pairs if name == _COOKIE), "")
        return hmac.compare_digest(found.encode(), self.owner.token.encode())

    def _route(self, path: str, product: str) -> None:
        view = self.owner.view
        words = path.strip("/").split("/")
        if path == "/" and not self.owner.pacs:
            return self._text(front_page(_links(view), view.workspace.root.name, _has_report(view)), kind="text/html")
        if path == "/app-config.js":
            return self._text(app_config(pacs=bool(self.owner.pacs)), kind="text/javascript")
        if words[0] == "dicom-web" and self.owner.pacs:
            return self._proxy(path)
        if words[0] == "report":
            return self._static(view.workspace.report, "/".join(words[1:]))
        if len(words) > 1 and words[0] in ("open", "study", "files", "sr"):
            uid = check_uid(words[1].removesuffix(".json"))
            if uid not in view.series:
                raise UsageError(Reason.NOT_FOUND, "the run has no such series")
            return self._series(words, uid, product)
        return self._site(path)

    def _series(self, words: list[str], uid: str, product: str) -> None:
        view = self.owner.view
        if words[0] == "open":
            return self._redirect(view.opening(uid, product))
        if words[0] == "study":
            return self._text(view.study(uid).decode(), kind="application/json")
        path = view.file(uid, words[2] if len(words) > 2 else "")
        if words[0] == "sr":
            return self._text(report_page(path), kind="text/html")
        if len(words) == 5 and words[3] == "frames" and words[4].isdigit():
            return self._bytes(view.frame(path, int(words[4])), "application/dicom")
        return self._bytes(path.read_bytes(), "application/dicom")

    def _site(self, path: str) -> None:
        """OHIF's files; any address that is none of them is a page of the application."""
        if re.search(r"\.\w{2,5}$", path) and "service-worker" not in path:
            return self._static(self.owner.ohif, path.strip("/"))
        index = clean_index((self.owner.ohif / "index.html").read_text("utf-8"))
        return self._text(index, kind="text/html")

    def _static(self, root: Path, name: str) -> None:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or not path.is_file():
            return self._text("There is no such file.", HTTPStatus.NOT_FOUND)
        kind = {".wasm": "application/wasm", ".js": "text/javascript"}.get(path.suffix)
        return self._bytes(path.read_bytes(), kind or mimetypes.guess_type(path.name)[0] or "application/octet-stream")

    def _proxy(self, path: str) -> None:
        query = urlsplit(self.path).query
        address = f"{self.owner.pacs.rstrip('/')}{path.removeprefix('/dicom-web')}{f'?{query}' if query else ''}"
        request = urllib.request.Request(address, headers={"Accept": self.headers.get("Accept", "*/*")})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return self._bytes(answer.read(), answer.headers.get("Content-Type", "application/octet-stream"))
        except urllib.error.HTTPError as error:
            return self._text(f"The PACS answered {error.code}.", HTTPStatus(error.code))
        except urllib.error.URLError:
            return self._text("The PACS cannot be reached.", HTTPStatus.BAD_GATEWAY)

    def _redirect(self, target: str, *, cookie: bool = False) -> None:
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", target)
        if cookie:
            self.send_header("Set-Cookie", f"{_COOKIE}={self.owner.token}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _text(self, text: str, status: HTTPStatus = HTTPStatus.OK, kind: str = "text/plain") -> None:
        self._bytes(text.encode(), f"{kind}; charset=utf-8", status)

    def _bytes(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), *_headers()):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _has_report(view: RunView) -> bool:
    return (view.workspace.report / "index.html").is_file()


def _links(view: RunView) -> list[tuple[str, list[tuple[str, str]]]]:
    """Series -> (address, text) of what can be opened."""
    out = []
    for uid in view.series:
        links = [(f"/open/{uid}", "CT")]
        for shown in view.objects(uid):
            if shown.item.kind is ObjectKind.SEG:
                links.append((f"/open/{uid}?product={shown.product}", f"CT with {shown.product}"))
            else:
                text = f"{shown.item.kind.value.replace('_', ' ')}, {shown.product}"
                links.append((f"/sr/{uid}/{shown.item.sop_instance_uid}", text))
        out.append((uid, links))
    return out


def _headers() -> Iterator[tuple[str, str]]:
    """No request leaves this computer, no other page may read along."""
    yield "Cross-Origin-Opener-Policy", "same-origin"
    yield "Cross-Origin-Embedder-Policy", "require-corp"
    yield "Cross-Origin-Resource-Policy", "same-origin"
    yield "X-Content-Type-Options", "nosniff"
    yield "Referrer-Policy", "no-referrer"
    yield "Cache-Control", "private, max-age=60"
    yield "Content-Security-Policy", _POLICY


def serve(
    workspace: Workspace, *, series: str = "", ohif: Path | None = None, port: int = DEFAULT_PORT, pacs: str = ""
) -> ViewServer:
    """Make the server of a run (start it with ``with``); fetches OHIF if it is not here yet.

    Raises
    ------
    UsageError
        BAD_RUN if the run has nothing to show, NOT_FOUND for a series that it does not have.
    """
    from ctenrich.ohif import obtain_ohif

    view = RunView(workspace)
    if not view.series and not pacs:
        raise UsageError(Reason.BAD_RUN, "the run has no series to show", "run fetch and sort first")
    if series and series not in view.series:
        raise UsageError(Reason.NOT_FOUND, "the run has no such series", f"{len(view.series)} series can be shown")
    return ViewServer(view, obtain_ohif(ohif), port, pacs)

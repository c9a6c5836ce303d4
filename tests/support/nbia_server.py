"""A stand-in for the part of NBIA's search interface (version 4) that lists series and gives them as ZIP files."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = "/nbia-api/services/v4"


class Nbia:
    """Series with their files, and what is wrong with the answers."""

    def __init__(self) -> None:
        self.port = 0
        self.rows: list[dict[str, Any]] = []
        """Rows of getSeries."""
        self.files: dict[str, dict[str, bytes]] = {}
        """Series Instance UID -> SOP Instance UID -> bytes."""
        self.zips: list[bytes | None] = []
        """ZIP files of the next requests; None: the right one."""
        self.busy = 0
        """Requests that are answered with 503 from now on."""
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        """Address of a collection as a catalog."""
        return f"nbia+http://127.0.0.1:{self.port}{ROOT}/Lung-1"

    def packed(self, series: str, *, manifest: bool = True, **changed: bytes) -> bytes:
        """ZIP file of a series as getImageWithMD5Hash gives it; `changed` are members with other bytes."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            lines = ["Filename,MD5Hash"]
            for number, content in enumerate(self.files[series].values(), 1):
                name = f"{number:08d}.dcm"
                archive.writestr(name, changed.get(f"m{number}", content))
                lines.append(f"{name},{hashlib.md5(content).hexdigest()}")
            if manifest:
                archive.writestr("md5hashes.csv", "\n".join(lines) + "\n")
        return out.getvalue()

    def answer(self, request: str, query: dict[str, str]) -> Any:
        """Rows of a table, or bytes of a ZIP file; None for what the interface refuses."""
        allowed = {
            "getSeries": {"Collection", "format", "PatientID", "Modality", "SeriesInstanceUID"},
            "getSOPInstanceUIDs": {"SeriesInstanceUID", "format"},
            "getImageWithMD5Hash": {"SeriesInstanceUID"},
        }
        if request not in allowed or not query.keys() <= allowed[request]:
            return None
        if request == "getSeries":
            wanted = {k: v for k, v in query.items() if k != "format"}
            return [row for row in self.rows if all(str(row.get(k, "")) == v for k, v in wanted.items())]
        series = query["SeriesInstanceUID"]
        if request == "getSOPInstanceUIDs":
            return [{"SOPInstanceUID": uid} for uid in self.files.get(series, {})]
        planned = self.zips.pop(0) if self.zips else None
        return self.packed(series) if planned is None else planned


@contextmanager
def nbia_server() -> Iterator[Nbia]:
    """Run the stand-in in threads of this process."""
    made = Nbia()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            made.requests.append(parts.path.rpartition("/")[2])
            if made.busy > 0:
                made.busy -= 1
                return self.send(503, b"")
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            found = made.answer(parts.path.removeprefix(f"{ROOT}/"), query)
            if found is None:
                return self.send(400, b"Invalid query parameter")
            body = found if isinstance(found, bytes) else json.dumps(found).encode() if found else b""
            return self.send(200, body)

        def send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)

"""A stand-in for the part of XNAT's REST interface that lists a project and gives files of scans."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

USER, PASSWORD = "researcher", "pass:word"


class Xnat:
    """Sessions with scans, and what the server does to requests."""

    def __init__(self) -> None:
        self.port = 0
        self.sessions: dict[str, dict[str, Any]] = {}
        """Session ID -> data fields, with `scans`: ID -> (data fields, files by name)."""
        self.subjects: dict[str, str] = {}
        """Subject ID -> label."""
        self.fault: Callable[[str, int], str] = lambda path, times: ""
        """(path, requests for it before) -> '' or busy, cut, html, elsewhere."""
        self.digests = True
        self.requests: list[str] = []
        self.logins = 0
        """Requests with a password and without the cookie of a session."""

    @property
    def address(self) -> str:
        """Address of the project as an archive."""
        return f"xnat+http://127.0.0.1:{self.port}/PROJECT"

    def add(
        self, session: str, subject: str, fields: Mapping[str, str], scans: Mapping[str, tuple[Any, list[Path]]]
    ) -> None:
        """Add a session of a subject: its data fields, and the data fields and files of its scans."""
        number = f"XNAT_S{len(self.subjects):05d}"
        self.subjects[number] = subject
        held = {name: (data, {path.name: path.read_bytes() for path in paths}) for name, (data, paths) in scans.items()}
        self.sessions[session] = {"fields": {"ID": session, "subject_ID": number, **fields}, "scans": held}

    def listing(self, path: str) -> Any:
        """The JSON of a path; None where there is nothing."""
        parts = path.strip("/").split("/")
        if path == "/data/projects/PROJECT/subjects":
            return table([{"ID": number, "label": label} for number, label in self.subjects.items()])
        if path == "/data/projects/PROJECT/experiments":
            kind = "xnat:ctSessionData"
            rows = [
                {"ID": name, "xsiType": kind, "date": one["fields"].get("date", "")}
                for name, one in self.sessions.items()
            ]
            return table([*rows, {"ID": "XNAT_E9", "xsiType": "xnat:qcAssessmentData", "date": ""}])
        if parts[:2] == ["data", "experiments"] and len(parts) == 3 and parts[2] in self.sessions:
            return {"items": [self.session(self.sessions[parts[2]])]}
        if len(parts) == 8 and parts[7] == "files" and parts[2] in self.sessions:
            files = self.sessions[parts[2]]["scans"][parts[4]][1]
            return table([self.file_row(path, name, content) for name, content in files.items()])
        return None

    def session(self, one: dict[str, Any]) -> dict[str, Any]:
        """A session as an item with its scans."""
        scans = [
            {
                "data_fields": {"ID": name, **{k: v for k, v in data.items() if k != "label"}},
                "meta": {"xsi:type": "xnat:ctScanData"},
                "children": [
                    {
                        "field": "file",
                        "items": [
                            {"data_fields": {
                                "label": data.get("label", "DICOM"), "file_count": len(files),
                                "file_size": sum(map(len, files.values())),
                            }}
                        ],
                    }
                ],
            }
            for name, (data, files) in one["scans"].items()
        ]  # fmt: skip
        return {"data_fields": one["fields"], "children": [{"field": "scans/scan", "items": scans}]}

    def file_row(self, path: str, name: str, content: bytes) -> dict[str, str]:
        """A file as XNAT lists it."""
        digest = hashlib.md5(content).hexdigest() if self.digests else ""
        return {"Name": name, "URI": f"{path}/{name}", "Size": str(len(content)), "digest": digest}

    def content(self, path: str) -> bytes | None:
        """The bytes of a file."""
        parts = path.strip("/").split("/")
        if len(parts) != 9 or parts[2] not in self.sessions:
            return None
        found: bytes | None = self.sessions[parts[2]]["scans"][parts[4]][1].get(parts[8])
        return found


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A listing."""
    return {"ResultSet": {"Result": rows, "totalRecords": str(len(rows))}}


@contextmanager
def xnat_server() -> Iterator[Xnat]:
    """Run the stand-in in threads of this process."""
    made = Xnat()
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            fault = made.fault(path, made.requests.count(path))
            made.requests.append(path)
            known = "JSESSIONID=1" in (self.headers.get("Cookie") or "")
            if not known and self.headers.get("Authorization") != expected:
                return self.answer(401, b"", "text/html")
            made.logins += not known
            if fault == "busy":
                return self.answer(503, b"", "text/html")
            if fault == "html":
                return self.answer(200, b"<html>login</html>", "text/html")
            if fault == "elsewhere":
                return self.answer(302, b"", "text/html", Location="http://localhost:1/x")
            content = made.content(path)
            if content is not None:
                return self.answer(200, content, "application/octet-stream", cut=fault == "cut")
            found = made.listing(path)
            body = b"" if found is None else json.dumps(found).encode()
            return self.answer(404 if found is None else 200, body, "application/json")

        def answer(self, status: int, body: bytes, kind: str, *, cut: bool = False, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Set-Cookie", "JSESSIONID=1; Path=/")
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = True

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

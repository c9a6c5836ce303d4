"""Orthanc on the loopback, with its DICOMweb plugin."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import need_program, skip_or_fail
from tests.support.storage_servers import free_port

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc."""

    root: str
    """Of its own REST interface."""
    dicom_port: int

    @property
    def node(self) -> str:
        """Address of its DICOM node."""
        return f"dicom://127.0.0.1:{self.dicom_port}/ORTHANC"

    @property
    def web(self) -> str:
        """Address of its DICOMweb store as an archive."""
        return f"dicomweb+{self.root}/dicom-web"

    def add(self, paths: Iterable[Path]) -> None:
        """Store files."""
        for path in paths:
            urllib.request.urlopen(f"{self.root}/instances", path.read_bytes(), timeout=10).close()

    def drop(self, uid: str) -> None:
        """Delete an instance."""
        request = urllib.request.Request(f"{self.root}/tools/lookup", uid.encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            (found,) = [one["ID"] for one in json.load(answer) if one["Type"] == "Instance"]
        delete = urllib.request.Request(f"{self.root}/instances/{found}", method="DELETE")
        urllib.request.urlopen(delete, timeout=10).close()


@contextmanager
def run_orthanc(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """Run an Orthanc whose files are in a folder; skips (or fails) where it is not installed."""
    binary = need_program("orthanc", "Orthanc", "orthanc", "/usr/sbin/Orthanc")
    if not _PLUGIN.exists():
        skip_or_fail("orthanc", "Orthanc's DICOMweb plugin is not installed")
    http, dicom = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "HttpPort": http, "DicomPort": dicom, "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True, "UnknownSopClassAccepted": True, "Plugins": [str(_PLUGIN)],
        **settings,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [binary, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None, "Orthanc ended by itself"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", http)) == 0:
                    break
            assert time.monotonic() < end, "Orthanc does not listen"
            time.sleep(0.05)
        yield Orthanc(f"http://127.0.0.1:{http}", dicom)
    finally:
        process.terminate()
        process.wait(20)

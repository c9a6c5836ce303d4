"""An Orthanc with two patients for the tests of archives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless

from tests.support.cohorts import write_series
from tests.support.orthanc import Orthanc, run_orthanc
from tests.support.small_series import Small, write_small
from tests.support.storage_servers import free_port


@dataclass(frozen=True)
class Held:
    """An archive, and the files that are in it."""

    orthanc: Orthanc
    folder: Path
    files: dict[str, Path]
    """By SOP Instance UID."""
    series: tuple[str, ...]
    """Series Instance UIDs of the phantoms PHANTOM-100 and PHANTOM-101."""
    receive_port: int
    """Where Orthanc sends what C-MOVE asks for, for the title CTENRICH."""


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """Two phantoms with structure sets, and a small series in JPEG-LS of the patient CANARY-ID."""
    folder = tmp_path_factory.mktemp("archive")
    series = write_series(folder / "dicom", 2)
    write_small(folder / "dicom" / "small", Small(syntax=JPEGLSLossless))
    files = {dcmread(path).SOPInstanceUID: path for path in (folder / "dicom").rglob("*.dcm")}
    port = free_port()
    known = {"us": ["CTENRICH", "127.0.0.1", port]}
    with run_orthanc(folder / "orthanc", DicomModalities=known) as orthanc:
        orthanc.add(files.values())
        yield Held(orthanc, folder / "dicom", files, tuple(series), port)

"""TLS: only senders with a certificate that the station's authority has signed."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import need_program
from tests.support.listeners import CONFIG, Receiver, receiving, silent_connection, study_files

from ctenrich.errors import UsageError
from ctenrich.listener.config import TlsFiles
from ctenrich.listener.tls import tls_context

pytest.importorskip("pynetdicom")


def run(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, certificates of the station and a sender, and one of a stranger."""
    need_program("openssl", "openssl")
    folder = tmp_path_factory.mktemp("certificates")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "stranger"):
        run(folder, "req", "-x509", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    for name in ("station", "sender"):
        run(folder, "req", *new_key[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-out", f"{name}.pem",
        )  # fmt: skip
    return folder


@pytest.fixture
def receiver(tmp_path: Path, certificates: Path) -> Iterator[Receiver]:
    files = TlsFiles(
        certificate=str(certificates / "station.pem"),
        key=str(certificates / "station.key"),
        ca=str(certificates / "ca.pem"),
    )
    with receiving(tmp_path / "station", replace(CONFIG, tls=files)) as found:
        yield found


def context(certificates: Path, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certificates / "ca.pem")
    made.check_hostname = False
    if name:
        made.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return made


def store(receiver: Receiver, tls: ssl.SSLContext | None) -> int | None:
    """Send an object; the status, or None if there is no association."""
    from pynetdicom import AE
    from pynetdicom.sop_class import CTImageStorage

    entity = AE(ae_title="SENDER")
    entity.acse_timeout = 20
    entity.add_requested_context(CTImageStorage)
    arguments = (tls, "station") if tls else None
    association = entity.associate("127.0.0.1", receiver.ports["dicom"], ae_title="CTENRICH", tls_args=arguments)
    if not association.is_established:
        if association.dul.socket.socket is not None:  # pynetdicom leaves it open after a failed handshake
            association.dul.socket.socket.close()
        return None
    status = association.send_c_store(study_files()[0])
    association.release()
    return getattr(status, "Status", None)


def test_only_a_signed_certificate_opens_an_association(receiver: Receiver, certificates: Path) -> None:
    silent = [silent_connection(receiver.ports["dicom"]) for _ in range(5)]
    assert store(receiver, context(certificates, "sender")) == 0
    assert store(receiver, context(certificates, "stranger")) is None
    assert store(receiver, context(certificates, "")) is None
    assert store(receiver, None) is None
    assert len(receiver.rows()) == 1
    for connection in silent:
        connection.close()


def test_files_that_are_no_certificates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    files = TlsFiles(**dict.fromkeys(("certificate", "key", "ca"), str(tmp_path / "x.pem")))
    with pytest.raises(UsageError, match="BAD_SETTINGS"):
        tls_context(replace(CONFIG, tls=files))

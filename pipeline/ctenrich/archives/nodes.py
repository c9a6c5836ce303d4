"""DICOM nodes: host, port, application entity titles and certificates."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import require_file

__all__ = ["Node", "TlsFiles", "check_titles"]


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Certificates in PEM files; without any of them, those of the system are trusted."""

    ca: Path | None = None
    """Authorities that may have signed the receiver's certificate."""
    certificate: Path | None = None
    """Certificate of this side, for receivers that ask for one."""
    key: Path | None = None
    """Its private key."""

    def context(self) -> ssl.SSLContext:
        """Return the context of a client: TLS 1.2 or later, certificate and host name of the receiver are checked.

        Raises
        ------
        UsageError
            NOT_FOUND, or BAD_PARAMETER for a file that holds no certificate or key.
        """
        for path in filter(None, (self.ca, self.certificate, self.key)):
            require_file(path, "name PEM files")
        if (self.certificate is None) != (self.key is None):
            raise UsageError(Reason.BAD_PARAMETER, "a certificate of this side needs its key, and the key it")
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            message = f"TLS: a file cannot be used: {error.strerror or error}"
            raise UsageError(Reason.BAD_PARAMETER, message, "name PEM files") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


@dataclass(frozen=True, kw_only=True)
class Node:
    """A DICOM node and how it is reached."""

    host: str
    port: int
    called: str
    """Application entity title of the node."""
    calling: str = "CTENRICH"
    """Application entity title of this side."""
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        """The node as messages name it."""
        return f"{self.called} at {self.host}:{self.port}"


def check_titles(titles: Sequence[str]) -> None:
    """Check application entity titles.

    Raises
    ------
    UsageError
        BAD_PARAMETER for one that is empty or has more than 16 characters (PS3.5 6.2).
    """
    for title in titles:
        if not title.strip() or len(title) > 16 or not title.isascii() or "\\" in title or not title.isprintable():
            message = f"{title[:20]!r} is no application entity title"
            raise UsageError(Reason.BAD_PARAMETER, message, "1 to 16 ASCII characters, no backslash")

"""TLS of a station: its own certificate, and one of a known authority demanded of every client."""

from __future__ import annotations

import ssl

from ctenrich.errors import UsageError
from ctenrich.listener.config import StationConfig
from ctenrich.reasons import Reason

__all__ = ["tls_context"]


def tls_context(config: StationConfig) -> ssl.SSLContext | None:
    """Return the TLS context of a station, which demands a certificate of every client; None without TLS.

    Raises
    ------
    UsageError
        BAD_SETTINGS if a file cannot be read or is none of its kind.
    """
    if not config.tls.complete:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls.certificate, config.tls.key)
        context.load_verify_locations(config.tls.ca)
    except OSError as error:  # ssl.SSLError is one
        message = f"tls: a file cannot be used: {error.strerror or error}"
        raise UsageError(Reason.BAD_SETTINGS, message, "name PEM files in [tls] of station.toml") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context

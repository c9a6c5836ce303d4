"""Destinations and notification hooks, as they are configured."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason

__all__ = ["Destination", "Hook", "HookEvent", "OwnAddresses", "sender_destination"]

HookEvent = Literal["done", "delivered", "failed", "held"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:@\[\]-]{0,159}")
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_SCHEMES = ("dicom", "http", "https", "file", "gs", "s3", "smtp")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where results are sent."""

    name: str
    """Name in commands, logs and messages."""
    address: str
    """``dicom://HOST:PORT/AET``, the root of a DICOMweb store (``https://...``), ``file:///FOLDER``,
    ``gs://BUCKET/PREFIX`` or ``s3://BUCKET/PREFIX``."""
    hold: bool | None = None
    """Whether objects wait until a person releases them. Not set: they do where the address is a DICOM node or a
    DICOMweb store."""
    calling: str = "CTENRICH"
    """Calling AE title (DICOM nodes)."""
    token_variable: str = ""
    """Environment variable with the bearer token (DICOMweb stores)."""
    tls_ca: str = ""
    """PEM file of the authorities that may have signed the node's certificate; with it the association uses TLS."""
    tls_certificate: str = ""
    """PEM file of our own certificate, if the node demands one."""
    tls_key: str = ""
    """PEM file of its key."""
    identified: bool = False
    """Whether a bucket may get objects of patients who can be identified."""
    confirm: bool = True
    """Whether a DICOM node is asked afterwards if it has the objects: storage commitment, else a query."""
    confirm_seconds: float = 15.0
    """Time before it is asked."""
    retry_seconds: float = 10.0
    """Time before the second attempt; it doubles with each further one, up to 15 minutes."""
    give_up_days: float = 14.0
    """Objects that could not be sent for so long have failed;
    ``ctenrich deliveries STATION retry`` queues them again."""

    @property
    def scheme(self) -> str:
        """Scheme of the address."""
        return urlsplit(self.address).scheme

    @property
    def holds(self) -> bool:
        """Whether objects wait for their release."""
        return self.scheme in ("dicom", "http", "https") if self.hold is None else self.hold

    def check(self) -> None:
        """Refuse what cannot be right.

        Raises
        ------
        UsageError
            BAD_SETTINGS, with the name of the destination.
        """
        if _NAME.fullmatch(self.name) is None:
            raise _bad("a destination has a name of letters, digits and . : @ _ -")
        where = f"destination {self.name}"
        parts = urlsplit(self.address)
        _check_port(self.address, where)
        if parts.scheme not in _SCHEMES[:-1]:
            hint = did_you_mean(parts.scheme, _SCHEMES[:-1], "dicom://HOST:PORT/AET, https://, file:///, gs://, s3://")
            raise _bad(f"{where}: the address is of no known kind", hint)
        if parts.scheme == "dicom" and not (parts.hostname and parts.port and _is_title(parts.path.strip("/"))):
            raise _bad(f"{where}: the address of a node is dicom://HOST:PORT/AET")
        if parts.scheme in ("http", "https", "gs", "s3") and not parts.hostname:
            raise _bad(f"{where}: the address names no host or bucket")
        if parts.scheme == "file" and not parts.path.startswith("/"):
            raise _bad(f"{where}: the address of a folder is file:///absolute/path")
        if parts.username or parts.password:
            raise _bad(f"{where}: no user name or password in an address", "use token_variable")
        if not _is_title(self.calling):
            raise _bad(f"{where}: calling is no AE title")
        self._check_options(where)

    def _check_options(self, where: str) -> None:
        if self.token_variable and _VARIABLE.fullmatch(self.token_variable) is None:
            raise _bad(f"{where}: token_variable is the name of an environment variable, not the token")
        if (self.tls_certificate or self.tls_key) and not (self.tls_ca and self.tls_certificate and self.tls_key):
            raise _bad(f"{where}: a certificate of our own needs tls_ca, tls_certificate and tls_key")
        if min(self.confirm_seconds, self.retry_seconds, self.give_up_days) <= 0:
            raise _bad(f"{where}: confirm_seconds, retry_seconds and give_up_days are above 0")


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Where a notification is sent when the delivery of a case has ended or waits."""

    name: str
    address: str
    """``https://...`` (the notification is posted as JSON) or ``smtp://HOST:PORT`` of a mail relay."""
    events: tuple[HookEvent, ...] = ("delivered", "failed", "held")
    identifiers: bool = False
    """Whether the notification has Patient ID, Study Instance UID and Accession Number; each such notification is
    recorded in the audit log."""
    token_variable: str = ""
    """Environment variable with the bearer token of the web address."""
    sender: str = ""
    """Sender of the e-mail."""
    to: tuple[str, ...] = ()
    """Recipients of the e-mail."""

    def check(self) -> None:
        """Refuse what cannot be right.

        Raises
        ------
        UsageError
            BAD_SETTINGS, with the name of the hook.
        """
        if _NAME.fullmatch(self.name) is None:
            raise _bad("a hook has a name of letters, digits and . : @ _ -")
        where = f"hook {self.name}"
        parts = urlsplit(self.address)
        _check_port(self.address, where)
        if parts.scheme not in ("http", "https", "smtp") or not parts.hostname:
            raise _bad(f"{where}: the address is https://... or smtp://HOST:PORT")
        if parts.username or parts.password:
            raise _bad(f"{where}: no user name or password in an address", "use token_variable")
        if self.token_variable and _VARIABLE.fullmatch(self.token_variable) is None:
            raise _bad(f"{where}: token_variable is the name of an environment variable, not the token")
        if self.identifiers and parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise _bad(f"{where}: identifiers of patients are sent with https only")
        if self.identifiers and parts.scheme == "smtp" and not _is_loopback(parts.hostname):
            raise _bad(f"{where}: identifiers of patients are sent by e-mail to a relay on this computer only")
        if parts.scheme == "smtp" and not (self.sender and self.to):
            raise _bad(f"{where}: an e-mail needs sender and to")
        if any(character in text for text in (self.sender, *self.to) for character in "\r\n"):
            raise _bad(f"{where}: an e-mail address is one line")


@dataclass(frozen=True, kw_only=True)
class OwnAddresses:
    """Addresses at which this station itself receives."""

    ports: frozenset[int] = frozenset()
    """Of the Storage SCP and of STOW-RS."""
    watch: str = ""
    """Watch folder."""

    def includes(self, destination: Destination) -> bool:
        """Whether what is sent to a destination is received here."""
        parts = urlsplit(destination.address)
        if parts.scheme == "file":
            if not self.watch:
                return False
            folder, watch = Path(parts.path).resolve(), Path(self.watch).resolve()
            return folder == watch or watch in folder.parents
        default = {"http": 80, "https": 443}.get(parts.scheme, 0)
        return (parts.port or default) in self.ports and _is_this_computer(parts.hostname or "")


def sender_destination(aet: str, host: str, port: int, *, hold: bool | None = None) -> Destination:
    """Return the destination of "return to sender".

    Parameters
    ----------
    aet : str
        AE title with which the sender called; it is called with this title.
    host : str
        IP address from which it called.
    port : int
        Port on which it receives.
    hold : bool, optional
        As in :class:`Destination`.

    Returns
    -------
    Destination

    Raises
    ------
    UsageError
        BAD_SETTINGS for an AE title that cannot be called.
    """
    place = f"[{host}]" if ":" in host else host
    if any(character in aet for character in "#?/%"):
        raise _bad("return to sender: the AE title of the sender has a character that an address cannot have")
    name = re.sub(r"[^A-Za-z0-9 _.:@\[\]-]", "_", f"sender {aet.strip()}@{place}:{port}")
    made = Destination(name=name, address=f"dicom://{place}:{port}/{aet.strip()}", hold=hold)
    made.check()
    return made


def _check_port(address: str, where: str) -> None:
    try:
        _ = urlsplit(address).port
    except ValueError:
        raise _bad(f"{where}: the port of the address is no number up to 65535") from None


def _is_title(text: str) -> bool:
    return _AE_TITLE.fullmatch(text) is not None and bool(text.strip())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_this_computer(host: str) -> bool:
    """Whether a host is this computer: an address to which a socket can be bound."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return any(_can_be_bound(address) for address in found)


def _can_be_bound(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _bad(message: str, hint: str = "") -> UsageError:
    return UsageError(Reason.BAD_SETTINGS, message, hint)

"""Configuration of a station: addresses, senders, limits, when a case closes, and what runs on it."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from ctenrich.delivery.destination import Destination, Hook
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.flows.capacity import parse_capacity
from ctenrich.flows.closing import AfterAtMost, CloseRule, CloseWhen, parse_duration
from ctenrich.flows.hours import parse_hours
from ctenrich.flows.request import RunRequest
from ctenrich.reasons import Reason

__all__ = [
    "AfterAtMost",
    "CloseRule",
    "KeepRule",
    "Limits",
    "ListenAddress",
    "Peer",
    "RunRequest",
    "StationConfig",
    "TlsFiles",
    "load_config",
    "parse_address",
    "parse_close",
    "parse_duration",
    "parse_peer",
]

ANY = "*"
"""As AE title of a peer: any calling AE title from its address."""
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
"""Characters of the VR AE (PS3.5 table 6.2-1): printable ASCII without the backslash."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A sender that may store objects; others are refused."""

    aet: str
    """Calling AE title, or ``*`` for any from this address."""
    host: str
    """IP address or network (``10.1.0.0/16``)."""
    priority: int = 3
    """0 to 5: closed cases with images of a sender of higher priority run first."""
    deadline: float = 0.0
    """Seconds after the first image in which a case should have run: among cases of one priority the earliest deadline
    runs first; 0: none."""
    quiet: float = 0.0
    """Seconds without an image after which a case with images of this sender is complete, e.g. of a slow scanner; of
    several senders the longest counts. 0: that of the closing rule."""

    def matches(self, aet: str, host: str) -> bool:
        """Return whether an association with this calling AE title may come from this IP address."""
        return self.aet in (ANY, aet) and self.has_address(host)

    def has_address(self, host: str) -> bool:
        """Return whether an IP address belongs to this sender."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address in ipaddress.ip_network(self.host, strict=False)


@dataclass(frozen=True, kw_only=True)
class ListenAddress:
    """An address to listen on."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only programs on this computer can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Files of the TLS set-up; senders must present a certificate that `ca` has signed."""

    certificate: str = ""
    """PEM file of this station's certificate chain."""
    key: str = ""
    """PEM file of its private key."""
    ca: str = ""
    """PEM file of the certificate authorities that sign the senders' certificates."""

    @property
    def complete(self) -> bool:
        """Whether all three files are named."""
        return bool(self.certificate and self.key and self.ca)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that protect the station."""

    max_associations: int = 32
    """Associations at a time."""
    max_per_host: int = 16
    """Associations of one address at a time."""
    max_waiting: int = 64
    """Connections at a time whose A-ASSOCIATE-RQ has not arrived."""
    connect_seconds: float = 5.0
    """Time for the TLS handshake and the A-ASSOCIATE-RQ of a connection (ARTIM timer, PS3.8 9.1.5)."""
    idle_seconds: float = 300.0
    """Time without a message after which an association is aborted."""
    pdu_seconds: float = 30.0
    """Time in which a PDU that has begun must have arrived whole."""
    max_pdu: int = 65536
    """Largest PDU that is offered to senders, bytes (PS3.8 annex D.1)."""
    max_object: int = 4 * 1024**3
    """Largest object, bytes; larger ones are refused with status 0xC000."""
    reserve: int = 2 * 1024**3
    """Free bytes of the disk below which objects are refused with status 0xA700."""


@dataclass(frozen=True, kw_only=True)
class KeepRule:
    """How long received objects are kept."""

    days: float = 0.0
    """Received objects of a case are deleted this long after its last revision has ended; 0: never."""


@dataclass(frozen=True, kw_only=True)
class StationConfig:
    """Configuration of a station."""

    aet: str = "CTENRICH"
    """Called AE title; associations that call another one are rejected."""
    dicom: str = "127.0.0.1:11112"
    """HOST:PORT of the Storage SCP; empty: none."""
    web: str = ""
    """HOST:PORT of STOW-RS, status page, JSON and metrics; empty: none."""
    watch: str = ""
    """Folder whose files are taken in; empty: none."""
    insecure: bool = False
    """Accept connections without TLS from other computers."""
    peers: tuple[Peer, ...] = ()
    tls: TlsFiles = field(default_factory=TlsFiles)
    limits: Limits = field(default_factory=Limits)
    close: CloseRule = field(default_factory=CloseRule)
    keep: KeepRule = field(default_factory=KeepRule)
    run: RunRequest = field(default_factory=RunRequest)
    destinations: tuple[Destination, ...] = ()
    """Where the results of every case are sent."""
    return_to_sender_on_ports: tuple[int, ...] = ()
    """Ports on which senders receive the results of the images that they sent."""
    hooks: tuple[Hook, ...] = ()
    """Where notifications about deliveries are sent."""
    flows: str = ""
    """Folder of flow files, which decide what runs on which case; empty: `run` states it for all cases."""

    def peer(self, aet: str, host: str) -> Peer | None:
        """The first sender that an association fits; None if it must be rejected."""
        return next((peer for peer in self.peers if peer.matches(aet, host)), None)

    def check(self) -> None:
        """Refuse what cannot be right.

        Raises
        ------
        UsageError
            BAD_SETTINGS, with the name.
        """
        if _AE_TITLE.fullmatch(self.aet) is None or not self.aet.strip():
            raise _bad("aet: an AE title has 1 to 16 printable ASCII characters, and no backslash")
        for peer in self.peers:
            _check_peer(peer)
        self._check_destinations()
        for name in ("dicom", "web"):
            if getattr(self, name):
                self._check_address(name, parse_address(getattr(self, name)))
        if self.watch and not Path(self.watch).is_dir():
            raise _bad(f"watch: there is no folder {self.watch}")
        if self.flows and not Path(self.flows).is_dir():
            raise _bad(f"flows: there is no folder {self.flows}")
        _check_request(self.run)
        if self.flows and self.run.asked:
            raise _bad("flows state what runs; segmenters and bodypart are for stations without flows")
        if self.close.when == "expect" and not self.close.roles:
            raise _bad("close.roles: expect needs the modalities that a study must have, e.g. CT,RTSTRUCT")
        if self.close.then == "wait" and not self.close.at_most:
            raise _bad("close.then: wait needs at_most")
        numbers = {**vars(self.limits), "close.seconds": self.close.seconds, "keep.days": self.keep.days}
        for name, value in numbers.items():
            if value < 0 or (value == 0 and name.startswith(("max", "connect", "idle", "pdu"))):
                raise _bad(f"{name} cannot be {value}")

    def _check_destinations(self) -> None:
        for destination in self.destinations:
            destination.check()
        for hook in self.hooks:
            hook.check()
        names = [one.name for one in self.destinations]
        if len(set(names)) < len(names):
            raise _bad("destinations: each has a name of its own")
        if not all(0 < port < 65536 for port in self.return_to_sender_on_ports):
            raise _bad("return_to_sender_on_ports: a port is 1 to 65535")

    def _check_address(self, name: str, address: ListenAddress) -> None:
        if any((self.tls.certificate, self.tls.key, self.tls.ca)) and not self.tls.complete:
            raise _bad("tls needs certificate, key and ca")
        if not address.loopback and not self.tls.complete and not self.insecure:
            raise UsageError(
                Reason.BAD_SETTINGS,
                f"{name}: other computers can reach {address.host}, and there is no TLS",
                "name certificate, key and ca in [tls] of station.toml; --insecure accepts connections without it",
            )


def _check_request(request: RunRequest) -> None:
    parse_capacity(request.resources)
    for program in request.commands:
        if not Path(program).is_absolute():
            raise _bad(f"run.commands: {program} is no absolute path")
    if request.off_peak:
        parse_hours(request.off_peak)
    if request.static and not Path(request.static).is_dir():
        raise _bad(f"run.static: there is no folder {request.static}")


def _check_peer(peer: Peer) -> None:
    if peer.aet != ANY and (_AE_TITLE.fullmatch(peer.aet) is None or not peer.aet.strip()):
        raise _bad("peer: an AE title has 1 to 16 printable ASCII characters, and no backslash")
    if not 0 <= peer.priority <= 5 or peer.deadline < 0 or peer.quiet < 0:
        raise _bad("peer: a priority is 0 to 5; a deadline and a quiet time are not negative")
    try:
        ipaddress.ip_network(peer.host, strict=False)
    except ValueError:
        raise _bad(f"peer: {peer.host!r} is no IP address or network") from None


def _bad(message: str) -> UsageError:
    return UsageError(Reason.BAD_SETTINGS, message)


def parse_address(text: str) -> ListenAddress:
    """Parse ``HOST:PORT``; an IPv6 address is in brackets.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(Reason.BAD_PARAMETER, f"{text!r} is no address", "write HOST:PORT, e.g. 127.0.0.1:11112")
    return ListenAddress(host=host.strip("[]"), port=int(port))


def parse_peer(text: str) -> Peer:
    """Parse ``AET@HOST`` or ``AET@HOST=PRIORITY``.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    aet, at, rest = text.partition("@")
    host, equals, priority = rest.partition("=")
    host = "127.0.0.1" if host == "localhost" else host
    if not at or (equals and not priority.isdecimal()):
        hint = "write AET@ADDRESS or AET@ADDRESS=PRIORITY, e.g. SCANNER1@10.1.2.3=4; * is any AE title"
        raise UsageError(Reason.BAD_PARAMETER, f"{text!r} is no sender", hint)
    peer = Peer(aet=aet, host=host, priority=int(priority) if equals else 3)
    _check_peer(peer)
    return peer


def parse_close(text: str) -> tuple[CloseWhen, float, tuple[str, ...]]:
    """Parse ``association``, ``quiet:60s`` or ``expect:CT,RTSTRUCT[:10s]``.

    Returns
    -------
    tuple
        Rule, seconds without an image, modalities.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    name, _, rest = text.partition(":")
    if name == "association" and not rest:
        return "association", 0.0, ()
    if name == "quiet":
        return "quiet", parse_duration(rest or "60"), ()
    if name == "expect" and rest:
        roles, _, seconds = rest.partition(":")
        return "expect", parse_duration(seconds or "10"), tuple(role.strip() for role in roles.split(",") if role)
    hint = did_you_mean(name, get_args(CloseWhen), "write association, quiet:60s or expect:CT,RTSTRUCT:10s")
    raise UsageError(Reason.BAD_PARAMETER, f"{text!r} states no rule by which a case closes", hint)


# ---------------------------------------------------------------- station.toml


def load_config(path: Path) -> StationConfig:
    """Read ``station.toml``; the default configuration if there is no such file.

    Raises
    ------
    UsageError
        BAD_SETTINGS, with the name that is wrong.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return StationConfig()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name} is not TOML: {error}") from error
    _check_names(data, StationConfig, "")
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(StationConfig).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name}: {where}: {first['msg']}") from error


def _check_names(data: dict[str, Any], record: type, place: str) -> None:
    """Refuse unknown names; pydantic ignores those of dataclasses."""
    known = {one.name: one for one in fields(record)}
    for name, value in data.items():
        if name not in known:
            hint = did_you_mean(name, known, f"known: {', '.join(known)}")
            raise UsageError(Reason.BAD_SETTINGS, f"unknown setting {place}{name}", hint)
        if isinstance(value, dict):
            _check_names(value, _record_of(name), f"{place}{name}.")
        elif isinstance(value, list) and name in _TABLES:
            for item in value:
                _check_names(item, _TABLES[name], f"{name}.")


_TABLES: dict[str, type] = {"peers": Peer, "destinations": Destination, "hooks": Hook}
"""Names of arrays of tables -> record of their items."""


def _record_of(name: str) -> type:
    value = getattr(StationConfig(), name)
    if not is_dataclass(value):
        raise _bad(f"{name} is no section")
    return type(value)

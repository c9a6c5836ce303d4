"""Read where results of a flow go, who is told, and when a case is complete."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from ctenrich.flows.closing import AfterAtMost, CloseRule
from ctenrich.flows.findings import Findings
from ctenrich.flows.records import Destination, DestinationKind, Hook
from ctenrich.flows.yaml_nodes import Node

__all__ = ["read_close", "read_destination", "read_hook"]

_DESTINATION = (
    "name", "kind", "host", "port", "ae_title", "calling_ae_title", "tls", "url", "folder", "bucket", "hold",
)  # fmt: skip
_HOOK = ("on", "webhook", "email", "identifiers")
_EVENTS = ("done", "failed", "delivered", "held")
_CLOSE = ("after", "seconds", "expect", "at_most", "then")
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_MODALITY = re.compile(r"[A-Z0-9_ ]{2,16}")
_PLACES = {"http://": "dicomweb", "https://": "dicomweb", "gs://": "bucket", "s3://": "bucket"}


def read_destination(node: Node, findings: Findings) -> Destination:
    """Read one item of ``destinations``.

    Parameters
    ----------
    node : Node
        The item.
    findings : Findings
        Gets faults and notes.

    Returns
    -------
    Destination
    """
    entries = findings.entries(node, _DESTINATION, "a destination")
    host, url = findings.text(entries.get("host"), "host"), ""
    for key in ("url", "folder", "bucket"):
        url = url or findings.text(entries.get(key), key)
    kind = DestinationKind.DICOM
    if "folder" in entries:
        kind = DestinationKind.FOLDER
    elif url:
        found = next((name for start, name in _PLACES.items() if url.startswith(start)), "")
        kind = DestinationKind(found) if found else DestinationKind.FOLDER
    kind = findings.choice(entries.get("kind"), "kind", DestinationKind, kind)
    port = findings.whole(entries.get("port"), "port", (1, 65535))
    title = findings.text(entries.get("ae_title"), "ae_title")
    calling = findings.text(entries.get("calling_ae_title"), "calling_ae_title")
    if kind is DestinationKind.DICOM:
        missing = [key for key in ("host", "port", "ae_title") if key not in entries]
        if missing:
            findings.fault(node.place, f"a DICOM destination needs {', '.join(missing)}")
    elif not url:
        findings.fault(node.place, f"a destination of kind {kind} needs a url")
    for key, text in (("ae_title", title), ("calling_ae_title", calling)):
        if key in entries and (_AE_TITLE.fullmatch(text) is None or not text.strip()):
            findings.fault(entries[key].place, f"{key}: an AE title has 1 to 16 printable ASCII characters")
    default = f"{title}@{host}:{port}" if kind is DestinationKind.DICOM else url
    return Destination(
        name=findings.text(entries.get("name"), "name", default),
        kind=kind,
        place=node.place,
        host=host,
        port=port,
        ae_title=title,
        calling_ae_title=calling,
        tls=findings.flag(entries.get("tls"), "tls"),
        url=url,
        hold=findings.flag(entries["hold"], "hold") if "hold" in entries else None,
    )


def read_hook(node: Node, findings: Findings) -> Hook:
    """Read one item of ``hooks``.

    Parameters
    ----------
    node : Node
        The item.
    findings : Findings
        Gets faults.

    Returns
    -------
    Hook
    """
    entries = findings.entries(node, _HOOK, "a hook")
    events = findings.texts(entries.get("on"), "on")
    if not events:
        findings.fault(node.place, f"a hook needs on: one of {', '.join(_EVENTS)}")
    for event in events:
        findings.is_known(node.place, event, "on", _EVENTS)
    url, email = findings.text(entries.get("webhook"), "webhook"), findings.text(entries.get("email"), "email")
    if bool(url) == bool(email):
        findings.fault(node.place, "a hook has either webhook or email")
    if url and not url.startswith(("http://", "https://")):
        findings.fault(entries["webhook"].place, "a webhook begins with https:// or http://")
    if email and re.fullmatch(r"[^@\s]+@[^@\s]+", email) is None:
        findings.fault(entries["email"].place, f"{email!r} is no e-mail address")
    identifiers = findings.flag(entries.get("identifiers"), "identifiers")
    if identifiers:
        findings.note(entries["identifiers"].place, "this hook may send identifiers of patients")
    if email:
        findings.note(entries["email"].place, "a listener refuses email here: [[hooks]] of station.toml send e-mails")
    return Hook(place=node.place, on=events, url=url, email=email, identifiers=identifiers)


def read_close(node: Node, roles: Sequence[str], findings: Findings) -> CloseRule | None:
    """Read ``close``: when a case has all images of this flow.

    Parameters
    ----------
    node : Node
        ``association``, ``quiet``, or a mapping.
    roles : sequence of str
        Roles of the flow, which ``expect`` may name.
    findings : Findings
        Gets faults.

    Returns
    -------
    CloseRule or None
        None if there is a fault.
    """
    if node.is_text:
        known = findings.is_known(node.place, node.text, "close", ("association", "quiet"))
        return CloseRule(when="association" if node.text == "association" else "quiet") if known else None
    before = len(findings.faults)
    entries = findings.entries(node, _CLOSE, "close")
    expect = findings.texts(entries.get("expect"), "expect")
    for name in expect:
        if name not in roles and _MODALITY.fullmatch(name) is None:
            findings.is_known(entries["expect"].place, name, "expect", roles)
    after = findings.text(entries.get("after"), "after", "quiet")
    findings.is_known(
        entries["after"].place if "after" in entries else node.place, after, "after", ("association", "quiet")
    )
    if expect and after == "association":
        findings.fault(entries["after"].place, "expect closes after a quiet time, not after the association")
    then = findings.text(entries.get("then"), "then", "run")
    findings.is_known(node.place, then, "then", get_args(AfterAtMost))
    at_most = findings.duration(entries.get("at_most"), "at_most", 0.0)
    if "then" in entries and not at_most:
        findings.fault(entries["then"].place, "then needs at_most")
    if len(findings.faults) > before:
        return None
    return CloseRule(
        when="expect" if expect else "association" if after == "association" else "quiet",
        seconds=findings.duration(entries.get("seconds"), "seconds", 10.0 if expect else 60.0),
        roles=expect,
        at_most=at_most,
        then="discard" if then == "discard" else "wait" if then == "wait" else "run",
    )

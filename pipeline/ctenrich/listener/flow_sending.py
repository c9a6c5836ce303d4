"""Maps destinations and hooks of a flow onto the queue of deliveries, and refuses flows that a listener cannot run."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

from ctenrich.delivery import destination as delivery
from ctenrich.errors import UsageError
from ctenrich.flows.builtin import products_by_source
from ctenrich.flows.errors import refused
from ctenrich.flows.records import Destination, DestinationKind, Flow, Hook, When
from ctenrich.flows.step_graph import check_containers
from ctenrich.listener.config import StationConfig

__all__ = ["check_for_listener", "flow_destinations", "flow_hooks", "name_for_flow"]

_LONGEST = 48


def check_for_listener(flow: Flow, config: StationConfig) -> None:
    """Refuse a flow of which a listener could not run a step, reach a destination or send a message.

    Parameters
    ----------
    flow : Flow
        The flow.
    config : StationConfig
        The station.

    Raises
    ------
    UsageError
        BAD_FLOW, with line and column.
    """
    products_by_source(flow)
    check_containers(flow)
    if flow.when is not When.ANY and not config.run.off_peak:
        hint = 'state them in station.toml: [run] off_peak = "22:00-06:00"'
        raise refused(flow, flow.when_place, "when: the station has no off-peak hours", hint)
    flow_destinations(flow, config)
    flow_hooks(flow)


def flow_destinations(flow: Flow, config: StationConfig) -> tuple[delivery.Destination, ...]:
    """Return the destinations of a flow as the queue of deliveries has them.

    Parameters
    ----------
    flow : Flow
        The flow.
    config : StationConfig
        The station: its AE title calls nodes, and its TLS files are used where a destination has ``tls: true``.

    Returns
    -------
    tuple of ctenrich.delivery.destination.Destination
        Their names begin with that of the flow.

    Raises
    ------
    UsageError
        BAD_FLOW.
    """
    return tuple(_destination(flow, one, config) for one in flow.destinations)


def _destination(flow: Flow, one: Destination, config: StationConfig) -> delivery.Destination:
    where = f"destination {one.name}"
    made = delivery.Destination(
        name=name_for_flow(flow.name, one.name),
        address=_address(flow, one, where),
        hold=one.hold,
        calling=one.calling_ae_title or config.aet,
    )
    if one.tls:
        if one.kind is not DestinationKind.DICOM:
            raise refused(flow, one.place, f"{where}: tls is for DICOM nodes", "write https:// in the address")
        if not config.tls.complete:
            message = f"{where}: tls needs the files of [tls] in station.toml"
            raise refused(flow, one.place, message, "name certificate, key and ca there")
        tls = config.tls
        made = replace(made, tls_ca=tls.ca, tls_certificate=tls.certificate, tls_key=tls.key)
    try:
        made.check()
    except UsageError as error:
        raise refused(flow, one.place, f"{where}: {error.message}", error.hint) from error
    return made


def _address(flow: Flow, one: Destination, where: str) -> str:
    if one.kind is DestinationKind.DICOM:
        host = f"[{one.host}]" if ":" in one.host else one.host
        if any(character in one.ae_title for character in "#?/%"):
            raise refused(flow, one.place, f"{where}: the AE title has a character that an address cannot have")
        return f"dicom://{host}:{one.port}/{one.ae_title.strip()}"
    if one.kind is not DestinationKind.FOLDER or one.url.startswith("file://"):
        return one.url
    if not Path(one.url).is_absolute():
        raise refused(flow, one.place, f"{where}: {one.url} is no absolute path", "write folder: /absolute/path")
    return Path(one.url).as_uri()


def flow_hooks(flow: Flow) -> tuple[delivery.Hook, ...]:
    """Return the hooks of a flow as the queue of deliveries has them.

    Raises
    ------
    UsageError
        BAD_FLOW: an e-mail, or identifiers to an address without TLS.
    """
    return tuple(_hook(flow, number, hook) for number, hook in enumerate(flow.hooks, 1))


def _hook(flow: Flow, number: int, hook: Hook) -> delivery.Hook:
    name = name_for_flow(flow.name, f"hook {number}")
    if hook.email:
        message = f"{name}: a flow does not name the mail relay"
        raise refused(flow, hook.place, message, "use webhook here, or [[hooks]] of station.toml for e-mails")
    events = tuple(cast("delivery.HookEvent", event) for event in hook.on)
    made = delivery.Hook(name=name, address=hook.url, events=events, identifiers=hook.identifiers)
    try:
        made.check()
    except UsageError as error:
        raise refused(flow, hook.place, error.message, error.hint) from error
    return made


def name_for_flow(flow: str, name: str) -> str:
    """Return the name of a destination of a flow: each flow has a queue of its own for it.

    Parameters
    ----------
    flow : str
        Name of the flow.
    name : str
        Name of the destination in the flow or the station.

    Returns
    -------
    str
        Both, with a hash where characters had to be replaced.
    """
    return f"{_short(flow)}: {_short(name)}"


def _short(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9 _.:@\[\]-]+", "_", name)[:_LONGEST].lstrip(" _.:@[]-").rstrip()
    return name if safe == name else f"{safe or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

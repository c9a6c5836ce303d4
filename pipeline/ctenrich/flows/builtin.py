"""The built-in products of a flow: which of them run together, and where their results are put."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ctenrich.errors import UsageError
from ctenrich.flows.records import Flow
from ctenrich.reasons import Reason

__all__ = ["Products", "flow_folder_name", "products_by_source"]

_BODYPART = "bodypart:"


@dataclass(frozen=True, kw_only=True)
class Products:
    """Products that read the same input, as ``ctenrich run`` takes them."""

    segmenters: tuple[str, ...]
    bodypart: str


def products_by_source(flow: Flow) -> dict[str, Products]:
    """Return the products of a flow by what they read, ``src`` or a role.

    Raises
    ------
    UsageError
        BAD_FLOW: a product reads the output of another step or several inputs, or there are two body part models for
        one input.
    """
    names: dict[str, list[str]] = {}
    for step in flow.steps:
        if not step.use:
            continue
        sources = {mount.source for mount in step.inputs}
        if len(sources) != 1 or sources & {mount.source for one in flow.steps for mount in one.outputs}:
            raise UsageError(
                Reason.BAD_FLOW, f"{step.name} cannot be run: a built-in product reads received images of one source"
            )
        names.setdefault(sources.pop(), []).append(step.use)
    found = {}
    for source, uses in names.items():
        bodypart = [use.removeprefix(_BODYPART) for use in uses if use.startswith(_BODYPART)]
        if len(bodypart) > 1:
            raise UsageError(Reason.BAD_FLOW, f"{flow.name}: two body part models read {source}")
        segmenters = tuple(use for use in uses if not use.startswith(_BODYPART))
        found[source] = Products(segmenters=segmenters, bodypart=bodypart[0] if bodypart else "none")
    return found


def flow_folder_name(name: str) -> str:
    """Name of a folder for a flow: its name, with a hash where that has other characters than a folder should."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:48].strip(".")
    return name if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

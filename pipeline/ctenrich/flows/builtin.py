"""The built-in products of a flow: which of them run together, and where their results are put."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ctenrich.flows.errors import refused
from ctenrich.flows.records import Flow, Step

__all__ = ["BODYPART", "Products", "flow_folder_name", "products_by_source"]

BODYPART = "bodypart:"


@dataclass(frozen=True, kw_only=True)
class Products:
    """Products that read the same input, as ``ctenrich run`` takes them."""

    segmenters: tuple[str, ...]
    bodypart: str
    steps: tuple[Step, ...]


def products_by_source(flow: Flow) -> dict[str, Products]:
    """Return the products of a flow by what they read: ``src``, a role, or the output of a container.

    Raises
    ------
    UsageError
        BAD_FLOW: a product reads the output of another product or several inputs, or there are two body part models
        for one input.
    """
    made = {mount.source for step in flow.steps if step.use for mount in step.outputs}
    found_steps: dict[str, list[Step]] = {}
    for step in flow.steps:
        if not step.use:
            continue
        sources = {mount.source for mount in step.inputs}
        if len(sources) != 1 or sources & made:
            message = f"{step.name} cannot be run"
            hint = "a built-in product reads the images of one source: src, a role, or the output of a container"
            raise refused(flow, step.place, message, hint)
        found_steps.setdefault(sources.pop(), []).append(step)
    found = {}
    for source, of_source in found_steps.items():
        uses = [step.use for step in of_source]
        bodypart = [use.removeprefix(BODYPART) for use in uses if use.startswith(BODYPART)]
        if len(bodypart) > 1:
            raise refused(flow, of_source[-1].place, f"two body part models read {source}")
        segmenters = tuple(use for use in uses if not use.startswith(BODYPART))
        found[source] = Products(
            segmenters=segmenters, bodypart=bodypart[0] if bodypart else "none", steps=tuple(of_source)
        )
    return found


def flow_folder_name(name: str) -> str:
    """Name of a folder for a flow: its name, with a hash where that has other characters than a folder should."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:48].strip(".")
    return name if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

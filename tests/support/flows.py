"""Flows and case files of the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from ctenrich.flows.attributes import parse_attribute
from ctenrich.flows.reader import Machine, parse_flow
from ctenrich.flows.records import Flow
from ctenrich.flows.triggers import TextFile

MODELS = "models:\n  - use: expert\n"


def flow_of(text: str, machine: Machine | None = None, name: str = "lungs.yaml") -> Flow:
    """A flow of the given lines; a model is added where they have none."""
    text = dedent(text)
    return parse_flow(
        (text if "models:" in text or "steps:" in text else f"{text}\n{MODELS}").encode(), Path(name), machine
    )


def case_files(*headers: Mapping[str, str]) -> list[TextFile]:
    """Files with these texts; each is a series of its own unless its header has SeriesInstanceUID."""
    return [
        TextFile(
            series=header.get("SeriesInstanceUID", f"1.{number}"),
            texts={parse_attribute(name): text for name, text in header.items()},
        )
        for number, header in enumerate(headers)
    ]

"""The page on input names tests that exist, and reasons that exist."""

from __future__ import annotations

import re
from pathlib import Path

from ctenrich.reasons import Reason

ROOT = Path(__file__).resolve().parents[1]


def rows() -> list[list[str]]:
    page = (ROOT / "docs" / "input.md").read_text("utf-8")
    table = page.split("## Bad input", 1)[1].split("\n## ", 1)[0]
    cells = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [[c.strip() for c in row] for row in cells[1:]]


def test_every_fault_names_a_test_that_exists() -> None:
    found = rows()
    assert len(found) > 25
    for fault, _, tests in found:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert named, fault
        for path, name in named:
            assert f"\ndef {name}(" in (ROOT / path).read_text("utf-8"), (fault, name)


def test_every_reason_exists() -> None:
    known = {r.value for r in Reason}
    for fault, reasons, _ in rows():
        assert set(re.findall(r"`([A-Z_]+)`", reasons)) <= known, fault

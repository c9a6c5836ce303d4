"""The questions on the table ``organs`` that docs/tables.md shows, read from the page."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "tables.md"
_LINE = re.compile(r"^\| ([^|`]+) \| `(SELECT [^`]+)` \|$", re.MULTILINE)
QUESTIONS: dict[str, str] = {title.strip(): sql for title, sql in _LINE.findall(_PAGE.read_text("utf-8"))}
"""Question -> SQL."""

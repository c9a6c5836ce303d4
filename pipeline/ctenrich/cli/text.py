"""Text for the terminal, and paths as typed there."""

from __future__ import annotations

from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["check_paths", "printable"]


def printable(text: str) -> str:
    """Return a text without control characters, which a terminal would obey; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def check_paths(*paths: Path | None) -> None:
    """Refuse a path that does not exist before any work; None is left out.

    Raises
    ------
    UsageError
        NOT_FOUND.
    """
    for path in paths:
        if path is not None and not path.exists():
            raise UsageError(Reason.NOT_FOUND, f"there is no {printable(str(path))}", "check the path")

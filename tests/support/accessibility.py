"""Checks of a page in a browser against WCAG 2.2: what can be found by looking at the document and computed styles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["accessibility_faults"]

_SCRIPT = Path(__file__).with_suffix(".js")
_FOCUS = """
() => {
  const e = document.activeElement, style = getComputedStyle(e);
  return [e.tagName, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}
"""


def accessibility_faults(page: Any, presses: int = 12) -> list[str]:
    """Faults of the open page.

    Names of controls and pictures, headings, lists, table headers, contrast, size of targets, and a focus that
    cannot be seen on the first elements that Tab reaches.
    """
    found: list[str] = page.evaluate(_SCRIPT.read_text("utf-8"))
    page.evaluate("document.activeElement && document.activeElement.blur()")
    for _ in range(presses):
        page.keyboard.press("Tab")
        tag, visible = page.evaluate(_FOCUS)
        if tag != "BODY" and not visible:
            found.append(f"2.4.7 focus cannot be seen: {tag}")
    return found

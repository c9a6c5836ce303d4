"""Checks of a page in a browser against WCAG 2.2: what can be found by looking at the document and computed styles.

Where CTENRICH_AXE names a file axe.min.js (``npm pack axe-core``), its rules are checked too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["accessibility_faults"]

_SCRIPT = Path(__file__).with_suffix(".js")
_AXE = "axe.run().then((found) => found.violations)"
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
    if axe := os.environ.get("CTENRICH_AXE"):
        page.evaluate(Path(axe).read_text("utf-8"))
        found += [f"axe {one['id']}: {one['nodes'][0]['html'][:200]}" for one in page.evaluate(_AXE)]
    page.evaluate("document.activeElement && document.activeElement.blur()")
    for _ in range(presses):
        page.keyboard.press("Tab")
        tag, visible = page.evaluate(_FOCUS)
        if tag != "BODY" and not visible:
            found.append(f"2.4.7 focus cannot be seen: {tag}")
    return found

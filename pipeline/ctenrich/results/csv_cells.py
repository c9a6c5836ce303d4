"""Values as cells of a CSV file that a spreadsheet opens without taking text for a formula."""

from __future__ import annotations

import math

__all__ = ["csv_cell"]

_FORMULA_STARTS = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")  # the latter: full-width = + - @
"""Characters with which spreadsheets begin a formula (OWASP, CSV injection)."""


def csv_cell(value: object) -> object:
    """Return a value as a CSV cell: text that a spreadsheet would take for a formula gets an apostrophe before it.

    Numbers stay numbers, also those written as text (``-12.5``); None is an empty cell.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or not value.startswith(_FORMULA_STARTS) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        return text.strip() == text and math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False

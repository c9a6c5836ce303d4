"""Licences of data and models: one spelling, their addresses, and what derived data must keep of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["check_licence_of_release", "licence_key", "licence_url"]

_CREATIVE_COMMONS = re.compile(r"CC-(?P<kind>BY(?:-NC)?(?:-SA|-ND)?)-(?P<version>\d\.\d)")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_CONDITIONS = {"BY": "attribution", "NC": "not for commercial use", "SA": "share alike", "ND": "no derivatives"}


def licence_key(name: str) -> str:
    """Return the SPDX spelling of a licence's short name: ``CC BY-NC 3.0`` becomes ``CC-BY-NC-3.0``."""
    words = " ".join(name.split())
    if words.upper() in {"CC0", "CC0 1.0", "CC0-1.0"}:
        return "CC0-1.0"
    spelled = words.upper().replace(" ", "-")
    return spelled if _CREATIVE_COMMONS.fullmatch(spelled) else words


def licence_url(name: str) -> str:
    """Return the address of a licence's text; empty for a text that is not an identifier."""
    key = licence_key(name)
    if key == "CC0-1.0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    match = _CREATIVE_COMMONS.fullmatch(key)
    if match:
        return f"https://creativecommons.org/licenses/{match['kind'].lower()}/{match['version']}/"
    return f"https://spdx.org/licenses/{key}" if _KEY.fullmatch(key) else ""


def check_licence_of_release(licence: str, collections: Iterable[str]) -> None:
    """Refuse a licence that drops a condition of the Creative Commons licence of a source collection.

    Parameters
    ----------
    licence : str
        Of the data set; empty if its authors stated none, then nothing is checked.
    collections : iterable of str
        Licences of the source collections.

    Raises
    ------
    UsageError
        BAD_PARAMETER, with the condition and the licence that has it.
    """
    if not licence:
        return
    mine = _conditions(licence)
    for name in sorted({licence_key(name) for name in collections}):
        missing = sorted(_conditions(name) - mine)
        if missing:
            what = " and ".join(_CONDITIONS[condition] for condition in missing)
            message = f"{licence} drops a condition of {name}, under which the images are published: {what}"
            raise UsageError(Reason.BAD_PARAMETER, message, "choose a licence with the conditions of the sources")


def _conditions(licence: str) -> set[str]:
    match = _CREATIVE_COMMONS.fullmatch(licence_key(licence))
    return set(match["kind"].split("-")) if match else set()

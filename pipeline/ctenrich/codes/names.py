"""Find the landmark or region of mappings/ that a coded site, as objects state it, means."""

from __future__ import annotations

from functools import cache

from ctenrich.codes.mappings import load_landmarks, load_regions

__all__ = ["landmark_or_region"]

Pair = tuple[str, str]
"""Code value and coding scheme designator."""


def landmark_or_region(site: Pair, modifier: Pair | None) -> tuple[str, str]:
    """Return the keys of mappings/landmarks.csv and mappings/regions.csv that a site with its modifier means.

    Parameters
    ----------
    site : (str, str)
        Code value and scheme of the site.
    modifier : (str, str) or None
        Those of its topographical modifier; None without one.

    Returns
    -------
    (str, str)
        Landmark and region; at least one is empty, and both are if no row has the codes.
    """
    landmark = _landmarks().get((site, modifier), "")
    return landmark, "" if landmark or modifier else _regions().get(site, "")


@cache
def _landmarks() -> dict[tuple[Pair, Pair | None], str]:
    return {
        ((row.site.value, row.site.scheme), (row.modifier.value, row.modifier.scheme) if row.modifier else None): name
        for name, row in load_landmarks().items()
    }


@cache
def _regions() -> dict[Pair, str]:
    return {(row.site.value, row.site.scheme): name for name, row in load_regions().items()}

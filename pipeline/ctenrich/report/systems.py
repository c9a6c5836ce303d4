"""Group structures by body system, for pages that show more of them than fit into one list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ctenrich.codes.mappings import codes_of, find_segment

__all__ = ["MANY", "body_system", "by_system"]

MANY = 12
"""Up to this number structures are shown in one list, and as columns of a table."""

OTHER = "Other structures"

_ORDER = (
    "Findings and devices",
    "Respiratory system",
    "Heart and vessels",
    "Digestive organs and spleen",
    "Urinary and reproductive organs",
    "Endocrine glands",
    "Nervous system and senses",
    "Skeleton",
    "Teeth",
    "Muscles",
    "Body regions and tissues",
)


def body_system(name: str) -> str:
    """Body system of a structure, by any of its names in segments.csv; ``Other structures`` if none knows it."""
    code = codes_of(name) or find_segment(name)
    return (code.system if code else "") or OTHER


def by_system(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Group names by body system.

    Returns
    -------
    list of (str, list of str)
        Body system and its structures, each in the order given; findings first, then from the chest outwards.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[body_system(name)].append(name)
    rank = {system: number for number, system in enumerate(_ORDER)}
    return sorted(groups.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0]))

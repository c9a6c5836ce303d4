"""Find series by anatomy: those that show ``T4..L1`` (both ends), show ``lung_start``, or lack a landmark.

A request becomes one SELECT on the run's table ``landmarks`` with bound values, for
:func:`ctenrich.results.query.run_query`; `holds` answers the same request for a record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ctenrich.codes.mappings import load_landmarks
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.records import Landmarks

__all__ = ["AnatomyRange", "anatomy_query", "holds", "parse_anatomy"]

_ALIASES = {
    "lung": "lung_start..lung_end",
    "lungs": "lung_start..lung_end",
    "thorax": "Th12..Th1",
    "thoracic_spine": "Th12..Th1",
    "lumbar_spine": "L5..L1",
    "cervical_spine": "C7..C1",
}


@dataclass(frozen=True)
class AnatomyRange:
    """A range of the body between two landmarks, or one landmark (both names are equal)."""

    low: str
    """Landmark nearer to the feet."""
    high: str
    """Landmark nearer to the head."""

    @property
    def landmarks(self) -> tuple[str, ...]:
        """The landmarks that must be shown."""
        return (self.low,) if self.low == self.high else (self.low, self.high)


def parse_anatomy(text: str) -> AnatomyRange:
    """Parse ``T4..L1``, ``Th4``, ``lung_start`` or ``lungs``; neither case nor order matters.

    Raises
    ------
    UsageError
        BAD_PARAMETER, with the nearest names that exist.
    """
    spelled = _ALIASES.get(_normal(text), text)
    parts = spelled.split("..")
    if len(parts) > 2 or not all(part.strip() for part in parts):
        hint = "write one landmark, or two with two dots: T4..L1"
        raise UsageError(Reason.BAD_PARAMETER, f"{text!r} is not a range of the body", hint)
    marks = load_landmarks()
    low, high = sorted((_landmark_name(p) for p in (parts[0], parts[-1])), key=lambda name: marks[name].score_mean)
    return AnatomyRange(low, high)


def _normal(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip().casefold())


def _landmark_name(text: str) -> str:
    names = {_normal(name): name for name in load_landmarks()}
    names |= {_normal(name.replace("Th", "T")): name for name in load_landmarks() if name.startswith("Th")}
    wanted = _normal(text)
    if wanted not in names:
        hint = did_you_mean(wanted, [*names.values(), *_ALIASES], "for example T4, L1, lung_start, lungs")
        raise UsageError(Reason.BAD_PARAMETER, f"there is no landmark {text.strip()!r}", hint)
    return names[wanted]


def anatomy_query(anatomy: Sequence[str] = (), without: Sequence[str] = ()) -> tuple[str, dict[str, object]]:
    """Return a SELECT, and its values, for the series that show all of `anatomy` and no landmark of `without`.

    Parameters
    ----------
    anatomy : sequence of str
        Ranges or landmarks, see `parse_anatomy`.
    without : sequence of str
        Landmarks that must be absent; both ends of a range.

    Returns
    -------
    (str, dict)
        BigQuery's dialect, for both engines. Columns SeriesInstanceUID, product, first_slice, last_slice (indices of
        the outermost landmarks of the request) and length_mm; ordered. Series without a body part product are never
        listed.

    Raises
    ------
    UsageError
        BAD_PARAMETER for unknown landmarks, or if there is no request.
    """
    shown = list(dict.fromkeys(name for text in anatomy for name in parse_anatomy(text).landmarks))
    absent = list(dict.fromkeys(name for text in without for name in parse_anatomy(text).landmarks))
    if not shown and not absent:
        raise UsageError(Reason.BAD_PARAMETER, "no landmark was named", "add --anatomy T4..L1 or --without lung_start")
    return _QUERY, {"shown": shown, "absent": absent, "wanted": len(shown)}


_QUERY = """
WITH marked AS (
  SELECT
    SeriesInstanceUID,
    product,
    position,
    slice_index,
    landmark IN UNNEST(@shown) AND slice_index IS NOT NULL AS here,
    landmark IN UNNEST(@absent) AND slice_index IS NOT NULL AS unwanted
  FROM landmarks
)
SELECT
  SeriesInstanceUID,
  product,
  MIN(IF(here, slice_index, NULL)) AS first_slice,
  MAX(IF(here, slice_index, NULL)) AS last_slice,
  MAX(IF(here, position, NULL)) - MIN(IF(here, position, NULL)) AS length_mm
FROM marked
GROUP BY SeriesInstanceUID, product
HAVING COUNTIF(here) = @wanted AND COUNTIF(unwanted) = 0
ORDER BY SeriesInstanceUID, product
"""


def holds(landmarks: Landmarks, anatomy: Sequence[str] = (), without: Sequence[str] = ()) -> bool:
    """Whether the landmarks of one series meet the same request.

    Parameters
    ----------
    landmarks : Landmarks
        Of one series.
    anatomy, without : sequence of str
        As for `anatomy_query`.

    Returns
    -------
    bool

    Raises
    ------
    UsageError
        BAD_PARAMETER for unknown landmarks.
    """
    found = {item.name for item in landmarks.items if item.slice_index is not None}
    shown = all(found.issuperset(parse_anatomy(text).landmarks) for text in anatomy)
    return shown and not any(found.intersection(parse_anatomy(text).landmarks) for text in without)

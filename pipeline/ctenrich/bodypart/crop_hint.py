"""Range of slices between two landmarks with a margin, for a segmenter; used only on the user's request.

The range can only be larger than the wanted anatomy, and nothing is shifted: masks stay on the grid of the whole
volume. Where the scores cannot be trusted there is no range, and the whole volume is segmented.
"""

from __future__ import annotations

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.records import Box, SliceScores

__all__ = ["MARGIN", "crop_hint"]

MARGIN = 60.0
"""mm on each side: above the 95th percentile (34 mm) of published distances from lung landmarks to experts' lungs."""


def crop_hint(
    scores: SliceScores,
    shape: tuple[int, int, int],
    *,
    low: str = "lung_start",
    high: str = "lung_end",
    margin: float = MARGIN,
) -> Box | None:
    """Box of the slices from `low` to `high`, with full rows and columns.

    Parameters
    ----------
    scores : SliceScores
    shape : (slices, rows, columns)
    low, high : str
        Landmarks, from feet to head. A landmark beyond the scored range leaves its side open.
    margin : float
        mm.

    Returns
    -------
    Box or None
        None if the direction or the spacing is in doubt, or a landmark has no position within the range.
    """
    if scores.reverse_z_ordering is not False or not scores.valid_z_spacing:
        return None
    items = {item.name: item for item in find_landmarks(scores).items}
    ends: list[float] = []
    for name, open_key, side in ((low, "below_range", -1.0), (high, "above_range", 1.0)):
        item = items.get(name)
        towards = side if scores.feet_to_head else -side
        if item is not None and item.position is not None:
            ends.append(item.position + towards * margin)
        elif item is not None and (item.absent_reason or "").startswith(open_key):
            ends.append(towards * float("inf"))
        else:
            return None
    first, last = min(ends), max(ends)
    inside = [k for k, z in enumerate(scores.z) if first <= z <= last]
    return Box(inside[0], inside[-1] + 1, 0, shape[1], 0, shape[2]) if inside else None

"""Checks of masks against the CT: attenuation inside the organ, edges in place, lungs and landmarks by threshold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.mappings import plain_name
from ctenrich.lungs import LungWitness
from ctenrich.masks import dice
from ctenrich.quality.case import OrganMask, QualityCase
from ctenrich.quality.finding import Finding, above, below, outside
from ctenrich.quality.limits import Limits
from ctenrich.records import Severity

__all__ = ["check_alignment", "check_attenuation", "check_landmarks", "check_lungs"]

_LUNGS = ("lung_left", "lung_right", "lungs")
_CLOSING = 11.0
"""mm: vessels and nodules up to twice this size belong to the lungs."""
_AWAY = 3
"""Slices by which masks are moved to see whether they fit better."""


def check_attenuation(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Median attenuation of an organ, and its share of other tissue.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in case.organs.values() if case.ct is not None else ():
        rules = limits.organ(plain_name(organ.name))
        if rules.hu is None:
            continue
        assert case.ct is not None
        values = case.ct[organ.box][organ.mask]
        median = float(np.median(values))
        found = outside(organ.name, "median_attenuation", median, rules.hu, "HU", severity=Severity.ERROR)
        if found:
            yield found
        if rules.foreign_hu is None:
            continue
        low, high = rules.foreign_hu
        share = float(np.count_nonzero((values < low) | (values > high))) / values.size
        if share > rules.foreign_share:
            text = (
                f"{organ.name}: {share:.0%} of its voxels are outside {low:g} to {high:g} HU, "
                f"usual are up to {rules.foreign_share:.0%}"
            )
            yield above(organ.name, "other_tissue", share, rules.foreign_share, text)


def check_lungs(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Lungs of the product against lungs by threshold.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    mine = [o for o in case.organs.values() if plain_name(o.name) in _LUNGS]
    lungs = case.lungs
    if not mine or lungs is None:
        return
    if lungs.volume < limits.number("lung_witness", "least_ml"):
        text = f"lungs: the product has them, but the CT shows {lungs.volume:.0f} mL of lung by threshold"
        yield below(mine[0].name, "lungs_by_threshold", lungs.volume, limits.number("lung_witness", "least_ml"), text)
        return
    together = np.zeros(lungs.mask.shape, bool)
    for organ in mine:
        _add(together, organ, lungs.stride)
    names = {plain_name(o.name) for o in mine}
    outside_share = float(np.count_nonzero(together & ~_closed(lungs))) / max(int(np.count_nonzero(together)), 1)
    limit = limits.number("lung_witness", "outside_share")
    if outside_share > limit:
        text = f"lungs: {outside_share:.0%} of them are not lung by threshold, usual are up to {limit:.0%}"
        yield above(mine[0].name, "not_lung_by_threshold", outside_share, limit, text)
    if names >= {"lung_left", "lung_right"} or "lungs" in names:
        missed = float(np.count_nonzero(lungs.mask & ~together)) / max(int(np.count_nonzero(lungs.mask)), 1)
        both, limit = min(missed, outside_share), limits.number("lung_witness", "displaced_share")
        if both > limit:
            text = (
                f"lungs: {outside_share:.0%} of them are not lung by threshold, and {missed:.0%} of the lung by "
                f"threshold are not in them, as if they were those of another position or patient"
            )
            yield above(mine[0].name, "displaced", both, limit, text, severity=Severity.WARNING)
        agreement = dice(together, lungs.mask) or 0.0
        limit = limits.number("lung_witness", "dice")
        if agreement < limit:
            text = f"lungs: Dice {agreement:.2f} with the lungs by threshold, usual are {limit:.2f} or more"
            yield below(mine[0].name, "dice_with_threshold", agreement, limit, text)


def _add(together: NDArray[np.bool_], organ: OrganMask, stride: tuple[int, int]) -> None:
    """Add an organ to a mask on the coarser grid of the witness."""
    (z, y, x), (rows, columns) = organ.start, stride
    skip_y, skip_x = -y % rows, -x % columns
    part = organ.mask[:, skip_y::rows, skip_x::columns]
    first_y, first_x = (y + skip_y) // rows, (x + skip_x) // columns
    together[z : z + part.shape[0], first_y : first_y + part.shape[1], first_x : first_x + part.shape[2]] |= part


def _closed(lungs: LungWitness) -> NDArray[np.bool_]:
    """Lungs with their vessels and nodules."""
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(3, 1)
    cross[0, 1, 1] = cross[2, 1, 1] = False
    steps = max(1, round(_CLOSING / lungs.spacing[1]))
    return np.asarray(ndimage.binary_closing(lungs.mask, cross, iterations=steps) | lungs.mask)


def check_alignment(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Contrast of the CT at the edges of the lungs along z, in place and after a move by some slices.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    mine = [o for o in case.organs.values() if plain_name(o.name) in _LUNGS]
    if not mine or case.ct is None:
        return
    gains = _contrast(case, mine)
    in_place = max(float(gains[_AWAY]), 1.0)
    best = int(np.argmax(gains)) - _AWAY
    sharpness = in_place / max(float(gains[_AWAY - 2] + gains[_AWAY + 2]) / 2, 1.0)
    least = limits.number("alignment", "sharpness")
    if sharpness < least:
        text = (
            f"lungs: the contrast of the CT at their upper and lower edges is {sharpness:.1f} times that two slices "
            f"away, usual are {least:g} or more"
        )
        yield below(mine[0].name, "edges", sharpness, least, text, severity=Severity.WARNING)
    if best == 0:
        return
    ratio = float(gains[best + _AWAY] / in_place)
    limit = limits.number("alignment", "gain")
    if ratio > limit:
        count = f"{abs(best)} slice{'s' if abs(best) > 1 else ''} {'higher' if best > 0 else 'lower'}"
        text = f"lungs: their edges fit the CT better {count}: contrast {ratio:.2f} times as large"
        yield above(mine[0].name, "moved_along_z", ratio, limit, text)


def _contrast(case: QualityCase, organs: list[OrganMask]) -> NDArray[np.float64]:
    """Mean step of attenuation across the faces of the masks along z, for each move from -3 to 3 slices."""
    assert case.ct is not None
    moves = range(-_AWAY, _AWAY + 1)
    sums, counts = np.zeros(len(moves)), np.zeros(len(moves))
    for organ in organs:
        padded = np.pad(organ.mask, ((1, 1), (0, 0), (0, 0)))
        step = padded[1:].astype(np.int8) - padded[:-1]  # between slice n-1 and n of the box
        faces = np.argwhere(step)
        faces = faces[:: max(1, len(faces) // 60_000)]
        sign = step[tuple(faces.T)]
        z, y, x = (faces + organ.start).T
        for n, move in enumerate(moves):
            upper = z + move
            inside = (upper >= 1) & (upper < case.shape[0])
            values = case.ct[upper[inside], y[inside], x[inside]].astype(np.int32)
            below_values = case.ct[upper[inside] - 1, y[inside], x[inside]]
            difference = np.clip(values, -1000, 100) - np.clip(below_values, -1000, 100)
            sums[n] += float((-sign[inside] * difference).sum())  # lung is darker than what is around it
            counts[n] += int(np.count_nonzero(inside))
    return sums / np.maximum(counts, 1)


def check_landmarks(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Ends of the lungs by landmarks of body part regression against those by threshold.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    lungs = case.lungs
    if lungs is None or lungs.volume < limits.number("lung_witness", "least_ml"):
        return
    limit = limits.number("lung_witness", "end_mm")
    for name, place, cut in (("lung_start", lungs.bottom, lungs.cut_bottom), ("lung_end", lungs.top, lungs.cut_top)):
        mark = case.lung_landmarks.get(name)
        if mark is None or place is None or cut:
            continue
        if abs(mark - place) > limit:
            side = "above" if mark > place else "below"
            text = f"{name}: the landmark is {abs(mark - place):.0f} mm {side} the end of the lungs by threshold"
            found = above("", name, abs(mark - place), limit, text, severity=Severity.WARNING)
            yield found

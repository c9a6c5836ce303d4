"""Checks of an organ's own shape: components, holes, gaps, flat ends, volume, size, the scan's edge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ctenrich.codes.mappings import plain_name
from ctenrich.quality.case import OrganMask, QualityCase
from ctenrich.quality.finding import Finding, above, note, outside
from ctenrich.quality.limits import Limits
from ctenrich.records import Severity

__all__ = [
    "check_cross_section",
    "check_edge",
    "check_empty",
    "check_ends",
    "check_extent",
    "check_holes",
    "check_islands",
    "check_volume",
]

_MANY_PIECES = (
    "gtv",
    "rib_",
    "costal_cartilages",
    "lung_vessels",
    "lung_arteries",
    "blood_vessels",
    "small_bowel",
    "colon",
)
"""Structures that may consist of several pieces."""
_AXES = ("z", "y", "x")


def one_piece(name: str) -> bool:
    """Whether an organ is one connected piece."""
    return not plain_name(name).startswith(_MANY_PIECES) and plain_name(name) != "lungs" and not name.startswith("roi:")


def check_islands(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Components apart from the largest: their number, share and distance from it.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    from scipy import ndimage
    from scipy.spatial import cKDTree

    least, reach = (limits.number("components", n) for n in ("island_volume_ml", "island_distance_mm"))
    share_limit, volume_limit = (limits.number("components", n) for n in ("island_share_error", "island_error_ml"))
    for organ in (o for o in case.organs.values() if one_piece(o.name)):
        labels, count = ndimage.label(organ.mask, np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(labels.ravel())[1:] * float(np.prod(organ.spacing)) / 1000
        main = int(sizes.argmax())
        large = [int(number) for number in np.flatnonzero(sizes >= least) if number != main]
        if not large:
            continue
        boxes = ndimage.find_objects(labels)
        rim = _rim(labels[boxes[main]] == main + 1) + _start(boxes[main])
        tree = cKDTree(rim * organ.spacing, compact_nodes=False, balanced_tree=False)
        islands = []
        for number in large:
            points = np.argwhere(labels[boxes[number]] == number + 1) + _start(boxes[number])
            distance = float(tree.query(points[:: max(1, len(points) // 2000)] * organ.spacing)[0].min())
            if distance >= reach:
                islands.append((float(sizes[number]), distance, float(points[:, 0].mean()) + organ.start[0]))
        if not islands:
            continue
        share = sum(i[0] for i in islands) / float(sizes.sum())
        largest = max(islands)
        size = f"{largest[0]:.2g}" if largest[0] < 10 else f"{largest[0]:.0f}"
        text = (
            f"{organ.name}: {len(islands)} island{'' if len(islands) == 1 else 's'} with {share:.1%} of its volume, "
            f"the largest {size} mL, {largest[1]:.0f} mm from the organ"
        )
        yield Finding(
            organ=organ.name,
            check="islands",
            value=share,
            high=share_limit,
            unit="share of the volume",
            severity=Severity.ERROR if share >= share_limit or largest[0] >= volume_limit else Severity.WARNING,
            sentence=text,
            slice_index=case.slice_of(largest[2]),
        )


def _rim(mask: np.ndarray) -> np.ndarray:
    """Indices of the voxels of a mask that have a face in common with one outside."""
    inside = np.zeros_like(mask)
    core = inside[1:-1, 1:-1, 1:-1]
    core[:] = mask[1:-1, 1:-1, 1:-1]
    for axis in range(3):
        for part in (slice(None, -2), slice(2, None)):
            core &= mask[tuple(part if a == axis else slice(1, -1) for a in range(3))]
    return np.argwhere(mask & ~inside)


def _start(box: tuple[slice, ...]) -> list[int]:
    return [side.start for side in box]


def check_holes(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Cavities that the organ encloses, and slices without a voxel in its middle.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in (o for o in case.organs.values() if one_piece(o.name)):
        share = (enclosed := _enclosed(organ.mask)) / (organ.voxels + enclosed)
        limit = limits.number("holes", "share")
        if share > limit:
            text = f"{organ.name}: {share:.1%} of the filled organ are enclosed cavities, more than {limit:.0%}"
            yield above(organ.name, "holes", share, limit, text, severity=Severity.WARNING)
        empty = np.flatnonzero(~organ.mask.any(axis=(1, 2)))
        if empty.size >= limits.number("holes", "gap_slices"):
            text = f"{organ.name}: {empty.size} slices between its first and last slice have no voxel"
            found = above(organ.name, "missing_slices", float(empty.size), 0.0, text, severity=Severity.WARNING)
            yield replace(found, slice_index=case.slice_of(int(empty[0]) + organ.start[0]))


def _enclosed(mask: np.ndarray) -> int:
    """Number of voxels that are not in the mask and from which no path along faces leads out of the array."""
    from scipy import ndimage

    outside = np.pad(~mask, 1, constant_values=True)
    labels, _ = ndimage.label(outside)
    return int(np.count_nonzero(outside)) - int(np.count_nonzero(labels == labels[0, 0, 0]))


def check_ends(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Flat faces inside the volume: an organ that was cut off.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in case.organs.values():
        rules = limits.organ(plain_name(organ.name))
        if rules.volume_ml is None or not one_piece(organ.name):
            continue
        for axis, name in enumerate(_AXES):
            if rules.tube and axis == 0:
                continue
            areas = organ.mask.sum(axis=tuple(a for a in range(3) if a != axis)).astype(float)
            kind = "along_z" if axis == 0 else "tube_in_plane" if rules.tube else "in_plane"
            limit = limits.number("ends", kind)
            first, last = organ.start[axis], organ.start[axis] + areas.size
            for end, inside in ((0, first > 0), (-1, last < case.shape[axis])):
                share = float(areas[end] / areas.max())
                if inside and share > limit and areas.size > 2:
                    text = (
                        f"{organ.name}: it ends in a flat face along {name} with {share:.0%} of its largest "
                        f"cross-section, as if it were cut off"
                    )
                    place = first if end == 0 else last - 1
                    middle = organ.centre[0] / organ.spacing[0]
                    found = above(organ.name, "flat_end", share, limit, text)
                    yield replace(found, slice_index=case.slice_of(place if axis == 0 else middle))


def check_cross_section(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Width by depth of the cross-sections of a tube: half of one is half as wide, or half as deep.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in case.organs.values():
        usual = limits.organ(plain_name(organ.name)).width_by_depth
        if usual is None:
            continue
        depths = _spread(organ.mask.sum(axis=2), organ.spacing[1])
        widths = _spread(organ.mask.sum(axis=1), organ.spacing[2])
        ratio = float(np.nanmedian(widths / depths))
        found = outside(organ.name, "width_by_depth", ratio, usual, "", severity=Severity.ERROR)
        if found:
            yield found


def _spread(counts: np.ndarray, spacing: float) -> np.ndarray:
    """Standard deviation of voxels along a line, mm, with the extent of the voxels themselves; one value per row."""
    counts, place = counts.astype(float), np.arange(counts.shape[1])
    with np.errstate(invalid="ignore"):
        mean = counts @ place / counts.sum(axis=1)
        variance = counts @ place**2 / counts.sum(axis=1) - mean**2
    return np.asarray(np.sqrt(np.maximum(variance, 0) + 1 / 12) * spacing)


def check_volume(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Volume against the range of adults, by sex where it is known; an organ at the edge may be smaller.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in case.organs.values():
        usual = limits.organ(plain_name(organ.name)).volume_of(case.sex)
        if usual is None:
            continue
        low = 0.0 if _cut(organ) else usual[0]
        severity = Severity.ERROR if not low * 0.6 <= organ.volume <= usual[1] * 1.6 else Severity.WARNING
        found = outside(organ.name, "volume", organ.volume, (low, usual[1]), "mL", severity=severity)
        if found:
            yield found


def check_extent(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Longest side of the bounding box against the range of adults.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in case.organs.values():
        usual = limits.organ(plain_name(organ.name)).extent_mm
        if usual is None:
            continue
        low = 0.0 if _cut(organ) else usual[0]
        found = outside(organ.name, "longest_side", float(organ.extent.max()), (low, usual[1]), "mm")
        if found:
            yield found


def _cut(organ: OrganMask) -> bool:
    return organ.at_bottom or organ.at_top or organ.at_edge


def check_edge(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Organs that the scan does not contain completely: worth knowing before volumes are used.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in case.organs.values():
        rules = limits.organ(plain_name(organ.name))
        if rules.volume_ml is None or rules.tube:
            continue
        ends = [name for name, cut in (("lowest", organ.at_bottom), ("highest", organ.at_top)) if cut]
        if ends:
            yield note(
                organ.name, "at_edge", f"{organ.name}: it reaches the {' and the '.join(ends)} slice of the scan"
            )


def check_empty(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Organs that were looked for and not found although the scan shows whole lungs.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    lungs = case.lungs
    chest = lungs is not None and lungs.volume >= limits.number("lung_witness", "least_ml")
    for name in sorted(case.empty):
        if not limits.organ(plain_name(name)).volume_ml:
            continue
        if chest and plain_name(name) in _CHEST:
            text = f"{name}: no voxel, although the scan shows the lungs"
            yield Finding(organ=name, check="empty", value=0.0, severity=Severity.ERROR, sentence=text)
        else:
            yield note(name, "empty", f"{name}: it was looked for and has no voxel", 0.0)


_CHEST = frozenset({"heart", "lung_left", "lung_right", "lungs", "esophagus", "trachea", "aorta", "spinal_cord"})

"""Where the viewer opens: the slice with most organs, and a point inside them; how products are named to a reader."""

from __future__ import annotations

from dataclasses import dataclass

from ctenrich.inference.kinds import find_segmenter_kind
from ctenrich.records import Box, Product, Segment, SegmentMasks, SortedSeries

__all__ = ["OpeningPoint", "opening_point", "product_name", "slice_of_segment"]


@dataclass(frozen=True, kw_only=True)
class OpeningPoint:
    """A slice to show first, and a point of that slice."""

    slice_index: int
    position: tuple[float, float, float]
    """mm, LPS."""


def opening_point(
    masks: SegmentMasks | None, series: SortedSeries, slice_index: int | None = None
) -> OpeningPoint | None:
    """Choose the slice that most segments reach; of several, the one nearest to the middle of all segments.

    Only the bounding boxes are used, so that nothing is read from disk.

    Parameters
    ----------
    masks : SegmentMasks or None
        A product of the series.
    series : SortedSeries
        The slices.
    slice_index : int, optional
        The slice, if it is not to be chosen.

    Returns
    -------
    OpeningPoint or None
        None without masks, or if all segments are absent.
    """
    boxes = [(segment, segment.box) for segment in masks.segments if segment.box is not None] if masks else []
    if not boxes:
        return None
    counts = [sum(box.k0 <= k < box.k1 for _, box in boxes) for k in range(len(series.slices))]
    total = sum(segment.voxels for segment, _ in boxes)
    middle = sum(segment.voxels * (box.k0 + box.k1 - 1) / 2 for segment, box in boxes) / total
    chosen = min(range(len(counts)), key=lambda k: (-counts[k], abs(k - middle), k))
    best = chosen if slice_index is None else slice_index
    reached = [(segment, box) for segment, box in boxes if box.k0 <= best < box.k1] or boxes
    return OpeningPoint(slice_index=best, position=_middle_of(reached, best, series))


def _middle_of(reached: list[tuple[Segment, Box]], index: int, series: SortedSeries) -> tuple[float, float, float]:
    """Position (mm, LPS) in a slice of the middle of some boxes, each weighted by the voxels of its segment."""
    total = sum(segment.voxels for segment, _ in reached)
    row = sum(segment.voxels * (box.j0 + box.j1 - 1) / 2 for segment, box in reached) / total
    column = sum(segment.voxels * (box.i0 + box.i1 - 1) / 2 for segment, box in reached) / total
    down, across = row * series.pixel_spacing[0], column * series.pixel_spacing[1]
    corner, along, below = series.slices[index].position, series.row_cosines, series.column_cosines
    x, y, z = (c + across * a + down * b for c, a, b in zip(corner, along, below, strict=True))
    return x, y, z


def slice_of_segment(masks: SegmentMasks | None, number: int) -> int | None:
    """Slice index in the middle of a segment's bounding box; None if the segment is absent or unknown.

    Parameters
    ----------
    masks : SegmentMasks or None
        Masks of a product; None if it has none.
    number : int
        Segment Number.
    """
    boxes = [segment.box for segment in masks.segments if segment.number == number] if masks else []
    return (boxes[0].k0 + boxes[0].k1 - 1) // 2 if boxes and boxes[0] is not None else None


def product_name(product: Product) -> str:
    """Name a product to a reader: its model first, then the kind of segmenter and how the model was used.

    ``demo-organs 3d_fullres, nnU-Net segmentation, fold 0, mirroring``; ``Expert contours (RTSTRUCT)``.
    """
    kind = find_segmenter_kind(str(product.kind))
    title = kind.title if kind else str(product.kind)
    model = " ".join(word for word in (product.model, product.configuration) if word)
    parts = [model, title] if model else [title[:1].upper() + title[1:]]
    if product.folds:
        parts.append(f"fold{'' if len(product.folds) == 1 else 's'} {', '.join(product.folds)}")
        parts += ["mirroring"] if product.mirror else []
        parts += ["largest components"] if product.largest_component else []
    return ", ".join(parts)

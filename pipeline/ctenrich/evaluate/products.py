"""Compare the masks of products of a run with each other and with SEGs of any maker, organ by organ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.codes.mappings import plain_name
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.evaluate.other_segs import OtherSeg, read_other_segs
from ctenrich.evaluate.overlap import Mask, compare_masks
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, Severity, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegSettings
from ctenrich.workspace import Workspace

__all__ = ["Comparison", "ProductOverlap", "compare_objects", "compare_products"]


@dataclass(frozen=True, kw_only=True)
class ProductOverlap:
    """Agreement of the masks of one organ: the columns of the published table, with both definitions of HD95."""

    series_instance_uid: str
    study_instance_uid: str
    structure_name: str
    """Key of mappings/segments.csv; ``#2`` and so on for further ROIs of the reference with the same key."""
    reference: str
    """Key of the reference product, e.g. ``expert``, or the file of a SEG."""
    model: str
    """Key of the other product, or the file of a SEG."""
    dice_score: float | None
    """0 to 1; None only if both masks are empty."""
    hausdorff_distance: float | None
    """mm; None if one of the masks is empty, like the two below."""
    hausdorff_distance_95: float | None
    """mm, over surface voxels (the usual definition)."""
    hausdorff_distance_95_voxels: float | None
    """mm, over all voxels (as in the published table)."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Agreement of products, and the outcome of every SEG that was named."""

    overlaps: tuple[ProductOverlap, ...]
    objects: tuple[OtherSeg, ...]


@dataclass(frozen=True, kw_only=True)
class _Masks:
    """Masks of one product on the grid of a series."""

    name: str
    segments: tuple[tuple[int, str], ...]
    """Number and name of each segment."""
    mask: Callable[[int], Mask]
    """Segment number -> mask on the grid of the series, [k, j, i]."""
    unsound: frozenset[str] = frozenset()
    """Names of the segments that are not compared: an error was found in what they were made from."""


def compare_products(
    workspace: Workspace, *, reference: str = "expert", model: str | None = None
) -> tuple[ProductOverlap, ...]:
    """Compute Dice and Hausdorff distances of every organ that two products of a series have in common.

    Parameters
    ----------
    workspace : Workspace
        The run.
    reference : str
        Key of the reference product.
    model : str, optional
        Key of the product to compare; default: every other one.

    Returns
    -------
    tuple of ProductOverlap

    Raises
    ------
    UsageError
        NOT_FOUND if no series of the run has masks of the reference, or of the model.
    """
    return compare_objects((), workspace=workspace, reference=reference, model=model).overlaps


def compare_objects(
    paths: Sequence[Path],
    *,
    workspace: Workspace | None = None,
    source: Path | None = None,
    reference: str = "expert",
    model: str | None = None,
    limits: SegSettings | None = None,
) -> Comparison:
    """Compare SEGs of any maker with each other and with the products of a run.

    Every SEG is a product, named by its path. Its segments are matched to those of others by their codes and labels
    (:func:`ctenrich.evaluate.other_segs.structure_name`). One that does not lie on the grid of its CT is not compared.

    Parameters
    ----------
    paths : sequence of Path
        SEG files, or folders that are searched.
    workspace : Workspace, optional
        A run: SEGs are compared on the series of the run that they refer to.
    source : Path, optional
        Without a run: folder of the CT, MR or PET that the SEGs refer to.
    reference : str
        Key of the reference product of the run, or path of a SEG.
    model : str, optional
        What is compared with it; default: everything else.
    limits : SegSettings, optional
        Limits of the grid and the masks of a SEG.

    Returns
    -------
    Comparison

    Raises
    ------
    UsageError
        NOT_FOUND for a path that does not exist, and if nothing has masks of the reference or of the model;
        BAD_PARAMETER if there is neither a run nor a source, or both.
    """
    store = SeriesStore(workspace) if workspace is not None else None
    others = read_other_segs(paths, store=store, source=source, limits=limits)
    series = {one.series.series_instance_uid: one.series for one in others if one.series is not None}
    names: set[str] = {one.name for one in others if one.decoded is not None}
    out: list[ProductOverlap] = []
    for uid in dict.fromkeys((*(store.series() if store else ()), *series)):
        found = {m.name: m for m in (*_of_run(store, uid), *_of_others(others, uid))}
        names.update(found)
        first = found.pop(reference, None)
        chosen = [m for name, m in sorted(found.items()) if model in (None, name)]
        if first is not None and chosen:
            out += _compare_segments(series.get(uid) or _series_of(store, uid), first, chosen)
    for name in (reference, model):
        if name is not None and name not in names:
            raise _unknown(name, names, run=store is not None)
    return Comparison(overlaps=tuple(out), objects=others)


def _series_of(store: SeriesStore | None, uid: str) -> SortedSeries:
    assert store is not None
    return store.sorted_series(uid)


def _unknown(name: str, names: set[str], *, run: bool) -> UsageError:
    where = "no series of the run has" if run else "no SEG of the folder has"
    have = f"there are {', '.join(sorted(names))}" if names else "there are no masks"
    return UsageError(Reason.NOT_FOUND, f"{where} masks of {name[:80]!r}", did_you_mean(name, names, have))


def _of_run(store: SeriesStore | None, uid: str) -> Iterator[_Masks]:
    """Products of the run with masks of a series."""
    if store is None:
        return
    for product in store.products(uid):
        masks = store.find(SegmentMasks, uid, product)
        if masks is not None:
            yield _Masks(
                name=str(masks.product),
                segments=tuple((s.number, s.name) for s in masks.segments),
                mask=lambda number, masks=masks: full_mask(masks, number, store.workspace),  # type: ignore[misc]
                unsound=frozenset(i.object for i in masks.issues if i.severity is Severity.ERROR),
            )


def _of_others(others: Iterable[OtherSeg], uid: str) -> Iterator[_Masks]:
    """SEGs of any maker that lie on the grid of a series."""
    for one in others:
        if one.decoded is not None and one.series is not None and one.series.series_instance_uid == uid:
            yield _Masks(name=one.name, segments=one.segments, mask=one.decoded.mask)


def _compare_segments(series: SortedSeries, first: _Masks, others: Sequence[_Masks]) -> Iterator[ProductOverlap]:
    spacing = (series.slice_spacing, *series.pixel_spacing)
    for other in others:
        numbers: Mapping[str, int] = {name: number for number, name in other.segments}
        for own, name in first.segments:
            number = numbers.get(name, numbers.get(plain_name(name)))
            if number is None or name in first.unsound | other.unsound:
                continue
            found = compare_masks(other.mask(number), first.mask(own), spacing)
            yield ProductOverlap(
                series_instance_uid=series.series_instance_uid,
                study_instance_uid=series.study_instance_uid,
                structure_name=name,
                reference=first.name,
                model=other.name,
                dice_score=found.dice,
                hausdorff_distance=found.hausdorff,
                hausdorff_distance_95=found.hausdorff_95_surface,
                hausdorff_distance_95_voxels=found.hausdorff_95_voxels,
            )

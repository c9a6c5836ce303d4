"""Probabilities that a run's networks kept, and their uncertainty, as Parametric Maps and FRACTIONAL segmentations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.encode.context import series_description
from ctenrich.encode.seg import segment_code
from ctenrich.errors import CtenrichError, InputError, UsageError, did_you_mean
from ctenrich.maps.fractional import Fractions, FractionsDescription
from ctenrich.maps.parametric_map import MapDescription
from ctenrich.maps.quantity import find_quantity
from ctenrich.maps.source import MapSource, source_of_run
from ctenrich.maps.values import StoredValues
from ctenrich.maps.write import MapValues, WrittenMap, fractional_of, parametric_of
from ctenrich.progress import SILENT, Progress
from ctenrich.proof.maps import ExpectedEntropy, ExpectedValues
from ctenrich.reasons import Reason
from ctenrich.records import Segment, SegmentMasks, SortedSeries, Volume
from ctenrich.review.store import ReviewStore
from ctenrich.series_store import SeriesStore
from ctenrich.settings import EncodeSettings
from ctenrich.workspace import Workspace

__all__ = ["ProbabilityForm", "ProbabilityObjects", "ProbabilityOptions", "entropy_of", "export_probabilities"]

_TASK = "export"
_MAP = np.dtype(np.float32)
Floats = NDArray[np.float64]


class ProbabilityForm(StrEnum):
    """How probabilities are written."""

    MAPS = "probabilities"
    """A Parametric Map of each structure, and one of the uncertainty."""
    FRACTIONAL = "fractional"
    """A FRACTIONAL segmentation of all structures."""


@dataclass(frozen=True, kw_only=True)
class ProbabilityOptions:
    """Which probabilities are written."""

    product: str = ""
    """Key of the product; empty: every product that kept probabilities."""
    structures: tuple[str, ...] = ()
    """Segments; empty: all. The uncertainty is always that of all classes."""
    accepted_only: bool = False
    """Whether only products are written that reviewers have accepted."""


@dataclass(frozen=True, kw_only=True)
class ProbabilityObjects:
    """Outcome of one product of one series."""

    series_instance_uid: str
    product: str
    objects: tuple[WrittenMap, ...] = ()
    reason: Reason | None = None
    message: str = ""


def export_probabilities(
    workspace: Workspace,
    form: ProbabilityForm,
    out: Path,
    options: ProbabilityOptions | None = None,
    *,
    settings: EncodeSettings | None = None,
    progress: Progress = SILENT,
) -> tuple[ProbabilityObjects, ...]:
    """Write the probabilities of a run, and prove them.

    They are those that the networks kept (``segment.probabilities``): 16-bit floating point on the grid of the CT, 0
    outside of the box that the network saw. A Parametric Map has exactly these values, a FRACTIONAL segmentation has
    them in 255 steps. Files are read slice by slice; only the uncertainty is a whole volume in memory.

    Parameters
    ----------
    workspace : Workspace
        The run.
    form : ProbabilityForm
        ``probabilities``: ``OUT/<series>/<product>/probability_<segment>.dcm`` and ``entropy.dcm``; ``fractional``:
        ``fractions.dcm``. ``NAME.proof.json`` beside each is its proof.
    out : Path
        Folder to write to.
    options : ProbabilityOptions, optional
        Product and structures.
    settings : EncodeSettings, optional
        Dates.
    progress : Progress
        Advanced by one for every product.

    Returns
    -------
    tuple of ProbabilityObjects
        One outcome per series and product.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a product or structure without probabilities; NOT_ACCEPTED if no product is accepted.
    InputError
        NOT_PREPARED if no product of the run kept probabilities.
    """
    chosen = options or ProbabilityOptions()
    store = SeriesStore(workspace)
    kept = _chosen(workspace, list(_kept(store)), chosen)
    progress.start(_TASK, len(kept))
    outcomes = []
    for masks in kept:
        uid, key = masks.series_instance_uid, str(masks.product)
        try:
            objects = _written(workspace, store, masks, form, (out / uid / masks.product.folder, chosen, settings))
            outcomes.append(ProbabilityObjects(series_instance_uid=uid, product=key, objects=objects))
        except CtenrichError as error:
            text = f"{error.message}; {error.hint}" if error.hint else error.message
            outcomes.append(ProbabilityObjects(series_instance_uid=uid, product=key, reason=error.reason, message=text))
        progress.advance(_TASK)
    progress.finish(_TASK)
    return tuple(outcomes)


def _kept(store: SeriesStore) -> Iterator[SegmentMasks]:
    """Products with probabilities, by series."""
    for uid in store.series():
        for product in store.products(uid):
            masks = store.find_valid(SegmentMasks, uid, product)
            if masks is not None and masks.probabilities_path is not None:
                yield masks


def _chosen(workspace: Workspace, kept: Sequence[SegmentMasks], options: ProbabilityOptions) -> list[SegmentMasks]:
    if not kept:
        message = "no product of the run has probabilities"
        raise InputError(Reason.NOT_PREPARED, message, "set segment.probabilities = true, and segment in a new run")
    products = sorted({str(masks.product) for masks in kept})
    if options.product and options.product not in products:
        hint = did_you_mean(options.product, products, f"products with probabilities: {', '.join(products)}")
        raise UsageError(Reason.BAD_PARAMETER, f"no probabilities of {options.product!r}", hint)
    found = [masks for masks in kept if options.product in ("", str(masks.product))]
    names = sorted({segment.name for masks in found for segment in masks.segments})
    for name in options.structures:
        if name not in names:
            raise UsageError(Reason.BAD_PARAMETER, f"no product has a segment {name!r}", did_you_mean(name, names))
    if options.accepted_only:
        accepted = ReviewStore(workspace).accepted()
        found = [masks for masks in found if (masks.series_instance_uid, str(masks.product)) in accepted]
        if not found:
            raise UsageError(Reason.NOT_ACCEPTED, "no reviewer has accepted a product with probabilities")
    return found


# ---------------------------------------------------------------- one product


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Probabilities of a product, opened anew for each pass: a mapped file is not held in memory."""

    path: Path
    shape: tuple[int, ...]
    affine_lps: Floats
    overlap: bool

    def array(self) -> NDArray[np.float16]:
        """[class, k, j, i]."""
        try:
            found: NDArray[np.float16] = np.load(self.path, mmap_mode="r")
        except (OSError, ValueError) as error:
            hint = "segment the series again"
            raise InputError(Reason.NOT_PREPARED, "the file of the probabilities cannot be read", hint) from error
        if found.shape != self.shape or found.dtype != np.float16:
            message = f"the probabilities have the shape {found.shape}, and their product {self.shape}"
            raise InputError(Reason.NOT_PREPARED, message, "segment the series again")
        return found

    def values(self, index: int) -> StoredValues:
        """Values of one class."""
        return StoredValues(array=self.array()[index], kind=_MAP)

    def expected(self, index: int) -> ExpectedValues:
        """The same for the proof, placed by the affine of the volume."""
        return ExpectedValues(array=self.array()[index], affine_lps=self.affine_lps)

    def entropy(self) -> StoredValues:
        """Uncertainty of every voxel."""
        return StoredValues(array=entropy_of(self.array(), overlap=self.overlap), kind=_MAP)

    def expected_entropy(self) -> ExpectedValues:
        """The same by another formula, for the proof."""
        classes = self.array()
        return ExpectedEntropy(array=classes[0], affine_lps=self.affine_lps, classes=classes, overlap=self.overlap)


def _written(
    workspace: Workspace,
    store: SeriesStore,
    masks: SegmentMasks,
    form: ProbabilityForm,
    target: tuple[Path, ProbabilityOptions, EncodeSettings | None],
) -> tuple[WrittenMap, ...]:
    folder, options, settings = target
    uid = masks.series_instance_uid
    source = source_of_run(store.load(SortedSeries, uid), workspace)
    volume = store.load(Volume, uid)
    kept = _Kept(
        path=workspace.resolve(uid, str(masks.probabilities_path)),
        shape=(len(masks.segments), *masks.shape),
        affine_lps=np.asarray(volume.affine_lps),
        overlap=masks.classes_overlap,
    )
    wanted = [(n, s) for n, s in enumerate(masks.segments) if s.name in (options.structures or (s.name,))]
    if not wanted:
        raise InputError(Reason.MISSING_MASKS, f"not segmented: {', '.join(options.structures)}")
    if form is ProbabilityForm.FRACTIONAL:
        return (_fractions(kept, masks, wanted, source, (folder / "fractions.dcm", settings)),)
    return tuple(_maps(kept, masks, wanted, source, (folder, settings)))


def _fractions(
    kept: _Kept,
    masks: SegmentMasks,
    wanted: Sequence[tuple[int, Segment]],
    source: MapSource,
    target: tuple[Path, EncodeSettings | None],
) -> WrittenMap:
    parts = [
        Fractions(number=n, code=segment_code(s), label=s.source_label or s.name, open=partial(kept.values, index))
        for n, (index, s) in enumerate(wanted, 1)
    ]
    expected = [partial(kept.expected, index) for index, _ in wanted]
    described = FractionsDescription(
        kind="PROBABILITY",
        algorithm_type=masks.algorithm_type,
        algorithm_name=masks.model.name if masks.model else "",
        series_description=_named("Probabilities {title}", masks),
        model=masks.model,
    )
    return fractional_of(parts, expected, source, described, target[0], target[1])


def _maps(
    kept: _Kept,
    masks: SegmentMasks,
    wanted: Sequence[tuple[int, Segment]],
    source: MapSource,
    target: tuple[Path, EncodeSettings | None],
) -> Iterator[WrittenMap]:
    folder, settings = target
    for index, segment in wanted:
        described = MapDescription(
            quantity=find_quantity("probability", "1"),
            series_description=_named(f"Probability of {segment.name} {{title}}", masks),
            model=masks.model,
            region=segment_code(segment),
        )
        given = MapValues(
            name=f"the probability of {segment.name}",
            open=partial(kept.values, index),
            expected=partial(kept.expected, index),
        )
        yield parametric_of(given, source, described, folder / f"probability_{segment.name}.dcm", settings)
    described = MapDescription(
        quantity=find_quantity("entropy", "1"),
        series_description=_named("Normalized entropy {title}", masks),
        model=masks.model,
    )
    given = MapValues(name="the entropy", open=kept.entropy, expected=kept.expected_entropy)
    yield parametric_of(given, source, described, folder / "entropy.dcm", settings)


def _named(pattern: str, masks: SegmentMasks) -> str:
    return series_description(pattern, masks.product, masks.model)


# ---------------------------------------------------------------- uncertainty


def entropy_of(classes: NDArray[Any], *, overlap: bool) -> NDArray[np.float32]:
    """Shannon entropy of each voxel's probabilities, as a share of the largest one that the classes can have.

    Parameters
    ----------
    classes : array, [class, k, j, i]
        Probabilities of the classes other than the background, 0 to 1.
    overlap : bool
        False: the classes exclude one another and the background has the rest, so that the entropy of N classes is
        that of N + 1 outcomes, divided by ln(N + 1). True: each class is there or not, whatever the others are; the
        entropies of the N pairs are added and divided by N ln 2.

    Returns
    -------
    array, [k, j, i], float32
        0 (one outcome is certain) to 1 (all are equally likely).
    """
    number = len(classes)
    out = np.empty(classes.shape[1:], np.float32)
    for k, plane in enumerate(out):
        total: Floats = np.zeros(plane.shape)
        rest: Floats = np.ones(plane.shape)
        for one in classes:
            share = one[k].astype(np.float64)
            total += _surprise(share) + (_surprise(1 - share) if overlap else 0)
            rest -= share
        if not overlap:
            total += _surprise(np.maximum(rest, 0))
        plane[:] = np.clip(total / (number * np.log(2) if overlap else np.log(number + 1)), 0, 1)
    return out


def _surprise(share: Floats) -> Floats:
    """Return -p ln p, 0 for p = 0."""
    return -share * np.log(np.where(share > 0, share, 1))

"""Others' masks as a segmenter: what a request names becomes the masks of a product, if it fits the CT."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError, count
from ctenrich.harmonise.dicom_masks import MaskPart, masks_of_segs, masks_of_structure_set
from ctenrich.harmonise.grid import OnGrid, on_grid
from ctenrich.harmonise.images import open_image, whole_numbers
from ctenrich.harmonise.position import find_misplaced
from ctenrich.harmonise.request import HarmoniseRequest, MaskForm, RequestedSegment
from ctenrich.harmonise.stated import check_stated, read_stated
from ctenrich.masks import LabelStatistics, crop_of, label_statistics, masks_from_label_map, masks_from_segments
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    Issue,
    ModelInfo,
    Product,
    Quantity,
    SegmentMasks,
    Severity,
    SortedSeries,
    StatedMeasurements,
    Volume,
)
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

__all__ = ["HarmonisedSegmenter"]

KIND = "harmonised"


class HarmonisedSegmenter:
    """Makes the masks of one request; implements the segmenter protocol.

    Parameters
    ----------
    request : HarmoniseRequest
        What is to be read.
    sha256 : str
        Hash of the request and its files: :func:`ctenrich.harmonise.request.identity_of`.
    """

    def __init__(self, request: HarmoniseRequest, sha256: str) -> None:
        self._request = request
        self._product = Product(KIND, request.name)
        self._info = ModelInfo(
            name=request.algorithm_name,
            version=request.algorithm_version,
            sha256=sha256,
            of_files=True,
            learned=request.learned,
        )

    @property
    def product(self) -> Product:
        """``harmonised:NAME``."""
        return self._product

    @property
    def info(self) -> ModelInfo:
        """The program that made the masks; its hash is that of the files."""
        return self._info

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Read the masks, check that they fit the CT, and save them; measurements of the request are saved too.

        Raises
        ------
        InputError
            Why a file is not read (DECODE_ERROR, BAD_MASK, MISSING_GEOMETRY, NOT_ORTHOGONAL), does not fit (OTHER_GRID,
            NO_REFERENCE, WRONG_PLACE) or has unknown labels (UNMAPPED_LABEL); BAD_MEASUREMENTS; EMPTY_SEGMENTATION.
        """
        started = time.perf_counter()
        uid = series.series_instance_uid
        store = SeriesStore(workspace)
        store.path(StatedMeasurements, uid, self._product).unlink(missing_ok=True)  # of an earlier attempt
        volume = inputs["CT"]
        ct = load_array(workspace.resolve(uid, volume.array_path))
        issues: list[Issue] = []
        template = SegmentMasks(
            product=self._product,
            series_instance_uid=uid,
            shape=series.shape,
            segments=(),
            label_map_path=None,
            sha256="",
            model=self._info,
            algorithm_type=self._request.algorithm_type,
        )
        try:
            masks = self._masks(template, ct, series, (settings, workspace), issues)
            if all(segment.absent for segment in masks.segments):
                raise InputError(Reason.EMPTY_SEGMENTATION, "no voxel of the files has a label")
            self._check_place(masks, volume, ct, series, workspace, issues)
            stated = read_stated(self._request, masks)
            if stated is not None:
                issues += check_stated(stated, masks, volume)
                store.save(stated, uid, self._product)
        except InputError as error:
            error.issues = tuple(issues)
            raise
        return replace(masks, issues=tuple(issues), timings={"read": time.perf_counter() - started})

    def _masks(
        self,
        template: SegmentMasks,
        ct: NDArray[np.int16],
        series: SortedSeries,
        context: tuple[Settings, Workspace],
        issues: list[Issue],
    ) -> SegmentMasks:
        settings, workspace = context
        store, uid = SeriesStore(workspace), series.series_instance_uid
        if self._request.form is MaskForm.LABEL_MAP and not any(s.layer for s in self._request.segments):
            labels, statistics = self._label_map(series, issues)
            names = [(s.number, s.name, s.source_label) for s in self._request.segments]
            path = store.label_map(uid, self._product)
            return masks_from_label_map(labels, names, template, path, workspace, statistics)
        if self._request.form is MaskForm.SEG:
            parts = masks_of_segs(self._request, series, settings, issues)
        elif self._request.form is MaskForm.RTSTRUCT:
            parts = masks_of_structure_set(self._request, series, settings, ct, issues)
        elif self._request.form is MaskForm.LABEL_MAP:
            parts = self._layers(series, issues)
        else:
            parts = (self._single_mask(segment, series, issues) for segment in self._request.segments)
        return masks_from_segments(parts, template, store.masks_dir(uid, self._product), workspace)

    # ------------------------------------------------------------ images

    def _label_map(self, series: SortedSeries, issues: list[Issue]) -> tuple[NDArray[Any], LabelStatistics]:
        """Segment numbers on the grid of the CT, [k, j, i], and their statistics."""
        request = self._request
        path = request.files[0]
        image = open_image(path)
        if image.array.ndim != 3:
            raise InputError(Reason.BAD_MASK, f"{path.name} has several layers, and the labels name one")
        labels = whole_numbers(image.array, path.name)
        known = {s.value: s.number for s in request.segments}
        found = on_grid(image, labels, series, path.name, resample=request.resample)
        statistics = label_statistics(found.array)
        every = label_statistics(labels) if found.resampled else statistics  # values outside the CT count too
        counts = {value: int(every.counts[value]) for value in every.boxes}
        unknown = sorted(counts.keys() - known.keys() - set(request.ignored))
        if unknown:
            shown = ", ".join(f"{value} ({count(counts[value], 'voxel')})" for value in unknown[:8])
            raise InputError(
                Reason.UNMAPPED_LABEL,
                f"{path.name} has label values without a name: {shown}{', ...' if unknown[8:] else ''}",
                "name them in --labels, with an empty name for those to be left out",
            )
        array = self._on_grid(found, path, issues)
        if all(value == number for value, number in known.items()) and not request.ignored:
            return array, statistics
        size = max((*known, *request.ignored, *counts)) + 1
        table: NDArray[Any] = np.zeros(size, np.uint8 if max(known.values()) < 256 else np.uint16)
        for value, number in known.items():
            table[value] = number
        return np.asarray(table[array]), statistics.renumbered(table)

    def _single_mask(self, segment: RequestedSegment, series: SortedSeries, issues: list[Issue]) -> MaskPart:
        path = Path(self._request.folder, segment.file)
        image = open_image(path)
        if image.array.ndim != 3:
            raise InputError(Reason.BAD_MASK, f"{path.name} has several layers: it is no mask of one structure")
        array = whole_numbers(image.array, path.name)
        top = int(array.max()) if array.size else 0
        if top > 1 and np.count_nonzero(array) != np.count_nonzero(array == top):
            text = f"{path.name} has several label values: it is no mask of one structure"
            raise InputError(Reason.BAD_MASK, text, "give it alone, with --as or --labels")
        wanted = segment.value or top
        if segment.value and top not in (0, segment.value):
            text = f"{path.name} has the label {top}, and {segment.value} is described"
            raise InputError(Reason.UNMAPPED_LABEL, text)
        # compared in the order of the file: the array on the grid is a view that is slower to read
        inside = array.view(bool) if top <= 1 and array.dtype == np.uint8 else array == max(wanted, 1)
        found = on_grid(image, inside.view(np.uint8), series, path.name, resample=self._request.resample)
        mask = self._on_grid(found, path, issues).view(bool)
        return segment.number, segment.name, segment.source_label, mask

    def _layers(self, series: SortedSeries, issues: list[Issue]) -> Iterator[MaskPart]:
        path = self._request.files[0]
        image = open_image(path)
        layers: dict[int, NDArray[Any]] = {}
        for segment in self._request.segments:
            if segment.layer not in layers:
                array = whole_numbers(image.layer(segment.layer), path.name)
                found = on_grid(image, array, series, path.name, resample=self._request.resample)
                layers[segment.layer] = self._on_grid(found, path, issues)
            mask = np.asarray(layers[segment.layer] == segment.value)
            yield segment.number, segment.name, segment.source_label, mask

    def _on_grid(self, found: OnGrid, path: Path, issues: list[Issue]) -> NDArray[np.unsignedinteger]:
        if found.resampled:
            text = f"resampled by the nearest voxel: {found.resampled}"
            if found.lost:
                text += f"; {count(found.lost, 'voxel')} of the masks are outside the CT"
            issues.append(Issue("harmonise.resampled", Severity.WARNING, path.name, text))
        return found.array

    # ------------------------------------------------------------ checks

    def _check_place(
        self,
        masks: SegmentMasks,
        volume: Volume,
        ct: NDArray[np.int16],
        series: SortedSeries,
        workspace: Workspace,
        issues: list[Issue],
    ) -> None:
        if volume.quantity is not Quantity.HU:
            return
        crops = ((s.name, *found) for s in masks.segments if (found := crop_of(masks, s.number, workspace)) is not None)
        findings = find_misplaced(crops, ct, series)
        if findings and not self._request.accept_position:
            shown = "; ".join(f.sentence for f in findings[:4]) + ("; ..." if findings[4:] else "")
            raise InputError(Reason.WRONG_PLACE, shown, "for a patient who is so, or after a look: --accept-position")
        issues += [Issue(f.rule, Severity.WARNING, f.about, f.sentence) for f in findings]

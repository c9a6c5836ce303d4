"""Collect the record of every ROI of a structure set while its segments are drawn."""

from __future__ import annotations

from dataclasses import replace

from ctenrich.contours.choice import RoiChoice
from ctenrich.contours.ownership import Elsewhere
from ctenrich.contours.raster import Rasterised
from ctenrich.contours.rtstruct import Roi, StructureSet
from ctenrich.records import Product, RoiDrop, RoiRecord, SortedSeries, StructureRois

__all__ = ["RoiRecords"]


class RoiRecords:
    """The records of all ROIs of a structure set, in its order.

    Parameters
    ----------
    structures : StructureSet
    series : SortedSeries
        The series on which it is drawn.
    """

    def __init__(self, structures: StructureSet, series: SortedSeries) -> None:
        own = frozenset(series.sop_instance_uids)
        self._structures = structures
        self._series = series
        self._places = {id(roi): position for position, roi in enumerate(structures.rois)}
        self._items = [
            RoiRecord(
                number=roi.number,
                name=roi.name,
                contours=roi.count,
                images=len(roi.image_uids),
                images_found=len(roi.image_uids & own),
            )
            for roi in structures.rois
        ]

    def choose(self, choice: RoiChoice) -> None:
        """Keep which ROIs were dropped before drawing, and the names of the segments of the others."""
        self.drop_elsewhere(choice.dropped)
        for one in choice.chosen:
            for roi in one.rois:
                self._change(roi, segment=one.name)

    def drop_elsewhere(self, dropped: Elsewhere) -> None:
        """Keep which ROIs are not drawn on the series."""
        for position, (reason, detail) in dropped.items():
            self._items[position] = replace(self._items[position], dropped=reason, detail=detail)

    def draw(self, roi: Roi, drawn: Rasterised) -> None:
        """Keep what drawing an ROI showed.

        Parameters
        ----------
        roi : Roi
            One of the structure set.
        drawn : Rasterised
            As drawn.
        """
        self._change(
            roi, copies=drawn.counts.copies, missing_slices=len(drawn.missing_slices), voxels=dict(drawn.voxels)
        )

    def number(self, rois: tuple[Roi, ...], number: int) -> None:
        """Keep the Segment Number of the ROIs of a segment.

        Parameters
        ----------
        rois : tuple of Roi
            Those that were drawn; the ones that were dropped are left as they are.
        number : int
            Segment Number.
        """
        for roi in rois:
            if self._items[self._places[id(roi)]].dropped is None:
                self._change(roi, segment_number=number)

    def drop(self, roi: Roi, reason: RoiDrop, detail: str) -> None:
        """Keep that an ROI was dropped while it was drawn.

        Parameters
        ----------
        roi : Roi
            One of the structure set.
        reason : RoiDrop
        detail : str
            Sentence with the cause.
        """
        if self._items[self._places[id(roi)]].dropped is None:
            self._change(roi, segment="", dropped=reason, detail=detail)

    def record(self, product: Product, voxel_volume: float) -> StructureRois:
        """Make the record.

        Parameters
        ----------
        product : Product
            Product of the segments.
        voxel_volume : float
            mm3.
        """
        return StructureRois(
            product=product,
            series_instance_uid=self._series.series_instance_uid,
            source_sop_instance_uid=self._structures.sop_instance_uid,
            voxel_volume=voxel_volume,
            items=tuple(self._items),
        )

    def _change(self, roi: Roi, **values: object) -> None:
        position = self._places[id(roi)]
        self._items[position] = replace(self._items[position], **values)  # type: ignore[arg-type]

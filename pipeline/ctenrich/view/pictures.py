"""Pictures of a series on the viewer's own pages: the CT with the masks, or with the landmarks, of one product."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from io import BytesIO

from ctenrich.codes.mappings import codes_of
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, Volume
from ctenrich.report.coronal import coronal_png
from ctenrich.report.pictures import PLANES, choose_view, overlay_png, picture_webp
from ctenrich.view.contents import RunView
from ctenrich.view.opening import opening_point

__all__ = ["SeriesPictures"]

_UNKNOWN = (150, 150, 150)
"""Colour of a segment that the mappings do not know."""
_KEPT = 200
"""Number of pictures kept in memory."""


class SeriesPictures:
    """Draws pictures when they are asked for, and keeps the last ones.

    Parameters
    ----------
    view : RunView
        The run.
    """

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._drawn: OrderedDict[tuple[str, ...], tuple[bytes, str]] = OrderedDict()

    def draw(self, uid: str, product: str, plane: str) -> tuple[bytes, str]:
        """Draw a plane of the CT with the masks of a product, or its coronal plane with landmarks and regions.

        Axial pictures show the slice that the viewer opens with.

        Parameters
        ----------
        uid : str
            Series Instance UID of the CT.
        product : str
            Key of a product; empty: the CT alone.
        plane : str
            One of ``axial``, ``coronal``, ``sagittal``.

        Returns
        -------
        (bytes, str)
            The file and its Content-Type.

        Raises
        ------
        UsageError
            NOT_FOUND for another plane, or if there is no volume to draw.
        """
        volume = self.view.volume(uid)
        if volume is None or plane not in PLANES:
            raise UsageError(Reason.NOT_FOUND, "the run has no such picture")
        masks = self.view.masks(uid, product)
        key = (uid, product, plane, volume.sha256, masks.sha256 if masks else "")
        if key not in self._drawn:
            self._drawn[key] = self._draw(volume, masks, product, plane)
            while len(self._drawn) > _KEPT:
                self._drawn.popitem(last=False)
        return self._drawn[key]

    def _draw(self, volume: Volume, masks: SegmentMasks | None, product: str, plane: str) -> tuple[bytes, str]:
        uid = volume.series_instance_uid
        marks = self.view.landmarks(uid, product)
        try:
            if marks is not None:
                return coronal_png(volume, *marks, workspace=self.view.workspace), "image/png"
            return self._draw_masks(volume, masks, plane), "image/webp"
        except CtenrichError as error:
            raise UsageError(Reason.NOT_FOUND, error.message) from error

    def _draw_masks(self, volume: Volume, masks: SegmentMasks | None, plane: str) -> bytes:
        from PIL import Image  # imaging code is loaded with the first picture

        workspace, layout = self.view.workspace, choose_view(volume, [masks] if masks else [])
        point = opening_point(masks, self.view.record(volume.series_instance_uid))
        if point is not None and layout.axes[2] == 0:
            layout = replace(layout, cut=(*layout.cut[:2], point.slice_index))
        picture = picture_webp(volume, layout, plane, workspace)
        if masks is None:
            return picture
        known = {segment.number: codes_of(segment.name) for segment in masks.segments}
        colours = {number: code.colour if code else _UNKNOWN for number, code in known.items()}
        above = Image.open(BytesIO(overlay_png(masks, colours, layout, plane, workspace))).convert("RGBA")
        image = Image.open(BytesIO(picture)).convert("RGBA")
        image.alpha_composite(above)
        out = BytesIO()
        image.convert("RGB").save(out, "WEBP", quality=85, method=4)
        return out.getvalue()

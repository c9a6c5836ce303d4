"""Expert contours (RTSTRUCT) as masks."""

from __future__ import annotations

from ctenrich.contours.expert import ExpertSegmenter
from ctenrich.contours.polygon import fill_polygon
from ctenrich.contours.raster import Grid, Rasterised, grid_of, rasterise
from ctenrich.contours.rtstruct import Contour, ContourFaults, Roi, StructureSet, link_to, load_contours

__all__ = [
    "Contour",
    "ContourFaults",
    "ExpertSegmenter",
    "Grid",
    "Rasterised",
    "Roi",
    "StructureSet",
    "fill_polygon",
    "grid_of",
    "link_to",
    "load_contours",
    "rasterise",
]

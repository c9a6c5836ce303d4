"""Values per voxel of the generated study as sample objects, written from images like those of other programs."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.raster import grid_of
from ctenrich.maps.fractional import FractionsDescription
from ctenrich.maps.parametric_map import MapDescription
from ctenrich.maps.quantity import find_quantity
from ctenrich.maps.source import MapSource, open_source
from ctenrich.maps.write import FractionFile, MapFile, write_fractional, write_parametric_map
from ctenrich.phantom import PhantomStudy
from ctenrich.phantom.dose import phantom_dose

__all__ = ["DOSE_STEP", "SampleMaps"]

DOSE_STEP = 0.01
"""Gy of one stored unit of the map of integers."""
ORGANS = ("heart", "lung_left", "lung_right")
"""Segments of the FRACTIONAL segmentation."""


class SampleMaps:
    """Maps and fractions on the CT of a study.

    Parameters
    ----------
    study : PhantomStudy
        The study.
    images : Path
        Folder with its CT.
    scratch : Path
        Folder for images and objects.
    """

    def __init__(self, study: PhantomStudy, images: Path, scratch: Path) -> None:
        self._study, self._images, self._scratch = study, images, scratch

    def fractions(self) -> Path:
        """Write, for each organ, the share of the 3 x 3 pixels around each pixel that belong to it."""
        files = []
        for name in ORGANS:
            padded = np.pad(self._study.phantom.masks[name].astype(np.float32), ((0, 0), (1, 1), (1, 1)))
            rows, columns = padded.shape[1] - 2, padded.shape[2] - 2
            around = [padded[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
            shares = (np.sum(around, axis=0) / 9).astype(np.float32)
            path = self._image(f"{name}.nii", shares)
            files.append(FractionFile(path=path, name=name))
        described = FractionsDescription(kind="OCCUPANCY", algorithm_type="MANUAL", algorithm_name="")
        return write_fractional(files, self._source, described, self._scratch / "fractions.dcm").path

    def dose(self, step: float | None = None) -> Path:
        """Write the dose function of the phantom at the voxels of the CT.

        Parameters
        ----------
        step : float, optional
            Gy of one unit of stored integers, which the mapping states; None: floating point.

        Returns
        -------
        Path
        """
        planes, rows, columns = self._source.series.shape
        index = np.moveaxis(np.indices((columns, rows, planes, 1)), 0, -1)[..., 0, :3]
        points = index @ self._affine[:3, :3].T + self._affine[:3, 3]
        dose = phantom_dose(points, self._study.phantom.options.carina).transpose(2, 1, 0).astype(np.float32)
        stored = "floating point" if step is None else "integers"
        path = self._image(f"dose in {stored}.nii", dose, step)
        described = MapDescription(
            quantity=find_quantity("dose", "Gy"), series_description=f"Dose of the phantom, {stored}"
        )
        return write_parametric_map(MapFile(path=path), self._source, described, path.with_suffix(".dcm")).path

    @cached_property
    def _source(self) -> MapSource:
        return open_source(self._images, self._study.series_instance_uid)

    @cached_property
    def _affine(self) -> NDArray[np.float64]:
        """(i, j, k, 1) -> mm, LPS."""
        grid = grid_of(self._source.series)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = grid.row * grid.pixel_spacing[1], grid.column * grid.pixel_spacing[0]
        affine[:3, 2], affine[:3, 3] = grid.normal * grid.slice_spacing, grid.origins[0]
        return affine

    def _image(self, name: str, values: NDArray[np.float32], step: float | None = None) -> Path:
        """Save values [k, j, i] as NIfTI; with a step as 16-bit integers, whose slope it is."""
        nibabel: Any = import_module("nibabel")
        stored = values if step is None else np.rint(values / step).astype(np.int16)
        image = nibabel.Nifti1Image(stored.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ self._affine)
        image.header.set_xyzt_units("mm")
        if step is not None:
            image.header.set_slope_inter(step, 0)
        path = self._scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, path)
        return path

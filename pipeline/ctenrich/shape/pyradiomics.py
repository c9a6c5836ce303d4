"""Measure shape with pyradiomics' shape class, the definition against which the fast engine is tested."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.shape.features import ShapePrimitives
from ctenrich.tools import need_package

__all__ = ["measure_primitives", "need_radiomics", "version"]


def measure_primitives(
    mask: NDArray[np.bool_], spacing: tuple[float, float, float], dimensions: int
) -> ShapePrimitives:
    """Measure a mask with pyradiomics' shape class.

    Parameters
    ----------
    mask : array of bool, [k, j, i]
        Cropped to its bounding box, as pyradiomics' feature extractor does it; at least one voxel.
    spacing : (float, float, float)
        mm between voxels, axes [k, j, i].
    dimensions : int
        Number of dimensions that the voxel centres span (pyradiomics does not compute it).

    Returns
    -------
    ShapePrimitives

    Raises
    ------
    UsageError
        MISSING_EXTRA without pyradiomics.
    """
    itk: Any = importlib.import_module("SimpleITK")
    image = itk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(tuple(float(s) for s in spacing[::-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape = _import_radiomics().shape.RadiomicsShape(itk.Cast(image, itk.sitkFloat32), image, label=1)
    low, middle, high = (float(v) for v in shape.eigenValues)
    in_slice, in_column, in_row, diameter = (float(d) for d in shape.diameters)
    return ShapePrimitives(
        voxels=int(np.count_nonzero(mask)),
        voxel_volume=float(np.prod(spacing)),
        area=float(shape.SurfaceArea),
        volume=float(shape.Volume),
        diameter=diameter,
        plane_diameters=(in_slice, in_column, in_row),
        variances=(low, middle, high),
        dimensions=dimensions,
    )


def version() -> str:
    """Version of the installed pyradiomics."""
    for name in ("pyradiomics-bhklab", "pyradiomics"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return str(_import_radiomics().__version__)


def need_radiomics(purpose: str) -> None:
    """Check that pyradiomics is installed.

    Parameters
    ----------
    purpose : str
        What needs it, e.g. a setting.

    Raises
    ------
    UsageError
        MISSING_EXTRA, with what to install.
    """
    need_package("radiomics", extra="reference", purpose=purpose)


def _import_radiomics() -> Any:
    need_radiomics("pyradiomics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import radiomics
        import radiomics.shape
    radiomics.logger.setLevel("ERROR")
    return radiomics

"""Measure first order and texture features with pyradiomics, as one of its settings files asks for them.

pyradiomics is the definition; nothing is computed here. Features whose definition is IBSI's also get the name of
their row in ``mappings/features.csv`` and go into the shape report; all others are kept under pyradiomics' own full
name, which contains image type and class.
"""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.mappings import load_features
from ctenrich.errors import UsageError
from ctenrich.masks import Mask
from ctenrich.reasons import Reason
from ctenrich.records import Box
from ctenrich.shape import pyradiomics
from ctenrich.workspace import sha256_of_file

__all__ = ["Found", "Radiomics"]

_MARGIN = 5
"""Voxels around a segment that are passed to pyradiomics: more than any neighbourhood of an unfiltered image."""
_TEXTURES = ("glcm", "glrlm", "glszm", "gldm", "ngtdm")
"""Classes of textures; gldm with a cutoff of 0 is IBSI's neighbouring grey level dependence matrix."""
_IBSI_SETTINGS: dict[str, Any] = {
    "distances": [1],
    "symmetricalGLCM": True,
    "weightingNorm": None,
    "force2D": False,
    "gldm_a": 0,
}
"""Setting of pyradiomics -> its default, with which textures are those of IBSI in 3D, averaged over directions."""
_EXCESS = 3.0
"""Kurtosis of a normal distribution: IBSI's IPH6 is the excess above it, pyradiomics' value is not."""


@dataclass(frozen=True)
class Found:
    """Features of one segment by pyradiomics."""

    values: dict[str, float]
    """pyradiomics' full name, e.g. ``original_glcm_Contrast`` -> value."""
    coded: dict[str, float]
    """Row of mappings/features.csv -> value in its meaning and unit."""
    omitted: dict[str, str]
    """Feature, or class of features -> why it has no value."""


class Radiomics:
    """pyradiomics with one settings file.

    Parameters
    ----------
    path : Path
        pyradiomics' parameter file (YAML or JSON). Its shape features are left to the shape engine.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_SETTINGS if pyradiomics refuses the file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(Reason.NOT_FOUND, f"there is no settings file {path.name}", "see measure.radiomics")
        pyradiomics.need_radiomics("measure.radiomics (first order and texture features)")
        self.sha256 = sha256_of_file(path)
        self.version = pyradiomics.version()
        self._itk: Any = importlib.import_module("SimpleITK")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._extractor = _open_extractor(path)
        self._extractor.enabledFeatures.pop("shape", None)
        self._extractor.enabledFeatures.pop("shape2D", None)
        if not self._extractor.enabledFeatures:
            raise UsageError(Reason.BAD_SETTINGS, f"{path.name} requests no feature but shape", "name featureClass")
        chosen = self._extractor.settings
        wide = chosen.get("resampledPixelSpacing") or chosen.get("normalize")
        self._local = set(self._extractor.enabledImagetypes) == {"Original"} and not wide
        plain = not chosen.get("normalize") and not chosen.get("voxelArrayShift") and not chosen.get("resegmentRange")
        self._codes = plain and not chosen.get("resampledPixelSpacing")
        self._texture_codes = self._codes and all(
            chosen.get(name, default) == default for name, default in _IBSI_SETTINGS.items()
        )
        self.parameters = self._stated_parameters()
        """Discretisation and aggregation of the coded features, as a report states them; empty where none is coded."""

    def _stated_parameters(self) -> tuple[str, ...]:
        if not self._codes:
            return ()
        chosen = self._extractor.settings
        count, width = chosen.get("binCount"), chosen.get("binWidth", 25)
        if count:
            bins = f"discretisation: fixed bin number {count}, from the smallest to the largest HU of the segment"
        else:
            bins = f"discretisation: fixed bin size {width:g} HU, first bin from a multiple of {width:g} HU"
        textures = sorted(set(self._extractor.enabledFeatures) & set(_TEXTURES))
        if not textures or not self._texture_codes:
            return (bins,)
        return (
            bins,
            "textures: 3D, distance 1, no resampling; glcm and glrlm averaged over 13 directions; gldm cutoff 0",
        )

    def measure(self, array: NDArray[Any], mask: Mask, box: Box, spacing: tuple[float, float, float]) -> Found:
        """Measure one segment.

        Parameters
        ----------
        array : array, [k, j, i]
            HU of the whole volume.
        mask : array of bool, [k, j, i]
            The segment, cropped to `box`.
        box : Box
            Position of `mask` in the volume.
        spacing : (float, float, float)
            mm, axes [k, j, i].

        Returns
        -------
        Found
            A segment that pyradiomics refuses has no value, and one omitted entry ``radiomics`` with the reason.
        """
        part, inside = self._cut_region(array, mask, box)
        image, label = (self._itk.GetImageFromArray(a) for a in (part, inside))
        for item in (image, label):
            item.SetSpacing(tuple(float(s) for s in spacing[::-1]))
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = self._extractor.execute(image, label, label=1)
        except (ValueError, RuntimeError) as error:
            return Found({}, {}, {"radiomics": f"pyradiomics: {str(error).splitlines()[0][:120]}"})
        values, omitted = {}, {}
        for name, value in found.items():
            if name.startswith("diagnostics_"):
                continue
            number = float(value)
            if math.isfinite(number):
                values[str(name)] = number
            else:
                omitted[str(name)] = "the value is not a finite number"
        return Found(values, self._ibsi_values(values), omitted)

    def _cut_region(self, array: NDArray[Any], mask: Mask, box: Box) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """A margin around the segment, or the whole volume where filter, resampling or normalisation look further."""
        low, high = (box.k0, box.j0, box.i0), (box.k1, box.j1, box.i1)
        margin = _MARGIN if self._local else max(array.shape)
        start = [max(0, a - margin) for a in low]
        stop = [min(size, b + margin) for b, size in zip(high, array.shape, strict=True)]
        part = np.ascontiguousarray(array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))])
        inside = np.zeros(part.shape, np.uint8)
        inside[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))] = mask
        return part, inside

    def _ibsi_values(self, values: dict[str, float]) -> dict[str, float]:
        """First order features and textures of the unchanged HU, in IBSI's meaning."""
        if not self._codes:
            return {}
        classes = ("firstorder", *(_TEXTURES if self._texture_codes else ()))
        known = [code for code in load_features().values() if code.feature_class in classes]
        found = {code.name: values[code.full_name] for code in known if code.full_name in values}
        if found.get("Kurtosis", 0.0) > 0:  # 0 means one grey level in both definitions
            found["Kurtosis"] -= _EXCESS
        return found


def _open_extractor(path: Path) -> Any:
    import logging

    from radiomics import featureextractor

    logging.getLogger("radiomics").setLevel(logging.ERROR)
    try:
        return featureextractor.RadiomicsFeatureExtractor(str(path))
    except Exception as error:
        message = f"pyradiomics refuses {path.name}: {type(error).__name__}"
        raise UsageError(Reason.BAD_SETTINGS, message, "see pyradiomics' documentation, parameter files") from error

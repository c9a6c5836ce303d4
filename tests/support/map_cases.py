"""Small parametric maps that highdicom writes, and the CT slices that they refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from tests.support.small_series import Small, write_small

SHAPE = (4, 6, 5)
_TYPE_2 = (
    *("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
    *("StudyID", "PositionReferenceIndicator", "Manufacturer"),
)


def small_sources(folder: Path) -> list[Dataset]:
    """A CT of `SHAPE` below the folder."""
    small = Small(count=SHAPE[0], rows=SHAPE[1], columns=SHAPE[2], elements=dict.fromkeys(_TYPE_2, ""))
    return [pydicom.dcmread(path) for path in write_small(folder, small)]


def by_highdicom(sources: list[Dataset], stored: NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> Dataset:
    """A map that highdicom writes."""
    info = np.finfo if stored.dtype.kind == "f" else np.iinfo
    limits = info(stored.dtype)
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="ADC",
        lut_explanation="diffusion",
        unit=codes.UCUM.SquareMillimeterPerSecond,
        value_range=(limits.min.item(), limits.max.item()) if stored.dtype.kind == "f" else (limits.min, limits.max),
        slope=slope,
        intercept=intercept,
        quantity_definition=codes.DCM.ApparentDiffusionCoefficient,
    )
    return hd.pm.ParametricMap(
        source_images=sources,
        pixel_array=stored,
        series_instance_uid="1.2.3.9",
        series_number=1,
        sop_instance_uid="1.2.3.9.1",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0, window_width=1)],
    )

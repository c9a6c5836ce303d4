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


MULTI_FRAME = {
    "enhanced": ("1.2.840.10008.5.1.4.1.1.2.1", "CT"),
    "enhanced_mr": ("1.2.840.10008.5.1.4.1.1.4.1", "MR"),
    "legacy": ("1.2.840.10008.5.1.4.1.1.2.2", "CT"),
    "legacy_pet": ("1.2.840.10008.5.1.4.1.1.128.1", "PT"),
    "echoes": ("1.2.840.10008.5.1.4.1.1.4.1", "MR"),
}
"""Form of a multi-frame source -> SOP class and modality."""
SINGLE_FRAME = {
    "ct": ("1.2.840.10008.5.1.4.1.1.2", "CT"),
    "mr": ("1.2.840.10008.5.1.4.1.1.4", "MR"),
    "pet": ("1.2.840.10008.5.1.4.1.1.128", "PT"),
    "oblique": ("1.2.840.10008.5.1.4.1.1.2", "CT"),
}
OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


def make_source(folder: Path, form: str) -> Path:
    """A source of `SHAPE`: single-frame, or one multi-frame file whose frames are in no order of positions."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, modality = (SINGLE_FRAME | MULTI_FRAME)[form]
    if form in SINGLE_FRAME:
        elements = dict.fromkeys(_TYPE_2, "") | {
            "SOPClassUID": kind,
            "Modality": modality,
            "SeriesInstanceUID": "1.2.3.2",
        }
        turn = OBLIQUE if form == "oblique" else (1, 0, 0, 0, 1, 0)
        small = Small(count=SHAPE[0], rows=SHAPE[1], columns=SHAPE[2], elements=elements, orientation=turn)
        write_small(folder, small, lambda data, k: setattr(data.file_meta, "MediaStorageSOPClassUID", kind))
        return folder
    slices = small_sources(folder)
    for path in folder.glob("*.dcm"):
        path.unlink()
    one = hd.legacy.LegacyConvertedEnhancedCTImage(slices, "1.2.3.2", 1, "1.2.3.7.1", 1)
    groups = list(one.PerFrameFunctionalGroupsSequence)
    order = [2, 0, 3, 1] * (2 if form == "echoes" else 1)
    size = len(one.PixelData) // SHAPE[0]
    pixels = [one.PixelData[k * size : (k + 1) * size] for k in range(SHAPE[0])]
    one.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    one.NumberOfFrames, one.PixelData = len(order), b"".join(pixels[k] for k in order)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = kind
    one.Modality = modality
    one.save_as(folder / "multi.dcm")
    return folder


def grid_of_sources(folder: Path) -> NDArray[np.float64]:
    """Affine of a source by its headers alone, (i, j, k, 1) -> mm, LPS; slices grow along the normal."""
    places, data = [], None
    for path in sorted(folder.glob("*.dcm")):
        data = pydicom.dcmread(path)
        groups = data.get("PerFrameFunctionalGroupsSequence") or []
        places += [g.PlanePositionSequence[0].ImagePositionPatient for g in groups] or [data.ImagePositionPatient]
    assert data is not None
    shared = data.get("SharedFunctionalGroupsSequence")
    measures = shared[0].PixelMeasuresSequence[0] if shared else data
    turn = np.array(
        shared[0].PlaneOrientationSequence[0].ImageOrientationPatient if shared else data.ImageOrientationPatient
    )
    normal = np.cross(turn[:3], turn[3:])
    ordered = sorted({tuple(map(float, p)) for p in places}, key=lambda p: float(normal @ p))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = turn[:3] * measures.PixelSpacing[1], turn[3:] * measures.PixelSpacing[0]
    affine[:3, 2] = (np.array(ordered[-1]) - ordered[0]) / (len(ordered) - 1)
    affine[:3, 3] = ordered[0]
    return affine


def save_nifti(
    path: Path, array: NDArray[Any], affine: NDArray[np.float64], scale: tuple[float, float] | None = None
) -> Path:
    """Write an array [k, j, i] with an affine in LPS; `scale` states slope and intercept of stored integers."""
    import nibabel

    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine)
    image.header.set_xyzt_units("mm")
    if scale is None:
        nibabel.save(image, path)
        return path
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array(scale, "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    return path

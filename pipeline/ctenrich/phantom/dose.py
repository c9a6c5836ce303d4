"""Write an RT Plan and an RT Dose of a phantom, whose dose is a function of the place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ctenrich.dicom.sop_classes import RT_DOSE, RT_PLAN, RT_STRUCTURE_SET
from ctenrich.phantom.identity import Identity, make_identity
from ctenrich.phantom.modules import DATE, TIME, common_modules, file_bytes, number
from ctenrich.phantom.options import PixelEncoding, Quirk
from ctenrich.phantom.study import PhantomStudy

__all__ = ["PhantomDose", "phantom_dose", "write_phantom_dose"]

_PRESCRIBED, _FRACTIONS = 60.0, 30
_MAXIMUM = 64.0
"""Gy at the middle of the target."""
_TARGET = np.array([35.0, 0.0, -45.0])
"""mm from the carina, LPS: in the left lung, beside the heart."""
_WIDTH = 45.0
"""Standard deviation of the dose around the target, mm."""
_MARGIN = 10.0
"""mm by which the dose grid is larger than the slices on every side."""


@dataclass(frozen=True, kw_only=True)
class PhantomDose:
    """Files of the plan and the dose of a phantom."""

    plan: Path
    dose: Path


def phantom_dose(points: npt.NDArray[np.float64], carina: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Dose at points: a Gaussian function of the distance from the target, 64 Gy in its middle.

    Parameters
    ----------
    points : array, (..., 3)
        mm, LPS.
    carina : tuple of float
        Where the trachea divides, mm, LPS.

    Returns
    -------
    array
        Gy.
    """
    distance = np.linalg.norm(points - (np.asarray(carina) + _TARGET), axis=-1)
    dose: npt.NDArray[np.float64] = _MAXIMUM * np.exp(-(distance**2) / (2 * _WIDTH**2))
    return dose


def write_phantom_dose(study: PhantomStudy, *, spacing: float = 5.0) -> PhantomDose:
    """Write the plan (60 Gy in 30 fractions to a target in the left lung) and its dose into the folder of a phantom.

    Parameters
    ----------
    study : PhantomStudy
        With an RT Structure Set, to which the plan refers.
    spacing : float
        mm between the voxels of the dose, along all axes.

    Returns
    -------
    PhantomDose
    """
    identity = make_identity(study.phantom.options)
    plan, dose = _plan(study, identity), _dose(study, identity, spacing)
    options = study.phantom.options
    plain = options.changed(encoding=PixelEncoding.EXPLICIT, quirks=options.quirks - {Quirk.NO_PREAMBLE})
    names = (f"RP{options.series_number:02d}.dcm", f"RD{options.series_number:02d}.dcm")
    for name, dataset in zip(names, (plan, dose), strict=True):
        (study.folder / name).write_bytes(file_bytes(dataset, plain))
    return PhantomDose(plan=study.folder / names[0], dose=study.folder / names[1])


def _item(**values: object) -> Dataset:
    out = Dataset()
    for keyword, value in values.items():
        setattr(out, keyword, value)
    return out


def _reference(sop_class: str, uid: str) -> Dataset:
    return _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)


def _plan(study: PhantomStudy, identity: Identity) -> Dataset:
    d = common_modules(study.phantom.options, identity, RT_PLAN, identity.instance("plan"))
    for name in ("ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime"):
        delattr(d, name)
    d.Modality, d.SeriesInstanceUID = "RTPLAN", identity.instance("plan series")
    d.SeriesNumber, d.SeriesDescription, d.InstanceNumber = "200", "Plan of the phantom", "1"
    d.OperatorsName = ""
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = identity.frame_of_reference, ""
    d.RTPlanLabel, d.RTPlanDate, d.RTPlanTime = "LUNG LEFT", DATE, TIME
    d.RTPlanGeometry, d.PlanIntent, d.ApprovalStatus = "PATIENT", "CURATIVE", "UNAPPROVED"
    d.ReferencedStructureSetSequence = [_reference(RT_STRUCTURE_SET, identity.instance("rtstruct"))]
    d.DoseReferenceSequence = [
        _item(
            DoseReferenceNumber="1",
            DoseReferenceStructureType="SITE",
            DoseReferenceDescription="Target",
            DoseReferenceType="TARGET",
            TargetPrescriptionDose=number(_PRESCRIBED),
        )
    ]
    d.FractionGroupSequence = [
        _item(
            FractionGroupNumber="1",
            NumberOfFractionsPlanned=str(_FRACTIONS),
            NumberOfBeams="0",
            NumberOfBrachyApplicationSetups="0",
        )
    ]
    return d


def _dose(study: PhantomStudy, identity: Identity, spacing: float) -> Dataset:
    options, grid = study.phantom.options, study.phantom.grid
    far = np.array([(options.columns - 1) * grid.along_row + (options.rows - 1) * grid.along_column])
    corners = np.concatenate([grid.positions[[0, -1]], grid.positions[[0, -1]] + far])
    low, high = corners.min(axis=0) - _MARGIN, corners.max(axis=0) + _MARGIN
    x, y, z = (low[n] + spacing * np.arange(int(np.ceil((high[n] - low[n]) / spacing)) + 1) for n in range(3))
    points = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)
    dose = phantom_dose(points, options.carina)
    scaling = number(float(f"{_MAXIMUM / 65000:.6g}"))
    d = common_modules(options, identity, RT_DOSE, identity.instance("dose", number(spacing)))
    for name in ("AcquisitionDate", "AcquisitionTime"):
        delattr(d, name)
    d.Modality, d.SeriesInstanceUID = "RTDOSE", identity.instance("dose series")
    d.SeriesNumber, d.SeriesDescription, d.InstanceNumber = "201", "Dose of the phantom", "1"
    d.OperatorsName = ""
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = identity.frame_of_reference, ""
    d.DoseUnits, d.DoseType, d.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    d.ReferencedRTPlanSequence = [_reference(RT_PLAN, identity.instance("plan"))]
    d.ImagePositionPatient = [number(round(float(axis[0]), 6)) for axis in (x, y, z)]
    d.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    d.PixelSpacing, d.SliceThickness = [number(spacing), number(spacing)], None
    d.GridFrameOffsetVector = [number(round(float(place - z[0]), 6)) for place in z]
    d.FrameIncrementPointer = 0x3004000C
    d.NumberOfFrames, (d.Rows, d.Columns) = str(z.size), (y.size, x.size)
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    d.DoseGridScaling = scaling
    d.add_new(0x7FE00010, "OW", np.rint(dose / float(scaling)).astype("<u2").tobytes())
    return d

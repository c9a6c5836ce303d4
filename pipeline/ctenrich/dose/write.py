"""Write a sum of doses as a new RT Dose (PS3.3 A.18) that refers to its sources and states how it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian

from ctenrich import __version__
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dataset
from ctenrich.dicom.sop_classes import RT_DOSE, RT_PLAN
from ctenrich.dose.combine import CombinedDose
from ctenrich.encode.context import clean_attributes, code_item, contributing_equipment, set_character_set, set_dates
from ctenrich.settings import EncodeSettings
from ctenrich.uids import derive_uid
from ctenrich.workspace import write_bytes

__all__ = ["dose_object", "write_dose"]

_SERIES_DESCRIPTION = "Sum of doses (research only)"


@quiet()
def dose_object(combined: CombinedDose, settings: EncodeSettings | None = None) -> Dataset:
    """Build the RT Dose of a sum.

    Patient and study are those of the first source in the order of the UIDs. A DVH Sequence of a source is not
    copied: it belongs to the source. UIDs are derived from the sources and their factors.

    Parameters
    ----------
    combined : CombinedDose
    settings : EncodeSettings, optional
        Content date and time.

    Returns
    -------
    Dataset
        Explicit VR Little Endian, 32 bits.

    Raises
    ------
    EncodingError
        UNSAFE_IDENTIFIER: a Patient ID or Accession Number that DICOM does not allow.
    """
    first = combined.sources[0]
    out, _ = clean_attributes(open_dataset(first.dose.path), first.uid)
    parts = [f"{one.uid} {one.factor}" for one in combined.sources]
    out.SOPClassUID = RT_DOSE
    out.SOPInstanceUID = derive_uid("dose sum", __version__, *parts)
    out.StudyInstanceUID = first.dose.study_instance_uid
    out.SeriesInstanceUID = derive_uid("dose sum series", __version__, *parts)
    out.FrameOfReferenceUID = first.dose.frame_of_reference_uid
    out.PositionReferenceIndicator = ""
    out.Modality, out.SeriesNumber, out.InstanceNumber = "RTDOSE", 9000, 1
    out.SeriesDescription = _SERIES_DESCRIPTION
    out.OperatorsName = None
    equipment = contributing_equipment(None)
    out.Manufacturer, out.ManufacturerModelName = equipment[0].Manufacturer, equipment[0].ManufacturerModelName
    out.SoftwareVersions = __version__
    out.ContributingEquipmentSequence = equipment
    set_dates(out, settings or EncodeSettings())
    _set_values(out, combined)
    _set_sources(out, combined)
    set_character_set(out)
    return out


def _set_values(out: Dataset, combined: CombinedDose) -> None:
    grid = combined.grid
    frames, rows, columns = grid.shape
    out.DoseUnits, out.DoseType = "GY", "PHYSICAL"
    plans = {plan.sop_instance_uid for one in combined.sources for plan in one.dose.plans}
    unplanned = sum(not one.dose.plans for one in combined.sources)
    out.DoseSummationType = "MULTI_PLAN" if len(plans) + unplanned > 1 else "PLAN"
    out.DoseGridScaling = combined.scaling
    out.ImagePositionPatient = [_decimal(value) for value in grid.origin]
    out.ImageOrientationPatient = [_decimal(value) for value in (*grid.row, *grid.column)]
    out.PixelSpacing = [_decimal(value) for value in grid.pixel_spacing]
    out.SliceThickness = None
    out.GridFrameOffsetVector = [_decimal(value) for value in grid.offsets]
    out.FrameIncrementPointer = 0x3004000C
    out.NumberOfFrames, out.Rows, out.Columns = frames, rows, columns
    out.SamplesPerPixel, out.PhotometricInterpretation, out.PixelRepresentation = 1, "MONOCHROME2", 0
    out.BitsAllocated, out.BitsStored, out.HighBit = 32, 32, 31
    out.PixelData = np.ascontiguousarray(grid.stored, "<u4").tobytes()
    out["PixelData"].VR = "OW"


def _set_sources(out: Dataset, combined: CombinedDose) -> None:
    scaled = any(one.factor != 1 for one in combined.sources)
    plans = {plan.sop_instance_uid: None for one in combined.sources for plan in one.dose.plans}
    out.ReferencedRTPlanSequence = [_reference(RT_PLAN, uid) for uid in sorted(plans) if uid]
    derivation = codes.cid7220
    kinds = [derivation.ComposedWithWeightingForFractionsDelivered] if scaled else []
    kinds += [] if scaled else [derivation.ComposedFromPriorDoses]
    out.DerivationCodeSequence = [code_item(kind) for kind in kinds]
    sources = []
    for one in combined.sources:
        item = _reference(RT_DOSE, one.uid)
        item.PurposeOfReferenceCodeSequence = [code_item(codes.cid7221.SourceDoseForComposingCurrentDose)]
        sources.append(item)
    out.ReferencedInstanceSequence = sources
    factors = "; ".join(f"{one.factor} x {one.uid}" for one in combined.sources)
    out.DoseComment = f"{'Weighted' if scaled else 'Plain'} sum: {factors}. Research only."[:1024]


def _reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def _decimal(value: float) -> str:
    """A number in at most 16 characters (VR DS), exact to 1e-9."""
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    if len(text) > 16:
        text = f"{value:.6f}"
    return "0" if text in ("-0", "") else text


def write_dose(combined: CombinedDose, path: Path, settings: EncodeSettings | None = None) -> str:
    """Write a sum of doses.

    Parameters
    ----------
    combined : CombinedDose
    path : Path
        Written to a temporary name and renamed.
    settings : EncodeSettings, optional
        Content date and time.

    Returns
    -------
    str
        SOP Instance UID.

    Raises
    ------
    EncodingError
        As :func:`dose_object`.
    """
    import io

    data = dose_object(combined, settings)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derive_uid("implementation", "ctenrich", __version__))
    meta.ImplementationVersionName = f"CTENRICH_{__version__}"[:16]
    data.file_meta = meta
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())
    return str(data.SOPInstanceUID)

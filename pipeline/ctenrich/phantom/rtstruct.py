"""Write the truth of a phantom as an RT Structure Set whose references resolve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ctenrich.dicom.sop_classes import CT_IMAGE, DETACHED_STUDY_MANAGEMENT, RT_STRUCTURE_SET
from ctenrich.phantom.contour import trace
from ctenrich.phantom.identity import Identity
from ctenrich.phantom.modules import DATE, TIME, common_modules, file_bytes, number
from ctenrich.phantom.options import PhantomOptions, PixelEncoding, Quirk
from ctenrich.phantom.volume import Phantom

__all__ = ["ROI_NAMES", "write_rtstruct"]


ROI_NAMES = {
    "esophagus": "Esophagus",
    "heart": "Heart",
    "trachea": "Trachea",
    "aorta": "Aorta",
    "lung_left": "Lung-Left",
    "lung_right": "Lung-Right",
    "spinal_cord": "Spinal-Cord",
}
"""ROI names as radiotherapy uses them, by segment."""

_COLOURS = ((255, 160, 60), (220, 30, 30), (120, 200, 255), (200, 0, 90), (90, 220, 90), (40, 160, 60), (250, 240, 90))


def write_rtstruct(folder: Path, phantom: Phantom, identity: Identity, uids: dict[int, str]) -> Path:
    """Write the truth as an RT Structure Set (PS3.3 A.19.3).

    Contours run along pixel edges: their even-odd fill at pixel centres is the truth, voxel for voxel.

    Parameters
    ----------
    folder : Path
    phantom : Phantom
    identity : Identity
    uids : dict of int to str
        Slice index -> SOP Instance UID of the slices that the structure set refers to.

    Returns
    -------
    Path
        The file.
    """
    options = phantom.options
    d = common_modules(options, identity, RT_STRUCTURE_SET, identity.instance("rtstruct"))
    for name in ("ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime"):
        delattr(d, name)
    d.Modality = "RTSTRUCT"
    d.SeriesInstanceUID = identity.instance("rtstruct series")
    d.SeriesNumber, d.SeriesDescription = str(100 + options.series_number), "Truth of the phantom"
    d.OperatorsName, d.InstanceNumber = "", "1"
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = identity.frame_of_reference, ""
    d.StructureSetLabel, d.StructureSetName = "TRUTH", "Truth"
    d.StructureSetDate, d.StructureSetTime = DATE, TIME
    d.ApprovalStatus = "UNAPPROVED"
    d.ReferencedFrameOfReferenceSequence = [_referenced_frame(identity, uids)]
    rois, contours, observations = [], [], []
    for roi, (segment, mask) in enumerate(phantom.masks.items(), start=1):
        items = [
            _contour_item(loop, phantom, k, uids[k]) for k in sorted(uids) if mask[k].any() for loop in trace(mask[k])
        ]
        rois.append(_roi_item(roi, ROI_NAMES[segment], identity))
        contour = Dataset()
        contour.ReferencedROINumber = str(roi)
        contour.ROIDisplayColor = [str(c) for c in _COLOURS[roi - 1]]
        if items:
            contour.ContourSequence = items
        contours.append(contour)
        observations.append(_observation_item(roi))
    d.StructureSetROISequence, d.ROIContourSequence, d.RTROIObservationsSequence = rois, contours, observations
    path = folder / f"RS{options.series_number:02d}.dcm"
    path.write_bytes(file_bytes(d, _rtstruct_options(options)))
    return path


def _rtstruct_options(options: PhantomOptions) -> PhantomOptions:
    return options.changed(encoding=PixelEncoding.EXPLICIT, quirks=options.quirks - {Quirk.NO_PREAMBLE})


def _referenced_frame(identity: Identity, uids: dict[int, str]) -> Dataset:
    images = []
    for k in sorted(uids):
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT_IMAGE, uids[k]
        images.append(image)
    series = Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = identity.series, images
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = DETACHED_STUDY_MANAGEMENT, identity.study
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = identity.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi_item(roi: int, name: str, identity: Identity) -> Dataset:
    item = Dataset()
    item.ROINumber = str(roi)
    item.ReferencedFrameOfReferenceUID = identity.frame_of_reference
    item.ROIName, item.ROIGenerationAlgorithm = name, "AUTOMATIC"
    return item


def _observation_item(roi: int) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = str(roi)
    item.RTROIInterpretedType, item.ROIInterpreter = "ORGAN", ""
    return item


def _contour_item(loop: npt.NDArray[np.float64], phantom: Phantom, k: int, uid: str) -> Dataset:
    grid = phantom.grid
    points = grid.positions[k] + loop[:, :1] * grid.along_row[None, :] + loop[:, 1:] * grid.along_column[None, :]
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT_IMAGE, uid
    item = Dataset()
    item.ContourImageSequence = [image]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = str(len(points))
    item.ContourData = [number(v) for v in np.round(points, 4).ravel()]
    return item

"""Loads a CT and its masks into 3D Slicer. Slicer runs this file with its own Python; it uses nothing of ctenrich.

    Slicer --python-script slicer_script.py CT MASKS [MASKS ...]

CT is a file that Slicer reads (NIfTI, NRRD), or a folder with the DICOM files of the series. MASKS is a folder that
``ctenrich export RUN nrrd`` wrote for one product, or a DICOM SEG (``.dcm``), for which Slicer needs its extension
QuantitativeReporting and CT must be a DICOM folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

WINDOW, LEVEL = 400, 40
"""Soft tissue, HU."""


def load(ct: Path, masks: list[Path]) -> None:
    """Load everything and show it: CT in a soft tissue window, a segmentation for each product, its surfaces in 3D."""
    objects = [path for path in masks if path.suffix == ".dcm"]
    volume = load_dicom(ct, objects) if ct.is_dir() else slicer().util.loadVolume(str(ct))
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(WINDOW, LEVEL)
    for folder in masks:
        if folder.suffix != ".dcm":
            load_masks(folder, volume)
    slicer().util.setSliceViewerLayers(background=volume, fit=True)


def load_dicom(folder: Path, objects: list[Path]) -> Any:
    """Load the series of a folder and SEGs through Slicer's DICOM module; returns the largest volume."""
    from DICOMLib import DICOMUtils  # type: ignore[import-not-found]  # a module of Slicer

    before = set(slicer().util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    with DICOMUtils.TemporaryDICOMDatabase() as database:
        for place in dict.fromkeys([folder, *(path.parent for path in objects)]):
            DICOMUtils.importDicom(str(place), database)
        studies = [study for patient in database.patients() for study in database.studiesForPatient(patient)]
        DICOMUtils.loadSeriesByUID([uid for study in studies for uid in database.seriesForStudy(study)])
    found = [node for node in slicer().util.getNodesByClass("vtkMRMLScalarVolumeNode") if node not in before]
    if not found:
        raise SystemExit(f"Slicer found no image series in {folder}")
    return max(found, key=lambda node: node.GetImageData().GetNumberOfPoints())


def load_masks(folder: Path, volume: Any) -> None:
    """Load the masks of one product as one segmentation on the grid of the CT."""
    label_map = folder / "labels.seg.nrrd"
    if label_map.is_file():
        node = slicer().util.loadSegmentation(str(label_map))
        node.SetName(folder.name)
    else:  # segments that overlap have a file each
        node = slicer().mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", folder.name)
        node.CreateDefaultDisplayNodes()
        for path in sorted(folder.glob("*.nrrd")):
            mask = slicer().util.loadLabelVolume(str(path))
            slicer().modules.segmentations.logic().ImportLabelmapToSegmentationNode(mask, node)
            segments = node.GetSegmentation()
            segments.GetNthSegment(segments.GetNumberOfSegments() - 1).SetName(path.stem.partition("_")[2])
            slicer().mrmlScene.RemoveNode(mask)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.CreateClosedSurfaceRepresentation()


def slicer() -> Any:
    """The module of the running Slicer."""
    import slicer as running  # type: ignore[import-not-found]  # is there only inside Slicer

    return running


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    load(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])

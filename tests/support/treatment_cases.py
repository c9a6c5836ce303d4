"""Small radiotherapy objects for the tests of treatments: headers of structure sets, plans, doses and records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from ctenrich.catalog.folder import FolderCatalog, index_folders
from ctenrich.treatments.make import TreatmentRequest, TreatmentSelection, make_treatments
from tests.support.catalog_cases import ROOT, header, write_series

PLAN, DOSE, STRUCTURES, RECORD = (f"1.2.840.10008.5.1.4.1.1.481.{n}" for n in (5, 2, 3, 4))


def uid(study: str, series: str, number: int = 1) -> str:
    return f"{ROOT}.{study}.{series}.{number}"


def item(**values: Any) -> Dataset:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def reference(target: str, sop_class: str = PLAN, **more: Any) -> Dataset:
    return item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=target, **more)


class Patient:
    """Writes the objects of one patient into a folder; study N has the frame of reference ROOT.N.99."""

    def __init__(self, folder: Path, patient: str = "P1", study: str = "1", **attributes: Any) -> None:
        self.folder, self.patient, self.study, self.attributes = folder, patient, study, attributes
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, modality: str, sop_class: str, series: str, number: int, **values: Any) -> str:
        changes = {"PixelData": None, "ImagePositionPatient": None, **self.attributes, **values}
        ds = header(number, series=series, study=self.study, patient=self.patient, Modality=modality, **changes)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        ds.save_as(self.folder / f"{modality}-{self.patient}-{self.study}-{series}-{number}.dcm")
        return str(ds.SOPInstanceUID)

    def ct(self, series: str = "1", **changes: Any) -> str:
        changes = {"series": series, "study": self.study, "patient": self.patient, **self.attributes, **changes}
        write_series(self.folder, 4, **changes)
        return f"{ROOT}.{self.study}.{series}"

    def structures(
        self, names: Sequence[str] = ("Heart",), number: int = 1, *, images: str | None = "1", **values: Any
    ) -> str:
        frame = values.pop("frame", f"{ROOT}.{self.study}.99")
        of_frame = item(FrameOfReferenceUID=frame)
        if images is not None:
            series = images if images.startswith("1.2") else f"{ROOT}.{self.study}.{images}"
            of_series = item(SeriesInstanceUID=series, ContourImageSequence=DicomSequence([]))
            of_study = item(ReferencedSOPInstanceUID="1.2.3", RTReferencedSeriesSequence=DicomSequence([of_series]))
            of_frame.RTReferencedStudySequence = DicomSequence([of_study])
        rois = [
            item(ROINumber=n, ReferencedFrameOfReferenceUID=frame, ROIName=name)
            for n, name in enumerate(names, start=1)
        ]
        types = [item(ReferencedROINumber=n, RTROIInterpretedType="ORGAN") for n in range(1, len(names) + 1)]
        return self.write(
            "RTSTRUCT", STRUCTURES, "30", number,
            **{"StructureSetLabel": "set", "StructureSetDate": "20200105", "FrameOfReferenceUID": None, **values},
            ReferencedFrameOfReferenceSequence=DicomSequence([of_frame]),
            StructureSetROISequence=DicomSequence(rois), RTROIObservationsSequence=DicomSequence(types),
        )  # fmt: skip

    def plan(
        self,
        label: str = "A1",
        number: int = 1,
        *,
        groups: Sequence[tuple[int, Sequence[float | None]]] = ((25, (1.0, 1.0)),),
        structures: str | None = None,
        **values: Any,
    ) -> str:
        beams, sequence = 0, []
        for count, (fractions, doses) in enumerate(groups, start=1):
            own = []
            for dose in doses:
                beams += 1
                own.append(item(ReferencedBeamNumber=beams, **({} if dose is None else {"BeamDose": dose})))
            sequence.append(
                item(FractionGroupNumber=count, NumberOfFractionsPlanned=fractions, NumberOfBeams=len(doses),
                     ReferencedBeamSequence=DicomSequence(own))
            )  # fmt: skip
        if structures is not None:
            values["ReferencedStructureSetSequence"] = DicomSequence([reference(structures, STRUCTURES)])
        return self.write(
            "RTPLAN", PLAN, "40", number,
            **{"RTPlanLabel": label, "RTPlanDate": "20200110", "PlanIntent": "CURATIVE", **values},
            FractionGroupSequence=DicomSequence(sequence),
        )  # fmt: skip

    def dose(self, plan: str | None = None, number: int = 1, **values: Any) -> str:
        if plan is not None:
            values["ReferencedRTPlanSequence"] = DicomSequence([reference(plan)])
        defaults = {
            "DoseUnits": "GY", "DoseType": "PHYSICAL", "DoseSummationType": "PLAN", "DoseGridScaling": "0.001",
            "NumberOfFrames": "3", "GridFrameOffsetVector": ["0", "3", "6"],
        }  # fmt: skip
        return self.write("RTDOSE", DOSE, "50", number, **{**defaults, **values})

    def record(self, plan: str, fraction: int, number: int = 1) -> str:
        beam = item(ReferencedBeamNumber=1, CurrentFractionNumber=fraction)
        return self.write(
            "RTRECORD", RECORD, "60", number, TreatmentDate="20200201",
            ReferencedRTPlanSequence=DicomSequence([reference(plan)]),
            TreatmentSessionBeamSequence=DicomSequence([beam]),
        )  # fmt: skip

    def whole(self, **plan: Any) -> tuple[str, str, str]:
        """CT, structure set, plan and dose tied by UID: (structure set, plan, dose)."""
        self.ct()
        structures = self.structures()
        own = self.plan(structures=structures, **plan)
        return structures, own, self.dose(own)


def make(folder: Path, catalog_file: Path | None = None, **request: Any) -> TreatmentSelection:
    """Index a folder and make its treatments."""
    catalog_file = catalog_file or folder.parent / f"{folder.name}.duckdb"
    index_folders([folder], catalog_file, processes=1)
    catalog = FolderCatalog(catalog_file)
    try:
        return make_treatments(catalog, TreatmentRequest(**request))
    finally:
        catalog.close()

"""A series with masks of an expert and a network and an RT Dose, for the tests of doses in runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ctenrich.dose.measure import DoseInput, measure_doses
from ctenrich.dose.structures import DoseOptions
from ctenrich.records import DoseMeasurements, FetchedFile, FetchedSeries, Product, SegmentMasks, SortedSeries, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.treatments.records import Treatment
from ctenrich.workspace import Workspace
from tests.support import encode_cases as cases
from tests.support.doses import write_dose

__all__ = ["DoseCase", "plan_reference"]


def plan_reference(uid: str) -> Dataset:
    """An item of Referenced RT Plan Sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.5", uid
    return item


class DoseCase:
    """The series of `encode_cases`; its RT Dose has 1 Gy per mm along x, from x = -122 mm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "run")
        self.series: SortedSeries
        self.volume: Volume
        self.series, self.volume = cases.make_series(folder / "ct")
        self.store = SeriesStore(self.workspace)
        self.uid = self.series.series_instance_uid
        for record in (self.series, self.volume):
            self.store.save(record, self.uid)
        self.treatment: Treatment | None = None
        """What the treatment of the series states; None: a cohort without treatments."""
        self.store.save(cases.make_masks(self.series, self.workspace), self.uid, cases.NNUNET)
        self.store.save(cases.make_expert_masks(self.series, self.workspace), self.uid, cases.EXPERT)

    def give_dose(self, **attributes: Any) -> Path:
        """Make an RT Dose the companion of the series."""
        stored = np.broadcast_to((np.arange(24) * 2000).astype(np.uint16), (16, 22, 24)).copy()
        attributes = {
            "FrameOfReferenceUID": self.series.frame_of_reference_uid,
            "ImagePositionPatient": [-122, -101, -313],
            "PixelSpacing": [2, 2],
        } | attributes
        path = write_dose(self.folder / "rd.dcm", stored, **attributes)
        self._save_companions(path)
        return path

    def give_two_doses(self) -> None:
        """Make the doses of two plans the companions: that of `give_dose`, and half of it at larger voxels."""
        self.give_dose(ReferencedRTPlanSequence=[plan_reference("2.25.50.1")])
        stored = np.broadcast_to((np.arange(14) * 2000).astype(np.uint16), (16, 12, 14)).copy()
        boost = write_dose(
            self.folder / "boost.dcm", stored, FrameOfReferenceUID=self.series.frame_of_reference_uid,
            ImagePositionPatient=[-122, -101, -313], PixelSpacing=[4, 4], SOPInstanceUID="2.25.4000.22",
            ReferencedRTPlanSequence=[plan_reference("2.25.50.2")],
        )  # fmt: skip
        self._save_companions(self.folder / "rd.dcm", boost)

    def _save_companions(self, *paths: Path) -> None:
        companions = tuple(FetchedFile(str(path), path.as_uri(), path.stat().st_size, "0" * 64) for path in paths)
        self.store.save(FetchedSeries(self.uid, self.series.study_instance_uid, (), companions), self.uid)

    def measure(self, product: Product, options: DoseOptions | None = None) -> DoseMeasurements:
        """Calculate and save the doses of a product."""
        given = DoseInput(series=self.series, fetched=self.store.fetched(self.uid), treatment=self.treatment)
        masks = self.store.load(SegmentMasks, self.uid, product)
        doses = measure_doses(masks, given, options or DoseOptions(), workspace=self.workspace)
        self.store.save(doses, self.uid, product)
        return doses

    def measure_all(self) -> tuple[DoseMeasurements, DoseMeasurements]:
        """Of the expert and of the network."""
        return self.measure(cases.EXPERT), self.measure(cases.NNUNET)

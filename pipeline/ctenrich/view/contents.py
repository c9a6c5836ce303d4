"""The contents of a run that a viewer shows: sorted series, their slices, and the objects written for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ctenrich.dicom.objects import header
from ctenrich.dicom.values import text
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObject,
    EncodedObjects,
    Landmarks,
    ObjectKind,
    Regions,
    SegmentMasks,
    SortedSeries,
    Volume,
)
from ctenrich.series_store import SeriesStore
from ctenrich.view.opening import opening_point, product_name
from ctenrich.workspace import Workspace, load_record

__all__ = ["RunView", "Shown"]

_HEADER = (
    "PatientID",
    "PatientSex",
    "PatientAge",
    "StudyDate",
    "StudyDescription",
    "SeriesDescription",
    "Manufacturer",
    "ManufacturerModelName",
    "ConvolutionKernel",
)
"""Attributes of a slice that the overview shows."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One written object, its product and its file."""

    product: str
    """Key of the product."""
    name: str
    """The product as a reader names it: model first."""
    item: EncodedObject
    path: Path


class RunView:
    """Series of a run with their slices and objects.

    Parameters
    ----------
    workspace : Workspace
        The run.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._store = SeriesStore(workspace)

    @cached_property
    def series(self) -> list[str]:
        """Series that can be shown: those that have been sorted."""
        return [uid for uid in self._store.series() if self._store.has(SortedSeries, uid)]

    @cached_property
    def demonstration(self) -> tuple[str, ...]:
        """Names of the run's demonstration models."""
        return self._store.demonstration_models()

    def record(self, uid: str) -> SortedSeries:
        """Load a sorted series.

        Raises
        ------
        UsageError
            NOT_FOUND if the run has no such series.
        """
        if uid not in self.series:
            raise UsageError(Reason.NOT_FOUND, "the run has no such series")
        path = self._store.path(SortedSeries, uid)
        return _sorted_series(path, path.stat().st_mtime_ns)

    def objects(self, uid: str) -> list[Shown]:
        """Written objects of a series, by product and kind."""
        out = []
        for product in self._store.products(uid):
            found = self._store.find_valid(EncodedObjects, uid, product)
            for item in found.objects if found else ():
                path = self.workspace.resolve(uid, item.path)
                if path.is_file():
                    out.append(Shown(product=str(product), name=product_name(product), item=item, path=path))
        return out

    def segmentations(self, uid: str) -> list[Shown]:
        """The SEGs among the written objects."""
        return [shown for shown in self.objects(uid) if shown.item.kind == ObjectKind.SEG]

    def slices(self, uid: str) -> list[Path]:
        """Files of a series' slices, in slice order."""
        return [self.workspace.resolve(uid, one.path) for one in self.record(uid).slices]

    def find_object(self, uid: str, sop_instance_uid: str) -> Shown:
        """Find a written object.

        Parameters
        ----------
        uid : str
            Series Instance UID of the CT.
        sop_instance_uid : str
            The object.

        Returns
        -------
        Shown

        Raises
        ------
        UsageError
            NOT_FOUND if no such object was written for this series.
        """
        for shown in self.objects(uid):
            if shown.item.sop_instance_uid == sop_instance_uid:
                return shown
        raise UsageError(Reason.NOT_FOUND, "the run has no such file")

    def in_study(self, study: str) -> list[str]:
        """CT series of a study."""
        return [uid for uid in self.series if self.record(uid).study_instance_uid == study]

    def masks(self, uid: str, product: str) -> SegmentMasks | None:
        """Masks of a product of a series by its key; None if it has none, or no longer."""
        found = {str(one): one for one in self._store.products(uid)}
        return self._store.find_valid(SegmentMasks, uid, found[product]) if product in found else None

    def landmarks(self, uid: str, product: str) -> tuple[Landmarks, Regions] | None:
        """Landmarks and regions of a product of a series by its key; None if it does not have both."""
        found = {str(one): one for one in self._store.products(uid)}
        if product not in found:
            return None
        landmarks = self._store.find_valid(Landmarks, uid, found[product])
        regions = self._store.find_valid(Regions, uid, found[product])
        return (landmarks, regions) if landmarks and regions else None

    def header(self, uid: str) -> dict[str, str]:
        """Values of the first slice that the overview shows, by keyword; empty where the file has none.

        The patient's name is not among them. All are empty if the slices were deleted or are damaged.
        """
        path = self.slices(uid)[0]
        try:
            return _header(path, path.stat().st_mtime_ns)
        except (OSError, InputError):
            return dict.fromkeys(_HEADER, "")

    def volume(self, uid: str) -> Volume | None:
        """The CT of a series as a volume; None if it was not converted, or its array was deleted."""
        found = self._store.find_valid(Volume, uid)
        return found if found and self.workspace.resolve(uid, found.array_path).is_file() else None

    def opening(self, uid: str, product: str = "", *, instance: str = "", planes: bool = False) -> str:
        """Address in OHIF of a CT with the SEG of a product laid over it.

        Parameters
        ----------
        uid : str
            Series Instance UID of the CT.
        product : str
            Key of a product; empty, or without a SEG: the first product that has one.
        instance : str
            SOP Instance UID of the slice to show first; empty: the slice with most organs of the product.
        planes : bool
            Whether axial, sagittal and coronal planes are shown side by side (MPR).

        Returns
        -------
        str

        Raises
        ------
        UsageError
            NOT_FOUND if the series has no such slice.
        """
        record = self.record(uid)
        if instance and instance not in record.sop_instance_uids:
            raise UsageError(Reason.NOT_FOUND, "the series has no such slice")
        segments = self.segmentations(uid)
        chosen = next(iter([s for s in segments if s.product == product] or segments), None)
        index = record.sop_instance_uids.index(instance) if instance else None
        point = opening_point(self.masks(uid, chosen.product) if chosen else None, record, index)
        asked = {
            "StudyInstanceUIDs": record.study_instance_uid,
            "SeriesInstanceUIDs": ",".join([uid, *(s.item.series_instance_uid for s in segments)]),
            "initialSeriesInstanceUID": uid,
        }
        if point or instance:
            asked["initialSOPInstanceUID"] = record.slices[point.slice_index].sop_instance_uid if point else instance
        if planes:
            asked["hangingprotocolId"] = "mpr"
        if planes and point:
            asked["point"] = ",".join(f"{value:.1f}" for value in point.position)
        if chosen:
            asked["overlay"] = chosen.item.series_instance_uid
        return f"/viewer?{'&'.join(f'{name}={value}' for name, value in asked.items())}"


@lru_cache(maxsize=4096)
def _header(path: Path, changed: int) -> dict[str, str]:
    """Read a few values of a file, cached until it changes."""
    data = header(path, ["SpecificCharacterSet", *_HEADER])
    return {keyword: text(data, keyword) for keyword in _HEADER}


@lru_cache(maxsize=4096)
def _sorted_series(path: Path, changed: int) -> SortedSeries:
    """Load a record, cached until its file changes."""
    return load_record(path, SortedSeries)

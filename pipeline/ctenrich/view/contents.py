"""The contents of a run that a viewer shows: sorted series, their slices, and the objects written for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, EncodedObjects, ObjectKind, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, load_record

__all__ = ["RunView", "Shown"]


@dataclass(frozen=True)
class Shown:
    """One written object, its product and its file."""

    product: str
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
                    out.append(Shown(str(product), item, path))
        return out

    def segmentations(self, uid: str) -> list[Shown]:
        """The SEGs among the written objects."""
        return [shown for shown in self.objects(uid) if shown.item.kind == ObjectKind.SEG]

    def slices(self, uid: str) -> list[Path]:
        """Files of a series' slices, in slice order."""
        return [self.workspace.resolve(uid, one.path) for one in self.record(uid).slices]

    def object_file(self, uid: str, sop_instance_uid: str) -> Path:
        """Find the file of a written object.

        Parameters
        ----------
        uid : str
            Series Instance UID of the CT.
        sop_instance_uid : str
            The object.

        Returns
        -------
        Path

        Raises
        ------
        UsageError
            NOT_FOUND if no such object was written for this series.
        """
        for shown in self.objects(uid):
            if shown.item.sop_instance_uid == sop_instance_uid:
                return shown.path
        raise UsageError(Reason.NOT_FOUND, "the run has no such file")

    def in_study(self, study: str) -> list[str]:
        """CT series of a study."""
        return [uid for uid in self.series if self.record(uid).study_instance_uid == study]

    def opening(self, uid: str, product: str = "") -> str:
        """Address in OHIF of a CT with the SEG of a product laid over it.

        Parameters
        ----------
        uid : str
            Series Instance UID of the CT.
        product : str
            Key of a product; empty, or without a SEG: the first product that has one.

        Returns
        -------
        str
        """
        segments = self.segmentations(uid)
        chosen = [s for s in segments if s.product == product] or segments
        wanted = ",".join([uid, *(s.item.series_instance_uid for s in segments)])
        study = self.record(uid).study_instance_uid
        address = f"/viewer?StudyInstanceUIDs={study}&SeriesInstanceUIDs={wanted}&initialSeriesInstanceUID={uid}"
        return f"{address}&overlay={chosen[0].item.series_instance_uid}" if chosen else address


@lru_cache(maxsize=4096)
def _sorted_series(path: Path, changed: int) -> SortedSeries:
    """Load a record, cached until its file changes."""
    return load_record(path, SortedSeries)

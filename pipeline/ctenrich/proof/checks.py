"""Collect the checks of a proof, and open the objects to be proven."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from ctenrich.records import Check, EncodedObject, Proof, SortedSeries
from ctenrich.workspace import Workspace, sha256_of_file

__all__ = ["ObjectFile", "Report", "open_objects"]


@dataclass
class Report:
    """Collects the checks of one product."""

    product: str
    checks: list[Check] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    not_proven: list[str] = field(default_factory=list)
    """Object kinds for which there is no proof."""

    def add(self, name: str, passed: bool, detail: str = "") -> None:
        """Add one check."""
        self.checks.append(Check(name, bool(passed), detail))

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Convert any exception that a damaged file causes into a failed check."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  a damaged file is a failed check, not a crash
            self.add(name, False, f"the object cannot be read as its SOP class requires ({type(error).__name__})")

    def proof(self) -> Proof:
        """Return the record of all checks."""
        return Proof(self.product, tuple(self.checks), dict(self.hashes), tuple(self.not_proven))


@dataclass(frozen=True)
class ObjectFile:
    """One object, read again."""

    record: EncodedObject
    path: Path
    dataset: Dataset


def open_objects(
    report: Report,
    objects: Sequence[EncodedObject],
    kinds: Sequence[str],
    series: SortedSeries,
    workspace: Workspace,
) -> dict[str, ObjectFile]:
    """Read the objects that a product must have; check that each exists once and is the file that was written.

    Parameters
    ----------
    report : Report
        Receives ``<kind>.exists``, ``<kind>.file`` and ``<kind>.study``.
    objects : sequence of EncodedObject
        Records of the written objects.
    kinds : sequence of str
        Keys of the object kinds that the product must have.
    series : SortedSeries
        The source series.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    dict
        Object kind -> object; without kinds whose object is missing or cannot be read.
    """
    found: dict[str, ObjectFile] = {}
    for kind in kinds:
        records = [record for record in objects if record.kind == kind]
        report.add(f"{kind}.exists", len(records) == 1, f"{len(records)} objects of this kind")
        for record in records[:1]:
            with report.guard(f"{kind}.file"):
                found[kind] = _open_object(report, record, series, workspace)
    return found


def _open_object(report: Report, record: EncodedObject, series: SortedSeries, workspace: Workspace) -> ObjectFile:
    path = workspace.resolve(series.series_instance_uid, record.path)
    sha256 = sha256_of_file(path)
    dataset = pydicom.dcmread(path)
    report.hashes[str(record.kind)] = sha256
    uids = (dataset.SOPInstanceUID, dataset.SOPClassUID, dataset.SeriesInstanceUID)
    expected = (record.sop_instance_uid, record.sop_class_uid, record.series_instance_uid)
    same = sha256 == record.sha256 and uids == expected
    report.add(f"{record.kind}.file", same, "the bytes and UIDs are those that were written")
    study = str(dataset.StudyInstanceUID) == series.study_instance_uid
    report.add(f"{record.kind}.study", study, "the object is in the study of its source")
    return ObjectFile(record, path, dataset)

"""The list of checks of a proof as it grows, and the objects that it is about."""

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
    """Collects checks."""

    product: str
    checks: list[Check] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    not_proven: list[str] = field(default_factory=list)
    """Kinds of object for which there is no proof."""

    def add(self, name: str, passed: bool, detail: str = "") -> None:
        """Note one statement."""
        self.checks.append(Check(name, bool(passed), detail))

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Turn whatever a broken file raises into a failed check."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  a proof must end in a verdict, whatever stands in the file
            self.add(name, False, f"the object cannot be read as what it says it is ({type(error).__name__})")

    def proof(self) -> Proof:
        """The record."""
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
    """Read the objects of the kinds that a product must have; each once, each the file that was written."""
    found: dict[str, ObjectFile] = {}
    for kind in kinds:
        records = [record for record in objects if record.kind == kind]
        report.add(f"{kind}.exists", len(records) == 1, f"{len(records)} objects of this kind")
        for record in records[:1]:
            with report.guard(f"{kind}.file"):
                found[kind] = _open(report, record, series, workspace)
    return found


def _open(report: Report, record: EncodedObject, series: SortedSeries, workspace: Workspace) -> ObjectFile:
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

"""The identifiers of an object that are needed to send it, read from its file."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from ctenrich.dicom.quiet import quiet
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

__all__ = ["ObjectHeader", "read_header"]


@dataclass(frozen=True, kw_only=True)
class ObjectHeader:
    """Identifiers, syntax and bytes of an object."""

    path: Path
    sha256: str
    """Of the file."""
    size: int
    """Bytes."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax: str

    def columns(self) -> dict[str, object]:
        """Columns of the queue."""
        return {**vars(self), "path": str(self.path)}

    @classmethod
    def of_row(cls, row: sqlite3.Row) -> ObjectHeader:
        """The header in a row of the queue."""
        return cls(
            path=Path(row["path"]),
            sha256=row["sha256"],
            size=row["size"],
            sop_class_uid=row["sop_class_uid"],
            sop_instance_uid=row["sop_instance_uid"],
            series_instance_uid=row["series_instance_uid"],
            study_instance_uid=row["study_instance_uid"],
            transfer_syntax=row["transfer_syntax"],
        )


def read_header(path: Path) -> ObjectHeader:
    """Read the header of a DICOM file.

    Raises
    ------
    InputError
        NOT_DICOM if it has no file meta information or lacks an identifier.
    OSError
    """
    try:
        with quiet():
            data = dcmread(path, stop_before_pixels=True)
            return ObjectHeader(
                path=path.resolve(),
                sha256=sha256_of_file(path),
                size=path.stat().st_size,
                sop_class_uid=str(data.SOPClassUID),
                sop_instance_uid=str(data.SOPInstanceUID),
                series_instance_uid=str(data.SeriesInstanceUID),
                study_instance_uid=str(data.StudyInstanceUID),
                transfer_syntax=str(data.file_meta.TransferSyntaxUID),
            )
    except (InvalidDicomError, AttributeError) as error:
        raise InputError(Reason.NOT_DICOM, "a result is no DICOM object that can be sent") from error

"""Write a finished dataset with stable bytes, and describe it."""

from __future__ import annotations

import io

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ctenrich import __version__
from ctenrich.encode.context import set_character_set
from ctenrich.records import EncodedObject, Issue, ObjectKind, Product
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace, sha256_of_file, write_bytes

__all__ = ["write_object"]


def write_object(
    dataset: Dataset,
    kind: ObjectKind,
    source_series: str,
    product: Product,
    workspace: Workspace,
    issues: tuple[Issue, ...] = (),
    *,
    deflated_copy: bool = False,
) -> EncodedObject:
    """Write ``<product room>/objects/<kind>.dcm`` and return its record (path relative to the series' room).

    With `deflated_copy` the same object lies in ``<product room>/archive/`` in Deflated Explicit VR Little Endian,
    which is much smaller but read by fewer programs.
    """
    syntax = dataset.file_meta.TransferSyntaxUID if hasattr(dataset, "file_meta") else ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(derive_uid("implementation", "ctenrich", __version__))
    meta.ImplementationVersionName = f"CTENRICH_{__version__}"[:16]
    dataset.file_meta = meta
    set_character_set(dataset)
    room = workspace.product_room(source_series, product)
    path = room / "objects" / f"{kind.value}.dcm"
    write_bytes(path, _bytes(dataset))
    if deflated_copy and not syntax.is_encapsulated:
        meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        write_bytes(room / "archive" / path.name, _bytes(dataset))
        meta.TransferSyntaxUID = syntax
    return EncodedObject(
        kind,
        workspace.relative(source_series, path),
        str(dataset.SOPClassUID),
        str(dataset.SOPInstanceUID),
        str(dataset.SeriesInstanceUID),
        sha256_of_file(path),
        issues,
    )


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()

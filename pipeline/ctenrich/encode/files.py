"""Write a finished dataset with stable bytes, and describe it."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ctenrich import __version__
from ctenrich.dicom.writer import explicit_parts
from ctenrich.encode.context import set_character_set
from ctenrich.records import EncodedObject, Issue, Product
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["ObjectTarget", "write_object"]


@dataclass(frozen=True, kw_only=True)
class ObjectTarget:
    """The object of one kind, of one product of one series: where it is written."""

    kind: str
    """Key of the object kind: the name of the file."""
    series_instance_uid: str
    """Of the source."""
    product: Product


def write_object(
    dataset: Dataset,
    target: ObjectTarget,
    workspace: Workspace,
    issues: tuple[Issue, ...] = (),
    *,
    deflated_copy: bool = False,
) -> EncodedObject:
    """Write ``<product folder>/objects/<kind>.dcm`` and return its record (path relative to the series' folder).

    With `deflated_copy` the same object lies in ``<product folder>/archive/`` in Deflated Explicit VR Little Endian,
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
    if "PixelData" in dataset:
        dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    body = explicit_parts(dataset)
    content = b"".join([_head(meta), *body])
    uid = target.series_instance_uid
    folder = workspace.product_dir(uid, target.product)
    path = folder / "objects" / f"{target.kind}.dcm"
    write_bytes(path, content)
    if deflated_copy and not syntax.is_encapsulated:
        meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        write_bytes(folder / "archive" / path.name, _head(meta) + _deflated(b"".join(body)))
        meta.TransferSyntaxUID = syntax
    return EncodedObject(
        target.kind,
        workspace.relative(uid, path),
        str(dataset.SOPClassUID),
        str(dataset.SOPInstanceUID),
        str(dataset.SeriesInstanceUID),
        hashlib.sha256(content).hexdigest(),
        issues,
    )


def _head(meta: FileMetaDataset) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 7.1)."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return bytes(128) + b"DICM" + buffer.getvalue()


def _deflated(body: bytes) -> bytes:
    """The data set compressed as PS3.5 A.5 wants it, with an even length."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflate.compress(body) + deflate.flush()
    return deflated + b"\0" * (len(deflated) % 2)

"""Write a finished dataset with reproducible bytes and return its record."""

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

__all__ = ["ObjectTarget", "file_meta_bytes", "write_object"]


@dataclass(frozen=True, kw_only=True)
class ObjectTarget:
    """Object kind, product and source series of an object, which determine its path."""

    kind: str
    """Key of the object kind; also the name of the file."""
    series_instance_uid: str
    """Series Instance UID of the source."""
    product: Product


def write_object(
    dataset: Dataset,
    target: ObjectTarget,
    workspace: Workspace,
    issues: tuple[Issue, ...] = (),
    *,
    deflated_copy: bool = False,
) -> EncodedObject:
    """Write ``<product folder>/objects/<kind>.dcm`` and return its record.

    Parameters
    ----------
    dataset : Dataset
        The object; file meta information and character set are set here. Native data are written in Explicit VR Little
        Endian, encapsulated pixel data in the transfer syntax of its file meta information.
    target : ObjectTarget
        Determines the path.
    workspace : Workspace
        Folder of the run.
    issues : tuple of Issue
        Notes that the record keeps.
    deflated_copy : bool
        Also write the object to ``<product folder>/archive/`` in Deflated Explicit VR Little Endian (PS3.5 A.5), which
        is much smaller but supported by fewer programs.

    Returns
    -------
    EncodedObject
        UIDs, SHA-256, and the path relative to the series' folder.
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
    content = b"".join([file_meta_bytes(meta), *body])
    uid = target.series_instance_uid
    folder = workspace.product_dir(uid, target.product)
    path = folder / "objects" / f"{target.kind}.dcm"
    write_bytes(path, content)
    if deflated_copy and not syntax.is_encapsulated:
        meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        write_bytes(folder / "archive" / path.name, file_meta_bytes(meta) + _deflated_data_set(b"".join(body)))
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


def file_meta_bytes(meta: FileMetaDataset) -> bytes:
    """Encode preamble, prefix and file meta information (PS3.10 7.1)."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return bytes(128) + b"DICM" + buffer.getvalue()


def _deflated_data_set(body: bytes) -> bytes:
    """Compress the data set with deflate and pad it to an even length (PS3.5 A.5)."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflate.compress(body) + deflate.flush()
    return deflated + b"\0" * (len(deflated) % 2)

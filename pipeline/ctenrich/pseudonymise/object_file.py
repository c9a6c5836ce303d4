"""Pseudonymise one file: its header is read, cleaned, written and searched; its pixel data are copied as they are."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ctenrich import __version__
from ctenrich.dicom.elements import UNDEFINED
from ctenrich.dicom.objects import damage_as_input_error
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import Parsed, open_dicom
from ctenrich.dicom.streams import InflatingReader
from ctenrich.dicom.values import text, texts
from ctenrich.errors import InputError
from ctenrich.pseudonymise.clean import Cleaner, Subject, is_registered_uid
from ctenrich.pseudonymise.identifiers import Identifiers, find_identifiers
from ctenrich.pseudonymise.key import Key
from ctenrich.pseudonymise.profile import EDITION, Dates, Options, PrivateAttribute, Profile, Retain
from ctenrich.pseudonymise.refusals import check_can_be_cleaned
from ctenrich.pseudonymise.words import TextCleaner
from ctenrich.reasons import Reason
from ctenrich.uids import derive_uid
from ctenrich.workspace import atomic_open, check_uid

__all__ = ["CleanedFile", "Rules", "pseudonymise_file"]

_METHOD = f"ctenrich, PS3.15 {EDITION} basic profile"
_STEP = 1024 * 1024
_MOST_INFLATED = 1024**3
_MODIFIED = {Dates.SHIFT: "MODIFIED", Dates.KEEP: "UNMODIFIED", Dates.REMOVE: "REMOVED"}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How files are pseudonymised; the same for all files of a call."""

    key: Key
    options: Options = field(default_factory=Options)
    private: frozenset[PrivateAttribute] = frozenset()
    words: frozenset[str] = frozenset()
    """Words that identify no person, in lower case."""

    def subject(self, patient_id: str, pseudonym: str = "") -> Subject:
        """Return the patient of an ID under a pseudonym that was chosen, or under the key's."""
        name = pseudonym or self.key.pseudonym(patient_id)
        return Subject(patient_id=patient_id, pseudonym=name, days=self.key.shift(name))


@dataclass(frozen=True, kw_only=True)
class CleanedFile:
    """A file that was written."""

    path: str
    """Below the folder of results."""
    size: int
    counts: Mapping[tuple[str, str], int]
    """(attribute, outcome) -> elements."""
    words: Mapping[str, int] = field(repr=False)
    """Words that were replaced: they may identify a person."""
    notes: tuple[str, ...] = ()


def pseudonymise_file(source: Path, out: Path, subject: Subject, rules: Rules) -> CleanedFile:
    """Write the pseudonymised copy of a file.

    Parameters
    ----------
    source : Path
        A DICOM file of any uncompressed, compressed or deflated transfer syntax; a deflated one is inflated.
    out : Path
        Folder of results; the file is written to ``pseudonym/study/series/object.dcm`` below it, atomically.
    subject : Subject
        The patient.
    rules : Rules
        Key and options.

    Returns
    -------
    CleanedFile

    Raises
    ------
    InputError
        The object is damaged or cannot be cleaned, or the result would still have contained an identifier.
    """
    with open_dicom(source) as parsed, damage_as_input_error("object"):
        dataset = parsed.dataset
        check_can_be_cleaned(dataset, rules.options)
        size = source.stat().st_size
        _check_encoding(parsed)
        _check_end(parsed, size)
        retained = Retain.UIDS in rules.options.retain
        texts_cleaner = TextCleaner(rules.key, rules.words)
        profile = Profile(rules.options, rules.private)
        identifiers = find_identifiers(
            dataset, profile, words=rules.words, is_mapped=lambda uid: not retained and not is_registered_uid(uid)
        )
        notes = _notes(parsed)
        cleaner = Cleaner(profile, rules.key, texts_cleaner, subject=subject, identifiers=identifiers)
        cleaner.clean(dataset)
        _state_method(dataset, rules.options)
        header = _header(dataset, parsed)
        place = _place(dataset, subject)
        search = _Search(identifiers)
        search.check(header)
        with atomic_open(out / place) as target:
            target.write(header)
            for part in _pixel_data(parsed, size):
                search.check(part)
                target.write(part)
            written = target.tell()
    return CleanedFile(
        path=place, size=written, counts=dict(cleaner.counts), words=dict(texts_cleaner.replaced), notes=notes
    )


def _check_encoding(parsed: Parsed) -> None:
    """Refuse a data set whose encoding is not that of its transfer syntax, which is written again."""
    implicit = parsed.transfer_syntax == ImplicitVRLittleEndian
    if parsed.dataset.original_encoding != (implicit, parsed.little_endian):
        raise InputError(Reason.NOT_DICOM, "the data set is encoded otherwise than its transfer syntax states")
    kind = UID(text(parsed.dataset, "SOPClassUID")).name
    if ("Image Storage" in kind or "Segmentation Storage" in kind) and parsed.pixel_offset is None:
        raise InputError(Reason.TRUNCATED, "an image has no Pixel Data")


def _check_end(parsed: Parsed, size: int) -> None:
    """Refuse a file without pixel data that goes on, other than with zeros, behind its last element."""
    last: Any = parsed.dataset.get_item(max(parsed.dataset.keys()))
    if parsed.pixel_offset is not None or not isinstance(last, RawDataElement) or last.length == UNDEFINED:
        return
    stream: Any = parsed.stream
    stream.seek(last.value_tell + last.length)
    if stream.read(size).strip(b"\0"):
        raise InputError(Reason.TRUNCATED, "the file ends inside the header of an element")


def _notes(parsed: Parsed) -> tuple[str, ...]:
    notes = []
    if parsed.pixel_offset is not None and not text(parsed.dataset, "BurnedInAnnotation"):
        notes.append("Burned In Annotation is not stated")
    if text(parsed.dataset, "RecognizableVisualFeatures").upper() == "YES":
        notes.append("Recognizable Visual Features is YES")
    return tuple(notes)


def _state_method(dataset: Dataset, options: Options) -> None:
    """State in the object how it was de-identified (PS3.15 E.1.1)."""
    dataset.PatientIdentityRemoved = "YES"
    methods = list(texts(dataset, "DeidentificationMethod"))
    dataset.DeidentificationMethod = [m for m in methods if m and m != _METHOD] + [_METHOD]
    items = list(dataset.get("DeidentificationMethodCodeSequence") or [])
    known = {str(item.get("CodeValue", "")) for item in items}
    added = [item for item in options.codes() if item.CodeValue not in known]
    dataset.DeidentificationMethodCodeSequence = [*items, *added]
    before = text(dataset, "LongitudinalTemporalInformationModified")
    if options.dates is not Dates.KEEP or not before:
        dataset.LongitudinalTemporalInformationModified = _MODIFIED[options.dates]


def _place(dataset: Dataset, subject: Subject) -> str:
    uids = [check_uid(text(dataset, name)) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    return "/".join((subject.pseudonym, *uids)) + ".dcm"


def _header(dataset: Dataset, parsed: Parsed) -> bytes:
    """Preamble of zeros, file meta information of our own, and the elements before the pixel data."""
    deflated = parsed.transfer_syntax == DeflatedExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian if deflated else parsed.transfer_syntax)
    meta.ImplementationClassUID = UID(derive_uid("implementation", "ctenrich", __version__))
    meta.ImplementationVersionName = f"CTENRICH_{__version__}"[:16]
    start, body = DicomBytesIO(), DicomBytesIO()
    with quiet():
        start.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(start, meta)
        body.is_implicit_VR = parsed.transfer_syntax == ImplicitVRLittleEndian
        body.is_little_endian = parsed.little_endian
        write_dataset(body, dataset)
    return bytes(start.getvalue() + body.getvalue())


class _Search:
    """Searches everything that is written, as far as it comes, for identifiers of the file."""

    def __init__(self, identifiers: Identifiers) -> None:
        self._identifiers = identifiers
        self._end = b""

    def check(self, part: bytes) -> None:
        """Search a part, and the place where it follows on the last one."""
        if self._identifiers.in_bytes(self._end + part):
            message = "an identifier would have stayed in the file, so nothing was written"
            raise InputError(Reason.IDENTITY_NOT_REMOVED, message)
        self._end = (self._end + part)[-256:]


def _pixel_data(parsed: Parsed, size: int) -> Iterator[bytes]:
    """Yield header and value of Pixel Data as they are stored, in parts; nothing that follows them."""
    if parsed.pixel_offset is None:
        return
    stream: Any = parsed.stream
    if isinstance(stream, InflatingReader):
        stream.allow(_MOST_INFLATED)
    head = 8 if parsed.transfer_syntax == ImplicitVRLittleEndian else 12
    stream.seek(parsed.pixel_offset - head)
    yield _exactly(stream, head)
    if parsed.pixel_length != UNDEFINED:
        if not isinstance(stream, InflatingReader) and parsed.pixel_offset + parsed.pixel_length > size:
            raise InputError(Reason.TRUNCATED, "the pixel data are shorter than their length")
        yield from _parts(stream, parsed.pixel_length)
        return
    while True:
        item = _exactly(stream, 8)
        group, element, length = struct.unpack("<HHI", item)
        yield item
        if (group, element) == (0xFFFE, 0xE0DD):
            return
        if (group, element) != (0xFFFE, 0xE000) or length == UNDEFINED:
            raise InputError(Reason.DECODE_ERROR, "the compressed pixel data are no sequence of fragments")
        yield from _parts(stream, length)


def _parts(stream: IO[bytes], length: int) -> Iterator[bytes]:
    while length > 0:
        part = _exactly(stream, min(length, _STEP))
        length -= len(part)
        yield part


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise InputError(Reason.TRUNCATED, "the file ends inside its pixel data")
    return data

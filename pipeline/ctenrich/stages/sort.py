"""Stage sort: identify the slices of a series by content, check their geometry, and put them in order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.dicom.ct_slice import HEADER_TAGS, same_image, slice_header
from ctenrich.dicom.other_files import kind_of_other_file
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.sop_classes import CT_IMAGE, MEDIA_STORAGE_DIRECTORY
from ctenrich.dicom.streams import InflatingReader
from ctenrich.dicom.values import text, texts, whole
from ctenrich.encode.context import read_source
from ctenrich.errors import EncodingError, GeometryError, IncompleteError, InputError, UnsafeInputError
from ctenrich.geometry import SliceHeader, StackGeometry, check_stack_geometry
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import FetchedFile, FetchedSeries, Issue, Severity, Slice, SortedSeries
from ctenrich.settings import Settings
from ctenrich.stages.folder_companions import MODALITIES, FolderFile, FolderSeries, belongs_to_series
from ctenrich.workspace import Workspace, check_uid

__all__ = ["sort_series"]

_KIND_REASONS = frozenset(
    {
        Reason.NOT_CT,
        Reason.LOCALIZER,
        Reason.DERIVED_REFORMATTED,
        Reason.MULTIFRAME,
        Reason.MIXED_ACQUISITIONS,
        Reason.NOT_HU,
        Reason.HU_RANGE,
    }
)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """One readable DICOM file."""

    file: FetchedFile
    path: Path
    header: SliceHeader
    series_instance_uid: str
    study_instance_uid: str
    identifiers: tuple[tuple[str, ...], ...]
    """Values of the attributes of `_IDENTIFIERS`."""
    instance_number: int | None


def sort_series(
    fetched: FetchedSeries, *, settings: Settings, workspace: Workspace, progress: Progress = SILENT
) -> SortedSeries:
    """Find the slices of the series among the files, and order them along the slice normal.

    Files are identified by the UIDs in them, not by name. Files of other series, RTSTRUCT, SEG, DICOMDIR and files that
    cannot be a slice are left out with a note. A file that may be a slice and cannot be read is an error.

    Parameters
    ----------
    fetched : FetchedSeries
        The files.
    settings : Settings
        ``settings.geometry``: tolerances, mm.
    workspace : Workspace
        Folder of the run.
    progress : Progress
        Receives one step per file.

    Returns
    -------
    SortedSeries
        Does not depend on the order, names or folders of the files; the caller saves it as ``sorted.json``.

    Raises
    ------
    InputError
        NO_CT, NOT_CT, LOCALIZER, DERIVED_REFORMATTED, MULTIFRAME, MIXED_ACQUISITIONS, NOT_HU, HU_RANGE, NOT_DICOM,
        TRUNCATED, CONFLICTING_DUPLICATE, MIXED_SERIES.
    IncompleteError
        INCOMPLETE: fewer instances than the catalog lists, or a file with a different instance.
    GeometryError
        The first reason that :func:`ctenrich.geometry.check_stack_geometry` found; the message lists all of them.
    UnsafeInputError
        UNSAFE_IDENTIFIER, DECOMPRESSION_BOMB.
    """
    uid = check_uid(fetched.series_instance_uid)
    issues: list[Issue] = list(fetched.issues)
    progress.start("sort", len(fetched.files))
    found = _read_all(fetched, workspace, issues, progress)
    progress.finish("sort")
    ours = [f for f in found if f.series_instance_uid == uid]
    if not ours:
        text_ = "no file of this series" if any(f.header.modality == "CT" for f in found) else "no CT image"
        raise InputError(Reason.NO_CT, f"among {len(fetched.files)} files there is {text_}")
    slices = _without_duplicates(ours, issues)
    _check_complete(slices, fetched)
    verdict = check_stack_geometry([f.header for f in slices], settings.geometry)
    if not verdict.ok:
        _raise_geometry_error(verdict)
    _check_identity(slices)
    issues += _acquisition_notes(verdict, uid)
    series = _make_series(fetched, [slices[x] for x in verdict.order], verdict, issues)
    _check_archive_identity(series, workspace)
    others = [f for f in found if f.series_instance_uid != uid]
    return _with_companions(series, fetched, others, workspace, issues)


def _read_all(fetched: FetchedSeries, workspace: Workspace, issues: list[Issue], progress: Progress) -> list[_Found]:
    # the result must not depend on the order of the files
    files = sorted(fetched.files, key=lambda f: (f.sha256, f.path))
    found: list[_Found] = []
    with quiet():
        for file in files:
            path = workspace.resolve(fetched.series_instance_uid, file.path)
            item = _read_one(file, path, issues)
            if item is not None:
                found.append(item)
            progress.advance("sort")
    return found


def _read_one(file: FetchedFile, path: Path, issues: list[Issue]) -> _Found | None:
    kind = kind_of_other_file(path)
    if kind is not None and not file.sop_instance_uid:
        issues.append(Issue("sort.other_file", Severity.NOTE, _file_label(file), f"left aside: {kind}"))
        return None
    try:
        with open_dicom(path, tags=HEADER_TAGS) as parsed:
            data = parsed.dataset
            if (
                text(data, "SOPClassUID") == ""
                and text(parsed.dataset.file_meta, "MediaStorageSOPClassUID") == MEDIA_STORAGE_DIRECTORY
            ):
                issues.append(Issue("sort.dicomdir", Severity.NOTE, _file_label(file), "left aside: a DICOMDIR"))
                return None
            header = slice_header(data)
            series_uid = text(data, "SeriesInstanceUID")
            if header.modality in {"CT", ""} or header.sop_class_uid == CT_IMAGE:
                size = 0 if isinstance(parsed.stream, InflatingReader) else file.size
                _check_pixels(parsed.pixel_offset, parsed.pixel_length, size)
                if not series_uid:
                    raise InputError(Reason.NOT_DICOM, "an image without Series Instance UID")
                check_uid(series_uid)
            number = whole(data, "InstanceNumber")
            study_uid = text(data, "StudyInstanceUID")
            identifiers = tuple(texts(data, keyword) for keyword in _IDENTIFIERS)
    except InputError as error:
        raise type(error)(error.reason, f"{_file_label(file)}: {error.message}", _HASH_HINT) from error
    if file.sop_instance_uid and header.sop_instance_uid != file.sop_instance_uid:
        message = f"{_file_label(file)} does not hold the instance that the catalog lists"
        raise IncompleteError(Reason.INCOMPLETE, message, _HASH_HINT)
    return _Found(
        file=file,
        path=path,
        header=header,
        series_instance_uid=series_uid,
        study_instance_uid=study_uid,
        identifiers=identifiers,
        instance_number=number,
    )


_HASH_HINT = "fetched.json lists the hash of every file"


def _check_pixels(offset: int | None, length: int, size: int) -> None:
    """Check that a file is long enough for its native pixel data (`size` 0: the size is not known)."""
    if offset is None:
        raise InputError(Reason.TRUNCATED, "an image without pixel data")
    if size and length != 0xFFFFFFFF and offset + length > size:
        raise InputError(
            Reason.TRUNCATED, f"the file ends {offset + length - size} bytes before the end of its pixel data"
        )


def _file_label(file: FetchedFile) -> str:
    """Name of a file in messages: its hash, because file names may contain a patient's name."""
    return f"file sha256:{file.sha256[:12]}"


def _without_duplicates(found: Sequence[_Found], issues: list[Issue]) -> list[_Found]:
    """Keep each SOP Instance UID once; copies with the same content are dropped with a note."""
    kept: dict[str, _Found] = {}
    for item in found:
        uid = check_uid(item.header.sop_instance_uid)
        first = kept.setdefault(uid, item)
        if first is item:
            continue
        if first.file.sha256 != item.file.sha256 and not same_image(first.path, item.path):
            raise InputError(Reason.CONFLICTING_DUPLICATE, f"two different images have the SOP Instance UID {uid}")
        issues.append(Issue("sort.duplicate", Severity.NOTE, uid, "an identical copy was dropped"))
    return list(kept.values())


def _check_complete(slices: Sequence[_Found], fetched: FetchedSeries) -> None:
    present = {s.header.sop_instance_uid for s in slices}
    listed = {f.sop_instance_uid for f in fetched.files if f.sop_instance_uid}
    expected = fetched.expected_instances
    missing = max(len(listed - present), (expected or 0) - len(present))
    if missing > 0:
        total = max(expected or 0, len(listed))
        raise IncompleteError(Reason.INCOMPLETE, f"{missing} of {total} instances of the series are missing")


def _raise_geometry_error(verdict: StackGeometry) -> None:
    first = verdict.reasons[0]
    kind = InputError if first in _KIND_REASONS else GeometryError
    others = ", ".join(r.value for r in verdict.reasons[1:])
    mixed = "; ".join(str(split) for split in verdict.splits if split.interleaved)
    groups = f" {mixed}." if first is Reason.MIXED_ACQUISITIONS else ""
    raise kind(first, first.sentence + groups + (f" Also: {others}." if others else ""))


_VALID_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_IDENTIFIERS = {
    "PatientID": ("Patient ID", 64),
    "IssuerOfPatientID": ("Issuer of Patient ID", 64),
    "StudyID": ("Study ID", 16),
    "AccessionNumber": ("Accession Number", 16),
}
"""Identifiers that every object keeps: name, and longest value (PS3.5 6.2, LO and SH)."""
_NOT_IN_TEXT = re.compile("[\\\\\x00-\x1f\x7f\ufffd]")
"""Backslash, control characters, and what a decoder puts in place of bytes that are no character."""


def _check_identity(slices: Sequence[_Found]) -> None:
    """Check what every object of the series inherits: valid UIDs (PS3.5 9.1) and identifiers, one patient and study."""
    for item in slices:
        h = item.header
        for name in (item.study_instance_uid, item.series_instance_uid, h.sop_instance_uid, h.frame_of_reference_uid):
            if len(name) > 64 or _VALID_UID.fullmatch(name) is None:
                message = f"a UID of {len(name)} characters in {_file_label(item.file)} is not valid"
                raise UnsafeInputError(Reason.UNSAFE_IDENTIFIER, message, _HASH_HINT)
        for (name, longest), values in zip(_IDENTIFIERS.values(), item.identifiers, strict=True):
            if len(values) > 1 or any(len(v) > longest or _NOT_IN_TEXT.search(v) for v in values):
                message = f"the {name} holds several values, more than {longest} characters or invalid ones"
                raise UnsafeInputError(Reason.UNSAFE_IDENTIFIER, message, f"correct the {name} in the source")
    if len({(item.study_instance_uid, item.identifiers[0]) for item in slices}) > 1:
        raise InputError(Reason.MIXED_SERIES, "the slices belong to several patients or studies")


def _check_archive_identity(series: SortedSeries, workspace: Workspace) -> None:
    """Check the identity that every object copies from the first slice, before anything is computed.

    A slice whose header cannot be read in that way is left to the encoder.
    """
    try:
        read_source(series, workspace)
    except EncodingError as error:
        raise UnsafeInputError(error.reason, error.message, error.hint) from error
    except Exception:  # noqa: BLE001 - pydicom raises many kinds for values that no rule of this stage needs
        return


def _acquisition_notes(verdict: StackGeometry, uid: str) -> list[Issue]:
    """A note for each attribute whose groups of slices follow one another, as in step and shoot."""
    return [
        Issue("sort.acquisitions", Severity.NOTE, uid, f"groups of slices follow one another: {split}")
        for split in verdict.splits
        if not split.interleaved
    ]


def _make_series(
    fetched: FetchedSeries, ordered: Sequence[_Found], verdict: StackGeometry, issues: list[Issue]
) -> SortedSeries:
    digest = hashlib.sha256()
    for item in ordered:
        digest.update(f"{item.header.sop_instance_uid} {item.file.sha256}\n".encode())
    first = ordered[0].header
    assert verdict.row_cosines is not None
    assert verdict.column_cosines is not None
    assert verdict.pixel_spacing is not None
    assert verdict.spacing is not None
    return SortedSeries(
        study_instance_uid=fetched.study_instance_uid,
        series_instance_uid=fetched.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        slices=tuple(_make_slice(item, d) for item, d in zip(ordered, verdict.distances, strict=True)),
        row_cosines=verdict.row_cosines,
        column_cosines=verdict.column_cosines,
        pixel_spacing=verdict.pixel_spacing,
        slice_spacing=verdict.spacing,
        rows=first.rows or 0,
        columns=first.columns or 0,
        source_sha256=digest.hexdigest(),
        issues=tuple(issues),
    )


def _make_slice(item: _Found, distance: float) -> Slice:
    h = item.header
    assert h.position is not None
    x, y, z = h.position
    return Slice(h.sop_instance_uid, h.sop_class_uid, item.file.path, (x, y, z), distance, item.instance_number)


def _with_companions(
    series: SortedSeries,
    fetched: FetchedSeries,
    others: Sequence[_Found],
    workspace: Workspace,
    issues: list[Issue],
) -> SortedSeries:
    """Add the companions that the cohort lists, and those in the same folder that belong to the series."""
    named = {f.sha256: f.path for f in sorted(fetched.companions, key=lambda f: f.path)}
    files = {
        o.file.sha256: FolderFile(path=o.path, series_instance_uid=o.series_instance_uid, header=o.header)
        for o in others
    }
    folder = FolderSeries.of(list(files.values()))
    found = {
        o.file.sha256: o.file.path
        for o in others
        if o.header.modality in MODALITIES
        and o.file.sha256 not in named
        and belongs_to_series(files[o.file.sha256], series, folder, issues)
    }
    left = sum(o.file.sha256 not in found and o.file.sha256 not in named for o in others)
    if left:
        issues.append(Issue("sort.other_series", Severity.NOTE, "folder", f"{left} files of other series left aside"))
    paths = (*(p for _, p in sorted(named.items())), *(p for _, p in sorted(found.items())))
    return replace(series, companions=paths, issues=tuple(issues))

"""The files of a publication: of a run (objects, structure sets, sources) or of a folder of DICOM files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctenrich.dicom.reader import find_data_set, open_dicom
from ctenrich.dicom.sop_classes import MEDIA_STORAGE_DIRECTORY, RT_STRUCTURE_SET
from ctenrich.dicom.values import text
from ctenrich.errors import CtenrichError, InputError, UsageError, count
from ctenrich.publish.options import Content, PublishOptions
from ctenrich.reasons import Reason
from ctenrich.records import FetchedSeries, SortedSeries
from ctenrich.review.store import ReviewStore
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, check_uid, files_below, sha256_of_file

__all__ = ["Publication", "PublishedFile", "Unavailable", "gather"]

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "StudyInstanceUID", "SeriesInstanceUID", "PatientIdentityRemoved",
)  # fmt: skip
_RUN_FIRST = "run it first"


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file that is sent."""

    path: Path
    place: str
    """Name at the target, made of identifiers: names of source files may hold those of patients."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    modality: str
    transfer_syntax: str
    """That of the data set, see :func:`ctenrich.dicom.reader.find_data_set`."""
    data_start: int
    """Offset of the first byte of the data set."""
    restated: bool
    """Whether the file meta information is missing, incomplete or wrong, so that other one is sent."""
    identity_removed: bool
    """Whether Patient Identity Removed (0012,0062) is YES."""
    sha256: str = ""
    """SHA-256 by the run's record; empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Unavailable:
    """An object or a series that cannot be sent."""

    name: str
    """SOP or Series Instance UID."""
    reason: Reason
    detail: str
    modality: str = ""
    series_instance_uid: str = ""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is sent, and what cannot be."""

    source: Workspace | Path
    """The run, or the folder of DICOM files."""
    files: tuple[PublishedFile, ...]
    unavailable: tuple[Unavailable, ...] = ()
    notes: tuple[str, ...] = ()


def gather(source: Workspace | Path, options: PublishOptions | None = None) -> Publication:
    """List the files of a publication, with what their headers state.

    Parameters
    ----------
    source : Workspace or Path
        A run, or any folder of DICOM files, of which everything is sent.
    options : PublishOptions, optional
        Which files of a run are sent; default: its objects.

    Returns
    -------
    Publication
        Sources before structure sets and objects; each SOP Instance UID once.

    Raises
    ------
    UsageError
        NOT_PREPARED if a run has nothing of what was asked for, NOT_ACCEPTED if nothing is accepted of what it has;
        NOT_FOUND, EMPTY_INPUT for a folder; BAD_PARAMETER for one that holds a run or is part of one.
    """
    if isinstance(source, Workspace):
        return _Run(source, options or PublishOptions()).publication()
    return _of_folder(Path(source))


@dataclass(kw_only=True)
class _Found:
    files: list[PublishedFile] = field(default_factory=list)
    unavailable: list[Unavailable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Run:
    """Gathers the files of a run."""

    def __init__(self, workspace: Workspace, options: PublishOptions) -> None:
        self._workspace, self._options = workspace, options
        self._store = SeriesStore(workspace)
        self._accepted = self._accepted_folders() if options.accepted_only else None

    def publication(self) -> Publication:
        """All that was asked for."""
        found = _Found()
        parts = {
            Content.SOURCES: self._sources,
            Content.STRUCTURE_SETS: self._structure_sets,
            Content.OBJECTS: self._objects,
        }
        for content, part in parts.items():
            if content in self._options.what:
                part(found)
        files, conflicts = _once_each(found.files)
        return Publication(
            source=self._workspace,
            files=tuple(files),
            unavailable=(*found.unavailable, *conflicts),
            notes=tuple(found.notes),
        )

    def _accepted_folders(self) -> frozenset[Path]:
        accepted = ReviewStore(self._workspace).accepted()
        return frozenset(
            self._store.folder(uid, product)
            for uid in {uid for uid, _ in accepted}
            for product in self._store.products(uid)
            if (uid, str(product)) in accepted
        )

    def _check_accepted(self, kept: Sequence[object]) -> None:
        if not kept:
            hint = "review the products in the report, then: ctenrich review import RUN FILE"
            raise UsageError(Reason.NOT_ACCEPTED, "no reviewer has accepted a product of the run", hint)

    # ------------------------------------------------------------ results

    def _objects(self, found: _Found) -> None:
        paths = list(self._workspace.object_files())
        if not paths:
            raise UsageError(Reason.NOT_PREPARED, "the run has no objects to publish", _RUN_FIRST)
        if self._accepted is not None:
            paths = [path for path in paths if path.parents[1] in self._accepted]
            self._check_accepted(paths)
        for path in paths:
            _add(found, path, path.relative_to(self._workspace.root).as_posix())

    def _structure_sets(self, found: _Found) -> None:
        paths = sorted((self._workspace.root / "export").glob("*/*.dcm"))
        if not paths:
            hint = "write them with: ctenrich export RUN rtstruct"
            raise UsageError(Reason.NOT_PREPARED, "the run has no structure sets of its results", hint)
        if self._accepted is not None:
            accepted = {(folder.parent.name, folder.name) for folder in self._accepted}
            paths = [path for path in paths if (path.parent.name, path.stem) in accepted]
            self._check_accepted(paths)
        for path in paths:
            place = f"structure-sets/{path.parent.name}/{path.name}"
            _add(found, path, place)
            if found.files and found.files[-1].path == path and found.files[-1].sop_class_uid != RT_STRUCTURE_SET:
                found.files.pop()
                found.notes.append(f"{place} is no RT Structure Set and is not sent")

    # ------------------------------------------------------------ sources

    def _sources(self, found: _Found) -> None:
        uids = self._store.series()
        if self._accepted is not None:
            uids = [uid for uid in uids if any(path.parent.name == uid for path in self._accepted)]
            self._check_accepted(uids)
        if not uids:
            raise UsageError(Reason.NOT_PREPARED, "the run has no series yet", _RUN_FIRST)
        for uid in uids:
            self._source_files(uid, found)

    def _source_files(self, uid: str, found: _Found) -> None:
        """Files of one series and of its companions; none of its images if one of them is missing."""
        try:
            fetched = self._store.fetched(uid)
        except CtenrichError as error:
            text = "its source files are not known: it has not been fetched, or could not be"
            found.unavailable.append(Unavailable(name=uid, reason=error.reason, detail=text, series_instance_uid=uid))
            return
        images, others = _Found(), 0
        source = f"{self._workspace.series_path(uid)}/source"
        companions = {str(self._workspace.resolve(uid, path)) for path in self._companions_of(uid)}
        for file in fetched.files:
            path = self._workspace.resolve(uid, file.path)
            one = _add(images, path, "", sha256=file.sha256, name=file.sop_instance_uid or uid)
            if one is not None and str(path) in companions:
                images.files[-1] = replace(one, place=f"{source}/companions/{_file_name(one)}")
            elif one is not None and one.series_instance_uid != uid:
                images.files.pop()
                others += 1
            elif one is not None:
                images.files[-1] = replace(one, place=f"{source}/{_file_name(one)}")
        if others:
            found.notes.append(f"{count(others, 'file')} of other series beside series {uid}: not sent")
        if images.unavailable:
            text = (
                f"{len(images.unavailable)} of its {count(len(fetched.files), 'file')} cannot be read "
                f"({images.unavailable[0].detail}): none of them is sent"
            )
            reason = images.unavailable[0].reason
            found.unavailable.append(Unavailable(name=uid, reason=reason, detail=text, series_instance_uid=uid))
        else:
            found.files += images.files
        for file in fetched.companions:
            path = self._workspace.resolve(uid, file.path)
            one = _add(found, path, "", sha256=file.sha256, name=file.sop_instance_uid or file.sha256[:32])
            if one is not None:
                found.files[-1] = replace(one, place=f"{source}/companions/{_file_name(one)}")
        self._not_fetched(fetched, found)

    def _companions_of(self, uid: str) -> tuple[str, ...]:
        series = self._store.find_valid(SortedSeries, uid)
        return series.companions if series else ()

    def _not_fetched(self, fetched: FetchedSeries, found: _Found) -> None:
        for issue in fetched.issues:
            if issue.rule == "fetch.companion":
                found.unavailable.append(
                    Unavailable(
                        name=issue.object,
                        reason=Reason.INCOMPLETE,
                        detail=issue.message,
                        series_instance_uid=fetched.series_instance_uid,
                    )
                )


def _of_folder(folder: Path) -> Publication:
    """All DICOM files below a folder; its log is beside it."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise UsageError(
            Reason.NOT_FOUND, f"there is no folder {folder.name}", "name a run, or a folder of DICOM files"
        )
    runs = [*folder.glob("run.json"), *folder.glob("*/run.json"), *folder.glob("*/*/run.json")]
    if runs or any((parent / "run.json").is_file() for parent in folder.parents):
        hint = "name the run, and with --what what of it is sent"
        raise UsageError(Reason.BAD_PARAMETER, f"{folder.name} holds a run, or is part of one", hint)
    found, others = _Found(), 0
    for number, (path, _) in enumerate(files_below(folder), start=1):
        try:
            one = _read_header(path)
            if one.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
                others += 1
                continue
            found.files.append(replace(one, place=f"{check_uid(one.series_instance_uid)}/{_file_name(one)}"))
        except CtenrichError as error:
            if error.reason is Reason.NOT_DICOM:
                others += 1
                continue
            detail = f"{error.message} (file {number} of the folder by path)"  # the path may hold a patient's name
            found.unavailable.append(Unavailable(name=f"file {number}", reason=error.reason, detail=detail))
    if not found.files and not found.unavailable:
        raise UsageError(Reason.EMPTY_INPUT, f"{folder.name} holds no DICOM file")
    notes = (f"not sent: {count(others, 'file')} without a DICOM object",) if others else ()
    files, conflicts = _once_each(found.files)
    return Publication(
        source=folder,
        files=tuple(files),
        unavailable=(*found.unavailable, *conflicts),
        notes=notes,
    )


def _file_name(file: PublishedFile) -> str:
    return f"{check_uid(file.sop_instance_uid)}.dcm"


def _add(found: _Found, path: Path, place: str, *, sha256: str = "", name: str = "") -> PublishedFile | None:
    """Read the header of a file and add it, or why it cannot be sent."""
    try:
        one = replace(_read_header(path), place=place, sha256=sha256)
        _file_name(one)
    except CtenrichError as error:
        detail = "the file is not there any more" if not path.exists() else error.message
        found.unavailable.append(Unavailable(name=name or path.stem, reason=error.reason, detail=detail))
        return None
    found.files.append(one)
    return one


def _read_header(path: Path) -> PublishedFile:
    with open_dicom(path, tags=_TAGS) as parsed:
        data = parsed.dataset
    with path.open("rb") as handle:
        start = find_data_set(handle)
        offset = handle.tell()
    values = {tag: text(data, tag) for tag in _TAGS}
    meta = start.meta
    if not values["SOPClassUID"] or not values["SOPInstanceUID"]:
        raise InputError(Reason.NOT_DICOM, "a file states no SOP Class UID or SOP Instance UID")
    as_stated = (
        not start.bare
        and str(meta.get("TransferSyntaxUID", "")) == start.syntax
        and str(meta.get("MediaStorageSOPClassUID", "")) == values["SOPClassUID"]
        and str(meta.get("MediaStorageSOPInstanceUID", "")) == values["SOPInstanceUID"]
    )
    return PublishedFile(
        path=path,
        place="",
        sop_class_uid=values["SOPClassUID"],
        sop_instance_uid=values["SOPInstanceUID"],
        series_instance_uid=values["SeriesInstanceUID"],
        study_instance_uid=values["StudyInstanceUID"],
        modality=values["Modality"],
        transfer_syntax=start.syntax,
        data_start=offset,
        restated=not as_stated,
        identity_removed=values["PatientIdentityRemoved"] == "YES",
    )


def _once_each(files: Iterable[PublishedFile]) -> tuple[list[PublishedFile], list[Unavailable]]:
    """Each SOP Instance UID once; none of two files that share one and differ."""
    by_uid: dict[str, list[PublishedFile]] = {}
    for file in files:
        by_uid.setdefault(file.sop_instance_uid, []).append(file)
    kept, conflicts = [], []
    for uid, own in by_uid.items():
        if len(own) == 1 or len({file.sha256 or sha256_of_file(file.path) for file in own}) == 1:
            kept.append(own[0])
            continue
        conflicts.append(
            Unavailable(
                name=uid,
                reason=Reason.CONFLICTING_DUPLICATE,
                detail=f"{len(own)} different files have this SOP Instance UID: none of them is sent",
                modality=own[0].modality,
                series_instance_uid=own[0].series_instance_uid,
            )
        )
    return kept, conflicts

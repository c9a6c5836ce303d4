"""Written objects -> files of other tools: masks and maps as NIfTI or NRRD, measurements as CSV.

What is exported comes from the DICOM objects, never from the arrays they were made of. Objects of other makers are
read in the same way, beside a folder with their source images where there is one. Every object has one outcome.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ctenrich import __version__
from ctenrich.dicom.mapped_images import read_mapped_images
from ctenrich.dicom.parametric_map import read_map
from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.series import SourceFolder
from ctenrich.dicom.sop_classes import (
    PARAMETRIC_MAP,
    REAL_WORLD_VALUE_MAPPING,
    SEGMENTATION_CLASSES,
    is_structured_report,
)
from ctenrich.dicom.sr import read_sr, rows_of
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.dcmqi_masks import write_dcmqi_masks
from ctenrich.publish.dcmqi_reports import write_dcmqi_report
from ctenrich.publish.map_files import write_map
from ctenrich.publish.mask_files import write_masks
from ctenrich.publish.planned_objects import PlannedObject, objects_of_files, objects_of_run
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity, SortedSeries, State
from ctenrich.results.csv_cells import csv_cell
from ctenrich.review.store import ReviewStore
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegSettings
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["FORMATS", "Export", "ExportedObject", "export_objects", "export_run"]

FORMATS = ("nifti", "nrrd", "csv", "dcmqi")
_IMAGE_FORMATS = ("nifti", "nrrd")
_NEEDS_IMAGES = "its values are those of images: name their folder with --source"
_COLUMNS = (
    *(
        "patient_id",
        "series_instance_uid",
        "product",
        "series_description",
        "sr_instance_uid",
        "group",
        "tracking_id",
        "tracking_uid",
    ),
    *("segment", "landmark", "region"),
    *("finding", "finding_site", "finding_site_code", "laterality", "topographical_modifier"),
    *("segment_instance_uid", "segment_number", "source_series_uid", "source_image_uid"),
    *("quantity", "quantity_code", "quantity_scheme", "value", "unit", "derivation", "qualifier"),
    *("evaluation", "evaluation_code", "algorithm"),
)

_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the disk that no other object of the export would escape."""
_TABLE = "measurements.csv"


@dataclass(frozen=True, kw_only=True)
class ExportedObject:
    """Outcome of one object."""

    path: Path
    """Its file."""
    name: str
    """The file relative to the folder that was named, or to the run."""
    kind: str
    """Name of its SOP class; empty where the file cannot be read."""
    state: State
    """DONE, SKIPPED (an object of another kind, or without a measurement) or FAILED."""
    reason: Reason | None = None
    message: str = ""
    files: tuple[Path, ...] = ()
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Export:
    """Outcomes of all objects of an export, in the order of their names."""

    objects: tuple[ExportedObject, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were written and exist, each once."""
        found = dict.fromkeys(path for item in self.objects for path in item.files)
        return tuple(path for path in found if path.is_file())

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Issues of all objects."""
        return tuple(issue for item in self.objects for issue in item.issues)

    def count(self, state: State) -> int:
        """Number of objects with this outcome."""
        return sum(item.state is state for item in self.objects)


class _Sources(Protocol):
    """The series that objects were made from."""

    @property
    def folder(self) -> SourceFolder | None:
        """Folder of images, if one was named."""

    def find_series(self, item: PlannedObject) -> tuple[SortedSeries | None, tuple[Issue, ...]]:
        """Series of an object, in order; None where there is none, with an issue where it does not fit."""

    def image_names(self, item: PlannedObject) -> Mapping[str, str]:
        """SOP Instance UID -> file name, of the images that an object may refer to."""


@dataclass(frozen=True)
class _RunSources:
    """Sources of the objects of a run: the sorted series."""

    store: SeriesStore
    workspace: Workspace
    folder: SourceFolder | None = None

    def find_series(self, item: PlannedObject) -> tuple[SortedSeries | None, tuple[Issue, ...]]:
        return self.store.find(SortedSeries, item.series), ()

    def image_names(self, item: PlannedObject) -> Mapping[str, str]:
        series = self.store.find(SortedSeries, item.series)
        if series is None:
            return {}
        paths = [self.workspace.resolve(item.series, s.path) for s in series.slices]
        folder = Path(os.path.commonpath([p.parent for p in paths]))
        return {s.sop_instance_uid: p.relative_to(folder).as_posix() for s, p in zip(series.slices, paths, strict=True)}


@dataclass(frozen=True)
class _FolderSources:
    """Sources of objects of any maker: the images of a folder, if one was named."""

    folder: SourceFolder | None

    def find_series(self, item: PlannedObject) -> tuple[SortedSeries | None, tuple[Issue, ...]]:
        if self.folder is None:
            return None, ()
        try:
            return self.folder.find_series(item.source_series, referenced=item.referenced), ()
        except CtenrichError as error:
            text = f"the source does not fit ({error.message}): the masks have the grid of their own frames"
            return None, (_issue(item, "SEG_SOURCE", Severity.WARNING, text),)

    def image_names(self, item: PlannedObject) -> Mapping[str, str]:
        return self.folder.names if self.folder is not None else {}


def export_run(
    workspace: Workspace,
    fmt: str,
    out: Path,
    *,
    limits: SegSettings | None = None,
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> Export:
    """Export all SEGs (``nifti``, ``nrrd``), all SRs (``csv``) or both (``dcmqi``) of a run.

    Each segment is written as ``OUT/<series>/<product>/<number>_<label>``, and all of them as one label map where they
    do not overlap, on the full grid of the source CT; ``segments.json`` beside them describes the segments.

    Parameters
    ----------
    workspace : Workspace
        The run.
    fmt : str
        ``nifti``, ``nrrd``, ``csv`` or ``dcmqi``.
    out : Path
        Folder to write to.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object.
    accepted_only : bool
        Whether only products are exported that reviewers have accepted; the others are skipped with NOT_ACCEPTED.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    Export
        One outcome per object of the run. The run's objects of the other kind (SRs where masks are exported) are not
        part of the export.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format.
    InputError
        NOT_PREPARED if the run holds no such object.
    """
    _check_format(fmt)
    store = SeriesStore(workspace)
    planned = [item for item in objects_of_run(workspace, store) if item.fault or _is_wanted(item, fmt)]
    if not planned:
        what = _kind_of(fmt)
        raise InputError(Reason.NOT_PREPARED, f"the run holds no {what} yet", "run the stages first")

    if accepted_only:
        accepted = ReviewStore(workspace).accepted()
        planned = [replace(item, withheld=(item.series, item.product) not in accepted) for item in planned]

    target = _Target(fmt=fmt, out=out, limits=limits or SegSettings())
    return _export(planned, target, _RunSources(store, workspace), progress)


def export_objects(
    paths: Sequence[Path],
    fmt: str,
    out: Path,
    *,
    source: Path | None = None,
    limits: SegSettings | None = None,
    progress: Progress = SILENT,
) -> Export:
    """Export SEG, Parametric Map, Real World Value Mapping and SR files of any maker.

    The files of an object are written below ``OUT/<folder>/<file name>``, where the folder is relative to the one that
    was named. Where two objects would share a name, the SOP Instance UID is added.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are searched. Files in a folder that are not DICOM are ignored.
    fmt : str
        ``nifti``, ``nrrd``, ``csv`` or ``dcmqi``.
    out : Path
        Folder to write to.
    source : Path, optional
        Folder with the series (CT, MR, PET; multi-frame too) that SEGs refer to. Without it, and where it does not fit,
        masks have the smallest grid that holds their frames; the latter is an issue. Parametric maps always have
        the grid of their frames. A Real World Value Mapping is skipped without it: its values are those of the images.
    limits : SegSettings, optional
        Limits of the grid and the masks of an object.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    Export
        One outcome per DICOM object: done, skipped (it is of another kind) or failed (damaged).

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format, NOT_FOUND for a path or source folder that does not exist.
    InputError
        NOT_FOUND if there is no such object; the message lists the kinds that there are.
    """
    _check_format(fmt)
    for path in (*paths, *((source,) if source else ())):
        if not path.exists():
            raise UsageError(
                Reason.NOT_FOUND, f"there is no {path}", "name a run's folder, or files or folders of DICOM"
            )
    planned = objects_of_files(paths)
    if not any(item.fault or _is_wanted(item, fmt, images=source is not None) for item in planned):
        what = _kind_of(fmt)
        kinds = Counter(item.kind for item in planned)
        held = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or "no DICOM object"
        raise InputError(Reason.NOT_FOUND, f"no {what} was found; there is {held}", _other_format(planned, fmt))
    sources = _FolderSources(SourceFolder(source) if source is not None and fmt != "csv" else None)
    return _export(planned, _Target(fmt=fmt, out=out, limits=limits or SegSettings()), sources, progress)


def _check_format(fmt: str) -> None:
    if fmt not in FORMATS:
        raise UsageError(Reason.BAD_PARAMETER, f"unknown format {fmt!r}", f"known: {', '.join(FORMATS)}")


def _is_wanted(item: PlannedObject, fmt: str, *, images: bool = False) -> bool:
    """Whether a format exports an object; mappings of images need the folder of the images."""
    is_report, is_seg = is_structured_report(item.sop_class), item.sop_class in SEGMENTATION_CLASSES
    is_map = item.sop_class == PARAMETRIC_MAP or (images and item.sop_class == REAL_WORLD_VALUE_MAPPING)
    return {"csv": is_report, "dcmqi": is_report or is_seg}.get(fmt, is_seg or is_map)


def _kind_of(fmt: str) -> str:
    return {"csv": "SR", "dcmqi": "SEG or SR"}.get(fmt, "SEG or parametric map")


def _other_format(planned: Iterable[PlannedObject], fmt: str) -> str:
    if fmt in _IMAGE_FORMATS and any(item.sop_class == REAL_WORLD_VALUE_MAPPING for item in planned):
        return _NEEDS_IMAGES
    other = "nifti" if fmt == "csv" else "csv"
    return f"the format {other} exports them" if any(_is_wanted(item, other) for item in planned) else ""


def _issue(item: PlannedObject, rule: str, severity: Severity, message: str) -> Issue:
    return Issue(rule, severity, item.sop_instance_uid or item.path.name, message, "ctenrich export", __version__)


# ---------------------------------------------------------------- exporting


@dataclass(frozen=True, kw_only=True)
class _Target:
    fmt: str
    out: Path
    limits: SegSettings
    names: Mapping[str, str] = field(default_factory=dict)
    """SOP Instance UID -> name of its file, of all objects of the export."""


def _export(planned: Sequence[PlannedObject], target: _Target, sources: _Sources, progress: Progress) -> Export:
    rows: list[dict[str, object]] = []
    outcomes = []
    target = replace(target, names={item.sop_instance_uid: item.name for item in planned if item.sop_instance_uid})
    progress.start("export", len(planned))
    for item in planned:
        outcomes.append(_one_outcome(item, target, sources, rows))
        progress.advance("export")
    if rows:
        _write_csv(target.out / _TABLE, rows)
    progress.finish("export")
    return Export(objects=tuple(outcomes))


def _one_outcome(
    item: PlannedObject, target: _Target, sources: _Sources, rows: list[dict[str, object]]
) -> ExportedObject:
    """Export one object; whatever is wrong with it ends this object only."""
    if item.withheld:
        return _outcome(item, State.SKIPPED, Reason.NOT_ACCEPTED, "the product is not accepted by review")
    if item.fault is not None:
        return _outcome(item, State.FAILED, item.fault.reason, item.fault.message)
    if not _is_wanted(item, target.fmt, images=sources.folder is not None):
        maps_images = target.fmt in _IMAGE_FORMATS and item.sop_class == REAL_WORLD_VALUE_MAPPING
        why = _NEEDS_IMAGES if maps_images else f"not a {_kind_of(target.fmt)}"
        return _outcome(item, State.SKIPPED, Reason.NOT_FOUND, f"{item.kind}: {why}")
    try:
        if target.fmt == "csv":
            return _add_rows(item, target.out, rows)
        if is_structured_report(item.sop_class):
            return _write_report(item, target, sources)
        if item.sop_class in {PARAMETRIC_MAP, REAL_WORLD_VALUE_MAPPING}:
            return _write_map(item, target, sources)
        return _write_seg(item, target, sources)
    except CtenrichError as error:
        text = f"{error.message}; {error.hint}" if error.hint else error.message
        return _outcome(item, State.FAILED, error.reason, text)
    except OSError as error:
        if error.errno in _FATAL:
            raise
        return _outcome(item, State.FAILED, Reason.IO_ERROR, error.strerror or type(error).__name__)
    except MemoryError:
        return _outcome(item, State.FAILED, Reason.OUT_OF_MEMORY, "its masks do not fit into memory")
    except Exception as error:  # noqa: BLE001  a damaged object is its own outcome, never the end of the others
        return _outcome(item, State.FAILED, Reason.DECODE_ERROR, f"the object is damaged ({type(error).__name__})")


def _write_seg(item: PlannedObject, target: _Target, sources: _Sources) -> ExportedObject:
    source, found = sources.find_series(item)
    decoded = read_seg(item.path, source, max_voxels=target.limits.max_voxels, max_bytes=target.limits.max_bytes)
    folder = target.out / item.target
    files, lost = (
        write_dcmqi_masks(item.path, decoded, folder)
        if target.fmt == "dcmqi"
        else (write_masks(decoded, target.fmt, folder), ())
    )
    return replace(_outcome(item, State.DONE), files=files, issues=(*found, *decoded.issues, *lost))


def _write_map(item: PlannedObject, target: _Target, sources: _Sources) -> ExportedObject:
    limit = target.limits.max_voxels
    if item.sop_class == PARAMETRIC_MAP:
        decoded = read_map(item.path, max_voxels=limit)
    else:
        assert sources.folder is not None
        decoded = read_mapped_images(item.path, sources.folder, max_voxels=limit)
    files = write_map(decoded, target.fmt, target.out / item.target)
    return replace(_outcome(item, State.DONE), files=files, issues=decoded.issues)


def _write_report(item: PlannedObject, target: _Target, sources: _Sources) -> ExportedObject:
    path = target.out / item.target / f"{item.path.stem}.json"
    lost = write_dcmqi_report(item.path, path, {**sources.image_names(item), **target.names})
    if lost is None:
        return _outcome(item, State.SKIPPED, Reason.NOT_FOUND, "a report without a measurement group of a segment")
    return replace(_outcome(item, State.DONE), files=(path,), issues=lost)


def _add_rows(item: PlannedObject, out: Path, rows: list[dict[str, object]]) -> ExportedObject:
    own = {"series_instance_uid": item.series, "product": item.product}
    mine = [{**own, "segment": item.segments.get(_number(row), ""), **row} for row in rows_of(read_sr(item.path))]
    rows += mine
    if not mine:
        return _outcome(item, State.SKIPPED, Reason.NOT_FOUND, "a report without a measurement group")
    return replace(_outcome(item, State.DONE), files=(out / _TABLE,))


def _number(row: dict[str, object]) -> int:
    number = row["segment_number"]
    return number if isinstance(number, int) else 0


def _outcome(item: PlannedObject, state: State, reason: Reason | None = None, message: str = "") -> ExportedObject:
    return ExportedObject(path=item.path, name=item.name, kind=item.kind, state=state, reason=reason, message=message)


def _write_csv(path: Path, rows: Iterable[dict[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: csv_cell(v) for k, v in row.items()} for row in rows)
    write_bytes(path, text.getvalue().encode("utf-8"))

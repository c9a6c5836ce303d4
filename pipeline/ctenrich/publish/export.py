"""Written objects -> files of other tools: masks as NIfTI or NRRD on the full grid of the CT, measurements as CSV.

What is exported comes from the DICOM objects, never from the arrays they were made of. Objects of other makers are
read in the same way, beside a folder with their source images where there is one. Every object has one outcome.
"""

from __future__ import annotations

import csv
import errno
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydicom.uid import UID

from ctenrich import __version__
from ctenrich.dicom.references import read_object_header
from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.series import SourceFolder
from ctenrich.dicom.sop_classes import (
    LABEL_MAP_SEGMENTATION,
    MEDIA_STORAGE_DIRECTORY,
    SEGMENTATION_CLASSES,
    is_structured_report,
)
from ctenrich.dicom.sr import read_sr, rows_of
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.mask_files import write_masks
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Product, SegmentMasks, Severity, SortedSeries, State
from ctenrich.results.csv_cells import csv_cell
from ctenrich.review.store import ReviewStore
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegSettings
from ctenrich.workspace import Workspace, check_uid, write_bytes

__all__ = ["FORMATS", "Export", "ExportedObject", "export_objects", "export_run"]

FORMATS = ("nifti", "nrrd", "csv")
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


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """An object before its export: its file, the folder it goes to, and why it cannot be read, if so."""

    path: Path
    name: str
    target: Path
    """Folder below the output folder."""
    series: str = ""
    product: str = ""
    segments: Mapping[int, str] = field(default_factory=dict)
    """Segment number -> key of mappings/segments.csv, of a product of a run."""
    sop_class: str = ""
    sop_instance_uid: str = ""
    source_series: str = ""
    referenced: frozenset[str] = frozenset()
    fault: CtenrichError | None = None
    withheld: bool = False
    """Whether the export is of accepted products only, and no reviewer has accepted this one."""

    @property
    def kind(self) -> str:
        if self.sop_class == LABEL_MAP_SEGMENTATION:
            return "Label Map Segmentation Storage"
        return UID(self.sop_class).name if self.sop_class else ""


_FindSource = Callable[[_Planned], tuple[SortedSeries | None, tuple[Issue, ...]]]


def export_run(
    workspace: Workspace,
    fmt: str,
    out: Path,
    *,
    limits: SegSettings | None = None,
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> Export:
    """Export all SEGs (``nifti``, ``nrrd``) or all SRs (``csv``) of a run.

    Each segment is written as ``OUT/<series>/<product>/<number>_<label>``, and all of them as one label map where they
    do not overlap, on the full grid of the source CT; ``segments.json`` beside them describes the segments.

    Parameters
    ----------
    workspace : Workspace
        The run.
    fmt : str
        ``nifti``, ``nrrd`` or ``csv``.
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
    planned = [item for item in _objects_of_run(workspace, store) if item.fault or _is_wanted(item, fmt)]
    if not planned:
        what = "SR" if fmt == "csv" else "SEG"
        raise InputError(Reason.NOT_PREPARED, f"the run holds no {what} yet", "run the stages first")

    if accepted_only:
        accepted = ReviewStore(workspace).accepted()
        planned = [replace(item, withheld=(item.series, item.product) not in accepted) for item in planned]

    def find_source(item: _Planned) -> tuple[SortedSeries | None, tuple[Issue, ...]]:
        return store.find(SortedSeries, item.series), ()

    return _export(planned, _Target(fmt, out, limits or SegSettings()), find_source, progress)


def export_objects(
    paths: Sequence[Path],
    fmt: str,
    out: Path,
    *,
    source: Path | None = None,
    limits: SegSettings | None = None,
    progress: Progress = SILENT,
) -> Export:
    """Export SEG and SR files of any maker.

    The files of an object are written below ``OUT/<folder>/<file name>``, where the folder is relative to the one that
    was named. Where two objects would share a name, the SOP Instance UID is added.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are searched. Files in a folder that are not DICOM are ignored.
    fmt : str
        ``nifti``, ``nrrd`` or ``csv``.
    out : Path
        Folder to write to.
    source : Path, optional
        Folder with the series (CT, MR, PET; multi-frame too) that SEGs refer to. Without it, and where it does not fit,
        masks have the smallest grid that holds their frames; the latter is an issue.
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
    planned = _planned_files(paths)
    if not any(item.fault or _is_wanted(item, fmt) for item in planned):
        what = "SR" if fmt == "csv" else "SEG"
        kinds = Counter(item.kind for item in planned)
        held = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or "no DICOM object"
        raise InputError(Reason.NOT_FOUND, f"no {what} was found; there is {held}", _other_format(planned, fmt))
    folder = SourceFolder(source) if source is not None and fmt != "csv" else None

    def find_source(item: _Planned) -> tuple[SortedSeries | None, tuple[Issue, ...]]:
        if folder is None:
            return None, ()
        try:
            return folder.find_series(item.source_series, referenced=item.referenced), ()
        except CtenrichError as error:
            text = f"the source does not fit ({error.message}): the masks have the grid of their own frames"
            return None, (_issue(item, "SEG_SOURCE", Severity.WARNING, text),)

    return _export(planned, _Target(fmt, out, limits or SegSettings()), find_source, progress)


def _check_format(fmt: str) -> None:
    if fmt not in FORMATS:
        raise UsageError(Reason.BAD_PARAMETER, f"unknown format {fmt!r}", f"known: {', '.join(FORMATS)}")


def _is_wanted(item: _Planned, fmt: str) -> bool:
    return is_structured_report(item.sop_class) if fmt == "csv" else item.sop_class in SEGMENTATION_CLASSES


def _other_format(planned: Iterable[_Planned], fmt: str) -> str:
    other = "nifti" if fmt == "csv" else "csv"
    return f"the format {other} exports them" if any(_is_wanted(item, other) for item in planned) else ""


def _issue(item: _Planned, rule: str, severity: Severity, message: str) -> Issue:
    return Issue(rule, severity, item.sop_instance_uid or item.path.name, message, "ctenrich export", __version__)


# ---------------------------------------------------------------- planning


def _objects_of_run(workspace: Workspace, store: SeriesStore) -> Iterator[_Planned]:
    taken: set[str] = set()
    for uid in store.series():
        made_by = {product.folder: _product_facts(store, uid, product) for product in store.products(uid)}
        for path in sorted(store.folder(uid).glob("*/objects/*.dcm")):
            product = path.parents[1].name
            item = _read_header(path, path.relative_to(workspace.root).as_posix(), Path(uid, product))
            if item is None:
                continue
            facts = made_by.get(product, _ProductFacts(product))
            kept = replace(item, series=uid, product=facts.key, segments=facts.segments)
            if kept.sop_class in SEGMENTATION_CLASSES and kept.target.as_posix() in taken:
                kept = replace(kept, target=kept.target / path.stem)
            if kept.sop_class in SEGMENTATION_CLASSES:
                taken.add(kept.target.as_posix())
            yield kept


class _ProductFacts(NamedTuple):
    """What the objects of a product have in common."""

    key: str
    """Key of the product, as all tables spell it."""
    segments: Mapping[int, str] = MappingProxyType({})
    """Segment number -> key of mappings/segments.csv."""


def _product_facts(store: SeriesStore, uid: str, product: Product) -> _ProductFacts:
    masks = store.find_valid(SegmentMasks, uid, product)
    return _ProductFacts(str(product), {s.number: s.name for s in masks.segments} if masks else {})


def _planned_files(paths: Sequence[Path]) -> list[_Planned]:
    """Objects of the named files and folders, each with a folder of its own."""
    taken: set[str] = set()
    out = []
    for top in paths:
        for path in sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else (top,):
            name = path.relative_to(top) if top.is_dir() else Path(path.name)
            item = _read_header(path, name.as_posix(), name.with_suffix("") if name.suffix == ".dcm" else name)
            if item is None and path == top:
                fault = InputError(Reason.NOT_DICOM, f"{path.name} is not DICOM")
                item = _Planned(path=path, name=path.name, target=name, fault=fault)
            if item is None or item.sop_class == MEDIA_STORAGE_DIRECTORY:
                continue
            target = _free_name(item, taken)
            taken.add(target.as_posix().casefold())
            out.append(replace(item, product=target.as_posix(), target=target))
    return out


def _free_name(item: _Planned, taken: set[str]) -> Path:
    """A folder that no other object has, also where file systems do not tell upper from lower case."""
    target = item.target
    if target.as_posix().casefold() in taken and item.sop_instance_uid:
        target = target.with_name(f"{target.name}_{item.sop_instance_uid}")
    number = 2
    first = target
    while target.as_posix().casefold() in taken:
        target = first.with_name(f"{first.name}_{number}")
        number += 1
    return target


def _read_header(path: Path, name: str, target: Path) -> _Planned | None:
    """Header of an object; a fault where it is damaged; None for a file that is not DICOM."""
    try:
        head = read_object_header(path)
    except CtenrichError as error:
        return _Planned(path=path, name=name, target=target, fault=error)
    if head is None:
        return None
    return _Planned(
        path=path,
        name=name,
        target=target,
        sop_class=head.sop_class,
        sop_instance_uid=_uid_or_nothing(head.sop_instance_uid),
        source_series=head.source_series,
        referenced=head.referenced,
    )


def _uid_or_nothing(text: str) -> str:
    try:
        return check_uid(text)
    except CtenrichError:
        return ""


# ---------------------------------------------------------------- exporting


class _Target(NamedTuple):
    fmt: str
    out: Path
    limits: SegSettings


def _export(planned: Sequence[_Planned], target: _Target, find_source: _FindSource, progress: Progress) -> Export:
    rows: list[dict[str, object]] = []
    outcomes = []
    progress.start("export", len(planned))
    for item in planned:
        outcomes.append(_one_outcome(item, target, find_source, rows))
        progress.advance("export")
    if rows:
        _write_csv(target.out / _TABLE, rows)
    progress.finish("export")
    return Export(objects=tuple(outcomes))


def _one_outcome(
    item: _Planned, target: _Target, find_source: _FindSource, rows: list[dict[str, object]]
) -> ExportedObject:
    """Export one object; whatever is wrong with it ends this object only."""
    if item.withheld:
        return _outcome(item, State.SKIPPED, Reason.NOT_ACCEPTED, "the product is not accepted by review")
    if item.fault is not None:
        return _outcome(item, State.FAILED, item.fault.reason, item.fault.message)
    if not _is_wanted(item, target.fmt):
        what = "SR" if target.fmt == "csv" else "SEG"
        return _outcome(item, State.SKIPPED, Reason.NOT_FOUND, f"{item.kind}: not a {what}")
    try:
        if target.fmt == "csv":
            return _add_rows(item, target.out, rows)
        source, found = find_source(item)
        limits = target.limits
        decoded = read_seg(item.path, source, max_voxels=limits.max_voxels, max_bytes=limits.max_bytes)
        files = write_masks(decoded, target.fmt, target.out / item.target)
        return replace(_outcome(item, State.DONE), files=files, issues=(*found, *decoded.issues))
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


def _add_rows(item: _Planned, out: Path, rows: list[dict[str, object]]) -> ExportedObject:
    own = {"series_instance_uid": item.series, "product": item.product}
    mine = [{**own, "segment": item.segments.get(_number(row), ""), **row} for row in rows_of(read_sr(item.path))]
    rows += mine
    if not mine:
        return _outcome(item, State.SKIPPED, Reason.NOT_FOUND, "a report without a measurement group")
    return replace(_outcome(item, State.DONE), files=(out / _TABLE,))


def _number(row: dict[str, object]) -> int:
    number = row["segment_number"]
    return number if isinstance(number, int) else 0


def _outcome(item: _Planned, state: State, reason: Reason | None = None, message: str = "") -> ExportedObject:
    return ExportedObject(path=item.path, name=item.name, kind=item.kind, state=state, reason=reason, message=message)


def _write_csv(path: Path, rows: Iterable[dict[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: csv_cell(v) for k, v in row.items()} for row in rows)
    write_bytes(path, text.getvalue().encode("utf-8"))

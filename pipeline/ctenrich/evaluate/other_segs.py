"""SEGs of any maker -> masks on the grid of the CT that they refer to, with the names of mappings/segments.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ctenrich.codes.mappings import Code, SegmentCode, find_segment, general_name, load_segments, numbered_name
from ctenrich.dicom.references import ObjectHeader, read_object_header, sources_of_frames
from ctenrich.dicom.seg import DecodedSeg, DecodedSegment, read_seg
from ctenrich.dicom.series import SourceFolder
from ctenrich.dicom.sop_classes import SEGMENTATION_CLASSES
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegSettings
from ctenrich.workspace import input_files

__all__ = ["OtherSeg", "read_other_segs", "structure_name"]


@dataclass(frozen=True, kw_only=True)
class OtherSeg:
    """One SEG of any maker: its masks on the grid of its series, or the reason why it is not compared."""

    name: str
    """Its path, as it was given."""
    series: SortedSeries | None = None
    decoded: DecodedSeg | None = field(default=None, repr=False)
    """None where it is not compared."""
    segments: tuple[tuple[int, str], ...] = ()
    """Number and structure of each segment."""
    reason: Reason | None = None
    message: str = ""
    issues: tuple[Issue, ...] = ()


class _Sources(Protocol):
    def find(self, head: ObjectHeader, path: Path) -> SortedSeries: ...


def read_other_segs(
    paths: Sequence[Path], *, store: SeriesStore | None, source: Path | None, limits: SegSettings | None = None
) -> tuple[OtherSeg, ...]:
    """Read SEGs of any maker on the grids of their series.

    Parameters
    ----------
    paths : sequence of Path
        SEG files, or folders that are searched; in a folder, other files are left out.
    store : SeriesStore, optional
        A run, whose series SEGs refer to.
    source : Path, optional
        Without a run: folder of the CT, MR or PET that SEGs refer to.
    limits : SegSettings, optional
        Limits of the grid and the masks of a SEG.

    Returns
    -------
    tuple of OtherSeg
        One outcome per SEG, in the order of their paths.

    Raises
    ------
    UsageError
        NOT_FOUND for a path or a source that does not exist, and for a folder without a SEG; BAD_PARAMETER if SEGs are
        named with neither a run nor a source, or with both.
    """
    if not paths:
        if store is None or source is not None:
            raise UsageError(Reason.BAD_PARAMETER, "no SEG is named", "name SEG files, or folders of SEGs")
        return ()
    if (store is None) == (source is None):
        message = "SEGs are compared on the CT of a run, or on that of --source"
        raise UsageError(Reason.BAD_PARAMETER, message, "name either a run's folder or --source FOLDER")
    for path in (*paths, *((source,) if source else ())):
        if not path.exists():
            raise UsageError(Reason.NOT_FOUND, f"there is no {path}", "name files or folders of DICOM")
    sources: _Sources = _OfRun(store) if store is not None else _OfFolder(SourceFolder(source or Path()))
    out = tuple(one for top in paths for one in _read_below(top, sources, limits or SegSettings()))
    if not out:
        raise UsageError(Reason.NOT_FOUND, f"there is no SEG in {', '.join(str(p) for p in paths)}")
    return out


def structure_name(segment: DecodedSegment) -> str:
    """Find the row of mappings/segments.csv that a segment of any maker denotes.

    The row of its label counts if property type and laterality do not contradict it; otherwise the only row with its
    codes (type, laterality, anatomic region and its laterality; SRT counts as the SCT code that replaced it), or the
    only one of them of the first revision; otherwise the row of its label, where no row has its codes.

    Parameters
    ----------
    segment : DecodedSegment
        As it was read.

    Returns
    -------
    str
        Key of the row; without one ``roi:`` and the normalised label.
    """
    by_label = find_segment(segment.label)
    if (
        by_label is not None
        and _agrees(segment.type, by_label.type)
        and _agrees(segment.laterality, by_label.laterality)
    ):
        return by_label.name
    coded = [row for row in load_segments().values() if _has_codes_of(row, segment)]
    first = [row for row in coded if row.revision == 1]
    if len(coded) == 1 or len(first) == 1:
        return (first or coded)[0].name
    return by_label.name if by_label is not None and not coded else general_name(segment.label)


def _agrees(theirs: Code | None, own: Code | None) -> bool:
    return theirs is None or _same_code(theirs, own)


def _has_codes_of(row: SegmentCode, segment: DecodedSegment) -> bool:
    mine = (row.type, row.laterality, row.region, row.region_modifier)
    theirs = (segment.type, segment.laterality, segment.region, segment.region_modifier)
    return all(_same_code(one, other) for one, other in zip(mine, theirs, strict=True))


def _same_code(one: Code | None, other: Code | None) -> bool:
    """Whether two codes denote one concept; pydicom knows the SCT code of an SRT code (PS3.16 table O-1)."""
    from pydicom.sr.coding import Code as PydicomCode

    if one is None or other is None:
        return one is other
    first, second = (PydicomCode(c.value, c.scheme, c.meaning) for c in (one, other))
    return bool(first == second)


# ---------------------------------------------------------------- the series of a SEG


class _OfRun:
    """Finds the series of a run that a SEG refers to."""

    def __init__(self, store: SeriesStore) -> None:
        self._series = {uid: store.find_valid(SortedSeries, uid) for uid in store.series()}
        self._owner = {
            item: uid for uid, one in self._series.items() if one is not None for item in one.sop_instance_uids
        }

    def find(self, head: ObjectHeader, path: Path) -> SortedSeries:
        chosen = head.source_series if head.source_series in self._series else self._by_images(head.referenced)
        if not chosen and not head.referenced:
            chosen = self._by_images(sources_of_frames(path))
        series = self._series.get(chosen)
        if chosen and series is None:
            raise InputError(Reason.NOT_PREPARED, "the run has not sorted the series that it refers to")
        if series is None:
            raise InputError(Reason.NO_REFERENCE, "it refers to no series of the run")
        return series

    def _by_images(self, referenced: frozenset[str]) -> str:
        owners = Counter(self._owner[uid] for uid in referenced if uid in self._owner)
        return owners.most_common(1)[0][0] if owners else ""


class _OfFolder:
    """Finds the series of a folder that a SEG refers to; its only one if it refers to none of them."""

    def __init__(self, folder: SourceFolder) -> None:
        self._folder = folder
        self._known: dict[tuple[str, frozenset[str]], SortedSeries] = {}

    def find(self, head: ObjectHeader, path: Path) -> SortedSeries:
        key = (head.source_series, head.referenced)
        if key not in self._known:
            self._known[key] = self._folder.find_series(head.source_series, referenced=head.referenced)
        return self._known[key]


# ---------------------------------------------------------------- reading


def _read_below(top: Path, sources: _Sources, limits: SegSettings) -> Iterator[OtherSeg]:
    """SEGs of a folder, or the one file."""
    for path in input_files(top):
        found = _read_one(path, sources, limits, named=path == top)
        if found is not None:
            yield found


def _read_one(path: Path, sources: _Sources, limits: SegSettings, *, named: bool) -> OtherSeg | None:
    """Read one SEG; None for a file of a folder that is not a SEG."""
    name = path.as_posix()
    try:
        head = read_object_header(path)
        if head is None or head.sop_class not in SEGMENTATION_CLASSES:
            if named:
                raise InputError(Reason.NOT_DICOM, "it is not a DICOM Segmentation")
            return None
        series = sources.find(head, path)
        decoded = read_seg(path, series, max_voxels=limits.max_voxels, max_bytes=limits.max_bytes)
    except CtenrichError as error:
        text = f"{error.message}; {error.hint}" if error.hint else error.message
        return OtherSeg(name=name, reason=error.reason, message=text)
    except MemoryError:
        return OtherSeg(name=name, reason=Reason.OUT_OF_MEMORY, message="its masks do not fit into memory")
    if not decoded.on_source_grid:
        off = next(
            (i.message for i in decoded.issues if i.rule in {"SEG_GRID", "SEG_SOURCE"}),
            "its grid is not that of the CT",
        )
        return OtherSeg(name=name, reason=Reason.NO_REFERENCE, message=off, issues=decoded.issues)
    seen: Counter[str] = Counter()
    segments = []
    for segment in decoded.segments:
        plain = structure_name(segment)
        seen[plain] += 1
        segments.append((segment.number, numbered_name(plain, seen[plain])))
    return OtherSeg(name=name, series=series, decoded=decoded, segments=tuple(segments), issues=decoded.issues)

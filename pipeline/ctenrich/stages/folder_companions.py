"""Find the companions (RTSTRUCT, SEG) of a series among the other files of its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dicom
from ctenrich.geometry.stack import LOCALIZER_VALUES, SliceHeader
from ctenrich.records import Issue, Severity, SortedSeries

__all__ = ["MODALITIES", "FolderFile", "FolderSeries", "belongs_to_series"]

MODALITIES = ("RTSTRUCT", "SEG")
"""Modalities of companions."""
_REFERENCES = ("ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", "FrameOfReferenceUID")


@dataclass(frozen=True, kw_only=True)
class FolderFile:
    """A readable DICOM file of another series in the folder."""

    path: Path
    series_instance_uid: str
    header: SliceHeader


@dataclass(frozen=True, kw_only=True)
class FolderSeries:
    """The other CT series of the folder, as far as companions need them."""

    names: frozenset[str]
    """Their Series Instance UIDs and SOP Instance UIDs."""
    frames: Counter[str]
    """Frame of Reference UID -> number of volumes (two or more images, no localizer) that have it."""

    @classmethod
    def of(cls, files: Sequence[FolderFile]) -> FolderSeries:
        """Collect them from the files of other series."""
        images = [f for f in files if f.header.modality == "CT"]
        sizes = Counter(f.series_instance_uid for f in images)
        volumes = {
            f.series_instance_uid: f.header.frame_of_reference_uid
            for f in images
            if sizes[f.series_instance_uid] > 1 and not LOCALIZER_VALUES.intersection(f.header.image_type)
        }
        names = frozenset(sizes) | {f.header.sop_instance_uid for f in images}
        return cls(names=names, frames=Counter(volumes.values()))


def belongs_to_series(file: FolderFile, series: SortedSeries, others: FolderSeries, issues: list[Issue]) -> bool:
    """Return whether an RTSTRUCT or SEG of the folder is a companion of a series.

    It is if it refers to the series or one of its slices, or, where it refers to no CT of the folder, if the series is
    the only volume of the folder that has its frame of reference: the phases of a 4D-CT share one. A file whose
    references cannot be read is one too; the segmenter ``expert`` reports the damage.

    Parameters
    ----------
    file : FolderFile
        The RTSTRUCT or SEG.
    series : SortedSeries
    others : FolderSeries
        The other CT series of the folder.
    issues : list of Issue
        Receives why a file that has the frame of reference of the series is not its companion.

    Returns
    -------
    bool
    """
    wanted = {series.series_instance_uid, *series.sop_instance_uids}
    modality = file.header.modality
    named, frames = _references(file.path)
    if not named and not frames:
        text = f"the references of the {modality} cannot be read: it may belong to the series"
        issues.append(Issue("sort.companion", Severity.WARNING, file.header.sop_instance_uid, text))
        return True
    if wanted & named:
        return True
    if series.frame_of_reference_uid not in frames:
        return False
    rule = text = ""
    if named & others.names:
        rule, text = "companion.other_series", f"the {modality} refers to another series of the folder, not to this one"
    elif count := others.frames[series.frame_of_reference_uid]:
        rule = "companion.several"
        text = (
            f"the {modality} refers to no series of the folder, and {count + 1} CT series share its frame of "
            "reference: it is used for none of them"
        )
    if not rule:
        return True
    severity = Severity.WARNING if rule == "companion.several" else Severity.NOTE
    issues.append(Issue(rule, severity, file.header.sop_instance_uid, text))
    return False


def _references(path: Path) -> tuple[set[str], set[str]]:
    """UIDs of the series and instances, and of the frames of reference, that a file refers to; empty if it is damaged.

    A companion without any reference is damaged, too: it was cut before them.
    """
    try:
        with quiet(), open_dicom(path, tags=_REFERENCES) as parsed:
            elements = list(parsed.dataset.iterall())
            named = {str(e.value) for e in elements if e.keyword in {"SeriesInstanceUID", "ReferencedSOPInstanceUID"}}
            frames = {str(e.value) for e in elements if "FrameOfReferenceUID" in e.keyword}
    except Exception:  # noqa: BLE001 - pydicom raises many kinds for broken sequences, which it parses on access
        return set(), set()
    return named, frames

"""Check the consistency of a SEG (PS3.3 C.8.20) beyond what dciodvfy checks."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import UID

from ctenrich import __version__
from ctenrich.records import Issue, Severity

__all__ = ["segmentation_issues"]


def segmentation_issues(item: Dataset, about: str) -> list[Issue]:
    """Check that segment numbers run from 1, frames name existing segments, and the pixel data hold all frames.

    Parameters
    ----------
    item : pydicom.Dataset
        The object.
    about : str
        Subject of the issues: a SOP Instance UID, or a file name without folders.

    Returns
    -------
    list of Issue
    """
    labelled = str(item.get("SegmentationType", "")) == "LABELMAP"
    numbers = [int(s.SegmentNumber) for s in item.get("SegmentSequence", None) or ()]
    out = list(_number_faults(numbers, labelled))
    frames = int(item.get("NumberOfFrames", 0) or 0)
    groups = item.get("PerFrameFunctionalGroupsSequence", None) or ()
    if frames != len(groups):
        out.append(("seg.frames", f"{frames} frames, but functional groups for {len(groups)}"))
    shared = (item.get("SharedFunctionalGroupsSequence", None) or [Dataset()])[0]
    if not labelled:
        named = {_segment_of(group, shared) for group in groups}
        lost = sorted(named - set(numbers))
        if lost:
            out.append(("seg.segment", f"frames name segment {lost[0]}, which is not described"))
    out += _pixel_faults(item, frames)
    return [Issue(rule, Severity.ERROR, about, text, "ctenrich", __version__) for rule, text in out]


def _number_faults(numbers: list[int], labelled: bool) -> Iterator[tuple[str, str]]:
    if not numbers:
        yield "seg.segments", "no segment is described"
    elif len(set(numbers)) != len(numbers):
        yield "seg.segments", "a segment number occurs twice"
    elif not labelled and numbers != list(range(1, len(numbers) + 1)):
        yield "seg.segments", "segment numbers do not run from 1 in steps of 1"


def _segment_of(group: Dataset, shared: Dataset) -> int:
    found = group.get("SegmentIdentificationSequence", None) or shared.get("SegmentIdentificationSequence", None)
    return int(found[0].ReferencedSegmentNumber) if found else 0


def _pixel_faults(item: Dataset, frames: int) -> Iterator[tuple[str, str]]:
    syntax = UID(str(getattr(item, "file_meta", Dataset()).get("TransferSyntaxUID", "")))
    if "PixelData" not in item:
        yield "seg.pixels", "there is no pixel data"
    elif not syntax.is_private and syntax and not syntax.is_compressed:
        bits = frames * int(item.Rows) * int(item.Columns) * int(item.BitsAllocated)
        size = -(-bits // 8)
        if len(item.PixelData) != size + size % 2:
            yield "seg.pixels", f"{len(item.PixelData)} bytes of pixels instead of {size + size % 2}"

"""Validate DICOM objects: dciodvfy, the structure of TID 1500 reports, references, and optionally PixelMed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.dicom.inflate import inflated_copy
from ctenrich.dicom.reader import open_dataset
from ctenrich.dicom.sop_classes import LABEL_MAP_SEGMENTATION, SEGMENTATION_CLASSES, is_structured_report
from ctenrich.errors import CtenrichError
from ctenrich.records import Issue, Severity
from ctenrich.settings import Settings
from ctenrich.validate.dciodvfy import run_dciodvfy
from ctenrich.validate.pixelmed import run_pixelmed
from ctenrich.validate.references import reference_issues
from ctenrich.validate.segmentation import segmentation_issues
from ctenrich.validate.tid1500 import report_issues

__all__ = ["validate_objects"]

_THREADS = 4


def validate_objects(
    paths: Sequence[Path], *, settings: Settings, sources: Collection[str] | None = None
) -> tuple[Issue, ...]:
    """Check DICOM objects, ours or others.

    Parameters
    ----------
    paths : sequence of Path
        Files; a file that is not DICOM gives an error.
    settings : Settings
        `validate.dciodvfy` and `validate.pixelmed` select the programs that run beside our own checks.
    sources : collection of str, optional
        SOP Instance UIDs that exist besides the objects themselves. If given, references to anything else are errors;
        without it, existence is not checked.

    Returns
    -------
    tuple of Issue
        In the order of the paths. Errors make an object invalid; warnings and notes do not.

    Raises
    ------
    ToolError
        TOOL_MISSING if a selected program is not installed.
    """
    loaded = [_open_or_issue(path) for path in paths]
    datasets = {path: item for path, item in zip(paths, loaded, strict=True) if isinstance(item, Dataset)}
    known = None if sources is None else {*sources, *(str(d.get("SOPInstanceUID", "")) for d in datasets.values())}

    def one(path: Path, item: Dataset | Issue) -> list[Issue]:
        if isinstance(item, Issue):
            return [item]
        about = str(item.get("SOPInstanceUID", "")) or path.name
        return [*_programs(path, item, about, settings), *_own_checks(item, about, list(datasets.values()), known)]

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(one, paths, loaded))
    return tuple(issue for issues in found for issue in issues)


def _open_or_issue(path: Path) -> Dataset | Issue:
    try:
        return open_dataset(path)
    except CtenrichError as error:
        text = f"{error.reason.value}: {error.message}"
        return Issue("file.unreadable", Severity.ERROR, path.name, text, "ctenrich", __version__)


def _programs(path: Path, item: Dataset, about: str, settings: Settings) -> Iterable[Issue]:
    """Run the external programs, which do not read deflated files, on an inflated copy where that is needed."""
    with inflated_copy(path) as readable:
        if settings.validate.dciodvfy:
            yield from (_judged_by_standard(issue, item) for issue in run_dciodvfy(readable, about))
        if settings.validate.pixelmed and _is_report(item):
            yield from run_pixelmed(readable, about)


_SEGMENT_OF_NO_SEGMENTATION = "Shall not be present for Referenced SOP Class that is not segmentation"


def _judged_by_standard(issue: Issue, item: Dataset) -> Issue:
    """Make a note of dciodvfy's error about a segment number whose every reference is to a label map segmentation.

    dciodvfy does not know that SOP class (Label Map Segmentation Storage); PS3.3 Table 10-3 asks for the number.
    """
    if _SEGMENT_OF_NO_SEGMENTATION not in issue.message:
        return issue
    sequences = (element.value for element in item.iterall() if element.keyword == "ReferencedSOPSequence")
    classes = {
        str(reference.get("ReferencedSOPClassUID", ""))
        for sequence in sequences
        for reference in sequence
        if "ReferencedSegmentNumber" in reference
    }
    if classes != {LABEL_MAP_SEGMENTATION}:
        return issue
    message = f"{issue.message}: dciodvfy does not know Label Map Segmentation Storage"
    return replace(issue, severity=Severity.NOTE, message=message)


def _own_checks(item: Dataset, about: str, others: Sequence[Dataset], known: set[str] | None) -> Iterable[Issue]:
    checks: list[Callable[[], list[Issue]]] = [lambda: reference_issues(item, about, others, known)]
    if _is_report(item):
        checks.append(lambda: report_issues(item, about))
    if str(item.get("SOPClassUID", "")) in SEGMENTATION_CLASSES:
        checks.append(lambda: segmentation_issues(item, about))
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  a broken object is a finding, not a crash
            text = f"the object cannot be read to its end ({type(error).__name__})"
            yield Issue("file.malformed", Severity.ERROR, about, text, "ctenrich", __version__)


def _is_report(item: Dataset) -> bool:
    return is_structured_report(str(item.get("SOPClassUID", "")))

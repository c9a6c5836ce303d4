"""Check the references of a SEG or SR: they are listed as the standard requires, and resolve to known instances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.dicom.sr_tree import evidence_references, segment_number, walk
from ctenrich.records import Issue, Severity

__all__ = ["listed_references", "reference_issues", "used_references"]


def reference_issues(item: Dataset, about: str, others: Sequence[Dataset], known: set[str] | None) -> list[Issue]:
    """Check the references of one object.

    Every instance that the content or the frames use must be listed in the object's evidence (SR, PS3.3 C.17.2) or
    reference module (SEG, PS3.3 C.12.2); referenced segments must exist in the SEG, if it is available; and everything
    listed must be among `known`, if given.

    Parameters
    ----------
    item : pydicom.Dataset
        The object.
    about : str
        Subject of the issues: a SOP Instance UID, or a file name without folders.
    others : sequence of pydicom.Dataset
        The other objects that are checked with it.
    known : set of str, optional
        SOP Instance UIDs that exist; None: existence is not checked.

    Returns
    -------
    list of Issue
    """
    listed, used = listed_references(item), set(used_references(item))
    issues: list[Issue] = []
    if listed or used:
        unlisted = sorted({uid for uid, _ in used} - listed)
        if unlisted:
            text = f"{len(unlisted)} instances are used but not listed, the first is {unlisted[0]}"
            issues.append(_reference_error("references.unlisted", about, text))
    issues += _segment_issues(used, about, others)
    if known is not None and (listed or used):
        every = listed | {uid for uid, _ in used}
        here = every & known
        if here != every:
            text = f"{len(here)} of {len(every)} references resolve"
            issues.append(_reference_error("references.resolve", about, text))
    return issues


def listed_references(item: Dataset) -> set[str]:
    """SOP Instance UIDs that an object lists as its evidence or references."""
    out = {reference.sop_instance_uid for reference in evidence_references(item)}
    out |= _of_series(item.get("ReferencedSeriesSequence", None), "ReferencedInstanceSequence")
    for study in item.get("StudiesContainingOtherReferencedInstancesSequence", None) or ():
        out |= _of_series(study.get("ReferencedSeriesSequence", None), "ReferencedInstanceSequence")
    return out


def _of_series(series: Sequence[Dataset] | None, keyword: str) -> set[str]:
    return {
        str(instance.get("ReferencedSOPInstanceUID", ""))
        for one in series or ()
        for instance in one.get(keyword, None) or ()
    }


def used_references(item: Dataset) -> Iterator[tuple[str, int | None]]:
    """Iterate over the (SOP Instance UID, segment number) that the content tree or the frames refer to."""
    for _, child in walk(item):
        if str(child.get("ValueType", "")) in {"IMAGE", "COMPOSITE", "WAVEFORM"}:
            for reference in child.get("ReferencedSOPSequence", None) or ():
                yield str(reference.get("ReferencedSOPInstanceUID", "")), segment_number(reference)
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in item.get(keyword, None) or ():
            for derivation in group.get("DerivationImageSequence", None) or ():
                for source in derivation.get("SourceImageSequence", None) or ():
                    yield str(source.get("ReferencedSOPInstanceUID", "")), None


def _segment_issues(used: set[tuple[str, int | None]], about: str, others: Sequence[Dataset]) -> list[Issue]:
    segments = {
        str(other.get("SOPInstanceUID", "")): {int(s.SegmentNumber) for s in other.SegmentSequence}
        for other in others
        if "SegmentSequence" in other
    }
    wrong = sorted(number for uid, number in used if number is not None and number not in segments.get(uid, {number}))
    if not wrong:
        return []
    return [
        _reference_error("references.segment", about, f"segment {wrong[0]} is referenced, but the SEG does not have it")
    ]


def _reference_error(rule: str, about: str, text: str) -> Issue:
    return Issue(rule, Severity.ERROR, about, text, "ctenrich", __version__)

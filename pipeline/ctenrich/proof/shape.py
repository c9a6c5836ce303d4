"""Checks of a shape SR: the computed numbers, for the right segments of the right SEG."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich.codes.mappings import codes_of, load_features
from ctenrich.proof.checks import ObjectFile, Report
from ctenrich.proof.session import ProofSession, SegmentationResult
from ctenrich.proof.source import SourceSlices
from ctenrich.proof.tree import Concept, Node, concept_of, groups_of, read_tree
from ctenrich.records import SegmentShape

__all__ = ["evidence_checks", "number_faults", "place_faults", "prove_shape_sr", "segment_number"]

DECIMAL = 1e-9
"""Relative rounding error of a decimal string of 16 characters."""
VOLUME = 1e-6
"""Largest relative difference between a volume by voxels and spacing of the SEG and the volume in the SR."""


def prove_shape_sr(session: ProofSession, sr: ObjectFile) -> None:
    """Check that numbers, units, segments and finding sites equal the computed ones, and volumes those of the SEG.

    Does nothing if the SEG is missing, which is a failed check already.

    Parameters
    ----------
    session : ProofSession
        The result, the source slices and the report, which receives the checks.
    sr : ObjectFile
        The SR, read again.
    """
    assert isinstance(session.result, SegmentationResult)
    report, source, shape = session.report, session.source, session.result.shape
    seg = session.files.get("seg")
    if seg is None:
        return  # the missing SEG is a failed check already
    tree = read_tree(sr.dataset)
    groups: dict[int, list[Node]] = {}
    for group in groups_of(tree):
        groups.setdefault(segment_number(group, seg.record.sop_instance_uid), []).append(group)
    numbers = sorted(s.number for s in shape.segments)
    once = sorted(groups) == numbers and all(len(found) == 1 for found in groups.values())
    report.add("shape_sr.groups", once, f"{len(groups)} groups for {len(numbers)} segments of the SEG")
    wrong: list[str] = []
    places: list[str] = []
    checked = 0
    for item in shape.segments:
        for group in groups.get(item.number, [])[:1]:
            places += place_faults(group, item.number, item.name, source)
            wrong += _value_faults(group, item)
            checked += len(item.values)
    report.add("shape_sr.values", once and not wrong, "; ".join(wrong[:5]) or f"{checked} numbers with their units")
    text = "; ".join(places[:5]) or "every group names the place of its segment and the source series"
    report.add("shape_sr.places", not places, text)
    evidence_checks(report, "shape_sr", sr.dataset, tree, {*source.slices, seg.record.sop_instance_uid})
    _volume_checks(report, groups, session.segment_sizes)


def segment_number(group: Node, seg_uid: str) -> int:
    """Return the number of the segment that a group refers to; -1 if it refers to none of this SEG.

    Parameters
    ----------
    group : Node
        The measurement group.
    seg_uid : str
        SOP Instance UID of the SEG.
    """
    for node in group.children:
        if node.reference is not None and node.segment is not None and node.reference[1] == seg_uid:
            return node.segment
    return -1


def place_faults(group: Node, number: int, name: str, source: SourceSlices) -> list[str]:
    """Compare the finding site and the source series of a group with those of its segment.

    Parameters
    ----------
    group : Node
        The measurement group.
    number : int
        Segment number.
    name : str
        Name of the segment.
    source : SourceSlices
        The source series.

    Returns
    -------
    list of str
        Differences.
    """
    mapped = codes_of(name)
    if mapped is None:
        return [f"the mappings have no codes of {name}"]
    sites = group.named((codes.SCT.FindingSite.value, "SCT"))
    out: list[str] = []
    if [s.code for s in sites] != [concept_of(mapped.finding_site)]:
        out.append(f"the finding site of group {number} is not that of {name}")
    elif mapped.finding_site_laterality is not None:
        sides = [n.code for n in sites[0].named((codes.SCT.Laterality.value, "SCT"))]
        if sides != [concept_of(mapped.finding_site_laterality)]:
            out.append(f"the laterality of group {number} is not that of {name}")
    series = {s.series_uid for s in source.slices.values()}
    named = {n.text for n in group.named((codes.DCM.SourceSeriesForSegmentation.value, "DCM"))}
    if named != series:
        out.append(f"group {number} names a different source series")
    return out


def _value_faults(group: Node, item: SegmentShape) -> list[str]:
    features = load_features()
    expected = {concept_of(features[f].quantity): (f, v, concept_of(features[f].unit)) for f, v in item.values.items()}
    out = number_faults(group, expected, item.name)
    absent = any(n.code == (codes.SCT.Absent.value, "SCT") for n in group.children)
    if absent != (not item.values):
        out.append(f"{item.name}: absent is stated wrongly")
    return out


def number_faults(group: Node, expected: dict[Concept, tuple[str, float, Concept]], about: str) -> list[str]:
    """Compare the NUM items of a group with the expected numbers; none may be missing or unexpected.

    Parameters
    ----------
    group : Node
        The measurement group.
    expected : dict
        Quantity -> (name, value, unit).
    about : str
        Name of the group in the messages.

    Returns
    -------
    list of str
        Differences; a value may differ by the rounding of a decimal string, an exact double not at all.
    """
    found: dict[Concept | None, Node] = {}
    out: list[str] = []
    for node in group.children:
        if node.type == "NUM":
            if node.concept in found:
                out.append(f"{about}: a quantity occurs twice")
            found[node.concept] = node
    for quantity, (name, value, unit) in expected.items():
        node_or_none = found.pop(quantity, None)
        if node_or_none is None or node_or_none.number is None:
            out.append(f"{about}: {name} is missing")
        elif node_or_none.unit != unit:
            out.append(f"{about}: {name} has a different unit")
        elif not _same_number(node_or_none, value):
            out.append(f"{about}: {name} is {node_or_none.number!r}, not {value!r}")
    if found:
        out.append(f"{about}: {len(found)} numbers that were not computed")
    return out


def _same_number(node: Node, value: float) -> bool:
    assert node.number is not None
    near = math.isclose(node.number, value, rel_tol=DECIMAL, abs_tol=1e-12)
    return near and (node.exact is None or node.exact == value)


def evidence_checks(report: Report, name: str, dataset: Dataset, tree: Node, known: set[str]) -> None:
    """Check that every instance that an SR refers to exists and is listed in its evidence (PS3.3 C.17.2).

    Parameters
    ----------
    report : Report
        Receives ``<name>.references``.
    name : str
        Object kind.
    dataset : Dataset
        The SR.
    tree : Node
        Its content tree.
    known : set of str
        SOP Instance UIDs that exist.
    """
    evidence: set[str] = set()
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", None) or ():
        for series in study.ReferencedSeriesSequence:
            evidence |= {str(item.ReferencedSOPInstanceUID) for item in series.ReferencedSOPSequence}
    used = {node.reference[1] for node in tree.walk() if node.reference is not None}
    lost, unlisted = len((used | evidence) - known), len(used - evidence)
    text = f"{len(used | evidence)} instances are named, {lost} do not exist, {unlisted} are not in the evidence"
    report.add(f"{name}.references", bool(used) and not lost and not unlisted, text)


def _volume_checks(report: Report, groups: dict[int, list[Node]], voxels: dict[int, tuple[int, float]]) -> None:
    quantity = concept_of(load_features()["VoxelVolume"].quantity)
    worst, compared = 0.0, 0
    for number, (_, volume) in voxels.items():
        for group in groups.get(number, []):
            for node in group.named(quantity):
                assert node.number is not None
                worst = max(worst, abs(node.number - volume) / max(volume, 1e-12))
                compared += 1
    present = sum(count > 0 for count, _ in voxels.values())
    text = f"{compared} volumes by the SR and by voxels of the SEG: relative difference {worst:.2e} at most"
    report.add("volumes", worst < VOLUME and compared == present, text)

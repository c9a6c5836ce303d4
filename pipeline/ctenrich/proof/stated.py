"""Checks of an SR of stated measurements: the numbers of the file, for the right segments of the right SEG."""

from __future__ import annotations

from collections import Counter

from pydicom.sr.codedict import codes

from ctenrich.proof.checks import ObjectFile
from ctenrich.proof.session import ProofSession, SegmentationResult
from ctenrich.proof.shape import evidence_checks
from ctenrich.proof.tree import Node, groups_of, read_tree
from ctenrich.records import StatedGroup, StatedMeasurements
from ctenrich.series_store import SeriesStore

__all__ = ["prove_stated_sr"]


def prove_stated_sr(session: ProofSession, sr: ObjectFile) -> None:
    """Check that the SR has every stated number once, with its codes, for its segment of the SEG.

    Parameters
    ----------
    session : ProofSession
        The result, the source slices and the report, which receives the checks.
    sr : ObjectFile
        The SR, read again.
    """
    assert isinstance(session.result, SegmentationResult)
    seg = session.files.get("seg")
    if seg is None:
        return  # the missing SEG is a failed check already
    masks = session.result.masks
    stated = SeriesStore(session.workspace).load(StatedMeasurements, masks.series_instance_uid, masks.product)
    tree = read_tree(sr.dataset)
    uid = seg.record.sop_instance_uid
    found: dict[int, list[Node]] = {}
    for group in groups_of(tree):
        number = next((n.segment for n in group.children if n.reference and n.reference[1] == uid and n.segment), -1)
        found.setdefault(number, []).append(group)
    expected = {group.number: group for group in stated.groups if group.values}
    once = found.keys() == expected.keys() and all(len(groups) == 1 for groups in found.values())
    session.report.add("stated_sr.groups", once, f"{len(found)} groups for {len(expected)} measured segments")
    wrong = [
        fault for number, group in expected.items() for node in found.get(number, [])[:1]
        for fault in _value_faults(node, group)
    ]  # fmt: skip
    count = sum(len(group.values) for group in expected.values())
    session.report.add(
        "stated_sr.values", once and not wrong, "; ".join(wrong[:5]) or f"{count} numbers with their codes"
    )
    evidence_checks(session.report, "stated_sr", sr.dataset, tree, {*session.source.slices, uid})


def _value_faults(node: Node, group: StatedGroup) -> list[str]:
    derivation = (codes.DCM.Derivation.value, codes.DCM.Derivation.scheme_designator)
    wanted: Counter[tuple[object, ...]] = Counter(
        (v.quantity[:2], v.unit[:2], v.derivation[:2] if v.derivation else None, v.value) for v in group.values
    )
    found: Counter[tuple[object, ...]] = Counter(
        (n.concept, n.unit, next((c.code for c in n.named(derivation)), None), n.exact)
        for n in node.children
        if n.type == "NUM"
    )
    lost, more = wanted - found, found - wanted
    return [
        *(f"{group.name}: {value!r} is missing" for *_, value in lost),
        *(f"{group.name}: {value!r} was not stated" for *_, value in more),
    ]

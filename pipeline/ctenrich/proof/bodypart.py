"""Checks of landmark and region SRs: each finding on its slice, with code and score."""

from __future__ import annotations

from pydicom.sr.codedict import codes

from ctenrich.codes.mappings import load_concepts, load_features, load_landmarks, load_regions
from ctenrich.proof.checks import ObjectFile, Report
from ctenrich.proof.session import BodypartResult, ProofSession
from ctenrich.proof.shape import evidence_checks, number_faults
from ctenrich.proof.source import SourceSlices
from ctenrich.proof.tree import Concept, Node, concept_of, groups_of, read_tree
from ctenrich.records import SliceScores

__all__ = ["prove_landmarks_sr", "prove_regions_sr", "score_checks"]

_SITE = (codes.SCT.FindingSite.value, "SCT")
_MODIFIER = (codes.SCT.TopographicalModifier.value, "SCT")


def score_checks(report: Report, scores: SliceScores, source: SourceSlices) -> None:
    """Check that the scores belong to the slices of the series, in order, at their positions along the normal.

    Parameters
    ----------
    report : Report
        Receives ``scores.slices`` and ``scores.z``.
    scores : SliceScores
        The scores, with the position of each slice along the normal (mm, from the first slice).
    source : SourceSlices
        The slices, read again from their files.
    """
    same = scores.sop_instance_uids == source.uids_in_order()
    report.add("scores.slices", same, "the scores name the slices of the series in their order")
    heights = source.heights()
    worst = max((abs(z - h) for z, h in zip(scores.z, heights, strict=False)), default=0.0)
    fits = len(scores.z) == len(heights) and worst < 0.01
    report.add("scores.z", fits, f"{len(scores.z)} places along the normal, largest difference {worst:.6f} mm")


def prove_landmarks_sr(session: ProofSession, sr: ObjectFile) -> None:
    """Check that every landmark on a slice has one group, in order, with slice, finding site, modifier and numbers.

    Parameters
    ----------
    session : ProofSession
        The result, the source slices and the report, which receives the checks.
    sr : ObjectFile
        The SR, read again.
    """
    assert isinstance(session.result, BodypartResult)
    report, source = session.report, session.source
    landmarks, scores = session.result.landmarks, session.result.scores
    tree = read_tree(sr.dataset)
    groups = groups_of(tree)
    present = [item for item in landmarks.items if item.slice_index is not None]
    report.add("landmarks_sr.groups", len(groups) == len(present), f"{len(groups)} groups, {len(present)} landmarks")
    mapped, order = load_landmarks(), source.uids_in_order()
    wrong: list[str] = []
    for item, group in zip(present, groups, strict=False):
        assert item.slice_index is not None
        code = mapped[item.name]
        sites = [(n.code, [m.code for m in n.named(_MODIFIER)]) for n in group.named(_SITE)]
        expected = (concept_of(code.site), [concept_of(code.modifier)] if code.modifier else [])
        if sites != [expected]:
            wrong.append(f"{item.name}: different finding site")
        if item.slice_index >= len(order) or _referenced_slice(group) != order[item.slice_index]:
            wrong.append(f"{item.name}: on a different slice")
        values = {"slice_score": scores.cleaned[item.slice_index], "landmark_score": item.score}
        values |= {"landmark_distance": item.distance, "landmark_confidence": item.confidence}
        wrong += number_faults(group, _expected_quantities(values), item.name)
    text = "; ".join(wrong[:5]) or f"{len(present)} landmarks on their slices, with code and numbers"
    report.add("landmarks_sr.values", not wrong, text)
    evidence_checks(report, "landmarks_sr", sr.dataset, tree, set(source.slices))


def prove_regions_sr(session: ProofSession, sr: ObjectFile) -> None:
    """Check that every slice has one group with exactly its regions and its score.

    Parameters
    ----------
    session : ProofSession
        The result, the source slices and the report, which receives the checks.
    sr : ObjectFile
        The SR, read again.
    """
    assert isinstance(session.result, BodypartResult)
    report, source = session.report, session.source
    regions, scores = session.result.regions, session.result.scores
    tree = read_tree(sr.dataset)
    groups = {_referenced_slice(group): group for group in groups_of(tree)}
    order = source.uids_in_order()
    whole = sorted(groups) == sorted(order) and len(groups_of(tree)) == len(order)
    report.add("regions_sr.groups", whole, f"{len(groups)} groups for {len(order)} slices")
    mapped = load_regions()
    wrong: list[str] = []
    named = 0
    for item in regions.slices:
        group = groups.get(order[item.slice_index]) if item.slice_index < len(order) else None
        if group is None or order[item.slice_index] != item.sop_instance_uid:
            wrong.append(f"slice {item.slice_index}: no group, or a different slice")
            continue
        named += len(item.regions)
        if [n.code for n in group.named(_SITE)] != [concept_of(mapped[name].site) for name in item.regions]:
            wrong.append(f"slice {item.slice_index}: different regions")
        wrong += number_faults(group, _expected_quantities({"slice_score": item.score}), f"slice {item.slice_index}")
        if item.score != scores.cleaned[item.slice_index]:
            wrong.append(f"slice {item.slice_index}: the score differs from that of the slice")
    text = "; ".join(wrong[:5]) or f"{named} regions of {len(regions.slices)} slices"
    report.add("regions_sr.values", not wrong and len(regions.slices) == len(order), text)
    evidence_checks(report, "regions_sr", sr.dataset, tree, set(source.slices))


def _referenced_slice(group: Node) -> str:
    """Return the SOP Instance UID of the image that a group refers to; empty unless there is exactly one."""
    images = [n.reference[1] for n in group.children if n.type == "IMAGE" and n.reference is not None]
    return images[0] if len(images) == 1 else ""


def _expected_quantities(values: dict[str, float | None]) -> dict[Concept, tuple[str, float, Concept]]:
    concepts, features = load_concepts(), load_features()
    one, millimetre = concept_of(features["Sphericity"].unit), concept_of(features["Maximum3DDiameter"].unit)
    units = {"landmark_distance": millimetre}
    return {
        concept_of(concepts[name].code): (name, value, units.get(name, one))
        for name, value in values.items()
        if value is not None
    }

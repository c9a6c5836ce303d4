"""Checks of an SR of feature vectors: every vector once, for the right segment, with the hash of the stored values."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from pydicom.sr.codedict import codes

from ctenrich.codes.mappings import load_concepts, load_dose_metrics, load_features
from ctenrich.proof.checks import ObjectFile
from ctenrich.proof.session import ProofSession, SegmentationResult
from ctenrich.proof.shape import evidence_checks, number_faults, place_faults, segment_number
from ctenrich.proof.tree import Concept, Node, concept_of, groups_of, read_tree
from ctenrich.records import FeatureVector, FeatureVectors, ModelVectors
from ctenrich.series_store import SeriesStore

__all__ = ["prove_features_sr"]

_IDENTITY = "model_sha256="
_SPEC = "features="
_Key = tuple[str, str, int | None]
"""Specification and identity of the model, and Segment Number (None: the whole volume)."""


def prove_features_sr(session: ProofSession, sr: ObjectFile) -> None:
    """Check that the SR has every vector once, with its model, and that norms and hashes are those of the arrays.

    The arrays are read again, and their norms and hashes are computed here. Does nothing if the SEG is missing, which
    is a failed check already.

    Parameters
    ----------
    session : ProofSession
        The result, the source slices and the report, which receives the checks.
    sr : ObjectFile
        The SR, read again.
    """
    assert isinstance(session.result, SegmentationResult)
    report, masks = session.report, session.result.masks
    seg = session.files.get("seg")
    if seg is None:
        return
    uid = masks.series_instance_uid
    found = SeriesStore(session.workspace).load(FeatureVectors, uid, masks.product)
    tree = read_tree(sr.dataset)
    groups: dict[_Key, list[Node]] = {}
    for group in groups_of(tree):
        groups.setdefault(_key(group, seg.record.sop_instance_uid), []).append(group)
    wanted = [
        ((model.spec, model.model.sha256, one.number), model, one) for model in found.models for one in model.vectors
    ]
    once = Counter(key for key, _, _ in wanted) == {key: len(same) for key, same in groups.items()}
    report.add("features_sr.groups", once, f"{sum(map(len, groups.values()))} groups for {len(wanted)} vectors")
    wrong: list[str] = []
    places: list[str] = []
    for key, model, one in wanted:
        for group in [groups[key].pop(0)] if groups.get(key) else []:
            wrong += _value_faults(group, model, one)
            if one.number is not None:
                places += place_faults(group, one.number, one.name, session.source)
            else:
                places += _volume_faults(group, set(session.source.slices))
    text = "; ".join(wrong[:5]) or f"{len(wanted)} vectors with model, hashes and norm"
    report.add("features_sr.values", once and not wrong, text)
    text = "; ".join(places[:5]) or "every group names the place of its segment, or the slices of the volume"
    report.add("features_sr.places", not places, text)
    arrays = [fault for model in found.models for fault in _array_faults(session, model)]
    report.add("features_sr.arrays", not arrays, "; ".join(arrays[:5]) or "the values have the stated norms and hashes")
    evidence_checks(report, "features_sr", sr.dataset, tree, {*session.source.slices, seg.record.sop_instance_uid})


def _key(group: Node, seg_uid: str) -> _Key:
    parameters = [node.text for node in group.named((codes.DCM.AlgorithmParameters.value, "DCM"))]
    spec, model = (
        next((text.removeprefix(start) for text in parameters if text.startswith(start)), "")
        for start in (_SPEC, _IDENTITY)
    )
    about_segment = any(node.segment is not None for node in group.children)
    return spec, model, segment_number(group, seg_uid) if about_segment else None


def _concept(name: str) -> Concept:
    return concept_of(load_concepts()[name].code)


def _value_faults(group: Node, model: ModelVectors, one: FeatureVector) -> Iterator[str]:
    about = one.name or "the volume"
    no_unit, percent = (
        concept_of(row.unit) for row in (load_features()["Sphericity"], load_dose_metrics()["coverage"])
    )
    numbers = {
        _concept("feature_length"): ("length", float(model.length), no_unit),
        _concept("feature_norm"): ("norm", one.norm, no_unit),
        _concept("feature_outside"): ("share outside", 100 * one.outside, percent),
    }
    yield from number_faults(group, numbers, about)
    texts = {
        "feature_sha256": one.sha256,
        "feature_input": one.input_sha256,
        "feature_crop": model.crop,
        "feature_table": "deep_features",
    }
    for name, value in texts.items():
        if [node.text for node in group.named(_concept(name))] != [value]:
            yield f"{about}: {name} is not that of the vector"
    for named, value in (
        (codes.DCM.AlgorithmName, model.model.name),
        (codes.DCM.AlgorithmVersion, model.model.version or "unknown"),
    ):
        if [node.text for node in group.named((named.value, named.scheme_designator))] != [value]:
            yield f"{about}: {named.meaning} is not that of the model"


def _volume_faults(group: Node, slices: set[str]) -> list[str]:
    named = [node.reference[1] for node in group.children if node.reference is not None]
    return [] if len(named) == len(slices) and set(named) == slices else ["a volume names other slices than its series"]


def _array_faults(session: ProofSession, model: ModelVectors) -> Iterator[str]:
    """Compare the stored values with the records, by computations of their own."""
    path = session.workspace.resolve(session.result.series.series_instance_uid, model.array_path)
    values = np.load(path, allow_pickle=False)
    if values.shape != (len(model.vectors), model.length) or values.dtype != np.float32:
        yield f"{model.spec}: the array has another form"
        return
    for row, one in zip(values, model.vectors, strict=True):
        wide = [float(value) for value in row]
        if hashlib.sha256(np.array(row, "<f4").tobytes()).hexdigest() != one.sha256:
            yield f"{model.spec}: the values of {one.name or 'the volume'} have another hash"
        elif abs(sum(value * value for value in wide) - one.norm**2) > 1e-9 * max(one.norm**2, 1e-30):
            yield f"{model.spec}: the norm of {one.name or 'the volume'} is wrong"

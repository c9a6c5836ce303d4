"""Checks of a dose SR: the computed metrics with their bounds, for the right segments, from the right doses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich.codes.dose_metrics import COVERAGE, dose_metric_code
from ctenrich.proof.checks import ObjectFile, Report
from ctenrich.proof.session import ProofSession, SegmentationResult
from ctenrich.proof.shape import evidence_checks, number_faults, place_faults, segment_number
from ctenrich.proof.tree import Concept, Node, concept_of, groups_of, read_tree
from ctenrich.records import DoseMeasurements, DoseValue, FetchedSeries, SegmentDoses
from ctenrich.series_store import SeriesStore

__all__ = ["prove_dose_sr"]

_VOLUME = "Volume[cc]"
"""Not in the dose SR: the volume is that of the shape SR."""
_LOWER, _UPPER = codes.cid225.RangeOfLowerMeasurementUncertainty, codes.cid225.RangeOfUpperMeasurementUncertainty
_STEP = 1e-6
"""Share of the largest dose by which the quantisation of a sum may exceed the sum of the largest stored doses."""


def prove_dose_sr(session: ProofSession, sr: ObjectFile) -> None:
    """Check that metrics, bounds and segments equal the computed ones, and that the doses are those on disk.

    The doses are read again with pydicom alone: their frame of reference is that of the CT, and no metric exceeds the
    sum of the largest stored values times their factors. Does nothing if the SEG is missing, which is a failed check
    already.

    Parameters
    ----------
    session : ProofSession
        The result, the source slices and the report, which receives the checks.
    sr : ObjectFile
        The SR, read again.
    """
    assert isinstance(session.result, SegmentationResult)
    report, doses = session.report, session.result.doses
    seg = session.files.get("seg")
    if seg is None:
        return
    if doses is None:
        report.add("dose_sr.values", False, "no doses were computed for this object")
        return
    tree = read_tree(sr.dataset)
    groups: dict[int, list[Node]] = {}
    for group in groups_of(tree):
        groups.setdefault(segment_number(group, seg.record.sop_instance_uid), []).append(group)
    wanted = {one.number: one for one in doses.segments if _written(one)}
    once = sorted(groups) == sorted(wanted) and all(len(found) == 1 for found in groups.values())
    report.add("dose_sr.groups", once, f"{len(groups)} groups for {len(wanted)} segments with doses")
    wrong: list[str] = []
    places: list[str] = []
    checked = 0
    for number, one in wanted.items():
        for group in groups.get(number, [])[:1]:
            places += place_faults(group, one.number, one.name, session.source)
            wrong += _value_faults(group, one)
            checked += len(_written(one))
    report.add("dose_sr.values", once and not wrong, "; ".join(wrong[:5]) or f"{checked} metrics with their bounds")
    text = "; ".join(places[:5]) or "every group names the place of its segment and the source series"
    report.add("dose_sr.places", not places, text)
    uids = {origin.sop_instance_uid for origin in doses.origins}
    known = {*session.source.slices, seg.record.sop_instance_uid, *uids}
    evidence_checks(report, "dose_sr", sr.dataset, tree, known)
    _origin_checks(report, session, doses, [group for found in groups.values() for group in found])


def _written(one: SegmentDoses) -> list[tuple[DoseValue, float]]:
    return [(value, value.value) for value in one.values if value.value is not None and value.metric != _VOLUME]


def _value_faults(group: Node, one: SegmentDoses) -> list[str]:
    expected: dict[Concept, tuple[str, float, Concept]] = {}
    bounds: dict[Concept, tuple[DoseValue, float]] = {}
    for metric, value in _written(one):
        mapped = dose_metric_code(metric.metric)
        expected[concept_of(mapped.quantity)] = (metric.metric, value, concept_of(mapped.unit))
        bounds[concept_of(mapped.quantity)] = (metric, value)
    mapped = dose_metric_code(COVERAGE)
    expected[concept_of(mapped.quantity)] = (COVERAGE, 100 * one.coverage, concept_of(mapped.unit))
    out = number_faults(group, expected, one.name)
    for node in group.children:
        if node.type == "NUM" and node.concept in bounds:
            metric, value = bounds[node.concept]
            out += _bound_faults(node, metric, value, one.name)
    return out


def _bound_faults(node: Node, metric: DoseValue, value: float, name: str) -> list[str]:
    unit = concept_of(dose_metric_code(metric.metric).unit)
    expected = {}
    if metric.lower is not None:
        expected[_LOWER.value, _LOWER.scheme_designator] = (f"{metric.metric} below", value - metric.lower, unit)
    if metric.upper is not None:
        expected[_UPPER.value, _UPPER.scheme_designator] = (f"{metric.metric} above", metric.upper - value, unit)
    return number_faults(node, expected, name)


def _origin_checks(report: Report, session: ProofSession, doses: DoseMeasurements, groups: list[Node]) -> None:
    """Check the references of the groups, and the doses that were fetched with the series."""
    uids = {origin.sop_instance_uid for origin in doses.origins}
    source = (codes.DCM.SourceOfMeasurement.value, "DCM")
    stated = [{node.reference[1] for node in group.named(source) if node.reference is not None} for group in groups]
    frame = {one.frame_of_reference_uid for one in session.source.slices.values()}
    uid = session.result.series.series_instance_uid
    fetched = SeriesStore(session.workspace).fetched(uid)
    found = {str(one.SOPInstanceUID): one for one in _doses_on_disk(session, fetched, uids)}
    faults = [] if all(one == uids for one in stated) else ["a group names other doses"]
    if found.keys() != uids:
        faults.append(f"{len(uids - found.keys())} doses were not fetched with the series")
    elif {str(one.FrameOfReferenceUID) for one in found.values()} != frame:
        faults.append("a dose has another frame of reference than the slices")
    else:
        limit = sum(float(Fraction(o.factor)) * _largest(found[o.sop_instance_uid]) for o in doses.origins)
        named = dose_metric_code("Max[Gy]").quantity
        largest = max((n.number for g in groups for n in g.named(named) if n.number is not None), default=0.0)
        if largest > limit * (1 + _STEP):
            faults.append(f"a segment has {largest:.3f} Gy, and the doses at most {limit:.3f} Gy")
    report.add("dose_sr.sources", not faults, "; ".join(faults) or f"{len(uids)} doses, in the frame of the slices")


def _doses_on_disk(session: ProofSession, fetched: FetchedSeries, uids: set[str]) -> list[Dataset]:
    paths = [session.workspace.resolve(fetched.series_instance_uid, file.path) for file in fetched.companions]
    heads = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in paths]
    return [
        pydicom.dcmread(path, force=True)
        for path, head in zip(paths, heads, strict=True)
        if str(head.get("SOPInstanceUID", "")) in uids
    ]


def _largest(dose: Dataset) -> float:
    """Largest stored value x Dose Grid Scaling, Gy; decoded by pydicom where it is compressed."""
    syntax = dose.file_meta.get("TransferSyntaxUID", None) if hasattr(dose, "file_meta") else None
    if syntax is not None and syntax.is_encapsulated:
        stored = dose.pixel_array
    else:
        order = ">" if syntax is not None and not syntax.is_little_endian else "<"
        stored = np.frombuffer(dose.PixelData, f"{order}u{dose.BitsAllocated // 8}")
    return float(stored.max()) * float(dose.DoseGridScaling)

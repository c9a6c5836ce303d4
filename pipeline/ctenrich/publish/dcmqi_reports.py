"""A TID 1500 report -> the JSON that dcmqi's ``tid1500writer`` makes a report from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.codes.dcmqi import SR_SCHEMA
from ctenrich.codes.mappings import load_concepts
from ctenrich.dicom.objects import damage_as_input_error, quiet, whole
from ctenrich.dicom.sop_classes import REAL_WORLD_VALUE_MAPPING, SEGMENTATION
from ctenrich.dicom.sr_tree import Name, children, code_value, first, item_name, segment_number, walk
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity
from ctenrich.workspace import write_bytes

__all__ = ["write_dcmqi_report"]

_DS_LENGTH = 16
"""Characters of a decimal string (PS3.5 6.2)."""
_CONTEXT = frozenset({SEGMENTATION, REAL_WORLD_VALUE_MAPPING})
"""Classes of instances that dcmqi calls composite context; others of the evidence are its image library."""
_OBSERVER = (
    *("DeviceObserverUID", "DeviceObserverName", "DeviceObserverManufacturer"),
    *("DeviceObserverModelName", "DeviceObserverSerialNumber"),
)
"""Keys of the JSON that are also the keywords of the concepts."""


@dataclass
class _LeftOut:
    """What is left out of the JSON, in the order in which it is met."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        if text not in self.texts:
            self.texts.append(text)


def write_dcmqi_report(path: Path, target: Path, names: Mapping[str, str]) -> tuple[Issue, ...] | None:
    """Write the measurement groups of segments after dcmqi's schema.

    Parameters
    ----------
    path : Path
        The report.
    target : Path
        The JSON file.
    names : mapping
        SOP Instance UID -> file name, of SEGs, Real World Value Mapping objects and images that dcmqi shall read as
        the context of the report. Instances without one are named ``<SOP Instance UID>.dcm``.

    Returns
    -------
    tuple of Issue or None
        Warnings about what the schema has no place for; None if no group is about a segment: nothing is written.

    Raises
    ------
    InputError
        NOT_DICOM if the file is no structured report; DECODE_ERROR.
    """
    left_out = _LeftOut()
    with quiet():
        dataset = whole(path)
        with damage_as_input_error("report"):
            if dataset.get("ValueType") != "CONTAINER" or "ContentSequence" not in dataset:
                raise InputError(Reason.NOT_DICOM, "the file is not a structured report")
            groups = _groups(dataset, left_out)
            if not groups:
                return None
            document = _document(dataset, groups, names, left_out)
    write_bytes(target, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
    subject = str(dataset.get("SOPInstanceUID", ""))
    return tuple(
        Issue("DCMQI_DESCRIPTION", Severity.WARNING, subject, text, "ctenrich export", __version__)
        for text in left_out.texts
    )


def _document(
    dataset: Dataset, groups: list[dict[str, Any]], names: Mapping[str, str], left_out: _LeftOut
) -> dict[str, Any]:
    heads = {key: str(dataset[key].value) for key in ("SeriesDescription", "SeriesNumber", "InstanceNumber")
             if key in dataset and dataset[key].value not in (None, "")}  # fmt: skip
    evidence = dict(_evidence(dataset))
    context = [names.get(uid, f"{uid}.dcm") for uid, is_context in evidence.items() if is_context]
    library = [names.get(uid, f"{uid}.dcm") for uid, is_context in evidence.items() if not is_context]
    procedure = [_value(i) for i in _named(dataset, _dcm("ProcedureReported"))]
    if len(procedure) > 1:
        left_out.add(f"{len(procedure)} procedures reported: the JSON has the first")
    optional = {
        "compositeContext": context,
        "imageLibrary": library,
        "procedureReported": first([p for p in procedure if p]),
        "activitySession": _common(groups, "activitySession", left_out),
        "timePoint": _common(groups, "timePoint", left_out),
    }
    complete = "COMPLETE" if dataset.get("CompletionFlag") == "COMPLETE" else "PARTIAL"
    return {
        "@schema": SR_SCHEMA,
        **heads,
        **{key: value for key, value in optional.items() if value},
        "observerContext": _observer(dataset, left_out),
        "VerificationFlag": str(dataset.get("VerificationFlag") or "UNVERIFIED"),
        "CompletionFlag": complete,
        "Measurements": groups,
    }


def _evidence(dataset: Dataset) -> Iterable[tuple[str, bool]]:
    """SOP Instance UID of each instance of the evidence, and whether dcmqi takes it as composite context."""
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in dataset.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                for instance in series.get("ReferencedSOPSequence") or ():
                    sop_class = str(instance.get("ReferencedSOPClassUID", ""))
                    yield str(instance.get("ReferencedSOPInstanceUID", "")), sop_class in _CONTEXT


def _common(groups: list[dict[str, Any]], key: str, left_out: _LeftOut) -> str:
    """Take a text out of all groups; the JSON has one for the whole report."""
    texts = [group.pop(key) for group in groups if key in group]
    if len(set(texts)) > 1:
        left_out.add(f"{key} differs between the groups: the JSON has none")
        return ""
    return str(texts[0]) if texts else ""


def _observer(dataset: Dataset, left_out: _LeftOut) -> dict[str, str]:
    types = _named(dataset, _dcm("ObserverType"))
    if len(types) > 1:
        left_out.add(f"{len(types)} observers: the JSON has the first")
    person = first([_text(i) for i in _named(dataset, _dcm("PersonObserverName"))])
    kind = _value(types[0]) if types else None
    is_person = person and (kind is None or kind["CodeValue"] == _dcm("Person")[0])
    if is_person:
        return {"ObserverType": "PERSON", "PersonObserverName": str(person)}
    found = {key: first([_text(i) for i in _named(dataset, _dcm(key))]) for key in _OBSERVER}
    return {"ObserverType": "DEVICE", **{key: str(value) for key, value in found.items() if value}}


# ---------------------------------------------------------------- groups


def _groups(dataset: Dataset, left_out: _LeftOut) -> list[dict[str, Any]]:
    out = []
    group_name = _dcm("MeasurementGroup")
    for _, item in walk(dataset):
        if item.get("ValueType") != "CONTAINER" or item_name(item) != group_name:
            continue
        found = _group(item, left_out)
        if found is not None:
            out.append(found)
    return out


def _group(item: Dataset, left_out: _LeftOut) -> dict[str, Any] | None:
    tracking = first([_text(i) for i in _named(item, _dcm("TrackingIdentifier"))]) or ""
    place = f"group {tracking!r}"
    segment = _segment(item)
    finding = first([v for v in map(_value, _named(item, _dcm("Finding"))) if v])
    source = first([_text(i) for i in _named(item, _dcm("SourceSeriesForSegmentation"))])
    missing = [
        what for what, value in (("segment", segment), ("finding", finding), ("source series", source)) if value is None
    ]
    if missing:
        left_out.add(f"{place} has no {' and no '.join(missing)}: dcmqi's JSON has no place for it")
        return None
    assert segment is not None
    optional = {
        "TrackingUniqueIdentifier": first([_text(i) for i in _named(item, _dcm("TrackingUniqueIdentifier"))]),
        "activitySession": first([_text(i) for i in _named(item, _mapped("activity_session"))]),
        "timePoint": first([_text(i) for i in _named(item, _mapped("time_point"))]),
        "rwvmMapUsedForMeasurement": first(
            [_reference(i) for i in _named(item, _dcm("RealWorldValueMapUsedForMeasurement"))]
        ),
        "MeasurementMethod": first([_value(i) for i in _named(item, *_methods())]),
        "measurementAlgorithmIdentification": _algorithm(item, place, left_out),
        **_site(item, place, left_out),
    }
    evaluations = list(_evaluations(item))
    numbers = _numbers(item, place, left_out)
    return {
        "TrackingIdentifier": tracking,
        "ReferencedSegment": segment[1],
        "SourceSeriesForImageSegmentation": source,
        "segmentationSOPInstanceUID": segment[0],
        "Finding": finding,
        **{key: value for key, value in optional.items() if value},
        **({"measurementItems": numbers} if numbers else {}),  # the schema wants at least one, or no list
        **({"qualitativeEvaluations": evaluations} if evaluations else {}),
    }


def _segment(item: Dataset) -> tuple[str, int] | None:
    """(SEG instance, segment number) of a group that is about one segment."""
    found = []
    for child in _named(item, _dcm("ReferencedSegment")):
        for reference in child.get("ReferencedSOPSequence") or ():
            number = segment_number(reference)
            if number is not None:
                found.append((str(reference.get("ReferencedSOPInstanceUID", "")), number))
    return found[0] if len(found) == 1 else None


def _site(item: Dataset, place: str, left_out: _LeftOut) -> dict[str, Any]:
    sites = [i for i in children(item) if item_name(i) in _sites() and _value(i)]
    if not sites:
        return {}
    if len(sites) > 1:
        left_out.add(f"{place} has {len(sites)} finding sites: the JSON has the first")
    if _named(sites[0], _sct("TopographicalModifier")):
        left_out.add(f"{place}: the JSON has no place for the topographical modifier of the finding site")
    laterality = [_value(i) for i in _named(sites[0], _sct("Laterality"), _mapped("older_laterality"))]
    return {"FindingSite": _value(sites[0]), "Laterality": first(laterality)}


def _algorithm(item: Dataset, place: str, left_out: _LeftOut) -> dict[str, Any] | None:
    names = [_text(i) for i in _named(item, _dcm("AlgorithmName"))]
    versions = [_text(i) for i in _named(item, _dcm("AlgorithmVersion"))]
    parameters = [_text(i) for i in _named(item, _dcm("AlgorithmParameters"))]
    if len(names) > 1:
        left_out.add(f"{place} names {len(names)} algorithms: the JSON has the first")
    if not names:
        return None
    optional = {"AlgorithmParameters": parameters} if parameters else {}
    return {"AlgorithmName": names[0], "AlgorithmVersion": first(versions) or "", **optional}


def _evaluations(item: Dataset) -> Iterable[dict[str, Any]]:
    known = {_dcm("Finding"), _mapped("finding_category"), *_sites(), *_methods()}
    for child in children(item):
        if child.get("RelationshipType") != "CONTAINS" or item_name(child) in known:
            continue
        concept = _code_of(child, "ConceptNameCodeSequence")
        value: Any = _value(child) if child.get("ValueType") == "CODE" else None
        if child.get("ValueType") == "TEXT":
            value = _text(child)
        if concept and value:
            yield {"conceptCode": concept, "conceptValue": value}


# ---------------------------------------------------------------- measurements


def _numbers(item: Dataset, place: str, left_out: _LeftOut) -> list[dict[str, Any]]:
    out = []
    for child in children(item, "NUM"):
        quantity, value = _code_of(child, "ConceptNameCodeSequence"), _number(child)
        if quantity is None or value is None:
            name = quantity["CodeMeaning"] if quantity else "a measurement"
            left_out.add(f"{place}: {name} has no value, and the JSON no place for that")
            continue
        out.append({"value": value[0], "quantity": quantity, "units": value[1], **_modifiers(child, place, left_out)})
    return out


def _number(item: Dataset) -> tuple[str, dict[str, str]] | None:
    """Decimal string and unit of a NUM item."""
    measured = first(item.get("MeasuredValueSequence"))
    if measured is None:
        return None
    unit, number = _code_of(measured, "MeasurementUnitsCodeSequence"), measured.get("NumericValue")
    if unit is None or number is None:
        return None
    text = str(getattr(number, "original_string", number)).strip()
    return (text, unit) if len(text) <= _DS_LENGTH else None


def _modifiers(item: Dataset, place: str, left_out: _LeftOut) -> dict[str, Any]:
    """What dcmqi has for the children of a measurement."""
    derivation, modifiers, parameters, properties = None, [], [], []
    population = None
    skipped = {*_sites(), *_methods()}
    for child in children(item):
        relation, kind, name = child.get("RelationshipType"), child.get("ValueType"), item_name(child)
        concept = _code_of(child, "ConceptNameCodeSequence")
        if name == _dcm("Derivation"):
            derivation = _value(child)
        elif relation == "HAS CONCEPT MOD" and kind == "CODE" and name not in skipped:
            modifiers.append({"modifier": concept, "modifierValue": _value(child)})
        elif kind == "NUM" and relation in ("INFERRED FROM", "HAS PROPERTIES"):
            number = _number(child)
            if number is None:
                left_out.add(f"{place}: a {relation.lower()} item has no value")
            elif relation == "INFERRED FROM":
                parameters.append(_triple("derivationParameter", concept, number))
            else:
                properties.append(_triple("numProperty", concept, number))
        elif name == _dcm("PopulationDescription"):
            population = _text(child)
        elif name not in [_dcm(keyword) for keyword in _ALGORITHM]:
            meaning = concept["CodeMeaning"] if concept else kind
            left_out.add(f"{place}: the JSON has no place for {meaning!r} of a measurement")
    optional = {
        "derivationModifier": derivation,
        "measurementModifiers": modifiers,
        "measurementDerivationParameters": parameters,
        "measurementNumProperties": properties,
        "measurementPopulationDescription": population,
        "measurementAlgorithmIdentification": _algorithm(item, place, left_out),
    }
    return {key: value for key, value in optional.items() if value}


_ALGORITHM = ("AlgorithmName", "AlgorithmVersion", "AlgorithmParameters")


def _triple(key: str, concept: dict[str, str] | None, number: tuple[str, dict[str, str]]) -> dict[str, Any]:
    return {key: concept, f"{key}Value": number[0], f"{key}Units": number[1]}


# ---------------------------------------------------------------- items


def _dcm(keyword: str) -> Name:
    code = getattr(codes.DCM, keyword)
    return code.value, code.scheme_designator


def _sct(keyword: str) -> Name:
    code = getattr(codes.SCT, keyword)
    return code.value, code.scheme_designator


def _mapped(name: str) -> Name:
    code = load_concepts()[name].code
    return code.value, code.scheme


def _sites() -> tuple[Name, Name]:
    return _sct("FindingSite"), _mapped("older_finding_site")


def _methods() -> tuple[Name, Name]:
    return _sct("MeasurementMethod"), _mapped("older_measurement_method")


def _named(item: Dataset, *names: Name) -> list[Dataset]:
    return children(item, "", *names)


def _text(item: Dataset) -> str:
    return str(item.get("TextValue") or item.get("UID") or item.get("PersonName") or "")


def _value(item: Dataset) -> dict[str, str] | None:
    return _code_of(item, "ConceptCodeSequence")


def _code_of(item: Dataset, keyword: str) -> dict[str, str] | None:
    code = first(item.get(keyword))
    if code is None:
        return None
    scheme, meaning = str(code.get("CodingSchemeDesignator") or ""), str(code.get("CodeMeaning") or "")
    return {"CodeValue": code_value(code), "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def _reference(item: Dataset) -> str:
    reference = first(item.get("ReferencedSOPSequence"))
    return str(reference.get("ReferencedSOPInstanceUID", "")) if reference is not None else ""

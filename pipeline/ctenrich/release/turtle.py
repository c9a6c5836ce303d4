"""Measurements of segments as RDF (Turtle), with the Radiomics Ontology's classes where they are known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from ctenrich.release.ontology import RADIOMICS_ONTOLOGY, feature_classes
from ctenrich.workspace import atomic_open

__all__ = ["NAMESPACE", "write_features"]

NAMESPACE = "https://github.com/ctenrich/ctenrich/terms#"
"""Namespace of terms that no known ontology has."""
_HAS_VALUE = f"{RADIOMICS_ONTOLOGY}010191"
_HAS_UNIT = f"{RADIOMICS_ONTOLOGY}010198"
_UNIT_CLASSES = {"mm": "I0020", "mm2": "I0027", "mm3": "I0011"}
"""UCUM unit -> class of the Radiomics Ontology."""
_PREFIXES = {
    "ce": NAMESPACE,
    "dcterms": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_VOCABULARY = (
    ("Segment", "Class", "Segment of a DICOM segmentation (SEG)"),
    ("Feature", "Class", "Value of one feature of a segment"),
    ("patientID", "Property", "Patient ID of the object"),
    ("segmentNumber", "Property", "Segment Number (0062,0004)"),
    ("findingSite", "Property", "Finding site of the segment, a SNOMED CT concept or a literal CODE (SCHEME)"),
    ("laterality", "Property", "Laterality of the finding site, a SNOMED CT concept or a literal CODE (SCHEME)"),
    ("ofSegment", "Property", "The segment that was measured"),
    ("quantityCode", "Property", "Code of the quantity in the structured report, CODE (SCHEME)"),
    ("algorithm", "Property", "Algorithm of the measurement, with its version"),
    ("algorithmParameter", "Property", "Algorithm Parameters (111002, DCM)"),
)


_ROWS = 2048
"""Rows with their nested values in memory."""


def write_features(table: Path, path: Path) -> int:
    """Write the measured values of segments as Turtle, row by row.

    Instances are named by their UIDs (``urn:oid:``). A value is of the class of its feature: the Radiomics Ontology's
    where mappings/radiomics_ontology.csv has it, else one of `NAMESPACE` that is declared at the end of the file.

    Parameters
    ----------
    table : Path
        ``quantitative_measurements.parquet``.
    path : Path
        File to write.

    Returns
    -------
    int
        Number of values.
    """
    classes: dict[str, tuple[str, str]] = {}
    units: set[str] = set()
    count = 0
    with atomic_open(path, "w") as out:
        for prefix, namespace in _PREFIXES.items():
            out.write(f"@prefix {prefix}: <{namespace}> .\n")
        for name, kind, text in _VOCABULARY:
            out.write(f"\nce:{name} a rdfs:{kind} ;\n    rdfs:label {_literal(text)} .\n")
        segment: tuple[str, int] | None = None
        for number, row in _rows_of_segments(table):
            key = (row["segmentationInstanceUID"], row["segmentationSegmentNumber"])
            if key != segment:
                out.write(_segment(row))
                segment = key
            out.write(_feature(number, row, classes))
            units.add(row["Units"]["CodeValue"])
            count += 1
        _write_declarations(out, classes, units)
    return count


def _rows_of_segments(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of segments with a finite value, each with its number within the report."""
    import pyarrow.parquet as pq

    report, number = "", 0
    with pq.ParquetFile(table) as reading:
        for batch in reading.iter_batches(_ROWS):
            for row in batch.to_pylist():
                if row["SOPInstanceUID"] != report:
                    report, number = row["SOPInstanceUID"], 0
                number += 1
                value = row["valueFloat"]
                of_segment = row["segmentationInstanceUID"] and row["segmentationSegmentNumber"] is not None
                if of_segment and value is not None and math.isfinite(value):
                    yield number, row


def _segment(row: Mapping[str, Any]) -> str:
    seg = row["segmentationInstanceUID"]
    lines = [
        f"\n{_segment_iri(row)} a ce:Segment",
        f"dcterms:isPartOf <urn:oid:{seg}>",
        f"ce:segmentNumber {row['segmentationSegmentNumber']}",
    ]
    if row["PatientID"]:
        lines.append(f"ce:patientID {_literal(row['PatientID'])}")
    if row["ReferencedSeriesInstanceUID"]:
        lines.append(f"prov:wasDerivedFrom <urn:oid:{row['ReferencedSeriesInstanceUID']}>")
    for name, code in (("findingSite", row["findingSite"]), ("laterality", row["lateralityModifier"])):
        if code and code["CodeValue"]:
            lines.append(f"ce:{name} {_concept(code)}")
    return " ;\n    ".join(lines) + " .\n"


def _feature(number: int, row: Mapping[str, Any], classes: dict[str, tuple[str, str]]) -> str:
    quantity = row["Quantity"]
    scheme, code = quantity["CodingSchemeDesignator"], quantity["CodeValue"]
    iri = feature_classes().get((scheme, code)) or f"{NAMESPACE}{quote(f'{scheme}-{code}', safe='-')}"
    classes[iri] = (quantity["CodeMeaning"] or "", f"{code} ({scheme})")
    lines = [
        f"<urn:oid:{row['SOPInstanceUID']}#measurement-{number}> a ce:Feature, <{iri}>",
        f"ce:ofSegment {_segment_iri(row)}",
        f'<{_HAS_VALUE}> "{row["valueFloat"]!r}"^^xsd:double',
        f"<{_HAS_UNIT}> <{_unit_iri(row['Units']['CodeValue'])}>",
        f"ce:quantityCode {_literal(f'{code} ({scheme})')}",
    ]
    if row["algorithmName"]:
        lines.append(
            f"ce:algorithm {_literal(' '.join(filter(None, (row['algorithmName'], row['algorithmVersion']))))}"
        )
    lines += [f"ce:algorithmParameter {_literal(text)}" for text in sorted(set(row["algorithmParameters"] or ()))]
    return " ;\n    ".join(lines) + " .\n"


def _write_declarations(out: IO[Any], classes: Mapping[str, tuple[str, str]], units: set[str]) -> None:
    for iri, (label, code) in sorted(classes.items()):
        own = " ;\n    rdfs:subClassOf ce:Feature" if iri.startswith(NAMESPACE) else ""
        out.write(
            f"\n<{iri}> a rdfs:Class ;\n    rdfs:label {_literal(label)} ;\n    skos:notation {_literal(code)}{own} .\n"
        )
    for unit in sorted(units):
        known = _UNIT_CLASSES.get(unit)
        kind = f" a <{RADIOMICS_ONTOLOGY}{known}> ;\n   " if known else ""
        out.write(f"\n<{_unit_iri(unit)}>{kind} skos:notation {_literal(f'{unit} (UCUM)')} .\n")


def _segment_iri(row: Mapping[str, Any]) -> str:
    return f"<urn:oid:{row['segmentationInstanceUID']}#segment-{row['segmentationSegmentNumber']}>"


def _unit_iri(unit: str) -> str:
    return f"{NAMESPACE}unit-{quote(unit, safe='')}"


def _concept(code: Mapping[str, Any]) -> str:
    if code["CodingSchemeDesignator"] == "SCT" and str(code["CodeValue"]).isdigit():
        return f"<http://snomed.info/id/{code['CodeValue']}>"
    return _literal(f"{code['CodeValue']} ({code['CodingSchemeDesignator']})")


def _literal(text: str) -> str:
    """A string of Turtle: the escapes of JSON are a part of Turtle's."""
    return json.dumps(str(text), ensure_ascii=False)

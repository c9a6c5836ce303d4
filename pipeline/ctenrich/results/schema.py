"""The columns of every result table: first those of IDC's views with their names, order and types, then ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from ctenrich.results.columns import Column
from ctenrich.results.later_columns import LATER_COLUMNS
from ctenrich.results.object_columns import OBJECT_COLUMNS
from ctenrich.results.run_columns import RUN_COLUMNS

__all__ = [
    "LATER_TABLES",
    "OBJECT_TABLES",
    "RUN_TABLES",
    "SCHEMA_VERSION",
    "STRICT_TABLES",
    "TABLE_TEXTS",
    "Column",
    "arrow_schema",
    "columns",
]

SCHEMA_VERSION = "2"
"""Raised when a column is renamed, removed or changes its type; stored in the metadata of every Parquet file."""

OBJECT_TABLES = tuple(OBJECT_COLUMNS)
"""Tables that come from the written DICOM objects alone."""
STRICT_TABLES = OBJECT_TABLES[:4]
"""Tables that also exist as ``strict_NAME``: IDC's columns and IDC's drops, nothing else."""
RUN_TABLES = tuple(RUN_COLUMNS)
"""Tables that come from the run's records and ledger."""
LATER_TABLES = tuple(LATER_COLUMNS)
"""Tables that ``evaluate``, ``compare``, ``repeatability``, ``quality``, ``run --dose`` and ``review`` write."""


TABLE_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "organs": "organ of a product and series, with patient, scanner, volume, Dice and what to review",
        "cohort_series": "series of the cohort, with patient, scanner, state and lung ends",
        "segmentations": "segment of a SEG",
        "measurement_groups": "measurement group of an SR",
        "quantitative_measurements": "measured value",
        "qualitative_measurements": "coded evaluation",
        "image_level_annotations": "landmark or region on a slice",
        "dicom_metadata": "object, with every attribute",
        "products": "product that was requested, with its alias and model",
        "series": "CT series of the cohort, with its geometry and licence",
        "slices": "slice: index, position in mm, slice score",
        "objects": "written object: product, kind, file",
        "segments": "segment that the segmenter can find, absent ones included",
        "rois": "ROI of the structure set",
        "landmarks": "landmark of the model, with the reason if it is absent",
        "outcomes": "final state of a series or product",
        "issues": "issue found by a check",
        "proofs": "check of the proof of a product",
        "radiomics_features": "first order or texture feature of a segment",
        "deep_features": "feature vector of a segment, or of the whole volume, by a feature model",
        "timings": "stage of a product",
        "runs": "call of the command",
        "evaluation": "organ of a product that was compared with a reference",
        "evaluation_differences": "pair of products that were compared in an organ",
        "evaluation_variance": "organ in which all products were compared",
        "repeatability": "feature that was measured twice in pairs of series",
        "dose_metrics": "dose metric of a segment of a product",
        "dvh_curves": "point of the dose-volume curve of a segment",
        "dose_differences": "organ of a network with doses beside those of the expert's",
        "dose_checks": "finding about the dose of a series",
        "reviews": "decision or comment of a reviewer about a product of a series",
    }
)
"""Table -> what one row is, in the order in which tables are listed."""


def columns(table: str) -> tuple[Column, ...]:
    """Columns of a table, ``strict_`` ones included, in order."""
    if table.startswith("strict_"):
        return tuple(c for c in OBJECT_COLUMNS[table.removeprefix("strict_")] if c.strict)
    return (OBJECT_COLUMNS | RUN_COLUMNS | LATER_COLUMNS)[table]


@cache
def arrow_schema(table: str) -> Any:
    """The table's :class:`pyarrow.Schema`, each field with its description."""
    import pyarrow as pa

    kinds = _types()
    fields = [pa.field(c.name, kinds[c.type], metadata={"description": c.text}) for c in columns(table)]
    return pa.schema(fields, metadata={"ctenrich_schema": SCHEMA_VERSION, "ctenrich_table": table})


@cache
def _types() -> dict[str, Any]:
    import pyarrow as pa

    text = pa.string()
    names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    code3 = pa.struct([pa.field(n, text) for n in names])
    four = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
    code4 = pa.struct([pa.field(n, text) for n in four])
    many = pa.list_(pa.field("element", code3))
    modifiers = ("AnatomicRegionModifierSequence", "SegmentedPropertyTypeModifierCodeSequence")
    return {
        "string": text,
        "strings": pa.list_(pa.field("element", text)),
        "int": pa.int64(),
        "floats": pa.list_(pa.field("element", pa.float64())),
        "ints": pa.list_(pa.field("element", pa.int64())),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "numeric": pa.decimal128(38, 9),
        "code3": code3,
        "code4": code4,
        "property": pa.struct([*code3, *(pa.field(n, many) for n in modifiers)]),
        "content": content_type(6),
    }


def content_type(levels: int) -> Any:
    """Struct of an SR content item with `levels` nested levels of children (below them nothing is kept)."""
    import pyarrow as pa

    text = pa.string()
    texts, ints = pa.list_(pa.field("element", text)), pa.list_(pa.field("element", pa.int64()))
    names = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
    codes = pa.list_(pa.field("element", pa.struct([pa.field(n, text) for n in names])))
    reference = [
        pa.field("ReferencedSOPClassUID", text),
        pa.field("ReferencedSOPInstanceUID", text),
        pa.field("ReferencedFrameNumber", texts),
        pa.field("ReferencedSegmentNumber", ints),
    ]
    measured = [
        pa.field("NumericValue", texts),
        pa.field("FloatingPointValue", pa.list_(pa.field("element", pa.float64()))),
        pa.field("MeasurementUnitsCodeSequence", codes),
    ]
    template = [pa.field(n, text) for n in ("MappingResource", "MappingResourceUID", "TemplateIdentifier")]
    fields = [
        pa.field("RelationshipType", text),
        pa.field("ValueType", text),
        pa.field("ContinuityOfContent", text),
        pa.field("UID", text),
        pa.field("TextValue", text),
        pa.field("Date", pa.date32()),
        pa.field("Time", pa.time64("us")),
        pa.field("DateTime", pa.timestamp("us", tz="UTC")),
        pa.field("PersonName", _person()),
        pa.field("ConceptNameCodeSequence", codes),
        pa.field("ConceptCodeSequence", codes),
        pa.field("ReferencedSOPSequence", pa.list_(pa.field("element", pa.struct(reference)))),
        pa.field("MeasuredValueSequence", pa.list_(pa.field("element", pa.struct(measured)))),
        pa.field("NumericValueQualifierCodeSequence", codes),
        pa.field("ContentTemplateSequence", pa.list_(pa.field("element", pa.struct(template)))),
        pa.field("GraphicType", text),
        pa.field("GraphicData", pa.list_(pa.field("element", pa.float64()))),
        pa.field("ReferencedFrameOfReferenceUID", text),
    ]
    if levels > 1:
        fields.append(pa.field("ContentSequence", pa.list_(pa.field("element", content_type(levels - 1)))))
    return pa.struct(fields)


def _person() -> Any:
    import pyarrow as pa

    parts = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
    group = pa.struct([pa.field(p, pa.string()) for p in parts])
    return pa.struct([pa.field(n, group) for n in ("Alphabetic", "Ideographic", "Phonetic")])

"""``dicom_metadata``: every attribute of the written SEG and SR, nested, in the types of the Healthcare export."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any

from ctenrich.dicom.layouts import AlikeItem
from ctenrich.dicom.nested import Nested, element_info

__all__ = ["Tree", "base_tree", "conform", "grow", "metadata_schema", "narrow_schema", "tree_to_rows"]

Tree = dict[str, "Tree | None"]
"""Keyword -> None for a value, a tree for a sequence."""

_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN", "UV", "SV", "OB or OW"))
_CODE: Tree = dict.fromkeys(("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"))
_REFERENCE: Tree = dict.fromkeys(
    ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "ReferencedFrameNumber", "ReferencedSegmentNumber")
)
_ROOT = """
SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID PatientID Modality
TransferSyntaxUID SeriesDescription SeriesNumber StudyDate SeriesDate SeriesTime ContentDate
ContentTime Manufacturer SoftwareVersions SegmentationType ContentLabel NumberOfFrames
CompletionFlag VerificationFlag ValueType PatientName ImageType
"""


def base_tree() -> Tree:
    """Return the columns that always exist, so that queries on SEG and SR always find them."""
    tree: Tree = dict.fromkeys(_ROOT.split())
    template: Tree = dict.fromkeys(("MappingResource", "TemplateIdentifier"))
    tree["ContentTemplateSequence"] = template
    tree["ContentSequence"] = _content(5)
    instances: Tree = {"SeriesInstanceUID": None, "ReferencedSOPSequence": _REFERENCE}
    evidence: Tree = {"StudyInstanceUID": None, "ReferencedSeriesSequence": instances}
    tree["CurrentRequestedProcedureEvidenceSequence"] = evidence
    tree["ReferencedSeriesSequence"] = {"SeriesInstanceUID": None, "ReferencedInstanceSequence": _REFERENCE}
    segment: Tree = dict.fromkeys(
        (
            "SegmentNumber",
            "SegmentLabel",
            "SegmentDescription",
            "SegmentAlgorithmType",
            "SegmentAlgorithmName",
            "RecommendedDisplayCIELabValue",
            "TrackingID",
            "TrackingUID",
        )
    )
    region: Tree = {**_CODE, "AnatomicRegionModifierSequence": _CODE}
    segment["AnatomicRegionSequence"] = region
    segment["SegmentedPropertyCategoryCodeSequence"] = _CODE
    segment["SegmentedPropertyTypeCodeSequence"] = {**_CODE, "SegmentedPropertyTypeModifierCodeSequence": _CODE}
    tree["SegmentSequence"] = segment
    return grow({}, [tree_to_rows(tree)])


def tree_to_rows(tree: Tree) -> Nested:
    """Return a placeholder row that has every column of a tree."""
    return {k: None if v is None else [tree_to_rows(v)] for k, v in tree.items()}


def _content(levels: int) -> Tree:
    tree: Tree = dict.fromkeys(("RelationshipType", "ValueType", "TextValue", "UID"))
    tree["ConceptNameCodeSequence"] = _CODE
    tree["ConceptCodeSequence"] = _CODE
    tree["ReferencedSOPSequence"] = _REFERENCE
    tree["MeasuredValueSequence"] = {"NumericValue": None, "MeasurementUnitsCodeSequence": _CODE}
    if levels > 1:
        tree["ContentSequence"] = _content(levels - 1)
    return tree


def grow(tree: Tree, rows: list[Nested]) -> Tree:
    """Add every attribute of `rows` to `tree`.

    Parameters
    ----------
    tree : Tree
        Changed in place.
    rows : list of dict
        Nested rows.

    Returns
    -------
    Tree
        The same tree.
    """
    for keyword in dict.fromkeys(chain.from_iterable(rows)):
        values = [row[keyword] for row in rows if keyword in row]
        lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
        if len(lists) < len(values) and keyword not in tree:
            tree[keyword] = None
        if lists:
            below = {_shape(item): item for item in chain.from_iterable(lists)}
            branch = tree.get(keyword)
            tree[keyword] = grow(branch if branch is not None else {}, list(below.values()))
    return tree


def _shape(item: Nested) -> int:
    """Number that is the same only for items with the same keywords at every level."""
    return id(item.layout) if isinstance(item, AlikeItem) else id(item)


def metadata_schema(tree: Tree) -> Any:
    """Arrow schema of a tree: columns in order of their tags at every level."""
    import pyarrow as pa

    meta = {"ctenrich_schema": "1", "ctenrich_table": "dicom_metadata"}
    return pa.schema(_tree_fields(tree), metadata=meta)


def narrow_schema(schema: Any, column: str, tree: Tree | None) -> Any:
    """Leave out the attributes of a column that do not occur: rows are converted in a fraction of the time.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema of a table.
    column : str
        Column of nested records.
    tree : Tree, optional
        Attributes of its values; None if they are not known.

    Returns
    -------
    pyarrow.Schema
        `conform` gives a table the other attributes again.
    """
    place = schema.get_field_index(column)
    if place < 0 or tree is None:
        return schema
    field = schema.field(place)
    return schema.set(place, field.with_type(_narrow_type(field.type, tree)))


def _narrow_type(kind: Any, tree: Tree) -> Any:
    import pyarrow as pa
    import pyarrow.types as kinds

    fields = []
    for field in (field for field in kind if field.name in tree):
        branch = tree[field.name]
        if branch is not None and kinds.is_list(field.type) and kinds.is_struct(field.type.value_type):
            inner = pa.list_(pa.field("element", _narrow_type(field.type.value_type, branch)))
            fields.append(field.with_type(inner))
        else:
            fields.append(field)
    return pa.struct(fields) if fields else kind


def conform(table: Any, schema: Any) -> Any:
    """Give a table the columns of a schema, at every level.

    Parameters
    ----------
    table : pyarrow.Table
        Its columns are some of the schema's.
    schema : pyarrow.Schema
        Wanted columns.

    Returns
    -------
    pyarrow.Table
        Columns that the table lacks are NULL; lists at the top level are empty instead.
    """
    import pyarrow as pa
    import pyarrow.types as kinds

    arrays = []
    for field in schema:
        index = table.schema.get_field_index(field.name)
        if index >= 0:
            arrays.append(_conform_array(table.column(index).combine_chunks(), field.type))
        elif kinds.is_list(field.type):
            arrays.append(pa.array([[]] * table.num_rows, field.type))
        else:
            arrays.append(pa.nulls(table.num_rows, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _conform_array(array: Any, kind: Any) -> Any:
    import pyarrow as pa
    import pyarrow.types as kinds

    if array.type == kind:
        return array
    if kinds.is_list(kind):
        values = _conform_array(array.values, kind.value_type)
        return pa.ListArray.from_arrays(array.offsets, values, type=kind, mask=array.is_null())
    children = []
    for field in kind:
        index = array.type.get_field_index(field.name)
        child = array.field(index) if index >= 0 else pa.nulls(len(array), field.type)
        children.append(_conform_array(child, field.type))
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())


def _tree_fields(tree: Tree) -> list[Any]:
    import pyarrow as pa

    out = []
    for keyword in sorted(tree, key=_tag_order):
        branch = tree[keyword]
        if keyword in _EXTRA_COLUMNS:
            kind = pa.list_(pa.field("element", pa.struct(_extra_fields(keyword))))
        elif branch is not None:
            inner = _tree_fields(branch)
            if not inner:
                continue
            kind = pa.list_(pa.field("element", pa.struct(inner)))
        else:
            kind = _value_type(keyword)
        if kind is not None:
            out.append(pa.field(keyword, kind, metadata={"description": _attribute_description(keyword)}))
    return out


@cache
def _attribute_description(keyword: str) -> str:
    """Name (PS3.6) and tag of an attribute."""
    from pydicom.datadict import dictionary_description, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None:
        return "Tags of sequences too large for this table" if keyword == "DroppedTags" else "Private attributes"
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


_EXTRA_COLUMNS = ("OtherElements", "DroppedTags")


def _extra_fields(keyword: str) -> list[Any]:
    import pyarrow as pa

    if keyword == "DroppedTags":
        return [pa.field("TagName", pa.string()), pa.field("TagReference", pa.string())]
    return [pa.field("Tag", pa.string()), pa.field("Data", pa.list_(pa.field("element", pa.string())))]


@cache
def _tag_order(keyword: str) -> tuple[int, str]:
    from pydicom.datadict import tag_for_keyword

    return (1 << 33 if keyword in _EXTRA_COLUMNS else tag_for_keyword(keyword) or 1 << 32), keyword


@cache
def _value_type(keyword: str) -> Any:
    import pyarrow as pa
    from pydicom.datadict import tag_for_keyword

    info = element_info(tag_for_keyword(keyword) or 0)
    if info is None or info.vr == "SQ" or info.vr in _BINARY:
        return None
    if info.vr == "PN":
        parts = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
        group = pa.struct([pa.field(p, pa.string()) for p in parts])
        kind = pa.struct([pa.field(n, group) for n in ("Alphabetic", "Ideographic", "Phonetic")])
    else:
        kind = _scalars().get(info.vr, pa.string())
    return pa.list_(pa.field("element", kind)) if info.repeated else kind


def _scalars() -> dict[str, Any]:
    import pyarrow as pa

    whole = dict.fromkeys(("US", "SS", "UL", "SL", "AT", "US or SS", "US or OW"), pa.int64())
    real = dict.fromkeys(("FL", "FD"), pa.float64())
    times = {"DA": pa.date32(), "TM": pa.time64("us"), "DT": pa.timestamp("us", tz="UTC")}
    return {**whole, **real, **times}

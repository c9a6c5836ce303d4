"""Descriptions of segments in dcmqi's JSON: read as codes, and refused where they follow another schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctenrich.codes.dcmqi import SEG_SCHEMA
from ctenrich.codes.mappings import Code
from ctenrich.errors import InputError
from ctenrich.reasons import Reason

__all__ = ["DescribedSegment", "check_schema", "code_of", "read_seg_description"]


@dataclass(frozen=True, kw_only=True)
class DescribedSegment:
    """One item of segmentAttributes."""

    file_index: int
    """Place of its list: the number of the image, from 0, in the order in which dcmqi is given them."""
    label_id: int
    label: str
    category: Code
    type: Code
    modifier: Code | None
    region: Code | None
    region_modifier: Code | None
    algorithm_type: str
    algorithm_name: str
    colour: tuple[int, int, int] | None


def check_schema(found: Mapping[str, Any], schema: str, name: str) -> None:
    """Refuse a description that follows another schema.

    Parameters
    ----------
    found : mapping
        The JSON.
    schema : str
        The ``@schema`` that is known.
    name : str
        Of the file.

    Raises
    ------
    InputError
        BAD_DESCRIPTION.
    """
    stated = str(found.get("@schema", ""))
    if stated.rstrip("#").lower() != schema.rstrip("#").lower():
        raise InputError(Reason.BAD_DESCRIPTION, f"{name} follows {stated or 'no schema'}", f"known: {schema}")


def code_of(found: Any, place: str) -> Code:
    """Read a code.

    Parameters
    ----------
    found : Any
        ``{"CodeValue": ..., "CodingSchemeDesignator": ..., "CodeMeaning": ...}``.
    place : str
        For the message.

    Raises
    ------
    InputError
        BAD_DESCRIPTION if a part is missing or empty.
    """
    parts = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    if not isinstance(found, dict) or not all(str(found.get(part, "")).strip() for part in parts):
        raise InputError(Reason.BAD_DESCRIPTION, f"{place}: a code lacks its value, scheme or meaning")
    value, scheme, meaning = (str(found[part]).strip() for part in parts)
    return Code(value, scheme, meaning)


def read_seg_description(path: Path) -> tuple[DescribedSegment, ...]:
    """Read the segments of a description for dcmqi's ``itkimage2segimage``.

    Raises
    ------
    InputError
        BAD_DESCRIPTION if it is not JSON, follows another schema, lacks what the schema requires, or describes a label
        of an image twice.
    """
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise InputError(Reason.BAD_DESCRIPTION, f"{path.name} is not JSON") from error
    if not isinstance(found, dict):
        raise InputError(Reason.BAD_DESCRIPTION, f"{path.name} is not a description of segments")
    if "@schema" in found:  # dcmqi's own segimage2itkimage writes none
        check_schema(found, SEG_SCHEMA, path.name)
    attributes = found.get("segmentAttributes")
    if not isinstance(attributes, list) or not all(isinstance(group, list) for group in attributes):
        raise InputError(Reason.BAD_DESCRIPTION, f"{path.name} has no segmentAttributes in a list of lists")
    segments = [
        _segment(item, n, f"{path.name}, image {n + 1}") for n, group in enumerate(attributes) for item in group
    ]
    places = [(s.file_index, s.label_id) for s in segments]
    if not segments or len(set(places)) < len(places):
        text = "describes no segment" if not segments else "describes a label of an image twice"
        raise InputError(Reason.BAD_DESCRIPTION, f"{path.name} {text}")
    return tuple(segments)


def _segment(item: Any, index: int, place: str) -> DescribedSegment:
    def optional(key: str) -> Code | None:
        return code_of(item[key], f"{place}: {key}") if item.get(key) else None

    try:
        colour = item.get("recommendedDisplayRGBValue")
        return DescribedSegment(
            file_index=index,
            label_id=int(item["labelID"]),
            label=str(item.get("SegmentLabel") or item.get("SegmentDescription") or ""),
            category=code_of(item["SegmentedPropertyCategoryCodeSequence"], f"{place}: category"),
            type=code_of(item["SegmentedPropertyTypeCodeSequence"], f"{place}: type"),
            modifier=optional("SegmentedPropertyTypeModifierCodeSequence"),
            region=optional("AnatomicRegionSequence"),
            region_modifier=optional("AnatomicRegionModifierSequence"),
            algorithm_type=str(item["SegmentAlgorithmType"]),
            algorithm_name=str(item.get("SegmentAlgorithmName", "")),
            colour=(int(colour[0]), int(colour[1]), int(colour[2])) if colour else None,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            Reason.BAD_DESCRIPTION, f"{place}: a segment is not as the schema requires ({error})"
        ) from error

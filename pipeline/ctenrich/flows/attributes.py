"""Attributes as flow files name them: keywords, and the spelling of private attributes."""

from __future__ import annotations

import re
from functools import cache

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from ctenrich.dicom.texts import TEXT_VRS
from ctenrich.errors import did_you_mean
from ctenrich.flows.records import Attribute

__all__ = ["AttributeProblem", "identifies_patient", "is_keyword", "parse_attribute"]

_PRIVATE = re.compile(r"\(\s*([0-9A-Fa-f]{4})\s*,\s*\"([^\"\\]{1,64})\"\s*,\s*(?:[xX]{2})?([0-9A-Fa-f]{2})\s*\)")
_TAG = re.compile(r"\(?\s*([0-9A-Fa-f]{4})\s*,?\s*([0-9A-Fa-f]{4})\s*\)?")
_PRIVATE_HINT = 'write a private attribute as (0019,"CREATOR",23): group, private creator, last two digits'


class AttributeProblem(ValueError):  # noqa: N818  a finding about a text, like re.error
    """A text that names no attribute with a text.

    Parameters
    ----------
    message : str
        What is wrong.
    hint : str
        What to write.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@cache
def _keywords() -> frozenset[str]:
    return frozenset(entry[4] for entry in DicomDictionary.values() if entry[4])


def is_keyword(text: str) -> bool:
    """Return whether a text is a keyword of the DICOM dictionary (PS3.6)."""
    return tag_for_keyword(text) is not None


def identifies_patient(name: str) -> bool:
    """Return whether the values of an attribute, by its keyword, may identify a patient or an examination."""
    return "Patient" in name or name.endswith(("Name", "UID", "AccessionNumber"))


def parse_attribute(text: str) -> Attribute:
    """Parse the name of an attribute: a keyword, a tag ``(0008,0060)``, or ``(0019,"CREATOR",23)``.

    Raises
    ------
    AttributeProblem
        It is unknown, private without a creator, or its values have no text.
    """
    private = _PRIVATE.fullmatch(text)
    if private is not None:
        group = int(private[1], 16)
        if group % 2 == 0:
            raise AttributeProblem(f"{text}: a private attribute has an odd group")
        return Attribute(name=text, group=group, element=int(private[3], 16), creator=private[2].strip())
    by_tag = _TAG.fullmatch(text)
    if by_tag is not None:
        number = int(by_tag[1] + by_tag[2], 16)
        if (number >> 16) % 2:
            raise AttributeProblem(f"{text} is private, and its creator is not named", _PRIVATE_HINT)
        keyword = keyword_for_tag(number)
    else:
        keyword = text if is_keyword(text) else ""
    if not keyword:
        message = f"{text!r} is no keyword of the DICOM dictionary" if text else "an attribute without a keyword"
        raise AttributeProblem(message, did_you_mean(text, _keywords()) or _PRIVATE_HINT)
    tag = tag_for_keyword(keyword) or 0
    vr = dictionary_VR(tag)
    if vr not in TEXT_VRS:
        kind = "a sequence: only attributes of the top level can be asked" if vr == "SQ" else f"of VR {vr}"
        raise AttributeProblem(f"{keyword} has no text: it is {kind}")
    return Attribute(name=keyword, group=tag >> 16, element=tag & 0xFFFF)

"""Values of attributes as text, as they were sent, for regular expressions.

Several values are joined by backslashes, as in the file. Each is without its padding (blanks and NUL at both ends).
Decimal and integer strings are as written. A number of a binary VR is in Python's decimal form.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.charset import convert_encodings
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import ImplicitVRLittleEndian

from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.values import joined_text

__all__ = ["TEXT_VRS", "AttributeTag", "read_texts"]

_META_GROUP = 0x0002
_PLAIN = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
"""Text in the default character repertoire: its bytes are its characters."""
_LONG = frozenset({"LT", "ST", "UR", "UT"})
"""Text with one value, in which a backslash is a character."""
_NUMBERS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
TEXT_VRS = _PLAIN | _LONG | _NUMBERS | {"LO", "PN", "SH", "UC", "US or SS"}
"""VRs whose values have a text."""


class AttributeTag(NamedTuple):
    """Tag of an attribute at the top level of a data set."""

    group: int
    element: int
    """Of a private attribute: the two digits after its block."""
    creator: str = ""
    """Private creator; empty for an attribute of the standard."""


def read_texts(path: Path, wanted: Iterable[AttributeTag]) -> dict[AttributeTag, str]:
    """Read the texts of attributes of a file.

    Parameters
    ----------
    path : Path
        DICOM file, with or without preamble.
    wanted : iterable of AttributeTag
        Attributes; those of group 2 are read from the file meta information.

    Returns
    -------
    dict
        Attribute -> text, empty for an attribute without value; attributes that the file lacks are left out.

    Raises
    ------
    InputError
        IO_ERROR, NOT_DICOM or TRUNCATED.
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    tags = tuple(wanted)
    keywords = [keyword_for_tag((tag.group << 16) | tag.element) for tag in tags if not tag.creator]
    whole = any(tag.creator or tag.group == _META_GROUP for tag in tags) or not all(keywords)
    names = None if whole else [*keywords, "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID"]
    with open_dicom(path, tags=names) as parsed, quiet():
        implicit = parsed.transfer_syntax == ImplicitVRLittleEndian
        parsed.dataset.set_original_encoding(implicit, parsed.little_endian, _encodings(parsed.dataset))
        found = {tag: _text_of(_data_set(parsed.dataset, tag), tag) for tag in tags}
    return {tag: text for tag, text in found.items() if text is not None}


def _encodings(dataset: Dataset) -> Any:
    """Encodings of text, by Specific Character Set."""
    names = joined_text(dataset, "SpecificCharacterSet").split("\\")
    return convert_encodings([name.strip() for name in names])


def _data_set(dataset: Dataset, tag: AttributeTag) -> Dataset:
    return dataset.file_meta if tag.group == _META_GROUP else dataset


def _text_of(dataset: Dataset, tag: AttributeTag) -> str | None:
    number = _private_tag(dataset, tag) if tag.creator else (tag.group << 16) | tag.element
    if number is None or number not in dataset:
        return None
    raw: Any = dataset.get_item(number)
    content = raw.value if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) else None
    if content is not None and raw.VR in _PLAIN:
        return _joined(content.decode("latin-1"))
    try:
        element = dataset[number]
    except Exception:  # noqa: BLE001  pydicom raises many kinds for a value that does not fit its VR
        return _joined((content or b"").decode("latin-1"))
    return _value_text(element.value, str(element.VR))


def _private_tag(dataset: Dataset, tag: AttributeTag) -> int | None:
    """Full tag of a private attribute: that of the block which its creator has reserved (PS3.5 7.8.1)."""
    for block in range(0x10, 0x100):
        number = (tag.group << 16) | block
        if number in dataset and _value_text(dataset[number].value, "LO") == tag.creator:
            return (tag.group << 16) | (block << 8) | tag.element
    return None


def _value_text(value: Any, vr: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _joined(value.decode("latin-1"))
    if vr in _LONG:
        return str(value).strip(" \x00")
    values = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
    return "\\".join(_written(one).strip(" \x00") for one in values)


def _written(value: Any) -> str:
    """A value as it was written: numbers of pydicom keep their text, names have other things by that name."""
    text = getattr(value, "original_string", None)
    return text if isinstance(text, str) else str(value)


def _joined(text: str) -> str:
    return "\\".join(part.strip(" \x00") for part in text.strip(" \x00").split("\\"))

"""Values of elements of untrusted data sets: a broken value counts as missing."""

from __future__ import annotations

import math
import struct

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

__all__ = ["joined_text", "number", "numbers", "text", "texts", "whole"]

_PLAIN_TEXT = frozenset({"UI", "CS", "IS", "DS"})
_KNOWN: dict[str, tuple[int, str]] = {}


def text(data: Dataset, keyword: str) -> str:
    """Value of an element as one string.

    Parameters
    ----------
    data : Dataset
        A data set; elements that pydicom has not converted yet are read from their bytes.
    keyword : str
        Keyword of the element.

    Returns
    -------
    str
        Without padding (blanks, NUL); empty where the element is missing or unreadable.
    """
    vr, raw, _ = _raw(data, keyword)
    if vr in _PLAIN_TEXT and raw.isascii():
        return str(raw, "ascii").strip(" \0")
    try:
        value = data.get(keyword)
    except Exception:  # noqa: BLE001  a broken value counts as missing; the geometry rules decide what follows
        return ""
    return "" if value is None else str(value).strip(" \0")


def texts(data: Dataset, keyword: str) -> tuple[str, ...]:
    """Values of an element as strings.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    tuple of str
        Each without padding; empty where the element is missing or unreadable.
    """
    vr, raw, _ = _raw(data, keyword)
    if vr in _PLAIN_TEXT and raw.isascii():
        joined = str(raw, "ascii").strip(" \0")
        return tuple(v.strip(" \0") for v in joined.split("\\")) if joined else ()
    try:
        value = data.get(keyword)
    except Exception:  # noqa: BLE001  as above
        return ()
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) or not hasattr(value, "__len__") else list(value)
    return tuple(str(v).strip(" \0") for v in values)


_TEXT_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"})


def joined_text(data: Dataset, keyword: str) -> str:
    """Values of an element as one string, joined by backslashes as in the file.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    str
        Each value without padding at its ends; empty where the element is missing or unreadable.
    """
    vr, raw, _ = _raw(data, keyword)
    if vr in _TEXT_VRS and raw.isascii() and b"\x1b" not in raw:
        joined = str(raw, "ascii").strip(" \0")
        return joined if "\\" not in joined else "\\".join(part.strip(" \0") for part in joined.split("\\"))
    if not vr and _KNOWN[keyword][0] not in data._dict:
        return ""
    return "\\".join(texts(data, keyword))


def numbers(data: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Values of an element as floats.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    tuple of float or None
        None where the element is missing or one of its values is not a number.
    """
    vr, raw, little = _raw(data, keyword)
    try:
        if vr in {"DS", "IS"}:
            content = raw.strip(b" \0")
            return tuple(float(v) for v in content.split(b"\\")) if content else None
        if vr == "US":
            return struct.unpack(f"{'<' if little else '>'}{len(raw) // 2}H", raw)
        value = data.get(keyword)
        if value is None or value == "":
            return None
        parts = [value] if isinstance(value, str) or not hasattr(value, "__len__") else list(value)
        return tuple(float(v) for v in parts)
    except Exception:  # noqa: BLE001  as above
        return None


def _raw(data: Dataset, keyword: str) -> tuple[str, bytes, bool]:
    """VR, bytes and byte order of an element that pydicom has not yet interpreted; an empty VR otherwise.

    The bytes are quicker to read than pydicom's objects are to make, and there are thousands of slices.
    """
    known = _KNOWN.get(keyword)
    if known is None:
        tag = tag_for_keyword(keyword) or 0
        _KNOWN[keyword] = known = (tag, dictionary_VR(tag))
    item = data._dict.get(known[0])  # type: ignore[call-overload]
    if not isinstance(item, RawDataElement) or not item.value:
        return "", b"", True
    return item.VR or known[1], item.value, item.is_little_endian


def number(data: Dataset, keyword: str) -> float | None:
    """First value of an element as a float.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    float or None
        None where the element is missing or one of its values is not a number.
    """
    found = numbers(data, keyword)
    return found[0] if found else None


def whole(data: Dataset, keyword: str) -> int | None:
    """First value of an element as an integer.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    int or None
        None where the element is missing or its first value is not a whole number.
    """
    found = number(data, keyword)
    return int(found) if found is not None and math.isfinite(found) and found == int(found) else None

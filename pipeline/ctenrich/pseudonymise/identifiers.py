"""Find what identifies the patient of a file elsewhere in it: in texts that are kept, and in the bytes written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from ctenrich.dicom.elements import UNDEFINED
from ctenrich.errors import InputError
from ctenrich.pseudonymise.profile import Action, Profile, standard_table
from ctenrich.reasons import Reason

__all__ = ["Identifiers", "find_identifiers"]

_SHORTEST_PART, _SHORTEST_TEXT, _SHORTEST_NUMBER, _SHORTEST_IN_BYTES = 3, 4, 6, 6
_LONGEST_NUMBER = 8
"""Digits of an identifier that is not looked for in bytes, where it may be part of another number."""
_UID = re.compile(r"[0-9]+(?:\.[0-9]+){3,}")
_UID_BYTES = re.compile(rb"[0-9]+(?:\.[0-9]+){3,}")
_SEPARATORS = re.compile(r"[\^=\s,;]+")
_TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "AE", "PN"})
_READ = _TEXTS | {"UI", "DA", "SQ", "UN"}
_HIDDEN = frozenset({Action.REMOVE, Action.EMPTY, Action.DUMMY, Action.CLEAN})


class Identifiers:
    """Texts that must not be in the pseudonymised file, and the searches for them.

    Parameters
    ----------
    texts : set of str
        Names, identifiers, addresses.
    numbers : set of str
        Those of digits only.
    uids : set of str
        UIDs that get a new value.
    """

    def __init__(self, texts: set[str], numbers: set[str], uids: set[str]) -> None:
        self.texts, self.numbers, self.uids = texts, numbers, uids
        words = "|".join(re.escape(text) for text in sorted(texts | numbers, key=lambda text: (-len(text), text)))
        self._pattern = re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE) if words else None
        long = [t for t in texts if len(t) >= _SHORTEST_IN_BYTES] + [t for t in numbers if len(t) > _LONGEST_NUMBER]
        forms = {text.encode(name, "ignore").lower() for text in long for name in ("utf-8", "latin-1")}
        self._forms = [form for form in sorted(forms) if len(form) >= _SHORTEST_IN_BYTES]
        self._uid_bytes = {uid.encode("ascii", "ignore") for uid in uids}

    def replace(self, text: str, token: Callable[[str], str]) -> str:
        """Replace the identifiers in a text, whatever their case.

        Parameters
        ----------
        text : str
            One value.
        token : callable
            Identifier -> what replaces it.
        """
        if self._pattern is not None:
            text = self._pattern.sub(lambda match: token(match[0]), text)
        if not self.uids:
            return text
        return _UID.sub(lambda match: token(match[0]) if match[0].strip(".") in self.uids else match[0], text)

    def in_bytes(self, data: bytes) -> bool:
        """Whether bytes contain an identifier as a whole word; short ones, which may be chance, do not count."""
        lower = data.lower()
        if any(form in lower and _is_word(form, lower) for form in self._forms):
            return True
        return bool(self._uid_bytes) and any(uid in self._uid_bytes for uid in _UID_BYTES.findall(data))


def _is_word(form: bytes, data: bytes) -> bool:
    return re.search(rb"(?<![0-9a-z])" + re.escape(form) + rb"(?![0-9a-z])", data) is not None


def find_identifiers(
    dataset: Dataset, profile: Profile, *, words: frozenset[str], is_mapped: Callable[[str], bool]
) -> Identifiers:
    """Collect what identifies persons, institutions and devices in a data set, sequences included.

    Parameters
    ----------
    dataset : Dataset
        As read.
    profile : Profile
        Attributes that it keeps are no identifiers.
    words : frozenset of str
        Words that identify no one: a patient whose name is one of them is not looked for by it alone.
    is_mapped : callable
        Whether a UID gets a new value.

    Raises
    ------
    InputError
        TRUNCATED if the value of an element is shorter than its length.
    """
    texts: set[str] = set()
    numbers: set[str] = set()
    uids: set[str] = set()
    for tag, vr, value in _values(dataset):
        if vr == "UI":
            uids |= {uid for uid in _texts_of(value) if len(uid) >= 12 and is_mapped(uid)}
        elif vr == "DA":
            numbers |= set(_texts_of(value)) if keyword_for_tag(tag) == "PatientBirthDate" else set()
        elif vr in _TEXTS and _identifies(tag, vr, profile):
            for text in _texts_of(value):
                found = {text, *(_SEPARATORS.split(text) if vr == "PN" else ())}
                numbers |= {t for t in found if t.isdigit() and len(t) >= _SHORTEST_NUMBER}
                shortest = _SHORTEST_PART if vr == "PN" else _SHORTEST_TEXT
                texts |= {t for t in found if len(t) >= shortest and not t.isdigit() and t.casefold() not in words}
    return Identifiers(texts, numbers, uids)


def _values(dataset: Dataset) -> Iterator[tuple[BaseTag, str, object]]:
    waiting = [dataset]
    while waiting:
        current = waiting.pop()
        for tag in list(current.keys()):
            raw: Any = current.get_item(tag)
            _check_length(raw)
            if tag.is_private or tag.element == 0:
                continue
            if (raw.VR or _usual_vr(tag)) not in _READ:
                continue
            element = current[tag]
            if element.VR == "SQ":
                waiting.extend(element.value)
            else:
                yield tag, element.VR, element.value


def _check_length(raw: Any) -> None:
    """Refuse an element whose value is shorter than its length: the file was cut."""
    if isinstance(raw, RawDataElement) and raw.length != UNDEFINED and len(raw.value or b"") != raw.length:
        raise InputError(Reason.TRUNCATED, "the file ends inside an element")


def _usual_vr(tag: BaseTag) -> str:
    return str(dictionary_VR(tag)) if dictionary_has_tag(tag) else "UN"


def _texts_of(value: object) -> Iterable[str]:
    if value is None or isinstance(value, (bytes, int, float)):
        return ()
    values = [value] if isinstance(value, (str, PersonName)) or not isinstance(value, Iterable) else value
    return [text for one in values if (text := str(one).strip().strip("\0"))]


def _identifies(tag: BaseTag, vr: str, profile: Profile) -> bool:
    if vr == "PN":
        return True
    row = standard_table().get(keyword_for_tag(tag))
    if row is None or row["descriptors"] or row["characteristics"] or row["structured_content"]:
        return False
    return profile.action(tag) in _HIDDEN and any(letter in row["basic"] for letter in "XZD")

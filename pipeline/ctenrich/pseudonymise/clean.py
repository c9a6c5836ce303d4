"""Apply the profile to one data set: every element is kept, cleaned, emptied, replaced, mapped, shifted or removed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from ctenrich.pseudonymise.dates import is_time, shift_date, shift_datetime
from ctenrich.pseudonymise.identifiers import Identifiers
from ctenrich.pseudonymise.key import Key
from ctenrich.pseudonymise.profile import Action, Dates, PrivateAttribute, Profile, Retain
from ctenrich.pseudonymise.words import TextCleaner

__all__ = ["REMOVED", "Cleaner", "Subject", "is_registered_uid"]

REMOVED = "REMOVED"
"""Text in place of a value that an object must have."""
_TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
_TEMPORAL = frozenset({"DA", "DT", "TM"})
_BINARY = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OB", "OW", "OF", "OD", "OL", "OV"})
_BULK = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN"})
_NUMBER_TEXT = re.compile(rb"[0-9eE+\-. \\]*\0?")
_CODE_STRING = re.compile(r"[A-Za-z0-9 _/.-]{0,16}")
_AGE = re.compile(r"[0-9]{3}[DWMY]")
_UID = re.compile(r"[0-9.]{1,64}")
_DUMMIES = {
    "AS": "000Y", "DA": "19000101", "TM": "000000", "DT": "19000101000000", "DS": "0", "IS": "0",
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"), 0),
    **dict.fromkeys(_BULK, b"\0" * 8),
}  # fmt: skip
_ALIKE = (_TEXTS, frozenset({"DS", "IS"}), _BULK, frozenset({"US", "SS"}))
"""Representations that may stand for one another in files of careless writers."""
_CODE_SYSTEM = re.compile(r"2\.16\.840\.1\.113883\.(6\.[0-9]{1,4}|3\.26\.1\.1)")
"""UIDs of code systems registered with HL7 (PS3.16 section 8)."""
_PUBLIC_SCHEMES = frozenset({
    "99CTENRICH", "99SDM", "ACR", "BARI", "BI", "C4", "DCM", "FMA", "HPC", "I10", "I10P", "I9", "I9C", "IBSI", "ICDO3",
    "ISO3166_1", "ISO639_1", "ISO639_2", "ITIS_TSN", "LN", "MDC", "MSH", "NCIt", "NDC", "NEU", "POS", "PUBCHEM_CID",
    "RADELEMENT", "RADLEX", "RFC3066", "RFC5646", "RXNORM", "SCT", "SNM3", "SRT", "UBERON", "UCUM", "UMLS", "UNS",
})  # fmt: skip
"""Coding schemes whose meanings are published; those of others are cleaned as free text."""
_PSEUDONYMS = frozenset({"PatientID", "PatientName", "ClinicalTrialSubjectID"})
_OLDEST = 89
"""Years; a greater age could identify a person, and becomes 90 years."""


def is_registered_uid(uid: str) -> bool:
    """Whether the standard itself assigns a UID (PS3.6 annex A, PS3.16 section 8): it identifies no one's object."""
    return UID(uid, validation_mode=config.IGNORE).type != "" or _CODE_SYSTEM.fullmatch(uid) is not None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The patient of a file, as the file must name it."""

    patient_id: str
    """Original Patient ID."""
    pseudonym: str
    days: int
    """Days by which dates are moved."""


class Cleaner:
    """Applies a profile to the data set of one file.

    Parameters
    ----------
    profile : Profile
        Actions.
    key : Key
        Makes UIDs.
    texts : TextCleaner
        Cleans free text.
    subject : Subject
        The patient.
    identifiers : Identifiers
        Texts that must not be kept anywhere.
    """

    def __init__(
        self, profile: Profile, key: Key, texts: TextCleaner, *, subject: Subject, identifiers: Identifiers
    ) -> None:
        self.profile, self.key, self.texts, self.subject = profile, key, texts, subject
        self.counts: Counter[tuple[str, str]] = Counter()
        """(attribute, outcome) -> number of elements."""
        self._identifiers = identifiers
        self._days = 0 if profile.options.dates is Dates.KEEP else subject.days
        self._actions: dict[Action, Callable[[DataElement], str]] = {
            Action.KEEP: self._keep,
            Action.CLEAN: self._clean,
            Action.EMPTY: self._empty,
            Action.DUMMY: self._dummy,
            Action.UID: self._map,
            Action.DATE: self._shift,
        }

    def clean(self, dataset: Dataset) -> None:
        """Clean a data set and all of its sequences in place."""
        kept_private = self._private_to_keep(dataset)
        for tag in sorted(dataset.keys()):
            if tag.is_private and tag not in kept_private:
                del dataset[tag]
                self._count(f"private ({tag.group:04X})", Action.REMOVE)
            elif tag.element == 0:
                del dataset[tag]
            elif not tag.is_private:
                self._public(dataset, tag)

    def _public(self, dataset: Dataset, tag: BaseTag) -> None:
        action = self.profile.action(tag)
        name = keyword_for_tag(tag) or f"unknown ({tag.group:04X})"
        if action is Action.REMOVE:
            del dataset[tag]
            self._count(name, Action.REMOVE)
        elif action is Action.KEEP and self._is_plain(dataset.get_item(tag)):
            self._count(name, Action.KEEP)
        else:
            element = dataset[tag]
            outcome = self._actions[action](element) if _fits(element) else "invalid"
            if outcome in ("invalid", Action.REMOVE):
                del dataset[tag]
            self._count(name, outcome)

    def _count(self, name: str, outcome: str) -> None:
        self.counts[name, str(outcome)] += 1

    def _is_plain(self, raw: Any) -> bool:
        """Whether an element that was not parsed yet is a number without an identifier in its bytes."""
        if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
            return False
        allowed = dictionary_VR(raw.tag).split(" or ")
        if raw.VR is not None and raw.VR not in allowed:
            return False
        if allowed[0] in ("DS", "IS"):
            return len(raw.value) > 64 and _NUMBER_TEXT.fullmatch(raw.value) is not None
        return _BINARY.issuperset(allowed) and not self._identifiers.in_bytes(raw.value)

    # ------------------------------------------------------------ actions; each returns what became of the element

    def _keep(self, element: DataElement) -> str:
        vr = element.VR
        if vr == "SQ":
            return self._items(element)
        if vr in _TEMPORAL:
            return self._shift(element)
        if vr == "UI":
            return self._keep_uids(element)
        if vr in _BULK:
            return (
                "invalid"
                if isinstance(element.value, bytes) and self._identifiers.in_bytes(element.value)
                else Action.KEEP
            )
        if vr in ("PN", "UR", "AE"):
            return self._dummy(element)
        if vr in _BINARY:
            return Action.KEEP
        if element.keyword == "SpecificCharacterSet":
            known = all(value in python_encoding for value in _values(element))
            return Action.KEEP if known else "invalid"
        return self._keep_text(element)

    def _keep_text(self, element: DataElement) -> str:
        vr, values = element.VR, _values(element)
        if vr in ("DS", "IS"):
            bad = not all(_is_number(value) for value in values) or bool(self._identifiers.numbers.intersection(values))
        elif vr == "AS":
            bad = not all(_AGE.fullmatch(value) for value in values)
        else:
            bad = vr == "CS" and not all(_CODE_STRING.fullmatch(value) for value in values)
        if bad:
            element.value = None
            return "invalid value emptied"
        if element.keyword == "CodeMeaning" and self._scheme not in _PUBLIC_SCHEMES:
            return self._clean(element)
        if vr == "AS" and any(int(value[:3]) > _OLDEST and value[3] == "Y" for value in values):
            element.value = "090Y"
            return Action.CLEAN
        if vr not in ("DS", "IS", "AS") and any(self._hide(value) != value for value in values):
            element.value = [self._hide(value) if vr != "CS" else REMOVED for value in values]
            return "identifier replaced"
        return Action.KEEP

    def _keep_uids(self, element: DataElement) -> str:
        values = _values(element)
        if all(_UID.fullmatch(value) for value in values) and Retain.UIDS in self.profile.options.retain:
            return Action.KEEP
        return self._map(element)

    def _clean(self, element: DataElement) -> str:
        if element.VR == "SQ":
            return self._items(element)
        if element.VR in ("AE", "PN"):
            return self._dummy(element)
        if element.VR not in _TEXTS:
            return self._keep(element) if element.VR not in (*_BULK, "UR") else Action.REMOVE
        before = _values(element)
        after = [self.texts.clean(value, element.VR, self._hide) for value in before]
        if after == before:
            return Action.KEEP
        element.value = after if len(after) != 1 else after[0]
        return Action.CLEAN

    def _empty(self, element: DataElement) -> str:
        if element.keyword in _PSEUDONYMS:
            return self._dummy(element)
        element.value = [] if element.VR == "SQ" else None
        return Action.EMPTY

    def _dummy(self, element: DataElement) -> str:
        if element.VR == "SQ":
            return self._items(element)
        if element.VR == "UI":
            return self._map(element)
        if element.keyword in _PSEUDONYMS:
            own = element.keyword != "PatientID" or str(element.value).strip() == self.subject.patient_id
            element.value = self.subject.pseudonym if own else REMOVED
        else:
            element.value = _DUMMIES.get(element.VR, REMOVED)
        return Action.DUMMY

    def _map(self, element: DataElement) -> str:
        if element.VR == "SQ":
            return self._items(element)
        if element.VR != "UI":
            return "invalid"
        before = _values(element)
        after = [value if not value or is_registered_uid(value) else self.key.uid(value) for value in before]
        if after == before:
            return Action.KEEP
        element.value = after if len(after) != 1 else after[0]
        return Action.UID

    def _shift(self, element: DataElement) -> str:
        if element.VR not in _TEMPORAL:
            return "invalid"
        moved = [self._moved(value, element.VR) if value else "" for value in _values(element)]
        if any(value is None for value in moved):
            element.value = None
            return "invalid value emptied"
        if element.VR == "TM":
            return Action.KEEP
        element.value = moved if len(moved) != 1 else moved[0]
        return Action.DATE if self._days else Action.KEEP

    def _moved(self, value: str, vr: str) -> str | None:
        if vr == "TM":
            return value if is_time(value) else None
        return shift_date(value, self._days) if vr == "DA" else shift_datetime(value, self._days)

    # ------------------------------------------------------------ parts

    _scheme = ""

    def _items(self, element: DataElement) -> str:
        for item in element.value:
            before, self._scheme = self._scheme, str(item.get("CodingSchemeDesignator", "") or "").strip()
            self.clean(item)
            self._scheme = before
        return Action.KEEP

    def _hide(self, text: str) -> str:
        """A text in which identifiers of the file are tokens."""
        return self._identifiers.replace(text, self.texts.token)

    def _private_to_keep(self, dataset: Dataset) -> set[BaseTag]:
        """Private attributes of the list, and the elements that name their creators."""
        found: set[BaseTag] = set()
        if not self.profile.private:
            return found
        tags = list(dataset.keys())
        for tag in (one for one in tags if one.is_private and one.element >= 0x1000):
            creator = Tag(tag.group, tag.element >> 8)
            if creator not in dataset:
                continue
            name = str(dataset[creator].value or "").strip()
            one = PrivateAttribute(creator=name, group=tag.group, element=tag.element & 0xFF)
            if one in self.profile.private and self._is_harmless(dataset[tag]):
                found |= {tag, creator}
                self._count(f"private ({tag.group:04X})", Action.KEEP)
        return found

    def _is_harmless(self, element: DataElement) -> bool:
        if element.VR in _BULK:
            return isinstance(element.value, bytes) and not self._identifiers.in_bytes(element.value)
        if element.VR in _BINARY:
            return True
        if element.VR in ("DS", "IS"):
            return all(_is_number(value) for value in _values(element)) and not self._identifiers.numbers & {
                *_values(element)
            }
        if element.VR in (*_TEXTS, "CS"):
            return all(self._hide(value) == value for value in _values(element))
        return False


def _values(element: DataElement) -> list[str]:
    """Values of a text element, without padding."""
    value = element.value
    if value is None:
        return []
    values = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return [str(one).strip(" \0") for one in values]


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return len(text) <= 64


def _fits(element: DataElement) -> bool:
    """Whether an element has a value representation that its attribute may have."""
    allowed = dictionary_VR(element.tag).split(" or ")
    return element.VR in allowed or any(element.VR in group and group & {*allowed} for group in _ALIKE)

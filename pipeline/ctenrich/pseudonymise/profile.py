"""The confidentiality profile of PS3.15 annex E: what is done with each attribute, under the chosen options."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = [
    "EDITION",
    "Action",
    "Clean",
    "Dates",
    "Options",
    "PrivateAttribute",
    "Profile",
    "Retain",
    "added_attributes",
    "read_private_attributes",
    "standard_table",
]

EDITION = "2025a"
"""Edition of PS3.15 whose Table E.1-1 is in profile.csv."""
_TEMPORAL = frozenset({"DA", "DT", "TM"})
_LONG_TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
Row = Mapping[str, str]


class Retain(StrEnum):
    """Options of PS3.15 E.3 that keep information; the value is also the column of the table, with _ for -."""

    UIDS = "uids"
    DEVICE = "device"
    INSTITUTION = "institution"
    CHARACTERISTICS = "characteristics"
    SAFE_PRIVATE = "safe-private"


class Clean(StrEnum):
    """Options of PS3.15 E.3 that clean information instead of removing it."""

    DESCRIPTORS = "descriptors"
    STRUCTURED_CONTENT = "structured-content"
    GRAPHICS = "graphics"


class Dates(StrEnum):
    """What happens to dates and times."""

    SHIFT = "shift"
    KEEP = "keep"
    REMOVE = "remove"


class Action(StrEnum):
    """What is done with an attribute that is there."""

    KEEP = "kept"
    CLEAN = "cleaned"
    REMOVE = "removed"
    EMPTY = "emptied"
    DUMMY = "replaced"
    UID = "mapped"
    DATE = "shifted"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the basic profile."""

    dates: Dates = Dates.SHIFT
    retain: frozenset[Retain] = frozenset()
    clean: frozenset[Clean] = frozenset({Clean.DESCRIPTORS, Clean.STRUCTURED_CONTENT})

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that apply."""
        dates = {Dates.SHIFT: ("modified_dates",), Dates.KEEP: ("full_dates",), Dates.REMOVE: ()}[self.dates]
        return (*dates, *sorted(option.value.replace("-", "_") for option in (*self.retain, *self.clean)))

    def describe(self) -> str:
        """Return the options as one line, in a fixed order."""
        return ", ".join(("basic", *self.columns))

    def codes(self) -> tuple[Dataset, ...]:
        """Items of De-identification Method Code Sequence (CID 7050)."""
        found = codes.cid7050
        names = {
            "modified_dates": found.RetainLongitudinalTemporalInformationModifiedDatesOption,
            "full_dates": found.RetainLongitudinalTemporalInformationFullDatesOption,
            "uids": found.RetainUidsOption,
            "device": found.RetainDeviceIdentityOption,
            "institution": found.RetainInstitutionIdentityOption,
            "characteristics": found.RetainPatientCharacteristicsOption,
            "safe_private": found.RetainSafePrivateOption,
            "descriptors": found.CleanDescriptorsOption,
            "structured_content": found.CleanStructuredContentOption,
            "graphics": found.CleanGraphicsOption,
        }
        chosen = [found.BasicApplicationConfidentialityProfile, *(names[column] for column in self.columns)]
        items = []
        for code in sorted(chosen, key=lambda code: str(code.value)):
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
            item.CodeMeaning = code.meaning[:64]
            items.append(item)
        return tuple(items)


def _rows(text: str) -> Iterator[Row]:
    yield from csv.DictReader(io.StringIO(text))


@cache
def standard_table() -> Mapping[str, Row]:
    """Table E.1-1 by attribute: its keyword, ``50xxxxxx``, ``60xx3000``, ``60xx4000`` or ``private``."""
    return {row["attribute"]: row for row in _rows((files(__package__) / "profile.csv").read_text("utf-8"))}


@cache
def added_attributes() -> Mapping[str, Row]:
    """What this package adds for attributes that the table does not list, and the four versions that it keeps."""
    return {row["attribute"]: row for row in _rows((files(__package__) / "added.csv").read_text("utf-8"))}


@dataclass(frozen=True, kw_only=True)
class PrivateAttribute:
    """A private attribute that may be kept (PS3.15 E.3.10)."""

    creator: str
    group: int
    element: int
    """The last two hexadecimal digits."""


def read_private_attributes(text: str | None = None) -> frozenset[PrivateAttribute]:
    """Read a list of private attributes.

    Parameters
    ----------
    text : str, optional
        CSV with the columns creator, group and element (hexadecimal); None: the package's list.

    Returns
    -------
    frozenset of PrivateAttribute

    Raises
    ------
    UsageError
        BAD_PARAMETER for another file.
    """
    rows = list(_rows(text if text is not None else (files(__package__) / "safe_private.csv").read_text("utf-8")))
    found = set()
    for number, row in enumerate(rows, 2):
        group, element = (row.get(name) or "" for name in ("group", "element"))
        numbers = re.fullmatch(r"[0-9A-Fa-f]{4}", group) and re.fullmatch(r"[0-9A-Fa-f]{2}", element)
        if not numbers or int(group, 16) % 2 == 0 or not row.get("creator"):
            message = f"line {number} of the list of private attributes is wrong"
            hint = "the columns are creator, group (4 hexadecimal digits, odd) and element (2 hexadecimal digits)"
            raise UsageError(Reason.BAD_PARAMETER, message, hint)
        one = PrivateAttribute(creator=row["creator"].strip(), group=int(group, 16), element=int(element, 16))
        found.add(one)
    return frozenset(found)


class Profile:
    """Actions for attributes under options.

    Parameters
    ----------
    options : Options
        The options.
    private : frozenset of PrivateAttribute
        Private attributes to keep; only with ``Retain.SAFE_PRIVATE``.
    """

    def __init__(self, options: Options, private: frozenset[PrivateAttribute] = frozenset()) -> None:
        self.options = options
        self.private = private if Retain.SAFE_PRIVATE in options.retain else frozenset()
        self._actions: dict[int, Action] = {}
        self._columns = options.columns

    def action(self, tag: BaseTag) -> Action:
        """Action for a public attribute; attributes that no dictionary knows are removed."""
        found = self._actions.get(tag)
        if found is None:
            found = self._actions[tag] = self._find(tag)
        return found

    def _find(self, tag: BaseTag) -> Action:
        try:
            keyword, vr = dictionary_keyword(tag), dictionary_VR(tag)
        except KeyError:
            return Action.REMOVE
        repeating = tag.group >> 8
        if repeating in (0x50, 0x60):  # curves, and overlays, whose bitmaps nothing can check
            return Action.REMOVE
        added, row = added_attributes().get(keyword), standard_table().get(keyword)
        if added is not None:
            return self._of_added(added["action"])
        return self._of_row(row, vr) if row is not None else self._of_representation(vr)

    def _of_added(self, action: str) -> Action:
        if action == "V":
            return Action.DUMMY if self.options.dates is Dates.REMOVE else Action.KEEP
        if action == "device":
            return Action.KEEP if Retain.DEVICE in self.options.retain else Action.EMPTY
        return Action.KEEP if action == "K" else Action.REMOVE

    def _of_row(self, row: Row, vr: str) -> Action:
        if vr in _TEMPORAL and self.options.dates is not Dates.REMOVE and row["modified_dates"]:
            return Action.DATE
        columns = [c for c in self._columns if vr not in _TEMPORAL or c not in ("device", "full_dates")]
        cells = {row[column] for column in columns}
        if "K" in cells:
            return Action.KEEP
        if "C" in cells:
            return Action.CLEAN
        return _BASIC[row["basic"]] if vr != "SQ" else _BASIC_OF_SEQUENCES.get(row["basic"], _BASIC[row["basic"]])

    def _of_representation(self, vr: str) -> Action:
        """Action for an attribute that the table does not list."""
        if vr in _TEMPORAL:
            return Action.EMPTY if self.options.dates is Dates.REMOVE else Action.DATE
        if vr == "UI":
            return Action.KEEP if Retain.UIDS in self.options.retain else Action.UID
        if vr in _LONG_TEXTS:
            return Action.CLEAN if Clean.DESCRIPTORS in self.options.clean else Action.EMPTY
        return {"PN": Action.EMPTY, "UR": Action.REMOVE, "AE": Action.EMPTY, "UN": Action.REMOVE}.get(vr, Action.KEEP)


_BASIC = {
    "X": Action.REMOVE,
    "Z": Action.EMPTY,
    "D": Action.DUMMY,
    "U": Action.UID,
    "X/Z": Action.EMPTY,
    "X/D": Action.DUMMY,
    "Z/D": Action.DUMMY,
    "X/Z/D": Action.DUMMY,
    "X/Z/U*": Action.UID,
}
"""Cell of the table -> action that keeps an object valid whatever type the attribute has in its IOD."""
_BASIC_OF_SEQUENCES = {"X/D": Action.REMOVE, "X/Z/D": Action.REMOVE}

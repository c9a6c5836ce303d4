"""Files of studies as triggers see them, from the headers in a catalog.

Files of a series with the same texts are one row. What a catalog does not keep as it was sent (times, names of people,
private attributes ...) is read from the files, and so is whether an attribute without a value is empty or absent, where
a pattern tells these apart.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ctenrich.catalog.base import Catalog
from ctenrich.catalog.queries import Query
from ctenrich.catalog.schema import COLUMNS, Column
from ctenrich.dicom.texts import read_texts
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.flows.expected import ModalityFile
from ctenrich.flows.records import Attribute, Flow
from ctenrich.flows.triggers import attributes_of
from ctenrich.reasons import Reason

__all__ = ["CatalogFile", "CatalogStudy", "studies_of"]

_AS_SENT = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "FD", "FL", "IS", "LO", "LT", "SH", "ST", "UC", "UI", "UL", "US", "UT"}
)
"""VRs whose values have the same text in a catalog as in the file; a date in the form of ACR-NEMA has another."""
_KNOWN = {column.name: column for column in COLUMNS if column.vr in _AS_SENT}
_FIXED = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "StudyDate")


@dataclass(frozen=True, kw_only=True)
class CatalogFile(ModalityFile):
    """Files of a series with the same texts."""

    images: int
    """How many."""


@dataclass(frozen=True, kw_only=True)
class CatalogStudy:
    """A study of a catalog."""

    study_instance_uid: str
    date: datetime.date | None
    """The earliest Study Date of its files."""
    files: tuple[CatalogFile, ...]

    @property
    def month(self) -> str:
        """Month of the date, e.g. ``2026-03``; ``unknown`` without one."""
        return f"{self.date:%Y-%m}" if self.date else "unknown"


def studies_of(catalog: Catalog, flows: Sequence[Flow]) -> Iterator[CatalogStudy]:
    """Yield the studies of a catalog, with the texts that flows ask about.

    Parameters
    ----------
    catalog : Catalog
        A catalog with one row per instance.
    flows : sequence of Flow
        The flows.

    Yields
    ------
    CatalogStudy
        Sorted by Study Instance UID.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a catalog of series; MISSING_COLUMN if an attribute is neither in the catalog nor can be read
        from a file; what the catalog raises.
    """
    if not catalog.instance_level:
        message = f"the catalog {catalog.name} has no headers of instances"
        raise UsageError(Reason.BAD_PARAMETER, message, "name a folder: catalog of ctenrich index")
    attributes = attributes_of(flows)
    columns = {one: _KNOWN[one.name] for one in attributes if _is_kept(one)}
    from_files = frozenset(attributes) - columns.keys()
    unclear = {one for one in columns if _empty_differs(flows, one)}
    query = _query(list(columns.values()), with_files=bool(from_files or unclear))
    rows = catalog.run(query, {}).table.to_pylist()
    for uid, group in groupby(rows, key=lambda row: row["StudyInstanceUID"]):
        found = list(group)
        dates = [row["StudyDate"] for row in found if row["StudyDate"] is not None]
        files = tuple(_file(row, columns, from_files, unclear) for row in found)
        yield CatalogStudy(study_instance_uid=str(uid), date=min(dates, default=None), files=files)


def _is_kept(attribute: Attribute) -> bool:
    column = _KNOWN.get(attribute.name)
    return column is not None and (not column.repeated or column.type == "STRING")


def _empty_differs(flows: Sequence[Flow], attribute: Attribute) -> bool:
    """Whether a pattern for an attribute is found in the empty text: an empty value then differs from an absent one."""
    triggers = [
        trigger
        for flow in flows
        for trigger in (*flow.triggers, *flow.never, *(one for role in flow.roles for one in role.triggers))
    ]
    return any(
        re.search(pattern.regex, "") is not None
        for trigger in triggers
        for condition in trigger.conditions
        if condition.attribute == attribute
        for pattern in condition.patterns
    )


def _query(columns: Sequence[Column], *, with_files: bool) -> Query:
    """The query for the texts; its names of columns are those of the schema."""
    shown = [
        f"ARRAY_TO_STRING({one.name}, CHR(92)) AS text{number}" if one.repeated else f"{one.name} AS text{number}"
        for number, one in enumerate(columns)
    ]
    chosen = [*_FIXED, *shown, *(["gcs_url"] if with_files else [])]
    places = ", ".join(str(number) for number in range(1, len(chosen) + 1))
    text = (
        f"SELECT {', '.join(chosen)}, COUNT(*) AS images FROM dicom_all "  # noqa: S608  names of the schema
        f"GROUP BY {places} ORDER BY {places}"
    )
    return Query(name="flow try", text=text)


def _file(
    row: dict[str, Any], columns: dict[Attribute, Column], from_files: frozenset[Attribute], unclear: set[Attribute]
) -> CatalogFile:
    texts = {}
    for number, attribute in enumerate(columns):
        text = _text(row[f"text{number}"])
        if text:
            texts[attribute] = text
    missing = from_files | {one for one in unclear if one not in texts}
    if missing:
        texts |= _read(row["gcs_url"], missing)
    return CatalogFile(
        series=row["SeriesInstanceUID"] or "", modality=row["Modality"] or "", texts=texts, images=row["images"]
    )


def _text(value: object) -> str:
    if isinstance(value, datetime.date):
        return f"{value:%Y%m%d}"
    return "" if value is None else str(value)


def _read(url: str | None, wanted: frozenset[Attribute]) -> dict[Attribute, str]:
    """Texts of attributes from the file itself."""
    parts = urlsplit(url or "")
    try:
        if parts.scheme != "file":
            raise FileNotFoundError
        texts = read_texts(Path(unquote(parts.path)), [one.tag for one in wanted])
    except (OSError, CtenrichError) as error:
        names = ", ".join(sorted(one.name for one in wanted))
        message = f"the catalog does not state {names} as sent, and a file that it names cannot be read"
        hint = "index the files again, or use flows that ask for other attributes"
        raise UsageError(Reason.MISSING_COLUMN, message, hint) from error
    return {one: texts[one.tag] for one in wanted if one.tag in texts}

"""Check lists for submissions to TCIA and IDC: what a data set fulfils, what is missing, what people must do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ctenrich.release.metadata import DataSet

__all__ = ["CheckItem", "CheckState", "archive_checks", "checklist", "missing_statements"]


_PEOPLE = {
    "TCIA": (
        "Send the proposal for analysis results, and wait for its approval",
        "Sign the data submission agreement",
        "Describe how the results were made and checked, and name funding and acknowledgements",
        "Name the publication that the results belong to, if there is one",
    ),
    "IDC": (
        "Find out whether the collections of the source images are in the current version of IDC",
        "Deposit the data set where it gets a DOI, e.g. at Zenodo",
        "Describe how the results were made and checked",
    ),
}
"""Archive -> what nothing in the run can show."""


class CheckState(StrEnum):
    """Whether a point of a check list is fulfilled."""

    DONE = "x"
    MISSING = " "
    PERSON = "-"
    """Nothing in the run can show it: a person must do it."""


@dataclass(frozen=True, kw_only=True)
class CheckItem:
    """One point of a check list."""

    text: str
    state: CheckState
    detail: str = ""


def _stated(text: str, value: str) -> CheckItem:
    return CheckItem(text=text, state=CheckState.DONE if value else CheckState.MISSING, detail=value or "not stated")


def missing_statements(data: DataSet) -> tuple[str, ...]:
    """Statements that a publication needs and that the authors have not made."""
    return tuple(item.text for item in _statements(data) if item.state is CheckState.MISSING)


def _statements(data: DataSet) -> list[CheckItem]:
    about = data.about
    return [
        _stated("Creators", "; ".join(item.name for item in about.creators)),
        _stated("ORCID iD of each creator who is a person", _orcids(data)),
        _stated("Licence of the data set", about.licence),
        _stated("Publisher", about.publisher),
        _stated("DOI", about.doi),
        _stated("Version", about.version),
    ]


def _orcids(data: DataSet) -> str:
    people = [creator for creator in data.about.creators if creator.given]
    if not data.about.creators or not all(creator.orcid for creator in people):
        return ""
    return "; ".join(creator.orcid for creator in people) or "the creators are organisations"


def _of_sources(data: DataSet) -> list[CheckItem]:
    unknown = [s.name for s in data.sources_of("collection") if not s.identifier]
    unlicensed = [s.name for s in (*data.sources_of("collection"), *data.sources_of("model")) if not s.licence]
    demonstration = [s.name for s in data.sources_of("model") if s.name.startswith("demo-")]
    return [
        CheckItem(
            text="DOI of every source collection",
            state=CheckState.MISSING if unknown else CheckState.DONE,
            detail=f"none for: {', '.join(unknown)}" if unknown else "in sources.csv",
        ),
        CheckItem(
            text="Licence of every source collection and model",
            state=CheckState.MISSING if unlicensed else CheckState.DONE,
            detail=f"none for: {', '.join(unlicensed)}" if unlicensed else "in sources.csv",
        ),
        CheckItem(
            text="No model for demonstration only",
            state=CheckState.MISSING if demonstration else CheckState.DONE,
            detail=", ".join(demonstration),
        ),
    ]


def archive_checks(data: DataSet, archive: str) -> tuple[CheckItem, ...]:
    """Points that an archive asks of a submission of analysis results.

    Parameters
    ----------
    data : DataSet
        The data set.
    archive : str
        ``TCIA`` or ``IDC``.

    Returns
    -------
    tuple of CheckItem
        First what the data set shows, then what people must do.
    """
    common = [
        CheckItem(text="Title", state=CheckState.DONE, detail=data.about.title),
        *_statements(data),
        *_of_sources(data),
        CheckItem(
            text="Every object states that the patient's identity was removed (0012,0062)",
            state=CheckState.DONE if data.identity_removed else CheckState.MISSING,
            detail="checked in every object" if data.identity_removed else "not checked: --identified was given",
        ),
        CheckItem(
            text="Results as DICOM: SEG and SR that refer to the source images by UID",
            state=CheckState.DONE,
            detail="every product passed its proof: references, positions, voxels and values read back",
        ),
        CheckItem(text="Data dictionary of the tables", state=CheckState.DONE, detail="data-dictionary.csv"),
        CheckItem(text="Checksum of every file", state=CheckState.DONE, detail="manifest-sha256.txt"),
    ]
    return (*common, *(CheckItem(text=text, state=CheckState.PERSON) for text in _PEOPLE[archive]))


def checklist(data: DataSet, archive: str) -> str:
    """Markdown of the check list of an archive.

    Parameters
    ----------
    data : DataSet
        The data set.
    archive : str
        ``TCIA`` or ``IDC``.

    Returns
    -------
    str
        Markdown.
    """
    lines = [
        f"# Submission of analysis results to {archive}",
        "",
        "[x] fulfilled, [ ] missing, [-] a person must do it. The archives change what they ask: read their current",
        "pages before a submission.",
        "",
        *(
            f"- [{item.state.value}] {item.text}{f': {item.detail}' if item.detail else ''}"
            for item in archive_checks(data, archive)
        ),
    ]
    return "\n".join(lines) + "\n"

"""DataCite metadata of a data set, in the JSON form of schema 4."""

from __future__ import annotations

from typing import Any

from ctenrich.release.about import Creator
from ctenrich.release.metadata import DataSet

__all__ = ["datacite"]

_SCHEMA = "http://datacite.org/schema/kernel-4"
_UNKNOWN = ":unkn"
"""DataCite's standard value for what is known to be missing."""
_TO_BE_ASSIGNED = ":tba"


def datacite(data: DataSet) -> dict[str, Any]:
    """Describe a data set for the registration of a DOI.

    Parameters
    ----------
    data : DataSet
        The data set; what its authors did not state has DataCite's standard values ``:unkn`` and ``:tba``.

    Returns
    -------
    dict
        Content of the file.
    """
    about = data.about
    found: dict[str, Any] = {
        "schemaVersion": _SCHEMA,
        "creators": [_creator(item) for item in about.creators] or [{"name": _UNKNOWN}],
        "titles": [{"title": about.title}],
        "publisher": {"name": about.publisher or _TO_BE_ASSIGNED},
        "publicationYear": about.date[:4],
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "DICOM segmentations and structured reports"},
        "descriptions": [{"description": about.description, "descriptionType": "Abstract"}],
        "dates": [{"date": about.date, "dateType": "Issued"}],
        "formats": ["application/dicom", "application/vnd.apache.parquet", "text/turtle"],
        "sizes": [f"{data.objects.number} DICOM objects", f"{data.size} bytes"],
        "relatedIdentifiers": [
            {
                "relatedIdentifier": source.identifier.removeprefix("https://doi.org/"),
                "relatedIdentifierType": "DOI" if source.identifier.startswith("https://doi.org/") else "URL",
                "relationType": "IsDerivedFrom" if source.kind == "collection" else "IsCompiledBy",
            }
            for source in data.sources
            if source.identifier
        ],
    }
    if about.doi:
        found["doi"] = about.doi
    if about.version:
        found["version"] = about.version
    if about.keywords:
        found["subjects"] = [{"subject": word} for word in about.keywords]
    if about.licence:
        rights: dict[str, Any] = {"rights": about.licence, "rightsIdentifier": about.licence}
        found["rightsList"] = [rights | ({"rightsUri": data.licence_url} if data.licence_url else {})]
    return found


def _creator(item: Creator) -> dict[str, Any]:
    found: dict[str, Any] = {"name": item.name, "nameType": "Personal" if item.given else "Organizational"}
    if item.given:
        found |= {"givenName": item.given, "familyName": item.family}
    if item.orcid:
        scheme = {"nameIdentifierScheme": "ORCID", "schemeUri": "https://orcid.org"}
        found["nameIdentifiers"] = [{"nameIdentifier": f"https://orcid.org/{item.orcid}", **scheme}]
    if item.affiliation:
        found["affiliation"] = [{"name": item.affiliation}]
    return found

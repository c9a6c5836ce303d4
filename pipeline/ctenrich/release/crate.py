"""RO-Crate 1.1: ``ro-crate-metadata.json`` of a data set."""

from __future__ import annotations

from typing import Any

from ctenrich.release.contents import OBJECTS, ReleasedFile
from ctenrich.release.metadata import DataSet
from ctenrich.release.sources import Source

__all__ = ["FILE_NAME", "ro_crate"]

FILE_NAME = "ro-crate-metadata.json"
_CONTEXT = "https://w3id.org/ro/crate/1.1/context"
_CONFORMS = "https://w3id.org/ro/crate/1.1"
_TYPES = {"collection": "Dataset", "model": "SoftwareApplication", "software": "SoftwareApplication"}

Entity = dict[str, Any]


def ro_crate(data: DataSet, others: tuple[ReleasedFile, ...]) -> dict[str, Any]:
    """Describe a data set by RO-Crate 1.1 (https://w3id.org/ro/crate/1.1).

    The objects are one folder, whose files and hashes are in the manifest; tables and other files are entities of their
    own. What the data set was made of is the object and the instruments of one CreateAction.

    Parameters
    ----------
    data : DataSet
        The data set.
    others : tuple of ReleasedFile
        Files beside objects and tables.

    Returns
    -------
    dict
        Content of the file, JSON-LD.
    """
    parts = [*data.table_files, *others]
    sources = {source: _source_id(source, number) for number, source in enumerate(data.sources, 1)}
    creators = [_creator(data, number) for number in range(len(data.about.creators))]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": data.about.title,
        "description": data.about.description,
        "datePublished": data.about.date,
        "license": {"@id": data.licence_url or "#licence"},
        "hasPart": [{"@id": f"{OBJECTS}/"}, *({"@id": item.path} for item in parts)],
        "mentions": {"@id": "#processing"},
    }
    if data.about.doi:
        root["identifier"] = root["cite-as"] = f"https://doi.org/{data.about.doi}"
    if data.about.version:
        root["version"] = data.about.version
    if data.about.keywords:
        root["keywords"] = list(data.about.keywords)
    if creators:
        root["author"] = _references([item["@id"] for item in creators])
    if data.about.publisher:
        root["publisher"] = {"@id": "#publisher"}
    graph: list[Entity] = [
        {
            "@id": FILE_NAME,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": _CONFORMS},
        },
        root,
        _licence(data),
        *creators,
        *_publisher(data),
        _objects(data),
        *(_file(item) for item in parts),
        *(_source(source, identifier) for source, identifier in sources.items()),
        {
            "@id": "#processing",
            "@type": "CreateAction",
            "name": "Segmentation, measurement, encoding and proof by ctenrich",
            "object": _references([i for source, i in sources.items() if source.kind == "collection"]),
            "instrument": _references([i for source, i in sources.items() if source.kind != "collection"]),
            "result": {"@id": "./"},
        },
    ]
    return {"@context": _CONTEXT, "@graph": graph}


def _references(identifiers: list[str]) -> Entity | list[Entity]:
    """Refer to entities; a single one is not in a list, as RO-Crate recommends."""
    found: list[Entity] = [{"@id": identifier} for identifier in identifiers]
    return found[0] if len(found) == 1 else found


def _licence(data: DataSet) -> Entity:
    name = data.about.licence or "The licence is not stated yet: it must be, before the data set is published"
    return {"@id": data.licence_url or "#licence", "@type": "CreativeWork", "name": name, "description": name}


def _creator(data: DataSet, number: int) -> Entity:
    creator = data.about.creators[number]
    found: Entity = {
        "@id": f"https://orcid.org/{creator.orcid}" if creator.orcid else f"#creator-{number + 1}",
        "@type": "Person" if creator.given or creator.orcid else "Organization",
        "name": creator.name,
    }
    if creator.affiliation:
        found["affiliation"] = creator.affiliation
    return found


def _publisher(data: DataSet) -> list[Entity]:
    if not data.about.publisher:
        return []
    return [{"@id": "#publisher", "@type": "Organization", "name": data.about.publisher}]


def _objects(data: DataSet) -> Entity:
    kinds = ", ".join(f"{number} {kind}" for kind, number in data.kinds.items())
    return {
        "@id": f"{OBJECTS}/",
        "@type": "Dataset",
        "name": "DICOM objects",
        "description": f"{kinds}, of {data.series} CT series; hashes in manifest-sha256.txt",
        "encodingFormat": "application/dicom",
    }


def _file(item: ReleasedFile) -> Entity:
    return {
        "@id": item.path,
        "@type": "File",
        "name": item.path.rpartition("/")[2],
        "description": item.text,
        "encodingFormat": item.media_type,
        "contentSize": str(item.size),
    }


def _source_id(source: Source, number: int) -> str:
    return source.identifier or f"#{source.kind}-{number}"


def _source(source: Source, identifier: str) -> Entity:
    found: Entity = {"@id": identifier, "@type": _TYPES[source.kind], "name": source.name}
    if source.version:
        found["version"] = source.version
    if source.identifier:
        found["url"] = source.identifier
    if source.licence:
        found["license"] = source.licence_url or source.licence
    if source.citation:
        found["description"] = source.citation
    if source.sha256:
        found["identifier"] = f"sha256:{source.sha256}"
    return found

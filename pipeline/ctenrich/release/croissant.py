"""Croissant 1.0 metadata of a data set: its tables as record sets for machine learning."""

from __future__ import annotations

from typing import Any

from ctenrich.release.contents import OBJECTS, TABLES, ReleasedTable
from ctenrich.release.metadata import DataSet

__all__ = ["croissant"]

_DATA_TYPES = {
    "text": "sc:Text",
    "integer": "sc:Integer",
    "double": "sc:Float",
    "true or false": "sc:Boolean",
    "decimal128(38, 9)": "sc:Float",
}
"""Type of a column, as the data dictionary spells it -> data type of Croissant."""
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(data: DataSet) -> dict[str, Any]:
    """Describe a data set by Croissant 1.0 (http://mlcommons.org/croissant/1.0).

    Columns with lists and records are not fields; the data dictionary has them.

    Parameters
    ----------
    data : DataSet
        The data set.

    Returns
    -------
    dict
        Content of the file, JSON-LD.
    """
    about = data.about
    hashes = {item.path: item for item in data.table_files}
    found: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.title,
        "description": about.description,
        "datePublished": about.date,
        "version": about.version or "1.0.0",
        "url": f"https://doi.org/{about.doi}" if about.doi else "https://example.org/not-published-yet",
        "license": data.licence_url or about.licence or "not stated",
        "citeAs": _citation(data),
        "distribution": [
            *(
                {
                    "@type": "cr:FileObject",
                    "@id": f"{table.name}.parquet",
                    "name": f"{table.name}.parquet",
                    "description": f"One row per {table.text}",
                    "contentUrl": f"{TABLES}/{table.name}.parquet",
                    "contentSize": f"{hashes[f'{TABLES}/{table.name}.parquet'].size} B",
                    "encodingFormat": "application/x-parquet",
                    "sha256": hashes[f"{TABLES}/{table.name}.parquet"].sha256,
                }
                for table in data.tables
            ),
            {
                "@type": "cr:FileSet",
                "@id": "dicom-objects",
                "name": "dicom-objects",
                "description": "DICOM segmentations and structured reports",
                "encodingFormat": "application/dicom",
                "includes": f"{OBJECTS}/*/*/*.dcm",
            },
        ],
        "recordSet": [_record_set(table) for table in data.tables],
    }
    if about.creators:
        found["creator"] = [
            {"@type": "sc:Person" if item.given else "sc:Organization", "name": item.name} for item in about.creators
        ]
    if about.keywords:
        found["keywords"] = list(about.keywords)
    return found


def _citation(data: DataSet) -> str:
    names = "; ".join(creator.name for creator in data.about.creators) or "Creators not stated"
    where = f" https://doi.org/{data.about.doi}" if data.about.doi else ""
    return f"{names} ({data.about.date[:4]}). {data.about.title}.{where}"


def _record_set(table: ReleasedTable) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": f"One row per {table.text}",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{table.name}/{column.name}",
                "name": column.name,
                "description": column.text,
                "dataType": _DATA_TYPES[column.type],
                "source": {"fileObject": {"@id": f"{table.name}.parquet"}, "extract": {"column": column.name}},
            }
            for column in table.columns
            if column.type in _DATA_TYPES
        ],
    }

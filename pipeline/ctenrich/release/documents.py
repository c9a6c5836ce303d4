"""The files of a data set for people: data dictionary, licences and citations, introduction."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ctenrich import __version__
from ctenrich.release.metadata import DataSet
from ctenrich.results.csv_cells import csv_cell

__all__ = ["data_dictionary", "introduction", "sources_table"]


def data_dictionary(data: DataSet) -> str:
    """CSV with one row per column of a table: table, column, type, meaning."""
    return _csv(
        ("table", "column", "type", "meaning"),
        [(table.name, c.name, c.type, c.text) for table in data.tables for c in table.columns],
    )


def sources_table(data: DataSet) -> str:
    """CSV with one row per collection, model and program: licence, identifier, citation."""
    header = ("kind", "name", "version", "licence", "licence_url", "identifier", "citation", "sha256")
    rows = [
        (s.kind, s.name, s.version, s.licence, s.licence_url, s.identifier, s.citation, s.sha256) for s in data.sources
    ]
    return _csv(header, rows)


def _csv(header: tuple[str, ...], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def introduction(data: DataSet, *, features: int, left_out: int) -> str:
    """README.md of a data set.

    Parameters
    ----------
    data : DataSet
        The data set.
    features : int
        Values in features.ttl.
    left_out : int
        Objects of the run that are not released.

    Returns
    -------
    str
        Markdown.
    """
    about = data.about
    kinds = ", ".join(f"{number} {kind}" for kind, number in data.kinds.items())
    lines = [
        f"# {about.title}",
        "",
        about.description,
        "",
        f"- Date: {about.date}",
        f"- Version: {about.version or 'not stated'}",
        f"- Licence: {about.licence or 'not stated'}{f' ({data.licence_url})' if data.licence_url else ''}",
        f"- DOI: {f'https://doi.org/{about.doi}' if about.doi else 'not assigned'}",
        f"- Creators: {'; '.join(creator.name for creator in about.creators) or 'not stated'}",
        f"- Contents: {kinds}; {data.series} CT series of {data.patients} patients",
        f"- Made by ctenrich {__version__}",
        *([f"- Not released: {left_out} objects of products that are not done or not accepted"] if left_out else []),
        "",
        "| file | what it is |",
        "|---|---|",
        "| dicom/ | DICOM segmentations (SEG) and structured reports (SR): series, product, object |",
        "| tables/ | the same results as tables (Parquet) |",
        "| data-dictionary.csv | meaning of every column of the tables |",
        f"| features.ttl, shapes.ttl | {features} values of segments as RDF, and SHACL shapes that they fulfil |",
        "| sources.csv | collections, models and software, with licences and citations |",
        "| ro-crate-metadata.json | RO-Crate 1.1 |",
        "| datacite.json | metadata for the registration of a DOI |",
        "| croissant.json | Croissant 1.0 |",
        "| checklist-tcia.md, checklist-idc.md | what the archives ask of a submission, and what is still missing |",
        "| CHANGES.md | what differs from the previous release, if there is one |",
        "| manifest-sha256.txt | SHA-256 of every file: `sha256sum -c manifest-sha256.txt` |",
        "",
        "Please cite the collections, models and software in sources.csv.",
    ]
    return "\n".join(lines) + "\n"

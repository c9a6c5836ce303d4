"""Write the results of a run as a data set for publication, with its metadata, hashes and check lists."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from ctenrich import RELEASE_DATE
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.privacy import check_identity_removed
from ctenrich.reasons import Reason
from ctenrich.release.about import About
from ctenrich.release.changes import (
    CHANGES,
    MANIFEST,
    Manifest,
    changes_text,
    compare_manifests,
    write_changes,
)
from ctenrich.release.checklists import checklist, missing_statements
from ctenrich.release.contents import (
    OBJECTS,
    Contents,
    ReleasedFile,
    copy_objects,
    copy_tables,
    manifest_line,
    plan_contents,
)
from ctenrich.release.crate import FILE_NAME, ro_crate
from ctenrich.release.croissant import croissant
from ctenrich.release.datacite import datacite
from ctenrich.release.documents import data_dictionary, introduction, sources_table
from ctenrich.release.licences import check_licence_of_release
from ctenrich.release.metadata import DataSet, json_text
from ctenrich.release.sources import Source, collections_of, models_of, software
from ctenrich.release.turtle import write_features
from ctenrich.results.query import table_files
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, atomic_open, sha256_of_file, write_bytes

__all__ = ["Release", "ReleaseOptions", "make_release"]

_SHAPES = Path(__file__).with_name("shapes.ttl")
_TEXTS = {
    "README.md": ("text/markdown", "What the data set contains"),
    "data-dictionary.csv": ("text/csv", "Meaning of every column of the tables"),
    "sources.csv": ("text/csv", "Collections, models and software, with licences and citations"),
    "datacite.json": ("application/json", "DataCite metadata"),
    "croissant.json": ("application/ld+json", "Croissant 1.0 metadata"),
    "features.ttl": ("text/turtle", "Measured values of segments"),
    "shapes.ttl": ("text/turtle", "SHACL shapes of features.ttl"),
    "checklist-tcia.md": ("text/markdown", "Check list for a submission to TCIA"),
    "checklist-idc.md": ("text/markdown", "Check list for a submission to IDC"),
    "CHANGES.md": ("text/markdown", "Differences from the previous release"),
    "changes.csv": ("text/csv", "Files that differ from the previous release"),
}
"""File beside objects and tables -> media type, description."""


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """How a data set is made."""

    about: About = field(default_factory=About)
    previous: Path | None = None
    """Folder of the previous release; its manifest is read."""
    accepted_only: bool = False
    """Whether only products are released that reviewers have accepted."""
    identified: bool = False
    """Whether patients who can be identified may be part of the data set."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """Outcome of a release."""

    folder: Path
    kinds: Mapping[str, int]
    """Kind of objects -> number."""
    series: int
    left_out: int
    """Objects of the run that are not part of the data set."""
    features: int
    """Values in features.ttl."""
    missing: tuple[str, ...]
    """Statements that a publication needs and that the authors have not made."""
    changes: Mapping[tuple[str, str], int] | None
    """Folder and what (``added``, ``removed``, ``changed``) -> number of files that differ from the previous release,
    which ``changes.csv`` lists; None without one."""


def make_release(
    workspace: Workspace, out: Path, *, options: ReleaseOptions | None = None, progress: Progress = SILENT
) -> Release:
    """Write a data set: objects and tables of the finished products, metadata, check lists, and the manifest last.

    The same run and options give the same bytes. The date is that of the statements, else the date of the release of
    this software, as in the objects.

    Parameters
    ----------
    workspace : Workspace
        The run, with its tables.
    out : Path
        Folder to write to; new or empty.
    options : ReleaseOptions, optional
        Statements of the authors, previous release, choice of products.
    progress : Progress
        Advanced by one for every object and table.

    Returns
    -------
    Release

    Raises
    ------
    UsageError
        BAD_PARAMETER if the folder is not empty, or the licence drops a condition of a source; NOT_FOUND if the
        previous release has no manifest; NOT_PREPARED; NOT_ACCEPTED; IDENTITY_NOT_REMOVED.
    InputError
        HASH_MISMATCH if an object has changed since the tables were written.
    """
    chosen = options or ReleaseOptions()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(Reason.BAD_PARAMETER, f"{out.name} is not an empty folder", "name a new folder")
    previous = Manifest(chosen.previous) if chosen.previous is not None else None
    contents = plan_contents(workspace, accepted_only=chosen.accepted_only)
    check_identity_removed(workspace, identified=chosen.identified)
    series = _released_series(contents)
    sources = _sources(contents, series.collections)
    licences = [source.licence for source in sources if source.kind == "collection"]
    check_licence_of_release(chosen.about.licence, licences)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out) as lines:  # one for every object
        objects = copy_objects(contents, out, lines, progress)
        table_files, tables = copy_tables(contents, out, progress)
        features = write_features(out / "tables" / "quantitative_measurements.parquet", out / "features.ttl")
        data = DataSet(
            about=_completed(chosen.about, sources, contents),
            objects=objects,
            table_files=table_files,
            tables=tables,
            sources=sources,
            kinds=dict(contents.kinds),
            series=contents.series,
            patients=series.patients,
            identity_removed=not chosen.identified,
        )
        changes = None
        if previous is not None:
            now = chain(_listed(lines), ((item.path, item.sha256) for item in table_files))
            changes = write_changes(out / CHANGES[1], compare_manifests(previous, now))
        texts = {
            "README.md": introduction(data, features=features, left_out=contents.left_out),
            "data-dictionary.csv": data_dictionary(data),
            "sources.csv": sources_table(data),
            "datacite.json": json_text(datacite(data)),
            "croissant.json": json_text(croissant(data)),
            "shapes.ttl": _SHAPES.read_text("utf-8"),
            "checklist-tcia.md": checklist(data, "TCIA"),
            "checklist-idc.md": checklist(data, "IDC"),
            CHANGES[0]: changes_text(changes),
        }
        _write_metadata(out, data, texts, lines)
    return Release(
        folder=out,
        kinds=data.kinds,
        series=data.series,
        left_out=contents.left_out,
        features=features,
        missing=missing_statements(data),
        changes=changes,
    )


def _write_metadata(out: Path, data: DataSet, texts: Mapping[str, str], objects: IO[bytes]) -> None:
    """Write the files beside objects and tables, and the manifest when all others are there."""
    for name, text in texts.items():
        write_bytes(out / name, text.encode("utf-8"))
    there = [name for name in ("features.ttl", *texts, CHANGES[1]) if (out / name).is_file()]
    written = tuple(_released(out / name) for name in sorted(there))
    crate = json_text(ro_crate(data, written)).encode("utf-8")
    write_bytes(out / FILE_NAME, crate)
    hashes = {item.path: item.sha256 for item in (*data.table_files, *written)}
    hashes[FILE_NAME] = hashlib.sha256(crate).hexdigest()
    lines = [(path, manifest_line(path, sha256)) for path, sha256 in sorted(hashes.items())]
    objects.seek(0)
    with atomic_open(out / MANIFEST) as manifest:
        manifest.writelines(line for path, line in lines if path < f"{OBJECTS}/")
        shutil.copyfileobj(objects, manifest)
        manifest.writelines(line for path, line in lines if path > f"{OBJECTS}/")


def _listed(lines: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Path and SHA-256 in the lines of the manifest that were written so far."""
    lines.seek(0)
    for line in lines:
        sha256, _, path = line.decode().rstrip("\n").partition("  ")
        yield path, sha256


def _released(path: Path) -> ReleasedFile:
    media_type, text = _TEXTS[path.name]
    return ReleasedFile(
        path=path.name, media_type=media_type, text=text, size=path.stat().st_size, sha256=sha256_of_file(path)
    )


@dataclass(frozen=True)
class _ReleasedSeries:
    """What the metadata state about the series of the released products."""

    collections: frozenset[tuple[str, str, str]]
    """Name, licence and DOI."""
    patients: int


def _released_series(contents: Contents) -> _ReleasedSeries:
    import pyarrow.parquet as pq

    columns = ["SeriesInstanceUID", "PatientID", "collection_id", "license_short_name", "source_doi"]
    patients: set[str | None] = set()
    collections: set[tuple[str, str, str]] = set()
    with pq.ParquetFile(table_files(contents.workspace)["series"]) as file:
        for batch in file.iter_batches(_ROWS, columns=columns):
            for uid, patient, *collection in zip(*(batch[name].to_pylist() for name in columns), strict=True):
                if contents.products.with_objects(uid):
                    patients.add(patient)
                    name, licence, doi = (str(value or "") for value in collection)
                    collections.add((name, licence, doi))
    return _ReleasedSeries(frozenset(collections), len(patients))


_ROWS = 16_384
"""Rows of the table ``series`` in memory."""


def _sources(contents: Contents, collections: Iterable[tuple[str, str, str]]) -> tuple[Source, ...]:
    store = SeriesStore(contents.workspace)
    models = models_of(store, contents.products)
    return (*collections_of(collections), *models, *software(_algorithms(contents, {model.name for model in models})))


def _algorithms(contents: Contents, models: set[str]) -> set[tuple[str, str]]:
    """Name and version of the programs that measured, as the reports name them; models are sources of their own."""
    import pyarrow.parquet as pq

    path = table_files(contents.workspace).get("radiomics_features")
    if path is None:
        return set()
    versions = pq.read_table(path, columns=["pyradiomics_version"])["pyradiomics_version"].unique().to_pylist()
    return {("pyradiomics", version) for version in versions if version and "pyradiomics" not in models}


def _completed(about: About, sources: Iterable[Source], contents: Contents) -> About:
    """The statements, with a title, a description and a date made from the run where there are none."""
    collections = sorted({source.name for source in sources if source.kind == "collection"})
    models = [source.name for source in sources if source.kind == "model"]
    names = ", ".join(collections[:5]) + (f" and {len(collections) - 5} more" if len(collections) > 5 else "")
    made_by = f" by {', '.join(models)}" if models else ""
    date = f"{RELEASE_DATE[:4]}-{RELEASE_DATE[4:6]}-{RELEASE_DATE[6:]}"
    objects = f"DICOM segmentations and structured reports of {contents.series} CT series"
    return replace(
        about,
        title=about.title or f"Segmentations and measurements of {names}",
        description=about.description or f"{objects} of {names}{made_by}, with tables.",
        date=about.date or date,
    )

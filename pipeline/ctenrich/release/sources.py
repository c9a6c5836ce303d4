"""What a data set was made of: collections of images, models and software, each with licence and citation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ctenrich import __version__
from ctenrich.catalog.citations import citations_of
from ctenrich.records import ModelInfo, SegmentMasks, SliceScores
from ctenrich.release.chosen import ChosenProducts
from ctenrich.release.licences import licence_key, licence_url
from ctenrich.series_store import SeriesStore

__all__ = ["Source", "SourceKind", "collections_of", "models_of", "software"]

SourceKind = str
"""``collection``, ``model`` or ``software``."""
_SOFTWARE_URL = "https://github.com/ctenrich/ctenrich"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something that a data set was made of."""

    kind: SourceKind
    name: str
    version: str = ""
    licence: str = ""
    """SPDX identifier or the name that its publisher uses; empty if it is not stated."""
    licence_url: str = ""
    identifier: str = ""
    """DOI as an address, or another address; empty if there is none."""
    citation: str = ""
    sha256: str = ""
    """Of a model's weights."""


def collections_of(collections: Iterable[tuple[str, str, str]]) -> tuple[Source, ...]:
    """Return the collections of images, one for each licence and DOI.

    Parameters
    ----------
    collections : iterable of (str, str, str)
        Name, licence and DOI of the collections, as the table ``series`` states them; empty for what it does not.

    Returns
    -------
    tuple of Source
        Sorted by name.
    """
    out = []
    for name, licence, doi in sorted(set(collections)):
        cited = citations_of([doi])
        citation = cited[0] if cited else None
        key = licence_key(licence or (citation.license_short_name if citation else ""))
        out.append(
            Source(
                kind="collection",
                name=name or "images without a collection",
                licence=key,
                licence_url=(citation.license_url if citation and citation.license_url else licence_url(key)),
                identifier=citation.url if citation else "",
                citation=citation.text if citation else "",
            )
        )
    return tuple(out)


def models_of(store: SeriesStore, products: ChosenProducts) -> tuple[Source, ...]:
    """Return the models of the released products.

    Parameters
    ----------
    store : SeriesStore
        The run.
    products : ChosenProducts
        Those with objects. The records of a product are read of the first series that has them.

    Returns
    -------
    tuple of Source
        Sorted by name and hash; products without a model (contours of experts) have none.
    """
    found: dict[tuple[str, str], ModelInfo] = {}
    known: set[str] = set()
    for uid in products.series():
        wanted = {name for name in products.with_objects(uid) if name not in known}
        for product in store.products(uid) if wanted else ():
            if str(product) not in wanted:
                continue
            record = store.find_valid(SegmentMasks, uid, product) or store.find_valid(SliceScores, uid, product)
            if record is not None:
                known.add(str(product))
                if record.model is not None:
                    found[record.model.name, record.model.sha256] = record.model
    return tuple(
        Source(
            kind="model",
            name=model.name,
            version=model.version,
            licence=licence_key(model.licence),
            licence_url=licence_url(model.licence),
            identifier=model.source_url,
            citation=model.citation,
            sha256=model.sha256,
        )
        for _, model in sorted(found.items())
    )


def software(programs: Iterable[tuple[str, str]]) -> tuple[Source, ...]:
    """Return the software: ctenrich, and the algorithms that the objects name.

    Parameters
    ----------
    programs : iterable of (str, str)
        Name and version of further programs, e.g. pyradiomics.

    Returns
    -------
    tuple of Source
        ctenrich first.
    """
    own = Source(
        kind="software",
        name="ctenrich",
        version=__version__,
        licence="Apache-2.0",
        licence_url=licence_url("Apache-2.0"),
        identifier=_SOFTWARE_URL,
        citation=f"The ctenrich authors. ctenrich, version {__version__}. {_SOFTWARE_URL}",
    )
    others = sorted({(name, version) for name, version in programs if not name.startswith("ctenrich")})
    return (own, *(Source(kind="software", name=name, version=version) for name, version in others))

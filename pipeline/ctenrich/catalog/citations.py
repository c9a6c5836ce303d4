"""How to cite public collections: from the tables that the package idc-index-data carries, without a network."""

from __future__ import annotations

import html
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["Citation", "citations_of"]


@dataclass(frozen=True)
class Citation:
    """How to cite one data set."""

    doi: str
    text: str
    """Full reference in plain text; empty where the installed tables do not know the DOI."""
    title: str = ""
    license_short_name: str = ""
    license_url: str = ""

    @property
    def url(self) -> str:
        """Where the DOI leads."""
        return f"https://doi.org/{self.doi}"


def citations_of(dois: Iterable[str]) -> tuple[Citation, ...]:
    """References for DOIs, sorted by DOI; a DOI that the tables do not know keeps itself alone."""
    known = _known()
    return tuple(known.get(doi.lower(), Citation(doi, "")) for doi in sorted({d for d in dois if d}))


@lru_cache(maxsize=1)
def _known() -> dict[str, Citation]:
    spec = importlib.util.find_spec("idc_index_data")
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent
    found: dict[str, Citation] = {}
    for row in _rows(folder / "analysis_results_index.parquet"):
        _keep(found, row, row, "analysis_result_title")
    for collection in _rows(folder / "collections_index.parquet"):
        for source in next((value for value in collection.values() if _is_sources(value)), ()):
            _keep(found, source, source.get("license") or {}, "source_title")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException):
        return []
    return rows


def _is_sources(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "source_doi" in value[0]


def _keep(found: dict[str, Citation], row: dict[str, Any], terms: dict[str, Any], title: str) -> None:
    doi = str(row.get("source_doi") or row.get("source_DOI") or "").lower()
    text = _plain_citation(str(row.get("citation") or ""))
    if doi and text:
        found[doi] = Citation(
            doi, text, str(row.get(title) or ""), str(terms.get("license_short_name") or ""),
            str(terms.get("license_url") or ""),
        )  # fmt: skip


def _plain_citation(text: str) -> str:
    """Without markup, on one line."""
    return " ".join(html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", text)).split())

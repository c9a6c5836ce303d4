"""What the metadata files of a data set have in common: statements, contents, sources."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ctenrich.release.about import About
from ctenrich.release.contents import ReleasedFile, ReleasedObjects, ReleasedTable
from ctenrich.release.licences import licence_url
from ctenrich.release.sources import Source

__all__ = ["DataSet", "json_text"]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set as its metadata describe it."""

    about: About
    """With title, description and date, stated or made from the run."""
    objects: ReleasedObjects
    table_files: tuple[ReleasedFile, ...]
    """Files of the tables."""
    tables: tuple[ReleasedTable, ...]
    sources: tuple[Source, ...]
    kinds: dict[str, int]
    """Kind of objects -> number."""
    series: int
    patients: int
    identity_removed: bool
    """Whether every object states that the patient's identity was removed."""

    @property
    def licence_url(self) -> str:
        """Address of the licence's text; empty if there is none."""
        return licence_url(self.about.licence)

    def sources_of(self, kind: str) -> tuple[Source, ...]:
        """Sources of one kind: collection, model or software."""
        return tuple(source for source in self.sources if source.kind == kind)

    @property
    def size(self) -> int:
        """Bytes of objects and tables."""
        return self.objects.size + sum(item.size for item in self.table_files)


def json_text(content: Any) -> str:
    """JSON with two spaces, without escapes of letters, with a final newline."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

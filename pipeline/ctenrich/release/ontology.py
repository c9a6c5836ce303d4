"""Classes of the Radiomics Ontology for coded features, as far as mappings/radiomics_ontology.csv lists them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from ctenrich.resources import folder

__all__ = ["RADIOMICS_ONTOLOGY", "feature_classes"]

RADIOMICS_ONTOLOGY = "http://www.radiomics.org/RO/"
"""Namespace of the Radiomics Ontology."""


@cache
def feature_classes() -> Mapping[tuple[str, str], str]:
    """(coding scheme, code value) of a feature -> IRI of its class."""
    path = folder("mappings") / "radiomics_ontology.csv"
    with path.open(newline="", encoding="utf-8") as handle:
        rows = {
            (row["quantity_scheme"], row["quantity_code"]): RADIOMICS_ONTOLOGY + row["term"]
            for row in csv.DictReader(handle)
        }
    return MappingProxyType(rows)

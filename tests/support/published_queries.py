"""The published study's queries as they are, and a run with objects as our encoders write them for a real model.

The queries are not ours to copy: they are read from a clone of
https://github.com/ImagingDataCommons/nnU-Net-BPR-annotations, whose folder ``common/queries`` the environment variable
CTENRICH_PUBLISHED_QUERIES names.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ctenrich.encode.landmarks_sr import encode_landmarks_sr
from ctenrich.encode.regions_sr import encode_regions_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.results.tables import build_tables
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace
from tests.support.encode_cases import (
    make_landmarks,
    make_masks,
    make_regions,
    make_scores,
    make_series,
    make_shape,
)

DATASETS = ("NSCLC_Radiomics", "NLST")
"""Beginnings of the names of the queries on each collection."""
NAMES = (
    "measurement_group_features",
    "measurement_group_landmarks",
    "measurement_group_regions",
    "qualitative_measurements_landmarks",
    "qualitative_measurements_regions",
    "quantitative_measurements_features",
)
FOLDER = os.environ.get("CTENRICH_PUBLISHED_QUERIES", "")
needs_queries = pytest.mark.skipif(not FOLDER, reason="CTENRICH_PUBLISHED_QUERIES does not name the published queries")
_TABLES = re.compile(r"`idc-external-018\.dataset_\w+\.(\w+)`|`bigquery-public-data\.idc_current\.(dicom_all)`")
_OURS = {"dicom_metadata_table": "dicom_metadata", "dicom_all": "slices"}


def published_query(name: str, dataset: str) -> str:
    """A query with nothing but the names of its tables replaced."""
    text = Path(FOLDER, f"{dataset}_{name}_query.txt").read_text("utf-8")
    return _TABLES.sub(lambda m: f"`{_OURS.get(m[1] or m[2], m[1] or m[2])}`", text)


def comparable(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as sorted text, without the subtree, in which absent lists are NULL or empty."""
    kept = ({k: v for k, v in row.items() if k not in ("contentSequence", "segmentationSegmentNumber")} for row in rows)
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in kept)


def make_encoded_run(folder: Path) -> Workspace:
    """One series with all four objects and its tables."""
    workspace = Workspace(folder / "run")
    series, volume = make_series(folder / "ct")
    masks, scores = make_masks(series, workspace), make_scores(series)
    rest: dict[str, Any] = {"settings": Settings(), "workspace": workspace}
    seg = encode_seg(masks, volume, series, **rest)
    encode_shape_sr(make_shape(masks), masks, seg, series, **rest)
    encode_landmarks_sr(make_landmarks(series), scores, series, **rest)
    encode_regions_sr(make_regions(series), scores, series, **rest)
    SeriesStore(workspace).save(series, series.series_instance_uid)
    build_tables(workspace)
    return workspace

"""Read the metrics of a published table: a CSV file with one row per series, structure and model."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from ctenrich.codes.mappings import find_segment, general_name
from ctenrich.errors import UsageError
from ctenrich.evaluate.statistics import METRIC_RULES, MetricValue
from ctenrich.reasons import Reason
from ctenrich.workspace import require_file

__all__ = ["read_published"]

_SERIES = ("SeriesInstanceUID", "series_instance_uid")
_SEGMENT = ("structure_name", "segment")
_PRODUCT = ("model", "product")
_RENAMED = {"dice_score": "dice", "hausdorff_distance": "hausdorff", "hausdorff_distance_95": "hausdorff_95_voxels"}
"""Names of the published study: its 95th percentile is over all voxels."""
_OWN_RENAMED = {
    "hausdorff_distance_95": "hausdorff_95_max",
    "hausdorff_distance_95_voxels": "hausdorff_95_voxels",
}
"""Names in the output of ``evaluate-segmentations``, which has both."""


def read_published(path: Path) -> tuple[MetricValue, ...]:
    """Read the metrics of a table.

    Series, structure and model are in the columns ``SeriesInstanceUID``, ``structure_name`` and ``model``, metrics in
    ``dice_score``, ``hausdorff_distance`` and ``hausdorff_distance_95`` as in the published study, or under the names
    of the table ``evaluation``. Structures get the names of mappings/segments.csv. An empty cell is no value.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_PARAMETER if the file is not such a table, has a value that is not a number, or has two values
        for one series, structure, model and metric.
    """
    require_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            names = list(reader.fieldnames or ())
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a CSV file in UTF-8") from error
    columns = [next((n for n in choice if n in names), "") for choice in (_SERIES, _SEGMENT, _PRODUCT)]
    metrics = _metric_columns(names)
    if not all(columns) or not metrics:
        hint = "it needs SeriesInstanceUID, structure_name, model, and a metric such as dice_score"
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a table of metrics", hint)
    found: dict[tuple[str, ...], MetricValue] = {}
    for number, row in enumerate(rows, start=2):
        for value in _values(row, columns, metrics, f"{path.name}:{number}"):
            key = (value.series, value.segment, value.product, value.metric)
            if key in found:
                text = f"{path.name}:{number}: a second {value.metric} of {value.segment} of this series and model"
                raise UsageError(Reason.BAD_PARAMETER, text)
            found[key] = value
    return tuple(found.values())


def _metric_columns(names: list[str]) -> dict[str, str]:
    renamed = _RENAMED | (_OWN_RENAMED if "hausdorff_distance_95_voxels" in names else {})
    found = {name: renamed.get(name, name) for name in names}
    return {name: metric for name, metric in found.items() if metric in METRIC_RULES}


def _values(row: dict[str, str], columns: list[str], metrics: dict[str, str], place: str) -> Iterator[MetricValue]:
    series, structure, product = (row[column] or "" for column in columns)
    code = find_segment(structure)
    for column, metric in metrics.items():
        text = (row[column] or "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            raise UsageError(Reason.BAD_PARAMETER, f"{place}: {column} is not a number") from None
        if math.isfinite(value):
            name = code.name if code else general_name(structure)
            yield MetricValue(series=series, segment=name, product=product, metric=metric, value=value)

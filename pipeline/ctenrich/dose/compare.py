"""Compare two tables of dose metrics by the rule of agreement of CORDIAL-RT."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import require_file

__all__ = ["ComparedMetric", "compare_tables", "read_metrics"]

_VOLUME_SHARE, _VOLUME_CM3 = 0.01, 1.0
_DOSE_SHARE, _DOSE_GY = 0.02, 0.5
_POINTS = 1.0
_STEPS = ("step_slice_mm", "step_row_mm", "step_column_mm")


@dataclass(frozen=True, kw_only=True)
class ComparedMetric:
    """One metric of one structure in two tables."""

    structure: str
    metric: str
    unit: str
    first: float | None
    second: float | None
    agrees: bool | None
    """None where one of the tables has no value."""
    within_bounds: bool | None
    """Whether the intervals of the bounds overlap; None where one of the tables has none."""
    sampling: tuple[str, str]
    """Steps in mm, as ``slices x rows x columns``; empty where a table does not state them."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a table that ``ctenrich dose dvh`` wrote, or ``dose_metrics`` of a run: CSV, JSON or Parquet by its name.

    Structures of a run with several series or products have these in their names: ``heart, expert, 1.2.3``.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_PARAMETER for another kind of file.
    InputError
        DECODE_ERROR for a file without such rows.
    """
    require_file(path, "table of dose metrics")
    kind = path.suffix.lower()
    if kind not in {".csv", ".json", ".parquet"}:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is neither CSV, JSON nor Parquet")
    try:
        if kind == ".parquet":
            import pyarrow.parquet as pq  # only here: the other formats need no Arrow

            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        elif kind == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            with path.open(encoding="utf-8", newline="") as handle:
                rows = list(csv.DictReader(handle))
        for row in _of_structures(rows):
            row["structure"], row["metric"], row["unit"]
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"{path.name} is no table of dose metrics ({type(error).__name__})"
        raise InputError(Reason.DECODE_ERROR, text, "ctenrich dose dvh --format csv writes one") from error


def _of_structures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, those of a run's table with the column `structure`."""
    of_run = [row for row in rows if "structure" not in row and "organ" in row]
    several = len({(row["SeriesInstanceUID"], row["product"]) for row in of_run}) > 1
    for row in of_run:
        place = f", {row['product']}, {row['SeriesInstanceUID']}" if several else ""
        row["structure"] = f"{row['organ']}{place}"
    return rows


def compare_tables(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> list[ComparedMetric]:
    """Compare the metrics that both tables have, by structure and name.

    Volumes agree within 1 % or 1 cm3, doses within 2 % or 0.5 Gy, shares of a volume within 1 percentage point.

    Parameters
    ----------
    first, second : sequence of dict
        Rows with `structure`, `metric`, `unit`, `value` and, where known, bounds and steps.

    Returns
    -------
    list of ComparedMetric
        In the order of the first table.

    Raises
    ------
    InputError
        DECODE_ERROR where a structure has a metric twice, or the tables share none.
    """
    others = _by_name(second)
    _by_name(first)
    out = []
    for row in first:
        other = others.get((row["structure"], row["metric"]))
        if other is None:
            continue
        a, b = _number(row.get("value")), _number(other.get("value"))
        out.append(
            ComparedMetric(
                structure=row["structure"],
                metric=row["metric"],
                unit=row["unit"],
                first=a,
                second=b,
                agrees=None if a is None or b is None else _agrees(a, b, row["unit"]),
                within_bounds=_overlap(row, other),
                sampling=(_sampling(row), _sampling(other)),
            )
        )
    if not out:
        raise InputError(Reason.DECODE_ERROR, "the tables share no metric of a structure of the same name")
    return out


def _by_name(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["structure"], row["metric"])
        if key in found:
            raise InputError(Reason.DECODE_ERROR, f"a table has the metric {key[1]} of one structure twice")
        found[key] = row
    return found


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _agrees(first: float, second: float, unit: str) -> bool:
    difference = abs(first - second)
    if unit == "%":
        return difference < _POINTS
    share, absolute = (_VOLUME_SHARE, _VOLUME_CM3) if unit == "cm3" else (_DOSE_SHARE, _DOSE_GY)
    return difference < absolute or difference < share * max(abs(first), abs(second))


def _overlap(row: dict[str, Any], other: dict[str, Any]) -> bool | None:
    bounds = [_number(one.get(name)) for one in (row, other) for name in ("lower", "upper")]
    low_a, high_a, low_b, high_b = bounds
    if low_a is None or high_a is None or low_b is None or high_b is None:
        return None
    return low_a <= high_b and low_b <= high_a


def _sampling(row: dict[str, Any]) -> str:
    steps = [_number(row.get(name)) for name in _STEPS]
    return " x ".join(f"{step:.2f}" for step in steps if step is not None) if None not in steps else ""

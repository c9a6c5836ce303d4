"""Test-retest repeatability of the measurements of a run: pairs of series, their values, and their statistics."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctenrich.errors import UsageError
from ctenrich.evaluate.repeatability import Intraclass, Repeatability, Values, measure_repeatability
from ctenrich.reasons import Reason
from ctenrich.results.query import run_query, table_files
from ctenrich.results.schema import arrow_schema
from ctenrich.workspace import Workspace, atomic_path, require_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FeatureRepeatability",
    "MeasuredFeature",
    "SeriesPair",
    "pairs_of_patients",
    "read_pairs",
    "run_repeatability",
    "write_repeatability",
]

_TABLE = "repeatability"
_COLUMNS = ("first", "second")
_LEAST = 2


@dataclass(frozen=True, kw_only=True)
class SeriesPair:
    """Two series of one patient, measured under conditions that are meant to be the same."""

    first: str
    """Series Instance UID of the test."""
    second: str
    """Series Instance UID of the retest."""


@dataclass(frozen=True, kw_only=True, order=True)
class MeasuredFeature:
    """A quantity of a structure, as one product and one kind of report have it."""

    product: str
    segment: str
    kind: str
    """Kind of the report, e.g. ``shape_sr``; ``radiomics_features`` for features that no report has."""
    feature: str
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class FeatureRepeatability:
    """Repeatability of one feature over the pairs."""

    measured: MeasuredFeature
    first: Values
    """Values of the test, [pair]; NaN where there is none."""
    second: Values
    statistics: Repeatability


def read_pairs(path: Path) -> tuple[SeriesPair, ...]:
    """Read pairs of series from a CSV file with the columns ``first`` and ``second`` (Series Instance UIDs).

    Raises
    ------
    UsageError
        NOT_FOUND; BAD_PARAMETER if the file is not such a table, if a series is in two pairs, or a pair lacks a series.
    """
    require_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            names = list(reader.fieldnames or ())
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a CSV file in UTF-8") from error
    if not set(_COLUMNS) <= set(names):
        hint = "it needs the columns first and second, with Series Instance UIDs"
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a table of pairs", hint)
    pairs = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        uids = [(row[name] or "").strip() for name in _COLUMNS]
        if not all(uids):
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name}:{number} lacks a series")
        if uids[0] == uids[1] or seen & set(uids):
            raise UsageError(Reason.BAD_PARAMETER, f"{path.name}:{number} has a series that is already in a pair")
        seen |= set(uids)
        pairs.append(SeriesPair(first=uids[0], second=uids[1]))
    return tuple(pairs)


def pairs_of_patients(workspace: Workspace) -> tuple[tuple[SeriesPair, ...], int]:
    """Pair the series of each patient who has exactly two, the earlier Study Date first.

    Parameters
    ----------
    workspace : Workspace
        A run whose tables have been built.

    Returns
    -------
    pairs : tuple of SeriesPair
    left_out : int
        Patients with another number of series, or without Patient ID.
    """
    found: dict[str | None, list[tuple[str, str]]] = defaultdict(list)
    for row in _series_rows(workspace).values():
        found[row["PatientID"]].append((row["StudyDate"] or "", row["SeriesInstanceUID"]))
    unnamed = found.pop(None, [])
    chosen = [sorted(series) for _, series in sorted(found.items(), key=lambda item: str(item[0])) if len(series) == 2]
    pairs = tuple(SeriesPair(first=one[1], second=two[1]) for one, two in chosen)
    return pairs, len(found) - len(pairs) + len(unnamed)


def _series_rows(workspace: Workspace) -> dict[str, dict[str, Any]]:
    rows = run_query(workspace, "SELECT SeriesInstanceUID, PatientID, StudyDate FROM cohort_series").to_pylist()
    return {row["SeriesInstanceUID"]: row for row in rows}


def run_repeatability(
    workspace: Workspace, pairs: Sequence[SeriesPair], *, product: str | None = None
) -> tuple[FeatureRepeatability, ...]:
    """Measure the repeatability of every feature of a run over pairs of series.

    Parameters
    ----------
    workspace : Workspace
        A run whose tables have been built.
    pairs : sequence of SeriesPair
        At least two.
    product : str, optional
        Only this product.

    Returns
    -------
    tuple of FeatureRepeatability
        In the order of product, segment, kind and feature; those without numbers have a note.

    Raises
    ------
    UsageError
        BAD_PARAMETER for fewer than two pairs, or a pair whose series belong to two patients; NOT_FOUND for a series
        that the run does not have; NOT_PREPARED without tables.
    """
    if len(pairs) < _LEAST:
        message = f"{len(pairs)} of the two pairs that repeatability needs"
        raise UsageError(Reason.BAD_PARAMETER, message, "give pairs of series of at least two patients")
    _check_pairs(pairs, _series_rows(workspace))
    values, units, repeated = _read_values(workspace, pairs, product)
    found = []
    for measured, by_series in sorted(values.items()):
        first, second = (
            np.asarray([by_series.get(uid, math.nan) for uid in side], np.float64)
            for side in ([p.first for p in pairs], [p.second for p in pairs])
        )
        statistics = measure_repeatability(first, second)
        if repeated[measured]:
            note = f"{repeated[measured]} series have several values, which were left out"
            statistics = replace(statistics, note="; ".join(filter(None, (statistics.note, note))))
        if len(units[measured]) > 1:
            statistics = Repeatability(subjects=statistics.subjects, note="the values have different units")
        unit = next(iter(units[measured])) if len(units[measured]) == 1 else ""
        found.append(
            FeatureRepeatability(
                measured=replace(measured, unit=unit), first=first, second=second, statistics=statistics
            )
        )
    return tuple(found)


def _check_pairs(pairs: Sequence[SeriesPair], series: Mapping[str, Mapping[str, Any]]) -> None:
    for number, pair in enumerate(pairs, start=1):
        for uid in (pair.first, pair.second):
            if uid not in series:
                raise UsageError(Reason.NOT_FOUND, f"the run has no series {uid[:64]} (pair {number})")
        if series[pair.first]["PatientID"] != series[pair.second]["PatientID"]:
            message = f"the series of pair {number} belong to two patients: {pair.first}, {pair.second}"
            raise UsageError(Reason.BAD_PARAMETER, message, "test and retest are of one patient")


_Values = dict[MeasuredFeature, dict[str, float]]


def _read_values(
    workspace: Workspace, pairs: Sequence[SeriesPair], product: str | None
) -> tuple[_Values, dict[MeasuredFeature, set[str]], dict[MeasuredFeature, int]]:
    """Values of the series of the pairs, the units of each feature, and how many series have more than one value."""
    wanted = {uid for pair in pairs for uid in (pair.first, pair.second)}
    values: dict[MeasuredFeature, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    units: dict[MeasuredFeature, set[str]] = defaultdict(set)
    for row in _value_rows(workspace, product):
        uid = row["SeriesInstanceUID"]
        if uid not in wanted:
            continue
        name = ", ".join(filter(None, (row["quantity"], row["derivation"])))
        measured = MeasuredFeature(product=row["product"], segment=row["segment"], kind=row["kind"], feature=name)
        if row["value"] is not None:
            values[measured][uid].append(row["value"])
            units[measured].add(row["unit"] or "")
        else:
            _ = values[measured]  # a feature without any value has a row with a note
    single = {key: {uid: v[0] for uid, v in found.items() if len(v) == 1} for key, found in values.items()}
    repeated = {key: sum(len(v) > 1 for v in found.values()) for key, found in values.items()}
    return single, units, repeated


def _value_rows(workspace: Workspace, product: str | None) -> Iterable[dict[str, Any]]:
    for batch in run_query(workspace, "measured_values", {"product": product}).to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()
    path = table_files(workspace).get("radiomics_features")
    if path is None:
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=10_000):
            for row in batch.to_pylist():
                if product in (None, row["product"]):
                    kind = {"kind": "radiomics_features", "quantity": row["feature"], "derivation": None, "unit": None}
                    yield row | kind


def write_repeatability(workspace: Workspace, found: Iterable[FeatureRepeatability]) -> Path:
    """Write the table ``repeatability`` of a run; an earlier one is replaced.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    found : iterable of FeatureRepeatability

    Returns
    -------
    Path
        The Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table: pa.Table = pa.Table.from_pylist([_row(one) for one in found], schema=arrow_schema(_TABLE))
    path = workspace.tables / f"{_TABLE}.parquet"
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def _row(one: FeatureRepeatability) -> dict[str, Any]:
    statistics = asdict(one.statistics)
    intraclass = statistics.pop("intraclass") or asdict(Intraclass())
    row = asdict(one.measured) | statistics | intraclass | {"pairs": len(one.first)}
    return row | {"unit": one.measured.unit or None, "note": one.statistics.note or None}

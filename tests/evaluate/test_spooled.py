"""Many results are in files: the same rows, the same statistics, in bounded memory."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctenrich.evaluate import evaluation, spooled, statistics
from ctenrich.evaluate.evaluation import Comparison, EvaluatedMask, Evaluation, write_evaluation
from ctenrich.evaluate.metrics import MaskMetrics, measure_agreement
from ctenrich.evaluate.spooled import RowSpool, SpooledRows
from ctenrich.evaluate.statistics import MetricValue, analyse_variance, compare_pairs, summarise_values, tables_of
from ctenrich.workspace import Workspace


@pytest.fixture(scope="module")
def metrics() -> MaskMetrics:
    mask = np.zeros((3, 8, 8), bool)
    mask[1, 2:6, 2:6] = True
    return measure_agreement(mask, np.roll(mask, 1, axis=2), (2.0, 1.0, 1.0))


def masks(count: int, metrics: MaskMetrics, reference: str = "expert") -> list[EvaluatedMask]:
    return [
        EvaluatedMask(
            series_instance_uid=f"1.{n}", study_instance_uid="1", patient_id=None, segment="heart",
            reference=reference, product="a", metrics=metrics,
        )
        for n in range(count)
    ]  # fmt: skip


def test_few_rows_are_a_tuple_and_many_are_read_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "_ROWS", 4)
    few: RowSpool[int] = RowSpool()
    few.add(1)
    assert few.rows() == (1,)
    many: RowSpool[int] = RowSpool()
    for number in range(11):
        many.add(number)
    rows = many.rows()
    assert isinstance(rows, SpooledRows)
    assert (len(rows), list(rows), rows[-1], rows[2:9:3]) == (11, list(range(11)), 10, (2, 5, 8))
    assert list(zip(rows, rows, strict=True)) == [(n, n) for n in range(11)], "two passes at a time"


def some_values() -> list[MetricValue]:
    """Structures and metrics that are first seen in different series; not every product has a value everywhere."""
    rng = random.Random(4)
    return [
        MetricValue(series=f"1.{n}", segment=segment, product=product, metric=metric, value=rng.random())
        for n in range(12)
        for segment in ("heart", "esophagus", "aorta")
        for product in ("b", "a", "c")
        for metric in ("dice", "hausdorff", "volume_error")
        if rng.random() < 0.8
    ]


def test_statistics_of_values_in_a_file_are_those_of_values_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = some_values()
    strata = {f"1.{n}": f"sex: {'FM'[n % 2]}" for n in range(9)}
    usual = [f(values, strata=s) for f in (compare_pairs, analyse_variance, summarise_values) for s in (None, strata)]
    assert all(usual)
    first_seen = list(dict.fromkeys((v.segment, v.metric) for v in values))
    assert list(dict.fromkeys((s.segment, s.metric) for s in usual[4])) == first_seen
    monkeypatch.setattr(spooled, "_BYTES", 500)
    monkeypatch.setattr(statistics, "_DRAWN", 31)
    stored = tables_of(values)
    assert len(stored) == len(values)
    found = [f(stored, strata=s) for f in (compare_pairs, analyse_variance, summarise_values) for s in (None, strata)]
    assert found == usual


def test_tables_are_written_in_parts_and_rows_of_other_references_stay(
    tmp_path: Path, metrics: MaskMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    for reference, count in (("expert", 5), ("other", 9), ("expert", 7)):
        monkeypatch.setattr(evaluation, "_ROW_GROUP", 4)
        found = Evaluation(reference=reference, masks=masks(count, metrics, reference))
        path = write_evaluation(workspace, found, Comparison())["evaluation"]
    table = pq.read_table(path)
    assert table["reference"].to_pylist() == ["other"] * 9 + ["expert"] * 7
    assert table["SeriesInstanceUID"].to_pylist() == [f"1.{n}" for n in (*range(9), *range(7))]
    assert table["dice"].to_pylist() == [pytest.approx(metrics.dice)] * 16
    assert max(pq.ParquetFile(path).metadata.row_group(n).num_rows for n in range(4)) <= 4

"""Cohorts described, compared and run again from their lock; and somebody's list of series."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.select.test_rules_agree import stack
from tests.support.generated_cohorts import TableCatalog

from ctenrich.errors import InconsistencyError, UsageError
from ctenrich.reasons import Reason
from ctenrich.select.compare import describe_cohort, diff_cohorts, read_lock, relock
from ctenrich.select.files import lock_path, write_cohort
from ctenrich.select.selection import select_cohort
from ctenrich.select.series_list import read_series_list, select_series_list


def rows_of(version: int) -> list[dict[str, object]]:
    """Three series; in version 2 one is gone, one has another slice, one is new."""
    common = stack("1.1", [0, 3, 6], crdc_series_uuid="u1")
    if version == 1:
        return common + stack("1.2", [0, 3, 6], crdc_series_uuid="u2") + stack("1.3", [0, 3, 6], crdc_series_uuid="u3")
    changed = stack("1.2", [0, 3, 6, 9], crdc_series_uuid="u2b")
    return common + changed + stack("1.4", [0, 2, 4]) + stack("1.5", [0, 2, 9])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for version in (1, 2):
        selection = select_cohort("select_ct_series", TableCatalog(rows_of(version)), {}, companions=False)
        write_cohort(selection, tmp_path / f"v{version}.parquet")
    return tmp_path / "v1.parquet", tmp_path / "v2.parquet"


def test_a_lock_says_what_a_selection_was_made_of(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    lock = read_lock(lock_path(files[0]))
    assert lock["idc_datasets"] == ["idc_v25"]
    assert lock["query"]["name"] == "select_ct_series"
    assert len(lock["query"]["sha256"]) == 64
    assert lock["parameters"]["spacing_relative"] == 0.01
    assert lock["series"][0] == {"SeriesInstanceUID": "1.1", "crdc_series_uuid": "u1", "instances": 3}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    selection = select_cohort("select_ct_series", TableCatalog(rows_of(1)), {}, companions=False)
    write_cohort(selection, files[0])
    assert read_lock(lock_path(files[0]))["time"] == "1970-01-01T00:00:00+00:00"


def test_a_lock_run_again_on_a_newer_catalog_says_what_changed(files: tuple[Path, Path]) -> None:
    selection, same = relock(lock_path(files[0]), TableCatalog(rows_of(1)))
    assert (same.changes, same.circumstances, same.same) == ((), (), 3)
    selection, diff = relock(lock_path(files[0]), TableCatalog(rows_of(2)))
    assert len(selection.cohort.series) == 3
    assert [(c.series_instance_uid, c.change) for c in diff.changes] == [
        ("1.2", "changed"), ("1.3", "removed"), ("1.4", "added"),
    ]  # fmt: skip
    assert "NOT_IN_CATALOG" in diff.changes[1].explanation
    assert diff.same == 1


def test_two_cohorts_are_explained_series_by_series(files: tuple[Path, Path]) -> None:
    diff = diff_cohorts(*files)
    found = {c.series_instance_uid: (c.change, c.explanation) for c in diff.changes}
    assert set(found) == {"1.2", "1.3", "1.4"}
    assert found["1.2"][0] == "changed"
    assert "3 instances became 4" in found["1.2"][1]
    assert found["1.3"] == ("removed", "is now not in the start set (not in the catalog, or not asked for)")
    assert diff_cohorts(files[0], files[0]).changes == ()


def test_a_removed_series_is_explained_by_its_reason(tmp_path: Path) -> None:
    for name, least in (("a", 2), ("b", 4)):
        selection = select_cohort(
            "select_ct_series", TableCatalog(rows_of(2)), {"minimum_slices": least}, companions=False
        )
        write_cohort(selection, tmp_path / f"{name}.parquet")
    diff = diff_cohorts(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert diff.circumstances == ("parameter minimum_slices: 2 became 4",)
    assert {c.explanation for c in diff.changes} == {"is now excluded: TOO_FEW_SLICES"}


def test_a_cohort_is_described(files: tuple[Path, Path]) -> None:
    summary = describe_cohort(files[1])
    assert (summary.patients, summary.series, summary.instances, summary.bytes) == (1, 3, 10, 10_000)
    assert summary.excluded == {"IRREGULAR_SPACING": 1}
    lock = json.loads(lock_path(files[1]).read_text())
    lock["excluded"] = {}
    lock_path(files[1]).write_text(json.dumps(lock))
    with pytest.raises(InconsistencyError):
        describe_cohort(files[1])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}'])
def test_a_broken_lock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.lock.json").write_text(text)
    with pytest.raises(UsageError, match="BAD_COHORT"):
        read_lock(tmp_path / "a.lock.json")


def test_every_series_of_a_list_is_judged(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("PatientID,SeriesInstanceUID\nx,1.5\nx,1.1\nx,9.9\nx,1.1\n")
    wanted = read_series_list(tmp_path / "list.csv")
    assert wanted == ("1.5", "1.1", "9.9")
    selection = select_series_list(wanted, TableCatalog(rows_of(2)))
    assert [s.series_instance_uid for s in selection.cohort.series] == ["1.1"]
    rows = {row["series_instance_uid"]: row["reason"] for row in selection.excluded.to_pylist()}
    assert rows == {"1.5": "IRREGULAR_SPACING", "9.9": "NOT_IN_CATALOG"}


def test_a_list_run_again_from_its_lock_loses_no_series(tmp_path: Path) -> None:
    first = select_series_list(("1.1", "9.9"), TableCatalog(rows_of(1)))
    write_cohort(first, tmp_path / "a.parquet")
    again, diff = relock(lock_path(tmp_path / "a.parquet"), TableCatalog(rows_of(1)))
    assert (diff.changes, diff.same) == ((), 1)
    assert again.excluded.equals(first.excluded)
    assert again.excluded["series_instance_uid"].to_pylist() == ["9.9"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.EMPTY_INPUT),
        ("1.2\n../x\n", Reason.BAD_PARAMETER),
        ("SeriesInstanceUID\n';DROP\n", Reason.BAD_PARAMETER),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, text: str, reason: Reason) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_series_list(tmp_path / "list.txt")
    assert caught.value.reason is reason

"""The tidy tables: rows worked out from masks, landmarks and ledger; the questions of the documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctenrich.masks import dice, full_mask
from ctenrich.records import SegmentMasks, Volume
from ctenrich.results.organs import cohort_rows, flag_organs
from ctenrich.results.outliers import find_outliers
from ctenrich.results.query import run_query
from ctenrich.results.tables import build_tables
from ctenrich.workspace import Workspace, load_array, load_record
from tests.support.organ_questions import QUESTIONS
from tests.support.report_more import EXPERT, add_more
from tests.support.report_runs import NETWORK, make_run, uid_of

SERIES = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return add_more(make_run(tmp_path_factory.mktemp("organs") / "run", SERIES), SERIES)


def test_volumes_and_agreement_are_those_of_the_masks(run: Workspace) -> None:
    rows = run_query(run, "SELECT * FROM organs ORDER BY SeriesInstanceUID, product, segment_number").to_pylist()
    assert len(rows) == 3 * SERIES + 2, "three organs of the network in each series, two of the expert in one"
    uid = uid_of(0)
    masks, drawn = (load_record(run.product_dir(uid, p) / "masks.json", SegmentMasks) for p in (NETWORK, EXPERT))
    ours = {r["organ"]: r for r in rows if r["SeriesInstanceUID"] == uid and r["product"] == str(NETWORK)}
    for number, organ in ((1, "heart"), (2, "aorta")):
        mask, expert = full_mask(masks, number, run), full_mask(drawn, number, run)
        assert ours[organ]["volume_ml"] == pytest.approx(mask.sum() * 2.5 * 2.5 * 8 / 1000)
        assert ours[organ]["expert_dice"] == pytest.approx(dice(mask, expert))
        assert 0 < ours[organ]["expert_dice"] < 1
    assert (ours["trachea"]["absent"], ours["trachea"]["volume_ml"]) == (True, None)
    assert (ours["trachea"]["needs_review"], ours["trachea"]["review_reasons"]) == (True, "absent")
    assert not ours["heart"]["needs_review"]
    assert {r["expert_dice"] for r in rows if r["product"] == "expert" or r["SeriesInstanceUID"] != uid} == {None}
    assert {(r["lung_start"], r["lung_end"]) for r in rows} == {(True, True)}
    volume = load_record(run.series_dir(uid) / "volume.json", Volume)
    array = load_array(run.resolve(uid, volume.array_path))
    for number, organ in ((1, "heart"), (2, "aorta")):
        assert ours[organ]["mean_hu"] == pytest.approx(float(array[full_mask(masks, number, run)].mean()))
    assert ours["trachea"]["mean_hu"] is None


def test_agreement_is_kept_until_the_masks_change(run: Workspace) -> None:
    kept = run.product_dir(uid_of(0), NETWORK) / "expert_dice.json"
    (text,) = {kept.read_text()}
    kept.write_text(text.replace("0.", "0.1", 1))
    build_tables(run)
    changed = run_query(run, "SELECT MIN(expert_dice) AS d FROM organs").to_pylist()
    kept.write_text(text.replace('"masks": "', '"masks": "other '))
    build_tables(run)
    assert changed != run_query(run, "SELECT MIN(expert_dice) AS d FROM organs").to_pylist()
    assert kept.read_text() == text


def test_a_series_is_one_row_with_its_lungs(run: Workspace) -> None:
    rows = run_query(run, "SELECT * FROM cohort_series").to_pylist()
    assert [r["SeriesInstanceUID"] for r in rows] == [uid_of(0), uid_of(1)]
    heights = {r["SeriesInstanceUID"]: r["height"] for r in run_query(run, "lung_height").to_pylist()}
    assert {r["SeriesInstanceUID"]: r["lung_height_mm"] for r in rows} == heights
    assert {(r["state"], r["reason"], r["objects"] > 2) for r in rows} == {("done", None, True)}


def test_what_was_not_found_is_false_and_what_was_not_looked_for_is_null() -> None:
    series = [{"SeriesInstanceUID": uid, "Manufacturer": "A", "ManufacturerModelName": "B"} for uid in ("1.1", "1.2")]
    found = {"landmark": "lung_start", "slice_index": 3, "position": 30.0}
    absent = {"landmark": "lung_end", "slice_index": None, "position": None}
    landmarks = [{"SeriesInstanceUID": "1.1", **row} for row in (found, absent)]
    rows = cohort_rows({"series": series, "landmarks": landmarks, "outcomes": [], "objects": [], "slices": []})
    assert [(r["lung_start"], r["lung_end"], r["lung_height_mm"]) for r in rows] == [(True, False, None), (None,) * 3]
    assert rows[0]["scanner"] == "A B"


def test_outlying_volumes_and_warnings_are_flagged() -> None:
    organs = [
        {"SeriesInstanceUID": f"1.{k}", "product": "net", "organ": organ, "absent": False, "expert_dice": None,
         "volume_ml": 600.0 + k if (k, organ) != (9, "heart") else 90.0}
        for k in range(10) for organ in ("heart", "aorta")
    ]  # fmt: skip
    products = np.zeros((20, 1), int)
    organ = np.array([[0], [1]] * 10)
    volumes = np.array([row["volume_ml"] for row in organs])
    (outlier,) = find_outliers(np.hstack([products, organ]), volumes)
    assert organs[outlier] == organs[18]
    assert find_outliers(np.hstack([products, organ]), np.where(volumes < 100, np.nan, volumes)) == {}
    organs[0]["expert_dice"] = 0.25
    warning = {"SeriesInstanceUID": "1.1", "product": "net", "severity": "warning", "stage": "segment"}
    issues = [
        {**warning, "rule": "model.axes", "object": "net"},
        {**warning, "rule": "two_parts", "object": "heart"},
        {**warning, "rule": "dciodvfy", "object": "x", "stage": "validate"},
    ]
    flag_organs(organs, [], issues)
    reasons = {(r["SeriesInstanceUID"], r["organ"]): r["review_reasons"] for r in organs if r["needs_review"]}
    assert reasons == {
        ("1.0", "heart"): "Dice 0.25 against the expert",
        ("1.1", "heart"): "model.axes; two_parts",
        ("1.1", "aorta"): "model.axes",
    }


def test_the_documentation_asks_ten_questions_in_one_line_each() -> None:
    assert len(QUESTIONS) == 10
    assert all("FROM organs" in sql for sql in QUESTIONS.values())


@pytest.mark.parametrize("question", sorted(QUESTIONS))
def test_every_question_of_the_documentation_runs(run: Workspace, question: str) -> None:
    """In DuckDB's own dialect, and as BigQuery's SQL."""
    sql = QUESTIONS[question]
    here = run_query(run, sql).to_pylist()
    assert here == run_query(run, sql.replace("FROM organs", "FROM `organs`")).to_pylist()


def test_answers_to_some_of_them(run: Workspace) -> None:
    (by_organ, *_) = run_query(run, QUESTIONS["Dice by organ"]).to_pylist()
    assert (by_organ["organ"], by_organ["n"]) == ("aorta", 1)
    assert run_query(run, QUESTIONS["series that lack an end of the lungs"]).num_rows == 0
    absent = run_query(run, QUESTIONS["organs that were not found"]).to_pylist()
    assert [r["organ"] for r in absent] == ["trachea"] * SERIES
    assert run_query(run, QUESTIONS["hearts over 800 mL"]).num_rows == 0


def test_tables_of_an_earlier_version_are_named(tmp_path: Path) -> None:
    from ctenrich.errors import UsageError

    old = make_run(tmp_path / "run", 1, pictures=0)
    (old.tables / "organs.parquet").unlink()
    (old.tables / "tables.json").unlink()
    with pytest.raises(UsageError) as caught:
        run_query(old, "SELECT * FROM organs")
    assert "ctenrich report RUN" in caught.value.hint

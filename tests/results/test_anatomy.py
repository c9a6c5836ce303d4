"""Series found by anatomy: planted truth, in SQL and on records alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Landmarks
from ctenrich.results.anatomy import AnatomyRange, anatomy_query, holds, parse_anatomy
from ctenrich.results.query import run_query
from ctenrich.results.schema import arrow_schema
from ctenrich.workspace import Workspace
from tests.support.bodypart_cases import make_scores

# Scores of the lowest and the highest slice: what each series shows follows from the look-up table.
PLANTED = {
    "1.1": (40.0, 80.0),  # L1 to C7: the whole chest
    "1.2": (45.5, 80.0),  # begins above lung_start and T12
    "1.3": (20.0, 60.0),  # abdomen: L5 to T8
    "1.4": (-20.0, -5.0),  # legs: no landmark
}


def planted() -> dict[str, Landmarks]:
    from dataclasses import replace

    out = {}
    for uid, (low, high) in PLANTED.items():
        scores = make_scores([low + (high - low) * k / 60 for k in range(61)], 4.0)
        out[uid] = replace(find_landmarks(scores), series_instance_uid=uid)
    return out


@pytest.fixture
def run(tmp_path: Path) -> Workspace:
    import pyarrow as pa
    import pyarrow.parquet as pq

    workspace = Workspace(tmp_path)
    workspace.tables.mkdir()
    rows = [
        {
            "SeriesInstanceUID": uid, "product": str(landmarks.product), "landmark": i.name, "score": i.score,
            "slice_index": i.slice_index, "SOPInstanceUID": i.sop_instance_uid, "position": i.position,
        }
        for uid, landmarks in planted().items()
        for i in landmarks.items
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema("landmarks")), workspace.tables / "landmarks.parquet")
    return workspace


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("T4..L1", "L1", "Th4"),
        ("l1..th4", "L1", "Th4"),
        (" Th4 .. L1 ", "L1", "Th4"),
        ("lung_start", "lung_start", "lung_start"),
        ("Lung Start", "lung_start", "lung_start"),
        ("lungs", "lung_start", "lung_end"),
        ("cervical-spine", "C7", "C1"),
        ("C1..pelvis_start", "pelvis_start", "C1"),
    ],
)
def test_requests(text: str, low: str, high: str) -> None:
    assert parse_anatomy(text) == AnatomyRange(low, high)


@pytest.mark.parametrize("text", ["", "..", "T4..", "T4..T5..T6", "T13", "heart", "'; DROP TABLE landmarks; --"])
def test_requests_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_anatomy(text)
    assert caught.value.reason is Reason.BAD_PARAMETER
    assert caught.value.hint


def test_a_misspelled_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_anatomy("lung_strat")
    assert "lung_start" in caught.value.hint


@pytest.mark.parametrize(
    ("anatomy", "without", "expected"),
    [
        (["lungs"], [], ["1.1"]),
        (["Th3..L1"], [], ["1.1"]),
        (["lung_end"], ["lung_start"], ["1.2"]),
        (["L5..L1"], [], ["1.3"]),
        (["Th8"], [], ["1.1", "1.2", "1.3"]),
        (["Th8"], ["L5"], ["1.1", "1.2"]),
        (["L1", "Th8"], [], ["1.1", "1.3"]),
        ([], ["lung_start"], ["1.2", "1.4"]),
        (["eyes_end"], [], []),
    ],
)
def test_planted_truth(run: Workspace, anatomy: list[str], without: list[str], expected: list[str]) -> None:
    sql, values = anatomy_query(anatomy, without)
    assert run_query(run, sql, values)["SeriesInstanceUID"].to_pylist() == expected
    assert [uid for uid, landmarks in planted().items() if holds(landmarks, anatomy, without)] == expected


def test_the_answer_says_where(run: Workspace) -> None:
    sql, values = anatomy_query(["lungs"])
    row = run_query(run, sql, values).to_pylist()[0]
    items = {i.name: i for i in planted()["1.1"].items}
    assert row["first_slice"] == items["lung_start"].slice_index
    assert row["last_slice"] == items["lung_end"].slice_index
    assert row["length_mm"] == pytest.approx((75.389 - 44.143) / (40 / 60) * 4)


def test_nothing_asked() -> None:
    with pytest.raises(UsageError):
        anatomy_query()

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.results.query import result_queries, run_query
from ctenrich.workspace import Workspace
from tests.support.questions import CLINICAL_ROW, NEEDS_CLINICAL, QUESTIONS, SERIES
from tests.support.report_more import SPHERICITY, add_more
from tests.support.report_runs import NETWORK, make_run, uid_of


def write_clinical(run: Workspace) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(run.tables / "clinical")
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([CLINICAL_ROW]), folder / "nsclc_radiomics_clinical.parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return add_more(make_run(tmp_path_factory.mktemp("asked") / "run", SERIES), SERIES)


def test_every_shipped_query_is_asked() -> None:
    assert set(result_queries()) == {*QUESTIONS, *NEEDS_CLINICAL}
    assert all(rows > 0 for _, rows in {**QUESTIONS, **NEEDS_CLINICAL}.values()), "an empty answer shows nothing"


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_number_of_rows(run: Workspace, name: str) -> None:
    given, rows = QUESTIONS[name]
    assert run_query(run, name, given).num_rows == rows


def test_rows_worked_out_by_hand(run: Workspace) -> None:
    shares = run_query(run, "region_shares", {"region": "chest"}).to_pylist()
    assert [r["slices"] for r in shares] == [30] * SERIES, "slices 10 to 39 of 40"
    assert {r["share"] for r in shares} == {0.75}
    (abdomen, chest) = run_query(run, "region_extents", {"series": uid_of(0)}).to_pylist()
    assert (abdomen["region"], abdomen["first_slice"], abdomen["last_slice"]) == ("abdomen", 0, 19)
    assert (chest["from_distance"], chest["to_distance"]) == (80.0, 312.0)
    (found,) = run_query(run, "series_with_feature_in_range", QUESTIONS["series_with_feature_in_range"][0]).to_pylist()
    assert found["SeriesInstanceUID"] == uid_of(SERIES // 2), "the planted one"
    absent = run_query(run, "absent_organs").to_pylist()
    assert {r["segment"] for r in absent} == {"trachea"}
    heights = run_query(run, "lung_height").to_pylist()
    assert all(r["height"] == r["top"] - r["bottom"] > 0 for r in heights)
    coverage = {r["landmark"]: (r["present"], r["absent"]) for r in run_query(run, "landmark_coverage").to_pylist()}
    assert coverage == {"C2": (0, 4), "lung_end": (4, 0), "Th8": (4, 0), "Th7": (1, 3), "lung_start": (4, 0)}


def test_landmarks_on_their_slices(run: Workspace) -> None:
    rows = run_query(run, "landmarks_of_series", {"series": uid_of(0)}).to_pylist()
    found = {(r["landmark"], r["part"]): (r["slice_index"], r["distance"], r["SOPInstanceUID"]) for r in rows}
    assert found["Th8", "Center"] == (21, 168.0, f"{uid_of(0)}.22")
    assert found["Th7", "Center"] == (24, 192.0, f"{uid_of(0)}.25")
    assert {("lung_start", "Bottom"), ("lung_end", "Top")} < found.keys()
    (pair,) = run_query(run, "vertebra_distances").to_pylist()
    assert (pair["lower"], pair["upper"], pair["distance"]) == ("Th8", "Th7", 24.0)
    (shown,) = run_query(run, "series_with_vertebrae", {"first": "Th8", "last": "Th7"}).to_pylist()
    assert (shown["SeriesInstanceUID"], shown["vertebrae"]) == (uid_of(0), 2)


def test_the_same_feature_of_two_products(run: Workspace) -> None:
    given, _ = QUESTIONS["expert_against_model"]
    rows = run_query(run, "expert_against_model", given).to_pylist()
    assert {r["segment"]: r["first_value"] for r in rows} == {k: float(v) for k, v in SPHERICITY.items()}
    assert all(r["difference"] == pytest.approx(r["second_value"] - r["first_value"]) for r in rows)
    assert all(abs(r["second_value"] - 0.7) < 0.05 for r in rows), "the network's own numbers"


def test_published_logic_agrees_with_the_tables(run: Workspace) -> None:
    """The nested walk over raw attributes gives what our own walk gives."""
    theirs = run_query(run, "published_features", {"description": "%"}).to_pylist()
    ours = run_query(
        run,
        "SELECT SOPInstanceUID, measurementGroup_number, Quantity.CodeMeaning AS q, valueFloat AS v "
        "FROM quantitative_measurements ORDER BY 1, 2, 3",
    ).to_pylist()
    pairs = [(r["SOPInstanceUID"], r["measurementGroup_number"], r["Quantity"], float(r["Value"])) for r in theirs]
    assert pairs == [(r["SOPInstanceUID"], r["measurementGroup_number"], r["q"], r["v"]) for r in ours]


def test_clinical_data(run: Workspace) -> None:
    write_clinical(run)
    name, (given, count) = next(iter(NEEDS_CLINICAL.items()))
    rows = run_query(run, name, given).to_pylist()
    assert len(rows) == count
    assert (rows[0]["age"], rows[0]["died"], rows[0]["segment"]) == (61.5, True, "heart")
    assert sorted(r["product"] for r in rows) == ["expert", *[str(NETWORK)] * SERIES]

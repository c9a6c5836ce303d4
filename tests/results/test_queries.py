from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.results.query import result_queries, run_query
from ctenrich.workspace import Workspace
from tests.report.made import make_run, uid_of
from tests.results.questions import NEEDS_CLINICAL, QUESTIONS, SERIES


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_run(tmp_path_factory.mktemp("asked") / "run", SERIES)


def test_every_shipped_query_is_asked() -> None:
    assert set(result_queries()) == {*QUESTIONS, *NEEDS_CLINICAL}


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_number_of_rows(run: Workspace, name: str) -> None:
    given, rows = QUESTIONS[name]
    assert run_query(run, name, given).num_rows == rows


def test_rows_worked_out_by_hand(run: Workspace) -> None:
    shares = run_query(run, "region_shares", {"region": "Chest"}).to_pylist()
    assert [r["slices"] for r in shares] == [30] * SERIES, "slices 10 to 39 of 40"
    assert {r["share"] for r in shares} == {0.75}
    (abdomen, chest) = run_query(run, "region_extents", {"series": uid_of(0)}).to_pylist()
    assert (abdomen["region"], abdomen["first_slice"], abdomen["last_slice"]) == ("Abdomen", 0, 19)
    assert (chest["from_distance"], chest["to_distance"]) == (80.0, 312.0)
    (found,) = run_query(run, "series_with_feature_in_range", QUESTIONS["series_with_feature_in_range"][0]).to_pylist()
    assert found["SeriesInstanceUID"] == uid_of(SERIES // 2), "the planted one"
    absent = run_query(run, "absent_organs").to_pylist()
    assert {r["segment"] for r in absent} == {"trachea"}
    heights = run_query(run, "lung_height").to_pylist()
    assert all(r["height"] == r["top"] - r["bottom"] > 0 for r in heights)
    coverage = {r["landmark"]: (r["present"], r["absent"]) for r in run_query(run, "landmark_coverage").to_pylist()}
    assert coverage == {"C2": (0, 4), "lung_end": (4, 0), "Th8": (4, 0), "lung_start": (4, 0)}


def test_published_logic_agrees_with_the_tables(run: Workspace) -> None:
    """The nested walk over raw attributes gives what our own walk gives."""
    theirs = run_query(run, "published_features", {"description": "M%"}).to_pylist()
    ours = run_query(
        run,
        "SELECT SOPInstanceUID, measurementGroup_number, Quantity.CodeMeaning AS q, valueFloat AS v "
        "FROM quantitative_measurements ORDER BY 1, 2, 3",
    ).to_pylist()
    pairs = [(r["SOPInstanceUID"], r["measurementGroup_number"], r["Quantity"], float(r["Value"])) for r in theirs]
    assert pairs == [(r["SOPInstanceUID"], r["measurementGroup_number"], r["q"], r["v"]) for r in ours]


def test_clinical_data(run: Workspace) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(run.tables / "clinical")
    folder.mkdir()
    columns = {"age": ["61.5"], "overallstage": ["II"], "survivaltime": ["300"], "deadstatusevent": ["1"]}
    table = pa.table({"dicom_patient_id": ["P1"], **columns})
    pq.write_table(table, folder / "nsclc_radiomics_clinical.parquet")
    rows = run_query(run, "features_with_clinical_data", {"quantity": "Sphericity"}).to_pylist()
    assert len(rows) == 2 * SERIES
    assert (rows[0]["age"], rows[0]["died"]) == (61.5, True)

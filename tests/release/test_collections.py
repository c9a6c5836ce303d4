"""Several collections in one cohort, each with its licence and DOI: from selection to the release."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import duckdb
import pytest
from tests.support.cohorts import TINY

from ctenrich import steps
from ctenrich.errors import UsageError
from ctenrich.phantom import write_phantom_study
from ctenrich.reasons import Reason
from ctenrich.release.about import About
from ctenrich.release.release import ReleaseOptions, make_release
from ctenrich.runner.run import Run

COLLECTIONS = {
    "nsclc_radiomics": ("CC BY-NC 3.0", "10.7937/K9/TCIA.2015.PF0M9REI"),
    "lung_pet_ct_dx": ("CC BY 4.0", "10.7937/TCIA.2020.NNC2-0461"),
}
"""Name, licence and DOI of two collections of TCIA, whose patients are phantoms here."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One patient of each collection, selected from tables like IDC's, which state licences and DOIs."""
    root = tmp_path_factory.mktemp("collections")
    for number, name in enumerate(COLLECTIONS):
        write_phantom_study(root / name, TINY.changed(seed=200 + number, patient_id=f"P{number}"))
        steps.index([root / name], root / "catalog.duckdb", collection_id=name)
    place = root / "tables" / "idc_v25" / "dicom_all"
    place.mkdir(parents=True)
    choices = (
        "CASE collection_id "
        + " ".join(f"WHEN '{name}' THEN '{terms[k]}'" for name, terms in COLLECTIONS.items())
        + " END"
        for k in (0, 1)
    )
    licence, doi = choices
    with duckdb.connect(str(root / "catalog.duckdb"), read_only=True) as connection:
        rows = f"SELECT * REPLACE ({licence} AS license_short_name, {doi} AS Source_DOI) FROM dicom_all"
        connection.execute(f"COPY ({rows}) TO '{place / '0.parquet'}' (FORMAT parquet)")
    steps.select("select_ct_series", f"parquet:{root / 'tables'}", root / "cohort.parquet")
    made = steps.start(root / "cohort.parquet", root / "run", segmenters=["expert"])
    assert steps.run_all(made).exit_code == 0
    return made


@pytest.mark.long
def test_the_tables_have_the_collection_of_each_series(run: Run) -> None:
    rows = steps.query(run, "SELECT collection_id, license_short_name, source_doi FROM series").to_pylist()
    assert {row["collection_id"]: (row["license_short_name"], row["source_doi"]) for row in rows} == COLLECTIONS
    assert len(rows) == 2
    question = (
        "SELECT c.collection_id, count(DISTINCT q.segmentationSegmentNumber) AS n FROM quantitative_measurements q"
        " JOIN cohort_series c ON c.SeriesInstanceUID = q.sourceSegmentedSeriesUID GROUP BY 1"
    )
    found = {row["collection_id"]: row["n"] for row in steps.query(run, question).to_pylist()}
    assert found.keys() == COLLECTIONS.keys()
    assert min(found.values()) > 3, "structures of both collections are measured"


@pytest.mark.long
def test_the_release_cites_both_and_keeps_the_conditions_of_both(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("idc_index_data", reason="its tables have the citations")
    options = ReleaseOptions(identified=True, about=About(title="Two collections", licence="CC-BY-NC-3.0"))
    make_release(run.workspace, tmp_path / "out", options=options)
    with (tmp_path / "out" / "sources.csv").open(encoding="utf-8", newline="") as handle:
        rows = {row["name"]: row for row in csv.DictReader(handle) if row["kind"] == "collection"}
    assert rows.keys() == COLLECTIONS.keys()
    for name, (licence, doi) in COLLECTIONS.items():
        assert rows[name]["licence"] == licence.replace(" ", "-")
        assert rows[name]["identifier"].lower() == f"https://doi.org/{doi}".lower()
        assert "(20" in rows[name]["citation"], "authors, year and title"
    crate = json.loads((tmp_path / "out" / "ro-crate-metadata.json").read_text("utf-8"))
    named = {one.get("name"): one for one in crate["@graph"] if one["@type"] == "Dataset"}
    assert COLLECTIONS.keys() <= named.keys()
    cited = json.loads((tmp_path / "out" / "datacite.json").read_text("utf-8"))["relatedIdentifiers"]
    assert {one["relatedIdentifier"].lower() for one in cited} >= {doi.lower() for _, doi in COLLECTIONS.values()}
    too_free = ReleaseOptions(identified=True, about=About(title="Two collections", licence="CC-BY-4.0"))
    with pytest.raises(UsageError) as caught:
        make_release(run.workspace, tmp_path / "free", options=too_free)
    assert caught.value.reason is Reason.BAD_PARAMETER
    assert not (tmp_path / "free").exists()

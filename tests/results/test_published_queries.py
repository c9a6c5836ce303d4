"""The queries of the published study run on our tables with nothing but the names of their tables replaced."""

from __future__ import annotations

import pytest

from ctenrich.results.query import run_query
from ctenrich.workspace import Workspace
from tests.support.published_queries import DATASETS, NAMES, make_encoded_run, needs_queries, published_query

pytestmark = needs_queries


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_encoded_run(tmp_path_factory.mktemp("encoded"))


def ask(run: Workspace, name: str) -> list[dict[str, object]]:
    (first, second) = (run_query(run, published_query(name, dataset)).to_pylist() for dataset in DATASETS)
    assert first == second
    return first


def count(run: Workspace, sql: str) -> int:
    (row,) = run_query(run, sql).to_pylist()
    return int(row["n"])


def test_there_are_six_queries_for_each_of_two_collections() -> None:
    assert len(NAMES) * len(DATASETS) == 12


def test_features(run: Workspace) -> None:
    groups = ask(run, "measurement_group_features")
    assert len(groups) == 4, "one per organ, the absent one included"
    assert {g["SeriesDescription"] for g in groups} == {"3d_fullres-tta_nnU-Net_Measurements small-organs"}
    assert all(g["contentSequence"]["ValueType"] == "CONTAINER" for g in groups), "the group, not its parent"
    values = ask(run, "quantitative_measurements_features")
    assert len(values) == count(run, "SELECT COUNT(*) AS n FROM quantitative_measurements WHERE finding IS NOT NULL")
    heart = {v["Quantity"]["CodeMeaning"]: v for v in values if v["findingSite"]["CodeMeaning"] == "Heart"}
    ours = run_query(
        run,
        "SELECT Value AS v FROM quantitative_measurements "
        "WHERE findingSite.CodeMeaning = 'Heart' AND Quantity.CodeMeaning = 'Sphericity'",
    ).to_pylist()
    assert [heart["Sphericity"]["Value"]] == [row["v"] for row in ours]


@pytest.mark.parametrize("kind", ["landmarks", "regions"])
def test_landmarks_and_regions(run: Workspace, kind: str) -> None:
    column = kind.removesuffix("s")
    groups = ask(run, f"measurement_group_{kind}")
    description = f"BPR {column} annotations"
    assert {g["SeriesDescription"] for g in groups} == {description}
    assert len(groups) == count(
        run, f"SELECT COUNT(*) AS n FROM measurement_groups WHERE SeriesDescription = '{description}'"
    )
    found = ask(run, f"qualitative_measurements_{kind}")
    ours = run_query(
        run,
        f"SELECT ReferencedSOPInstanceUID AS s, Value.CodeMeaning AS a, topographicalModifier.CodeMeaning AS m "
        f"FROM image_level_annotations WHERE {column} IS NOT NULL",
    ).to_pylist()
    theirs = [
        (
            r["ReferencedSOPInstanceUID"],
            r["ConceptCodeSequence"]["CodeMeaning"],
            (r.get("topographical_modifier") or {}),
        )
        for r in found
    ]
    assert sorted((s, a, m.get("CodeMeaning") or "") for s, a, m in theirs) == sorted(
        (r["s"], r["a"], r["m"] or "") for r in ours
    )
    assert len({r["ReferencedStudyInstanceUID"] for r in found} - {None}) == 1

"""``ctenrich query``: lists, descriptions, formats, and what it says about names that do not exist."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort
from tests.support.report_runs import make_run
from typer.testing import CliRunner, Result

from ctenrich.cli.console import print_table
from ctenrich.cli.main import app
from ctenrich.results.query import result_queries


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder that the command opens, with the tables of a made run."""
    from ctenrich import steps

    folder = tmp_path_factory.mktemp("query")
    made = make_run(folder / "made", 1)
    opened = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    opened.workspace.tables.mkdir(exist_ok=True)
    for path in made.tables.iterdir():
        (opened.workspace.tables / path.name).write_bytes(path.read_bytes())
    return folder / "run"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["query", *map(str, words)])


def test_queries_and_tables_are_listed_without_a_run(run: Path) -> None:
    text = call("--list").stdout
    assert all(name in text for name in (*result_queries(), "organs", "cohort_series", "measurement_group_features"))
    listed = call(run, "--list").stdout
    (line,) = [line for line in listed.splitlines() if line.startswith("│ slices ")]
    assert line.split("│")[3].strip() == "40", "rows of this run"


@pytest.mark.parametrize(
    "name", ["organs", "ORGANS", "lung_height", "measurement_group_regions", "strict_segmentations"]
)
def test_tables_views_and_queries_are_described(run: Path, name: str) -> None:
    result = call(run, "--describe", name)
    assert result.exit_code == 0
    assert "meaning" in result.stdout


def test_the_description_has_type_and_meaning() -> None:
    text = call("--describe", "organs").stdout
    (line,) = [line for line in text.splitlines() if line.startswith("│ volume_ml ")]
    assert [part.strip() for part in line.split("│")[2:4]] == [
        "double",
        "Volume from voxel summation, mL; NULL if absent",
    ]
    assert "--param low=" in call("--describe", "series_with_feature_in_range").stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--describe", "organz"), "did you mean organs?"),
        (("lung_hight",), "did you mean lung_height?"),
        (("organs",), '"SELECT * FROM organs"'),
        (("SELECT * FROM organ",), "did you mean organs?"),
        (("SELECT * FROM `organ`",), "did you mean organs?"),
        (("SELECT volume FROM organs",), "did you mean volume_ml"),
        (("--anatomy", "lung_strat"), "did you mean lung_start"),
    ],
)
def test_names_that_are_alike_are_suggested(run: Path, words: tuple[str, ...], hint: str) -> None:
    result = call(run, *words)
    assert result.exit_code == 2
    assert hint in result.stderr


def test_every_format_has_the_same_rows(run: Path, tmp_path: Path) -> None:
    sql = "SELECT organ, volume_ml, absent FROM organs ORDER BY organ"
    wanted = json.loads(call(run, sql, "--format", "json").stdout)
    assert [row["organ"] for row in wanted] == ["aorta", "heart", "trachea"]
    assert wanted[2] == {"organ": "trachea", "volume_ml": None, "absent": True}
    rows = list(csv.DictReader(io.StringIO(call(run, sql, "--format", "csv").stdout)))
    assert [(row["organ"], row["volume_ml"]) for row in rows][2] == ("trachea", "")
    assert call(run, sql, "--out", tmp_path / "rows.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == wanted
    assert pq.read_table(io.BytesIO(call(run, sql, "--format", "parquet").stdout_bytes)).to_pylist() == wanted


def test_nested_values_stay_readable(run: Path) -> None:
    sql = "SELECT findingSite FROM quantitative_measurements ORDER BY findingSite.CodeMeaning LIMIT 1"
    assert "Aorta (15825003, SCT)" in call(run, sql).stdout
    (row,) = list(csv.DictReader(io.StringIO(call(run, sql, "--csv").stdout)))
    assert json.loads(row["findingSite"])["CodeMeaning"] == "Aorta"


def test_wide_rows_are_printed_one_column_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = call(run, "SELECT * FROM organs").stdout
    assert "--- 1 of 3" in text
    assert "review_reasons" in text
    print_table("few", ("a", "b"), [(1, "x" * 500)])
    assert "--- 1" not in capsys.readouterr().out, "one long text is folded"


def test_wrong_requests(run: Path, tmp_path: Path) -> None:
    for words in ((), (run,), (run, "SELECT 1", "--format", "table", "--out", tmp_path / "x.txt")):
        assert call(*words).exit_code == 2

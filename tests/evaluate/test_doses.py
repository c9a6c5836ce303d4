"""Tables of the doses of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.evaluate.doses import DOSE_TABLES, has_doses, write_dose_tables
from tests.support import encode_cases as cases
from tests.support.dose_cases import DoseCase


@pytest.fixture
def case(tmp_path: Path) -> DoseCase:
    return DoseCase(tmp_path)


def ask(paths: dict[str, Path], table: str, question: str) -> list[tuple[object, ...]]:
    return duckdb.execute(question.replace(table, f"read_parquet('{paths[table]}')")).fetchall()


def test_tables_answer_a_question_in_sql(case: DoseCase) -> None:
    case.give_dose()
    assert not has_doses(case.workspace)
    case.measure_all()
    paths = write_dose_tables(case.workspace)
    assert tuple(paths) == DOSE_TABLES
    question = "select product from dose_metrics where organ = 'heart' and metric = 'Mean[Gy]' order by 1"
    assert ask(paths, "dose_metrics", question) == [("expert",), (str(cases.NNUNET),)]
    curve = ask(paths, "dvh_curves", "select min(dose_gy), max(volume_share) from dvh_curves where organ = 'heart'")
    assert curve == [(0.0, 1.0)]
    second = "select count(*) from dose_metrics where abs(second_difference - (second_value - value)) > 1e-12"
    assert ask(paths, "dose_metrics", second) == [(0,)]


def test_an_expert_beside_a_network(case: DoseCase) -> None:
    """Both drew the heart: the network's is 4 columns of 0.7 mm further to the left, in a dose of 1 Gy per mm."""
    case.give_dose()
    case.measure_all()
    paths = write_dose_tables(case.workspace)
    rows = ask(paths, "dose_differences", "select organ, reference, difference_mean_gy from dose_differences")
    assert [row[:2] for row in rows] == [("heart", "expert")]
    assert rows[0][2] == pytest.approx(2.8, abs=0.02)
    question = "select difference_v20gy_percent, within_bounds_mean_gy from dose_differences"
    assert ask(paths, "dose_differences", question) == [(0.0, False)]


def test_findings_about_the_treatment_are_listed_once(case: DoseCase) -> None:
    case.give_dose()
    case.measure_all()
    paths = write_dose_tables(case.workspace)
    rows = ask(paths, "dose_checks", "select rule, product, count(*) from dose_checks group by 1, 2")
    assert rows == [("dose.prescription", None, 1)]


def test_a_series_without_a_dose_is_in_the_table(case: DoseCase) -> None:
    case.give_dose(DoseUnits="RELATIVE")
    case.measure_all()
    paths = write_dose_tables(case.workspace)
    rows = ask(paths, "dose_checks", "select rule, severity from dose_checks")
    assert rows == [("dose.none", "error")]
    assert ask(paths, "dose_metrics", "select count(*) from dose_metrics") == [(0,)]


@pytest.mark.long
def test_lung1_002_from_its_folder_to_an_answer_in_sql(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The reference was calculated by other code: SciPy on masks, and SimpleITK."""

    def ctenrich(*arguments: str) -> str:
        found = CliRunner().invoke(app, list(arguments))
        assert found.exit_code == 0, found.output
        return found.output

    catalog, treatments, out = (str(tmp_path / name) for name in ("cat.duckdb", "treatments.parquet", "run"))
    ctenrich("index", str(real_data("LUNG1-002-RT")), "--catalog", catalog)
    ctenrich("treatments", "make", f"folder:{catalog}", "--out", treatments)
    printed = ctenrich("run", treatments, "--out", out, "--segmenter", "expert", "--dose")
    assert "1 product with doses, 0 without" in printed
    (page,) = (tmp_path / "run" / "report" / "series").glob("*.html")
    shown = page.read_text("utf-8")
    for what in ("dose", "plan"):
        assert re.search(f"<li><bdi>{what} [0-9.]+ is tied to its \\w+( \\w+)? by frame of reference and study", shown)
    assert "23.21 to 24.07" in shown, "the bounds of the mean of the heart"
    file = str(tmp_path / "run" / "tables" / "dose_metrics.parquet")
    rows = duckdb.execute("select organ, value from read_parquet(?) where metric = 'Mean[Gy]'", [file]).fetchall()
    found = dict(rows)
    assert found["heart"] == pytest.approx(23.640, abs=0.01)
    assert found["lung_left"] == pytest.approx(5.598, abs=0.01)
    assert found["lung_right"] == pytest.approx(34.778, abs=0.01)
    text = "select distinct prescription_gy, prescription_source from read_parquet(?)"
    assert duckdb.execute(text, [file]).fetchall() == [(70.0, "beam_doses")]

"""One command from a folder of DICOM files to results: selection, run, report, resume."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import write_series
from typer.testing import CliRunner, Result

from ctenrich.cli.main import app
from ctenrich.phantom import Quirk
from ctenrich.runner.run import Run


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", *(str(a) for a in arguments), "--executor", "serial"])


def test_a_folder_ends_in_a_report_and_the_same_command_resumes(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 3, quirks=[Quirk.MISSING_SLICE])
    out = tmp_path / "out"
    first = run(tmp_path / "ct", "--out", out, "--segmenter", "expert")
    assert first.exit_code == 0, first.output
    assert "2 of 3 series selected; excluded: MISSING_SLICE 1" in first.output
    assert (out / "report" / "index.html").is_file()
    assert len(list(out.glob("series/*/expert/objects/seg.dcm"))) == 2
    again = run(tmp_path / "ct", "--out", out, "--segmenter", "expert")
    assert again.exit_code == 0
    assert "0 stages ran" in again.output


def test_the_cohort_of_a_folder_serves_the_long_way(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    assert run(tmp_path / "ct", "--out", tmp_path / "a", "--segmenter", "expert").exit_code == 0
    cohort = tmp_path / "a" / "input" / "cohort.parquet"
    assert run(cohort, "--out", tmp_path / "b", "--segmenter", "expert").exit_code == 0
    seg = [next((tmp_path / name).glob("series/*/expert/objects/seg.dcm")).read_bytes() for name in "ab"]
    assert seg[0] == seg[1]


def test_new_images_are_another_cohort(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    out = tmp_path / "out"
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert").exit_code == 0
    write_series(tmp_path / "ct", 2)
    changed = run(tmp_path / "ct", "--out", out, "--segmenter", "expert")
    assert changed.exit_code == 2
    assert "changed since" in changed.output
    kept = run(out / "cohort.parquet", "--out", out, "--segmenter", "expert")
    assert kept.exit_code == 0
    assert "0 stages ran" in kept.output


def test_nothing_is_read_before_a_product_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    refused = run(tmp_path / "ct", "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "NO_MODEL" in refused.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("segmenter", "missing"),
    [
        ("totalsegmentator:total", "Dataset291_TotalSegmentator_part1_organs_1559subj"),
        ("moose:clin_ct_organs", "Dataset123_Organs"),
        ("lungs=totalsegmentator:face", "is not published openly"),
    ],
)
def test_nothing_is_read_while_weights_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter: str, missing: str
) -> None:
    write_series(tmp_path / "ct", 1)
    for name in ("CTENRICH_MODELS", "TOTALSEG_WEIGHTS_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    refused = run(tmp_path / "ct", "--out", tmp_path / "out", "--segmenter", segmenter)
    assert refused.exit_code != 0
    assert "NOT_FOUND" in refused.output
    assert missing in refused.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_doses_alone_are_those_of_the_experts(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    out = tmp_path / "out"
    found = run(tmp_path / "ct", "--out", out, "--dose", "--dry-run")
    assert found.exit_code == 0, found.output
    assert "doses of the experts' structures" in found.stderr
    assert [str(one.product) for one in Run.open(out).config.products] == ["expert"]


def test_a_limit_runs_the_first_series_and_a_run_without_it_the_others(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 3)
    out = tmp_path / "out"
    limited = run(tmp_path / "ct", "--out", out, "--segmenter", "expert", "--limit", 2)
    assert limited.exit_code == 0
    series = pq.read_table(out / "tables" / "outcomes.parquet").to_pylist()
    states = sorted((row["state"], row["reason"]) for row in series if row["product"] == "expert")
    assert states == [("done", ""), ("done", ""), ("not_started_budget", "OVER_LIMIT")]
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert").exit_code == 0
    assert len(list(out.glob("series/*/expert/objects/seg.dcm"))) == 3


def test_a_limit_takes_nothing_back(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 2)
    out = tmp_path / "out"
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert").exit_code == 0
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert", "--limit", 1).exit_code == 0
    rows = pq.read_table(out / "tables" / "outcomes.parquet").to_pylist()
    assert {row["state"] for row in rows} == {"done"}

"""``cohort show``: the numbers of a cohort, its series, and the series that were excluded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cohorts import write_series
from typer.testing import CliRunner

from ctenrich.cli import cohorts
from ctenrich.cli.main import app
from ctenrich.phantom import Quirk
from ctenrich.select.cohort_file import read_cohort


def show(*words: object) -> str:
    done = CliRunner().invoke(app, ["cohort", "show", *(str(word) for word in words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_series_and_excluded_series_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "ct", 3, quirks=[Quirk.MISSING_SLICE])
    call = CliRunner().invoke
    catalog, cohort = tmp_path / "c.duckdb", tmp_path / "one.parquet"
    assert call(app, ["index", str(tmp_path / "ct"), "--catalog", str(catalog)]).exit_code == 0
    words = ["select", "select_ct_series", "--catalog", f"folder:{catalog}", "--out", str(cohort)]
    assert call(app, words).exit_code == 0
    text = show(cohort)
    entry, other = read_cohort(cohort).series
    assert "\n2 patients, 2 studies, 2 series, " in text
    assert "excluded: MISSING_SLICE 1" in text
    for shown in (entry.series_instance_uid, entry.patient_id, f" {entry.instance_count} ", other.series_instance_uid):
        assert shown in text
    excluded = show(tmp_path / "one.excluded.parquet")
    assert excluded.startswith("1 excluded series\n")
    assert "MISSING_SLICE" in excluded
    assert entry.series_instance_uid not in excluded
    monkeypatch.setattr(cohorts, "_LISTED", 1)
    assert "1 more: --all lists them" in show(cohort)
    assert "more: --all" not in show(cohort, "--all")

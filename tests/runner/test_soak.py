"""Kill -9 at random moments, and hundreds of series with faults: the totals agree and the bytes are the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.soak import kill_at_random, soak
from tests.support.cohorts import make_cohort


@pytest.mark.long
@pytest.mark.slowest
@pytest.mark.timeout(900)
def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    counts = kill_at_random(make_cohort(tmp_path, 6), tmp_path / "run", 15, random.Random(7))
    assert counts["killed"] == 15
    assert counts["finished"] >= 1
    assert counts.get("different", 0) == 0
    assert counts.get("partial files", 0) == 0
    assert counts.get("stages run twice", 0) == 0


@pytest.mark.long
@pytest.mark.slowest
@pytest.mark.timeout(900)
def test_three_hundred_series_with_faults_end_in_one_state_each(tmp_path: Path) -> None:
    totals = soak(tmp_path, 300, random.Random(3))
    assert sum(totals["states"].values()) == 2 * totals["selected"], "the series and its expert product"
    assert totals["states"]["done"] > 2 * 290
    assert totals["temporary files left"] == 0
    assert totals["memory growth"] < 1.3
    early, late = totals["file handles, early and late"]
    assert late <= early + 4

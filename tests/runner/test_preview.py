"""What a run would do, from its manifests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.cohorts import make_cohort

from ctenrich import steps
from ctenrich.ledger.reader import LedgerReader
from ctenrich.runner.preview import StagePreview, preview
from ctenrich.stages.table import STAGES


def test_preview_counts_what_a_raised_version_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = steps.start(make_cohort(tmp_path, 1), tmp_path / "run", segmenters=["expert"])
    names = ["fetch", "sort", "convert", "segment", "measure", "encode", "validate"]
    assert preview(run) == [StagePreview(name, 1, 0) for name in names]
    steps.fetch(run)
    steps.sort(run)
    assert preview(run)[:3] == [StagePreview("fetch", 0, 1), StagePreview("sort", 0, 1), StagePreview("convert", 1, 0)]
    assert steps.run_all(run).exit_code == 0
    assert preview(run) == [StagePreview(name, 0, 1) for name in names]
    raised = {**STAGES, "measure": replace(STAGES["measure"], version=STAGES["measure"].version + 1)}
    for module in ("preview", "job"):
        monkeypatch.setattr(f"ctenrich.runner.{module}.STAGES", raised)
    assert [p.stage for p in preview(run) if p.to_do] == ["measure", "encode", "validate"]
    with LedgerReader(run.ledger_path) as reader:
        before = len(reader.timings())
    assert steps.run_all(run).ran == 1, "the measurements are the same, so that no object changes"
    with LedgerReader(run.ledger_path) as reader:
        (again,) = reader.timings()[before:]
    assert (again.stage, again.attempt) == ("measure", 2)

"""Single stages on a run that has ended: outcomes stay true, and the exit code follows what was printed."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.cohorts import TINY, write_series
from typer.testing import CliRunner, Result

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import InputError
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.reasons import Reason
from ctenrich.records import Outcome, State
from ctenrich.runner.manifest import forget_stage
from ctenrich.settings import SegmentSettings, Settings

STAGES = ("fetch", "sort", "convert", "segment", "score", "measure", "encode", "validate")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One series is done, one has no contours, one has a slice that ends too early."""
    folder = tmp_path_factory.mktemp("stages")
    whole, bare, broken = write_series(folder / "dicom", 3, options=TINY)
    next((folder / "dicom" / "p1").rglob("RS*.dcm")).unlink()
    catalog = folder / "catalog.duckdb"
    steps.index([folder / "dicom"], catalog)
    steps.select("select_ct_series", f"folder:{catalog}", folder / "cohort.parquet")
    os.truncate(sorted((folder / "dicom" / "p2").rglob("*.dcm"))[5], 700)
    summary = steps.run_all(steps.start(folder / "cohort.parquet", folder / "run", segmenters=["expert"]))
    assert summary.exit_code == 1
    found = outcomes(folder / "run")
    assert {uid: found[uid, ""].state.value for uid in (whole, bare, broken)} == {
        whole: "done", bare: "skipped", broken: "failed",
    }  # fmt: skip
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def outcomes(run: Path) -> dict[tuple[str, str], Outcome]:
    with LedgerReader(run / "ledger.sqlite") as ledger:
        found = {(o.series_instance_uid, o.product): o for o in ledger.outcomes()}
        assert set(found) <= set(ledger.plan())
    return found


def ends(run: Path) -> dict[tuple[str, str], tuple[State, str, Reason | None]]:
    return {key: (o.state, o.stage, o.reason) for key, o in outcomes(run).items()}


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_of_a_finished_run_changes_no_outcome(run: Path, stage: str) -> None:
    before = ends(run)
    result = call(stage, run)
    assert ends(run) == before
    assert Counter(state.value for state, *_ in before.values()) == {"done": 2, "skipped": 3, "failed": 1}
    if stage == "fetch":
        assert (result.exit_code, "1 failed" in result.output) == (1, True), "the broken slice is read again"
    elif stage == "sort":
        text = "sort: 2 records, 1 not at this stage yet (series and products)\n"
        assert (result.exit_code, result.stdout) == (0, text)
    else:
        assert result.exit_code == 0, result.output
        assert "NOT_PREPARED" not in result.output


def test_what_never_reached_a_stage_is_counted(run: Path) -> None:
    result = call("measure", run)
    assert result.stdout == "measure: 1 record, 2 not at this stage yet (series and products)\n"


def test_a_run_that_was_only_prepared_has_no_outcome_after_a_stage_too_early(run: Path, tmp_path: Path) -> None:
    steps.start(run / "cohort.parquet", tmp_path / "new", segmenters=["expert"])
    result = call("validate", tmp_path / "new")
    assert result.exit_code == 1
    assert "NOT_PREPARED" in result.output
    assert outcomes(tmp_path / "new") == {}
    for wrong in ("measure", "validate", "status"):
        assert call(wrong, tmp_path / "nothing").exit_code == 2


def test_records_of_other_settings_do_not_count_as_done(run: Path) -> None:
    """Masks that were made with another step size are there; nothing may be measured from them."""
    before = ends(run)
    changed = replace(Settings(), segment=SegmentSettings(step_size=0.7))
    opened = steps.start(run / "cohort.parquet", run, segmenters=["expert"], settings=changed)
    with pytest.raises(InputError, match="NOT_PREPARED"):
        steps.measure(opened)
    assert ends(run) == before


def test_a_stage_that_changes_a_result_deletes_the_outcomes_made_from_the_old_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = steps.open_run(run)
    ((uid, product),) = steps.measure(opened)
    folder = opened.workspace.product_dir(uid, opened.config.products[0].product)
    forget_stage(folder, "measure")
    before = ends(run)
    steps.measure(opened)
    assert ends(run) == before, "the same measurements again"
    forget_stage(folder, "measure")
    monkeypatch.setattr("ctenrich.stages.table.measure_shape", _other_measurements)
    steps.measure(opened)
    assert set(before) - set(ends(run)) == {(uid, product), (uid, "")}
    steps.encode(opened)
    assert (uid, product) not in ends(run)


def _other_measurements(*arguments: object, **options: object) -> object:
    from ctenrich.shape.measure import measure_shape

    found = measure_shape(*arguments, **options)  # type: ignore[arg-type]
    return replace(found, segments=found.segments[:-1])


def test_a_failure_that_a_stage_has_mended_is_forgotten(run: Path) -> None:
    opened = steps.open_run(run)
    uid = next(uid for (uid, product), o in outcomes(run).items() if not product and o.state is State.DONE)
    with Ledger(run / "ledger.sqlite") as ledger:
        ledger.record(
            Outcome(uid, "expert", State.FAILED, "measure", Reason.WORKER_DIED, "signal"),
            Outcome(uid, "", State.FAILED, "measure", Reason.WORKER_DIED, "1 of 1 products failed"),
        )
    steps.measure(opened)
    assert not {(uid, "expert"), (uid, "")} & set(outcomes(run))
    assert steps.status(opened).states == (("failed", 1), ("no outcome yet", 2), ("skipped", 3))
    steps.validate(opened)
    assert ends(run)[uid, ""] == (State.DONE, "validate", None), "every stage before it is done"


def test_a_failed_validation_is_the_exit_code(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    opened = steps.open_run(run)
    uid = next(iter(steps.measure(opened)))[0]
    forget_stage(opened.workspace.product_dir(uid, opened.config.products[0].product), "validate")
    monkeypatch.setattr("ctenrich.stages.table.validate_objects", broken)
    result = call("validate", run)
    assert result.exit_code == 1, result.output
    assert ends(run)[uid, "expert"] == (State.FAILED, "validate", Reason.IO_ERROR)
    assert ends(run)[uid, ""][0] is State.FAILED

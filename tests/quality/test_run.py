"""``ctenrich quality`` on a run: a list, tables that can be queried, and facts of records and cohort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.bodypart_cases import make_scores
from tests.support.cohorts import TINY, make_cohort
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.masks import full_mask, masks_from_segments
from ctenrich.quality.run import cases_of_series
from ctenrich.records import Landmark, Landmarks, Product, ProductKind, SeriesFacts
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore

EXPERT = Product(ProductKind.EXPERT)
NETWORK = Product(ProductKind.NNUNET, "organs", "3d_fullres", ("0",), mirror=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A series stored from head to feet, with an expert and a network that exchanges the lungs and finds no heart."""
    folder = tmp_path_factory.mktemp("quality")
    options = replace(
        TINY, slices=40, slice_spacing=8.0, row_cosines=(-1.0, 0.0, 0.0), rows=80, columns=80, pixel_spacing=(5.0, 5.0)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        made = steps.start(make_cohort(folder, 1, options=options), folder / "run", segmenters=["expert"])
        for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.tables):
            stage(made)
        store = SeriesStore(made.workspace)
        (uid,) = store.series()
        expert = store.masks(uid, EXPERT)
        template = replace(expert, product=NETWORK, segments=(), sha256="", issues=(), agreement={"aorta": 0.4})
        sides = {"lung_left": "lung_right", "lung_right": "lung_left"}
        parts = [
            (
                s.number,
                sides.get(s.name, s.name),
                s.name,
                full_mask(expert, s.number, made.workspace) & (s.name != "heart"),
            )
            for s in expert.segments
        ]
        folder = store.masks_dir(uid, NETWORK)
        store.save(masks_from_segments(parts, template, folder, made.workspace), uid, NETWORK)
        yield made


def test_the_step_ranks_and_writes_what_the_command_shows(run: Run, tmp_path: Path) -> None:
    ranked = steps.quality(run)
    assert [case.product for case in ranked] == [str(NETWORK), "expert"]
    rows = steps.query(run, "SELECT product, score FROM quality_ranking ORDER BY rank").to_pylist()
    assert [(row["product"], row["score"]) for row in rows] == [(case.product, case.score) for case in ranked]
    own = tmp_path / "limits.toml"
    own.write_text("[components]\nisland_volume_ml = 1e9\n")
    assert not any(f.check == "islands" for case in steps.quality(run, limits=own) for f in case.findings)


def test_findings_are_kept_until_a_record_or_the_limits_change(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = steps.quality(run)
    with monkeypatch.context() as patch:
        patch.setattr("ctenrich.quality.run.run_checks", lambda case, limits: pytest.fail("checked again"))
        assert steps.quality(run) == first
    store = SeriesStore(run.workspace)
    (uid,) = store.series()
    masks = store.masks(uid, NETWORK)
    store.save(replace(masks, agreement={"aorta": 0.9}), uid, NETWORK)
    try:
        rules = [{f.check for case in ranked for f in case.findings} for ranked in (first, steps.quality(run))]
    finally:
        store.save(masks, uid, NETWORK)
    assert rules[0] - rules[1] == {"folds"}


def test_the_report_checks_by_the_limits_of_the_last_call(run: Run, tmp_path: Path) -> None:
    def folds() -> bool:
        return bool(steps.query(run, "SELECT 1 FROM quality WHERE rule = 'folds'").num_rows)

    steps.quality(run)
    assert folds()
    own = tmp_path / "limits.toml"
    own.write_text("[products]\nfolds = 0.1\n")
    steps.quality(run, limits=own)
    own.unlink()
    steps.report(run)
    assert not folds()
    steps.quality(run)
    steps.report(run)
    assert folds()


def test_masks_that_cannot_be_read_do_not_end_the_report(run: Run) -> None:
    store = SeriesStore(run.workspace)
    (uid,) = store.series()
    folder = store.masks_dir(uid, NETWORK)
    away = folder.rename(folder.with_name("away"))
    (kept := store.folder(uid) / "quality.json").unlink(missing_ok=True)
    try:
        assert steps.report(run).is_file()
        assert not kept.exists()
        rules = steps.query(run, "SELECT DISTINCT rule FROM quality").to_pylist()
        assert rules == [{"rule": "not_checked"}], "a product that was not checked does not look clean"
    finally:
        away.rename(folder)


def test_the_command_lists_the_gravest_first(run: Run) -> None:
    done = CliRunner().invoke(app, ["quality", str(run.root)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2 products of series checked, ")
    assert lines[1].startswith(f"1. {run.workspace.series_uids()[0]}, {NETWORK}: score ")
    assert any("the sides are exchanged" in line for line in lines)
    rows = steps.query(run, "SELECT rank, product, findings, reasons FROM quality_ranking ORDER BY rank").to_pylist()
    assert [(row["rank"], row["product"]) for row in rows] == [(1, str(NETWORK)), (2, "expert")]
    assert rows[0]["findings"] == len(rows[0]["reasons"]) > 2
    sql = "SELECT DISTINCT rule FROM quality WHERE product = $p AND severity <> 'note'"
    checks = {row["rule"] for row in steps.query(run, sql, {"p": str(NETWORK)}).to_pylist()}
    assert checks >= {"sides", "own_side", "empty", "folds", "disagreement"}
    short = CliRunner().invoke(app, ["quality", str(run.root), "--csv"])
    assert short.stdout.startswith(
        "SeriesInstanceUID,product,organ,rule,value,low,high,unit,severity,weight,slice_index,"
    )
    assert CliRunner().invoke(app, ["quality", str(run.root), "--limits", "none.toml"]).exit_code == 2


def test_masks_and_ct_are_turned_to_the_patient(run: Run) -> None:
    """Row cosines to the right: the slices run from head to feet and the columns from left to right."""
    (uid,) = run.workspace.series_uids()
    expert = next(c for c in cases_of_series(run.workspace, uid, SeriesFacts()) if c.product == "expert")
    assert expert.upside_down
    assert expert.organs["lung_left"].centre[2] > expert.organs["lung_right"].centre[2]
    assert expert.organs["trachea"].centre[0] > expert.organs["heart"].centre[0]
    assert expert.organs["spinal_cord"].centre[1] > expert.organs["heart"].centre[1]
    lung = expert.organs["lung_left"]
    assert expert.ct is not None
    assert float(np.median(expert.ct[lung.box][lung.mask])) < -600
    assert expert.spacing == pytest.approx((8.0, 5.0, 5.0))


def test_scores_and_landmarks_are_counted_from_the_feet(run: Run) -> None:
    (uid,) = run.workspace.series_uids()
    store = SeriesStore(run.workspace)
    scores = make_scores([float(90 - k) for k in range(40)], 8.0, feet_to_head=False)
    marks = Landmarks(
        scores.product,
        uid,
        (Landmark("lung_start", 44.1, 30, "1.2", 240.0), Landmark("lung_end", 75.4, absent_reason="x")),
    )
    try:
        store.save(replace(scores, series_instance_uid=uid), uid, scores.product)
        store.save(marks, uid, scores.product)
        case = next(iter(cases_of_series(run.workspace, uid, SeriesFacts(body_part_examined="CHEST"))))
        assert case.scores[0] == scores.cleaned[-1]
        assert case.lung_landmarks == {"lung_start": 39 * 8.0 - 240.0}
        assert case.body_part_examined == "CHEST"
    finally:
        for path in store.folder(uid, scores.product).glob("*.json"):
            path.unlink()


def test_a_series_that_is_not_sorted_has_no_case(tmp_path: Path, run: Run) -> None:
    assert list(cases_of_series(run.workspace, "1.2.3", SeriesFacts())) == []

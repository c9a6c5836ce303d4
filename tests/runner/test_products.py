"""The products of a run: what is asked for later is added, and nothing that was not asked for is planned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort, result_hashes
from tests.support.runner_cases import EXPERT, NETWORK, SCORER
from tests.support.small_models import write_v2

from ctenrich import steps
from ctenrich.errors import ModelError, UsageError
from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.reasons import Reason
from ctenrich.records import Landmarks, Outcome, Product, ProductKind, State
from ctenrich.runner.manifest import forget_stage
from ctenrich.runner.products import find_scorer, request_products
from ctenrich.runner.run import Run
from ctenrich.settings import RunSettings, SegmentSettings, Settings


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("products")
    run = steps.start(make_cohort(folder, 1), folder / "run", bodypart="demo-bodypart", allow_demo=True)
    assert steps.run_all(run).exit_code == 0
    return folder / "run"


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "run"))


def products(run: Run) -> list[str]:
    return [str(p.product) for p in run.config.products]


def table(run: Path, name: str) -> list[dict[str, object]]:
    return pq.read_table(run / "tables" / f"{name}.parquet").to_pylist()


def test_a_later_run_adds_its_products_and_keeps_the_others(run: Path) -> None:
    before = {name: digest for name, digest in result_hashes(run).items() if name.endswith(".dcm")}
    more = steps.start(run / "cohort.parquet", run, segmenters=["expert"])
    assert products(more) == ["bodypart:demo-bodypart", "expert"]
    summary = steps.run_all(more)
    assert summary.exit_code == 0
    assert summary.states["done"] == 3
    assert {row["product"] for row in table(run, "outcomes")} == {"", "bodypart:demo-bodypart", "expert"}
    after = result_hashes(run)
    assert {name: after[name] for name in before} == before
    assert {str(row["product"]) for row in table(run, "objects")} == {"bodypart:demo-bodypart", "expert"}
    assert steps.run_all(steps.start(run / "cohort.parquet", run)).ran == 0, "nothing new is asked for: it is resumed"
    again = steps.start(run / "cohort.parquet", run, bodypart="demo-bodypart", allow_demo=True)
    assert products(again) == ["expert", "bodypart:demo-bodypart"]


def test_a_specification_that_the_run_has_keeps_the_axes_of_its_product(tmp_path: Path) -> None:
    """0.1.0 fed LPS to a folder that states nothing, and to TotalSegmentator's; the same command resumes that run."""
    for name in ("m", "Dataset297_TotalSegmentator_total_3mm_1559subj"):
        folder = write_v2(tmp_path / name, stated="")
        spec = f"nnunet:{folder}"
        old = Product(ProductKind.NNUNET, name, "3d_fullres", ("0",))
        kept = (RequestedProduct(spec, old, "0" * 64),)
        again = request_products((spec,), "none", settings=Settings(), allow_demo=False, kept=kept)
        assert [r.product for r in again] == [old]
        more = request_products((f"{spec}:axes=RAS",), "none", settings=Settings(), allow_demo=False, kept=kept)
        assert [r.product.axes for r in more] == ["", "RAS"]
        if name == "m":
            with pytest.raises(ModelError) as caught:
                request_products((spec,), "none", settings=Settings(), allow_demo=False)
            assert caught.value.reason is Reason.UNKNOWN_AXES


def test_two_models_of_one_product_name_do_not_replace_each_other(tmp_path: Path) -> None:
    """Folders of one name in two places: the key of a product has the name of the folder alone."""
    cohort = make_cohort(tmp_path / "cohort", 1)
    first = write_v2(tmp_path / "a" / "m")
    second = write_v2(tmp_path / "b" / "m", axes=(1,))
    copy = Path(shutil.copytree(first, tmp_path / "c" / "m"))
    out = tmp_path / "run"
    assert products(steps.start(cohort, out, segmenters=[f"nnunet:{first}"])) == ["nnunet:m:3d_fullres:0:mirror"]
    again = steps.start(cohort, out, segmenters=[f"nnunet:{copy}"])
    assert products(again) == ["nnunet:m:3d_fullres:0:mirror"]
    with pytest.raises(UsageError, match="different models with one product name, nnunet:m:3d_fullres:0:mirror"):
        steps.start(cohort, out, segmenters=[f"nnunet:{second}"])
    with pytest.raises(UsageError, match="different models with one product name"):
        steps.start(cohort, tmp_path / "new", segmenters=[f"nnunet:{first}", f"nnunet:{second}"])


def test_what_was_not_asked_for_is_nowhere(run: Path) -> None:
    opened = steps.open_run(run)
    with LedgerReader(opened.ledger_path) as ledger:
        assert {key.product for key in ledger.plan()} == {"", "bodypart:demo-bodypart"}
    assert {row["product"] for row in table(run, "outcomes")} == {"", "bodypart:demo-bodypart"}


def test_a_run_of_0_1_0_that_plans_what_was_not_asked_for_is_read_without_it(tmp_path: Path) -> None:
    run = steps.start(make_cohort(tmp_path, 1), tmp_path / "run", segmenters=["expert"])
    steps.run_all(run)
    uid = run.cohort.series[0].series_instance_uid
    config = json.loads((run.root / "run.json").read_text())
    none = {**config["products"][0], "spec": "none", "missing": "NO_MODEL"}
    none["product"] = {**none["product"], "kind": "bodypart", "model": "none"}
    config["products"].append(none)
    (run.root / "run.json").write_text(json.dumps(config))
    with Ledger(run.ledger_path) as ledger:
        ledger.set_plan([(uid, ""), (uid, "expert"), (uid, "bodypart:none")])
        ledger.record(Outcome(uid, "bodypart:none", State.SKIPPED, "plan", Reason.NO_MODEL, "no model"))
    old = steps.open_run(run.root)
    assert products(old) == ["expert"]
    assert steps.status(old).line.startswith("2 of 2 series and products have an outcome")
    steps.tables(old)
    assert {row["product"] for row in table(run.root, "outcomes")} == {"", "expert"}
    assert steps.run_all(old).ran == 0
    assert steps.retry(old, []) == 0


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:x", "cuda:99", "", "mps"])
def test_an_unknown_device_is_refused_for_every_product(device: str, run: Path, tmp_path: Path) -> None:
    cohort = run / "cohort.parquet"
    for settings in (Settings(segment=SegmentSettings(device=device)), Settings(run=RunSettings(devices=(device,)))):
        with pytest.raises(UsageError, match="BAD_SETTINGS"):
            steps.start(cohort, tmp_path / "new", segmenters=["expert"], settings=settings)
    assert not (tmp_path / "new").exists()


def test_the_crop_uses_the_scores_of_the_product_that_was_asked_for_last() -> None:
    other = SCORER.__class__("a", Product(ProductKind.BODYPART, "a"))
    assert find_scorer((EXPERT, NETWORK)) is None
    assert find_scorer((SCORER, other, EXPERT)) == other.product
    assert find_scorer((other, EXPERT, SCORER)) == SCORER.product


def _no_landmarks(scores: object) -> Landmarks:
    from dataclasses import replace

    from ctenrich.bodypart.landmarks import find_landmarks

    found = find_landmarks(scores)  # type: ignore[arg-type]
    items = (
        replace(i, slice_index=None, sop_instance_uid=None, position=None, absent_reason="not covered")
        for i in found.items
    )
    return replace(found, items=tuple(items))


def test_landmarks_without_a_landmark_are_no_object_but_a_reason(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = steps.open_run(run)
    uid, product = opened.cohort.series[0].series_instance_uid, opened.config.products[0].product
    folder = opened.workspace.product_dir(uid, product)
    assert _kinds(folder) == ["landmarks_sr", "regions_sr"]
    forget_stage(folder, "measure")
    monkeypatch.setattr("ctenrich.stages.table.find_landmarks", _no_landmarks)
    summary = steps.run_all(opened)
    assert (summary.exit_code, summary.states["done"]) == (0, 2)
    assert _kinds(folder) == ["regions_sr"], "that of the first pass is deleted"
    (ended,) = [row for row in table(run, "outcomes") if row["product"]]
    assert (ended["state"], ended["reason"]) == ("done", "NO_LANDMARKS")
    proofs = {str(row["check"]): row["passed"] for row in table(run, "proofs")}
    assert proofs["landmarks_sr.left_out"] is True
    assert "landmarks_sr.exists" not in proofs
    assert {row["kind"] for row in table(run, "objects")} == {"regions_sr"}
    missing = steps.query(opened, "series_without_landmark", {"landmarks": ["lung_start"]}).to_pylist()
    assert [(row["SeriesInstanceUID"], row["absent_reason"]) for row in missing] == [(uid, "not covered")]
    assert steps.run_all(opened).ran == 0
    steps.validate(opened)
    assert [row["reason"] for row in table(run, "outcomes") if row["product"]] == ["NO_LANDMARKS"]


def _kinds(folder: Path) -> Sequence[str]:
    return sorted(p.stem for p in (folder / "objects").glob("*.dcm"))

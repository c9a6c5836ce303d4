"""Products of a run against an expert, another product, files of others and products of other runs."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.evaluate import mask_sources
from ctenrich.evaluate.evaluation import RunSource, compare_sources, evaluate_run, strata_of
from ctenrich.geometry import lps_to_ras
from ctenrich.masks import full_mask, masks_from_segments
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind, SegmentMasks, SortedSeries, Volume
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from tests.support.cohorts import make_cohort

EXPERT = Product(ProductKind.EXPERT)
SMALLER, MOVED = (
    Product(ProductKind.NNUNET, name, "3d_fullres", ("0",), mirror=False) for name in ("smaller", "moved")
)


def add_product(store: SeriesStore, uid: str, product: Product, change: dict[str, int]) -> None:
    """A product made of the expert's masks, each moved by a number of columns; other organs are left out."""
    expert = store.masks(uid, EXPERT)
    parts = [
        (s.number, s.name, s.name, np.roll(full_mask(expert, s.number, store.workspace), change[s.name], axis=2))
        for s in expert.segments
        if s.name in change
    ]
    template = replace(expert, product=product, segments=(), sha256="", issues=(), algorithm_type="AUTOMATIC")
    folder = store.masks_dir(uid, product)
    store.save(masks_from_segments(parts, template, folder, store.workspace), uid, product)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Three series with an expert; one product is one column off in the heart, another two columns and without lung."""
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        made = steps.start(make_cohort(folder, 3), folder / "run", segmenters=["expert"])
        for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
            stage(made)
        store = SeriesStore(made.workspace)
        for uid in store.series():
            add_product(store, uid, SMALLER, {"heart": 1, "lung_left": 0})
            add_product(store, uid, MOVED, {"heart": 2})
        yield made


@pytest.fixture
def source(run: Run) -> RunSource:
    return RunSource(workspace=run.workspace, settings=run.config.settings, cohort=run.cohort)


class _Counts(Progress):
    """Counts the records in memory when a series has been compared."""

    def __init__(self, *kinds: type) -> None:
        self._kinds = kinds
        self.most = 0

    def advance(self, task: str, amount: float = 1) -> None:
        gc.collect()
        self.most = max(self.most, sum(isinstance(found, self._kinds) for found in gc.get_objects()))


def test_records_of_a_few_series_are_in_memory(source: RunSource, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = evaluate_run(source)
    monkeypatch.setattr(mask_sources, "_SERIES_KEPT", 1)
    monkeypatch.setattr(mask_sources, "_MASKS_KEPT", 1)
    before, seen = _Counts(SortedSeries, SegmentMasks), _Counts(SortedSeries, SegmentMasks)
    before.advance("")
    found = evaluate_run(source, progress=seen)
    assert found == usual
    assert seen.most - before.most <= 3, "a run of three series with three products has twelve"


def test_every_product_against_the_expert(source: RunSource) -> None:
    found = evaluate_run(source)
    rows = {
        (m.product, m.segment): m for m in found.masks if m.series_instance_uid == found.masks[0].series_instance_uid
    }
    assert set(rows) == {(str(SMALLER), "heart"), (str(SMALLER), "lung_left"), (str(MOVED), "heart")}
    assert rows[str(SMALLER), "lung_left"].metrics.dice == 1
    assert rows[str(SMALLER), "heart"].metrics.centroid_distance == pytest.approx(10.0), "one column of 10 mm"
    assert rows[str(MOVED), "heart"].metrics.centroid_distance == pytest.approx(20.0)
    assert rows[str(MOVED), "heart"].patient_id == source.cohort.series[0].patient_id
    (note,) = (n for n in found.notes if str(MOVED) in n)
    assert note.startswith(f"{MOVED}: has no mask of a structure of the reference (3 series): ")
    assert "lung_left" in note
    only = evaluate_run(source, products=[str(MOVED)])
    assert {m.product for m in only.masks} == {str(MOVED)}


def test_files_of_others_are_references(source: RunSource, tmp_path: Path) -> None:
    """The structure sets of the cohort, a NIfTI image per organ with turned axes, and a label map with its names."""
    drawn = evaluate_run(source, reference=str(source.workspace.root.parent / "dicom"), products=["expert"])
    assert {m.metrics.dice for m in drawn.masks if m.metrics.dice is not None} == {1.0}
    assert len({m.reference for m in drawn.masks}) == 3
    store = SeriesStore(source.workspace)
    uid = store.series()[2]
    expert, volume = store.masks(uid, EXPERT), store.load(Volume, uid)
    affine = np.array(lps_to_ras(np.array(volume.affine_lps)))
    numbers = {s.name: s.number for s in expert.segments}
    heart = full_mask(expert, numbers["heart"], source.workspace).transpose(2, 1, 0)
    turned = affine.copy()
    turned[:, 0], turned[:3, 3] = -turned[:, 0], (affine @ [heart.shape[0] - 1, 0, 0, 1])[:3]
    folder = tmp_path / uid
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(heart[::-1].astype(np.uint8), turned), folder / "003_Heart.nii.gz")
    (mask,) = evaluate_run(source, reference=str(tmp_path), products=["expert"]).masks
    assert (mask.segment, mask.series_instance_uid, mask.metrics.dice) == ("heart", uid, 1.0)
    whole = (folder / "003_Heart.nii.gz").read_bytes()
    (folder / "003_Heart.nii.gz").write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    damaged = evaluate_run(source, reference=str(tmp_path), products=["expert"])
    assert ([m.metrics for m in damaged.masks], [r.reason for r in damaged.refused]) == ([], [Reason.DECODE_ERROR])
    lung = full_mask(expert, numbers["lung_left"], source.workspace).transpose(2, 1, 0)
    labels = np.where(heart, 1, np.where(lung, 2, 0)).astype(np.uint8)
    (folder / "003_Heart.nii.gz").unlink()
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "prediction.nii.gz")
    unnamed = evaluate_run(source, reference=str(tmp_path), products=["expert"])
    assert [(r.reason, r.name.endswith("prediction.nii.gz")) for r in unnamed.refused] == [
        (Reason.UNMAPPED_LABEL, True)
    ]
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "heart": 1, "left lung": 2}}')
    found = evaluate_run(source, reference=str(tmp_path), products=["expert"])
    assert {m.segment: m.metrics.dice == 1.0 for m in found.masks} == {"heart": True, "lung_left": True}


def test_images_of_another_grid_are_refused(source: RunSource, tmp_path: Path) -> None:
    other = np.ones((4, 4, 4), np.uint8)
    nibabel.save(nibabel.Nifti1Image(other, np.eye(4)), tmp_path / "heart.nii.gz")
    (tmp_path / "broken.nii").write_bytes(b"nothing")
    uid = source.workspace.series_uids()[0]
    (tmp_path / uid).mkdir()
    nibabel.save(nibabel.Nifti1Image(other, np.eye(4)), tmp_path / uid / "heart.nii.gz")
    found = evaluate_run(source, reference=str(tmp_path))
    assert found.masks == ()
    messages = {(Path(r.name).relative_to(tmp_path).as_posix(), r.reason.value): r.message for r in found.refused}
    assert messages == {
        ("broken.nii", "DECODE_ERROR"): "the NIfTI image cannot be read",
        ("heart.nii.gz", "NO_REFERENCE"): "its grid is not that of any series of the run",
        (f"{uid}/heart.nii.gz", "NO_REFERENCE"): "its grid is not that of the series in its path",
    }
    (tmp_path / "empty").mkdir()
    for reference in ("empty", "nowhere"):
        with pytest.raises(UsageError) as caught:
            evaluate_run(source, reference=str(tmp_path / reference))
        assert caught.value.reason is Reason.NOT_FOUND


def test_empty_masks_and_masks_without_a_common_slice(run: Run, source: RunSource) -> None:
    store = SeriesStore(run.workspace)
    uid = store.series()[0]
    before = store.load(SegmentMasks, uid, MOVED)
    low, high, none = (np.zeros(before.shape, bool) for _ in range(3))
    low[2:5, 10:20, 10:20], high[8:10, 10:20, 10:20] = True, True
    try:
        for product, heart in ((SMALLER, low), (MOVED, high)):
            template = replace(store.masks(uid, product), segments=(), sha256="")
            parts = [
                (1, "heart", "heart", heart),
                (2, "aorta", "aorta", none),
                (3, "liver", "liver", low & (product == MOVED)),
            ]
            store.save(masks_from_segments(parts, template, store.masks_dir(uid, product), run.workspace), uid, product)
        found = evaluate_run(source, reference=str(SMALLER), products=[str(MOVED)])
        rows = {m.segment: m for m in found.masks if m.series_instance_uid == uid}
        assert {name: (m.metrics.dice, m.note) for name, m in rows.items()} == {
            "heart": (0.0, "the masks have no slice in common"),
            "aorta": (None, "both masks are empty"),
            "liver": (0.0, "the reference's mask is empty"),
        }
    finally:
        add_product(store, uid, SMALLER, {"heart": 1, "lung_left": 0})
        add_product(store, uid, MOVED, {"heart": 2})


def test_two_experts_for_one_organ(run: Run, source: RunSource) -> None:
    store = SeriesStore(run.workspace)
    uid = store.series()[0]
    before = store.masks(uid, EXPERT)
    heart = next(s for s in before.segments if s.name == "heart")
    try:
        store.save(replace(before, segments=(heart, replace(heart, number=9, name="heart#2"))), uid, EXPERT)
        found = [m for m in evaluate_run(source, products=[str(MOVED)]).masks if m.series_instance_uid == uid]
        assert [(m.segment, m.note) for m in found] == [
            (name, "the reference has 2 masks of this structure; each is compared") for name in ("heart", "heart#2")
        ]
    finally:
        store.save(before, uid, EXPERT)


def test_runs_without_an_expert_and_without_a_common_series(run: Run, source: RunSource, tmp_path: Path) -> None:
    """Products of another run are named by it; without an expert the first product is the reference."""
    other = tmp_path / "second"
    shutil.copytree(run.root, other)
    for folder in other.glob("series/*/expert"):
        shutil.rmtree(folder)
    one = replace(source, workspace=replace_root(source, other))
    found = compare_sources([source, one])
    assert {m.product for m in found.masks} == {
        f"{name}/{product}" for name in ("run", "second") for product in (SMALLER, MOVED)
    }
    alone = compare_sources([one])
    assert f"no series has masks of an expert: {MOVED} is the reference" in alone.notes
    assert {(m.reference, m.product) for m in alone.masks} == {(str(MOVED), str(SMALLER))}
    for folder in list(other.glob("series/*"))[:1]:
        shutil.rmtree(folder)
    partly = compare_sources([source, one])
    assert "1 series with masks are only in some of the runs, among them in run" in partly.notes
    for folder in other.glob("series/*"):
        shutil.rmtree(folder)
    with pytest.raises(UsageError, match=r"no series with masks in common \(run: 3, second: 0\)"):
        compare_sources([source, one])
    with pytest.raises(UsageError, match="no run is named"):
        compare_sources([run.root.parent / "dicom"])


def replace_root(source: RunSource, root: Path) -> object:
    return type(source.workspace)(root)


def test_groups_of_series(run: Run) -> None:
    first, second, third, *_ = run.cohort.series
    entries = (
        replace(first, facts=replace(first.facts, patient_sex="F", slice_thickness=1.25, manufacturer="A")),
        replace(second, facts=replace(second.facts, patient_sex=None, slice_thickness=5.0, manufacturer=None)),
        replace(third, facts=replace(third.facts, slice_thickness=3.0, manufacturer_model_name="X", manufacturer="A")),
    )
    found = strata_of(entries, ["sex", "thickness", "scanner"])
    assert list(found["sex"].values())[:2] == ["sex: F", "sex: not stated"]
    assert [v.partition(": ")[2] for v in found["thickness"].values()] == [
        "up to 1.25 mm",
        "over 3.75 mm",
        "2.5 to 3.75 mm",
    ]
    assert found["scanner"][third.series_instance_uid] == "scanner: A X"
    with pytest.raises(UsageError, match="'age'"):
        strata_of(run.cohort.series, ["age"])


def test_the_commands_write_tables_that_can_be_queried(run: Run, tmp_path: Path) -> None:
    steps.tables(run)
    done = CliRunner().invoke(app, ["evaluate", str(run.root), "--by", "sex"])
    assert done.exit_code == 0, done.output
    assert "heart, dice: " in done.stdout
    sql = (
        "SELECT product, count(*) n, median(dice) d FROM evaluation WHERE segment = 'heart' GROUP BY product ORDER BY d"
    )
    first, second = steps.query(run, sql).to_pylist()
    assert (first["product"], first["n"], second["n"], second["product"]) == (str(MOVED), 3, 3, str(SMALLER))
    sql = "SELECT stratum, finding, series, first_better + second_better wins FROM evaluation_differences"
    rows = steps.query(run, f"{sql} WHERE segment = 'heart' AND metric = 'centroid_distance'").to_pylist()
    assert {"stratum": "all", "finding": "not tested", "series": 3, "wins": 3} in rows
    assert any(row["stratum"].startswith("sex: ") for row in rows)
    again = CliRunner().invoke(app, ["evaluate", str(run.root), "--reference", str(MOVED), "--csv"])
    assert again.exit_code == 0, again.output
    assert again.stdout.startswith("SeriesInstanceUID,StudyInstanceUID,PatientID,segment,reference,product,dice,")
    assert f",{MOVED},expert," in again.stdout
    assert ",expert,nnunet:smaller" not in again.stdout
    kept = pq.read_table(run.workspace.tables / "evaluation.parquet")
    assert set(kept["reference"].to_pylist()) == {"expert", str(MOVED)}, "rows of another reference stay"


def test_the_step_gives_records_and_writes_tables(run: Run) -> None:
    found = steps.evaluate(run, by=["sex"])
    assert {mask.reference for mask in found.evaluation.masks} == {"expert"}
    assert {d.first for d in found.comparison.differences} <= {str(SMALLER), str(MOVED)}
    rows = steps.query(run, "SELECT DISTINCT product FROM evaluation WHERE reference = 'expert'").to_pylist()
    assert {row["product"] for row in rows} == {str(SMALLER), str(MOVED)} == {m.product for m in found.evaluation.masks}
    only = steps.evaluate(run, reference=str(MOVED), products=[str(SMALLER)])
    assert {(m.reference, m.product) for m in only.evaluation.masks} == {(str(MOVED), str(SMALLER))}
    with pytest.raises(UsageError):
        steps.evaluate(run, by=["weather"])


def test_the_commands_refuse_wrong_requests(run: Run, tmp_path: Path) -> None:
    for words, text in (
        (["evaluate", str(run.root), "--metric", "dise"], "did you mean dice?"),
        (["evaluate", str(run.root), "--reference", "expart"], "did you mean expert?"),
        (["compare", f"{run.root}/nnunet:nothing"], "no series of the run has masks of 'nnunet:nothing'"),
        (["compare", str(tmp_path / "none")], "error: "),
        (["compare", str(run.root), "--by", "age"], "use scanner, kernel, thickness, sex"),
    ):
        done = CliRunner().invoke(app, words)
        assert (done.exit_code, text in done.stderr) == (2, True), (words, done.stderr)
    (tmp_path / "heart.nii").write_bytes(b"nothing")
    done = CliRunner().invoke(app, ["compare", str(run.root), str(tmp_path / "heart.nii"), "--csv"])
    assert (done.exit_code, "heart.nii: DECODE_ERROR" in done.stderr) == (1, True)


def test_a_csv_of_metrics_is_compared_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"1.{n},Heart,{model},{0.9 - 0.05 * (model == 'b') + n * 1e-3}" for n in range(9) for model in "ab"]
    path.write_text("\n".join(["SeriesInstanceUID,structure_name,model,dice_score", *lines]) + "\n")
    done = CliRunner().invoke(app, ["compare", str(path), "--published", str(path)])
    assert done.exit_code == 0, done.output
    assert "a is higher than b by 0.05 in the median, which is better" in done.stdout
    assert "Better in 9 : 0, 0 equal, rank-biserial correlation 1.00." in done.stdout
    assert "a (published)" in done.stdout

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.evaluate.products import compare_products
from ctenrich.masks import masks_from_label_map
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Product, ProductKind, SegmentMasks, Severity
from ctenrich.workspace import Workspace, load_record, save_record
from tests.support.cohorts import make_cohort
from tests.support.report_runs import NETWORK, body, make_run, uid_of

EXPERT = Product(ProductKind.EXPERT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The first of two series has contours too: the heart one voxel towards the patient's left, no aorta at all."""
    workspace = make_run(tmp_path_factory.mktemp("compare") / "run", 2)
    uid = uid_of(0)
    _, labels = body(0)
    moved = np.where(np.roll(labels, 1, axis=2) == 1, 1, 0).astype(np.uint8)
    folder = workspace.product_dir(uid, EXPERT)
    network = load_record(workspace.product_dir(uid, NETWORK) / "masks.json", SegmentMasks)
    template = replace(network, product=EXPERT, segments=(), label_map_path=None, sha256="", model=None)
    names = [(1, "heart", "Heart"), (2, "aorta", "Aorta")]
    save_record(
        folder / "masks.json", masks_from_label_map(moved, names, template, folder / "masks" / "m.npy", workspace)
    )
    return workspace


def test_numbers_worked_out_by_hand(run: Workspace) -> None:
    heart, aorta = sorted(compare_products(run), key=lambda o: o.structure_name, reverse=True)
    mask = body(0)[1] == 1
    shifted = np.roll(mask, 1, axis=2)
    assert heart.dice_score == pytest.approx(2 * (mask & shifted).sum() / (mask.sum() + shifted.sum()))
    assert 0.8 < (heart.dice_score or 0) < 1
    assert heart.hausdorff_distance == 2.5, "one voxel of 2.5 mm"
    assert (heart.model, heart.reference, heart.series_instance_uid) == (str(NETWORK), "expert", uid_of(0))
    assert heart.study_instance_uid == f"{uid_of(0)}.9"
    assert (aorta.dice_score, aorta.hausdorff_distance) == (0.0, None), "the reference is empty"


def test_only_the_model_that_was_asked_for(run: Workspace) -> None:
    with pytest.raises(UsageError, match="no series of the run has masks of 'nnunet:test-organ'") as caught:
        compare_products(run, model="nnunet:test-organ")
    assert (caught.value.reason, caught.value.exit_code) == (Reason.NOT_FOUND, 2)
    assert caught.value.hint.endswith(f"there are expert, {NETWORK}")
    assert len(compare_products(run, model=str(NETWORK))) == 2
    swapped = compare_products(run, reference=str(NETWORK))
    assert {o.model for o in swapped} == {"expert"}


def test_nobody_to_compare_with(run: Workspace) -> None:
    with pytest.raises(UsageError) as caught:
        compare_products(run, reference="nobody")
    assert caught.value.reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    ("command", "more"),
    [("evaluate-segmentations", ()), ("evaluate-landmarks", ())],
)
def test_nothing_to_compare_is_said(tmp_path: Path, command: str, more: tuple[str, ...]) -> None:
    made = steps.start(make_cohort(tmp_path, 1), tmp_path / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
        stage(made)
    done = CliRunner().invoke(app, [command, str(tmp_path / "run"), *more])
    assert done.exit_code == 0, done.output
    assert "nothing to compare" in done.stderr


def test_the_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate-segmentations", str(tmp_path / "none")])
    assert done.exit_code != 0


def test_lung_landmarks_against_the_masks_of_lungs(run: Workspace) -> None:
    """Lungs planted from slice 7 (z -4 mm) to slice 33 (204 mm); landmarks lie elsewhere."""
    from ctenrich.evaluate.lungs import compare_with_masks, lung_extent
    from ctenrich.records import SortedSeries

    uid = uid_of(1)
    labels = np.zeros((40, 64, 80), np.uint8)
    labels[7:20, 30, 30], labels[15:34, 30, 50] = 1, 2
    folder = run.product_dir(uid, EXPERT)
    network = load_record(run.product_dir(uid, NETWORK) / "masks.json", SegmentMasks)
    template = replace(network, product=EXPERT, segments=(), label_map_path=None, sha256="", model=None)
    names = [(1, "lung_left", "L"), (2, "lung_right", "R")]
    masks = masks_from_label_map(labels, names, template, folder / "masks" / "m.npy", run)
    save_record(folder / "masks.json", masks)
    series = load_record(run.series_dir(uid) / "sorted.json", SortedSeries)
    assert lung_extent(masks, series, run) == {"lung_start": -60.0 + 8 * 7, "lung_end": -60.0 + 8 * 33}
    ends = compare_with_masks(run)
    assert {(e.series_instance_uid, e.landmark) for e in ends} == {(uid, "lung_start"), (uid, "lung_end")}
    for end in ends:
        assert end.error is not None
        assert end.error == (end.slice_z or 0) - end.expert_z
        assert end.error % 8 == 0
    with pytest.raises(UsageError):
        compare_with_masks(run, reference="nobody")


def test_every_roi_of_one_name_is_compared_and_a_damaged_one_is_not(run: Workspace) -> None:
    uid = uid_of(0)
    path = run.product_dir(uid, EXPERT) / "masks.json"
    before = load_record(path, SegmentMasks)
    heart, aorta = before.segments
    try:
        save_record(path, replace(before, segments=(heart, replace(aorta, name="heart#2"))))
        assert {o.structure_name: o.dice_score == 0 for o in compare_products(run)} == {"heart": False, "heart#2": True}
        damage = Issue("contours.unreadable", Severity.ERROR, "heart", "1 of 9 contours cannot be read")
        save_record(path, replace(before, issues=(damage,)))
        assert [o.structure_name for o in compare_products(run)] == ["aorta"]
    finally:
        save_record(path, before)

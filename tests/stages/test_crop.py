"""A network that sees a part of the series: masks stay on the whole grid, and the record says what was seen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.bodypart_cases import make_scores
from tests.support.cohorts import make_cohort
from tests.support.fake_stages import context_of

from ctenrich import steps
from ctenrich.bodypart.crop_hint import crop_hint
from ctenrich.errors import UsageError
from ctenrich.geometry import apply_affine, as_matrix4
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.phantom import PhantomOptions, as_records, make_phantom
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind, SegmentMasks, SliceScores, SortedSeries, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.stages.crop import crop_ends, segment_cropped
from ctenrich.workspace import Workspace, load_array, load_record, save_record

CROP = Settings(segment=SegmentSettings(device="cpu", crop="lung_start..Th8"))
WHOLE = Settings(segment=SegmentSettings(device="cpu"))
COMMON = {"segmenters": ["nnunet:demo-organs:3d_fullres:mirror=off"], "bodypart": "demo-bodypart", "allow_demo": True}


def hand_made(volume: Volume, workspace: Workspace, *, reverse: bool = False) -> SliceScores:
    """Scores that rise from 25 to 90 over the series, saved where the score stage saves them."""
    count = volume.shape[0]
    line: list[float | None] = [25 + 65 * k / (count - 1) for k in range(count)]
    uid = volume.series_instance_uid
    scores = replace(make_scores(line, volume.spacing[0], reverse=reverse), series_instance_uid=uid)
    save_record(workspace.product_dir(uid, scores.product) / "scores.json", scores)
    return scores


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Volume, SortedSeries]:
    workspace = Workspace(tmp_path_factory.mktemp("phantom"))
    made = make_phantom(PhantomOptions(seed=21, rows=96, columns=96, pixel_spacing=(4.0, 4.0), slices=70))
    volume, series = as_records(made, workspace)
    return workspace, volume, series


class Recorder:
    """A segmenter that keeps the volumes and arrays that it is given."""

    def __init__(self, real: Any, workspace: Workspace) -> None:
        self.real, self.workspace = real, workspace
        self.seen: list[tuple[Volume, NDArray[Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def segment(self, inputs: Any, *args: Any, **options: Any) -> Any:
        volume = inputs["CT"]
        path = self.workspace.resolve(volume.series_instance_uid, volume.array_path)
        self.seen.append((volume, np.array(load_array(path))))
        return self.real.segment(inputs, *args, **options)


def segment(
    parts: tuple[Workspace, Volume, SortedSeries], settings: Settings, recorder: Recorder | None = None
) -> SegmentMasks:
    workspace, volume, series = parts
    segmenter: Any = recorder or open_nnunet("demo-organs", mirror=False, settings=settings)
    if settings.segment.crop:
        context = replace(context_of(workspace.root), settings=settings)
        uid = volume.series_instance_uid
        scores = SeriesStore(workspace).find(SliceScores, uid, Product(ProductKind.BODYPART, "hand"))
        return segment_cropped(segmenter, volume, series, scores, context=context)
    return segmenter.segment({"CT": volume}, series, settings=settings, workspace=workspace)


def labels(parts: tuple[Workspace, Volume, SortedSeries], masks: SegmentMasks) -> NDArray[Any]:
    assert masks.label_map_path is not None
    return np.array(load_array(parts[0].resolve(masks.series_instance_uid, masks.label_map_path)))


def test_masks_lie_where_they_lie_without_the_crop(phantom: tuple[Workspace, Volume, SortedSeries]) -> None:
    workspace, volume, _ = phantom
    whole = labels(phantom, segment(phantom, WHOLE))
    scores = hand_made(volume, workspace)
    box = crop_hint(scores, volume.shape, low="lung_start", high="Th8")
    assert box is not None
    assert (box.k0 > 0, box.k1 < volume.shape[0]) == (True, True)
    masks = segment(phantom, CROP)
    cropped = labels(phantom, masks)
    assert cropped.shape == volume.shape == masks.shape
    assert not cropped[: box.k0].any()
    assert not cropped[box.k1 :].any()
    inner = slice(box.k0 + 5, box.k1 - 5)
    assert np.count_nonzero(whole[inner]) > 1000
    assert np.mean(cropped[inner] == whole[inner]) > 0.99
    assert [i.rule for i in masks.issues] == ["cropped"]
    assert f"slices {box.k0} to {box.k1 - 1} of {volume.shape[0]}" in masks.issues[0].message
    for one in masks.segments:
        assert one.voxels == np.count_nonzero(cropped == one.number)
        if one.box is not None:
            b = one.box
            assert np.count_nonzero(cropped[b.k0 : b.k1, b.j0 : b.j1, b.i0 : b.i1] == one.number) == one.voxels
    assert not list(workspace.root.rglob("crop.npy"))


@pytest.mark.parametrize("step", [(0.4, -0.9, 2.8), (0.0, 0.0, -3.0)])
def test_the_cropped_volume_keeps_its_position_in_the_patient(
    phantom: tuple[Workspace, Volume, SortedSeries], step: tuple[float, float, float]
) -> None:
    """Voxel (i, j, k) of the cropped volume is voxel (i, j, k + first slice) of the whole one, in mm too."""
    workspace, whole, series = phantom
    affine = np.array(whole.affine_lps)
    affine[:3, 2] = step
    volume = replace(whole, affine_lps=as_matrix4(affine))
    box = crop_hint(hand_made(volume, workspace), volume.shape, low="lung_start", high="Th8")
    assert box is not None
    assert box.k0 > 0
    recorder = Recorder(open_nnunet("demo-organs", mirror=False, settings=CROP), workspace)
    segment((workspace, volume, series), CROP, recorder)
    ((cut, array),) = recorder.seen
    assert cut.shape == array.shape == (box.k1 - box.k0, *volume.shape[1:])
    full = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    np.testing.assert_array_equal(array, full[box.k0 : box.k1])
    corners = np.array([(0, 0, 0), (5, 0, 0), (0, 7, 0), (3, 4, 6)], float)
    there = apply_affine(volume.affine_lps, corners + np.array((0, 0, box.k0)))
    np.testing.assert_allclose(apply_affine(cut.affine_lps, corners), there, atol=1e-9)
    np.testing.assert_allclose(np.array(cut.affine_lps)[:3, 3] - affine[:3, 3], box.k0 * np.array(step), atol=1e-9)


def test_without_places_the_network_sees_everything(phantom: tuple[Workspace, Volume, SortedSeries]) -> None:
    workspace, volume, _ = phantom
    whole = labels(phantom, segment(phantom, WHOLE))
    scores = hand_made(volume, workspace, reverse=True)
    for _ in range(2):
        masks = segment(phantom, CROP)
        assert [i.rule for i in masks.issues] == ["not_cropped"]
        np.testing.assert_array_equal(labels(phantom, masks), whole)
        shutil.rmtree(workspace.product_dir(volume.series_instance_uid, scores.product), ignore_errors=True)


def test_ends_by_name_in_any_order() -> None:
    assert crop_ends("lung_start..lung_end") == crop_ends(" lung_end .. lung_start ") == ("lung_start", "lung_end")
    for text in ("lungs", "lung_start", "lung_start..", "lung_start..lung_start", "a..b", "L5..L4..L3"):
        with pytest.raises(UsageError) as caught:
            crop_ends(text)
        assert caught.value.reason is Reason.BAD_SETTINGS


@pytest.mark.parametrize(
    ("segment", "bodypart"),
    [
        (SegmentSettings(crop="lung_start..lung_end"), "none"),
        (SegmentSettings(crop="here..there"), "demo-bodypart"),
        (SegmentSettings(crop="lung_start..lung_end", probabilities=True), "demo-bodypart"),
    ],
)
def test_a_crop_that_cannot_be_made_is_refused_before_work_starts(
    segment: SegmentSettings, bodypart: str, tmp_path: Path
) -> None:
    cohort = make_cohort(tmp_path, 1)
    with pytest.raises(UsageError) as caught:
        steps.start(cohort, tmp_path / "run", bodypart=bodypart, settings=Settings(segment=segment), allow_demo=True)
    assert caught.value.reason is Reason.BAD_SETTINGS


@pytest.mark.parametrize("executor", ["serial", pytest.param("processes", marks=pytest.mark.long)])
def test_a_run_scores_before_it_segments(executor: str, tmp_path: Path) -> None:
    from ctenrich.runner.executors import ExecutorName

    cohort = make_cohort(tmp_path, 2, options=PhantomOptions(rows=64, columns=64, pixel_spacing=(6.0, 6.0), slices=60))
    run = steps.start(cohort, tmp_path / "run", settings=CROP, **COMMON)  # type: ignore[arg-type]
    summary = steps.run_all(run, executor=ExecutorName(executor))
    assert summary.exit_code == 0, summary
    for uid in run.workspace.series_uids():
        folder = next(run.workspace.series_dir(uid).glob("nnunet__*"))
        masks = load_record(folder / "masks.json", SegmentMasks)
        assert [i.rule for i in masks.issues] == ["cropped"]
    assert steps.run_all(steps.open_run(tmp_path / "run")).ran == 0

"""Body part regression from a model folder and a volume to slice scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.bodypart_cases import SERIES, affine, body, make_series, make_volume, read_ct
from tests.support.bodypart_golden import volumes

from ctenrich.bodypart.images import ImageAxes
from ctenrich.bodypart.network import BodyPartNetwork
from ctenrich.bodypart.scorer import BodyPartScorer, load_bodypart_model, open_bodypart
from ctenrich.errors import InputError, ModelError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import SliceScores
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "bodypart.json").read_text())
VOLUMES = sorted(volumes())
WIDTHS = (4, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8)
AXIAL = {"row": (1, 0, 0), "column": (0, 1, 0)}
SETTINGS = Settings(segment=SegmentSettings(device="cpu"))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A narrow network with seeded weights, in the public model's format."""
    folder = tmp_path / "narrow"
    folder.mkdir()
    torch.manual_seed(5)
    torch.save({k: v.half() for k, v in BodyPartNetwork(WIDTHS, 8).state_dict().items()}, folder / "model.pt")
    marks = {"pelvis_start": 0.0, "L5": 25.532, "lung_start": 44.143, "lung_end": 75.389, "eyes_end": 100.0}
    table = {
        "original": {k: {"mean": v / 25 - 2.4, "std": 0.1} for k, v in marks.items()},
        "transformed": {k: {"mean": v, "std": 2.5} for k, v in marks.items()},
    }
    settings = {
        "settings": {"start-landmark": "pelvis_start", "end-landmark": "eyes_end"},
        "lookuptable_train_val": table,
        "slope_mean": 0.118,
        "lower_quantile_tangential_slope": -0.037,
        "upper_quantile_tangential_slope": 0.25,
    }
    (folder / "inference-settings.json").write_text(json.dumps(settings))
    return folder


# ---------------------------------------------------------------- models


def test_a_model_folder(model_folder: Path) -> None:
    scorer = open_bodypart(str(model_folder), settings=SETTINGS)
    assert str(scorer.product) == "bodypart:narrow"
    assert not scorer.info.demo
    assert len(scorer.info.sha256) == 64
    assert list(scorer.model.lookup_table) == ["pelvis_start", "L5", "lung_start", "lung_end", "eyes_end"]


def test_safetensors_are_the_same_model(model_folder: Path) -> None:
    from safetensors.torch import save_file

    before = load_bodypart_model(model_folder)[1].sha256
    weights = torch.load(model_folder / "model.pt", weights_only=True)
    (model_folder / "model.pt").unlink()
    save_file(weights, model_folder / "model.safetensors")
    assert load_bodypart_model(model_folder)[1].sha256 == before


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("inference-settings.json", None, Reason.BAD_MODEL),
        ("inference-settings.json", "[1", Reason.BAD_MODEL),
        ("inference-settings.json", "[]", Reason.BAD_MODEL),
        ("inference-settings.json", "{}", Reason.BAD_MODEL),
        ("config.json", '{"image axes": "upside down"}', Reason.BAD_MODEL),
        ("model.pt", None, Reason.BAD_MODEL),
        ("model.pt", "no weights", Reason.BAD_MODEL),
    ],
)
def test_a_broken_model_folder(model_folder: Path, file: str, content: str | None, reason: Reason) -> None:
    if content is None:
        (model_folder / file).unlink()
    else:
        (model_folder / file).write_text(content)
    with pytest.raises(ModelError) as caught:
        open_bodypart(str(model_folder), settings=SETTINGS)
    assert caught.value.reason is reason


@pytest.mark.parametrize("value", [0, -0.1, None, "much", float("nan")])
def test_a_scale_that_makes_no_sense(model_folder: Path, value: object) -> None:
    path = model_folder / "inference-settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"slope_mean": value}))
    with pytest.raises(ModelError):
        open_bodypart(str(model_folder), settings=SETTINGS)


def test_weights_that_run_code_are_refused(model_folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("never",)

    torch.save({"fc7.weight": Evil()}, model_folder / "model.pt")
    with pytest.raises(ModelError) as caught:
        open_bodypart(str(model_folder), settings=SETTINGS)
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


def test_image_axes_are_part_of_the_model(model_folder: Path) -> None:
    plain = load_bodypart_model(model_folder)[1]
    (model_folder / "config.json").write_text('{"transform_params": {"Flip": {"p": 0.5}}}')
    trained = load_bodypart_model(model_folder)[1]
    assert (plain.axes, trained.axes) == (ImageAxes.VIEWER, ImageAxes.NIFTI)
    assert plain.sha256 != trained.sha256


# ---------------------------------------------------------------- scoring


def test_scores_are_saved_by_slice(model_folder: Path, workspace: Workspace) -> None:
    scorer = open_bodypart(str(model_folder), settings=SETTINGS)
    array = body(11)
    array[3] = -1000
    volume = make_volume(workspace, array, affine(**AXIAL, spacing=(3, 4.0, 4.0)))  # type: ignore[arg-type]
    series = make_series(11, 3.0)
    scores = scorer.score(volume, series, settings=SETTINGS, workspace=workspace)
    store = SeriesStore(workspace)
    store.save(scores, SERIES, scorer.product)
    assert store.scores(SERIES, scorer.product) == scores
    assert scores.sop_instance_uids == series.sop_instance_uids
    assert scores.z == tuple(3.0 * k for k in range(11))
    assert [k for k, v in enumerate(scores.cleaned) if v is None] == [3]
    assert all(v is not None for v in scores.raw)
    assert "empty_slices" in {issue.rule for issue in scores.issues}


def test_twice_the_same_whatever_the_batch(model_folder: Path, workspace: Workspace) -> None:
    volume = make_volume(workspace, body(11), affine(**AXIAL, spacing=(3, 4.0, 4.0)))  # type: ignore[arg-type]
    series = make_series(11, 3.0)

    def run(batch: int) -> SliceScores:
        settings = Settings(segment=SegmentSettings(device="cpu", batch_size=batch))
        scores = open_bodypart(str(model_folder), settings=settings).score(
            volume, series, settings=settings, workspace=workspace
        )
        return replace(scores, timings={})

    assert run(4) == run(4)
    np.testing.assert_allclose(run(3).raw, run(11).raw, atol=2e-6)  # type: ignore[arg-type]


def test_the_same_bytes_whatever_the_number_of_threads(model_folder: Path, workspace: Workspace) -> None:
    volume = make_volume(workspace, body(11), affine(**AXIAL, spacing=(3, 4.0, 4.0)))  # type: ignore[arg-type]
    series = make_series(11, 3.0)
    before = torch.get_num_threads()

    def run(threads: int) -> SliceScores:
        settings = Settings(segment=SegmentSettings(device="cpu", threads=threads))
        scorer = open_bodypart(str(model_folder), settings=settings)
        return replace(scorer.score(volume, series, settings=settings, workspace=workspace), timings={})

    assert run(1) == run(2) == run(3)
    assert torch.get_num_threads() == before


def test_a_flipped_stack_scores_the_same_instances(model_folder: Path, workspace: Workspace) -> None:
    """The same patient with slices, rows or both the other way round: each SOP Instance UID keeps its score."""
    scorer = open_bodypart(str(model_folder), settings=SETTINGS)
    array = body(12)

    def by_uid(stored: Any, row: Any, uids: tuple[str, ...]) -> dict[str, tuple[float | None, float | None]]:
        volume = make_volume(workspace, stored, affine(row=row, column=(0, 1, 0), spacing=(3, 4.0, 4.0)))
        series = make_series(12, 3.0, row=row, uids=uids)
        scores = scorer.score(volume, series, settings=SETTINGS, workspace=workspace)
        return dict(zip(scores.sop_instance_uids, zip(scores.raw, scores.cleaned, strict=True), strict=True))

    uids = tuple(f"2.25.{900 + k}" for k in range(12))
    up = by_uid(array, (1, 0, 0), uids)
    down = by_uid(np.ascontiguousarray(array[::-1, :, ::-1]), (-1, 0, 0), uids[::-1])
    assert up.keys() == down.keys()
    for uid, values in up.items():
        assert down[uid] == pytest.approx(values, abs=2e-6)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("air", Reason.TOO_FEW_SCORES),
        ("one slice", Reason.TOO_FEW_SCORES),
        ("zero spacing", Reason.ZERO_SPACING),
        ("zero pixel", Reason.ZERO_SPACING),
        ("other slices", Reason.NOT_PREPARED),
        ("nan", Reason.HU_RANGE),
        ("coronal", Reason.NOT_AXIAL),
    ],
)
def test_bad_input_has_a_reason(model_folder: Path, workspace: Workspace, case: str, reason: Reason) -> None:
    scorer = open_bodypart(str(model_folder), settings=SETTINGS)
    array: Any = np.full((9, 64, 72), -1000, np.int16) if case == "air" else body(1 if case == "one slice" else 9)
    if case == "nan":
        array = array.astype(np.float32)
        array[4, 5, 6] = np.nan
    column = (0, 0, -1) if case == "coronal" else (0, 1, 0)
    pixel = 0.0 if case == "zero pixel" else 4.0
    spacing = (0.0 if case == "zero spacing" else 3.0, pixel, pixel)
    volume = make_volume(workspace, array, affine(row=(1, 0, 0), column=column, spacing=spacing))  # type: ignore[arg-type]
    series = make_series(8 if case == "other slices" else len(array), 3.0)
    with pytest.raises(InputError) as caught:
        scorer.score(volume, series, settings=SETTINGS, workspace=workspace)
    assert caught.value.reason is reason
    assert not (workspace.product_dir(SERIES, scorer.product) / "scores.json").exists()


@pytest.mark.parametrize("count", [2, 29])
def test_short_series_have_a_defined_result(model_folder: Path, workspace: Workspace, count: int) -> None:
    scorer = open_bodypart(str(model_folder), settings=SETTINGS)
    volume = make_volume(workspace, body(count), affine(**AXIAL, spacing=(5, 4.0, 4.0)))  # type: ignore[arg-type]
    scores = scorer.score(volume, make_series(count, 5.0), settings=SETTINGS, workspace=workspace)
    assert len(scores.cleaned) == count
    assert scores.valid_z_spacing is False  # an untrained network: no slope of a body
    assert {"invalid_z_spacing"} <= {issue.rule for issue in scores.issues}


@pytest.mark.parametrize("change", [{"device": "tpu"}, {"device": "cuda:99"}, {"precision": "fp8"}])
def test_devices_and_precisions_are_checked(model_folder: Path, change: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        open_bodypart(str(model_folder), settings=Settings(segment=SegmentSettings(**change)))  # type: ignore[arg-type]
    assert caught.value.reason is Reason.BAD_SETTINGS


# ---------------------------------------------------------------- real data


@pytest.mark.data
def test_scores_rise_from_feet_to_head_on_a_real_ct(
    real_data: Callable[[str], Path], shared_model: Callable[[str], Path], workspace: Workspace
) -> None:
    """Every third slice of LUNG1-005 (all of them in the long tests)."""
    volume, series = read_ct(real_data("LUNG1-005"), workspace, every=3)
    scorer: BodyPartScorer = open_bodypart(str(shared_model("bpr-lung1-demo")), settings=SETTINGS)
    scores = scorer.score(volume, series, settings=SETTINGS, workspace=workspace)
    values = np.array(scores.cleaned, float)
    assert np.corrcoef(np.arange(len(values)), values)[0, 1] > 0.99
    assert (scores.valid_z_spacing, scores.reverse_z_ordering) == (True, False)
    assert 40 < values[0] < 50
    assert 75 < values[-1] < 85


@pytest.mark.data
def test_an_imported_model_is_opened_by_name(
    shared_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip with a folder inside, as the public model comes."""
    from ctenrich.models.library import import_model

    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    archive = shutil.make_archive(
        str(tmp_path / "some_bpr_model"), "zip", shared_model("bpr-lung1-demo").parent, "bpr-lung1-demo"
    )
    import_model(Path(archive), name="mine")
    scorer = open_bodypart("mine", settings=SETTINGS)
    assert scorer.info.sha256 == load_bodypart_model(shared_model("bpr-lung1-demo"))[1].sha256
    assert str(scorer.product) == "bodypart:mine"


def test_the_demo_model_opens(tmp_path: Path) -> None:
    scorer = open_bodypart("demo-bodypart", settings=SETTINGS)
    assert scorer.info.demo
    assert scorer.info.licence == "Apache-2.0"
    copy = shutil.copytree(load_folder(), tmp_path / "copy")
    assert load_bodypart_model(copy)[1].sha256 == scorer.info.sha256


def load_folder() -> Path:
    from ctenrich.inference.registry import resolve_model

    return resolve_model("demo-bodypart").folder

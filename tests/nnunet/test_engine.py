"""Our engine gives what nnunetv2's predictor gives in single precision, for every kind of plan; and its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.float32_predictor import Float32Predictor
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.small_models import CT, smooth_volume, v2_dataset, v2_plans, write_v2

from ctenrich.errors import InputError, ModelError, UsageError
from ctenrich.inference.registry import resolve_model
from ctenrich.models.parity import compare_labels
from ctenrich.nnunet import sliding_window
from ctenrich.nnunet.engine import Engine
from ctenrich.nnunet.plans import NetworkPlan, Resampling
from ctenrich.nnunet.preprocess import Axes, canonical_axes, nonzero_box
from ctenrich.nnunet.reference import ReferenceEngine
from ctenrich.nnunet.resample import new_shape, resample_image, separate_axis
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.nnunet.store import load_weights, prepare
from ctenrich.nnunet.unet import clean_names, expected_shapes, forward, library_network, load_into_library
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings, Settings

FAST = SegmentSettings(threads=1)
CPU = torch.device("cpu")


def engines(folder: Path, mirror: bool = True, settings: SegmentSettings = FAST) -> tuple[Engine, ReferenceEngine]:
    stored = prepare(resolve_model(str(folder)))
    name = stored.configurations[0]
    weights = {fold: load_weights(stored, name, fold) for fold in stored.folds(name)}
    source = stored.meta["configurations"][name]
    reference = ReferenceEngine(stored.plan(name), source, weights, settings, mirror, Float32Predictor)
    return Engine(stored.plan(name), weights, settings, mirror), reference


def agree(folder: Path, array: NDArray[Any], spacing: tuple[float, ...], mirror: bool = True) -> None:
    ours, theirs = (e.label(array, spacing).labels for e in engines(folder, mirror))
    assert len(np.unique(theirs)) > 2, "the test network says too little"
    assert int((ours != theirs).sum()) <= max(1, theirs.size // 1_000_000)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[float, float, float]]] = {
    "together": ({}, {}, (3.0, 1.3, 1.2)),
    "separate z": ({}, {}, (5.0, 1.1, 1.2)),
    "target anisotropic": ({"configuration": {"spacing": [7.0, 2.0, 2.0]}}, {}, (2.0, 1.3, 1.2)),
    "other axis apart": ({}, {}, (1.0, 1.2, 4.5)),
    "no resampling": ({}, {}, (4.0, 2.0, 2.0)),
    "transposed": ({"transpose_forward": [1, 2, 0], "transpose_backward": [2, 0, 1]}, {}, (1.5, 3.0, 1.4)),
    "z score": ({"configuration": {"normalization_schemes": ["ZScoreNormalization"]}}, {}, (3.0, 1.3, 1.2)),
    "regions": (
        {},
        {
            "labels": {"background": 0, "heart": [1, 2, 3], "aorta": [2, 3], "trachea": 3},
            "regions_class_order": [1, 2, 3],
        },
        (3.0, 1.3, 1.2),
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_labels_equal_the_reference(tmp_path: Path, case: str) -> None:
    change, dataset, spacing = CASES[case]
    write_v2(tmp_path / "m", v2_plans(**change), v2_dataset(**dataset))
    array = smooth_volume((18, 40, 36), seed=1)
    array[:, :3] = 0
    array[-1:] = 0
    agree(tmp_path / "m", array, spacing)


def test_two_dimensions_folds_and_no_mirrors(tmp_path: Path) -> None:
    write_v2(tmp_path / "flat", v2_plans(2), folds=("0", "1"))
    agree(tmp_path / "flat", smooth_volume((6, 40, 44), 2), (3.0, 1.2, 1.3))
    write_v2(tmp_path / "deep", folds=("0", "1", "2"))
    agree(tmp_path / "deep", smooth_volume((18, 40, 36), 2), (3.0, 1.2, 1.3), mirror=False)


def test_volume_smaller_than_the_patch(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    agree(tmp_path / "m", smooth_volume((3, 20, 22), 4), (4.0, 2.0, 2.0))


def test_batch_threads_and_repetition_do_not_matter(tmp_path: Path) -> None:
    write_v2(tmp_path / "m", folds=("0", "1"))
    array = smooth_volume((18, 40, 36), 5)
    answers = [
        engines(tmp_path / "m", settings=SegmentSettings(batch_size=batch, threads=threads))[0].label(
            array, (3.0, 1.2, 1.3)
        )
        for batch, threads in ((1, 1), (1, 1), (1, 2), (3, 1), (16, 2))
    ]
    assert all(int((a.labels != answers[0].labels).sum()) <= 1 for a in answers)
    assert np.array_equal(answers[0].labels, answers[1].labels)
    assert np.array_equal(answers[0].labels, answers[2].labels)
    assert set(answers[0].agreement) == {1, 2, 3}
    assert all(0 <= v <= 1 for v in answers[0].agreement.values())


def test_memory_ladder_gives_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_v2(tmp_path / "m")
    array = smooth_volume((18, 40, 36), 6)
    engine, _ = engines(tmp_path / "m", settings=SegmentSettings(batch_size=8, threads=1))
    wanted = engine.label(array, (3.0, 1.2, 1.3)).labels
    real = sliding_window._forward_batch
    sizes: list[int] = []

    def short(limit: int) -> Any:
        def run(plan: Any, network: Any, data: Any, jobs: Any, precision: str) -> Any:
            sizes.append(len(jobs))
            if len(jobs) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return real(plan, network, data, jobs, precision)

        return run

    for limit in (4, 1):
        sizes.clear()
        monkeypatch.setattr(sliding_window, "_forward_batch", short(limit))
        assert int((engine.label(array, (3.0, 1.2, 1.3)).labels != wanted).sum()) <= 1
        assert max(sizes) == 8
        assert sizes[-1] <= limit
    monkeypatch.setattr(sliding_window, "_forward_batch", short(0))
    with pytest.raises(InputError) as caught:
        engine.label(array, (3.0, 1.2, 1.3))
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_other_errors_are_not_taken_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_v2(tmp_path / "m")
    engine, _ = engines(tmp_path / "m")

    def broken(*_: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(sliding_window, "_forward_batch", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine.label(smooth_volume((4, 20, 20)), (4.0, 2.0, 2.0))


@pytest.mark.parametrize("value", [50, -1024, 3071])
def test_constant_volumes_equal_the_reference(tmp_path: Path, value: int) -> None:
    write_v2(tmp_path / "m")
    array = np.full((6, 20, 22), value, np.int16)
    ours, theirs = (engine.label(array, (4.0, 2.0, 2.0)).labels for engine in engines(tmp_path / "m"))
    np.testing.assert_array_equal(ours, theirs)


def test_a_volume_of_zeros_is_not_cropped_away(tmp_path: Path) -> None:
    """There is nothing to crop to: the network sees every voxel, each with the normalised value of 0 HU."""
    write_v2(tmp_path / "m")
    engine, _ = engines(tmp_path / "m", mirror=False)
    shape = (8, 32, 32)
    labels = engine.label(np.zeros(shape, np.int16), (4.0, 2.0, 2.0)).labels
    normalised = torch.full((1, *shape), (0.0 - CT["mean"]) / CT["std"])
    (network,) = engine.networks.values()
    scores = sliding_window.predict(engine.plan, network, normalised, engine.window)
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())


def test_bf16_stays_near(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    array = smooth_volume((18, 40, 36), 6)
    exact = engines(tmp_path / "m")[0].label(array, (3.0, 1.2, 1.3)).labels
    rough = engines(tmp_path / "m", settings=SegmentSettings(precision="bf16", threads=1))[0].label(
        array, (3.0, 1.2, 1.3)
    )
    assert 0 < float((rough.labels == exact).mean()) >= 0.97


@pytest.mark.parametrize("change", [{"device": "tpu"}, {"device": "cuda:99"}, {"precision": "fp8"}])
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_devices_and_precisions_are_checked(tmp_path: Path, change: dict[str, str], engine: str) -> None:
    write_v2(tmp_path / "m")
    wanted = Settings(segment=SegmentSettings(engine=engine, threads=1, **change))  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        open_nnunet(str(tmp_path / "m"), settings=wanted)
    assert caught.value.reason is Reason.BAD_SETTINGS


def test_residual_encoders_run(tmp_path: Path) -> None:
    plans = v2_plans()
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    kwargs = architecture["arch_kwargs"]
    kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    write_v2(tmp_path / "m", plans)
    agree(tmp_path / "m", smooth_volume((10, 30, 30), 8), (4.0, 1.5, 1.5))


def test_cascades_equal_the_reference(tmp_path: Path) -> None:
    """Both stages, the second with the labels of the first as channels, put together from nnunetv2's own functions."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    low, full = v2_plans(configuration={"spacing": [6.0, 4.0, 4.0]}), v2_plans()
    low["configurations"] = {"3d_lowres": low["configurations"]["3d_fullres"]}
    second = full["configurations"]["3d_fullres"] | {"previous_stage": "3d_lowres"}
    full["configurations"] = {"3d_cascade_fullres": second}
    write_v2(tmp_path / "m" / "low", low)
    write_v2(tmp_path / "m" / "full", full)
    array, spacing = smooth_volume((18, 40, 36), 3), (3.0, 1.3, 1.2)
    array[:, :4] = 0
    segmenter = open_nnunet(str(tmp_path / "m"), configuration="3d_cascade_fullres", settings=Settings(segment=FAST))
    ours = segmenter.label(array, Axes((0, 1, 2), ()), spacing).labels

    stored = prepare(resolve_model(str(tmp_path / "m")))
    stages = {}
    for name in ("3d_lowres", "3d_cascade_fullres"):
        weights = {"0": load_weights(stored, name, "0")}
        source = stored.meta["configurations"][name]
        stages[name] = ReferenceEngine(stored.plan(name), source, weights, FAST, True, Float32Predictor)
    first = stages["3d_lowres"].label(array, spacing).labels
    last = stages["3d_cascade_fullres"]
    data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        array[None].astype(np.float32), first[None].astype(np.int16), {"spacing": list(spacing)},
        last.plans, last.configuration, last.dataset,
    )  # fmt: skip
    channels = convert_labelmap_to_one_hot(seg[0], [1, 2, 3], data.dtype)
    logits = last.predictor.predict_logits_from_preprocessed_data(torch.from_numpy(np.vstack((data, channels))))
    theirs = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, last.plans, last.configuration, last.predictor.label_manager, properties
    )
    assert len(np.unique(theirs)) > 2
    assert int((ours != theirs).sum()) <= 1


def test_published_network_has_its_size() -> None:
    """Task055's network: 31.17 million parameters; built from the same plan by v2's rule it would have fewer."""
    pools = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    kernels = ((1, 3, 3), *[(3, 3, 3)] * 5)
    features = (32, 64, 128, 256, 320, 320)
    counts = []
    for decoder in (kernels[::-1][:5], kernels[-2::-1]):
        plan = NetworkPlan(
            3, 1, 5, features, kernels, ((1, 1, 1), *pools), (2,) * 6, (2,) * 5, decoder, up_bias=False, head_bias=False
        )
        counts.append(sum(int(np.prod(s)) for s in expected_shapes(plan).values()) / 1e6)
    assert abs(counts[0] - 31.17) < 0.01
    assert counts[1] < counts[0] - 0.04


def test_comparison_of_label_maps() -> None:
    a = np.zeros((20, 20, 20), np.uint8)
    a[5:15, 5:15, 5:15] = 1
    b = a.copy()
    b[14, 5:15, 5:15] = 0
    b[0, 0, 0] = 2
    one, two, none = compare_labels(b, a, (2.0, 1.0, 1.0), {1: "heart", 2: "aorta", 3: "trachea"})
    assert one.different == 100
    assert one.dice == pytest.approx(2 * 900 / 1900)
    assert one.volume == pytest.approx(-0.1)
    assert one.shapes >= 0.1
    assert 0.5 < one.nsd < 1
    assert not two.same_presence
    assert none.dice == 1.0


@pytest.mark.parametrize("dims", [2, 3])
def test_forward_pass_equals_the_library(tmp_path: Path, dims: int) -> None:
    write_v2(tmp_path / "m", v2_plans(dims))
    stored = prepare(resolve_model(str(tmp_path / "m")))
    plan = stored.plan(stored.configurations[0])
    weights = load_weights(stored, stored.configurations[0], "0")
    library = library_network(plan.network)
    load_into_library(library, weights)
    assert all(torch.equal(clean_names(library.state_dict())[n], t) for n, t in weights.items())
    x = torch.randn(2, 1, *plan.patch, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert float((forward(plan.network, weights, x) - library(x)).abs().max()) < 5e-5
        exact = forward(plan.network, {n: t.double() for n, t in weights.items()}, x.double())
        assert float((exact - library.double()(x.double())).abs().max()) < 1e-10


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(2, 30), st.integers(2, 30)),
    st.tuples(*[st.floats(0.5, 6.0)] * 3),
    st.tuples(*[st.floats(0.5, 6.0)] * 3),
    st.sampled_from([1, 3]),
)
def test_resampling_equals_nnunetv2(shape: Any, spacing: Any, target: Any, order: int) -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wanted = new_shape(shape, spacing, target)
    rule = Resampling(order, 0, None)
    theirs = resample_data_or_seg_to_shape(
        image[None], wanted, spacing, target, is_seg=False, order=order, order_z=0, force_separate_z=None
    )[0]
    ours = resample_image(image, wanted, rule, separate_axis(rule, spacing, target), CPU).numpy()
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max()) <= 2e-6


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 128), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_tiles_are_nnunetv2s(size: int, patch: int, step: float) -> None:
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    size = max(size, patch)
    assert sliding_window.tile_starts(size, patch, step) == compute_steps_for_sliding_window((size,), (patch,), step)[0]


def test_gaussian_is_nnunetv2s() -> None:
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    theirs = compute_gaussian((8, 16, 24), 1 / 8, 10, torch.float32, CPU)
    assert torch.equal(sliding_window.gaussian((8, 16, 24), 10.0), theirs)


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.sampled_from(["LPS", "LAS"]))
def test_axes_turn_and_turn_back(order: Any, signs: Any, towards: str) -> None:
    """Whatever the orientation, the turned array's axes grow towards S, P (or A) and L, and `back` undoes it."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * signs)[:, list(order)] * [0.5, 0.7, 2.0]
    axes = canonical_axes(tuple(map(tuple, affine)), towards)  # type: ignore[arg-type]
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in (3, 4, 5)), indexing="ij")
    world = np.stack([i, j, k], -1) @ affine[:3, :3].T
    turned = [axes.turn(world[..., n]) for n in range(3)]
    assert (np.diff(turned[2], axis=0) > 0).all()
    assert (np.diff(turned[1], axis=1) * (1 if towards == "LPS" else -1) > 0).all()
    assert (np.diff(turned[0], axis=2) > 0).all()
    array = np.arange(60).reshape(3, 4, 5)
    assert np.array_equal(axes.back(axes.turn(array)), array)
    assert np.array_equal(axes.turn_channels(array[None])[0], axes.turn(array))


def test_oblique_series_take_the_nearest_axes() -> None:
    a = np.deg2rad(30)
    affine = ((1, 0, 0, 0), (0, np.cos(a), -np.sin(a), 0), (0, np.sin(a), np.cos(a), 0), (0, 0, 0, 1))
    assert canonical_axes(affine).order == (0, 1, 2)  # type: ignore[arg-type]


def test_box_of_what_is_not_zero() -> None:
    array = np.zeros((4, 5, 6), np.int16)
    assert nonzero_box(array) == ((0, 4), (0, 5), (0, 6))
    array[1, 2, 3] = array[2, 4, 1] = -5
    assert nonzero_box(array) == ((1, 3), (2, 5), (1, 4))


@pytest.mark.parametrize(
    "change",
    [
        {"resampling_fn_data": "resample_torch_fornnunet"},
        {"normalization_schemes": ["MyNormalization"]},
        {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]},
        {"architecture": {"network_class_name": "os.system", "arch_kwargs": {}}},
    ],
)
def test_plans_that_are_not_supported_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_v2(tmp_path / "m")
    plans = v2_plans(configuration=change)
    (tmp_path / "m" / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError) as caught:
        prepare(resolve_model(str(tmp_path / "m")))
    assert caught.value.reason is Reason.BAD_MODEL

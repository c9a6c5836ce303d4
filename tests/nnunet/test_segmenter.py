"""Model folders as segmenters: masks on the source grid, real CTs, other orientations; bad models and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from tests.support.small_models import UID, any_series, smooth_volume, v2_dataset, v2_plans, volume_record, write_v2

from ctenrich.codes.mappings import find_segment
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.inference.registry import models_home
from ctenrich.masks import full_mask
from ctenrich.models.parity import Case, ParityOptions, check_model, compare_labels
from ctenrich.nnunet.conventions import Conventions
from ctenrich.nnunet.preprocess import canonical_axes
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.records import Quantity, SegmentMasks
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace

SETTINGS = Settings(segment=SegmentSettings(threads=1))
LPS = Conventions(axes="LPS")


def segment(
    folder: Path, array: Any, workspace: Workspace, settings: Settings = SETTINGS, **volume: Any
) -> SegmentMasks:
    spacing = volume.pop("spacing", (3.0, 1.2, 1.3))
    options = volume.pop("options", {})
    record = volume_record(array, spacing, workspace, **volume)
    segmenter = open_nnunet(str(folder), settings=settings, **options)
    return segmenter.segment({"CT": record}, any_series(record), settings=settings, workspace=workspace)


def test_masks_labels_and_record(tmp_path: Path, workspace: Workspace) -> None:
    write_v2(tmp_path / "my model", folds=("0", "1"))
    settings = Settings(segment=SegmentSettings(threads=1, probabilities=True))
    masks = segment(tmp_path / "my model", smooth_volume((18, 40, 36), 1), workspace, settings)
    assert str(masks.product) == "nnunet:my_model:3d_fullres:0,1:mirror"
    assert [(s.number, s.name) for s in masks.segments] == [(1, "heart"), (2, "aorta"), (3, "trachea")]
    assert masks.shape == (18, 40, 36)
    store = SeriesStore(workspace)
    store.save(masks, UID, masks.product)
    assert store.masks(UID, masks.product) == masks
    assert masks.model is not None
    assert len(masks.model.sha256) == 64
    assert set(masks.agreement) == {"heart", "aorta", "trachea"}
    assert set(masks.timings) == {"preprocess", "network", "export", "save"}
    assert masks.probabilities_path is not None
    kept = np.load(workspace.resolve(UID, masks.probabilities_path))
    assert kept.dtype == np.float16
    assert kept.shape == (3, 18, 40, 36)
    background = 1 - kept.astype(np.float32).sum(0)
    winner = np.argmax(np.concatenate([background[None], kept]), 0)
    labels = np.load(workspace.resolve(UID, masks.label_map_path or ""))
    assert float((winner == labels).mean()) > 0.99


def test_second_run_gives_the_same_bytes(tmp_path: Path, workspace: Workspace) -> None:
    write_v2(tmp_path / "m")
    array = smooth_volume((10, 30, 30), 1)
    first = segment(tmp_path / "m", array, workspace)
    before = workspace.resolve(UID, first.label_map_path or "").read_bytes()
    second = segment(tmp_path / "m", array, workspace)
    assert workspace.resolve(UID, second.label_map_path or "").read_bytes() == before
    assert replace(second, timings={}) == replace(first, timings={})


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1, 2)])
def test_orientation_does_not_change_the_answer(tmp_path: Path, workspace: Workspace, flips: tuple[int, ...]) -> None:
    """The same anatomy stored in another direction gives the same mask, stored in that direction."""
    write_v2(tmp_path / "m", axes=())
    array = smooth_volume((12, 30, 34), 2)
    straight = segment(tmp_path / "m", array, workspace)
    wanted = full_mask(straight, 3, workspace)
    signs = [-1.0 if axis in flips else 1.0 for axis in range(3)]
    affine = ((1.3 * signs[2], 0.0, 0.0, 0.0), (0.0, 1.2 * signs[1], 0.0, 0.0), (0.0, 0.0, 3.0 * signs[0], 0.0))
    turned = segment(tmp_path / "m", np.flip(array, flips), workspace, affine_lps=(*affine, (0.0, 0.0, 0.0, 1.0)))
    assert wanted.any()
    assert np.array_equal(full_mask(turned, 3, workspace), np.flip(wanted, flips))


def test_sagittal_storage_gives_the_same_answer(tmp_path: Path, workspace: Workspace) -> None:
    write_v2(tmp_path / "m", axes=())
    array = smooth_volume((12, 30, 34), 2)
    wanted = full_mask(segment(tmp_path / "m", array, workspace), 3, workspace)
    sagittal = np.ascontiguousarray(array.transpose(2, 0, 1))
    affine = ((0.0, 0.0, 1.3, 0.0), (1.2, 0.0, 0.0, 0.0), (0.0, 3.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    masks = segment(tmp_path / "m", sagittal, workspace, affine_lps=affine, spacing=(1.3, 3.0, 1.2))
    assert np.array_equal(full_mask(masks, 3, workspace), wanted.transpose(2, 0, 1))


# ---------------------------------------------------------------- bad models


def refused(model: Path | str, **options: Any) -> CtenrichError:
    with pytest.raises(CtenrichError) as caught:
        open_nnunet(str(model), settings=SETTINGS, **options)
    return caught.value


def test_unmapped_labels_are_named_before_any_work(tmp_path: Path) -> None:
    labels = {"background": 0, "heart": 1, "flux capacitor": 2, "trachea": 3}
    write_v2(tmp_path / "m", dataset=v2_dataset(labels))
    error = refused(tmp_path / "m")
    assert error.reason is Reason.UNMAPPED_LABEL
    assert "flux capacitor" in error.message


def test_two_labels_of_one_structure_are_refused(tmp_path: Path) -> None:
    assert find_segment("oesophagus") == find_segment("esophagus")
    write_v2(tmp_path / "m", dataset=v2_dataset({"background": 0, "esophagus": 1, "oesophagus": 2, "heart": 3}))
    assert refused(tmp_path / "m").reason is Reason.BAD_MAPPING


@pytest.mark.parametrize("channels", [{"0": "T1"}, {"0": "CT", "1": "PET"}])
def test_other_modalities_are_refused(tmp_path: Path, channels: dict[str, str]) -> None:
    write_v2(tmp_path / "m")
    (tmp_path / "m" / "dataset.json").write_text(json.dumps(v2_dataset() | {"channel_names": channels}))
    assert refused(tmp_path / "m").reason is Reason.WRONG_MODALITY


def test_missing_folds_and_configurations_are_named(tmp_path: Path) -> None:
    write_v2(tmp_path / "m", folds=("0", "2"))
    error = refused(tmp_path / "m", folds=("0", "1"))
    assert error.reason is Reason.BAD_MODEL
    assert "no fold 1" in error.message
    assert refused(tmp_path / "m", configuration="3d_lowres").reason is Reason.BAD_MODEL
    write_v2(tmp_path / "n" / "three")
    write_v2(tmp_path / "n" / "two", v2_plans(2))
    assert isinstance(refused(tmp_path / "n"), UsageError)
    assert open_nnunet(str(tmp_path / "n"), configuration="2d", settings=SETTINGS).product.configuration == "2d"


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    plans = v2_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    (tmp_path / "m" / "plans.json").write_text(json.dumps(plans))
    error = refused(tmp_path / "m")
    assert error.reason is Reason.BAD_MODEL
    assert "do not match the plan" in error.message
    assert not list((models_home() / "converted").glob(".converting-*")), "nothing half-made stays"


@pytest.mark.parametrize("count", [2, 4])
def test_labels_that_are_not_the_outputs_of_the_network_are_refused(tmp_path: Path, count: int) -> None:
    """The network has background and three classes."""
    write_v2(tmp_path / "m")
    names = ["heart", "aorta", "trachea", "esophagus"][:count]
    dataset = v2_dataset({"background": 0} | {name: n for n, name in enumerate(names, start=1)})
    (tmp_path / "m" / "dataset.json").write_text(json.dumps(dataset))
    error = refused(tmp_path / "m")
    assert error.reason is Reason.BAD_MODEL
    assert "do not match the plan" in error.message


def test_poisoned_checkpoints_are_refused(tmp_path: Path) -> None:
    class Gadget:
        def __reduce__(self) -> Any:
            return print, ("it ran",)

    write_v2(tmp_path / "m")
    file = tmp_path / "m" / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    torch.save(checkpoint | {"logging": Gadget()}, file)
    assert refused(tmp_path / "m").reason is Reason.UNSAFE_WEIGHTS


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    file = tmp_path / "m" / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["network_weights"]["decoder.seg_layers.1.weight"][0] = float("nan")
    torch.save(checkpoint, file)
    assert "not finite" in refused(tmp_path / "m").message


def test_changed_conversions_are_found(tmp_path: Path) -> None:
    write_v2(tmp_path / "altered")
    open_nnunet(str(tmp_path / "altered"), settings=SETTINGS)
    weights = next((models_home() / "converted").glob("altered-*/3d_fullres/fold_0.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert refused(tmp_path / "altered").reason is Reason.HASH_MISMATCH


def test_a_changed_model_is_another_model(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    first = open_nnunet(str(tmp_path / "m"), settings=SETTINGS).info.sha256
    assert open_nnunet(str(tmp_path / "m"), settings=SETTINGS).info.sha256 == first
    write_v2(tmp_path / "m", folds=("0",), axes=(0,))
    assert open_nnunet(str(tmp_path / "m"), settings=SETTINGS).info.sha256 != first


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "plans.json").write_text("not JSON")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "plans.json").write_text("[1]")
    write_v2(tmp_path / "no-dataset")
    (tmp_path / "no-dataset" / "dataset.json").unlink()
    write_v2(tmp_path / "junk")
    (tmp_path / "junk" / "fold_0" / "checkpoint_final.pth").write_bytes(b"junk" * 100)
    for name in ("empty", "text", "list", "no-dataset", "junk"):
        assert refused(tmp_path / name).reason is Reason.BAD_MODEL, name
    assert refused(tmp_path / "nowhere").reason is Reason.NOT_FOUND
    (tmp_path / "file.zip").write_bytes(b"x")
    assert refused(tmp_path / "file.zip").reason is Reason.NOT_FOUND


# ---------------------------------------------------------------- bad input


def test_bad_volumes(tmp_path: Path, workspace: Workspace) -> None:
    write_v2(tmp_path / "m")
    numbers = smooth_volume((6, 20, 20)).astype(np.float32)
    numbers[1, 2, 3] = np.nan
    with pytest.raises(InputError) as caught:
        segment(tmp_path / "m", numbers, workspace)
    assert caught.value.reason is Reason.HU_RANGE
    with pytest.raises(InputError) as caught:
        segment(tmp_path / "m", smooth_volume((6, 20, 20)), workspace, quantity=Quantity.SUV)
    assert caught.value.reason is Reason.WRONG_MODALITY
    one = segment(tmp_path / "m", smooth_volume((1, 30, 30)), workspace)
    assert one.shape == (1, 30, 30)
    constant = segment(tmp_path / "m", np.zeros((4, 20, 20), np.int16), workspace)
    assert constant.shape == (4, 20, 20)


@pytest.mark.long
def test_2500_slices_in_bounded_memory(tmp_path: Path, workspace: Workspace) -> None:
    """The peak of a long volume stays at a few times the volume's own size on disk."""
    import resource

    write_v2(tmp_path / "m", axes=())
    open_nnunet(str(tmp_path / "m"), settings=SETTINGS)
    array = np.tile(smooth_volume((50, 128, 128)), (50, 1, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    masks = segment(tmp_path / "m", array, workspace, spacing=(0.5, 2.5, 2.5))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert masks.shape == (2500, 128, 128)
    assert grown < 8 * array.nbytes


# ---------------------------------------------------------------- real CTs


def real_case(folder: Path, *, slices: int | None = None) -> Case:
    """The CT of a folder, or that many slices from the middle of it."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    headers = [
        d for d in (pydicom.dcmread(p) for p in files if p.suffix == ".dcm" or p.suffix == "") if d.Modality == "CT"
    ]
    headers.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    if slices is not None:
        first = (len(headers) - slices) // 2
        headers = headers[first : first + slices]
    hu = [d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in headers]
    z = [float(d.ImagePositionPatient[2]) for d in headers]
    dz, (dy, dx) = (z[-1] - z[0]) / (len(z) - 1), (float(v) for v in headers[0].PixelSpacing)
    affine = ((dx, 0.0, 0.0, 0.0), (0.0, dy, 0.0, 0.0), (0.0, 0.0, dz, 0.0), (0.0, 0.0, 0.0, 1.0))
    return Case(folder.name, np.stack(hu).astype(np.int16), affine, (dz, dy, dx))


@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize(("archive", "slices"), [("LUNG1-005", None), ("LUNG1-001", 40), ("LUNG1-002-RT", 40)])
def test_real_cts_equal_the_reference(
    real_data: Callable[[str], Path], shared_model: Callable[[str], Path], archive: str, slices: int | None
) -> None:
    """At most one voxel in a million differs from the predictor in single precision, every Dice at least 0.9999."""
    from benchmarks.float32_predictor import Float32Predictor

    case = real_case(real_data(archive), slices=slices)
    options = ParityOptions(predictor=Float32Predictor, repeat=False)
    single = check_model(str(shared_model("lung1-demo")), [case], settings=Settings(), options=options)
    assert max(single.disagreement.values()) <= 1e-6
    assert min(row.dice for row in single.rows) >= 0.9999
    assert all(row.same_presence and row.nsd > 0.9999 for row in single.rows)


@pytest.mark.long
@pytest.mark.data
def test_real_ct_against_the_unmodified_predictor(
    real_data: Callable[[str], Path], shared_model: Callable[[str], Path]
) -> None:
    """Dice 0.999; where a voxel differs, our two best scores are as near as half precision rounds."""
    from ctenrich.nnunet.postprocess import full_slabs
    from ctenrich.nnunet.preprocess import to_network
    from ctenrich.nnunet.sliding_window import predict

    case, model = real_case(real_data("LUNG1-005"), slices=45), str(shared_model("lung1-demo"))
    axes = canonical_axes(case.affine_lps)
    ours, reference = (
        open_nnunet(model, conventions=LPS, settings=Settings(segment=SegmentSettings(engine=engine)))
        for engine in ("fast", "reference")
    )
    theirs = reference.label(case.array, axes, case.spacing).labels
    engine = ours.engines[0]
    data, grids = to_network(axes.turn(case.array), case.spacing, engine.plan, engine.device)
    scores = predict(engine.plan, next(iter(engine.networks.values())), data[None], engine.window)
    mine = ours.label(case.array, axes, case.spacing).labels
    names = {value: name for value, name, _ in ours.names}
    assert min(row.dice for row in compare_labels(mine, theirs, case.spacing, names)) >= 0.999
    different = np.argwhere(mine != theirs)
    assert 0 < len(different) < 2000
    margins = []
    for where, slab in full_slabs(scores, grids.cropped, grids.back_axis(engine.plan)):
        for k, j, i in different[np.isin(different[:, 0] - grids.box[0][0], where)]:
            values = slab[:, j - grids.box[1][0], i - grids.box[2][0]]
            margins.append(float(values[mine[k, j, i]] - values[theirs[k, j, i]]) / float(values.abs().max()))
    assert len(margins) == len(different)
    assert max(margins) < 16 * 2**-11


def expert_masks(folder: Path, case: Case) -> dict[str, Any]:
    """The expert's contours on the grid of the CT, by segment name."""
    from ctenrich.contours.raster import Grid, rasterise
    from ctenrich.contours.rtstruct import load_contours

    headers = {p: pydicom.dcmread(p, stop_before_pixels=True) for p in folder.rglob("*") if p.is_file()}
    path = next(p for p, d in headers.items() if d.Modality == "RTSTRUCT")
    origins = np.array(
        sorted([d.ImagePositionPatient for d in headers.values() if d.Modality == "CT"], key=lambda v: v[2])
    )
    x, y, z = np.eye(3)
    dz, dy, dx = case.spacing
    grid = Grid(x, y, z, (dy, dx), origins[:, 2], dz, origins, case.array.shape)  # type: ignore[arg-type]
    rois = {find_segment(roi.name): roi for roi in load_contours(path).rois}
    return {code.name: rasterise(roi.contours, grid).mask for code, roi in rois.items() if code is not None}


@pytest.mark.long
@pytest.mark.data
def test_organs_of_a_real_ct_are_where_the_experts_drew_them(
    real_data: Callable[[str], Path], shared_model: Callable[[str], Path]
) -> None:
    """Its training data: a test of plumbing and orientation, no more."""
    folder = real_data("LUNG1-005")
    case = real_case(folder)
    segmenter = open_nnunet(str(shared_model("lung1-demo")), conventions=LPS, settings=Settings())
    labels = segmenter.label(case.array, canonical_axes(case.affine_lps), case.spacing).labels
    drawn = expert_masks(folder, case)
    found = {name: value for value, name, _ in segmenter.names}
    for name, wanted in (("heart", 0.88), ("lung_left", 0.9), ("lung_right", 0.9)):
        mask = labels == found[name]
        dice = 2 * int((mask & drawn[name]).sum()) / int(mask.sum() + drawn[name].sum())
        assert dice > wanted, f"{name}: {dice:.3f}"

"""nnU-Net v1 models: the same numbers as nnunet 1.7.1, for every configuration."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from tests.conftest import need_package
from tests.support.small_models import smooth_volume, v1_plans, write_v1

from ctenrich.errors import ModelError
from ctenrich.inference.registry import resolve_model
from ctenrich.nnunet.preprocess import canonical_axes
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.nnunet.store import load_weights, prepare
from ctenrich.nnunet.unet import forward
from ctenrich.reasons import Reason
from ctenrich.settings import Settings

LABELS = '{"heart": 1, "aorta": 2, "trachea": 3}'
IDENTITY = ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0))


@pytest.fixture(autouse=True)
def _needs_v1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need_package("nnunet-v1", "nnunet")
    for name in ("nnUNet_raw_data_base", "nnUNet_preprocessed", "RESULTS_FOLDER"):
        monkeypatch.setenv(name, str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nnunet.training.network_training.nnUNetTrainerV2_CascadeFullRes  # noqa: F401


def ours(folder: Path, array: NDArray[Any], spacing: tuple[float, ...], **options: Any) -> NDArray[Any]:
    segmenter = open_nnunet(str(folder), settings=Settings(), **options)
    return segmenter.label(array, canonical_axes(IDENTITY), spacing).labels


def dice(a: NDArray[Any], b: NDArray[Any]) -> list[float]:
    values = []
    for label in range(1, 4):
        both = int((a == label).sum() + (b == label).sum())
        values.append(2 * int(((a == label) & (b == label)).sum()) / both if both else 1.0)
    return values


def compare(folder: Path, plan_folder: Path, work: Path, array: Any, spacing: Any, **options: Any) -> None:
    """Every organ's Dice is at least 0.9999: of an organ of 5,000 voxels one may differ, of a smaller one none."""
    from tests.support.nnunet_v1_oracle import predict, write_nifti

    work.mkdir()
    smallest = options.pop("smallest", 1000)
    image = write_nifti(array.astype(np.float32), spacing, work / "image.nii.gz")
    oracle: dict[str, Any] = {"folds": options.pop("numbers", (0,)), "mirror": options.get("mirror", True)}
    if "previous" in options:
        oracle["previous"] = predict(options.pop("previous"), image, work, folds=oracle["folds"])
        oracle["previous"] = oracle["previous"].rename(work / "previous.nii.gz")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(predict(plan_folder, image, work, **oracle))))
    mine = ours(folder, array, spacing, **options)
    sizes = np.bincount(theirs.ravel(), minlength=4)
    assert len(sizes) == 4
    assert sorted(sizes[1:])[-2] >= smallest, f"the test network says too little: {sizes}"
    assert min(dice(mine, theirs)) >= 0.9999, f"{int((mine != theirs).sum())} voxels differ"


@pytest.mark.parametrize(("dims", "isotropic"), [(3, False), (3, True), (2, False)])
def test_forward_pass_equals_generic_unet(tmp_path: Path, dims: int, isotropic: bool) -> None:
    from nnunet.network_architecture.generic_UNet import Generic_UNet
    from torch import nn

    plans = v1_plans(dims, isotropic, [(3.0, 1.5, 1.5)])
    folder = write_v1(tmp_path / "m" / "t", plans, 0, legacy=isotropic)
    (tmp_path / "m" / "labels.json").write_text(LABELS)
    stored = prepare(resolve_model(str(tmp_path / "m")))
    name = stored.configurations[0]
    plan = stored.plan(name)
    conv, drop, norm = (
        (nn.Conv3d, nn.Dropout3d, nn.InstanceNorm3d) if dims == 3 else (nn.Conv2d, nn.Dropout2d, nn.InstanceNorm2d)
    )
    stage = plans["plans_per_stage"][0]
    theirs = Generic_UNet(
        1, 6, 4, 2, 2, 2, conv, norm, {"eps": 1e-5, "affine": True}, drop, {"p": 0, "inplace": True}, nn.LeakyReLU,
        {"negative_slope": 1e-2, "inplace": True}, False, False, lambda x: x, None,
        stage["pool_op_kernel_sizes"], stage["conv_kernel_sizes"], False, True, True,
    )  # fmt: skip
    state = torch.load(folder / "fold_0" / "model_final_checkpoint.model", weights_only=False)["state_dict"]
    theirs.load_state_dict(state)
    x = torch.randn(2, 1, *plan.patch, generator=torch.Generator().manual_seed(0))
    weights = load_weights(stored, name, "0")
    with torch.inference_mode():
        single = theirs.eval()(x)
        scale = max(1.0, float(single.abs().max()))
        assert float((forward(plan.network, weights, x) - single).abs().max()) <= 1e-5 * scale
        exact = forward(plan.network, {k: v.double() for k, v in weights.items()}, x.double())
        assert float((exact - theirs.double()(x.double())).abs().max()) <= 1e-10
    if not isotropic:
        assert plan.network.decoder_kernels[-1] == (3,) * dims
        assert plan.network.kernels[0] == ((1, 3, 3) if dims == 3 else (3, 3))


@pytest.mark.parametrize(
    ("dims", "isotropic", "mirror"),
    [
        (3, False, False),
        (2, False, False),
        pytest.param(3, True, False, marks=pytest.mark.long),
        pytest.param(2, False, True, marks=pytest.mark.long),
        pytest.param(3, False, True, marks=pytest.mark.long),
        pytest.param(3, True, True, marks=pytest.mark.long),
    ],
)
def test_label_maps_equal_nnunet(tmp_path: Path, dims: int, isotropic: bool, mirror: bool) -> None:
    plans = v1_plans(dims, isotropic, [(3.0, 1.5, 1.5)])
    spacing = (2.5, 1.0, 1.0) if isotropic else (4.0, 1.0, 1.1)
    folder = write_v1(tmp_path / "m" / "trainer", plans, 0, folds=2, legacy=not isotropic)
    (tmp_path / "m" / "labels.json").write_text(LABELS)
    array = smooth_volume((24, 60, 64), seed=3)
    array[:, :5] = 0
    array[-2:] = 0
    compare(tmp_path / "m", folder, tmp_path / "w", array, spacing, mirror=mirror, numbers=(0, 1), smallest=5000)


@pytest.mark.long
@pytest.mark.parametrize("spacing", [(2.5, 1.0, 1.0), (6.0, 1.0, 1.1)])
def test_the_low_resolution_alone_equals_nnunet(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    """As a model of its own, and chosen where the cascade's other stage is there too."""
    plans = v1_plans(3, True, [(5.0, 2.5, 2.5), (3.0, 1.5, 1.5)])
    array = smooth_volume((24, 64, 60), 11)
    array[:, :, :6] = 0
    for name in ("alone", "cascade"):
        model = tmp_path / name
        low = write_v1(model / "3d_lowres" / "t", plans, 0, folds=2)
        if name == "cascade":
            write_v1(model / "3d_cascade_fullres" / "t", plans, 1, cascade=True)
        (model / "labels.json").write_text(LABELS)
        options = {"configuration": "3d_lowres"} if name == "cascade" else {}
        compare(model, low, tmp_path / f"{name}-work", array, spacing, numbers=(0, 1), **options)


@pytest.mark.long
def test_postprocessing_equals_nnunet(tmp_path: Path) -> None:
    plans = v1_plans(3, True, [(3.0, 1.5, 1.5)])
    rules = {"for_which_classes": [[1, 2, 3], 1, 2], "min_valid_object_sizes": "{(1, 2, 3): 30.0, 1: 500.0, 2: 1e9}"}
    folder = write_v1(tmp_path / "m" / "t", plans, 0, postprocessing=rules)
    (tmp_path / "m" / "labels.json").write_text(LABELS)
    compare(tmp_path / "m", folder, tmp_path / "w", smooth_volume((14, 40, 44), 5), (2.5, 1.0, 1.0))


def test_cascade_equals_nnunet(tmp_path: Path) -> None:
    plans = v1_plans(3, True, [(5.0, 2.5, 2.5), (3.0, 1.5, 1.5)])
    model = tmp_path / "m"
    low = write_v1(model / "3d_lowres" / "t", plans, 0)
    full = write_v1(model / "3d_cascade_fullres" / "t", plans, 1, cascade=True)
    (model / "labels.json").write_text(LABELS)
    array = smooth_volume((16, 44, 44), 7)
    array[:, :4] = 0
    options = {"previous": low, "configuration": "3d_cascade_fullres"}
    compare(model, full, tmp_path / "w", array, (2.5, 1.0, 1.0), **options)


def test_transposed_axes_equal_nnunet(tmp_path: Path) -> None:
    plans = v1_plans(3, False, [(5.0, 1.5, 1.5)], transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    folder = write_v1(tmp_path / "m" / "t", plans, 0)
    (tmp_path / "m" / "labels.json").write_text(LABELS)
    compare(tmp_path / "m", folder, tmp_path / "w", smooth_volume((30, 36, 16), 9), (1.2, 1.0, 3.5))


def test_exports_without_label_names_are_refused(tmp_path: Path) -> None:
    write_v1(tmp_path / "m" / "t", v1_plans(3, True, [(3.0, 1.5, 1.5)]), 0)
    with pytest.raises(ModelError, match="does not name its 3 labels") as caught:
        open_nnunet(str(tmp_path / "m"), settings=Settings())
    assert caught.value.reason is Reason.BAD_MODEL


def test_weights_of_another_plan_are_refused(tmp_path: Path) -> None:
    folder = write_v1(tmp_path / "m" / "t", v1_plans(3, True, [(3.0, 1.5, 1.5)]), 0)
    (tmp_path / "m" / "labels.json").write_text(LABELS)
    other = write_v1(tmp_path / "o" / "t", v1_plans(3, False, [(3.0, 1.5, 1.5)]), 0)
    name = "model_final_checkpoint.model.pkl"
    (folder / "fold_0" / name).write_bytes((other / "fold_0" / name).read_bytes())
    with pytest.raises(ModelError, match="do not match the plan"):
        open_nnunet(str(tmp_path / "m"), settings=Settings())

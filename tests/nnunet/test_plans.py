"""Plans of nnU-Net v2 in the one form that inference uses, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_models import v2_dataset, v2_plans, write_v2

from ctenrich.errors import ModelError
from ctenrich.inference.registry import resolve_model
from ctenrich.nnunet.plans import ModelPlan, parse_v2
from ctenrich.nnunet.store import prepare
from ctenrich.reasons import Reason


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


def parse(plans: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None, **more: Any) -> ModelPlan:
    options = {"configuration": "3d_fullres", "mirror_axes": (0, 1, 2)} | more
    return parse_v2(plans or v2_plans(), dataset or v2_dataset(), **options)


def test_a_plan_is_read_completely() -> None:
    plan = parse()
    assert (plan.version, plan.configuration, plan.patch) == (2, "3d_fullres", (8, 16, 24))
    assert plan.spacing == (4.0, 2.0, 2.0)
    assert plan.mirror_axes == (0, 1, 2)
    n = plan.normalisation
    assert (n.scheme, n.lower, n.upper, n.mean, n.std) == ("ct", -900.0, 600.0, -100.0, 350.0)
    assert (plan.data.order, plan.data.order_z, plan.logits.order) == (3, 0, 1)
    assert plan.network.classes == 4
    assert plan.network.in_channels == 1
    assert plan.network.decoder_kernels == ((3, 3, 3), (1, 3, 3))
    assert dict(plan.labels.names) == {"heart": 1, "aorta": 2, "trachea": 3}


def test_configurations_inherit() -> None:
    plans = v2_plans()
    plans["configurations"]["middle"] = {"inherits_from": "3d_fullres", "spacing": [3.0, 3.0, 3.0]}
    plans["configurations"]["last"] = {"inherits_from": "middle", "patch_size": [16, 16, 16]}
    plan = parse(plans, configuration="last")
    assert (plan.spacing, plan.patch) == ((3.0, 3.0, 3.0), (16, 16, 16))
    plans["configurations"]["3d_fullres"]["inherits_from"] = "last"
    with pytest.raises(ModelError, match="circle"):
        parse(plans, configuration="last")


def test_a_cascade_sees_the_labels_of_the_stage_before() -> None:
    plan = parse(v2_plans(configuration={"previous_stage": "3d_lowres"}))
    assert plan.previous == "3d_lowres"
    assert plan.network.in_channels == 1 + 3


def test_regions_are_painted_in_the_order_of_the_dataset() -> None:
    labels = {"background": 0, "chest": [1, 2, 3], "heart": [1], "ignore": 4}
    plan = parse(dataset=v2_dataset(labels, regions_class_order=[2, 1]))
    assert plan.labels.regions
    assert dict(plan.labels.names) == {"chest": 2, "heart": 1}
    assert plan.labels.order == (2, 1)
    assert plan.network.classes == 2


def test_plans_of_before_2024_name_their_network_otherwise() -> None:
    plans = v2_plans()
    configuration = plans["configurations"]["3d_fullres"]
    kwargs = configuration.pop("architecture")["arch_kwargs"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": kwargs["n_conv_per_stage"], "n_conv_per_stage_decoder": [2, 2],
        "conv_kernel_sizes": kwargs["kernel_sizes"], "pool_op_kernel_sizes": kwargs["strides"],
    }  # fmt: skip
    assert parse(plans) == parse()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "heart": 1, "aorta": 3}, "1, 2, 3"),
        ({"background": 0, "heart": 1, "aorta": 1}, "1, 2, 3"),
        ({"background": 0, "heart": "one"}, "cannot be used"),
    ],
)
def test_label_values_have_no_holes(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        parse(dataset=v2_dataset(labels))
    assert caught.value.reason is Reason.BAD_MODEL


@pytest.mark.parametrize("channels", [{"0": "MR"}, {"0": "CT", "1": "PET"}])
def test_only_models_of_ct_alone(channels: dict[str, str]) -> None:
    with pytest.raises(ModelError) as caught:
        parse(dataset=v2_dataset() | {"channel_names": channels})
    assert caught.value.reason is Reason.WRONG_MODALITY


@pytest.mark.parametrize(
    "change",
    [
        {"patch_size": None},
        {"spacing": ["a"]},
        {"resampling_fn_data_kwargs": {"is_seg": True}},
        {"architecture": {"network_class_name": "PlainConvUNet", "arch_kwargs": {}}},
    ],
)
def test_damaged_plans_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        parse(v2_plans(configuration=change))
    assert caught.value.reason is Reason.BAD_MODEL


@pytest.mark.parametrize("key", ["norm_op", "nonlin", "conv_op"])
def test_layers_of_other_kinds_are_refused(key: str) -> None:
    plans = v2_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"][key] = "torch.nn.Something"
    with pytest.raises(ModelError, match=key):
        parse(plans)

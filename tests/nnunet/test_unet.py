"""The network as a function of plan and tensors, against the library that nnU-Net v2 builds it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.small_models import residual_plans, v2_plans, write_v2

from ctenrich.errors import ModelError
from ctenrich.inference.registry import resolve_model
from ctenrich.inference.threads import torch_threads
from ctenrich.nnunet import unet
from ctenrich.nnunet.plans import NetworkPlan
from ctenrich.nnunet.store import load_weights, prepare
from ctenrich.nnunet.unet import (
    check_weights,
    clean_names,
    expected_shapes,
    forward,
    library_network,
    load_into_library,
)
from ctenrich.reasons import Reason


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


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_forward_pass_equals_the_library(tmp_path: Path, dims: int, kind: str) -> None:
    write_v2(tmp_path / "m", residual_plans(dims) if kind == "residual" else v2_plans(dims))
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


@pytest.mark.parametrize(("shape", "stride"), [((64, 24, 16, 7), (2, 1, 2)), ((12, 40, 48), (2, 2))])
@pytest.mark.parametrize("batch", [1, 2])
def test_joined_channels_are_those_of_torch(shape: tuple[int, ...], stride: tuple[int, ...], batch: int) -> None:
    """Inputs above and below the size from which oneDNN makes the transposed convolution, bit for bit."""
    rng = torch.Generator().manual_seed(2)
    up = torch.nn.functional.conv_transpose3d if len(stride) == 3 else torch.nn.functional.conv_transpose2d
    quick = []
    for first in (2, shape[1]):
        x = torch.randn(batch, shape[0], first, *shape[2:], generator=rng)
        weight, bias = torch.randn(shape[0], 6, *stride, generator=rng), torch.randn(6, generator=rng)
        skip = torch.randn(batch, 5, *(n * s for n, s in zip(x.shape[2:], stride, strict=True)), generator=rng)
        quick.append(x.shape[:4].numel() > unet._GENERAL_ROUTINE)
        with torch.inference_mode():
            wanted = torch.cat((up(x, weight, bias, stride), skip), 1)
            found = unet._up_and_join(x, skip, weight, bias, stride)
        assert torch.equal(found, wanted)
        assert found.is_contiguous()
    assert quick[-1], "the quick way was not tried"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 2])
def test_channels_one_after_another_are_all_channels_at_once(
    threads: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(batch, 7, 5, 20, 19, generator=rng) * 50 + 300
    weight, bias = torch.randn(7, generator=rng), torch.randn(7, generator=rng)
    _, norm = unet._operations(NetworkPlan(3, 1, 3, (4, 8), ((3, 3, 3),) * 2, ((1, 1, 1),) * 2, (1,), (1,), ()), x)
    calls = []

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape[1])
        made: torch.Tensor = norm(x, weight, bias)
        return made

    with torch.inference_mode(), torch_threads(threads):
        wanted = unet._norm_and_activation(counted, x.clone(), weight, bias, 0.01)
        assert calls == [7]
        monkeypatch.setattr(unet, "_CHANNELS_BYTES", 2 * x[0, 0].nbytes)
        found = unet._norm_and_activation(counted, x, weight, bias, 0.01)
    assert calls[1:] == [2, 2, 2, 1] * batch
    assert torch.equal(found, wanted)
    assert found is x, "no further memory"


SMALL = NetworkPlan(2, 1, 3, (4, 8), ((3, 3), (3, 3)), ((1, 1), (2, 2)), (1, 1), (1,), ((3, 3),))


def small_weights() -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in expected_shapes(SMALL).items()}


def test_heads_of_deep_supervision_are_no_fault() -> None:
    weights = small_weights()
    weights["decoder.seg_layers.7.weight"] = torch.zeros(1)
    check_weights(SMALL, weights)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("encoder.stages.0.0.convs.0.conv.weight", None),
        ("encoder.stages.9.0.convs.0.conv.weight", torch.zeros(1)),
        ("encoder.stages.0.0.convs.0.conv.weight", torch.zeros(4, 1, 5, 5)),
        ("encoder.stages.0.0.convs.0.conv.weight", torch.full((4, 1, 3, 3), torch.nan)),
        ("encoder.stages.0.0.convs.0.conv.weight", torch.zeros(4, 1, 3, 3, dtype=torch.int32)),
    ],
)
def test_weights_that_do_not_match_are_refused(name: str, tensor: torch.Tensor | None) -> None:
    weights = small_weights()
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    with pytest.raises(ModelError, match=r"stages") as caught:
        check_weights(SMALL, weights)
    assert caught.value.reason is Reason.BAD_MODEL


def test_names_of_the_same_tensor_are_listed_once() -> None:
    state = {
        "module.encoder.a": torch.ones(1),
        "_orig_mod.head": torch.ones(1),
        "decoder.encoder.a": torch.ones(1),
        "encoder.stages.0.all_modules.0.weight": torch.ones(1),
    }
    assert set(clean_names(state)) == {"encoder.a", "head"}

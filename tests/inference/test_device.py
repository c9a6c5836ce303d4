"""Device and precision are chosen in one place: what a setting means, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ctenrich.errors import UsageError
from ctenrich.inference.device import PRECISIONS, check_precision, choose_device
from ctenrich.reasons import Reason


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "name", "device"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (1, "auto", "cuda:0"),
        (2, "auto", "cuda:0"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_a_setting_names_one_device(monkeypatch: pytest.MonkeyPatch, count: int, name: str, device: str) -> None:
    gpus(monkeypatch, count)
    assert choose_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("count", "name"),
    [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "tpu"), (2, "meta"), (2, "mps"), (2, "cuda:x"), (2, "")],
)
def test_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch, count: int, name: str) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert caught.value.reason is Reason.BAD_SETTINGS
    assert "cuda:N" in caught.value.hint


def test_precisions() -> None:
    assert [check_precision(name) for name in PRECISIONS] == ["fp32", "bf16", "fp16"]
    for name in ("fp8", "FP32", ""):
        with pytest.raises(UsageError) as caught:
            check_precision(name)
        assert caught.value.reason is Reason.BAD_SETTINGS

"""Source folders of nnU-Net v2: which files are read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support.small_models import write_v2

from ctenrich.errors import ModelError
from ctenrich.inference.registry import ModelKind
from ctenrich.nnunet import source_folder
from ctenrich.nnunet.source_folder import read_json, read_v2
from ctenrich.reasons import Reason


def test_a_folder_is_one_configuration_with_its_folds(tmp_path: Path) -> None:
    write_v2(tmp_path, folds=("0", "3", "all"), axes=(0, 2))
    found = read_v2(tmp_path)
    assert (found.configuration, found.kind, found.trainer) == ("3d_fullres", ModelKind.NNUNET_V2, "nnUNetTrainer")
    assert found.mirror_axes == (0, 2)
    assert list(found.folds) == ["0", "3", "all"]
    weights = found.folds["3"]()
    assert not any(".all_modules." in name for name in weights)
    saved = torch.load(tmp_path / "fold_3" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())


def test_the_final_checkpoint_wins_over_the_best(tmp_path: Path) -> None:
    write_v2(tmp_path, folds=("0", "1"))
    final = tmp_path / "fold_0" / "checkpoint_final.pth"
    best = tmp_path / "fold_0" / "checkpoint_best.pth"
    best.write_bytes((tmp_path / "fold_1" / "checkpoint_final.pth").read_bytes())
    name = "encoder.stages.0.0.convs.0.conv.weight"
    first = read_v2(tmp_path).folds["0"]()[name]
    final.unlink()
    assert not torch.equal(read_v2(tmp_path).folds["0"]()[name], first)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    write_v2(tmp_path)
    (tmp_path / "fold_0" / "checkpoint_final.pth").rename(tmp_path / "fold_0" / "checkpoint_latest.pth")
    with pytest.raises(ModelError, match="no fold") as caught:
        read_v2(tmp_path)
    assert caught.value.reason is Reason.BAD_MODEL
    assert "checkpoint_final.pth" in caught.value.hint


@pytest.mark.parametrize("content", [{"network_weights": {}}, {"init_args": 3}, [1, 2]])
def test_other_checkpoints_are_refused(tmp_path: Path, content: object) -> None:
    write_v2(tmp_path)
    torch.save(content, tmp_path / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError) as caught:
        read_v2(tmp_path)
    assert caught.value.reason is Reason.BAD_MODEL


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plans.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"plans\.json") as caught:
        read_json(tmp_path / "plans.json")
    assert caught.value.reason is Reason.BAD_MODEL


def test_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plans.json").write_text(json.dumps({"a": "x" * 100}))
    assert read_json(tmp_path / "plans.json")["a"] == "x" * 100
    monkeypatch.setattr(source_folder, "_MAX_JSON", 50)
    with pytest.raises(ModelError, match="too large"):
        read_json(tmp_path / "plans.json")
    with pytest.raises(ModelError, match=r"no missing\.json"):
        read_json(tmp_path / "missing.json")

"""Converted models: made once, identified by what decides the result, never half there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support.small_models import v2_plans, write_v2

from ctenrich.errors import ModelError
from ctenrich.inference.registry import resolve_model
from ctenrich.nnunet import store
from ctenrich.nnunet.store import StoredModel, load_weights, prepare
from ctenrich.reasons import Reason


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    return tmp_path / "home"


def open_stored(folder: Path) -> StoredModel:
    return prepare(resolve_model(str(folder)))


def test_a_model_is_converted_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_v2(tmp_path / "net", folds=("0", "1"))
    first = open_stored(tmp_path / "net")
    assert sorted(p.name for p in (first.folder / "3d_fullres").iterdir()) == [
        "fold_0.safetensors",
        "fold_1.safetensors",
    ]
    monkeypatch.setattr(store, "_convert_model", lambda *_: pytest.fail("converted again"))
    assert open_stored(tmp_path / "net") == first
    assert [p.name for p in (home / "converted").iterdir()] == [first.folder.name]


def test_identity_is_that_of_plans_and_chosen_weights(home: Path, tmp_path: Path) -> None:
    write_v2(tmp_path / "net", folds=("0", "1"))
    stored = open_stored(tmp_path / "net")
    one, other, both = (stored.identity("3d_fullres", folds) for folds in (("0",), ("1",), ("0", "1")))
    assert len({one, other, both}) == 3
    write_v2(tmp_path / "renamed", folds=("0",))
    assert open_stored(tmp_path / "renamed").identity("3d_fullres", ("0",)) == one
    write_v2(tmp_path / "coarser", v2_plans(configuration={"spacing": [5.0, 2.0, 2.0]}), folds=("0",))
    assert open_stored(tmp_path / "coarser").identity("3d_fullres", ("0",)) != one


def test_weights_come_back_as_they_were(home: Path, tmp_path: Path) -> None:
    write_v2(tmp_path / "net")
    stored = open_stored(tmp_path / "net")
    weights = load_weights(stored, "3d_fullres", "0")
    saved = torch.load(tmp_path / "net" / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())
    with pytest.raises(ModelError, match="no fold 7") as caught:
        load_weights(stored, "3d_fullres", "7")
    assert "it has: 0" in caught.value.hint


def test_a_failed_conversion_leaves_nothing(home: Path, tmp_path: Path) -> None:
    write_v2(tmp_path / "net", folds=("0", "1"))
    torch.save({"network_weights": {}}, tmp_path / "net" / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(ModelError) as caught:
        open_stored(tmp_path / "net")
    assert caught.value.reason is Reason.BAD_MODEL
    assert not list((home / "converted").iterdir())


def test_two_conversions_at_the_same_time_agree(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has finished the same conversion while this one was at work: its folder is used."""
    write_v2(tmp_path / "net")
    real = store._publish_converted

    def late(staging: Path, folder: Path) -> None:
        real(staging, folder)
        copy = folder.with_name("again")
        copy.mkdir()
        (copy / "model.json").write_bytes((folder / "model.json").read_bytes())
        real(copy, folder)

    monkeypatch.setattr(store, "_publish_converted", late)
    assert open_stored(tmp_path / "net").configurations == ("3d_fullres",)


def test_one_configuration_by_two_trainers_is_refused(home: Path, tmp_path: Path) -> None:
    write_v2(tmp_path / "net" / "one")
    write_v2(tmp_path / "net" / "two")
    with pytest.raises(ModelError, match="twice"):
        open_stored(tmp_path / "net")


def test_a_converted_model_of_another_source_is_refused(home: Path, tmp_path: Path) -> None:
    write_v2(tmp_path / "net")
    stored = open_stored(tmp_path / "net")
    meta = json.loads((stored.folder / "model.json").read_text())
    meta["source_files"]["plans.json"] = "0" * 64
    (stored.folder / "model.json").write_text(json.dumps(meta))
    with pytest.raises(ModelError) as caught:
        open_stored(tmp_path / "net")
    assert caught.value.reason is Reason.HASH_MISMATCH

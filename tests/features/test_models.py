"""Feature models: read from features.toml, opened without unpickling, refused with a reason, repeatable."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ctenrich.errors import CtenrichError, ModelError, UsageError
from ctenrich.features import astra
from ctenrich.features.i3resnet import I3ResNet
from ctenrich.features.kinds import open_features, parse_features, pin_features
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings, Settings
from tests.conftest import need_package
from tests.support.feature_models import VOLUME, onnx_model, resnet_model, torchscript_model, write_model

SETTINGS = Settings(segment=SegmentSettings(device="cpu", threads=1))


def test_a_torchscript_network_gets_the_input_on_its_axes(tmp_path: Path) -> None:
    data = np.zeros((12, 10, 8), np.float32)
    data[6:] += 1
    data[:, 5:] += 2
    data[:, :, 4:] += 4
    model = open_features(f"deep:{torchscript_model(tmp_path / 'm')}", SETTINGS)
    assert model.vector(data).tolist() == [3.0, 4.0, 2.5, 4.5, 1.5, 5.5]
    folder = torchscript_model(tmp_path / "t", more='array = "zyx"')
    turned = open_features(f"deep:{folder}", SETTINGS)
    assert turned.vector(data).tolist() == [1.5, 5.5, 2.5, 4.5, 3.0, 4.0]
    assert (model.info.name, model.info.version, model.info.licence) == ("small", "3", "CC0-1.0")


def test_a_network_of_tensors_is_the_same_bit_for_bit_each_time(tmp_path: Path) -> None:
    folder = resnet_model(tmp_path / "m")
    data = np.random.default_rng(1).random((12, 10, 8)).astype(np.float32)
    first = open_features(f"deep:{folder}", SETTINGS).vector(data)
    again = open_features(f"deep:{folder}", SETTINGS).vector(data)
    assert first.dtype == np.float32
    assert first.shape == (64,)
    assert first.tobytes() == again.tobytes()
    network = I3ResNet((1, 1, 1, 1), 2).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(data)[None, None]).mean(dim=(2, 3, 4))[0].numpy()
    np.testing.assert_allclose(first, wanted, rtol=1e-5)


def test_an_onnx_network(tmp_path: Path) -> None:
    need_package("onnxruntime", "onnxruntime")
    folder = onnx_model(tmp_path / "m")
    data = np.random.default_rng(1).random((12, 10, 8)).astype(np.float32)
    assert open_features(f"deep:{folder}", SETTINGS).vector(data) == pytest.approx([data.mean()], rel=1e-6)
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\x0a\x08location\x12\x01w")
    write_model(folder, "model.onnx", 1)
    assert refusal(f"deep:{folder}").reason is Reason.UNSAFE_WEIGHTS


def refusal(spec: str) -> CtenrichError:
    with pytest.raises(CtenrichError) as caught:
        open_features(spec, SETTINGS)
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "reason", "part"),
    [
        ('axes = "RAS"', "", Reason.UNKNOWN_AXES, "nothing states the axes"),
        ('axes = "RAS"', 'axes = "RPI"', Reason.BAD_MODEL, "axes of features.toml is 'RPI'"),
        ("length = 6", "length = 5", Reason.BAD_MODEL, "the answer of model.ts has the shape (1, 6), not (1, 5)"),
        ("length = 6", "length = true", Reason.BAD_MODEL, "length of features.toml is True"),
        ('version = "3"', 'pooling = "mean"', Reason.BAD_MODEL, "not (1, 6, x, y, z)"),
        ("format = 1", "format = 2", Reason.BAD_MODEL, "format 2"),
        ("format = 1", "format = 1\nspeed = 1", Reason.BAD_MODEL, "has the key 'speed'"),
        ("size =", "sizes = 1\nsize =", Reason.BAD_MODEL, "[crop] of features.toml has the key 'sizes'"),
        ("size = [12, 10, 8]", "size = [12, 10]", Reason.BAD_MODEL, "size of features.toml is not a list"),
        ("size = [12, 10, 8]", "size = [12, 10, 0]", Reason.BAD_MODEL, "size of features.toml is"),
        ("spacing = [8.0, 8.0, 12.0]", "", Reason.BAD_MODEL, "spacing of features.toml belongs to"),
        ("spacing = [8.0, 8.0, 12.0]", "spacing = [8.0, 0.0, 1.0]", Reason.BAD_MODEL, "spacing of features.toml is"),
        ('rule = "centroid"', 'rule = "lesion"', Reason.BAD_MODEL, "rule of features.toml is 'lesion'"),
        ("spacing = [8", "margin = 3\nspacing = [8", Reason.BAD_MODEL, "margin of features.toml"),
        ("range = [-1000, 400,", "range = [400, 400,", Reason.BAD_MODEL, "divides by 0"),
        ("licence", 'modality = "MR"\nlicence', Reason.WRONG_MODALITY, "is a model of MR"),
        ('file = "model.ts"', 'file = "../model.ts"', Reason.BAD_MODEL, "is not the name of a file beside it"),
        ('file = "model.ts"', 'file = "other.ts"', Reason.NOT_FOUND, "has no file other.ts"),
        ('sha256 = "', 'sha256 = "0', Reason.BAD_MODEL, "is not the SHA-256"),
        ('name = "small"', 'name = "small"\nstructures = [1]', Reason.BAD_MODEL, "structures of features.toml"),
    ],
)
def test_a_statement_that_is_wrong_is_refused(tmp_path: Path, old: str, new: str, reason: Reason, part: str) -> None:
    folder = torchscript_model(tmp_path / "m")
    text = (folder / "features.toml").read_text()
    assert old in text
    (folder / "features.toml").write_text(text.replace(old, new, 1))
    error = refusal(f"deep:{folder}")
    assert error.reason is reason
    assert part in error.message


def test_another_network_than_was_stated_is_refused(tmp_path: Path) -> None:
    folder = torchscript_model(tmp_path / "m")
    with (folder / "model.ts").open("ab") as handle:
        handle.write(b"\0")
    assert refusal(f"deep:{folder}").reason is Reason.HASH_MISMATCH
    with pytest.raises(ModelError) as caught:
        pin_features([f"deep:{folder}"])
    assert caught.value.reason is Reason.HASH_MISMATCH


SMALL_RESNET = "[architecture]\nname = 'i3resnet'\nblocks = [1, 1, 1, 1]\nwidth = 2\n"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/tmp/ctenrich-must-not-exist",))


@pytest.mark.parametrize(
    ("name", "content", "more", "part"),
    [
        ("model.ts", pickle.dumps(_Evil()), "", "not a TorchScript file"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", SMALL_RESNET, "has no tensor"),
        ("model.safetensors", b"nothing", SMALL_RESNET, "not a safetensors file"),
        ("model.safetensors", b"nothing", "[architecture]\nname = 'vit'\n", "[architecture] is not one that is known"),
        ("model.safetensors", b"nothing", "", "no [architecture] states their network"),
        ("model.ts", b"nothing", "[architecture]\nname = 'i3resnet'\n", "is a network of its own"),
    ],
)
def test_files_that_are_no_networks_are_refused(
    tmp_path: Path, name: str, content: bytes, more: str, part: str
) -> None:
    (tmp_path / name).write_bytes(content)
    write_model(tmp_path, name, 64, crop=f"{VOLUME}\n{more}", more='pooling = "mean"' if more == SMALL_RESNET else "")
    error = refusal(f"deep:{tmp_path}")
    assert error.reason is Reason.BAD_MODEL
    assert part in error.message
    assert not Path("/tmp/ctenrich-must-not-exist").exists()


def test_tensors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = resnet_model(tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    state["bn1.bias"][0] = torch.nan
    save_file(state, folder / "model.safetensors")
    text = (folder / "features.toml").read_text().splitlines()
    fresh = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    lines = [f'sha256 = "{fresh}"' if line.startswith("sha256") else line for line in text]
    (folder / "features.toml").write_text("\n".join(lines))
    assert "not finite" in refusal(f"deep:{folder}").message


def test_the_identity_is_of_network_and_rules_and_not_of_texts(tmp_path: Path) -> None:
    folder = torchscript_model(tmp_path / "m")
    (pinned,) = pin_features([f"deep:{folder}", f"deep:{folder}"])
    assert pin_features([pinned]) == (pinned,)
    text = (folder / "features.toml").read_text()
    (folder / "features.toml").write_text(text.replace("CC0-1.0", "MIT"))
    assert pin_features([pinned]) == (pinned,)
    (folder / "features.toml").write_text(text.replace("clip = [-1000, 400]", "clip = [-1000, 300]"))
    with pytest.raises(ModelError) as caught:
        pin_features([pinned])
    assert caught.value.reason is Reason.HASH_MISMATCH


@pytest.mark.parametrize(
    ("text", "reason"),
    [("deep", Reason.BAD_PARAMETER), ("shallow:x", Reason.BAD_PARAMETER), ("deep:", Reason.BAD_PARAMETER)],
)
def test_specifications_that_are_none(text: str, reason: Reason) -> None:
    with pytest.raises(UsageError) as caught:
        parse_features(text)
    assert caught.value.reason is reason


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(f"deep:{tmp_path / 'none'}").reason is Reason.NOT_FOUND
    assert refusal(f"deep:{tmp_path}").reason is Reason.NOT_FOUND
    assert "astra" in (refusal("deep:astr").hint or "")


def test_the_packaged_model_names_the_extra_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        pin_features(["deep:astra"])
    assert caught.value.reason is Reason.MISSING_EXTRA


def test_other_parts_than_the_published_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for number in range(3):
        parts.append(tmp_path / f"part{number}.bin")
        parts[-1].write_bytes(b"no weights")
    monkeypatch.setattr(astra, "_parts", lambda: parts)
    assert refusal("deep:astra").reason is Reason.HASH_MISMATCH

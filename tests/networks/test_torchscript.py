"""The kind ``torchscript``: networks exported by torch.jit with torchscript.toml, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ctenrich.errors import ModelError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import parse_segmenter
from ctenrich.models.library import import_model, show_model, verify_model
from ctenrich.networks.segresnet import SegResNet, forward
from ctenrich.networks.torchscript import open_torchscript
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace
from tests.support.network_cases import (
    BUNDLE_CLASSES,
    MONAI_CASES,
    chest,
    segresnet_arrays,
    tensors,
    volume_spacing,
)
from tests.support.small_models import any_series, volume_record
from tests.support.totalsegmentator_cases import affine_ras

GOLDEN = Path(__file__).parents[1] / "golden" / "monai"
SETTINGS = SegmentSettings(threads=1, device="cpu")
TOML = """
format = 1
version = "7"
licence = "CC-BY-4.0"
axes = "RAS"
spacing = [3, 3, 3]
window = [20, 24, 16]
overlap = 0.25
intensities = [{ zscore_nonzero = true }, { minmax = [-1, 1] }]
[labels]
heart = 1
aorta = 2
lung_upper_lobe_left = 3
rib_left_1 = 4
clavicula_right = 5
"""


class Network(nn.Module):
    """The network of the bundle of the low resolution, on [x, y, z] or [z, y, x]."""

    def __init__(self, z_first: bool = False) -> None:
        super().__init__()
        self.weights = tensors(segresnet_arrays(6))
        self.size = SegResNet(classes=len(BUNDLE_CLASSES), blocks_down=(1, 2, 2), blocks_up=(1, 1))
        self.z_first = z_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.z_first:
            return forward(self.size, self.weights, x.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2)
        return forward(self.size, self.weights, x)


class Saves(nn.Module):
    """Writes a file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "stolen")
        return x


class Reads(nn.Module):
    """Reads a file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", False, 4)


class TwoChannels(nn.Module):
    """Has fewer channels than classes are named."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, x), 1)


class NoWindow(nn.Module):
    """Takes another input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3)


def exported(module: nn.Module, folder: Path, toml: str = TOML, script: bool = False) -> Path:
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = torch.jit.script(module) if script else torch.jit.trace(module, torch.zeros(1, 1, 16, 16, 16))
        made.save(str(folder / "model.ts"))
    (folder / "torchscript.toml").write_text(toml)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchscript")
    exported(Network(), folder / "small")
    exported(Network(z_first=True), folder / "turned", 'array = "zyx"' + TOML)
    return folder


@pytest.fixture
def small(models: Path) -> Iterator[Path]:
    """The model whose torchscript.toml a test may change."""
    yield models / "small"
    (models / "small" / "torchscript.toml").write_text(TOML)


def affine_lps(stack: str) -> Any:
    return tuple(map(tuple, (np.diag([-1, -1, 1, 1]) @ affine_ras(stack)).tolist()))


@pytest.mark.parametrize("name", ["small", "turned"])
def test_the_same_network_gives_the_answer_of_the_bundle(models: Path, name: str) -> None:
    segmenter = open_torchscript(str(models / name), settings=SETTINGS)
    for case in MONAI_CASES:
        if case.name in ("lowres-oblique", "lowres-reversed"):
            wanted = np.load(GOLDEN / f"{case.name}.npz")["labels"]
            assert np.count_nonzero(segmenter.label(chest(), affine_lps(case.stack)) != wanted) == 0


def test_a_model_makes_masks_with_version_and_licence(models: Path, tmp_path: Path) -> None:
    spec = parse_segmenter(f"torchscript:{models / 'small'}")
    segmenter = segmenter_kind("torchscript").open(spec, Settings(segment=SETTINGS))
    assert str(segmenter.product) == "torchscript:small"
    assert (segmenter.info.name, segmenter.info.version, segmenter.info.licence) == ("small", "7", "CC-BY-4.0")
    workspace = Workspace(tmp_path / "run")
    volume = volume_record(chest(), volume_spacing(), workspace)
    masks = segmenter.segment({"CT": volume}, any_series(volume), settings=Settings(), workspace=workspace)
    assert [s.name for s in masks.segments] == list(BUNDLE_CLASSES[1:])


def test_the_file_that_states_the_use_is_part_of_the_identity(small: Path) -> None:
    first = open_torchscript(str(small), settings=SETTINGS).info.sha256
    (small / "torchscript.toml").write_text(TOML.replace("0.25", "0.5"))
    assert open_torchscript(str(small), settings=SETTINGS).info.sha256 != first


def test_a_model_is_imported_and_pinned(models: Path, empty_home: Path) -> None:
    assert import_model(models / "small", name="own").kind == "torchscript"
    shown = show_model("own")
    assert (shown["segmenter"], shown["axes"], shown["licence"]) == ("torchscript:own", "RAS", "CC-BY-4.0")
    assert verify_model("own") == ()
    (empty_home / "own" / "imported" / "own" / "torchscript.toml").write_text(TOML.replace("RAS", "LPS"))
    with pytest.raises(ModelError, match=r"HASH_MISMATCH.*torchscript.toml"):
        open_torchscript("own", settings=SETTINGS)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('axes = "RAS"', "", r"UNKNOWN_AXES.*nothing states the axes"),
        ('axes = "RAS"', 'axes = "SAR"', r"BAD_MODEL.*axes .*'SAR'"),
        ("format = 1", "format = 2", r"BAD_MODEL.*format 2"),
        ("format = 1", "format = 1\nspacings = 1", r"BAD_MODEL.*key 'spacings'"),
        ("format = 1", "format", r"BAD_MODEL.*not TOML"),
        ("format = 1", 'format = 1\nmodality = "MR"', r"WRONG_MODALITY.*model of MR"),
        ("format = 1", 'format = 1\nfile = "other.ts"', r"NOT_FOUND.*no file other.ts"),
        ("format = 1", 'format = 1\nfile = "../model.ts"', r"BAD_MODEL.*file beside it"),
        ("format = 1", 'format = 1\narray = "yxz"', r"BAD_MODEL.*array .*'yxz'"),
        ("[3, 3, 3]", "[3, 3]", r"BAD_MODEL.*spacing .*3 numbers"),
        ("[3, 3, 3]", "[3, 3, 0]", r"BAD_MODEL.*spacing"),
        ("window = [20, 24, 16]", "", r"BAD_MODEL.*window .*3 numbers"),
        ("[20, 24, 16]", "[20, 24, 1.5]", r"BAD_MODEL.*window"),
        ("[20, 24, 16]", "[20, 24, 17]", r"BAD_MODEL.*cannot take a window"),
        ("0.25", "1", r"BAD_MODEL.*overlap"),
        ("minmax = [-1, 1]", "minmax = [-1]", r"BAD_MODEL.*minmax .*2 numbers"),
        ("minmax = [-1, 1]", "window = [-1, 1]", r"BAD_MODEL.*step 'window'"),
        ("minmax = [-1, 1]", "standard = [-1, 0]", r"BAD_MODEL.*divides by 0"),
        ("zscore_nonzero = true", "zscore_nonzero = 1", r"BAD_MODEL.*zscore_nonzero = true"),
        ("clavicula_right = 5", "clavicula_right = 7", r"BAD_MODEL.*not 1 to 5"),
        ("clavicula_right = 5", "clavicula_right = 5\ntrachea = 6", r"BAD_MODEL.*shape \(1, 6, .*not \(1, 7, "),
        ("clavicula_right", "left_thing", r"UNMAPPED_LABEL.*left_thing"),
    ],
)
def test_wrong_statements_are_refused_with_their_key(small: Path, old: str, new: str, reason: str) -> None:
    assert old in TOML
    (small / "torchscript.toml").write_text(TOML.replace(old, new))
    with pytest.raises(ModelError, match=reason):
        open_torchscript(str(small), settings=SETTINGS)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Saves, r"UNSAFE_WEIGHTS.*uses torch.save"),
        (Reads, r"UNSAFE_WEIGHTS.*uses torch.from_file"),
        (TwoChannels, r"BAD_MODEL.*shape \(1, 2, 20, 24, 16\), not \(1, 6, 20, 24, 16\)"),
        (NoWindow, r"BAD_MODEL.*cannot take a window"),
    ],
)
def test_programs_that_are_no_network_are_refused(tmp_path: Path, module: type[nn.Module], reason: str) -> None:
    folder = exported(module(), tmp_path / "m", script=True)
    with pytest.raises(ModelError, match=reason):
        open_torchscript(str(folder), settings=SETTINGS)
    assert not Path("stolen").exists()


def test_files_that_are_not_torchscript(tmp_path: Path) -> None:
    (tmp_path / "torchscript.toml").write_text(TOML)
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.ts")
    with pytest.raises(ModelError, match=r"BAD_MODEL.*not a TorchScript file.*torch.jit.trace"):
        open_torchscript(str(tmp_path), settings=SETTINGS)
    (tmp_path / "model.ts").write_bytes(b"text")
    with pytest.raises(ModelError, match=r"BAD_MODEL.*not a TorchScript file"):
        open_torchscript(str(tmp_path), settings=SETTINGS)
    (tmp_path / "torchscript.toml").unlink()
    with pytest.raises(ModelError, match=r"NOT_FOUND.*torchscript.toml"):
        open_torchscript(str(tmp_path), settings=SETTINGS)

"""The kind ``lungmask``: label maps of lungmask 0.2.20 itself, its weights, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from ctenrich.errors import InputError, ModelError, UsageError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import parse_segmenter
from ctenrich.models.library import import_model, list_models, show_model, verify_model
from ctenrich.networks.lungmask import open_lungmask
from ctenrich.networks.lungmask_rules import clean_labels
from ctenrich.records import Matrix4, Quantity
from ctenrich.runner.forecast import model_terms
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace
from tests.support.network_cases import (
    LUNGMASK_CASES,
    LUNGMASK_CLASSES,
    LungmaskCase,
    chest,
    lungmask_arrays,
    tensors,
    volume_spacing,
)
from tests.support.small_models import any_series, volume_record
from tests.support.totalsegmentator_cases import affine_ras

GOLDEN = Path(__file__).parents[1] / "golden" / "lungmask"
SETTINGS = SegmentSettings(threads=1, device="cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with small weights, in a format that needs no conversion."""
    home = tmp_path_factory.mktemp("models")
    for model in ("R231", "LTRCLobes"):
        folder = home / "imported" / f"lungmask-{model}"
        folder.mkdir(parents=True)
        save_file(tensors(lungmask_arrays(model)), folder / "weights.safetensors")
    return home


@pytest.fixture(autouse=True)
def own_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTENRICH_MODELS", str(home))


def affine_lps(stack: str) -> Matrix4:
    return tuple(map(tuple, (np.diag([-1, -1, 1, 1]) @ affine_ras(stack)).tolist()))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[pytest.mark.long] if case.long else []) for case in LUNGMASK_CASES],
)
def test_no_voxel_differs_from_lungmask(case: LungmaskCase) -> None:
    wanted = np.load(GOLDEN / f"{case.name}.npz")["labels"]
    assert len(np.unique(wanted)) >= 3
    labels = open_lungmask(case.task, settings=SETTINGS).label(chest(), affine_lps(case.stack))
    assert np.count_nonzero(labels != wanted) == 0


def test_a_product_has_codes_for_both_lungs(tmp_path: Path) -> None:
    spec = parse_segmenter("lungmask:R231")
    segmenter = segmenter_kind("lungmask").open(spec, Settings(segment=SETTINGS))
    assert str(segmenter.product) == "lungmask:R231"
    assert (segmenter.info.name, segmenter.info.version, segmenter.info.licence) == (
        "lungmask R231",
        "0.2.20",
        "Apache-2.0",
    )
    workspace = Workspace(tmp_path / "run")
    volume = volume_record(chest(), volume_spacing(), workspace)
    masks = segmenter.segment({"CT": volume}, any_series(volume), settings=Settings(), workspace=workspace)
    assert [(s.number, s.name) for s in masks.segments] == [(1, "lung_right"), (2, "lung_left")]
    assert masks.segments[0].voxels == np.count_nonzero(np.load(GOLDEN / "r231.npz")["labels"] == 1)
    other = volume_record(chest(), volume_spacing(), workspace, quantity=Quantity.UNKNOWN)
    with pytest.raises(InputError, match="WRONG_MODALITY"):
        segmenter.segment({"CT": other}, any_series(other), settings=Settings(), workspace=workspace)


def test_lobes_have_their_own_segments() -> None:
    names = [name for _, name, _ in open_lungmask("LTRCLobes_R231", settings=SETTINGS).names]
    lobes = ["upper_lobe_left", "lower_lobe_left", "upper_lobe_right", "middle_lobe_right", "lower_lobe_right"]
    assert names == [f"lung_{lobe}" for lobe in lobes]


def test_the_plan_states_licence_and_citation_of_both_models() -> None:
    terms = model_terms(["lungmask:LTRCLobes_R231", "lungmask:R232"], "none")
    assert [(name, licence) for name, licence, _ in terms] == [
        ("lungmask-LTRCLobes", "Apache-2.0"),
        ("lungmask-R231", "Apache-2.0"),
    ]
    assert "10.1186/s41747-020-00173-2" in terms[0][2]


def test_number_of_threads_does_not_change_the_answer() -> None:
    many = open_lungmask("R231", settings=SegmentSettings(threads=3, device="cpu"))
    one = open_lungmask("R231", settings=SETTINGS)
    assert np.array_equal(many.label(chest(), affine_lps("lps")), one.label(chest(), affine_lps("lps")))


def test_weights_that_are_not_here_are_named_with_the_command(empty_home: Path) -> None:
    with pytest.raises(ModelError, match=r"NOT_FOUND.*lungmask-R231 .*ctenrich models pull lungmask-R231"):
        open_lungmask("R231", settings=SETTINGS)


def test_a_file_that_lungmask_downloaded_is_used_and_can_be_imported(
    empty_home: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = empty_home / "hub" / "hub" / "checkpoints" / "unet_r231-d5d2fc3d.pth"
    file.parent.mkdir(parents=True)
    torch.save(tensors(lungmask_arrays("R231")), file)
    monkeypatch.setenv("TORCH_HOME", str(empty_home / "hub"))
    first = open_lungmask("R231", settings=SETTINGS).info.sha256
    assert import_model(file).name == "lungmask-R231"
    assert {m.name: m.installed for m in list_models()}["lungmask-R231"] is True
    shown = show_model("lungmask-R231")
    assert (shown["segmenter"], shown["labels"]) == ("lungmask:R231", {"Right lung": 1, "Left lung": 2})
    assert [(row["code"], row["side"]) for row in shown["classes"]] == [
        ("39607008 SCT Lung", "Right"),
        ("39607008 SCT Lung", "Left"),
    ]
    assert verify_model("lungmask-R231") == ()
    assert open_lungmask("R231", settings=SETTINGS).info.sha256 == first
    inside = empty_home / "own" / "imported" / "lungmask-R231" / file.name
    assert json.loads((inside.parent / "import.json").read_text())["kind"] == "lungmask"
    inside.write_bytes(inside.read_bytes() + b" ")
    with pytest.raises(ModelError, match="HASH_MISMATCH"):
        open_lungmask("R231", settings=SETTINGS)
    assert "HASH_MISMATCH" in verify_model("lungmask-R231")[0].message
    monkeypatch.setenv("CTENRICH_MODELS", str(home))
    assert open_lungmask("R231", settings=SETTINGS).info.sha256 == first


def _lobes() -> dict[str, torch.Tensor]:
    return tensors(lungmask_arrays("LTRCLobes"))


def _without_a_layer() -> dict[str, torch.Tensor]:
    return {k: v for k, v in tensors(lungmask_arrays("R231")).items() if not k.startswith("up_path.2.up")}


def _with_another_layer() -> dict[str, torch.Tensor]:
    return tensors(lungmask_arrays("R231")) | {"extra.weight": torch.zeros(1)}


def _of_another_shape() -> dict[str, torch.Tensor]:
    return tensors(lungmask_arrays("R231")) | {"down_path.1.block.0.weight": torch.zeros(4, 3, 3, 3)}


def _not_finite() -> dict[str, torch.Tensor]:
    return tensors(lungmask_arrays("R231")) | {"last.weight": torch.full((3, 2, 1, 1), float("nan"))}


def _another_network() -> dict[str, torch.Tensor]:
    return {"encoder.weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_lobes, r"BAD_MODEL.*5 classes, lungmask-R231 has 2"),
        (_without_a_layer, r"BAD_MODEL.*has no tensor up_path.2.up.1.bias and 1 more.*another architecture"),
        (_with_another_layer, r"BAD_MODEL.*unknown tensor extra.weight"),
        (_of_another_shape, r"BAD_MODEL.*down_path.1.block.0.weight.*\(4, 3, 3, 3\), not \(4, 2, 3, 3\)"),
        (_not_finite, r"BAD_MODEL.*last.weight.*not finite"),
        (_another_network, r"BAD_MODEL.*not a network of lungmask"),
    ],
)
def test_other_weights_are_refused_at_import(
    empty_home: Path, content: Callable[[], dict[str, torch.Tensor]], reason: str
) -> None:
    save_file(content(), empty_home / "w.safetensors")
    with pytest.raises(ModelError, match=reason):
        import_model(empty_home / "w.safetensors", name="lungmask-R231")
    assert not (empty_home / "own" / "imported" / "lungmask-R231").exists()


def test_a_task_that_lungmask_does_not_have() -> None:
    check = segmenter_kind("lungmask").check
    assert check is not None
    check(parse_segmenter("lungmask:LTRCLobes_R231"))
    with pytest.raises(UsageError, match=r"no model 'R232'.*did you mean R231"):
        check(parse_segmenter("lungmask:R232"))
    with pytest.raises(UsageError, match=r"BAD_SETTINGS.*do not keep probabilities"):
        open_lungmask("R231", settings=SegmentSettings(probabilities=True))


def _slow_components(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Largest component of each class with its holes filled, for maps without small components to merge."""
    from scipy import ndimage

    out = np.zeros_like(labels)
    for value in np.unique(labels)[1:]:
        parts, _ = ndimage.label(labels == value, np.ones((3, 3, 3)))
        largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
        out[ndimage.binary_fill_holes(parts == largest)] = value
    return out


def test_components_without_a_neighbour_are_removed_and_holes_filled() -> None:
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:5, 2:9, 2:9] = 1
    labels[2:4, 4:6, 4:6] = 0
    labels[1:5, 12:18, 12:18] = 2
    labels[0, 0:2, 16:19] = 1
    assert np.array_equal(clean_labels(labels), _slow_components(labels))
    assert LUNGMASK_CLASSES["R231"] == 3


def test_a_small_component_goes_to_the_neighbour_with_which_it_shares_most() -> None:
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[:, 2:8, 2:14] = 1
    labels[:, 8:14, 2:14] = 2
    labels[1:3, 10:12, 5:8] = 1
    cleaned = clean_labels(labels)
    assert (cleaned[1:3, 10:12, 5:8] == 2).all()
    assert (cleaned[:, 2:8, 2:14] == 1).all()


def test_a_file_with_a_program_is_refused(empty_home: Path) -> None:
    torch.save({"last.bias": Path("x")}, empty_home / "unet_r231-d5d2fc3d.pth")
    with pytest.raises(ModelError, match="UNSAFE_WEIGHTS"):
        import_model(empty_home / "unet_r231-d5d2fc3d.pth")
    (empty_home / "w.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(ModelError, match=r"BAD_MODEL.*not a safetensors file"):
        import_model(empty_home / "w.safetensors", name="lungmask-R231")

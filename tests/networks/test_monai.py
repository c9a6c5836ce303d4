"""The kind ``monai``: label maps of MONAI 1.6.1 itself, what a bundle states, and what is refused."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ctenrich.errors import InputError, ModelError, UsageError
from ctenrich.inference import registry
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import parse_segmenter
from ctenrich.models import library
from ctenrich.models.library import import_model, pull_model, show_model, verify_model
from ctenrich.networks import grid
from ctenrich.networks.bundle import read_bundle
from ctenrich.networks.grid_segmenter import GridSegmenter
from ctenrich.networks.intensities import Intensity, IntensityStep, apply_intensities
from ctenrich.networks.monai import open_monai
from ctenrich.networks.windows import Windows, label_by_windows, window_starts
from ctenrich.settings import RunSettings, SegmentSettings, Settings
from ctenrich.workspace import Workspace
from tests.support.network_cases import (
    BUNDLE_CLASSES,
    MONAI_CASES,
    MonaiCase,
    bundle_config,
    bundle_metadata,
    chest,
    segresnet_arrays,
    tensors,
    volume_spacing,
    write_bundle,
)
from tests.support.small_models import any_series, volume_record
from tests.support.totalsegmentator_cases import affine_ras

GOLDEN = Path(__file__).parents[1] / "golden" / "monai"
SETTINGS = SegmentSettings(threads=1, device="cpu")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the bundles ``small`` and ``ranged``."""
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "small")
    write_bundle(folder / "ranged", ranged=True)
    return folder


def opened(bundles: Path, case: MonaiCase) -> GridSegmenter:
    name = "ranged" if case.ranged else "small"
    return open_monai(str(bundles / name), resolution="lowres" if case.low else "", settings=SETTINGS)


def affine_lps(stack: str) -> Any:
    return tuple(map(tuple, (np.diag([-1, -1, 1, 1]) @ affine_ras(stack)).tolist()))


@pytest.mark.parametrize("case", MONAI_CASES, ids=lambda case: case.name)
def test_no_voxel_differs_from_monai(bundles: Path, case: MonaiCase) -> None:
    wanted = np.load(GOLDEN / f"{case.name}.npz")["labels"]
    assert len(np.unique(wanted)) >= 5
    labels = opened(bundles, case).label(chest(), affine_lps(case.stack))
    assert np.count_nonzero(labels != wanted) == 0


def test_slabs_of_planes_do_not_change_the_answer(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_SLAB_VOXELS", 5000)
    case = next(case for case in MONAI_CASES if case.name == "lowres-oblique")
    wanted = np.load(GOLDEN / "lowres-oblique.npz")["labels"]
    assert np.array_equal(opened(bundles, case).label(chest(), affine_lps(case.stack)), wanted)


def test_a_bundle_makes_masks_with_version_and_licence(bundles: Path, tmp_path: Path) -> None:
    spec = parse_segmenter(f"monai:{bundles / 'small'}:lowres")
    segmenter = segmenter_kind("monai").open(spec, Settings(segment=SETTINGS))
    assert str(segmenter.product) == "monai:small-lowres"
    info = segmenter.info
    assert (info.name, info.version, info.licence) == ("Small whole body", "0.2.5", "Apache License")
    workspace = Workspace(tmp_path / "run")
    volume = volume_record(chest(), volume_spacing(), workspace)
    masks = segmenter.segment({"CT": volume}, any_series(volume), settings=Settings(), workspace=workspace)
    assert [s.name for s in masks.segments] == list(BUNDLE_CLASSES[1:])
    small = Settings(run=RunSettings(memory_limit=100_000))
    with pytest.raises(InputError, match=r"OUT_OF_MEMORY.*scores of 6 classes"):
        segmenter.segment({"CT": volume}, any_series(volume), settings=small, workspace=workspace)


def test_the_published_configuration_is_read() -> None:
    """Expressions of wholeBody_ct_segmentation 0.2.5, and its 104 classes, all of which have codes."""
    from ctenrich.codes.tasks import task_classes
    from ctenrich.inference.segmentation import class_names

    classes = task_classes("monai:wholeBody_ct_segmentation")
    assert len(classes) == 104
    labels = {item.class_name: item.label for item in classes}
    names = class_names(labels, "whole body", {item.class_name: item.segment for item in classes})
    assert [value for value, _, _ in names] == list(range(1, 105))


def test_what_a_bundle_states(bundles: Path) -> None:
    bundle = read_bundle(bundles / "small")
    assert (bundle.rules.axes, bundle.rules.spacing, bundle.weights.name) == ("RAS", (2, 2, 2), "model.safetensors")
    assert bundle.rules.windows == Windows(size=(20, 24, 16), overlap=0.25, gaussian=True, padding="replicate")
    low = read_bundle(bundles / "small", "lowres")
    assert (low.rules.spacing, low.weights.name) == ((3, 3, 3), "model_lowres.safetensors")
    first = open_monai(str(bundles / "small"), settings=SETTINGS).info.sha256
    assert open_monai(str(bundles / "small"), resolution="highres", settings=SETTINGS).info.sha256 == first
    assert open_monai(str(bundles / "small"), resolution="lowres", settings=SETTINGS).info.sha256 != first


def test_a_bundle_is_imported_from_its_folder_and_pinned(bundles: Path, empty_home: Path) -> None:
    folder = write_bundle(empty_home / "own-bundle", safe=False)
    status = import_model(folder, name="whole")
    assert (status.kind, status.licence) == ("monai", "Apache License")
    shown = show_model("whole")
    assert (shown["segmenter"], shown["axes"], shown["licence"]) == ("monai:whole", "RAS", "Apache License")
    assert verify_model("whole") == ()
    assert (
        open_monai("whole", settings=SETTINGS).info.sha256
        == open_monai(str(bundles / "small"), settings=SETTINGS).info.sha256
    )
    config = empty_home / "own" / "imported" / "whole" / "configs" / "inference.json"
    config.write_text(config.read_text().replace("0.25", "0.5"))
    with pytest.raises(ModelError, match=r"HASH_MISMATCH.*configs/inference.json"):
        open_monai("whole", settings=SETTINGS)


def test_the_published_bundle_is_pulled_and_compared_with_its_published_hash(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of this machine has a small bundle in place of the published one."""
    name = "wholeBody_ct_segmentation"
    folder = write_bundle(empty_home / "site" / name, safe=False)
    file = empty_home / "site" / f"{name}_v0.2.5.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder.parent))
    handler = partial(SimpleHTTPRequestHandler, directory=str(file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        with pytest.raises(ModelError, match=rf"HASH_MISMATCH.*published for {name} is d3be077219fea4ac"):
            pull_model(name, url=url)
        known = registry.registry()
        right = replace(known[name], sha1=hashlib.sha1(file.read_bytes()).hexdigest())
        for module in (registry, library):
            monkeypatch.setattr(module, "registry", lambda: {**known, name: right})
        status = pull_model(name, url=url)
        server.shutdown()
        thread.join()
    assert (status.kind, status.licence, status.installed) == ("monai", "Apache-2.0", True)
    assert open_monai(name, settings=SETTINGS).info.name
    assert not list((empty_home / "own" / "downloads").glob("*.zip"))


# ---------------------------------------------------------------- refusals


def _config(change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    config = bundle_config()
    change(config)
    return {"configs/inference.json": json.dumps(config)}


def _metadata(**image: Any) -> dict[str, str]:
    metadata = bundle_metadata()
    metadata["network_data_format"]["inputs"]["image"] |= image
    return {"configs/metadata.json": json.dumps(metadata)}


def _classes(names: dict[str, str]) -> dict[str, str]:
    metadata = bundle_metadata()
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = names
    return {"configs/metadata.json": json.dumps(metadata)}


NAMED = {str(n): name for n, name in enumerate(BUNDLE_CLASSES)}
PRE = "preprocessing"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"configs/metadata.json": None}, r"NOT_FOUND.*no file configs/metadata.json"),
        ({"models/model.safetensors": None}, r"NOT_FOUND.*no file model.pt"),
        ({"configs/inference.json": "{"}, r"BAD_MODEL.*inference.json is not JSON"),
        (_metadata(modality="MR"), r"WRONG_MODALITY.*1 channels of MR"),
        (_metadata(num_channels=4), r"WRONG_MODALITY"),
        (_classes(NAMED | {"six": "trachea"}), r"BAD_MODEL.*does not name the classes"),
        (_classes(NAMED | {"6": "trachea"}), r"BAD_MODEL.*names 6 classes, its network has 5"),
        (_classes(NAMED | {"5": "left thing"}), r"UNMAPPED_LABEL.*'left thing'"),
        (_config(lambda c: c["network_def"].update(_target_="UNet")), r"BAD_MODEL.*is UNet.*torchscript:"),
        (_config(lambda c: c["network_def"].update(use_conv_final=False)), r"BAD_MODEL.*options"),
        (_config(lambda c: c["network_def"].update(init_filters=16)), r"BAD_MODEL.*has the shape \(8, "),
        (
            _config(lambda c: c["network_def"].update(blocks_down=[1, 1, 2])),
            r"BAD_MODEL.*unknown tensor down_layers.1.2",
        ),
        (_config(lambda c: c.update(pixdim="$numpy.ones(3)")), r"BAD_MODEL.*expression \$numpy.ones.*executed"),
        (_config(lambda c: c["network_def"].update(blocks_up=[1])), r"BAD_MODEL.*number of blocks"),
        (_config(lambda c: c["network_def"].update(blocks_down=[10**9, 1, 1])), r"BAD_MODEL.*number of blocks"),
        (_config(lambda c: c["network_def"].update(out_channels="six")), r"BAD_MODEL.*not whole numbers"),
        (_config(lambda c: c["network_def"].update(init_filters=12)), r"BAD_MODEL.*12 filters .*8 equal groups"),
        (_config(lambda c: c["inferer"].update(roi_size=[20, 24, 18])), r"BAD_MODEL.*cannot be halved 2 times"),
        (_config(lambda c: c["inferer"].update(sigma_scale=0.2)), r"BAD_MODEL.*option sigma_scale"),
        (_config(lambda c: c.update(pixdim=[0, 1, 1])), r"BAD_MODEL.*pixdim"),
        (_config(lambda c: c.update(pixdim="@pixdim")), r"BAD_MODEL.*refers to itself"),
        (_config(lambda c: c[PRE]["transforms"].insert(4, {"_target_": "Resized"})), r"BAD_MODEL.*transform Resized"),
        (_config(lambda c: c[PRE]["transforms"][3].update(axcodes="PIL")), r"BAD_MODEL.*turns the image to PIL"),
        (_config(lambda c: c[PRE]["transforms"][4].update(mode="nearest")), r"BAD_MODEL.*Spacingd .*mode"),
        (_config(lambda c: c["inferer"].update(_target_="SimpleInferer")), r"BAD_MODEL.*SlidingWindowInferer"),
        (_config(lambda c: c["postprocessing"]["transforms"].pop(2)), r"BAD_MODEL.*postprocessing is AsDiscreted;"),
    ],
)
def test_what_cannot_be_run_as_monai_does_is_refused(tmp_path: Path, files: dict[str, Any], reason: str) -> None:
    folder = write_bundle(tmp_path / "b")
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content)
    with pytest.raises(ModelError, match=reason):
        open_monai(str(folder), settings=SETTINGS)


def test_other_resolutions_and_folders(bundles: Path, tmp_path: Path) -> None:
    check = segmenter_kind("monai").check
    assert check is not None
    check(parse_segmenter(f"monai:{bundles / 'small'}:lowres"))
    with pytest.raises(UsageError, match=r"BAD_PARAMETER.*'midres'"):
        check(parse_segmenter(f"monai:{bundles / 'small'}:midres"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"BAD_MODEL.*not a MONAI bundle"):
        open_monai(str(tmp_path / "empty"), settings=SETTINGS)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    weights = tensors(segresnet_arrays(5))
    weights["conv_final.2.conv.bias"][0] = float("inf")
    save_file(weights, folder / "models" / "model.safetensors")
    with pytest.raises(ModelError, match=r"BAD_MODEL.*conv_final.2.conv.bias.*not finite"):
        open_monai(str(folder), settings=SETTINGS)


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize(
    ("count", "size", "overlap", "starts"),
    [(96, 96, 0.25, [0]), (200, 96, 0.25, [0, 72, 104]), (97, 96, 0.0, [0, 1]), (10, 4, 0.99, list(range(7)))],
)
def test_window_starts(count: int, size: int, overlap: float, starts: list[int]) -> None:
    assert window_starts(count, size, overlap) == starts


def test_many_classes_get_a_wider_type() -> None:
    windows = Windows(size=(4, 4, 4), overlap=0.5, gaussian=False, padding="constant")

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(x[0, 0].long(), 300).permute(3, 0, 1, 2)[None].float()

    wanted = torch.randint(0, 300, (9, 3, 5), generator=torch.Generator().manual_seed(1))
    labels = label_by_windows(forward, wanted.float(), windows, 300, workers=3)
    assert labels.dtype == torch.int16
    assert torch.equal(labels.long(), wanted)


def test_intensities_of_constant_volumes() -> None:
    zeros = torch.zeros(2, 2, 2)
    steps = [Intensity(step=IntensityStep.ZSCORE_NONZERO), Intensity(step=IntensityStep.MINMAX, values=(-1, 1))]
    assert torch.equal(apply_intensities(zeros.clone(), steps), zeros)
    ones = torch.ones(2, 2, 2)
    assert torch.equal(apply_intensities(ones.clone(), [Intensity(step=IntensityStep.ZSCORE)]), zeros)
    half = [
        Intensity(step=IntensityStep.STANDARD, values=(0.5, 0.25)),
        Intensity(step=IntensityStep.CLIP, values=(0, 1)),
    ]
    assert torch.equal(apply_intensities(ones.clone(), half), ones)

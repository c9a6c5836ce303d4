"""A peer's own package, run by another Python, answers on the grid of the CT; label maps are compared by class."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.conftest import need_package
from tests.support.network_cases import write_bundle
from tests.support.small_models import UID, any_series, smooth_volume, volume_record, write_v2

from ctenrich.errors import ModelError, ToolError, UsageError
from ctenrich.inference.products import parse_segmenter
from ctenrich.models import peer_script
from ctenrich.models.peer import ClassParity, Peer, check_with_peer, label_by_peer, peer_of
from ctenrich.nnunet.conventions import Conventions
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
from ctenrich.series_store import SeriesStore
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace

SETTINGS = Settings(segment=SegmentSettings(threads=1, device="cpu"))
FEET_FIRST = ((-1.3, 0.0, 0.0, 9.0), (0.0, 1.2, 0.0, 5.0), (0.0, 0.0, -3.0, 7.0), (0.0, 0.0, 0.0, 1.0))


@pytest.mark.long
def test_nnunetv2_in_another_process_labels_what_we_label(tmp_path: Path, workspace: Workspace) -> None:
    """Half precision of its sums turns some voxels where random weights score alike; the axes are the same."""
    need_package("reference", "nnunetv2")
    folder = write_v2(tmp_path / "m", axes=(), stated="")
    record = volume_record(smooth_volume((10, 28, 31), 5), (3.0, 1.2, 1.3), workspace, affine_lps=FEET_FIRST)
    store = SeriesStore(workspace)
    store.save(record, UID)
    store.save(any_series(record), UID)
    spec = parse_segmenter(f"nnunet:{folder}:mirror=off:axes=RAS:step=0.8")
    before = sorted(workspace.root.rglob("*"))
    report = check_with_peer(spec, Path(sys.executable), workspace.root, settings=SETTINGS)
    assert sorted(workspace.root.rglob("*")) == before, "nothing is written to the run"
    assert report.package.startswith("nnunetv2 2.")
    assert [(row.value, row.organ) for row in report.rows] == [(1, "heart"), (2, "aorta"), (3, "trachea")]
    assert min(row.dice for row in report.rows) > 0.9
    assert max(report.different.values()) < 0.03 * 10 * 28 * 31
    assert report.table()[0]["organ"] == "heart"


def test_what_the_peer_is_asked_for(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "m", folds=("0", "1"), stated='axes = "LAS"')
    spec = parse_segmenter(f"nnunet:{folder}:folds=1:step=0.25")
    opened = open_nnunet(str(folder), folds=("1",), conventions=Conventions(step=0.25), settings=SETTINGS)
    peer = peer_of(spec, opened, SETTINGS)
    assert (peer.package, peer.axes) == ("nnunetv2", "LAS")
    assert peer.request == {
        "model": str(folder), "folds": ["1"], "checkpoint": "checkpoint_final.pth", "mirror": True, "step": 0.25,
        "device": "cpu",
    }  # fmt: skip
    with pytest.raises(UsageError, match="numbered anew"):
        peer_of(parse_segmenter("totalsegmentator:total:roi=liver"), None, SETTINGS)
    with pytest.raises(UsageError, match="no peer"):
        peer_of(parse_segmenter("expert"), None, SETTINGS)


def _with_weights(folder: Path, version: str) -> SimpleNamespace:
    """`total` fast as an opened segmenter, its weights among the imported models."""
    _, recipe = task_recipe("total", "fast", TaskOptions(version=version))
    for part in recipe.all_parts:
        trainer = folder / "imported" / part.weights.folder / part.weights.subfolder
        trainer.mkdir(parents=True)
        (trainer / ("plans.pkl" if part.weights.version == 1 else "plans.json")).write_text("{}")
    return SimpleNamespace(recipe=recipe)


def test_what_totalsegmentator_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported weights as well as its own; its process gets links, because it deletes those of other versions."""
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "none"))
    opened = _with_weights(tmp_path, "2.18")
    task = peer_of(parse_segmenter("totalsegmentator:total:fast:crop=robust:small=200"), opened, SETTINGS)
    assert task.package == "TotalSegmentator"
    assert task.request["options"] == {
        "task": "total", "device": "cpu", "fast": True, "robust_crop": True, "remove_small_blobs": 200.0,
    }  # fmt: skip
    place = (
        "Dataset297_TotalSegmentator_total_3mm_1559subj/nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"
    )
    assert task.request["weights"] == {place: str(tmp_path / "imported" / place)}
    linked = peer_script._link_weights({"home": str(tmp_path / "home"), **task.request})
    assert (linked / place / "plans.json").is_file()
    assert not (linked / place).parent.is_symlink()
    opened = _with_weights(tmp_path, "1.5.6")
    first = peer_of(parse_segmenter("totalsegmentator:total:fast:split=on:as=1.5.6"), opened, SETTINGS)
    assert first.package == "TotalSegmentator 1"
    assert first.request["options"] == {"task": "total", "fast": True, "force_split": True}
    assert [p.split("/")[:3] for p in first.request["weights"]] == [
        ["nnUNet", "3d_fullres", "Task256_TotalSegmentator_3mm_1139subj"]
    ]
    with pytest.raises(UsageError, match=r"1\.5\.6 has no option remove_small_blobs"):
        peer_of(parse_segmenter("totalsegmentator:total:small=200:as=1.5.6"), opened, SETTINGS)


def test_what_moose_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body composition needs a second model, which finds the vertebrae."""
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path))
    names = {"clin_ct_body_composition": "Dataset778_Body_composition"}
    names |= {"clin_ct_fast_vertebrae": "Dataset112_FastVertebrae"}
    for folder in names.values():
        trainer = tmp_path / folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
        trainer.mkdir(parents=True)
        (trainer / "plans.json").write_text("{}")
    peer = peer_of(parse_segmenter("moose:clin_ct_body_composition"), None, SETTINGS)
    assert (peer.package, peer.request["model"], peer.request["device"]) == (
        "moosez",
        "clin_ct_body_composition",
        "cpu",
    )
    weights = peer.request["weights"]
    assert {name: folder for name, (folder, _) in weights.items()} == names
    assert all(
        (Path(source) / "plans.json").is_file() or list(Path(source).rglob("plans.json"))
        for _, source in weights.values()
    )


def test_another_version_of_the_peer_is_refused_by_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_script, "version", lambda _: "2.18.0")
    with pytest.raises(SystemExit, match=r"has TotalSegmentator 2\.18\.0.*that of 1\.x"):
        peer_script._prepare_totalsegmentator({"home": str(tmp_path), "weights": {}}, "1")


def test_what_lungmask_and_monai_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    files = [hub / "unet_ltrclobes-3a07043d.pth", hub / "unet_r231-d5d2fc3d.pth"]
    for file in files:
        file.write_bytes(b"")
    lobes = peer_of(parse_segmenter("lungmask:LTRCLobes_R231"), None, SETTINGS)
    assert lobes.package == "lungmask"
    assert lobes.request == {"models": ["LTRCLobes", "R231"], "files": [str(file) for file in files], "cpu": True}
    bundle = write_bundle(tmp_path / "b", safe=False)
    low = peer_of(parse_segmenter(f"monai:{bundle}:lowres"), None, SETTINGS)
    assert (low.package, low.request) == ("monai", {"bundle": str(bundle), "resolution": "lowres", "device": "cpu"})
    for file in (bundle / "models").iterdir():
        file.rename(file.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match="MONAI reads files of torch"):
        peer_of(parse_segmenter(f"monai:{bundle}"), None, SETTINGS)


def stub(tmp_path: Path, body: str) -> Path:
    """A program in place of the environment's Python; it gets ``-I SCRIPT REQUEST.json``."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\nimport json, sys\nfrom pathlib import Path\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_answer_comes_back_to_the_grid_of_the_ct(tmp_path: Path) -> None:
    """The stub answers with the image itself: what comes back must be what was given, whatever the axes."""
    copy = (
        "import shutil\nr = json.loads(Path(sys.argv[3]).read_text())\nshutil.copy(r['image'], r['answer'])\n"
        "print('noise'); print(json.dumps({'version': '9', 'seconds': 1.5}))"
    )
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    for axes in ("", "RAS", "LAS", "LPS"):
        peer = Peer(package="nnunetv2", request={}, axes=axes)
        answer = label_by_peer(stub(tmp_path, copy), peer, array, FEET_FIRST)
        assert np.array_equal(answer.labels, array)
        assert (answer.version, answer.seconds) == ("9", 1.5)


def refused(python: Path) -> ToolError:
    array: Any = np.zeros((2, 3, 4), np.int16)
    with pytest.raises(ToolError) as caught:
        label_by_peer(python, Peer(package="nnunetv2", request={}), array, FEET_FIRST)
    return caught.value


def test_what_goes_wrong_in_the_other_process_is_stated(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").reason is Reason.TOOL_MISSING
    error = refused(stub(tmp_path, "sys.exit('no module named nnunetv2')"))
    assert error.reason is Reason.TOOL_FAILED
    assert "no module named nnunetv2" in error.message
    assert refused(stub(tmp_path, "print('hello')")).reason is Reason.TOOL_FAILED


def test_dice_of_a_class() -> None:
    row = ClassParity(value=1, organ="heart", ours=10, theirs=6, different=8, common=4)
    assert row.dice == 0.5
    assert ClassParity(value=2, organ="aorta", ours=0, theirs=0, different=0, common=0).dice == 1

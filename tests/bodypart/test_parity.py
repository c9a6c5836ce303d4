"""Side by side with bpreg 1.1.0 on real CT: same images, same network, same clean-up, same lists."""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from tests.conftest import skip_or_fail
from tests.support.bodypart_cases import CT, SERIES, read_ct

from ctenrich.bodypart.bpreg_json import bodypart_document
from ctenrich.bodypart.scorer import open_bodypart
from ctenrich.records import SliceScores, SortedSeries, Volume
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace, load_array

SETTINGS = Settings(segment=SegmentSettings(device="cpu"))
EVERY = {"LUNG1-001": 3, "LUNG1-002-RT": 3, "LUNG1-005": 1, "4D-Lung-113": 3}
"""Archive -> every n-th slice is taken; one scan is scored whole."""
ORACLE = Path(__file__).parents[2] / "scripts" / "bpreg_oracle.py"

pytestmark = [pytest.mark.long, pytest.mark.data]


def bpreg_python() -> Path:
    """Python of the environment that scripts/install_bpreg.sh makes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = Path(os.environ.get("CTENRICH_BPREG_PYTHON") or cache / "ctenrich-services" / "bpreg" / "bin" / "python")
    if not python.is_file():
        skip_or_fail("bpreg", "bpreg is not installed (scripts/install_bpreg.sh)")
    return python


def ask_bpreg(model: Path, inputs: list[Path], folder: Path) -> list[dict[str, Any]]:
    """Lend bpreg the packages of this environment: its own may have been installed for another clone's."""
    out = folder / "bpreg.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTENRICH_BPREG_BASE", sysconfig.get_paths()["purelib"])
        run_tool([bpreg_python(), ORACLE, model, out, *inputs], timeout=900)
    answers: list[dict[str, Any]] = json.loads(out.read_text())
    return answers


def agree(document: dict[str, Any], raw: list[float | None], theirs: dict[str, Any]) -> None:
    """The numbers of the comparison: raw within 1e-3, cleaned within 1e-2, flags and lists equal."""
    np.testing.assert_allclose(np.array(raw, float), theirs["raw"], atol=1e-3)
    bpreg = theirs["document"]
    ours, golden = (np.array(d["cleaned slice scores"], float) for d in (document, bpreg))
    np.testing.assert_allclose(ours, golden, atol=1e-2)
    for key in ("valid z-spacing", "reverse z-ordering", "body part examined", "body part examined tag"):
        assert document[key] == bpreg[key], key
    for key in ("observed slope", "slope ratio", "expected z-spacing", "z-spacing", "expected slope"):
        assert document[key] == pytest.approx(bpreg[key], abs=1e-4), key
    assert document["look-up table"] == bpreg["look-up table"]
    np.testing.assert_allclose(document["z"], bpreg["z"], atol=1e-6)


@dataclass(frozen=True)
class Compared:
    """One CT, and what bpreg says about it."""

    workspace: Workspace
    volume: Volume
    series: SortedSeries
    theirs: dict[str, Any]

    def agree(self, model: Path) -> SliceScores:
        """Score it with our network, and compare."""
        scorer = open_bodypart(str(model), settings=SETTINGS)
        scores = scorer.score(self.volume, self.series, settings=SETTINGS, workspace=self.workspace)
        agree(bodypart_document(scores), list(scores.raw), self.theirs)
        return scores


@pytest.fixture(scope="module")
def compared(
    real_data: Callable[[str], Path], shared_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Compared]:
    """Each CT read by us and scored by bpreg, which is started once."""
    folder = tmp_path_factory.mktemp("cts")
    inputs = []
    for name, every in EVERY.items():
        workspace = Workspace(folder / f"{name}-run")
        volume, series = read_ct(real_data(name), workspace, every)
        array = load_array(workspace.resolve(SERIES, volume.array_path))
        order = (volume.spacing[1], volume.spacing[2], volume.spacing[0])
        np.savez(folder / f"{name}.npz", array=array.transpose(1, 2, 0), spacing=np.array(order))
        inputs.append((folder / f"{name}.npz", workspace, volume, series))
    (folder / "ct").mkdir()
    for path in sorted(p for p in real_data("LUNG1-005").rglob("*") if p.is_file()):
        try:
            if pydicom.dcmread(path, specific_tags=["SOPClassUID"]).get("SOPClassUID") == CT:
                shutil.copy(path, folder / "ct" / f"{len(list((folder / 'ct').iterdir()))}.dcm")
        except pydicom.errors.InvalidDicomError:
            continue
    run_tool([find_tool("dcm2niix"), "-z", "n", "-f", "ct", "-o", folder, folder / "ct"])
    inputs.append((folder / "ct.nii", *inputs[list(EVERY).index("LUNG1-005")][1:]))
    answers = ask_bpreg(shared_model("bpr-lung1-demo"), [path for path, *_ in inputs], folder)
    return {path.name: Compared(*ours, theirs) for (path, *ours), theirs in zip(inputs, answers, strict=True)}


@pytest.mark.parametrize("name", EVERY)
def test_images_as_viewers_show_them(
    name: str, compared: dict[str, Compared], shared_model: Callable[[str], Path]
) -> None:
    """Through bpreg's way for arrays, given [posterior, left, head]: the axes that this model was fitted on."""
    scores = compared[f"{name}.npz"].agree(shared_model("bpr-lung1-demo"))
    values = np.array(scores.cleaned, float)
    assert np.corrcoef(scores.z, values)[0, 1] > 0.97  # from feet to head


def test_images_as_dcm2niix_writes_them(
    compared: dict[str, Compared], shared_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Through the NIfTI file: a model with NIfTI axes sees what bpreg sees."""
    model = Path(shutil.copytree(shared_model("bpr-lung1-demo"), tmp_path / "nifti-axes"))
    (model / "config.json").chmod(0o600)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"image axes": "nifti"}))
    compared["ct.nii"].agree(model)

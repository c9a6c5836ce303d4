"""Side by side with bpreg 1.1.0 on real CT: same images, same network, same clean-up, same lists."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import skip_or_fail
from tests.support.bodypart_cases import CT, SERIES, read_ct

from ctenrich.bodypart.bpreg_json import bodypart_document
from ctenrich.bodypart.scorer import open_bodypart
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace, load_array

SETTINGS = Settings(segment=SegmentSettings(device="cpu"))
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
    out = folder / "bpreg.json"
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


@pytest.mark.parametrize("name", ["LUNG1-001", "LUNG1-002-RT", "LUNG1-005", "4D-Lung-113"])
def test_images_as_viewers_show_them(
    name: str, real_data: Callable[[str], Path], shared_model: Callable[[str], Path], workspace: Workspace,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Through bpreg's way for arrays, given [posterior, left, head]: the axes that this model was fitted on."""
    model = shared_model("bpr-lung1-demo")
    volume, series = read_ct(real_data(name), workspace)
    array = load_array(workspace.resolve(SERIES, volume.array_path))
    order = (volume.spacing[1], volume.spacing[2], volume.spacing[0])
    np.savez(tmp_path / "ct.npz", array=array.transpose(1, 2, 0), spacing=np.array(order))
    theirs = ask_bpreg(model, [tmp_path / "ct.npz"], tmp_path)[0]
    scores = open_bodypart(str(model), settings=SETTINGS).score(volume, series, settings=SETTINGS, workspace=workspace)
    agree(bodypart_document(scores), list(scores.raw), theirs)
    values = np.array(scores.cleaned, float)
    assert np.corrcoef(scores.z, values)[0, 1] > 0.97  # from feet to head


def test_images_as_dcm2niix_writes_them(
    real_data: Callable[[str], Path], shared_model: Callable[[str], Path], workspace: Workspace, tmp_path: Path
) -> None:
    """Through the NIfTI file: a model with NIfTI axes sees what bpreg sees."""
    import pydicom

    model = Path(shutil.copytree(shared_model("bpr-lung1-demo"), tmp_path / "nifti-axes"))
    (model / "config.json").chmod(0o600)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"image axes": "nifti"}))
    (tmp_path / "ct").mkdir()
    for path in sorted(p for p in real_data("LUNG1-005").rglob("*") if p.is_file()):
        try:
            if pydicom.dcmread(path, specific_tags=["SOPClassUID"]).get("SOPClassUID") == CT:
                shutil.copy(path, tmp_path / "ct" / f"{len(list((tmp_path / 'ct').iterdir()))}.dcm")
        except pydicom.errors.InvalidDicomError:
            continue
    run_tool([find_tool("dcm2niix"), "-z", "n", "-f", "ct", "-o", tmp_path, tmp_path / "ct"])
    theirs = ask_bpreg(shared_model("bpr-lung1-demo"), [tmp_path / "ct.nii"], tmp_path)[0]
    volume, series = read_ct(real_data("LUNG1-005"), workspace)
    scores = open_bodypart(str(model), settings=SETTINGS).score(volume, series, settings=SETTINGS, workspace=workspace)
    agree(bodypart_document(scores), list(scores.raw), theirs)

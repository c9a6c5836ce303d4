"""``ctenrich models`` and a run with what was imported: nnU-Net v2 and v1, from the command line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from tests.conftest import need_package
from tests.support.cohorts import make_cohort
from tests.support.small_models import v1_plans, v2_plans, write_v1, write_v2
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.nnunet import engine
from ctenrich.records import SegmentMasks, Volume
from ctenrich.workspace import load_array, load_record

COARSE = (18.0, 16.0, 16.0)
"""mm: few tiles of a small network for a whole chest."""


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    said = result.output + (result.stderr if result.stderr_bytes is not None else "")
    assert result.exit_code == code, said
    return said


@pytest.fixture(autouse=True)
def _models_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    for name in ("nnUNet_raw_data_base", "nnUNet_preprocessed", "RESULTS_FOLDER"):
        monkeypatch.setenv(name, str(tmp_path))


def v2_folder(folder: Path) -> Path:
    return write_v2(folder, v2_plans(configuration={"spacing": list(COARSE)}), folds=("0", "1"))


def v1_folder(folder: Path) -> Path:
    need_package("nnunet-v1", "nnunet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_v1(folder / "3d_fullres" / "trainer", v1_plans(3, False, [COARSE]), 0, folds=2)
    (folder / "labels.json").write_text('{"heart": 1, "aorta": 2, "trachea": 3}')
    return folder


def test_import_list_show_and_verify(tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", v2_folder(tmp_path / "v2"))
    assert "small is ready" in call("models", "import", archive, "--name", "small")
    assert "aorta 2, heart 1, trachea 3" in call("models", "show", "small")
    assert "0 errors" in call("models", "verify", "small")
    assert "small" in call("models", "list")
    changed = next((tmp_path / "home").rglob("fold_0/checkpoint_final.pth"))
    changed.write_bytes(changed.read_bytes()[:-9])
    said = call("models", "verify", "small", code=1)
    assert "HASH_MISMATCH" in said
    assert "checkpoint_final.pth" in said


def test_axes_are_recorded_at_import_and_shown(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "v2", stated="")
    assert "axes: not stated" in call("models", "import", folder, "--name", "open")
    said = call("models", "import", folder, "--name", "small", "--axes", "ras", "--step", "0.8")
    assert "axes: RAS (models import --axes)" in said
    shown = " ".join(call("models", "show", "small").split())
    assert "axes RAS axes from models import --axes step 0.8 step from models import --step" in shown
    assert "15825003 SCT Aorta" in shown
    assert "RAS, LAS or LPS" in call("models", "import", folder, "--name", "x", "--axes", "RPI", code=2)


@pytest.mark.long
def test_check_prints_both_tables_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights would not do: their scores are so near each other that half precision turns whole percents."""
    cohort = make_cohort(tmp_path, 1)
    call("run", cohort, "--out", tmp_path / "run", "--segmenter", "expert", "--executor", "serial")
    options = ("models", "check", "demo-organs", "--reference", "--on", tmp_path / "run", "--no-mirror")
    said = call(*options)
    ours, noise = said.split("its noise from run to run")
    assert "compared with the reference" in ours
    for table in (ours, noise):
        assert all(organ in table for organ in ("aorta", "esophagus", "heart", "trachea"))
    assert "series 1" in noise
    assert "passed" in noise
    assert "NOT passed" not in said
    plain = engine.to_source

    def shifted(*args: Any) -> Any:
        return np.roll(plain(*args), 1, axis=0)

    monkeypatch.setattr(engine, "to_source", shifted)
    said = call(*options, "--no-repeat", code=1)
    assert "run-to-run" not in said
    assert "NOT passed" in said
    monkeypatch.setattr(engine, "to_source", plain)
    said = call("models", "check", "demo-organs", "--axes", "--on", tmp_path / "run")
    assert all(shown in said for shown in ("Dice with the expert", "RAS", "LAS", "LPS", "heart", "mean"))
    assert "models import demo-organs --axes" in said
    assert "add --on RUN" in call("models", "check", "demo-organs", "--axes", code=2)


def test_what_is_no_model_is_refused_with_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for source in ("text.zip", "empty"):
        said = call("models", "import", tmp_path / source, "--name", "bad", code=1)
        assert "BAD_MODEL" in said
    call("models", "verify", "bad", code=2)
    assert not list((tmp_path / "home").rglob("*bad*"))


@pytest.mark.long
@pytest.mark.data
def test_imported_v1_and_v2_models_run_on_a_real_ct(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    """Seeded weights: what is tested is the way from the archive to the objects, not the anatomy."""
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", v1_folder(tmp_path / "v1"))
    call("models", "import", archive, "--name", "old")
    call("models", "import", v2_folder(tmp_path / "v2"), "--name", "new")
    call("index", real_data("LUNG1-005"), "--catalog", tmp_path / "catalog.duckdb")
    catalog, cohort = f"folder:{tmp_path / 'catalog.duckdb'}", tmp_path / "cohort.parquet"
    call("select", "select_ct_series", "--catalog", catalog, "--out", cohort)
    models = ("--segmenter", "nnunet:old:mirror=off:step=1", "--segmenter", "nnunet:new:mirror=off:step=1")
    call("run", cohort, "--out", tmp_path / "run", *models, "--executor", "serial")
    found = {p.parent.name: load_record(p, SegmentMasks) for p in (tmp_path / "run").rglob("masks.json")}
    assert len(found) == 2
    volume = load_record(next((tmp_path / "run").rglob("volume.json")), Volume)
    for masks in found.values():
        assert masks.shape == volume.shape == (91, 512, 512)
        assert set(masks.agreement) == {"heart", "aorta", "trachea"}
        assert set(masks.timings) == {"preprocess", "network", "export", "save"}
        assert masks.label_map_path is not None
    objects = sorted((tmp_path / "run").rglob("objects/seg.dcm"))
    assert len(objects) == 2
    for path in objects:
        assert pydicom.dcmread(path, stop_before_pixels=True).Rows == 512
    labels = [load_array(p) for p in (tmp_path / "run").rglob("masks/labels.npy")]
    assert not np.array_equal(*labels)

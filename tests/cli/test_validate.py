"""``ctenrich validate``: clean on what was written, not clean on what was changed, on objects of others too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
from tests.conftest import unpacked
from tests.support.cohorts import make_cohort
from typer.testing import CliRunner, Result

from ctenrich import steps
from ctenrich.cli.main import app


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validate")
    run = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    assert steps.run_all(run).exit_code == 0
    return run.root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)])


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("again", [[], ["--again"]])
def test_a_run_is_clean(run: Path, again: list[str]) -> None:
    result = call(run, *again)
    assert result.exit_code == 0, result.output
    assert "2 objects, 2 proven; 0 errors" in result.stdout


def test_json_has_a_line_a_finding_and_a_line_an_object(run: Path) -> None:
    result = call(run, "--json")
    verdicts = [line for line in lines(result) if "valid" in line]
    assert [(v["valid"], v["proven"], v["errors"]) for v in verdicts] == [(True, True, 0)] * 2
    assert sum(v["warnings"] for v in verdicts) == sum(line.get("severity") == "warning" for line in lines(result))


def flip(path: Path) -> None:
    ds = pydicom.dcmread(path)
    pixels = bytearray(ds.PixelData)
    pixels[len(pixels) // 2] ^= 0xFF
    ds.PixelData = bytes(pixels)
    ds.save_as(path)


def test_bytes_that_were_changed_are_seen(run: Path) -> None:
    flip(next(run.glob("series/*/expert/objects/seg.dcm")))
    result = call(run, "--json")
    assert result.exit_code == 1
    assert {line["rule"] for line in lines(result) if line.get("severity") == "error"} == {"file.changed"}
    anew = call(run, "--again", "--json")
    assert anew.exit_code == 1
    assert "proof.seg.voxels" in {line.get("rule") for line in lines(anew)}


def test_an_object_that_is_gone_is_seen(run: Path) -> None:
    next(run.glob("series/*/expert/objects/seg.dcm")).unlink()
    assert "the file is not there" in call(run).output


def test_a_run_without_objects_says_what_to_do(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = call(tmp_path / "empty")
    assert result.exit_code == 2
    assert "NOT_FOUND" in result.output
    assert call(tmp_path / "nowhere").exit_code == 2


def test_files_without_a_run(run: Path, tmp_path: Path) -> None:
    """Our objects as anybody's files: valid, not proven; without their CT, references lead nowhere."""
    folder = next(run.glob("series/*/expert/objects"))
    result = call(folder, "--json")
    assert result.exit_code == 0, result.output
    assert {line["proven"] for line in lines(result) if "valid" in line} == {None}
    (tmp_path / "nothing").mkdir()
    assert call(folder, "--source", tmp_path / "nothing").exit_code == 1


def test_the_objects_of_others_whose_references_lead_nowhere() -> None:
    folder = unpacked("ref_objects")
    result = call(folder, "--source", unpacked("LUNG1-001"), "--json")
    assert result.exit_code == 1
    found = {str(line["message"]) for line in lines(result) if line.get("rule") == "references.resolve"}
    assert "1 of 193 references resolve" in found


def test_a_damaged_file_is_an_error_and_not_ignored(run: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for path in run.glob("series/*/expert/objects/*.dcm"):
        shutil.copy(path, given)
    (given / "damaged.dcm").write_bytes((given / "seg.dcm").read_bytes()[:200])
    (given / "notes.txt").write_text("no object")
    result = call(given, "--json")
    assert result.exit_code == 1
    assert {line["file"]: line["valid"] for line in lines(result) if "valid" in line} == {
        "damaged.dcm": False,
        "seg.dcm": True,
        "shape_sr.dcm": True,
    }

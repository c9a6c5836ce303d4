"""Bad input through the command line: a clear message with a reason, an exit code, nothing half-written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from tests.support.cohorts import TINY, partial_files
from typer.testing import CliRunner, Result

from ctenrich.cli.main import app
from ctenrich.phantom import Quirk, write_phantom_study


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def said(result: Result) -> str:
    return result.output + (result.stderr if result.stderr_bytes is not None else "")


def select(folder: Path, dicom: Path) -> Result:
    indexed = call("index", dicom, "--catalog", folder / "catalog.duckdb")
    if indexed.exit_code:
        return indexed
    catalog = f"folder:{folder / 'catalog.duckdb'}"
    return call("select", "select_ct_series", "--catalog", catalog, "--out", folder / "cohort.parquet")


def run(folder: Path) -> Result:
    return call("run", folder / "cohort.parquet", "--out", folder / "run", "--segmenter", "expert")


def nothing_half_written(folder: Path) -> bool:
    objects = list(folder.glob("run/series/*/*/objects/*.dcm"))
    return not objects and not partial_files(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    result = select(tmp_path, tmp_path / "dicom")
    assert result.exit_code != 0
    assert "EMPTY_INPUT" in said(result)


def test_a_folder_without_ct(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path / "made", replace(TINY, quirks=frozenset({Quirk.ONE_SLICE})))
    (tmp_path / "dicom").mkdir()
    assert study.rtstruct is not None
    (tmp_path / "dicom" / "rtstruct.dcm").write_bytes(study.rtstruct.read_bytes())
    result = select(tmp_path, tmp_path / "dicom")
    assert result.exit_code != 0
    assert "NO_CT" in said(result) or "EMPTY_COHORT" in said(result)


@pytest.mark.parametrize(
    ("quirk", "reason"),
    [
        (Quirk.ONE_SLICE, "ONE_SLICE"),
        (Quirk.MISSING_SLICE, "MISSING_SLICE"),
        (Quirk.TWO_ORIENTATIONS, "MULTI_ORIENTATION"),
        (Quirk.LOCALIZER, "LOCALIZER"),
    ],
)
def test_series_that_are_no_volume_are_not_selected(tmp_path: Path, quirk: Quirk, reason: str) -> None:
    write_phantom_study(tmp_path / "dicom", replace(TINY, quirks=frozenset({quirk})))
    result = select(tmp_path, tmp_path / "dicom")
    assert result.exit_code == 2
    assert "EMPTY_COHORT" in said(result)
    assert reason in said(result)
    refused = run(tmp_path)
    assert refused.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_truncated_file(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path / "dicom", TINY)
    assert select(tmp_path, tmp_path / "dicom").exit_code == 0
    study.slices[3].write_bytes(study.slices[3].read_bytes()[:-500])
    result = run(tmp_path)
    assert result.exit_code == 1
    assert any(code in said(result) for code in ("TRUNCATED", "CHECKSUM", "INCOMPLETE"))
    assert nothing_half_written(tmp_path)


def test_a_slice_that_went_missing_after_the_selection(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path / "dicom", TINY)
    assert select(tmp_path, tmp_path / "dicom").exit_code == 0
    study.slices[3].unlink()
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "INCOMPLETE" in said(result)
    assert nothing_half_written(tmp_path)


def test_a_series_without_contours(tmp_path: Path) -> None:
    write_phantom_study(tmp_path / "dicom", replace(TINY, rtstruct=False))
    assert select(tmp_path, tmp_path / "dicom").exit_code == 0
    result = run(tmp_path)
    assert "NO_EXPERT" in said(result)
    assert result.exit_code == 1
    assert nothing_half_written(tmp_path)


def test_an_rtstruct_of_another_series(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path / "dicom", TINY)
    other = write_phantom_study(tmp_path / "other", replace(TINY, seed=5))
    assert study.rtstruct is not None
    assert other.rtstruct is not None
    foreign = pydicom.dcmread(other.rtstruct)
    foreign.PatientID = pydicom.dcmread(study.rtstruct).PatientID
    for item in foreign.ReferencedFrameOfReferenceSequence:
        item.FrameOfReferenceUID = study.frame_of_reference_uid
    foreign.FrameOfReferenceUID = study.frame_of_reference_uid
    foreign.save_as(study.rtstruct)
    assert select(tmp_path, tmp_path / "dicom").exit_code == 0
    result = run(tmp_path)
    assert "NO_REFERENCE" in said(result)
    assert result.exit_code == 1
    assert nothing_half_written(tmp_path)


def test_all_segments_empty(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path / "dicom", TINY)
    assert study.rtstruct is not None
    data = pydicom.dcmread(study.rtstruct)
    for roi in data.ROIContourSequence:
        for contour in roi.ContourSequence:
            x, y, z = contour.ContourData[:3]
            contour.ContourData = [x, y, z, x + 0.01, y, z, x, y + 0.01, z]
            contour.NumberOfContourPoints = 3
    data.save_as(study.rtstruct)
    assert select(tmp_path, tmp_path / "dicom").exit_code == 0
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "EMPTY_SEGMENTATION" in said(result)
    assert nothing_half_written(tmp_path)


def test_demo_models_are_refused_on_other_data(tmp_path: Path) -> None:
    for path in write_phantom_study(tmp_path / "dicom", TINY).slices:
        data = pydicom.dcmread(path)  # every other trace of the generator stays: name, identifiers, scanner
        data.StudyInstanceUID = "1.2.826.0.1.3680043.10.1511.5"
        data.save_as(path)
    assert select(tmp_path, tmp_path / "dicom").exit_code == 0
    result = call("run", tmp_path / "cohort.parquet", "--out", tmp_path / "run", "--bodypart", "demo-bodypart")
    assert result.exit_code == 2
    assert "1 of 1 series are not generated" in said(result)
    assert "DEMO_MODEL" in said(result)
    assert "--allow-demo-models" in said(result)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("run", "none.parquet", "--out", "r", "--segmenter", "expert"), "NOT_FOUND"),
        (("status", "none"), "BAD_RUN"),
        (("models", "show", "none"), "NOT_FOUND"),
        (("select", "no_such_query", "--catalog", "idc", "--out", "c.parquet"), "NOT_FOUND"),
        (("select", "select_ct_series", "--catalog", "nowhere:x", "--out", "c.parquet"), "BAD_PARAMETER"),
    ],
)
def test_wrong_requests_have_a_reason_and_exit_code_2(
    arguments: tuple[str, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert reason in said(result)
    assert result.exit_code in (1, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_file_can_be_made(tmp_path: Path) -> None:
    write_phantom_study(tmp_path / "dicom", TINY)
    assert call("index", tmp_path / "dicom", "--catalog", tmp_path / "catalog.duckdb").exit_code == 0
    (tmp_path / "file").write_text("")
    catalog = f"folder:{tmp_path / 'catalog.duckdb'}"
    result = call("select", "select_ct_series", "--catalog", catalog, "--out", tmp_path / "file" / "cohort.parquet")
    assert result.exit_code == 2
    assert "IO_ERROR" in said(result)
    assert "hint: " in said(result)
    assert "Traceback" not in said(result)


def test_every_command_has_help_with_an_example() -> None:
    import typer

    command = typer.main.get_command(app)
    for name, sub in command.commands.items():  # type: ignore[attr-defined]
        parts = [(name, sub)] if not hasattr(sub, "commands") else [(f"{name} {n}", c) for n, c in sub.commands.items()]
        for path, leaf in parts:
            result = call(*path.split(), "--help")
            assert result.exit_code == 0, path
            assert leaf.epilog, path
            assert "Example" in leaf.epilog, path

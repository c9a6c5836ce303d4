"""One command from a folder of DICOM files to results: selection, run, report, resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from tests.support.cohorts import write_series
from tests.support.models_home import in_process
from tests.support.small_models import write_v2
from tests.support.totalsegmentator_models import write_dataset
from typer.testing import CliRunner, Result

from ctenrich.cli.main import app
from ctenrich.models.library import import_model
from ctenrich.phantom import Quirk
from ctenrich.runner.run import Run

__all__ = ["in_process"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", *(str(a) for a in arguments), "--executor", "serial"])


def test_a_folder_ends_in_a_report_and_the_same_command_resumes(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 3, quirks=[Quirk.MISSING_SLICE])
    out = tmp_path / "out"
    first = run(tmp_path / "ct", "--out", out, "--segmenter", "expert")
    assert first.exit_code == 0, first.output
    assert "2 of 3 series selected; excluded: MISSING_SLICE 1" in first.output
    assert (out / "report" / "index.html").is_file()
    assert len(list(out.glob("series/*/expert/objects/seg.dcm"))) == 2
    again = run(tmp_path / "ct", "--out", out, "--segmenter", "expert")
    assert again.exit_code == 0
    assert "0 stages ran" in again.output


def test_the_cohort_of_a_folder_serves_the_long_way(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    assert run(tmp_path / "ct", "--out", tmp_path / "a", "--segmenter", "expert").exit_code == 0
    cohort = tmp_path / "a" / "input" / "cohort.parquet"
    assert run(cohort, "--out", tmp_path / "b", "--segmenter", "expert").exit_code == 0
    seg = [next((tmp_path / name).glob("series/*/expert/objects/seg.dcm")).read_bytes() for name in "ab"]
    assert seg[0] == seg[1]


def test_new_images_are_another_cohort(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    out = tmp_path / "out"
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert").exit_code == 0
    write_series(tmp_path / "ct", 2)
    changed = run(tmp_path / "ct", "--out", out, "--segmenter", "expert")
    assert changed.exit_code == 2
    assert "changed since" in changed.output
    kept = run(out / "cohort.parquet", "--out", out, "--segmenter", "expert")
    assert kept.exit_code == 0
    assert "0 stages ran" in kept.output


def test_nothing_is_read_before_a_product_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    refused = run(tmp_path / "ct", "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "NO_MODEL" in refused.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("segmenter", "missing"),
    [
        ("totalsegmentator:total", "Dataset291_TotalSegmentator_part1_organs_1559subj"),
        ("moose:clin_ct_organs", "Dataset123_Organs"),
        ("lungs=totalsegmentator:face", "is not published openly"),
    ],
)
def test_nothing_is_read_while_weights_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter: str, missing: str
) -> None:
    write_series(tmp_path / "ct", 1)
    for name in ("CTENRICH_MODELS", "TOTALSEG_WEIGHTS_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    refused = run(tmp_path / "ct", "--out", tmp_path / "out", "--segmenter", segmenter)
    assert refused.exit_code != 0
    assert "NOT_FOUND" in refused.output
    assert missing in refused.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


FASTEST = "Dataset298_TotalSegmentator_total_6mm_1559subj"
TRAINER = "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"


def _import(model: str, tmp_path: Path, shared_model: Callable[[str], Path]) -> None:
    """Import a small model of one kind."""
    if model == FASTEST:
        write_dataset(tmp_path / FASTEST / TRAINER, 117, (6, 6, 6), seed=1)
        import_model(tmp_path / FASTEST)
    elif model == "scores":
        import_model(shared_model("bpr-lung1-demo"), name="scores")
    else:
        import_model(write_v2(tmp_path / "small"), name="small")


@pytest.mark.parametrize(
    ("asked", "model", "file"),
    [
        (("--segmenter", "nnunet:small"), "small", "plans.json"),
        (("--segmenter", "totalsegmentator:total:fastest"), FASTEST, "checkpoint_final.pth"),
        (("--segmenter", "expert", "--bodypart", "scores"), "scores", "inference-settings.json"),
    ],
)
def test_nothing_is_read_for_a_model_that_changed_after_its_import(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_process: None,
    shared_model: Callable[[str], Path],
    asked: tuple[str, ...],
    model: str,
    file: str,
) -> None:
    for name in ("CTENRICH_MODELS", "TOTALSEG_WEIGHTS_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    _import(model, tmp_path, shared_model)
    [changed] = (tmp_path / "home" / "imported" / model).rglob(file)
    changed.write_bytes(changed.read_bytes() + b" ")
    write_series(tmp_path / "ct", 1)
    refused = run(tmp_path / "ct", "--out", tmp_path / "out", *asked)
    assert refused.exit_code != 0
    assert "HASH_MISMATCH" in refused.output
    assert file in refused.output.replace("\n", "")
    assert not (tmp_path / "out").exists()


def test_nothing_is_read_for_weights_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    """A table of 118 labels is another version of a network with 117."""
    for name in ("CTENRICH_MODELS", "TOTALSEG_WEIGHTS_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    write_dataset(tmp_path / "home" / FASTEST / TRAINER, 118, (6, 6, 6), seed=1)
    write_series(tmp_path / "ct", 1)
    refused = run(tmp_path / "ct", "--out", tmp_path / "out", "--segmenter", "totalsegmentator:total:fastest")
    assert "BAD_MODEL" in refused.output
    assert "another version" in refused.output
    assert not (tmp_path / "out").exists()


def _tilt(folder: Path, degrees: float) -> None:
    """Tilt the gantry: rows and columns turn about x, and the table moves on along z."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        if header.Modality == "CT":
            header.ImageOrientationPatient = [1, 0, 0, 0, cosine, -sine]
            header.GantryDetectorTilt = degrees
            header.save_as(path)


def test_gantry_tilt_and_uneven_slices_are_named_and_a_recipe_goes_on_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    """TotalSegmentator stops at such a series with an error of dicom2nifti, and a loop over a cohort with it."""
    for name in ("CTENRICH_MODELS", "TOTALSEG_WEIGHTS_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    write_dataset(tmp_path / "home" / FASTEST / TRAINER, 117, (6, 6, 6), seed=1)
    uneven, tilted, good = write_series(tmp_path / "ct", 3, quirks=[Quirk.ALTERNATING_SPACING])
    _tilt(tmp_path / "ct" / "p1", 15)
    out = tmp_path / "out"
    made = run(tmp_path / "ct", "--out", out, "--segmenter", "totalsegmentator:total:fastest:roi=liver,spleen")
    assert made.exit_code == 0, made.output
    assert "1 of 3 series selected; excluded: IRREGULAR_SPACING 1, LATERAL_DRIFT 1" in made.output
    rows = pq.read_table(out / "input" / "cohort.excluded.parquet").to_pylist()
    reasons = {row["series_instance_uid"]: row["reason"] for row in rows}
    assert (reasons[uneven], reasons[tilted]) == ("IRREGULAR_SPACING", "LATERAL_DRIFT")
    [seg] = out.glob("series/*/totalsegmentator__*/objects/seg.dcm")
    assert good in seg.parts


def test_the_same_command_resumes_a_run_of_0_1_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    """Version 0.1.0 did not ask for the axes of a model that states none: its product has LPS, and keeps it."""
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    model = write_v2(tmp_path / "m", stated="")
    write_series(tmp_path / "ct", 1)
    out = tmp_path / "out"
    made = run(tmp_path / "ct", "--out", out, "--segmenter", f"nnunet:{model}:axes=LPS", "--dry-run")
    assert made.exit_code == 0, made.output
    (out / "run.json").write_text((out / "run.json").read_text().replace(":axes=LPS", ""))
    again = run(tmp_path / "ct", "--out", out, "--segmenter", f"nnunet:{model}", "--dry-run")
    assert again.exit_code == 0, again.output
    assert [str(one.product) for one in Run.open(out).config.products] == ["nnunet:m:3d_fullres:0:mirror"]
    refused = run(tmp_path / "ct", "--out", tmp_path / "new", "--segmenter", f"nnunet:{model}")
    assert "UNKNOWN_AXES" in refused.output


def test_doses_alone_are_those_of_the_experts(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    out = tmp_path / "out"
    found = run(tmp_path / "ct", "--out", out, "--dose", "--dry-run")
    assert found.exit_code == 0, found.output
    assert "doses of the experts' structures" in found.stderr
    assert [str(one.product) for one in Run.open(out).config.products] == ["expert"]


def test_a_limit_runs_the_first_series_and_a_run_without_it_the_others(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 3)
    out = tmp_path / "out"
    limited = run(tmp_path / "ct", "--out", out, "--segmenter", "expert", "--limit", 2)
    assert limited.exit_code == 0
    series = pq.read_table(out / "tables" / "outcomes.parquet").to_pylist()
    states = sorted((row["state"], row["reason"]) for row in series if row["product"] == "expert")
    assert states == [("done", ""), ("done", ""), ("not_started_budget", "OVER_LIMIT")]
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert").exit_code == 0
    assert len(list(out.glob("series/*/expert/objects/seg.dcm"))) == 3


def test_a_limit_takes_nothing_back(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 2)
    out = tmp_path / "out"
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert").exit_code == 0
    assert run(tmp_path / "ct", "--out", out, "--segmenter", "expert", "--limit", 1).exit_code == 0
    rows = pq.read_table(out / "tables" / "outcomes.parquet").to_pylist()
    assert {row["state"] for row in rows} == {"done"}

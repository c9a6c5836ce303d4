"""``ctenrich verify``: every hash that a run has recorded is compared, one line for each file that differs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.results.complete import begin_tables, tables_mark
from ctenrich.results.schema import LATER_TABLES
from ctenrich.runner.run import Run
from ctenrich.select.cohort_file import read_cohort, remember_check
from ctenrich.settings import FetchSettings, Settings
from ctenrich.workspace import sha256_of_file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    settings = Settings(fetch=FetchSettings(copy_local=True))
    run = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"], settings=settings)
    assert steps.run_all(run).exit_code == 0
    return run.root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run #1 %20?"))


def verify(run: Path) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, ["verify", str(run)])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout.splitlines()


FILES_OF_A_SERIES, FILES_OF_A_PRODUCT = 10, 12
"""Those of a series but its source, and of a product of contours but its masks; docs/large-cohorts.md states them."""


def test_files_of_a_series_and_of_a_product(finished: Path) -> None:
    run = Run.open(finished)
    folder = run.workspace.series_dir(run.cohort.series[0].series_instance_uid)
    files = [path.relative_to(folder).parts for path in folder.rglob("*") if path.is_file()]
    assert len([names for names in files if names[0] not in ("source", "expert")]) == FILES_OF_A_SERIES, files
    own = [names for names in files if names[0] == "expert" and names[1] != "masks"]
    assert len(own) == FILES_OF_A_PRODUCT, files


def test_a_run_that_was_not_touched_has_no_mismatch(run: Path) -> None:
    code, lines = verify(run)
    assert code == 0, lines
    (line,) = lines
    assert line.endswith(" hashes compared, 0 files changed")
    assert int(line.split()[0]) > 60, "slices, records, volume, masks, objects, proof, tables"


CHANGED = {
    "a slice": "series/*/source/**/*.dcm",
    "the volume": "series/*/volume/ct.npy",
    "the list of slices": "series/*/volume/slices.json",
    "a mask": "series/*/expert/masks/*.npy",
    "an object": "series/*/expert/objects/seg.dcm",
    "a record": "series/*/expert/shape.json",
    "a proof": "series/*/expert/proof.json",
    "a table": "tables/quantitative_measurements.parquet",
}


@pytest.mark.parametrize("name", CHANGED)
def test_one_bit_is_one_line_with_the_name_of_the_file(run: Path, name: str) -> None:
    path = sorted(run.glob(CHANGED[name]))[0]
    data, status = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    code, lines = verify(run)
    assert code == 1
    assert len(lines) == 2, lines
    assert lines[0].startswith(f"{path.relative_to(run).as_posix()}: ")
    assert lines[1].endswith(" 1 file changed")


@pytest.mark.parametrize("name", CHANGED)
def test_a_file_that_is_gone_is_one_line(run: Path, name: str) -> None:
    path = sorted(run.glob(CHANGED[name]))[0]
    path.unlink()
    code, lines = verify(run)
    assert code == 1
    assert any(line.startswith(f"{path.relative_to(run).as_posix()}: ") for line in lines), lines


def test_a_manifest_that_was_written_anew_does_not_hide_another_volume(run: Path) -> None:
    """Array and manifest agree with each other; the record of the volume does not."""
    (path,) = run.glob("series/*/volume/ct.npy")
    array = np.load(path)
    array[0, 0, 0] += 1
    np.save(path, array)
    manifest = path.parent.parent / "manifests" / "convert.json"
    content = json.loads(manifest.read_text())
    content["files"]["volume/ct.npy"][2] = sha256_of_file(path)
    manifest.write_text(json.dumps(content))
    code, lines = verify(run)
    assert code == 1
    assert lines[0].startswith(f"{path.relative_to(run).as_posix()}: the SHA-256 of its voxels is ")


def test_objects_that_were_deleted_after_use_are_a_note(tmp_path: Path) -> None:
    settings = Settings(fetch=FetchSettings(copy_local=True, delete_after_use=True))
    run = steps.start(make_cohort(tmp_path, 1), tmp_path / "run", segmenters=["expert"], settings=settings)
    assert steps.run_all(run).exit_code == 0
    found = steps.verify(run)
    assert found.mismatches == ()
    assert found.notes == ("the fetched objects of 1 series were deleted after use",)


def test_tables_that_were_not_written_to_the_end_are_not_read(run: Path) -> None:
    opened = steps.open_run(run)
    mark = tables_mark(opened.workspace)
    assert mark is not None
    assert mark.complete
    later = {f"{name}.parquet" for name in LATER_TABLES}
    assert set(mark.files) == {p.name for p in opened.workspace.tables.glob("*.parquet")} - later
    sql = "SELECT count(*) AS n FROM outcomes"
    assert steps.query(opened, sql).to_pylist() == [{"n": 2}]
    (opened.workspace.tables / "outcomes.parquet").rename(run / "elsewhere")
    with pytest.raises(UsageError, match=r"not complete: outcomes\.parquet"):
        steps.query(opened, "SELECT count(*) AS n FROM series")
    (run / "elsewhere").rename(opened.workspace.tables / "outcomes.parquet")
    begin_tables(opened.workspace)
    with pytest.raises(UsageError, match="NOT_PREPARED: the run's tables were not written to the end"):
        steps.query(opened, sql)
    assert verify(run)[0] == 1
    steps.tables(opened)
    assert verify(run)[0] == 0
    (opened.workspace.tables / "tables.json").unlink()
    assert steps.query(opened, sql).to_pylist() == [{"n": 2}], "version 0.1.0 wrote no mark"


def test_a_cohort_file_that_was_changed_after_its_check_is_found(run: Path) -> None:
    path = run / "cohort.parquet"
    cohort, table = read_cohort(path), pq.read_table(path)
    column = table.column_names.index("patient_id")
    changed = table.set_column(column, "patient_id", pa.array(["other"] * table.num_rows))
    pq.write_table(changed.replace_schema_metadata(pq.read_metadata(path).metadata), path)
    remember_check(path, cohort)
    code, lines = verify(run)
    assert code == 1
    assert any("the series of cohort.parquet are not those that were selected" in line for line in lines), lines

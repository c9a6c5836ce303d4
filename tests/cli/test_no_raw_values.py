"""Values of elements that are not valid never reach the console: they may be a patient's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from tests.support.cohorts import write_series

SECRET = "CANARY"
BROKEN = {
    "PatientBirthDate": "DA", "PatientAge": "AS", "PatientWeight": "DS", "StudyTime": "TM", "AccessionNumber": "SH",
    "KVP": "DS", "ExposureTime": "IS", "ClinicalTrialProtocolID": "LO", "PatientIdentityRemoved": "CS", "StudyID": "SH",
}  # fmt: skip
IDENTIFIERS = frozenset({"AccessionNumber", "StudyID"})
"""Elements whose invalid values exclude the series, so that nothing after the selection meets them."""


def break_values(path: Path, *, but: frozenset[str] = frozenset()) -> None:
    """Write values that their VR does not allow, as they are."""
    data = dcmread(path)
    for keyword, vr in BROKEN.items():
        if keyword in but:
            continue
        value = SECRET.encode() * 12
        tag = Tag(keyword)
        data._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    data.save_as(path)


def run_commands(folder: Path, commands: Sequence[str]) -> str:
    """Everything that the commands print, with all warnings of Python."""
    environment = {**os.environ, "PYTHONWARNINGS": "always"}
    shown = ""
    for command in commands:
        line = [sys.executable, "-m", "ctenrich.cli.main", *command.split()]
        done = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment, check=False)
        shown += done.stdout + done.stderr
        assert "Traceback" not in shown, command
    return shown


@pytest.mark.long
def test_an_excluded_series_does_not_print_its_identifiers(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 1)
    for path in (tmp_path / "in").rglob("*.dcm"):
        break_values(path)
    shown = run_commands(
        tmp_path, ("index in --catalog c.duckdb", "select select_ct_series --catalog folder:c.duckdb --out c.parquet")
    )
    assert "UNSAFE_IDENTIFIER" in shown
    assert SECRET not in shown


@pytest.mark.long
def test_no_command_prints_a_value_that_is_not_valid(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 1)
    paths = list((tmp_path / "in").rglob("*.dcm"))
    for path in paths:
        break_values(path, but=IDENTIFIERS)
    assert SECRET.encode() in paths[0].read_bytes()
    commands = (
        "index in --catalog c.duckdb",
        "select select_ct_series --catalog folder:c.duckdb --out c.parquet",
        "run c.parquet --out run --segmenter expert",
        "validate run",
        "export run nifti --out nifti",
        "publish run gs://bucket/results",
    )
    shown = run_commands(tmp_path, commands)
    assert "1 series selected" in shown
    assert "IDENTITY_NOT_REMOVED" in shown
    assert SECRET not in shown

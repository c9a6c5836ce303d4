"""Half a minute of the damaged files of `make fuzz`, and what its mutators and checks do."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from benchmarks.fuzz import Pass, Tally, attempt, mutate
from benchmarks.fuzz_series import count_slice_files, damage_small, pixels_by_pydicom

from ctenrich.errors import InputError
from ctenrich.reasons import Reason

ROOT = Path(__file__).parents[1]


def test_mutations_are_reproducible_and_change_the_file() -> None:
    content = bytes(range(256)) * 8
    first = [mutate(content, random.Random(seed)) for seed in range(50)]
    assert first == [mutate(content, random.Random(seed)) for seed in range(50)]
    assert sum(changed != content for changed in first) > 40
    assert mutate(b"", random.Random(1)) == b""


def test_one_number_of_a_pass_is_damaged_alone_as_in_the_whole_pass() -> None:
    content = bytes(range(256)) * 8
    whole = {number: mutate(content, rng) for number, rng in Pass(3, range(20), float("inf"))}
    assert {number: mutate(content, rng) for number, rng in Pass(3, range(17, 18), float("inf"))} == {17: whole[17]}
    assert len(set(whole.values())) > 15
    assert list(Pass(3, range(20), 0.0)) == [], "no time is left"


def test_a_structure_set_and_its_copy_are_no_slices(tmp_path: Path) -> None:
    for name in ("CT01_00001.dcm", "copy-CT01_00001.dcm", "rtstruct.dcm", "copy-rtstruct.dcm"):
        (tmp_path / name).touch()
    assert count_slice_files(tmp_path) == 2


def test_warnings_of_the_judge_are_no_lines_of_ctenrich(tmp_path: Path) -> None:
    """In this series pydicom warns of a value representation."""
    damage_small(tmp_path, random.Random("41 284"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(pixels_by_pydicom(tmp_path)) == 6
    assert caught == []


def test_only_errors_of_our_own_are_no_findings() -> None:
    tally = Tally()

    def refuse() -> None:
        raise InputError(Reason.NOT_DICOM, "no DICOM")

    def crash() -> None:
        raise KeyError("x")

    for act in (refuse, crash, lambda: None):
        attempt("header", "1", act, tally)
    assert (tally.refused["header"], tally.accepted["header"]) == (1, 1)
    assert tally.findings == ["header 1: KeyError: 'x'"]


@pytest.mark.long
def test_half_a_minute_of_damaged_files_has_no_finding() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fuzz", "--seed", "7", "--seconds", "30"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["findings"] == []
    assert done.returncode == 0
    assert report["peak_memory_mb"] < 2048
    assert sum(report["accepted"].values()) > 50
    assert sum(report["refused"].values()) > 50

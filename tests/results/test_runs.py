"""Run tables in parts: the same rows and bytes whatever the parts and processes."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctenrich.results import runs
from ctenrich.results.runs import build_run_tables
from ctenrich.workspace import sha256_of_file
from tests.support.report_more import add_more
from tests.support.report_runs import make_run


def test_parts_and_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = add_more(make_run(tmp_path / "run", 3), 3)
    whole = {name: pq.read_table(path).to_pylist() for name, path in build_run_tables(run)[0].items()}
    monkeypatch.setattr(runs, "_LARGEST", 1)
    parts = {name: sha256_of_file(path) for name, path in build_run_tables(run)[0].items()}
    assert {name: pq.read_table(run.tables / f"{name}.parquet").to_pylist() for name in whole} == whole
    assert {"series", "organs", "timings", "outcomes"} <= {name for name, rows in whole.items() if rows}
    monkeypatch.setattr(runs, "_PARALLEL_FROM", 1)
    assert {name: sha256_of_file(path) for name, path in build_run_tables(run, processes=2)[0].items()} == parts
    assert not [path for path in run.tables.iterdir() if path.name.startswith(".")]

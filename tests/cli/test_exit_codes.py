"""Exit code 2 for a wrong request of any command: options, missing arguments, names and paths that do not exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.support.cohorts import make_cohort
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app

ARGUMENTS = {
    "RUN": "run", "COHORT": "cohort.parquet", "FIRST": "cohort.parquet", "SECOND": "cohort.parquet", "SOURCE": "dicom",
    "FOLDERS": "dicom", "RUN|PATH": "run", "FORMAT": "nifti", "nifti|nrrd|csv|rtstruct": "nifti", "NAME": "demo-organs",
    "TASK": "totalsegmentator:total", "TARGET": "gs://bucket/x", "SQL": "segmentations", "QUERY": "select_ct_series",
    "FOLDER": "my-mappings", "FILE|RUN": "run", "FILE": "new.toml", "[RUN] [PATH...]": "run", "A [B...]": "run",
    "STATION": "run",
    "CATALOG": "catalog.duckdb", "TREATMENTS": "treatments.parquet", "KIND": "plan", "NAMES": "names.csv",
    "FLOWS...": "flow.yaml", "FLOW": "flow.yaml", "DOSE": "dose.dcm", "DOSE...": "dose.dcm", "PLAN": "plan.dcm",
    "DIR": "dicom", "MAP": "dose.dcm", "NAME=FILE...": "liver=dose.dcm", "OUT": "shared",
}  # fmt: skip
"""Metavar -> a value that fits."""
REQUIRED = {
    "run": ["--out", "r", "--segmenter", "expert"],
    "prepare": ["--out", "r", "--segmenter", "expert"],
    "plan": ["--segmenter", "expert"],
    "index": ["--catalog", "catalog.duckdb"],
    "select": ["--catalog", "folder:catalog.duckdb"],
    "release": ["--out", "data-set"],
    "repeatability": ["--pairs", "patients"],
    "dose dvh": ["--structures", "structures.dcm", "--dose", "dose.dcm"],
    "pseudonymise": ["--key-file", "key"],
    "dose sum": ["--out", "sum.dcm"],
    "harmonise": ["--source", "dicom", "--out", "h"],
    "dose scale": ["--out", "scaled.dcm"],
    "maps parametric": ["--source", "dicom", "--quantity", "adc", "--unit", "mm2/s", "--out", "m.dcm"],
    "maps fractional": ["--source", "dicom", "--algorithm", "net", "--out", "m.dcm"],
    "flow try": ["--catalog", "folder:catalog.duckdb"],
    "flow run": ["--out", "flow-run"],
}
"""Options that a command needs for a complete request."""
ANY_TEXT = {
    "--out", "--svg", "--collection", "--address", "--location", "--name", "--csv", "--manufacturer", "--model",
    "--kernel", "--body-part", "--position", "--description", "--sex", "--on-finish", "--roi", "--url",
    "--curves", "--algorithm", "--algorithm-version", "--quantity", "--unit", "--region",
}  # fmt: skip
"""Options whose text is free, or that name what is written."""
WRITTEN = {"settings init", "treatments protocol"}
"""Commands that write the file that their last argument names."""
NO_WALK = {"demo", "listen", "view", "publish", "retrieve", "models pull", "models check"}
"""Commands that would start to work for minutes, or ask a network, before they look at a value; see the other tests."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its path."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((f"{name} {sub}", leaf) for sub, leaf in command.commands.items())
        else:
            yield name, command


def arguments_of(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "argument"]


def request(path: str, command: Any, *, wrong: Any = None) -> list[str]:
    """A complete request, in which one argument may be wrong."""
    values = [
        "none/such" if p is wrong else ARGUMENTS[p.metavar] for p in arguments_of(command) if p.required or p is wrong
    ]
    return [*path.split(), *values, *REQUIRED.get(path, [])]


def wrong_requests() -> Iterator[list[str]]:
    for path, command in commands():
        yield [*path.split(), "--no-such-option"]
        if any(p.required for p in command.params):
            yield path.split()
        if path in NO_WALK:
            continue
        for parameter in arguments_of(command):
            writes = path in WRITTEN and parameter.metavar == "FILE"
            if not (writes or (path == "query" and parameter.metavar == "SQL")):
                yield request(path, command, wrong=parameter)
        if path in ("index", "models import"):  # --catalog is written; --labels comes after a model that is read
            continue
        for parameter in command.params:
            names = getattr(parameter, "opts", [])
            if parameter.param_type_name == "option" and not parameter.is_flag and not ANY_TEXT & set(names):
                yield [*request(path, command), max(names, key=len), "none/such"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the requests name."""
    folder = tmp_path_factory.mktemp("walk")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
        stage(made)
    steps.tables(made)
    (folder / "flow.yaml").write_text("triggers: [{Modality: [^CT$]}]\nmodels: [{use: expert}]\n")
    return folder


@pytest.mark.parametrize("words", list(wrong_requests()), ids=" ".join)
def test_a_wrong_request_has_exit_code_2(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, SystemExit), (done.exception, done.output[-2000:])
    assert done.exit_code == 2, done.output[-2000:]

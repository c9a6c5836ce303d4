"""Help texts: every example can be typed as it is, those that need nothing but a run are run, and nothing is markup."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from tests.support.cohorts import make_cohort
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.help_texts import GROUPS, prepare_commands
from ctenrich.cli.main import app
from ctenrich.resources import folder as own_folder

LOCAL = re.compile(
    r"ctenrich (index|cohort|plan|status|report|query my-run|export(?! my-run probabilities)"
    r"|check-mappings|retry|evaluate-segmentations|prepare"
    r"|evaluate my-run$|compare my-run$|quality my-run$|quality my-run --top"
    r"|codes list|codes show|fetch|sort|convert|segment|score|measure|encode|validate others"
    r"|models list|models show|models verify demo"
    r"|select (select_ct_series --catalog folder|--series-list|--lock))\b"
)
"""Examples that are run; the others need a network, an account, a model, a browser or minutes."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its path."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((f"{name} {sub}", leaf) for sub, leaf in command.commands.items())
        else:
            yield name, command


def examples() -> list[str]:
    """The lines below "Example:" of all commands."""
    return [line.strip() for _, command in commands() for line in command.epilog.splitlines()[2:]]


def test_every_command_shows_examples_line_by_line() -> None:
    for path, command in commands():
        shown = CliRunner().invoke(app, [*path.split(), "--help"]).output.splitlines()
        for line in command.epilog.splitlines()[2:]:
            assert f"  {line}" in shown, "an example is never wrapped"
            assert line.strip().startswith(f"ctenrich {path}"), path


@pytest.mark.parametrize("line", examples())
def test_examples_are_understood(line: str) -> None:
    _, *words = shlex.split(line.partition(" > ")[0])
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert command.make_context("ctenrich", words)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    cohort = make_cohort(folder, 1)
    run = steps.start(cohort, folder / "my-run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode, steps.validate):
        stage(run)
    steps.finish(run)
    for name in ("old.parquet", "new.parquet", "treatments.parquet"):
        shutil.copy(cohort, folder / name)
    shutil.copytree(folder / "dicom", folder / "their-ct")
    shutil.copytree(own_folder("mappings"), folder / "my-mappings")
    (folder / "others-objects").mkdir()
    for path in folder.glob("my-run/series/*/*/objects/*.dcm"):
        shutil.copy(path, folder / "others-objects")
    (folder / "others-segs").mkdir()
    (seg,) = (folder / "my-run").glob("series/*/expert/objects/seg.dcm")
    for name in ("others-segs/one.dcm", "theirs.dcm", "mine.dcm"):
        shutil.copy(seg, folder / name)
    (folder / "series.csv").write_text(f"SeriesInstanceUID\n{run.cohort.series[0].series_instance_uid}\n")
    (folder / "model").symlink_to(own_folder("mappings"))
    return folder


@pytest.mark.parametrize("line", [line for line in examples() if LOCAL.match(line)])
def test_examples_that_need_only_a_run(line: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    text = line.partition(" > ")[0].replace("--watch", "")
    text = text.replace("/data/ct", "dicom").replace("/models/m ", f"{place / 'model'} ")
    text = text.replace("--out my-run", "--out prepared")
    if "nnunet:a:" in text:
        text = text.replace("--reference nnunet:a:3d_fullres:0:True", "--reference expert")
    if text.startswith("ctenrich index"):
        text = text.replace("catalog.duckdb", "fresh.duckdb")
    result = CliRunner().invoke(app, shlex.split(text)[1:])
    assert result.exit_code == 0, result.output


def test_every_command_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == known
    shown = CliRunner().invoke(app, ["--help"]).output
    places = [shown.index(f"\n{heading}:\n") for heading in GROUPS]
    assert places == sorted(places)
    assert "Others:" not in shown


def test_every_value_has_a_readable_name() -> None:
    for path, command in commands():
        for parameter in command.params:
            shown = parameter.metavar
            flag = getattr(parameter, "is_flag", False)
            assert flag or (shown and not shown.startswith("<")), f"{path}: {parameter.name}"
        assert not re.search(r"<\w", CliRunner().invoke(app, [*path.split(), "--help"]).output), path


def test_options_are_listed_under_the_headings_of_their_records() -> None:
    shown = CliRunner().invoke(app, ["run", "--help"]).output
    headings = [line for line in shown.splitlines() if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert headings == ["Arguments:", "Options:", "Products:", "Settings and devices:", "Limits:", "Execution:"]
    assert shown.index("Limits:") < shown.index("--max-hours HOURS") < shown.index("Execution:")


def test_nothing_in_a_help_text_is_markup() -> None:
    strange = typer.Typer(rich_markup_mode=app.rich_markup_mode)

    def one(name: Annotated[str, typer.Option(help="[hnsf'U] nnunet:heart: [/x] **no**")] = "x") -> None:
        """Text with [bold] and :skull: in it."""

    strange.command(epilog="Example:  ctenrich one [/x] nnunet:heart:")(one)
    prepare_commands(strange.registered_commands)
    shown = CliRunner().invoke(strange, ["--help"]).output
    for text in ("[hnsf'U] nnunet:heart: [/x] **no**", "[bold] and :skull:", "ctenrich one [/x] nnunet:heart:"):
        assert text in shown

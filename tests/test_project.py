"""The project says one thing in all its places."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ctenrich.errors import CtenrichError, RetryExhaustedError, TransientError
from ctenrich.reasons import Reason

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_yml_names_what_pyproject_names() -> None:
    text = (ROOT / "environment.yml").read_text()
    listed = set(re.findall(r"^ {6}- (.+)$", text, re.M))
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = {*PYPROJECT["project"]["dependencies"], *extras["cloud"], *extras["notebooks"], *extras["pacs"]}
    assert listed == wanted
    assert f"- python{PYPROJECT['project']['requires-python']}" in text


def test_every_direct_dependency_is_pinned_for_the_repeatable_set_up() -> None:
    pinned = {re.split("==", line)[0].lower().replace("_", "-") for line in _lines("constraints.txt")}
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"], *(d for group in extras.values() for d in group)]
    missing = {re.split(r"[\[><=~]", d)[0].lower() for d in wanted} - pinned
    assert not missing


def test_versions_agree() -> None:
    import ctenrich

    assert PYPROJECT["project"]["version"] == ctenrich.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {ctenrich.__version__}" in citation
    day = ctenrich.RELEASE_DATE
    assert f"date-released: {day[:4]}-{day[4:6]}-{day[6:]}" in citation
    assert f"## {ctenrich.__version__} ({day[:4]}-{day[4:6]}-{day[6:]})" in (ROOT / "CHANGELOG.md").read_text()


def test_help_answers_within_a_second() -> None:
    best = 10.0
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "ctenrich.cli.main", "--help"], capture_output=True, check=True)
        best = min(best, time.monotonic() - started)
    assert best < 1.0


def test_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, ctenrich.cli.main; "
        "heavy = {'torch', 'nnunetv2', 'radiomics', 'google.cloud', 'ray', 'highdicom', 'SimpleITK', 'duckdb'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_reason_has_a_sentence() -> None:
    for reason in Reason:
        assert reason.sentence.endswith("."), reason
        assert reason.value == reason.name


def test_retrying_is_a_matter_of_type() -> None:
    assert TransientError(Reason.IO_ERROR, "x").retryable
    assert not RetryExhaustedError(Reason.RETRY_EXHAUSTED, "x").retryable
    assert str(CtenrichError(Reason.BOMB, "big", "split it")) == "BOMB: big (split it)"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile"])
def test_the_files_that_a_newcomer_looks_for_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 200


def _lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


def test_troubleshooting_has_a_line_for_every_reason() -> None:
    lines = (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
    rows = {line.split("`")[1]: line.split("|") for line in lines if line.startswith("| `")}
    assert set(rows) == {reason.value for reason in Reason}
    for reason in Reason:
        meaning, advice = rows[reason.value][2].strip(), rows[reason.value][3].strip()
        assert meaning == reason.sentence
        assert advice


def documented_commands() -> list[str]:
    """Command lines of the README and the pages: those of code blocks, indented ones, and those in running text."""
    found = []
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text("utf-8").replace("\\\n", " ")
        found += re.findall(r"^ *(?:\.venv/bin/)?(ctenrich [a-z][^\n]*)", "\n".join(code_of(text)), re.M)
        found += re.findall(r"(?<!`)`(ctenrich [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return found


def code_of(text: str) -> list[str]:
    return [*re.findall(r"```[a-z]*\n(.*?)```", text, re.S), *re.findall(r"^ {4}ctenrich [^\n]*", text, re.M)]


def parsed(line: str) -> str:
    """Name of the command of a line, whose options and number of arguments have to be those of the real one."""
    import typer

    from ctenrich.cli.main import app

    words = shlex.split(line, comments=True)[1:]
    words = words[: next((n for n, word in enumerate(words) if word in {"|", ">", "&&", ";"}), None)]
    command: Any = typer.main.get_command(app)
    context = command.make_context("ctenrich", [], resilient_parsing=True)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words[0]]
        context = type(context)(command, info_name=words.pop(0), parent=context)
    try:
        _, left, _ = command.make_parser(context).parse_args(words)
    except Exception as error:
        raise AssertionError(f"{line}: {error}") from error
    assert left in ([], ["..."]), line
    return str(context.command_path.split()[1])


def test_documented_commands_exist() -> None:
    import typer

    from ctenrich.cli.main import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    lines = documented_commands()
    assert len(lines) > 80
    assert {"run", "select", "query"} <= {parsed(line) for line in lines} <= known
    for wrong in ("ctenrich run c.parquet --out r --no-such-thing", "ctenrich rum", "ctenrich report a b"):
        with pytest.raises(AssertionError):
            parsed(wrong)
    table = re.findall(r"^\| ((?:`[a-z-]+`[ ,a-z]*)+) \|", (ROOT / "README.md").read_text(), re.M)
    listed = {name for row in table for name in re.findall(r"`([a-z-]+)`", row)}
    assert listed == known

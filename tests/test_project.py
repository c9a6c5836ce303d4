"""The project says one thing in all its places."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ctenrich.errors import CtenrichError, RetryExhaustedError, TransientError
from ctenrich.ledger.ledger import Ledger
from ctenrich.reasons import Reason, current_code
from ctenrich.records import Outcome, State
from ctenrich.runner.job import Job
from ctenrich.select.cohort_file import write_cohort_table
from ctenrich.workspace import save_record
from tests.support.imports import (
    OwnImport,
    import_graph,
    module_files,
    own_imports,
    strongly_connected,
    subpackage_graph,
)
from tests.support.runner_cases import make_run, series, timing

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_yml_names_what_pyproject_names() -> None:
    text = (ROOT / "environment.yml").read_text()
    listed = set(re.findall(r"^ {6}- (.+)$", text, re.M))
    extras = PYPROJECT["project"]["optional-dependencies"]
    parts = (extras[name] for name in ("cloud", "notebooks", "pacs", "reference"))
    wanted = {*PYPROJECT["project"]["dependencies"], *(one for part in parts for one in part)}
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


def test_help_loads_nothing_but_the_command_line() -> None:
    """What makes `ctenrich --help` slow is what it imports."""
    code = (
        "import sys, typer.testing, ctenrich.cli.main as main; "
        "shown = typer.testing.CliRunner().invoke(main.app, ['--help']); assert 'validate' in shown.output, shown; "
        "print(*sys.modules, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    outside = {name.split(".")[0] for name in loaded if not name.startswith("_")} - set(sys.stdlib_module_names)
    typer_needs = {"annotated_doc", "attr", "click", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"}
    assert outside <= {"ctenrich", *typer_needs}
    own = {name.split(".")[1] for name in loaded if name.startswith("ctenrich.")}
    assert own == {"cli", "errors", "reasons"}


def test_following_a_run_loads_no_package_for_images_or_networks(tmp_path: Path) -> None:
    """What makes `ctenrich status`, `retry` and `plan` slow for a small run is what they import."""
    run = make_run(tmp_path / "run", 1)
    cohort = run.root / "cohort.parquet"
    write_cohort_table(cohort, run.cohort.name, run.cohort.sha256, run.cohort.series)
    save_record(run.root / "run.json", run.config)
    with Ledger(run.ledger_path) as ledger:
        ledger.set_plan(run.jobs())
        ledger.add_timings(timing(Job(entry=series(1), pool="input", stages=("sort",)), "sort"))
        ledger.record(Outcome(series(1).series_instance_uid, "", State.DONE, "sort"))
    commands = [["status", str(run.root)], ["retry", str(run.root)], ["plan", str(cohort), "--segmenter", "expert"]]
    code = (
        "import sys, typer.testing, ctenrich.cli.main as main\n"
        f"for command in {commands}:\n"
        "    done = typer.testing.CliRunner().invoke(main.app, command)\n"
        "    assert done.exit_code == 0, (command, done.output, done.exception)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    heavy = {"SimpleITK", "duckdb", "highdicom", "matplotlib", "nibabel", "pandas", "pydicom", "pynetdicom", "ray"}
    assert "pyarrow" in loaded
    assert loaded & {*heavy, "requests", "scipy", "sqlglot", "tenacity", "torch"} == set()


def test_every_reason_has_a_sentence() -> None:
    for reason in Reason:
        assert reason.sentence.endswith("."), reason
        assert reason.value == reason.name


OLD_REASONS = {
    "BOMB": Reason.DECOMPRESSION_BOMB,
    "BOOKS": Reason.INCONSISTENT_TOTALS,
    "ELSEWHERE": Reason.DONE_BY_OTHER_RUNNER,
}


@pytest.mark.parametrize(("old", "member"), OLD_REASONS.items())
def test_a_reason_code_of_an_earlier_version_gives_the_member_that_replaced_it(old: str, member: Reason) -> None:
    assert Reason(old) is member
    assert current_code(old) == member.value
    assert old not in Reason.__members__
    assert TypeAdapter(Reason).validate_json(f'"{old}"') is member, "in a record"


def test_an_unknown_reason_code_is_an_error() -> None:
    with pytest.raises(ValueError, match="NONSENSE"):
        Reason("NONSENSE")
    assert current_code("NONSENSE") == "NONSENSE"


def test_every_reason_is_used_in_the_package() -> None:
    """By name in the code, or by its code in a selection query."""
    package = ROOT / "pipeline" / "ctenrich"
    code = "\n".join(p.read_text("utf-8") for p in package.rglob("*.py") if p.name != "reasons.py")
    queries = "\n".join(p.read_text("utf-8") for p in (ROOT / "queries").rglob("*.sql"))
    used = {*re.findall(r"\bReason\.([A-Z_]+)\b", code), *re.findall(r"'([A-Z_]+)'", queries)}
    assert {reason.name for reason in Reason} - used == set()


def test_retrying_is_a_matter_of_type() -> None:
    assert TransientError(Reason.IO_ERROR, "x").retryable
    assert not RetryExhaustedError(Reason.RETRY_EXHAUSTED, "x").retryable
    assert str(CtenrichError(Reason.DECOMPRESSION_BOMB, "big", "split it")) == "DECOMPRESSION_BOMB: big (split it)"


PACKAGE = ROOT / "pipeline" / "ctenrich"
TOP_LEVEL_MODULES = 16
LATE_IMPORTS = 30
"""Import statements of own modules inside functions, outside the command line."""


@cache
def imports_of_package() -> list[OwnImport]:
    return own_imports(module_files(PACKAGE))


def test_no_import_circle_also_counting_imports_inside_functions() -> None:
    graph = import_graph(imports_of_package())
    assert len(graph) > 100
    assert strongly_connected(graph) == []
    assert strongly_connected(subpackage_graph(graph)) == []


def test_only_the_series_store_names_the_files_of_records() -> None:
    from ctenrich.series_store import RECORD_FILES

    named = re.compile("[\"'/](" + "|".join(map(re.escape, RECORD_FILES.values())) + ")[\"']")
    others = [path for name, path in module_files(PACKAGE).items() if name != "ctenrich.series_store"]
    assert [path.name for path in others if named.search(path.read_text("utf-8"))] == []
    assert named.search((PACKAGE / "series_store.py").read_text("utf-8"))


def test_the_packages_top_level_stays_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= TOP_LEVEL_MODULES


def test_late_imports_of_own_modules_are_few_and_explained() -> None:
    late = [one for one in imports_of_package() if one.late and not one.importer.startswith("ctenrich.cli")]
    assert len(late) <= LATE_IMPORTS, [f"{one.importer}:{one.line}" for one in late]
    assert [f"{one.importer}:{one.line}" for one in late if not one.explained] == []


def test_every_module_and_subpackage_says_what_it_is_for() -> None:
    for name, path in module_files(PACKAGE).items():
        first = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]
        assert len(first.split()) >= 3, name


def test_circles_and_late_imports_are_found_in_a_made_up_package(tmp_path: Path) -> None:
    made = tmp_path / "made"
    texts = {
        "__init__": "",
        "a": "from made.inner import b\n",
        "c": "from typing import TYPE_CHECKING\nimport made.inner.constants\nif TYPE_CHECKING:\n    import made.a\n",
        "inner/__init__": "",
        "inner/b": "def f():\n    # slow to load\n    from . import d\n    import made.a\n\n    import made.c\n",
        "inner/d": "import made.c\n",
        "inner/constants": "",
    }
    for name, text in texts.items():
        path = made / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    imports = own_imports(module_files(made))
    graph = import_graph(imports)
    assert graph == {
        "made.a": {"made.inner.b"},
        "made.c": {"made.inner.constants"},
        "made.inner.b": {"made.inner.d", "made.a", "made.c"},
        "made.inner.d": {"made.c"},
    }
    assert strongly_connected(graph) == [["made.a", "made.inner.b"]]
    assert strongly_connected(subpackage_graph(graph)) == [["made.a", "made.inner"]]
    assert [(one.line, one.explained) for one in imports if one.late] == [(3, True), (4, True), (6, False)]


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


@cache
def command_line() -> Any:
    """All commands with their options."""
    import typer

    from ctenrich.cli.main import app

    return typer.main.get_command(app)


def parsed(line: str) -> str:
    """Name of the command of a line, whose options and number of arguments have to be those of the real one."""
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((n for n, word in enumerate(words) if word in {"|", ">", "&&", ";"}), None)]
    command = command_line()
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
    known = set(command_line().commands)
    lines = documented_commands()
    assert len(lines) > 80
    assert {"run", "select", "query"} <= {parsed(line) for line in lines} <= known
    for wrong in ("ctenrich run c.parquet --out r --no-such-thing", "ctenrich rum", "ctenrich report a b"):
        with pytest.raises(AssertionError):
            parsed(wrong)
    table = re.findall(r"^\| ((?:`[a-z-]+`[ ,a-z]*)+) \|", (ROOT / "README.md").read_text(), re.M)
    listed = {name for row in table for name in re.findall(r"`([a-z-]+)`", row)}
    assert listed == known

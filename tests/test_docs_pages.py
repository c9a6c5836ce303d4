"""The documentation agrees with the code: generated pages are current, pages, decisions and queries are listed."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ctenrich.results.query import result_queries
from tests.conftest import need_package

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "pipeline" / "ctenrich"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PROSE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted(DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/write_docs_pages.py as a module."""
    spec = importlib.util.spec_from_file_location("write_docs_pages", ROOT / "scripts" / "write_docs_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def subpackages() -> set[str]:
    """Names of the subpackages of ctenrich."""
    return {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_generated_pages_are_current(script: ModuleType) -> None:
    for path, text in script.pages().items():
        assert path.read_text("utf-8") == text, f"run scripts/write_docs_pages.py: {path.name}"
    assert {p.name for p in (DOCS / "api").glob("*.md")} == {f"{name}.md" for name in script.INTERFACE}


def test_the_interface_pages_cover_every_subpackage(script: ModuleType) -> None:
    modules = [module for _, listed in script.INTERFACE.values() for module in listed]
    assert len(modules) == len(set(modules)), "each module is on one page"
    for module in modules:
        path = PACKAGE / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module
    commands_only = {"cli"}
    assert {module.split(".")[0] for module in modules} >= subpackages() - commands_only


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_every_decision_has_the_form(page: Path) -> None:
    text = page.read_text("utf-8")
    title = re.match(r"# (\d{4}): \S.*\n\n\*\*Context\.\*\* ", text)
    assert title is not None, "the first line is '# NNNN: Title', then comes the context"
    assert title[1] == page.name[:4]
    parts = re.findall(r"^\*\*([^*]+)\*\*", text, re.MULTILINE)
    assert [part for part in parts if part != "Measured."] == ["Context.", "Choice.", "Consequence."]
    assert parts.count("Measured.") <= 1
    assert not re.search(r"^#", text.split("\n", 1)[1], re.MULTILINE), "one heading"


def test_the_index_lists_every_decision_under_its_title() -> None:
    index = (DOCS / "decisions" / "index.md").read_text("utf-8")
    listed = dict(re.findall(r"^- \[\d{4}\]\(([^)]+)\): (.+)$", index, re.MULTILINE))
    assert list(listed) == [page.name for page in DECISIONS]
    for page in DECISIONS:
        assert page.read_text("utf-8").startswith(f"# {page.name[:4]}: {listed[page.name]}\n")
    numbers = [page.name[:4] for page in DECISIONS]
    assert len(numbers) == len(set(numbers))


def test_contributing_has_a_row_for_every_subpackage() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)/` \| \S", text, re.MULTILINE) == sorted(subpackages())
    tree = text.split("## The tree", 1)[1].split("\n## ", 1)[0]
    shared = tree.split("The modules at the top", 1)[1]
    assert set(re.findall(r"`(\w+)`", shared)) == {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"}


def test_files_that_the_pages_name_exist() -> None:
    own = {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    seen = 0
    for page in PROSE:
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text("utf-8")):
            base = PACKAGE if name.split("/")[0] in own or "/" not in name else ROOT
            assert (base / name).is_file(), f"{page.name}: {name}"
            seen += 1
    assert seen > 20


def test_modules_that_the_pages_name_exist() -> None:
    for page in PROSE:
        for name in re.findall(r"`ctenrich((?:\.[a-z_]+)+)", page.read_text("utf-8")):
            first, *rest = name.strip(".").split(".")
            found = PACKAGE / first
            for part in rest:
                found = found / part if found.is_dir() else found
            if not found.is_dir():
                module = found.with_suffix(".py")
                assert module.is_file() or re.search(
                    rf"\b{rest[-1]}\b", (found.parent / "__init__.py").read_text("utf-8")
                ), f"{page.name}: ctenrich{name}"


def test_the_glossary_is_in_alphabetical_order() -> None:
    rows = re.findall(
        r"^\| ([a-zA-Z][^|]*) \| ([^|]+) \| ?([^|]*)\|$", (DOCS / "glossary.md").read_text(), re.MULTILINE
    )
    terms = [term for term, _, _ in rows if term != "term"]
    assert len(terms) > 40
    assert terms == sorted(set(terms), key=str.lower)
    assert {"cohort", "finding site", "product", "segment", "slice score", "tracking identifier"} <= set(terms)


def test_all_nineteen_use_cases_have_an_answer() -> None:
    text = (DOCS / "use-cases.md").read_text("utf-8")
    rows = {int(n): answer for n, answer in re.findall(r"^\| (\d+) \|[^|]*\|(.*)\|$", text, re.MULTILINE)}
    assert sorted(rows) == list(range(1, 20))
    assert all(re.search(r"\.sql|notebook|ctenrich |report", answer) for answer in rows.values())
    assert all("notebook 0" in answer for answer in rows.values()), "each has a cell"
    named = set(re.findall(r"(\w+)\.sql", text))
    assert named == set(result_queries()), "every shipped query is listed, and no other"


def test_the_cells_that_the_use_cases_name_exist() -> None:
    text = (DOCS / "use-cases.md").read_text("utf-8")
    seen = 0
    for number, cell in re.findall(r"notebook (0\d)([^|;]*)\|", text):
        path = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
        words = "".join("".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"])
        for heading in re.findall(r"\*([^*]+)\*", cell):
            assert heading in words, (number, heading)
            seen += 1
    assert seen >= 15


def test_the_site_builds_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_package("docs", "mkdocs")
    need_package("docs", "mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "api" / "steps" / "index.html").read_text("utf-8")
    assert "run_all" in page, "docstrings become pages"
    anchors = set(
        re.findall(r'href="\.\./([\w-]+)/#([\w-]+)"', (tmp_path / "site" / "performance" / "index.html").read_text())
    )
    assert len(anchors) >= 5
    for name, anchor in anchors:
        assert f'id="{anchor}"' in (tmp_path / "site" / name / "index.html").read_text("utf-8"), (name, anchor)

"""The documentation agrees with the code: generated pages are current, pages, decisions and queries are listed."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from ctenrich.bodypart.landmarks import VERTEBRA
from ctenrich.bodypart.plausibility import LUNG_HEIGHT
from ctenrich.bodypart.scores import CleanUp
from ctenrich.catalog import bigquery
from ctenrich.dicom.reader import HEADER_LIMIT
from ctenrich.models import library
from ctenrich.report import index_page
from ctenrich.results import outliers
from ctenrich.results.query import result_queries
from ctenrich.runner import lease_keeper, scheduler
from ctenrich.settings import Settings
from ctenrich.storage.retry import LONGEST_PAUSE
from ctenrich.view import dicomweb, ohif, overview
from ctenrich.view.ohif import OHIF_VERSION
from ctenrich.view.server import DEFAULT_PORT
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


def test_tests_that_pages_name_exist() -> None:
    named = {
        (page.name, *found)
        for page in PROSE
        for found in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text("utf-8"))
    }
    assert len(named) > 30
    for page, file, test in named:
        assert (ROOT / file).is_file(), f"{page}: {file}"
        assert not test or f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{page}: {file}::{test}"


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


def test_the_registrations_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Where do I add", 1)[1].split("\n## ", 1)[0]
    lines = re.findall(r"a line of ((?:`\w+`(?: or )?)+) in `([\w/.]+)`", text)
    assert len(lines) >= 4
    for names, path in lines:
        module = (PACKAGE / path).read_text("utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^{name}\b.* = ", module, re.MULTILINE), f"{name} in {path}"


def test_files_that_the_pages_name_exist() -> None:
    own = {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    seen = 0
    for page in PROSE:
        text = page.read_text("utf-8")
        for name in re.findall(r"`([\w/-]+\.(?:py|sh|yaml|csv))`", text):
            if "/" not in name and not name.endswith(".py"):
                continue
            base = PACKAGE if name.split("/")[0] in own or "/" not in name else ROOT
            assert (base / name).is_file(), f"{page.name}: {name}"
            seen += 1
        for name in re.findall(r"python -m benchmarks\.(\w+)", text):
            assert (ROOT / "benchmarks" / f"{name}.py").is_file(), f"{page.name}: benchmarks.{name}"
            seen += 1
        for name in re.findall(r"`make ([a-z-]+)`", text):
            assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), (
                f"{page.name}: make {name}"
            )
            seen += 1
    assert seen > 50


def test_modules_that_the_pages_name_exist() -> None:
    no_modules = {".segmenters", ".objects", ".catalogs", ".storages", ".toml"}
    for page in PROSE:
        for name in set(re.findall(r"`ctenrich((?:\.[a-z_]+)+)", page.read_text("utf-8"))) - no_modules:
            first, *rest = name.strip(".").split(".")
            found = PACKAGE / first
            for part in rest:
                found = found / part if found.is_dir() else found
            if not found.is_dir():
                module = found.with_suffix(".py")
                assert module.is_file() or re.search(
                    rf"\b{rest[-1]}\b", (found.parent / "__init__.py").read_text("utf-8")
                ), f"{page.name}: ctenrich{name}"


def test_the_numbers_in_the_pages_are_those_of_the_code() -> None:
    fetch, convert, geometry = (getattr(Settings(), name) for name in ("fetch", "convert", "geometry"))
    gib = 1024**3
    expected = {
        "input.md": [
            f"of up to `series_at_once` ({fetch.series_at_once}) series",
            f"up to\n  {LONGEST_PAUSE:.0f} seconds from Google",
            f"a volume above `convert.max_volume` ({convert.max_volume // gib} GiB)",
            f"more than {HEADER_LIMIT // 1024**2} MiB of header",
            f"longer than `convert.decode_timeout` ({convert.decode_timeout:.0f} s)",
        ],
        "selection.md": [
            f"in gigabytes as in `ctenrich query`; {bigquery.BYTE_LIMIT // gib} GiB\nby default",
            f"varies by more than `cosines` ({geometry.cosines:.4f})",
            f"varies by more than `pixel_spacing_relative` ({geometry.pixel_spacing_relative})",
            f"fewer slices than `minimum_slices` ({geometry.minimum_slices})",
            f"drift sideways by more than `drift` ({geometry.drift} mm)",
            f"by more than {geometry.spacing_relative:.0%}".replace("%", " %"),
            f" or {geometry.spacing_absolute} mm, whichever is larger",
            f"a slice is more than {geometry.line_tolerance} mm off the line",
        ],
        "running.md": [
            f"than its lease ({lease_keeper.LEASE_SECONDS:.0f} s)",
            f"\n({scheduler.GRACE_SECONDS:.0f} s at most)",
        ],
        "report.md": [
            f"{index_page.FEATURE_BYTES / 1e6:.0f} MB of measured values",
            f"a modified z-score above {outliers.LIMIT} ",
            f"with at least {outliers._LEAST} series",
        ],
        "viewer.md": [
            f"default port ({DEFAULT_PORT})",
            f"OHIF's build (version {OHIF_VERSION})",
            f"From {overview.SERIES_SHOWN} series on",
            f"centre {dicomweb.WINDOW[0]} and width {dicomweb.WINDOW[1]} HU",
            f"narrower than {ohif.NARROW} pixels",
        ],
        "models.md": [f"unpack to more than {library._MAX_RATIO} times their\nsize"],
        "body-part-regression.md": [
            f"lungs outside {LUNG_HEIGHT[0]:.0f} to {LUNG_HEIGHT[1]:.0f} mm",
            f"1 / (1 + (e / {VERTEBRA:.0f} mm)²)",
            f"scores rise more than {CleanUp.r_slope_threshold:.0%}".replace("%", " %"),
        ],
    }
    for name, sentences in expected.items():
        page = (DOCS / name).read_text("utf-8")
        for sentence in sentences:
            assert " ".join(sentence.split()) in " ".join(page.split()), f"{name}: {sentence}"


def test_the_pages_name_settings_that_exist() -> None:
    sections = {field.name: {f.name for f in fields(getattr(Settings(), field.name))} for field in fields(Settings)}
    files = "py|dcm|json|toml|ttl|csv"
    pattern = rf"(?<!issue )`\[?({'|'.join(sections)})(?:\.|\] )(?!(?:{files})`)([a-z_0-9]+)( = [^`]*)?`"
    seen = set()
    for page in PROSE:
        for section, setting, _ in re.findall(pattern, page.read_text("utf-8")):
            if (page.name, section) == ("validation.md", "seg"):  # names of the proof's checks
                continue
            assert setting in sections[section], f"{page.name}: {section}.{setting}"
            seen.add((section, setting))
    assert len(seen) > 20


def test_the_changelog_names_modules_that_exist() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8").split("## 0.1.0", 1)[0]
    moved = re.findall(r"^ +\| `[^|]+ \| (`[^|]+) \|$", text, re.MULTILINE)
    assert moved
    for name in re.findall(r"`([\w.]+)`", " ".join(moved)):
        path = PACKAGE / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


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


@pytest.mark.long
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


def test_the_page_of_interoperability_names_tests_that_exist() -> None:
    """Every row names one, unless it says that the thing is not done."""
    root = Path(__file__).parents[1]
    rows = [line.split("|") for line in (root / "docs" / "interoperability.md").read_text("utf-8").splitlines()
            if line.startswith("| ") and not line.startswith(("| what ", "| input "))]  # fmt: skip
    assert len(rows) > 20
    for _, what, here, test, _ in rows:
        if here.strip() == "not yet":
            assert test.strip() == "", what
            continue
        for one in test.split(","):
            found = re.fullmatch(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", one.strip())
            assert found is not None, (what, one)
            assert f"def {found[2]}(" in (root / found[1]).read_text("utf-8"), one

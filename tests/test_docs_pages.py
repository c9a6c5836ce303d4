"""The documentation says what the code says: written pages are fresh, every reason and query has its line."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from ctenrich.reasons import Reason
from ctenrich.results.query import result_queries
from tests.conftest import need_package

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def test_written_pages_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("write_docs_pages", ROOT / "scripts" / "write_docs_pages.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for path, text in script.pages().items():
        assert path.read_text("utf-8") == text, f"run scripts/write_docs_pages.py: {path.name}"


def test_every_reason_has_a_line_in_troubleshooting() -> None:
    text = (DOCS / "troubleshooting.md").read_text("utf-8")
    named = re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE)
    assert sorted(named) == sorted(r.value for r in Reason)


def test_all_nineteen_use_cases_with_what_answers_them() -> None:
    text = (DOCS / "use-cases.md").read_text("utf-8")
    rows = {int(n): answer for n, answer in re.findall(r"^\| (\d+) \|[^|]*\|(.*)\|$", text, re.MULTILINE)}
    assert sorted(rows) == list(range(1, 20))
    assert all(re.search(r"\.sql|notebook|ctenrich |report", answer) for answer in rows.values())
    assert all("notebook 0" in answer for answer in rows.values()), "each has a cell"
    named = set(re.findall(r"(\w+)\.sql", text))
    assert named == set(result_queries()), "every shipped question has its place, and none is made up"


def test_the_cells_that_the_use_cases_name_are_there() -> None:
    import json

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
    import subprocess
    import sys

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "api" / "steps" / "index.html").read_text("utf-8")
    assert "run_all" in page, "docstrings become pages"
    anchors = set(
        re.findall(r'href="\.\./([\w-]+)/#([\w-]+)"', (tmp_path / "site" / "performance" / "index.html").read_text())
    )
    assert len(anchors) >= 5
    for name, anchor in anchors:
        assert f'id="{anchor}"' in (tmp_path / "site" / name / "index.html").read_text("utf-8"), (name, anchor)

"""The package can be installed where the docs and notebooks install it, above all on Colab."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import test_data_root

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import install_line  # noqa: E402
import lock  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REFERENCE = {"pyradiomics-bhklab", "nnunetv2", "batchgenerators", "dynamic-network-architectures"}


@pytest.mark.parametrize("path", install_line.pages(), ids=lambda path: path.name)
def test_every_page_installs_from_the_same_place(path: Path) -> None:
    assert install_line.wrong_lines(path.read_text("utf-8"), install_line.place()) == []


def test_lines_are_rewritten_for_a_release_and_for_the_index() -> None:
    here = " @ git+https://example.org/ctenrich@v1"
    for quote in ('"', "'", '\\"'):
        line = f"pip install -q {quote}ctenrich[cloud]{quote}, then `ctenrich demo`"
        assert install_line.wrong_lines(line, "") == []
        assert len(install_line.wrong_lines(line, here)) == 1
        moved = install_line.corrected(line, here)
        assert f"{quote}ctenrich[cloud]{here}{quote}" in moved
        assert install_line.wrong_lines(moved, here) == []
        assert install_line.corrected(moved, "") == line
    assert install_line.wrong_lines("pip install ctenrich", "") == ["pip install ctenrich"]


def test_at_least_the_notebooks_and_three_pages_have_an_install_line() -> None:
    having = [p for p in install_line.pages() if install_line.COMMAND.search(p.read_text("utf-8"))]
    assert len([p for p in having if p.suffix == ".ipynb"]) >= 5
    assert len([p for p in having if p.suffix == ".md"]) >= 3


def test_the_extras() -> None:
    assert {"cloud", "colab", "view", "pacs", "ray", "reference"} <= set(EXTRAS)
    names = {extra: {canonicalize_name(Requirement(r).name) for r in wanted} for extra, wanted in EXTRAS.items()}
    assert names["reference"] == REFERENCE
    assert names["colab"] >= names["cloud"] | names["view"]
    assert not names["colab"] & {"jupyterlab", "ipython", "ipykernel"}


@pytest.mark.parametrize("part", ["base", "cloud", "colab", "view", "pacs", "ray"])
def test_only_the_extra_reference_needs_nnunetv2_pyradiomics_and_a_compiler(part: str) -> None:
    packages = [p for p in lock.read() if {"base", part} & set(p.parts)]
    assert not {p.name for p in packages} & REFERENCE
    assert len(packages) > 40


def colab_versions() -> dict[str, str]:
    (freeze,) = (test_data_root() / "data" / "colab").glob("pip-freeze-*.txt")
    pairs = (line.split("==") for line in freeze.read_text().splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def requirements_on_colab(versions: dict[str, str]) -> list[tuple[str, Requirement]]:
    """What the package with the extra `colab` needs, and what the packages need that Colab does not have."""
    found: list[tuple[str, Requirement]] = []
    todo = [("ctenrich", text, "") for text in (*PROJECT["dependencies"], *EXTRAS["colab"])]
    seen: set[str] = set()
    while todo:
        owner, text, extra = todo.pop()
        wanted = Requirement(text)
        machine = {"python_version": "3.13", "python_full_version": "3.13.0", "extra": extra}
        if wanted.marker is not None and not wanted.marker.evaluate(machine):
            continue
        found.append((owner, wanted))
        name = canonicalize_name(wanted.name)
        if name in versions or name in seen:
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        todo += [(name, need, one) for need in needs for one in ("", *wanted.extras)]
    return found


@pytest.mark.data
def test_nothing_that_colab_has_is_replaced() -> None:
    versions = colab_versions()
    wanted = requirements_on_colab(versions)
    assert len({r.name for _, r in wanted}) > 40
    shared = [(owner, r) for owner, r in wanted if canonicalize_name(r.name) in versions]
    assert len(shared) > 25
    outside = [
        f"{owner} needs {r}; Colab has {versions[canonicalize_name(r.name)]}"
        for owner, r in shared
        if not r.specifier.contains(Version(versions[canonicalize_name(r.name)]).public, prereleases=True)
    ]
    assert outside == []


@pytest.mark.data
def test_the_lower_bounds_of_sql_are_those_of_colab() -> None:
    versions = colab_versions()
    bounds = {Requirement(text).name: text for text in PROJECT["dependencies"]}
    for name in ("duckdb", "sqlglot", "psutil"):
        (bound,) = re.findall(r">=([0-9.]+)", bounds[name])
        assert bound == versions[name], f"scripts/test_as_on_colab.sh runs the tests with {versions[name]}"


def test_the_versions_of_python_are_stated() -> None:
    stated = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.fullmatch(r".*Python :: 3\.\d+", c)}
    assert stated == {"3.11", "3.12", "3.13"}
    assert PROJECT["requires-python"] == ">=3.11"


def test_options_have_small_letters_with_every_version_of_typer() -> None:
    """Colab's typer takes a metavar that is the option's name in capitals for the name."""
    import typer

    from ctenrich.cli.main import app

    todo: list[Any] = [typer.main.get_command(app)]
    names: list[str] = []
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        names += [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    assert len(names) > 100
    assert [name for name in names if name != name.lower()] == []

"""Fixtures that all tests share: real data, required components, a workspace."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.testing

from ctenrich.workspace import Workspace

REQUIRED = frozenset(os.environ.get("CTENRICH_REQUIRE", "").replace(",", " ").split())


def skip_or_fail(component: str, reason: str) -> None:
    """Skip with a reason; where CTENRICH_REQUIRE names the component, fail instead."""
    if component in REQUIRED:
        pytest.fail(f"{component} is required here (CTENRICH_REQUIRE): {reason}")
    pytest.skip(reason)


def need_program(component: str, *names: str) -> str:
    """Path of the first program that exists, else skip (or fail where `component` is required).

    Programs of the Python environment do not count: pynetdicom brings its own storescu and storescp.
    """
    own = Path(sys.prefix if sys.prefix != sys.base_prefix else sys.executable).resolve()
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not Path(folder).resolve().is_relative_to(own))
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    skip_or_fail(component, f"none of {', '.join(names)} is installed")
    raise AssertionError


def need_package(component: str, name: str) -> None:
    """Skip (or fail where required) if a Python package is missing."""
    if importlib.util.find_spec(name) is None:
        skip_or_fail(component, f"the Python package {name} is not installed")


def test_data_root() -> Path:
    """Folder with data/ and models/, from CTENRICH_TEST_DATA."""
    root = os.environ.get("CTENRICH_TEST_DATA")
    if not root:
        skip_or_fail("data", "CTENRICH_TEST_DATA is unset: no real data here")
    assert root
    return Path(root)


test_data_root.__test__ = False  # type: ignore[attr-defined]


def unpacked(name: str) -> Path:
    """Folder with the unpacked archive data/NAME.tar.xz, kept in a cache outside the project."""
    archive = test_data_root() / "data" / f"{name}.tar.xz"
    if not archive.is_file():
        skip_or_fail("data", f"{archive.name} is not below CTENRICH_TEST_DATA")
    stamp = hashlib.sha256(f"{archive}{archive.stat().st_size}{archive.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    cache = Path(tempfile.gettempdir()) / f"ctenrich-test-data-{os.getuid()}" / f"{name}-{stamp}"
    if not cache.is_dir():
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache.parent))
        with tarfile.open(archive) as tar:
            tar.extractall(fresh, filter="data")
        try:
            fresh.rename(cache)
        except OSError:
            shutil.rmtree(fresh)
    return cache


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest tests first."""
    items.sort(key=lambda item: item.get_closest_marker("slowest") is None)


def pytest_collection_finish() -> None:
    """Leave what was imported so far out of the garbage collection: every pass over it takes a part of a second."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """End the object stores that the tests of this process shared; a worker of xdist runs no exit handlers."""
    if servers := sys.modules.get("tests.support.storage_servers"):
        servers.end_servers()


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once() -> Iterator[None]:
    """Keep the commands that CliRunner makes anew for each call: a fifth of the time of the command line's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.testing._get_command))
        yield


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are converted, once a session."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """``real_data("LUNG1-005")`` gives the folder of an unpacked archive, or skips."""
    return unpacked


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder data/published with the published study's own tables."""
    return test_data_root() / "data" / "published"


@pytest.fixture(scope="session")
def shared_model() -> Callable[[str], Path]:
    """``shared_model("lung1-demo")`` gives the folder of a model trained on real CTs, or skips."""

    def find(name: str) -> Path:
        folder = test_data_root() / "models" / name
        if not folder.is_dir():
            skip_or_fail("data", f"the model {name} is not below CTENRICH_TEST_DATA")
        return folder

    return find


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty run folder."""
    return Workspace(tmp_path / "run")

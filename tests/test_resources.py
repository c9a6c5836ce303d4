"""Plug-ins of other packages: loaded by entry point, with an error that names the package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.resources import plugins

GROUP = "ctenrich.group_of_this_test"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path in which packages can be installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "module_of_a_plugin.py").write_text("def thing():\n    return 7\n")
    yield tmp_path
    sys.modules.pop("module_of_a_plugin", None)


def install(site: Path, package: str, entry_points: str) -> None:
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_points}\n")


def test_no_package_registers_anything() -> None:
    assert plugins(GROUP) == {}


def test_a_registered_object_is_loaded(site: Path) -> None:
    install(site, "other-package", "seven = module_of_a_plugin:thing")
    assert {name: made() for name, made in plugins(GROUP).items()} == {"seven": 7}


@pytest.mark.parametrize("value", ["no_such_module:thing", "module_of_a_plugin:no_such_name"])
def test_what_cannot_be_loaded_names_its_package(site: Path, value: str) -> None:
    install(site, "broken-package", f"seven = {value}")
    with pytest.raises(UsageError, match="broken-package") as caught:
        plugins(GROUP)
    assert caught.value.reason is Reason.BAD_PLUGIN
    assert "broken-package" in caught.value.hint


def test_two_packages_with_one_name_are_refused(site: Path) -> None:
    install(site, "first-package", "seven = module_of_a_plugin:thing")
    install(site, "second-package", "seven = module_of_a_plugin:thing")
    with pytest.raises(UsageError, match="both register 'seven'") as caught:
        plugins(GROUP)
    assert {"first-package", "second-package"} <= set(caught.value.message.split())

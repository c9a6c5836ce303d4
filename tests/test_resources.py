"""Plug-ins of other packages: loaded by entry point, with an error that names the package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.resources import plugins, registered
from tests.support.plugins import install_plugin

GROUP = "ctenrich.group_of_this_test"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path in which packages can be installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "module_of_a_plugin.py").write_text("def thing():\n    return 7\n")
    yield tmp_path
    sys.modules.pop("module_of_a_plugin", None)


def install(site: Path, package: str, entry_points: str) -> None:
    install_plugin(site, package, GROUP, entry_points)


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


def test_a_built_in_kind_is_imported_when_it_is_asked_for(site: Path) -> None:
    install(site, "other-package", "seven = module_of_a_plugin:thing\neight = no_such_module:thing")
    built_in = {"eight": "module_of_a_plugin:thing", "nine": "no_such_module:thing"}
    assert "module_of_a_plugin" not in sys.modules
    found = registered("eight", built_in, GROUP)
    assert callable(found)
    assert found() == 7
    with pytest.raises(UsageError, match="other-package"):
        registered("seven", built_in, GROUP)


def test_a_name_that_is_not_registered() -> None:
    assert registered("ten", {"eight": "module:thing"}, GROUP) is None

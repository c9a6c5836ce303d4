"""What is installed has a hash, a known licence and no known hole; what continuous integration requires is checked."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import audit  # noqa: E402
import licences  # noqa: E402
import lock  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_locked_package_has_hashes_and_a_part() -> None:
    packages = lock.read()
    assert len(packages) > 200
    assert len({p.name for p in packages}) == len(packages)
    assert [p.name for p in packages if not p.hashes or not p.parts] == []
    parts = {part for p in packages for part in p.parts}
    assert parts == {"base", "build", "cuda", *PROJECT["optional-dependencies"]}


def test_the_lock_meets_the_requirements() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = {p.name: p for p in lock.read()}
    for part, wanted in {"base": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items():
        for text in wanted:
            requirement = Requirement(text)
            package = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(package.version), text
            assert part in package.parts or "base" in package.parts, text


def test_the_build_back_end_is_pinned_and_locked() -> None:
    (wanted,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    name, version = wanted.split("==")
    assert [p.version for p in lock.select({"build"}) if p.name == name] == [version]


def test_what_a_part_needs_is_selected_with_its_hashes() -> None:
    done = subprocess.run(
        [sys.executable, "-I", ROOT / "scripts" / "lock.py", "select", "base"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = re.findall(r"^([a-z0-9-]+)==", done.stdout, re.M)
    assert {"torch", "pydicom", "python-gdcm", "imagecodecs"} <= set(names)
    assert not {"nnunetv2", "pyradiomics-bhklab", "pylibjpeg-libjpeg", "pandas", "nvidia-cublas"} & set(names)
    assert done.stdout.count("--hash=sha256:") > len(names)
    with pytest.raises(ValueError, match="no such part: nonsense"):
        lock.select({"base", "nonsense"})


def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    """The way in which scripts/install.sh calls pip."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    wheel.write_bytes(b"not what was tested")
    (tmp_path / "r.txt").write_text(f"tiny==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    assert "--require-hashes" in (ROOT / "scripts" / "install.sh").read_text()
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", tmp_path]
    command += ["--require-hashes", "-r", tmp_path / "r.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "HASHES" in done.stderr


def test_every_locked_package_has_an_accepted_licence() -> None:
    rows = licences.read()
    assert set(rows) == {p.name for p in lock.read()}
    assert [r.package for r in rows.values() if not licences.accepted(r.expression)] == []
    vendor = {r.package for r in rows.values() if licences.terms(r.expression) & licences.VENDOR}
    assert vendor <= {p.name for p in lock.select({"cuda"})}
    assert rows["connected-components-3d"].expression == "LGPL-3.0-or-later"


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-2.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-or-later", False),
        ("AGPL-3.0-only", False),
        ("LGPL-2.1-or-later", True),
        ("LicenseRef-unknown", False),
        ("", False),
    ],
)
def test_which_licences_are_accepted(expression: str, right: bool) -> None:
    assert licences.accepted(expression) is right


def test_the_table_of_licences_says_what_the_installed_packages_say() -> None:
    import importlib.metadata

    rows, compared = licences.read(), 0
    for name, row in rows.items():
        try:
            stated = licences.stated(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if stated and not row.note:
            assert licences.accepted(stated), name
            compared += 1
    assert compared > 50


def test_the_page_of_licences_is_up_to_date() -> None:
    assert licences.PAGE.read_text("utf-8") == licences.page(), "python scripts/licences.py page"


def test_no_locked_version_and_no_lower_bound_has_a_known_hole() -> None:
    assert audit.audit(audit.read(), lock.read(), audit.requirements()) == []


def test_the_audit_finds_a_locked_hole_and_one_that_a_bound_lets_in() -> None:
    holes = audit.read()
    old = lock.Pinned(name="pydicom", version="3.0.1", marker="", hashes=(), parts=("base",))
    (found,) = audit.audit(holes, [old], ["pydicom>=3.0.2"])
    assert "pydicom 3.0.1 is locked: CVE-2026-32711" in found
    (found,) = audit.audit(holes, [], ["pynetdicom>=3.0.3"])
    assert "pynetdicom>=3.0.3 lets <3.0.4 in: CVE-2026-56445" in found
    assert any("CVE-2025-32434" in line for line in audit.audit(holes, [], ["torch"]))
    assert audit.audit(holes, [], ["torch>=2.10", "pillow>=11.3"]) == []


def test_the_list_of_holes_is_well_formed() -> None:
    from packaging.version import Version

    for hole in audit.read():
        assert re.fullmatch(r"CVE-20\d\d-\d{4,}", hole.id)
        assert not hole.hits(hole.fixed), hole.id
        assert Version(hole.fixed)
        assert hole.problem


def test_no_registry_and_no_machine_path_is_named() -> None:
    files = [*(ROOT / "scripts").glob("*"), ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "environment.yml"]
    hosts = re.compile(r"https?://[a-z0-9.]*(pytorch|pypi|pythonhosted|npmjs|debian)\b|/opt/|/root/|/home/[a-z]")
    assert [f.name for f in files if f.is_file() and hosts.search(f.read_text("utf-8", "replace"))] == []
    assert "TORCH_INDEX_URL" in (ROOT / "scripts" / "install.sh").read_text()


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("place", ["path", "pyenv", "outside the home folder"])
def test_a_python_is_found_wherever_it_is(tmp_path: Path, place: str) -> None:
    fake = "#!/bin/sh\nexit 0\n"
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    program(tmp_path / "bin" / "python3", "#!/bin/sh\nexit 1\n")
    if place == "path":
        expected = program(tmp_path / "bin" / "python3.13", fake)
    else:
        root = tmp_path / ("home/.pyenv" if place == "pyenv" else "elsewhere")
        expected = program(root / "versions" / "3.13.1" / "bin" / "python3", fake)
        if place != "pyenv":
            environment["PYENV_ROOT"] = str(root)
    command = ["bash", ROOT / "scripts" / "find_python.sh", "3", "98"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(expected)


def test_what_is_required_and_missing_is_named_with_the_reason(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CTENRICH_REQUIRE": "bigquery,data",
        "CTENRICH_SERVICES_DIR": str(tmp_path), "CTENRICH_TEST_DATA": str(tmp_path),
    }  # fmt: skip
    check = ["bash", ROOT / "scripts" / "check_services.sh"]
    done = subprocess.run(check, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "bigquery: local-bigquery is not installed" in done.stderr
    assert "data: CTENRICH_TEST_DATA names no folder" in done.stderr
    (tmp_path / "data").mkdir()
    program(tmp_path / "local-bigquery" / "bin" / "python", "#!/bin/sh\nexit 0\n")
    assert subprocess.run(check, env=environment, check=False).returncode == 0


def test_continuous_integration_checks_what_is_required_before_anything_long() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert 0 < text.index("scripts/check_services.sh") < text.index("make setup")
    assert os.access(ROOT / "scripts" / "check_services.sh", os.X_OK)

"""The wheel is whole: installed away from the checkout, it runs the demonstration."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = (
    "nnunetv2", "batchgenerators", "radiomics", "pandas", "skimage", "sklearn", "matplotlib", "pynetdicom", "ray",
    "google",
)  # fmt: skip
"""What is imported from packages of the extras; the base installation has none of it."""
HIDE = f"""
import sys
class Hidden:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import ctenrich
print(ctenrich.__file__)
from ctenrich.cli.main import main
main()
"""
"""None in sys.modules is not the same: pyarrow takes it for the module."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("ctenrich-*.whl"))


def test_the_wheel_carries_queries_mappings_models_and_templates(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder, pattern in (("queries", "*.sql"), ("mappings", "*.csv")):
        for file in (ROOT / folder).glob(pattern):
            assert f"ctenrich/_data/{folder}/{file.name}" in names
    package = ROOT / "pipeline" / "ctenrich"
    for file in (*package.glob("models/**/*"), *package.glob("report/templates/*"), *package.glob("**/*.toml")):
        if file.is_file() and "__pycache__" not in file.parts:
            assert f"ctenrich/{file.relative_to(package).as_posix()}" in names
    models = [i for i in zipfile.ZipFile(wheel).infolist() if i.filename.startswith("ctenrich/models/")]
    assert sum(i.file_size for i in models) < 8_000_000
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/"))]


@pytest.mark.timeout(600)
@pytest.mark.long
def test_an_installed_wheel_runs_the_demonstration_without_the_extras(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:  # as pip does with a wheel of Python files alone
        packed.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", HIDE, "demo", "--out", str(tmp_path / "demo")],
        env=environment, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.startswith(str(site))
    assert done.returncode == 0, done.stderr
    assert "4 written, proven and valid" in done.stdout
    report = tmp_path / "demo" / "run" / "report" / "index.html"
    assert str(report) in done.stdout.replace("\n", "")
    assert report.stat().st_size > 10_000

"""The container's build plan, the release workflow and the installer."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Containerfile").read_text()


def stages() -> dict[str, list[str]]:
    """Instructions of each stage of the Containerfile, by its name; the last stage is called ``final``."""
    found: dict[str, list[str]] = {}
    name = "arguments"
    for line in TEXT.replace("\\\n", " ").splitlines():
        if match := re.match(r"FROM (\S+)(?: AS (\S+))?", line):
            name = match[2] or "final"
            found[name] = [line]
        elif line and not line.startswith("#"):
            found.setdefault(name, []).append(line)
    return found


def test_both_variants_install_pytorch_before_the_package_and_run_as_a_user() -> None:
    plan = stages()
    assert plan["final"][0] == "FROM ${VARIANT}"
    assert "ARG VARIANT=cpu" in plan["arguments"]
    for variant in ("cpu", "cuda"):
        assert plan[variant][0] == f"FROM files AS {variant}"
        assert any("pip install" in line and "torch" in line.lower() for line in plan[variant])
    assert any("NVIDIA_VISIBLE_DEVICES" in line for line in plan["cuda"])
    final = "\n".join(plan["final"])
    assert final.index("pip install") < final.index("USER ctenrich") < final.index("ENTRYPOINT")


def test_the_release_workflow_publishes_without_a_stored_secret_what_it_tested() -> None:
    yaml = pytest.importorskip("yaml")
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs = flow["jobs"]
    assert flow["permissions"] == {"contents": "read"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "test"
    assert jobs["test"]["needs"] == "build"
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


@pytest.mark.parametrize("proxy", ["", "http://user:password@proxy:3128"])
def test_a_failed_installation_names_the_variables_and_no_password(tmp_path: Path, proxy: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        '#!/bin/sh\ncase "$1 $2" in "-m venv") mkdir -p "$3/bin"; printf "#!/bin/sh\\nexit 3\\n" >"$3/bin/python"; '
        'chmod +x "$3/bin/python";; esac\n'
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(fake), "HTTPS_PROXY": proxy}
    command = ["bash", ROOT / "scripts" / "install.sh", tmp_path / "venv"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert (
        f"HTTPS_PROXY=http://PROXY:PORT          behind a proxy (now: {'set' if proxy else 'not set'})" in done.stderr
    )
    assert "PIP_INDEX_URL=" in done.stderr
    assert "password" not in done.stderr

"""The container's build plan, the release workflow and the installer."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Containerfile").read_text()


def instructions() -> list[str]:
    """Instructions of the Containerfile, each in one line."""
    lines = TEXT.replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_pytorch_is_installed_before_the_package_which_runs_as_a_user() -> None:
    plan = instructions()
    assert [line for line in plan if line.startswith("FROM")] == ["FROM ${BASE}"], "podman 4 builds no ${VARIANT}"
    first, second = [line for line in plan if "pip install" in line]
    assert "TORCH_INDEX_URL" in first
    assert first.endswith('"$TORCH"')
    assert '"/src[$EXTRAS]"' in second
    assert any("NVIDIA_VISIBLE_DEVICES=all" in line for line in plan)
    assert plan.index("USER ctenrich") < plan.index('ENTRYPOINT ["ctenrich"]')
    assert plan.index(second) < plan.index("USER ctenrich")


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


CONTAINERS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
RECORD = '#!/bin/sh\necho "$0 $*" >>/built\n'
PROGRAM = '#!/bin/sh\necho "ctenrich $*"\n'


def small_base(folder: Path) -> Path:
    """A root file system with a shell, whose python3 and useradd only record their arguments."""
    tar = folder / "base.tar"
    libraries = re.findall(r"(/\S+\.so\S*)", subprocess.check_output(["ldd", "/bin/sh", "/bin/rm"], text=True))
    with tarfile.open(tar, "w") as archive:
        for path in ("/bin/sh", "/bin/rm", *dict.fromkeys(libraries)):
            archive.add(Path(path).resolve(), arcname=path)
        passwd = "root:x:0:0::/:/bin/sh\nctenrich:x:1000:1000::/:/bin/sh\n"
        texts = {"bin/python3": RECORD, "bin/useradd": RECORD, "bin/ctenrich": PROGRAM, "etc/passwd": passwd}
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, BytesIO(text.encode()))
    return tar


@pytest.mark.long
def test_podman_runs_the_build_plan(tmp_path: Path) -> None:
    """What pip is asked for with and without CUDA; the packages themselves are not installed."""
    if shutil.which("podman") is None or shutil.which("runc") is None:
        pytest.skip("podman and runc are not installed")
    (tmp_path / "containers.conf").write_text(CONTAINERS)
    roots = f'graphroot = "{tmp_path / "graph"}"\nrunroot = "{tmp_path / "run"}"\n'
    (tmp_path / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\n{roots}')
    environment = os.environ | {
        "CONTAINERS_CONF": str(tmp_path / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
    }

    def podman(*arguments: str | Path) -> str:
        command = ["podman", *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    podman("import", small_base(tmp_path), "base")
    build = ["build", "--pull-never", "--network", "none", "--build-arg", "BASE=localhost/base", "--tag", "made"]
    run = ["run", "--rm", "--network", "none"]
    for torch, arguments in (("torch==2.13.0+cpu", ["--build-arg", "TORCH=torch==2.13.0+cpu"]), ("torch", [])):
        podman(*build, *arguments, ".")
        built = podman(*run, "--entrypoint", "/bin/sh", "made", "-c", "while read l; do echo $l; done </built")
        assert f"-m pip install --no-cache-dir {torch}\n" in built
        assert "-m pip install --no-cache-dir /src[cloud]" in built
    assert podman(*run, "made", "demo").strip() == "ctenrich demo"
    facts = podman("inspect", "--format", "{{.Config.User}} {{.Config.Env}}", "made")
    assert facts.startswith("ctenrich ")
    assert "NVIDIA_VISIBLE_DEVICES=all" in facts

"""A container engine that runs a shell script on this machine, and a real one with images made offline."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp

import pytest

from ctenrich.containers.engines import ContainerSpec
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from tests.support.listeners import wait_for

CONFIG = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class ScriptEngine:
    """Images are shell scripts; in them a mount is a variable: its path with _ for other characters."""

    name = "script"
    leaves = False

    def __init__(self, **scripts: str) -> None:
        self.scripts = scripts
        self.files: dict[str, str] = {}
        """Path in each image -> content."""
        self.reads = 0
        """How often a file of an image was read."""
        self.ran: list[str] = []
        self.removed: list[str] = []

    def image_id(self, image: str) -> str:
        if image not in self.scripts:
            raise UsageError(Reason.NOT_FOUND, f"the image {image} is not on this machine")
        return f"sha256:{hash(self.scripts[image])}"

    def entrypoint(self, image: str) -> tuple[str, ...]:
        return ()

    def environment(self, image: str) -> tuple[str, ...]:
        return ("PATH", "HOLOSCAN_INPUT_PATH") if self.files else ("PATH",)

    def read_file(self, image: str, path: str) -> bytes:
        self.reads += 1
        return self.files.get(path, "").encode()

    def command(self, spec: ContainerSpec) -> list[str]:
        image = next(name for name in self.scripts if self.image_id(name) == spec.image)
        self.ran.append(image)
        names = {mount.target: re.sub(r"\W", "_", mount.target.strip("/")).upper() for mount in spec.mounts}
        paths = " ".join(f"{names[mount.target]}='{mount.host}'" for mount in spec.mounts)
        return ["/bin/sh", "-c", f"set -e; {paths}\n{self.scripts[image]}"]

    def remove(self, name: str) -> None:
        self.removed.append(name)

    def reap(self, *, work: str = "", owner: str = "") -> int:
        return 0


@contextmanager
def own_podman(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let podman use runc and a storage of its own, which is unmounted at the end; skips where no container starts."""
    if shutil.which("podman") is None or shutil.which("runc") is None:
        pytest.skip("podman and runc are not installed")
    (folder / "containers.conf").write_text(CONFIG)
    run = mkdtemp(prefix="podman-")  # with a long path podman waits 20 s for the socket of each container
    roots = f'graphroot = "{folder / "graph"}"\nrunroot = "{run}"\n'
    (folder / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\n{roots}')
    monkeypatch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
    try:
        image = make_image(folder, "probe", {})
        words = ["podman", "run", "--rm", "--network", "none", image, "/bin/sh", "-c", ":"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            pytest.skip(f"podman cannot run a container here: {done.stderr.strip()[-200:]}")
        yield
    finally:
        subprocess.run(["umount", str(folder / "graph" / "overlay")], capture_output=True, check=False)
        shutil.rmtree(run, ignore_errors=True)


@contextmanager
def docker_of_podman(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the client of Docker speak to podman's implementation of its API; skips without the client."""
    if shutil.which("docker") is None:
        pytest.skip("the client of Docker is not installed")
    folder = mkdtemp(prefix="docker-")
    address = f"unix://{folder}/s"
    service = subprocess.Popen(["podman", "system", "service", "--time", "0", address])
    monkeypatch.setenv("DOCKER_HOST", address)
    try:
        wait_for(Path(folder, "s").exists, 30)
        yield
    finally:
        service.terminate()
        service.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def make_image(folder: Path, name: str, files: Mapping[str, str | bytes], *changes: str) -> str:
    """Import an image of a shell, cp, sleep and these files; returns its ID."""
    tar = folder / f"{name}.tar"
    programs = ("/bin/sh", "/bin/cp", "/bin/sleep")
    libraries = re.findall(r"(/\S+\.so\S*)", subprocess.check_output(["ldd", *programs], text=True))
    with tarfile.open(tar, "w") as archive:
        for path in (*programs, *dict.fromkeys(libraries)):
            archive.add(Path(path).resolve(), arcname=path)
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, BytesIO(data))
    words = ["podman", "import", *(word for change in changes for word in ("--change", change)), str(tar), name]
    done = subprocess.run(words, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"podman cannot import an image here: {done.stderr.strip()[-200:]}")
    return done.stdout.split()[-1]

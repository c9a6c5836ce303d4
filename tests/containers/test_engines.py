"""Command lines of the engines: what is closed by default, and what a flow may open."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.containers import engines
from ctenrich.containers.engines import ApptainerEngine, ContainerSpec, DockerEngine, HostMount, find_engine
from ctenrich.errors import ToolError, UsageError

SPEC = ContainerSpec(
    name="ctenrich-1",
    work="w",
    image="sha256:abc",
    mounts=(
        HostMount(host=Path("/a/in"), target="/input"),
        HostMount(host=Path("/a/out"), target="/output", writable=True),
    ),
    environment={"A": "b c"},
    command=("run", "--fast"),
)


def test_a_container_is_closed_by_default() -> None:
    words = DockerEngine(Path("/usr/bin/podman")).command(SPEC)
    text = " ".join(words)
    for part in (
        "--network none", "--read-only", "--cap-drop all", "--security-opt no-new-privileges", "--pull never",
        "--user 1000:1000", "--pids-limit 512", "--label ctenrich.work=w", "--volume /a/in:/input:ro",
        "--volume /a/out:/output --env A=b c sha256:abc run --fast",
    ):  # fmt: skip
        assert part in text
    assert "privileged" not in text.replace("no-new-privileges", "")
    assert "--device" not in words


def test_what_a_flow_opens() -> None:
    from dataclasses import replace

    spec = replace(
        SPEC, network=True, root=True, cpus=2.0, memory=1024, shared_memory=64, gpu="nvidia.com/gpu=0",
        entrypoint=("/bin/model", "-v"),
    )  # fmt: skip
    text = " ".join(DockerEngine(Path("docker")).command(spec))
    for part in ("--user 0:0", "--cpus 2 --memory 1024 --shm-size 64 --device nvidia.com/gpu=0"):
        assert part in text
    assert text.endswith("--entrypoint /bin/model sha256:abc -v run --fast")
    assert "--network" not in text


def test_apptainer(tmp_path: Path) -> None:
    image = tmp_path / "model.sif"
    image.touch()
    engine = ApptainerEngine(Path("/usr/bin/apptainer"))
    assert engine.image_id(str(image)) == str(image)
    words = engine.command(SPEC)
    assert words[1] == "exec"
    assert words[-3:] == ["sha256:abc", "run", "--fast"]
    assert {"--containall", "--cleanenv", "--no-privs", "/a/in:/input:ro", "/a/out:/output:rw"} <= set(words)
    assert words[words.index("--network") + 1] == "none"
    with pytest.raises(UsageError, match="image file"):
        engine.image_id("none.sif")


def test_the_engine_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(ToolError, match="no container engine"):
        find_engine()

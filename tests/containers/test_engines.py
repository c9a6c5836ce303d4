"""Command lines of the engines: what is closed by default, and what a flow may open."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.containers import docker_of_podman, make_image, own_podman

from ctenrich.containers import engines
from ctenrich.containers.engines import ApptainerEngine, ContainerSpec, DockerEngine, Engine, HostMount, find_engine
from ctenrich.containers.running import ContainerLimits, run_container
from ctenrich.errors import CtenrichError, ToolError, UsageError
from ctenrich.reasons import Reason

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


def test_a_container_is_closed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.os, "geteuid", lambda: 0)
    words = DockerEngine(Path("/usr/bin/podman")).command(SPEC)
    text = " ".join(words)
    for part in (
        "--network none", "--read-only --tmpfs /tmp:size=2g --cap-drop all", "--security-opt no-new-privileges",
        "--pull never",
        "--user 1000:1000", "--pids-limit 512", "--label ctenrich.work=w", "--volume /a/in:/input:ro",
        "--env A=b c", "--volume /a/out:/output sha256:abc run --fast", "run --pull never",
    ):  # fmt: skip
        assert part in text
    assert "--rm" in words
    assert "--rm" not in DockerEngine(Path("/usr/bin/docker")).command(SPEC)
    assert "privileged" not in text.replace("no-new-privileges", "")
    assert "--device" not in words
    relative = replace(SPEC, mounts=(HostMount(host=Path("run/in"), target="/input"),))
    assert f"{Path.cwd()}/run/in:/input:ro" in DockerEngine(Path("podman")).command(relative), "else it names a volume"
    assert "--timeout" not in words


def test_containers_belong_to_an_owner_and_end_by_themselves() -> None:
    spec = replace(SPEC, owner="o", seconds=1800.0)
    words = DockerEngine(Path("podman")).command(spec)
    assert "ctenrich.owner=o" in words
    assert words[words.index("--timeout") + 1] == "1860"
    assert "--timeout" not in DockerEngine(Path("docker")).command(spec), "docker does not have it"


def test_what_a_flow_opens() -> None:
    spec = replace(
        SPEC, network=True, root=True, cpus=2.0, memory=1024, shared_memory=64, gpu="nvidia.com/gpu=0",
        entrypoint=("/bin/model", "-v"),
    )  # fmt: skip
    text = " ".join(DockerEngine(Path("docker")).command(spec))
    for part in ("--user 0:0", "--cpus 2 --memory 1024", "--shm-size 64 --device nvidia.com/gpu=0"):
        assert part in text
    assert text.endswith("--entrypoint /bin/model sha256:abc -v run --fast")
    assert "--network" not in text


@pytest.mark.parametrize(
    ("program", "user", "words"),
    [
        ("podman", "", "--userns keep-id:uid=1000,gid=1000 --user 1000:1000"),
        ("podman", "7:8", "--userns keep-id:uid=7,gid=8 --user 7:8"),
        ("podman", "7", "--userns keep-id:uid=7,gid=7 --user 7"),
        ("podman", "model", "--user model"),
        ("docker", "", "--user 1234:4321"),
        ("docker", "7:8", "--user 7:8"),
    ],
)
def test_without_root_the_user_in_a_container_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, program: str, user: str, words: str
) -> None:
    monkeypatch.setattr(engines.os, "geteuid", lambda: 1234)
    monkeypatch.setattr(engines.os, "getegid", lambda: 4321)
    command = DockerEngine(Path(program)).command(replace(SPEC, user=user))
    assert f" {words} " in " ".join(command)
    assert ("--userns" in command) == ("--userns" in words)
    assert "--userns" not in DockerEngine(Path(program)).command(replace(SPEC, root=True))


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
    with pytest.raises(UsageError, match="no container engine 'podmann'") as caught:
        find_engine("podmann")
    assert (caught.value.reason, caught.value.hint) == (
        Reason.BAD_PARAMETER,
        "did you mean podman? choose from podman, docker, apptainer",
    )


def test_the_image_of_a_name_is_asked_for_once(tmp_path: Path) -> None:
    program = tmp_path / "podman"
    program.write_text(f"""#!/bin/sh
echo x >> {tmp_path}/calls
echo '[{{"Id": "sha256:1", "Config": {{"Entrypoint": ["run"], "Env": ["A=b"]}}}}]'
""")
    program.chmod(0o755)
    engine = DockerEngine(program)
    for _ in range(3):
        assert (engine.image_id("a"), engine.entrypoint("a"), engine.environment("a")) == ("sha256:1", ("run",), ("A",))
    assert (tmp_path / "calls").read_text() == "x\n"


def test_how_many_processes_a_container_may_have_is_limited_by_every_engine() -> None:
    for engine in (DockerEngine(Path("podman")), DockerEngine(Path("docker")), ApptainerEngine(Path("apptainer"))):
        words = engine.command(SPEC)
        assert words[words.index("--pids-limit") + 1] == "512"


APPTAINER = """#!/bin/sh
# stands for apptainer: takes the options that are used here, refuses others, and runs the command on this machine
if [ "$1" = exec ] && [ "$5" = {image} ]; then test "$6" = cat && exit 1; fi
test "$1" = exec || exit 91; shift
while :; do case "$1" in
  --containall|--cleanenv|--no-home|--no-privs|--net) seen="$seen $1"; shift;;
  --drop-caps|--pids-limit|--network|--cpus|--memory) seen="$seen $1=$2"; shift 2;;
  --env) export "$2"; shift 2;;
  --bind) case "$2" in *:/input:ro) in="${2%%:*}";; *:/output:rw) out="${2%%:*}";; *) exit 92;; esac; shift 2;;
  *) break;;
esac; done
test "$1" = {image} || exit 93; shift
closed=" --containall --cleanenv --no-home --drop-caps=all --no-privs --net"
test "$seen" = "$closed --pids-limit=512 --network=none" || exit 94
test "$*" = "cp /input/a /output/b" && cp "$in/a" "$out/b" && echo "$A"
"""


def test_apptainer_gets_options_that_it_knows(tmp_path: Path) -> None:
    """The program is a stand-in that checks its arguments: apptainer itself is not there."""
    image, program = tmp_path / "model.sif", tmp_path / "apptainer"
    image.touch()
    program.write_text(APPTAINER.replace("{image}", str(image)))
    program.chmod(0o755)
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "a").write_text("text")
    engine = ApptainerEngine(program)
    assert engine.read_file(str(image), "/etc/holoscan/app.json") == b""
    mounts = (
        HostMount(host=tmp_path / "in", target="/input"),
        HostMount(host=tmp_path / "out", target="/output", writable=True),
    )
    spec = replace(SPEC, image=engine.image_id(str(image)), mounts=mounts, command=("cp", "/input/a", "/output/b"))
    run_container(engine, spec, ContainerLimits(timeout=60), tmp_path / "log")
    assert (tmp_path / "out" / "b").read_text() == "text"
    assert (tmp_path / "log").read_text() == "b c\n"


SCRIPT = """#!/bin/sh
case "$1" in
  fail) exit 3;;
  fork) while :; do sleep 60 & done;;
  hang) sleep 600 & sleep 600;;
  flood) while :; do cp /bin/sh /output/$((n = n + 1)); done;;
  *) echo "$A"; echo x > /output/x;;
esac
"""


def _run(engine: Engine, folder: Path, image: str, word: str, seconds: float = 300) -> Reason | None:
    out = folder / word
    out.mkdir()
    out.chmod(0o777)
    mounts = (HostMount(host=out, target="/output", writable=True),)
    spec = replace(SPEC, name=f"c{word}", image=image, mounts=mounts, command=("/bin/model", word), memory=64 * 1024**2)
    try:
        run_container(engine, spec, ContainerLimits(timeout=seconds, output_bytes=10_000_000), folder / f"{word}.log")
    except CtenrichError as error:
        return error.reason
    return None


@pytest.mark.long
def test_containers_that_fork_fail_and_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of Docker speaks to podman's API, which reports exit code 0 for each container with --rm."""
    with own_podman(tmp_path, monkeypatch), ExitStack() as stack:
        files = {"bin/model": SCRIPT, "etc/holoscan/app.json": '{"command": "x"}'}
        image = make_image(tmp_path, "model", files)
        podman = find_engine("podman")
        assert _run(podman, tmp_path, image, "fork", 2) in (Reason.TIMEOUT, Reason.TOOL_FAILED)
        left = ["podman", "run", "--detach", "--rm", "--network", "none", "--label", "ctenrich.owner=o", image]
        subprocess.run([*left, "/bin/sleep", "600"], check=True, stdout=subprocess.DEVNULL)
        assert (podman.reap(owner="another"), podman.reap(owner="o"), podman.reap(owner="o")) == (0, 1, 0)
        assert _run(podman, tmp_path, image, "flood") is Reason.OUTPUT_TOO_LARGE
        assert podman.read_file("model", "/etc/holoscan/app.json") == b'{"command": "x"}'
        stack.enter_context(docker_of_podman(monkeypatch))
        docker = find_engine("docker")
        assert docker.image_id("model").endswith(image)
        assert _run(docker, tmp_path, image, "work") is None
        assert (tmp_path / "work.log").read_text() == "b c\n"
        assert (tmp_path / "work" / "x").read_text() == "x\n"
        assert _run(docker, tmp_path, image, "fail") is Reason.TOOL_FAILED
        assert _run(docker, tmp_path, image, "hang", 2) is Reason.TIMEOUT
        assert docker.read_file("model", "/etc/monai/app.json") == b""
        left = subprocess.run(["podman", "ps", "-aq"], capture_output=True, text=True, check=True)
        assert left.stdout == ""

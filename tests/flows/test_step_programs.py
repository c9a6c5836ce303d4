"""Programs of this machine as steps, static files, and what images of MONAI Deploy and mercure find."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import pytest
from pydicom import dcmread
from tests.flows.test_step_graph import ONE, graph, sources
from tests.support.containers import ScriptEngine
from tests.support.flows import flow_of
from tests.support.listeners import wait_for

from ctenrich.containers.engines import Engine
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.flows import running, step_outputs
from ctenrich.flows.errors import BadFlowError
from ctenrich.flows.reader import Machine
from ctenrich.flows.request import RunRequest
from ctenrich.flows.step_container import container_spec, prepare_step
from ctenrich.flows.step_graph import StepGraph, check_containers
from ctenrich.listener.config import StationConfig
from ctenrich.reasons import Reason

COMMAND = "triggers: [{}]\nmodels: [{name: model, command: [%s]%s}]\n"


@pytest.fixture(autouse=True)
def valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_outputs, "run_dciodvfy", lambda *_: [])


def program(folder: Path, text: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\nset -e\n{text}\n")
    path.chmod(0o755)
    return path


def steps(folder: Path, text: str, *commands: Path, engine: Engine | None = None, **options: Any) -> StepGraph:
    flow = flow_of(text)
    check_containers(flow)
    return StepGraph(flow=flow, engine=engine, folder=folder, commands=tuple(map(str, commands)), **options)


def test_a_program_finds_its_files_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_TOKEN", "secret")
    path = program(tmp_path, 'env > "$2/../env"; test "$1" = "$INPUT"; cp "$1"/*.dcm "$2"; cat "$CONFIG/config.yaml"')
    text = COMMAND % (f"{path}, /input, /output", ", config: {fast: 1}")
    (ended,) = steps(tmp_path / "case", text, path).run(sources())
    assert len(ended.results) == 2
    seen = (tmp_path / "case/steps/model/out/env").read_text()
    assert "secret" not in seen
    assert f"OUTPUT={tmp_path}/case/steps/model/out/dst\n" in seen
    assert '"fast": 1' in (tmp_path / "case/steps/model/log.txt").read_text()
    done = json.loads((tmp_path / "case/steps/model/done.json").read_text())
    assert (done["engine"], done["contract"], done["image"]) == ("program", "plain", str(path))
    began = (tmp_path / "case/steps/model/done.json").stat().st_mtime_ns
    steps(tmp_path / "case", text, path).run(sources())
    assert (tmp_path / "case/steps/model/done.json").stat().st_mtime_ns == began
    path.write_text(path.read_text() + "# a new version\n")
    steps(tmp_path / "case", text, path).run(sources())
    assert (tmp_path / "case/steps/model/done.json").stat().st_mtime_ns > began


def test_a_program_gets_the_contract_that_its_flow_names(tmp_path: Path) -> None:
    path = program(tmp_path, 'test -f "$MERCURE_IN_DIR/task.json"; cp "$MERCURE_IN_DIR"/*.dcm "$MERCURE_OUT_DIR"')
    (ended,) = steps(tmp_path / "case", COMMAND % (path, ", contract: mercure"), path).run(sources())
    assert len(ended.results) == 2


def test_programs_run_only_where_the_station_names_them(tmp_path: Path) -> None:
    path = program(tmp_path, "true")
    text = COMMAND % (path, "")
    with pytest.raises(UsageError, match="not among the commands") as caught:
        steps(tmp_path / "case", text).run(sources())
    assert caught.value.reason is Reason.BAD_FLOW
    with pytest.raises(BadFlowError, match="not among the commands"):
        flow_of(text, Machine(commands=frozenset()))
    assert flow_of(text, Machine(commands=frozenset({str(path)}), has_containers=False)).steps[0].command
    found = running.run_flow(flow_of(text), sources(), tmp_path / "run", RunRequest(commands=(str(path),)))
    assert (found.end.state, found.end.reason) == (running.EndState.FAILED, "EMPTY_OUTPUT")
    with pytest.raises(UsageError, match="no program"):
        steps(tmp_path / "case", COMMAND % ("/none", ""), Path("/none")).run(sources())
    with pytest.raises(UsageError, match="no absolute path"):
        StationConfig(run=RunRequest(commands=("segment",))).check()


def _left(marker: str) -> list[int]:
    """Processes with a marker on their command line that are not just ending."""
    return [
        one.pid
        for one in psutil.process_iter(["cmdline", "status"])
        if marker in (one.info["cmdline"] or ()) and one.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('sleep "$0.1" & cp "$INPUT"/* "$OUTPUT"', None),
        ("sleep %s & sleep %s & wait", Reason.TIMEOUT),
        ("(setsid sleep %s &) ; sleep %s", Reason.TIMEOUT),
    ],
    ids=["leaves a process", "hangs", "hangs in a session of its own"],
)
def test_no_process_of_a_program_is_left(tmp_path: Path, text: str, reason: Reason | None) -> None:
    marker = f"{os.getpid()}7{abs(hash(text)) % 1000}"
    path = program(tmp_path, text.replace("$0.1", marker).replace("%s", marker))
    seconds = 60 if reason is None else 0.7
    run = steps(tmp_path / "case", COMMAND % (path, f", timeout: {seconds}"), path)
    if reason is None:
        assert len(run.run(sources())[0].results) == 2
    else:
        with pytest.raises(CtenrichError) as caught:
            run.run(sources())
        assert caught.value.reason is reason
    wait_for(lambda: not _left(marker))


def test_what_a_killed_process_left_ends_when_the_next_one_starts(tmp_path: Path) -> None:
    path = program(tmp_path, "sleep 600")
    owner, other = running.owner_of(tmp_path / "a"), running.owner_of(tmp_path / "b")
    left = [
        subprocess.Popen(["sleep", "600"], env={"CTENRICH_OWNER": name, "PATH": os.environ["PATH"]}, process_group=0)
        for name in (owner, other)
    ]
    try:
        request = RunRequest(commands=(str(path),))
        assert running.end_left_steps(request) == 0, "without an owner nothing is ended"
        assert running.end_left_steps(replace(request, owner=owner)) == 1
        wait_for(lambda: left[0].poll() is not None)
        assert left[1].poll() is None
    finally:
        left[1].kill()
        left[1].wait()


# ---------------------------------------------------------------- static files


def test_static_files_are_seen_and_belong_to_the_key_of_a_step(tmp_path: Path) -> None:
    static = tmp_path / "static"
    (static / "weights").mkdir(parents=True)
    (static / "weights" / "a").write_text("1")
    engine = ScriptEngine(model='test -f "$WEIGHTS"/a; cp "$INPUT"/* "$OUTPUT"')
    text = ONE % ", static_mounts: {weights.tar: /weights}"  # RadDeploy unpacks archives
    for times in (1, 1):
        graph(tmp_path / "case", text, engine, static=str(static)).run(sources())
        assert len(engine.ran) == times
    (static / "weights" / "a").write_text("2 ")
    graph(tmp_path / "case", text, engine, static=str(static)).run(sources())
    assert len(engine.ran) == 2
    (static / "weights" / "b").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="link") as caught:
        graph(tmp_path / "case", text, engine, static=str(static)).run(sources())
    assert caught.value.reason is Reason.UNSAFE_PATH
    step = flow_of(text).steps[0]
    spec = container_spec(step, prepare_step(step, engine), "k", tmp_path, static=str(static))
    assert [(one.target, one.writable) for one in spec.mounts] == [
        ("/input", False), ("/output", True), ("/weights", False),
    ]  # fmt: skip


def test_static_files_that_are_not_there_are_refused_when_the_file_is_read(tmp_path: Path) -> None:
    text = ONE % ", static_mounts: {weights.tar.gz: /weights}"
    with pytest.raises(BadFlowError, match="line 2, column 10: weights is not among the static files"):
        flow_of(text, Machine(static=str(tmp_path)))
    with pytest.raises(BadFlowError, match="there is no folder of static files"):
        flow_of(text, Machine(static=""))
    (tmp_path / "weights").mkdir()
    assert flow_of(text, Machine(static=str(tmp_path))).steps


# ---------------------------------------------------------------- mercure and MONAI Deploy


def test_a_module_of_mercure_finds_its_task_and_names_of_series(tmp_path: Path) -> None:
    script = (
        'for f in "$TMP_DATA"/*.dcm; do b="${f##*/}"; cp "$f" "$TMP_OUTPUT/${b#*#}"; done; cat "$TMP_DATA/task.json"'
    )
    engine = ScriptEngine(model=f'{script}; echo "{{}}" > "$TMP_OUTPUT/result.json"')
    text = ONE % ", contract: mercure, config: {sigma: 3}"
    (ended,) = graph(tmp_path, text, engine).run(sources())
    uids = {str(dcmread(path).SOPInstanceUID) for path in sources()["src"].values()}
    assert {path.name.removesuffix(".dcm") for path in ended.results} == uids
    task = json.loads((tmp_path / "steps/model/log.txt").read_text())
    assert task["process"]["settings"] == {"sigma": 3}
    assert set(task) == {"id", "info", "process"}, "nothing about the patient"


APP = {
    "command": '["python3", "-u", "/opt/holoscan/app"]', "environment": {"HOLOSCAN_MODEL_PATH": "/opt/models"},
    "input": {"path": "in"}, "output": {"path": "/results"}, "workingDirectory": "/var/holoscan", "timeout": 60,
}  # fmt: skip
PACKAGE = {"resources": {"cpu": 1, "gpu": 0, "memory": "1Gi", "sharedMemory": "64Mi"}}


def _packaged(app: object = APP, package: object = PACKAGE, folder: str = "/etc/holoscan") -> ScriptEngine:
    engine = ScriptEngine(model='cp "$VAR_HOLOSCAN_IN"/* "$RESULTS"')
    engine.files = {f"{folder}/app.json": json.dumps(app), f"{folder}/pkg.json": json.dumps(package)}
    return engine


@pytest.mark.parametrize("folder", ["/etc/holoscan", "/etc/monai"])
def test_a_package_of_monai_deploy_is_found_and_runs_as_its_manifests_state(tmp_path: Path, folder: str) -> None:
    engine = _packaged(folder=folder)
    (ended,) = graph(tmp_path / "case", ONE % "", engine).run(sources())
    assert len(ended.results) == 2
    step = flow_of(ONE % ", timeout: 100").steps[0]
    found = prepare_step(step, engine)
    assert (found.contract, found.timeout(step)) == ("map", 60)
    spec = container_spec(step, found, "k", tmp_path, static="")
    assert [one.target for one in spec.mounts] == ["/var/holoscan/in", "/results"]
    assert spec.environment["HOLOSCAN_INPUT_PATH"] == "/var/holoscan/in"
    assert spec.environment["MONAI_OUTPUTPATH"] == "/results"
    assert spec.environment["HOLOSCAN_MODEL_PATH"] == "/opt/models"
    assert "HOLOSCAN_CONFIG_PATH" not in spec.environment
    assert spec.shared_memory == 64 * 1024**2
    assert spec.command == ("python3", "-u", "/opt/holoscan/app"), "the image has no entry point"


def test_files_are_read_of_images_only_that_may_be_packages(tmp_path: Path) -> None:
    engine = ScriptEngine(model='cp "$INPUT"/* "$OUTPUT"')
    graph(tmp_path, ONE % "", engine).run(sources())
    assert engine.reads == 0
    prepare_step(flow_of(ONE % "").steps[0], _packaged())
    assert prepare_step(flow_of(ONE % ", contract: map").steps[0], engine).contract == "map"
    assert engine.reads == 2


@pytest.mark.parametrize(
    ("app", "package", "keys", "message"),
    [
        (APP, {"resources": {"gpu": 1}}, "", "needs a GPU"),
        (APP, PACKAGE, ", memory: 512m", "bytes of memory"),
        ([], PACKAGE, "", "manifests"),
        ({**APP, "output": {"path": "../../etc"}}, PACKAGE, "", "manifests"),
        ({**APP, "timeout": "long"}, PACKAGE, "", "manifests"),
        (APP, {"resources": {"memory": "much"}}, "", "manifests"),
    ],
)
def test_packages_that_cannot_be_run_so(app: object, package: object, keys: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        prepare_step(flow_of(ONE % keys).steps[0], _packaged(app, package))
    assert caught.value.reason is Reason.BAD_FLOW


def test_a_folder_of_the_configuration_that_the_contract_does_not_know(tmp_path: Path) -> None:
    text = ONE % ", config: {a: 1}, config_dump_folder: /settings"
    step = flow_of(text).steps[0]
    plain = prepare_step(step, ScriptEngine(model="true"))
    assert container_spec(step, plain, "k", tmp_path, static="").mounts[-1].target == "/settings"
    with pytest.raises(UsageError, match="line 2: model: config_dump_folder has no effect under the contract map"):
        prepare_step(step, _packaged())


def test_names_of_files_under_each_contract() -> None:
    from ctenrich.containers.contracts import CONTRACTS
    from ctenrich.flows.inputs import input_paths

    path = sources()["src"].popitem()[1]
    data = dcmread(path)
    uids = f"{data.SeriesInstanceUID[:64]}", f"{data.SOPInstanceUID[:64]}"
    names = {name: input_paths([path], (), paths.name_form)[path] for name, paths in CONTRACTS.items()}
    assert names["mercure"] == PurePosixPath(f"{uids[0]}#{uids[1]}.dcm")
    assert {names[name] for name in names if name != "mercure"} == {PurePosixPath(f"CT_{uids[0]}_{uids[1]}.dcm")}

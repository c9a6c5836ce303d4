"""Containers of a flow: order, content keys, retries, limits, and what their output must be before it may leave."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from tests.support.containers import ScriptEngine, make_image, own_podman
from tests.support.flows import flow_of
from tests.support.listeners import study_files

from ctenrich.containers.contracts import CONTRACTS
from ctenrich.containers.engines import Engine, find_engine
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.flows import running, step_outputs
from ctenrich.flows.capacity import Capacity
from ctenrich.flows.request import RunRequest
from ctenrich.flows.step_graph import StepGraph, check_containers
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity

ONE = "triggers: [{}]\nmodels: [{name: model, image: model%s}]\n"
DIAMOND = """
triggers: [{}]
models:
  - {name: left, image: copy, priority: 1, inputs: {first: /input}, outputs: {left: /output}}
  - {name: first, image: copy, outputs: {first: /output}}
  - {name: right, image: copy, priority: 5, inputs: {first: /input}, outputs: {right: /output}}
  - {name: last, image: join, inputs: {left: /a, right: /b}}
"""
PRIORITIES = (0, 3, 5, 1, 4)
FOLDS = (
    "triggers: [{}]\nmodels:\n"
    + "".join(
        f"  - {{name: fold{n}, image: copy, outputs: {{o{n}: /output}}, priority: {priority}}}\n"
        for n, priority in enumerate(PRIORITIES)
    )
    + "  - {name: join, image: join, inputs: {o0: /a, o1: /b, o2: /c, o3: /d, o4: /e}}\n"
)
COPY = 'cp -r "$INPUT"/. "$OUTPUT"'


def sources() -> dict[str, dict[str, Path]]:
    return {"src": {path.name: path for path in study_files()[:2]}}


def graph(folder: Path, text: str, engine: Engine, **options: Any) -> StepGraph:
    flow = flow_of(text)
    check_containers(flow)
    return StepGraph(flow=flow, engine=engine, folder=folder, **options)


@pytest.fixture
def valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_outputs, "run_dciodvfy", lambda *_: [])


@pytest.mark.parametrize(
    ("text", "order"),
    [(DIAMOND, ["first", "right", "left", "last"]), (FOLDS, ["fold2", "fold4", "fold1", "fold3", "fold0", "join"])],
    ids=["diamond", "folds"],
)
def test_steps_run_when_their_input_is_there_by_priority(
    tmp_path: Path, text: str, order: list[str], valid: None
) -> None:
    engine = ScriptEngine(copy=COPY, join='cp "$A"/* "$OUTPUT"')
    ended = graph(tmp_path, text, engine).run(sources())
    assert [one.step for one in ended] == order
    assert len(ended[-1].results) == 2
    assert [path.read_bytes() for path in ended[-1].results] == sorted(
        (path.read_bytes() for path in study_files()[:2]), key=[p.read_bytes() for p in ended[-1].results].index
    )


def test_five_folds_run_at_the_same_time(tmp_path: Path, valid: None) -> None:
    (tmp_path / "seen").mkdir()
    count = f'[ "$(ls {tmp_path}/seen | wc -l)" = 5 ]'
    together = f"touch {tmp_path}/seen/$$; until {count}; do sleep 0.02; done; {COPY}"
    engine = ScriptEngine(copy=together, join='cp "$A"/* "$OUTPUT"')
    ended = graph(tmp_path / "case", FOLDS, engine, capacity=Capacity(cpus=5)).run(sources())
    assert ended[-1].step == "join"
    assert len(ended) == 6


def test_a_step_that_fails_ends_those_that_run_beside_it(tmp_path: Path, valid: None) -> None:
    text = FOLDS.replace("fold0, image: copy", "fold0, image: bad")
    bad = f"until [ -e {tmp_path}/started ]; do sleep 0.02; done; exit 3"
    engine = ScriptEngine(copy=f"touch {tmp_path}/started; exec sleep 60", bad=bad, join="true")
    with pytest.raises(CtenrichError) as caught:
        graph(tmp_path / "case", text, engine, capacity=Capacity(cpus=5)).run(sources())
    assert caught.value.reason is Reason.TOOL_FAILED
    assert len(engine.removed) == 4
    assert "join" not in engine.ran


def test_what_was_done_is_not_repeated_unless_its_input_or_image_changed(tmp_path: Path, valid: None) -> None:
    engine = ScriptEngine(copy=COPY, join='cp "$A"/* "$OUTPUT"')
    graph(tmp_path, DIAMOND, engine).run(sources())
    assert len(engine.ran) == 4
    graph(tmp_path, DIAMOND, engine).run(sources())
    assert len(engine.ran) == 4
    done = json.loads((tmp_path / "steps/last/done.json").read_text())
    assert (done["image"], done["attempts"], len(done["outputs"]["dst"])) == ("join", 1, 2)
    (tmp_path / "steps/right/done.json").unlink()  # killed in the middle of this step
    graph(tmp_path, DIAMOND, engine).run(sources())
    assert engine.ran[4:] == ["copy"]
    next((tmp_path / "steps/left/out/left").iterdir()).write_bytes(b"changed")
    graph(tmp_path, DIAMOND, engine).run(sources())
    assert engine.ran[5:] == ["copy"]
    graph(tmp_path, DIAMOND, engine).run({"src": {path.name: path for path in study_files()[:3]}})
    assert len(engine.ran) == 10
    engine.scripts["join"] = 'cp "$B"/* "$OUTPUT"'
    graph(tmp_path, DIAMOND, engine).run({"src": {path.name: path for path in study_files()[:3]}})
    assert engine.ran[10:] == ["join"]


def test_input_is_a_readable_copy_in_subfolders(tmp_path: Path, valid: None) -> None:
    engine = ScriptEngine(model='chmod -R u+w "$INPUT"; cp "$INPUT"/CT/*.dcm "$OUTPUT"; rm -r "$INPUT"/CT')
    before = [path.read_bytes() for path in study_files()[:2]]
    (ended,) = graph(tmp_path, ONE % ", subfolders: [Modality]", engine).run(sources())
    assert len(ended.results) == 2
    assert [path.read_bytes() for path in study_files()[:2]] == before


def test_input_and_configuration_can_be_read_by_the_user_of_a_container(tmp_path: Path, valid: None) -> None:
    """The files of a listener are readable by its own user only."""
    before = os.umask(0o077)
    try:
        text = ONE % ", subfolders: [Modality], config: {a: 1}"
        graph(tmp_path, text, ScriptEngine(model='cp "$INPUT"/CT/* "$OUTPUT"')).run(sources())
    finally:
        os.umask(before)
    step = tmp_path / "steps/model"
    modes = {oct(path.stat().st_mode & 0o777) for path in (step / "in/src").rglob("*")}
    assert modes == {"0o755", "0o644"}
    assert [(step / name).stat().st_mode & 0o777 for name in ("in/src", "config", "out/dst")] == [0o755, 0o755, 0o777]


def changed(path: Path, folder: Path, change: Callable[[object], None]) -> Path:
    data = dcmread(path)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    change(data)
    target = folder / "changed.dcm"
    data.save_as(target)
    return target


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("PatientID", "OTHER", Reason.FOREIGN_OBJECT),
        ("StudyInstanceUID", "1.2.3", Reason.FOREIGN_OBJECT),
        ("FrameOfReferenceUID", "1.2.3", Reason.FOREIGN_OBJECT),
        ("SOPInstanceUID", "the input's", Reason.FOREIGN_OBJECT),
        ("PixelData", b"\0\0", Reason.DECODE_ERROR),
        ("SeriesDescription", "a new one", None),
    ],
)
def test_objects_of_another_examination_never_leave(
    tmp_path: Path, valid: None, keyword: str, value: object, reason: Reason | None
) -> None:
    first = study_files()[0]
    value = dcmread(first).SOPInstanceUID if keyword == "SOPInstanceUID" else value
    path = changed(first, tmp_path, lambda data: setattr(data, keyword, value))
    run = graph(tmp_path, ONE % "", ScriptEngine(model=f'cp {path} "$OUTPUT"'))
    if reason is None:
        assert len(run.run(sources())[0].results) == 1
        return
    with pytest.raises(CtenrichError) as caught:
        run.run(sources())
    assert caught.value.reason is reason


def test_an_object_that_a_validator_refuses_does_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issue = Issue("dciodvfy", Severity.ERROR, "x", "missing attribute", "dciodvfy", "1")
    monkeypatch.setattr(step_outputs, "run_dciodvfy", lambda *_: [issue])
    with pytest.raises(CtenrichError, match="missing attribute") as caught:
        graph(tmp_path, ONE % "", ScriptEngine(model=COPY)).run(sources())
    assert caught.value.reason is Reason.INVALID_OBJECT


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", Reason.EMPTY_OUTPUT),
        ("exit 3", Reason.TOOL_FAILED),
        ("sleep 30", Reason.TIMEOUT),
        ('ln -s /etc/passwd "$OUTPUT"/x', Reason.UNSAFE_PATH),
        ('mkfifo "$OUTPUT"/x', Reason.UNSAFE_PATH),
        ('head -c 3000000 /dev/zero > "$OUTPUT"/x', Reason.OUTPUT_TOO_LARGE),
        ('echo text > "$OUTPUT"/x', Reason.NOT_DICOM),
    ],
)
def test_models_that_misbehave(tmp_path: Path, script: str, reason: Reason) -> None:
    engine = ScriptEngine(model=script)
    timeout = 1 if reason is Reason.TIMEOUT else 60
    with pytest.raises(CtenrichError) as caught:
        graph(tmp_path, ONE % f", timeout: {timeout}", engine, output_bytes=1_000_000).run(sources())
    assert caught.value.reason is reason
    if reason is not Reason.OUTPUT_TOO_LARGE:  # noticed while it runs, or at its end
        assert bool(engine.removed) is (reason is Reason.TIMEOUT)


def test_names_with_two_dots_stay_in_their_folder(tmp_path: Path, valid: None) -> None:
    script = (
        'mkdir "$OUTPUT/..." "$OUTPUT/a..b"; set -- "$INPUT"/*; cp "$1" "$OUTPUT/.../..x"; cp "$2" "$OUTPUT/a..b/..%2f"'
    )
    (ended,) = graph(tmp_path, ONE % "", ScriptEngine(model=script)).run(sources())
    out = tmp_path / "steps/model/out/dst"
    assert [str(path.relative_to(out)) for path in ended.results] == [".../..x", "a..b/..%2f"]
    assert all(path.resolve().is_relative_to(out.resolve()) for path in ended.results)


def test_an_empty_output_may_be_a_result(tmp_path: Path) -> None:
    (ended,) = graph(tmp_path, ONE % ", may_be_empty: true", ScriptEngine(model="true")).run(sources())
    assert ended.results == ()


def test_retries(tmp_path: Path, valid: None) -> None:
    script = f'echo x >> {tmp_path}/tries; test "$(wc -l < {tmp_path}/tries)" = 3; {COPY}'
    with pytest.raises(CtenrichError):
        graph(tmp_path / "a", ONE % ", retries: 1", ScriptEngine(model=script)).run(sources())
    (tmp_path / "tries").unlink()
    graph(tmp_path / "b", ONE % ", retries: 2", ScriptEngine(model=script)).run(sources())
    assert json.loads((tmp_path / "b/steps/model/done.json").read_text())["attempts"] == 3


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("command: [run], cpus: 2", "memory, network"),
        ("command: [run], environment: {LD_PRELOAD: /input/a.so}", "environment"),
        ("command: [run], entrypoint: [sh]", "entrypoint"),
    ],
)
def test_what_containers_cannot_do_here(model: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_containers(flow_of(f"triggers: [{{}}]\nmodels: [{{{model}}}]"))


def test_how_a_flow_with_a_container_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid: None) -> None:
    engine = ScriptEngine(model=COPY)
    monkeypatch.setattr(running, "find_engine", lambda name: engine)
    found = running.run_flow(flow_of(ONE % ""), sources(), tmp_path / "a", RunRequest())
    assert (found.end.state, len(found.files)) == (running.EndState.DONE, 2)
    engine.scripts["model"] = "exit 3"
    found = running.run_flow(flow_of(ONE % ""), sources(), tmp_path / "b", RunRequest())
    assert (found.end.state, found.end.reason, found.files) == (running.EndState.FAILED, "TOOL_FAILED", ())


@pytest.mark.long
def test_podman_runs_an_image_under_each_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid: None) -> None:
    with own_podman(tmp_path, monkeypatch):
        script = (
            '#!/bin/sh\nset -e\nfor f in "$1"/*; do case "$f" in *.json) ;; *) cp "$f" "$2"/ ;; esac; done\n'
            'if echo x > "$1"/y 2>/dev/null; then exit 8; fi\n'
            'if echo x > /x 2>/dev/null; then exit 9; fi\nread line < "$3"\necho "$line"\n'
        )
        image = make_image(tmp_path, "model", {"bin/model": script})
        engine = find_engine("podman")
        assert engine.image_id("model").endswith(image.removeprefix("sha256:"))
        for name, paths in CONTRACTS.items():
            words = f"[/bin/model, {paths.input}, {paths.output}, {paths.config}]"
            text = ONE % f", contract: {name}, command: {words}, config: {{a: 1}}"
            (ended,) = graph(tmp_path / name, text, engine).run(sources())
            assert len(ended.results) == 2, name
        slow = ONE % ", command: [/bin/sleep, '60'], timeout: 2"
        with pytest.raises(CtenrichError) as caught:
            graph(tmp_path / "slow", slow, engine).run(sources())
        assert caught.value.reason is Reason.TIMEOUT
        with pytest.raises(UsageError, match="not on this machine"):
            engine.image_id("nothing")

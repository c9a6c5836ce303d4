"""Flow files: every documented spelling is read, and every trap is refused with its line and column."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.support.flows import flow_of
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.flows.closing import CloseRule
from ctenrich.flows.errors import BadFlowError
from ctenrich.flows.folder import FlowFolder, LoadedFlow, load_flows
from ctenrich.flows.reader import Machine, read_flow
from ctenrich.flows.records import Contract, DestinationKind, Mount, When
from ctenrich.flows.yaml_nodes import MAX_BYTES
from ctenrich.reasons import Reason

SIMPLEST = """
triggers:
  - Modality: CT
models:
  - docker_kwargs:
      image: hello-world
destinations: []
"""

FIVE_FOLDS = """
name: Folds
version: 1.020
priority: 5
triggers:
  - Modality: ["CT"]
    SeriesDescription: ["Head|Neck|Brain", "Contrast"]
  - SOPClassUID: ["1.2.840.10008.5.1.4.1.1.4"]
models:
{folds}
  - docker_kwargs:
      image: busybox
      command: sh -c 'cp /input*/* /output/'
    input_mounts: {{f0: /input0, f1: /input1, f2: /input2, f3: /input3, f4: /input4}}
    output_mounts:
      dst: /output
    pull_before_exec: True
    timeout: 1800
    static_mounts:
      - "Weights1:/model1"
      - "Weights2:/model2"
return_to_sender_on_port: [104, 11112]
destinations:
  - host: localhost
    port: 10001
    ae_title: STORESCP
  - host: storage.example.org
    port: 104
    ae_title: FANCYSTORE
extra:
  INTERESTING: FooBar
  NUMBER: 3
"""
FOLD = """
  - docker_kwargs:
      image: busybox
      command: [sh, -c, "touch /output/{n}"]
      environment:
        CONTAINER_ORDER: {n}
    gpu: True
    input_mounts: {{src: /input}}
    output_mounts: {{f{n}: /output}}
"""

DIAMOND = """
triggers:
  - Modality: ["MR"]
models:
  - docker_kwargs: {image: busybox}
    input_mounts: {src: /input}
    output_mounts: {CT: /output1, STRUCT: /output2}
  - docker_kwargs: {image: busybox}
    input_mounts: {STRUCT: /input}
    output_mounts: {A: /output}
  - docker_kwargs: {image: busybox}
    input_mounts: {STRUCT: /input}
    output_mounts: {B: /output}
  - docker_kwargs: {image: busybox}
    input_mounts: {A: /a, B: /b, CT: /ct}
    output_mounts: {dst: /output}
"""

OURS = """
name: adaptive
roles:
  planning: {Modality: [^CT$], SeriesDescription: [Planning]}
  daily: {Modality: [^CT$], SeriesDescription: [CBCT]}
  registration: {Modality: [^REG$]}
never:
  - PatientID: [^PHANTOM]
close: {after: quiet, seconds: 30, expect: [planning, daily, registration], at_most: 6h, then: discard}
steps:
  - name: deform
    image: registry.example.org/deform@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    contract: map
    inputs: {planning: /in/planning, daily: /in/daily, registration: /in/reg}
    outputs: {ct: /out}
    subfolders: [images, SeriesInstanceUID]
    cpus: 2
    memory: 8g
    device: "0"
    tags: [big]
    retries: 2
    priority: 4
    may_be_empty: true
    config: {alpha: 0.5, names: [a, b], on: yes}
  - use: expert
    inputs: {ct: /input}
when: off_peak
fallback: true
destinations:
  - {name: research, url: "https://pacs.example.org/dicom-web", hold: false}
  - {folder: /data/results}
  - {bucket: "gs://results/flows"}
hooks:
  - {on: [done, failed], webhook: "https://hooks.example.org/x"}
  - {on: held, email: physics@example.org}
"""


def _places(flow: Any) -> list[tuple[int, str]]:
    return [(note.place.line, note.message) for note in flow.notes]


def test_the_simplest_flow_of_raddeploy() -> None:
    flow = flow_of(SIMPLEST)
    assert (flow.name, flow.version, flow.priority) == ("lungs", "", 0)
    (condition,) = flow.triggers[0].conditions
    assert [pattern.regex for pattern in condition.patterns] == ["CT"]
    (step,) = flow.steps
    assert (step.name, step.image, step.command, step.timeout) == ("step1", "hello-world", (), 1800)
    assert (step.inputs, step.outputs) == ((Mount("src", "/input"),), (Mount("dst", "/output"),))
    assert (3, "Modality: one pattern is taken as a list of one") in _places(flow)


def test_the_full_flow_of_raddeploy_with_each_documented_spelling() -> None:
    flow = flow_of(FIVE_FOLDS.format(folds="".join(FOLD.format(n=n) for n in range(5))))
    assert (flow.name, flow.version, flow.priority) == ("Folds", "1.020", 5)
    assert flow.return_to_sender_ports == (104, 11112)
    assert [one.ae_title for one in flow.destinations] == ["STORESCP", "FANCYSTORE"]
    assert flow.extra == {"INTERESTING": "FooBar", "NUMBER": 3}
    first, last = flow.steps[0], flow.steps[-1]
    assert first.command == ("sh", "-c", "touch /output/0")
    assert first.environment == (("CONTAINER_ORDER", "0"),)
    assert (first.gpu, first.device) == (True, "")
    assert last.command == ("sh", "-c", "cp /input*/* /output/")
    assert last.static_mounts == (Mount("Weights1", "/model1"), Mount("Weights2", "/model2"))
    notes = " ".join(message for _, message in _places(flow))
    for part in ("return_to_sender_on_port is taken as", "NAME:/PATH", "never pulled", "not pinned", "^1\\.2\\.840"):
        assert part in notes, part


@pytest.mark.parametrize(
    ("text", "mounts"),
    [("static_mounts: 'W:/model'", (Mount("W", "/model"),)), ("static_mounts: {W: /model}", (Mount("W", "/model"),))],
)
def test_static_mounts_as_text_and_as_mapping(text: str, mounts: tuple[Mount, ...]) -> None:
    flow = flow_of(f"triggers: [{{Modality: [CT]}}]\nmodels:\n  - image: x\n    {text}\n")
    assert flow.steps[0].static_mounts == mounts


def test_a_graph_with_two_ways() -> None:
    assert [step.name for step in flow_of(DIAMOND).steps] == ["step1", "step2", "step3", "step4"]


def test_the_keys_that_raddeploy_does_not_have() -> None:
    flow = flow_of(OURS)
    assert [role.name for role in flow.roles] == ["planning", "daily", "registration"]
    assert flow.close == CloseRule(
        when="expect", seconds=30, roles=("planning", "daily", "registration"), at_most=6 * 3600, then="discard"
    )
    step = flow.steps[0]
    assert (step.contract, step.limits.cpus, step.limits.memory) == (Contract.MAP, 2.0, 8 * 1024**3)
    assert (step.gpu, step.device, step.tags, step.retries, step.priority) == (True, "0", ("big",), 2, 4)
    assert step.config == {"alpha": 0.5, "names": ["a", "b"], "on": True}
    assert step.subfolders == ("images", "SeriesInstanceUID")
    assert (step.may_be_empty, step.limits.network, step.limits.root) == (True, False, False)
    assert flow.steps[1].use == "expert"
    assert (flow.when, flow.fallback) == (When.OFF_PEAK, True)
    assert [(one.kind, one.hold) for one in flow.destinations] == [
        (DestinationKind.DICOMWEB, False), (DestinationKind.FOLDER, None), (DestinationKind.BUCKET, None),
    ]  # fmt: skip
    assert [(hook.on, hook.identifiers) for hook in flow.hooks] == [(("done", "failed"), False), (("held",), False)]


def test_anchors_and_merge_keys() -> None:
    flow = flow_of(
        """
        triggers: [{Modality: [CT]}]
        models:
          - &base {image: x, gpu: true, outputs: {a: /output}}
          - <<: *base
            inputs: {a: /input}
            outputs: {dst: /output}
        """
    )
    assert [(step.image, step.gpu) for step in flow.steps] == [("x", True), ("x", True)]
    assert flow.steps[1].outputs == (Mount("dst", "/output"),)


HEAD = "triggers:\n  - Modality: [CT]\n"
TWO = HEAD + "models:\n  - {{image: x, inputs: {{src: /input}}, outputs: {{{a}: /output}}}}\n"
FLOOD = """extra:
  a: &a [x,x,x,x,x,x,x,x,x,x]
  b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]
  c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]
  d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]
  e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]
"""
TRAPS = [
    ("an open quote", 'name: "A"\nversion: "1.02\npriority: 4\n' + HEAD, (2, 10), "begins at line 2 is not closed"),
    ("a tab", "triggers:\n\t- Modality: [CT]\n", (2, 1), "indent with blanks"),
    ("a backslash in double quotes", 'triggers:\n  - SeriesDescription: ["\\d"]', (2, 27), "single quotes"),
    ("a backspace", 'triggers:\n  - SeriesDescription: ["\\bHead"]', (2, 25), "control character"),
    ("a key twice", HEAD + "triggers: []\n", (3, 1), "triggers is there twice"),
    ("a keyword twice", "triggers:\n  - Modality: [CT]\n    Modality: [MR]\n", (3, 5), "Modality is there twice"),
    ("a mapping for a list", "triggers:\n  Modality: [CT]\n", (2, 3), "must be a list of mappings"),
    ("an unknown key", HEAD + "destination: []\n", (3, 1), "did you mean destinations"),
    ("a misspelled port list", HEAD + "return_to_sender_on_prots: [1]\n", (3, 1), "return_to_sender_on_port"),
    ("a priority of 6", HEAD + "priority: 6\n", (3, 11), "from 0 to 5"),
    ("no pattern", "triggers:\n  - Modality:\n", (2, 14), "needs a pattern"),
    ("two producers", TWO.format(a="dst") + "  - image: y\n", (5, 5), "step1 and step2 both write dst"),
    ("a circle", HEAD + "models:\n  - {image: x, inputs: {b: /b}, outputs: {a: /a}}\n"
     "  - {image: x, inputs: {a: /a, src: /s}, outputs: {b: /b, dst: /d}}\n", (4, 5), "wait for each other"),
    ("an output that nobody reads", TWO.format(a="lost"), (4, 5), "nothing reads lost"),
    ("an input that nobody makes", HEAD + "models:\n  - {image: x, inputs: {srx: /i}}\n", (4, 5), "did you mean src"),
    ("results as input", HEAD + "models:\n  - {image: x, inputs: {src: /i, dst: /d}}\n", (4, 5), "for results only"),
    ("a model that writes the input", TWO.format(a="src"), (4, 5), "src is an input of the flow"),
    ("no result", TWO.format(a="a") + "  - {image: y, inputs: {a: /i}, outputs: {}}\n", (4, 3), "no model writes dst"),
    ("privileged", HEAD + "models:\n  - docker_kwargs: {image: x, privileged: true}\n", (4, 31), "not allowed"),
    ("root", HEAD + "models:\n  - docker_kwargs: {image: x, user: root}\n", (4, 37), "root: true"),
    ("a mount outside", HEAD + "models:\n  - {image: x, inputs: {src: /input/../etc}}\n", (4, 30), "absolute path"),
    ("no model", HEAD + "models: []\n", (3, 9), "needs models"),
    ("nothing to run", HEAD + "models:\n  - {gpu: true}\n", (4, 5), "needs use, image or command"),
    ("an unknown product", HEAD + "models:\n  - {use: nnunett:x}\n", (4, 5), "did you mean nnunet"),
    ("an unknown option", HEAD + "models:\n  - {use: 'nnunet:x:fold=0'}\n", (4, 5), "use: "),
    ("a key without effect", HEAD + "models:\n  - {use: expert, tags: [big]}\n", (4, 19), "tags of a built-in product"),
    ("a model's hours", HEAD + "models:\n  - {image: x, when: off_peak}\n", (4, 16), "a model has no key when"),
    ("a folder of the configuration", HEAD + "models:\n  - {image: x, contract: mercure, config_dump_folder: /c}\n",
     (4, 35), "config_dump_folder has no effect"),
    ("formats of a container", HEAD + "models:\n  - {image: x, formats: [nifti]}\n", (4, 25), "of a built-in product"),
    ("an unknown format", HEAD + "models:\n  - {use: expert, formats: nifty}\n", (4, 28), "did you mean nifti"),
    ("masks of scores", HEAD + "models:\n  - {use: 'bodypart:x', formats: nifti}\n", (4, 34), "has no masks"),
    ("an AE title", HEAD + "destinations: [{host: a, port: 1, ae_title: MORE_THAN_16_CHARS}]", (3, 45), "AE title"),
    ("half a destination", HEAD + "destinations:\n  - {host: a}\n", (4, 5), "needs port, ae_title"),
    ("expect of no role", "roles: {CT: {Modality: [CT]}}\nclose: {expect: [ct]}\n", (2, 17), "did you mean CT"),
    ("then without a time", HEAD + "close: {then: discard}\n", (3, 15), "needs at_most"),
    ("a role named src", "roles: {src: {Modality: [CT]}}\n", (1, 9), "cannot be called 'src'"),
    ("an object of Python", HEAD + "extra: !!python/object:os.system {}\n", (3, 8), "are not accepted"),
    ("two documents", HEAD + "---\n" + HEAD, (1, 1), "one mapping"),
    ("a list", "[triggers, models: x]\n", (1, 1), "one mapping"),
    ("an alias of itself", HEAD + "extra: &a {b: *a}\n", (3, 8), "aliases repeat too much"),
    ("a flood of aliases", FLOOD, (2, 24), "aliases repeat"),
    ("too deep", HEAD + "extra: " + "[" * 40 + "]" * 40, (3, 31), "levels"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message"), [row[1:] for row in TRAPS], ids=[row[0] for row in TRAPS])
def test_traps_are_refused_with_their_place(text: str, place: tuple[int, int], message: str) -> None:
    with pytest.raises(BadFlowError) as caught:
        flow_of(text)
    found = [(fault.place, str(fault)) for fault in caught.value.faults]
    assert any(place == where and message in text for where, text in found), found


def test_bytes_that_are_no_text_and_files_that_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"name: M\xfcller\n")
    with pytest.raises(BadFlowError, match="line 1, column 8: the file is not UTF-8"):
        read_flow(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(BadFlowError, match="larger than"):
        read_flow(path)
    with pytest.raises(UsageError) as caught:
        read_flow(tmp_path / "none.yaml")
    assert caught.value.reason is Reason.NOT_FOUND


def test_what_a_machine_lacks_is_refused_when_the_file_is_read() -> None:
    text = HEAD + "models:\n  - {image: here, gpu: true, device: '1', tags: [big]}\n"
    machine = Machine(has_image=lambda name: name == "here", gpus=("0", "1"), tags=frozenset({"big"}))
    assert flow_of(text, machine).steps[0].device == "1"
    for lacking, message in [
        (Machine(has_image=lambda _: False), "not on this machine"),
        (Machine(gpus=()), "needs a GPU"),
        (Machine(gpus=("0",)), "there is no GPU 1"),
        (Machine(tags=frozenset({"bug"})), "did you mean bug"),
        (Machine(has_containers=False), "cannot be run here"),
    ]:
        with pytest.raises(BadFlowError, match=message) as caught:
            flow_of(text, lacking)
        assert caught.value.faults[0].place == (4, 5)


# ---------------------------------------------------------------- folders


def test_a_bad_file_keeps_its_last_version_and_harms_no_other(tmp_path: Path) -> None:
    seen: list[LoadedFlow] = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(dedent(f"priority: {len(name)}\n{HEAD}models:\n  - use: expert\n"))
    folder = FlowFolder(tmp_path, changed=seen.append)
    assert [flow.name for flow in folder.flows] == ["a", "b"]
    assert not folder.update()
    (tmp_path / "a.yaml").write_text("triggers: []\n")
    (tmp_path / "c.yaml").write_text("name: c\n")
    assert not folder.update()
    assert [flow.name for flow in folder.flows] == ["a", "b"]
    assert [(one.path.name, one.error is not None) for one in folder.loaded] == [
        ("a.yaml", True), ("b.yaml", False), ("c.yaml", True),
    ]  # fmt: skip
    assert folder.content("a").startswith(b"priority: 1")
    (tmp_path / "a.yaml").write_text(f"priority: 0\n{HEAD}models:\n  - use: expert\n")
    assert folder.update()
    assert [(flow.name, flow.priority) for flow in folder.flows] == [("b", 1), ("a", 0)]
    (tmp_path / "b.yaml").unlink()
    assert folder.update()
    assert [flow.name for flow in folder.flows] == ["a"]
    assert [one.path.name for one in seen] == ["a.yaml", "b.yaml", "a.yaml", "c.yaml", "a.yaml"]


def test_of_two_flows_with_one_name_the_later_one_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"name: same\n{HEAD}models:\n  - use: expert\n")
    first, second = load_flows(sorted(tmp_path.iterdir()))
    assert first.flow is not None
    assert second.flow is None
    assert "a.yaml also has the name same" in str(second.error)


def test_flow_check_lists_faults_and_notes(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(SIMPLEST)
    (tmp_path / "bad.yaml").write_text("triggers:\n  - Modalty: [CT]\npriority: 9\n")
    done = CliRunner().invoke(app, ["flow", "check", str(tmp_path)])
    assert done.exit_code == 1
    for line in (
        "line 2, column 5: 'Modalty' is no keyword of the DICOM dictionary (did you mean Modality",
        "line 3, column 11: priority must be a whole number from 0 to 5",
        "flow good can be used",
        "line 3, column 15: note: Modality: one pattern is taken as a list of one",
        "1 of 2 flow files can be used",
    ):
        assert line in done.output, done.output
    (tmp_path / "bad.yaml").unlink()
    assert CliRunner().invoke(app, ["flow", "check", str(tmp_path / "good.yaml")]).exit_code == 0
    assert CliRunner().invoke(app, ["flow", "check", str(tmp_path / "none.yaml")]).exit_code == 2

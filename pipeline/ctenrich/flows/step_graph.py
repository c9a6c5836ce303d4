"""Run the containers of a flow, each once its input is there; a step with the same input and image is not repeated."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from ctenrich.containers.engines import Engine, find_engine
from ctenrich.containers.programs import ProgramEngine
from ctenrich.containers.running import ContainerLimits, run_container
from ctenrich.errors import CtenrichError, InputError, is_disk_full
from ctenrich.flows.builtin import Products, products_by_source
from ctenrich.flows.capacity import Allotment, Capacity, Needs, needs_of, parse_capacity
from ctenrich.flows.errors import refused
from ctenrich.flows.inputs import input_paths
from ctenrich.flows.reader import Machine
from ctenrich.flows.records import DST, Flow, Limits, OutputGrid, Step
from ctenrich.flows.request import RunRequest
from ctenrich.flows.scheduling import GraphTask, Stop, run_tasks
from ctenrich.flows.static_files import hash_of_static, static_path
from ctenrich.flows.step_container import StepProgram, container_spec, copy_inputs, prepare_step
from ctenrich.flows.step_outputs import (
    Examination,
    check_nifti_files,
    check_objects,
    clear_folder,
    examination_of,
    plain_files,
)
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file, write_bytes

__all__ = ["ContainerStep", "StepGraph", "check_containers", "machine_of"]

_DONE = "done.json"
_NOT_IN_KEY = ("name", "place", "priority", "timeout", "retries", "tags", "grid")
_REPORTS = {"mercure": {"result.json"}}
"""Contract -> files of its output that are reports for the engine, not results."""


def check_containers(flow: Flow) -> None:
    """Refuse what containers cannot do here.

    Raises
    ------
    UsageError
        BAD_FLOW: limits or an environment of a program, which only containers have.
    """
    for step in flow.steps:
        if step.use or step.image:
            continue
        stated = {
            "cpus, memory, network, root or user": step.limits != Limits(),
            "entrypoint": bool(step.entrypoint),
            "environment": bool(step.environment),  # such as LD_PRELOAD, which would run anything
        }
        for name in (name for name, found in stated.items() if found):
            message = f"{step.name}: {name} of a program of this machine cannot be stated"
            raise refused(flow, step.place, message, "name an image, or a program that sets it")


Sources = Mapping[str, Mapping[str, Path]]
RunProducts = Callable[[str, Products, Mapping[str, Path]], Mapping[str, Path]]
"""Source, products that read it, its files by name -> folder of each mount that other steps read; those that have no
results are left out."""


@dataclass(frozen=True, kw_only=True)
class ContainerStep:
    """A step that has not failed."""

    step: str
    outputs: Mapping[str, Path]
    """Mount -> folder; empty if it was not run, because a product whose results it reads has none."""
    results: tuple[Path, ...] = ()
    """Objects for the destinations."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A step that has to be done."""

    step: Step
    """With the device that it was given."""
    program: StepProgram
    key: str
    inputs: Mapping[str, Mapping[PurePosixPath, Path]]
    """Mount -> its files by their path in it."""


@dataclass(frozen=True, kw_only=True)
class StepGraph:
    """The containers of a flow, and where they run."""

    flow: Flow
    engine: Engine | None
    """None: the flow has no containers."""
    folder: Path
    """Gets ``steps/NAME`` with input, output, log and ``done.json``."""
    stop: Stop = field(default=lambda: False)
    capacity: Capacity = field(default_factory=lambda: Capacity(cpus=1))
    """What steps that run at the same time may have together."""
    products: RunProducts | None = None
    """Runs products that read one source; None: only containers are run."""
    output_bytes: int = 50 * 1024**3
    """Limit of the output of one step."""
    commands: tuple[str, ...] = ()
    """Programs of this machine that steps may run."""
    static: str = ""
    """Folder of static files."""
    owner: str = ""
    """Hash of the station or run that the steps belong to; what a killed process of it left was removed."""

    def run(self, sources: Sources) -> list[ContainerStep]:
        """Run the steps: each once its input is there, those of higher priority first, several at a time.

        Parameters
        ----------
        sources : mapping
            ``src`` and the roles -> their files by name.

        Returns
        -------
        list of ContainerStep
            In the order in which they ended.

        Raises
        ------
        CtenrichError
            Of a step that failed, after its retries; the others are ended.
        KeyboardInterrupt
            It was stopped.
        """
        groups = products_by_source(self.flow) if self.products is not None else {}
        makers = {mount.source: step.name for step in self.flow.steps if not step.use for mount in step.outputs}
        makers |= {
            mount.source: _task_name(source)
            for source, group in groups.items()
            for step in group.steps
            for mount in step.outputs
        }
        made: dict[str, Path] = {}
        tasks: list[GraphTask[ContainerStep | None]] = [
            GraphTask(
                name=_task_name(source),
                run=partial(self._run_products, source, group, sources, made),
                before=frozenset({makers[source]} if source in makers else ()),
                priority=self.flow.priority,
                needs=Needs(cpus=self.capacity.cpus),  # they use all of them
                in_caller=True,
            )
            for source, group in groups.items()
        ]
        tasks += [
            GraphTask(
                name=step.name,
                run=partial(self._run_step, step, sources, made),
                before=frozenset(makers[one.source] for one in step.inputs if one.source in makers),
                priority=self._priority(step),
                needs=needs_of(step),
            )
            for step in self.flow.steps
            if not step.use
        ]
        return [one for one in run_tasks(tasks, self.capacity, stop=self.stop) if one is not None]

    def _run_products(
        self, source: str, group: Products, sources: Sources, made: dict[str, Path], given: Allotment, stop: Stop
    ) -> None:
        """Run the products that read one source; the folders of their results are added to `made`."""
        assert self.products is not None
        if source in sources:
            made |= self.products(source, group, sources[source])
        elif source in made:
            files = plain_files(made[source])
            check_objects(files, _examination(sources))  # their results would be those of another examination
            made |= self.products(source, group, {f"{number:06d}.dcm": path for number, path in enumerate(files, 1)})

    def _engine_of(self, step: Step) -> Engine:
        if not step.image:
            return ProgramEngine(self.commands)
        assert self.engine is not None, "a flow with containers has an engine"
        return self.engine

    def _priority(self, step: Step) -> int:
        return self.flow.priority if step.priority is None else step.priority

    def _run_step(
        self,
        step: Step,
        sources: Sources,
        made: dict[str, Path],
        given: Allotment,
        stop: Stop,
    ) -> ContainerStep:
        """Run a step, unless it was done before; its outputs are added to `made`."""
        if any(one.source not in sources and one.source not in made for one in step.inputs):
            return ContainerStep(step=step.name, outputs={})
        folder = self.folder / "steps" / step.name
        program = prepare_step(step, self._engine_of(step))
        form = program.paths.name_form
        inputs = {one.source: _input_files(step, form, one.source, sources, made) for one in step.inputs}
        static = {one.source: hash_of_static(static_path(self.static, one.source)) for one in step.static_mounts}
        key = _key(step, program.image, inputs, static)
        outputs = {one.source: folder / "out" / one.source for one in step.outputs}
        if not _is_done(folder, key):
            placed = replace(step, device=given.device or step.device)
            self._attempts(_Work(step=placed, program=program, key=key, inputs=inputs), stop)
            for source, written in outputs.items():
                if not plain_files(written) and not step.may_be_empty:
                    raise InputError(Reason.EMPTY_OUTPUT, f"{step.name} returned nothing in {source}")
        if step.grid is OutputGrid.INPUT:
            check_nifti_files([path for one in outputs.values() for path in plain_files(one)], _examination(sources))
        results = _results(step, program, outputs, sources)
        made |= outputs
        return ContainerStep(step=step.name, outputs=outputs, results=results)

    def _attempts(self, work: _Work, stop: Stop) -> None:
        step, program, key = work.step, work.program, work.key
        folder = self.folder / "steps" / step.name
        for attempt in range(step.retries + 1):
            clear_folder(folder)
            began = time.monotonic()
            try:
                copy_inputs(work.inputs, folder / "in")
                spec = container_spec(step, program, key, folder, static=self.static, owner=self.owner)
                limits = ContainerLimits(timeout=program.timeout(step), output_bytes=self.output_bytes)
                run_container(program.engine, spec, limits, folder / "log.txt", stop=stop)
                written = {one.source: _hashes(folder / "out" / one.source) for one in step.outputs}
                break
            except CtenrichError as error:
                if attempt == step.retries or is_disk_full(error):
                    raise
        done = {
            "key": key,
            "image": step.image or step.command[0],
            "image_id": program.image,
            "engine": program.engine.name,
            "contract": program.contract,
            "outputs": written,
            "attempts": attempt + 1,
            "seconds": round(time.monotonic() - began, 3),
        }
        write_bytes(folder / _DONE, json.dumps(done, indent=1).encode(), durable=True)


def _results(step: Step, program: StepProgram, outputs: Mapping[str, Path], sources: Sources) -> tuple[Path, ...]:
    """Objects for the destinations, inspected."""
    if DST not in outputs:
        return ()
    reports = _REPORTS.get(program.contract, set())
    files = [path for path in plain_files(outputs[DST]) if path.name not in reports]
    if not files and not step.may_be_empty:
        raise InputError(Reason.EMPTY_OUTPUT, f"{step.name} returned no object")
    check_objects(files, _examination(sources))
    return tuple(files)


def _task_name(source: str) -> str:
    """Name of the task that runs the products of a source; no step can have it."""
    return f"products of {source}"


def _examination(sources: Sources) -> Examination:
    return examination_of(sorted({path for files in sources.values() for path in files.values()}))


def _input_files(
    step: Step, form: str, source: str, sources: Sources, made: Mapping[str, Path]
) -> dict[PurePosixPath, Path]:
    """Files of a mount by their path in it."""
    if source in made:
        return {PurePosixPath(path.relative_to(made[source])): path for path in plain_files(made[source])}
    files = list(sources[source].values())
    return {place: file for file, place in input_paths(files, step.subfolders, form).items()}


def _key(
    step: Step,
    image: str,
    inputs: Mapping[str, Mapping[PurePosixPath, Path]],
    static: Mapping[str, Mapping[str, str]],
) -> str:
    """Hash over everything that decides about the output of a step."""
    stated = {name: value for name, value in asdict(step).items() if name not in _NOT_IN_KEY}
    files = {
        source: {str(place): sha256_of_file(path) for place, path in sorted(found.items())}
        for source, found in inputs.items()
    }
    text = json.dumps([stated, image, files, static], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in plain_files(folder)}


def _is_done(folder: Path, key: str) -> bool:
    """Whether a step has ended well with the same key, and its output is as it was."""
    try:
        known = json.loads((folder / _DONE).read_text("utf-8"))
        return bool(known["key"] == key) and _same(folder / "out", known["outputs"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _same(folder: Path, outputs: Mapping[str, Mapping[str, str]]) -> bool:
    return all(_hashes(folder / source) == dict(files) for source, files in outputs.items())


def machine_of(request: RunRequest) -> Machine:
    """Return what this machine can run: containers if it has an engine, of the images that it has, and its resources.

    Raises
    ------
    UsageError
        BAD_PARAMETER: a resource is not stated as NAME=NUMBER.
    """
    capacity = parse_capacity(request.resources)
    machine = Machine(
        gpus=capacity.gpus,
        tags=frozenset(capacity.tags),
        cpus=capacity.cpus,
        commands=frozenset(request.commands),
        static=request.static,
    )
    try:
        engine = find_engine(request.engine)
    except CtenrichError:
        return replace(machine, has_containers=False)

    def has_image(image: str) -> bool:
        try:
            return bool(engine.image_id(image))
        except CtenrichError:
            return False

    return replace(machine, has_image=has_image)

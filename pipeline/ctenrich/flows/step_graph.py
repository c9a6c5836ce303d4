"""Run the containers of a flow, each once its input is there; a step with the same input and image is not repeated."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from ctenrich.containers.contracts import CONTRACTS, ContractPaths
from ctenrich.containers.engines import ContainerSpec, Engine, HostMount, find_engine
from ctenrich.containers.running import ContainerLimits, run_container
from ctenrich.errors import CtenrichError, InputError, UsageError, is_disk_full
from ctenrich.flows.builtin import Products, products_by_source
from ctenrich.flows.capacity import Allotment, Capacity, Needs, needs_of, parse_capacity
from ctenrich.flows.inputs import input_paths
from ctenrich.flows.reader import Machine
from ctenrich.flows.records import DST, Contract, Flow, Step
from ctenrich.flows.request import RunRequest
from ctenrich.flows.scheduling import GraphTask, Stop, run_tasks
from ctenrich.flows.step_outputs import Examination, check_objects, examination_of, plain_files
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file, write_bytes

__all__ = ["ContainerStep", "StepGraph", "check_containers", "machine_of"]

_DONE = "done.json"
_NOT_IN_KEY = ("name", "place", "priority", "timeout", "retries", "tags")
_REPORTS = {"mercure": {"result.json"}}
"""Contract -> files of its output that are reports for the engine, not results."""


def check_containers(flow: Flow) -> None:
    """Refuse what containers cannot do here.

    Raises
    ------
    UsageError
        BAD_FLOW: a program of this machine, or static mounts.
    """
    for step in flow.steps:
        if step.use:
            continue
        where = f"line {step.place.line}: {step.name}"
        if not step.image:
            raise UsageError(Reason.BAD_FLOW, f"{where}: programs of this machine are not run", "name an image")
        if step.static_mounts:
            raise UsageError(Reason.BAD_FLOW, f"{where}: static_mounts are not supported yet", "put files in the image")


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
    image: str
    """ID."""
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
        makers = {mount.source: step.name for step in self.flow.steps if step.image for mount in step.outputs}
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
            if step.image
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

    @property
    def _engine(self) -> Engine:
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
        image = self._engine.image_id(step.image)
        inputs = {one.source: _input_files(step, one.source, sources, made) for one in step.inputs}
        key = _key(step, image, inputs)
        outputs = {one.source: folder / "out" / one.source for one in step.outputs}
        if not _is_done(folder, key):
            placed = replace(step, device=given.device or step.device)
            self._attempts(_Work(step=placed, image=image, key=key, inputs=inputs), stop)
            for source, written in outputs.items():
                if not plain_files(written) and not step.may_be_empty:
                    raise InputError(Reason.EMPTY_OUTPUT, f"{step.name} returned nothing in {source}")
        results = self._results(step, outputs, sources)
        made |= outputs
        return ContainerStep(step=step.name, outputs=outputs, results=results)

    def _results(self, step: Step, outputs: Mapping[str, Path], sources: Sources) -> tuple[Path, ...]:
        """Objects for the destinations, inspected."""
        if DST not in outputs:
            return ()
        reports = _REPORTS.get(self._contract(step), set())
        files = [path for path in plain_files(outputs[DST]) if path.name not in reports]
        if not files and not step.may_be_empty:
            raise InputError(Reason.EMPTY_OUTPUT, f"{step.name} returned no object")
        check_objects(files, _examination(sources))
        return tuple(files)

    def _contract(self, step: Step) -> str:
        """The contract of a step; ``auto`` looks at the entry point of the image."""
        if step.contract is not Contract.AUTO:
            return step.contract.value
        words = " ".join(self._engine.entrypoint(step.image))
        return "mhub" if "mhub.run" in words else "map" if "/var/holoscan" in words else "raddeploy"

    def _attempts(self, work: _Work, stop: Stop) -> None:
        step, image, key = work.step, work.image, work.key
        folder = self.folder / "steps" / step.name
        for attempt in range(step.retries + 1):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            began = time.monotonic()
            try:
                spec = self._spec(step, image, key, folder)
                _stage(work.inputs, folder / "in")
                limits = ContainerLimits(timeout=step.timeout, output_bytes=self.output_bytes)
                run_container(self._engine, spec, limits, folder / "log.txt", stop=stop)
                written = {one.source: _hashes(folder / "out" / one.source) for one in step.outputs}
                break
            except CtenrichError as error:
                if attempt == step.retries or is_disk_full(error):
                    raise
        done = {
            "key": key,
            "image": step.image,
            "image_id": image,
            "engine": self._engine.name,
            "contract": self._contract(step),
            "outputs": written,
            "attempts": attempt + 1,
            "seconds": round(time.monotonic() - began, 3),
        }
        write_bytes(folder / _DONE, json.dumps(done, indent=1).encode(), durable=True)

    def _spec(self, step: Step, image: str, key: str, folder: Path) -> ContainerSpec:
        name = self._contract(step)
        paths = CONTRACTS[name]
        mounts = [HostMount(host=folder / "in" / one.source, target=_target(one.target, paths)) for one in step.inputs]
        for one in step.outputs:
            host = folder / "out" / one.source
            host.mkdir(parents=True)
            host.chmod(0o777)  # the user in the container is another one
            mounts.append(HostMount(host=host, target=_target(one.target, paths), writable=True))
        if step.config:
            config = PurePosixPath(paths.config)
            target = step.config_folder if paths.own_config_folder else str(config.parent)
            (folder / "config").mkdir()
            write_bytes(folder / "config" / config.name, json.dumps(dict(step.config), indent=1).encode())
            (folder / "config" / config.name).chmod(0o644)
            mounts.append(HostMount(host=folder / "config", target=target))
        environment = {"FLOW_UID": key[:32], "CONTAINER_TAG": step.image} if name == "raddeploy" else {}
        limits = step.limits
        return ContainerSpec(
            name=f"ctenrich-{key[:24]}",
            work=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32],
            image=image,
            mounts=tuple(mounts),
            environment={**paths.environment, **environment, **dict(step.environment)},
            command=step.command,
            entrypoint=step.entrypoint,
            cpus=limits.cpus,
            memory=limits.memory,
            shared_memory=limits.shared_memory,
            network=limits.network,
            root=limits.root,
            user=limits.user,
            gpu=f"nvidia.com/gpu={step.device or 'all'}" if step.gpu else "",
        )


def _task_name(source: str) -> str:
    """Name of the task that runs the products of a source; no step can have it."""
    return f"products of {source}"


def _examination(sources: Sources) -> Examination:
    return examination_of(sorted({path for files in sources.values() for path in files.values()}))


def _target(target: str, paths: ContractPaths) -> str:
    """Path of a mount: the usual ones are where the contract has them."""
    return {"/input": paths.input, "/output": paths.output}.get(target, target)


def _input_files(step: Step, source: str, sources: Sources, made: Mapping[str, Path]) -> dict[PurePosixPath, Path]:
    """Files of a mount by their path in it."""
    if source in made:
        return {PurePosixPath(path.relative_to(made[source])): path for path in plain_files(made[source])}
    files = list(sources[source].values())
    return {place: file for file, place in input_paths(files, step.subfolders).items()}


def _key(step: Step, image: str, inputs: Mapping[str, Mapping[PurePosixPath, Path]]) -> str:
    """Hash over everything that decides about the output of a step."""
    stated = {name: value for name, value in asdict(step).items() if name not in _NOT_IN_KEY}
    files = {
        source: {str(place): sha256_of_file(path) for place, path in sorted(found.items())}
        for source, found in inputs.items()
    }
    text = json.dumps([stated, image, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _stage(inputs: Mapping[str, Mapping[PurePosixPath, Path]], folder: Path) -> None:
    """Copy the input of a step, readable by the user in the container: a link would let it change the original."""
    for source, files in inputs.items():
        (folder / source).mkdir(parents=True, exist_ok=True)
        for place, path in files.items():
            target = folder / source / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o644)


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
    machine = Machine(gpus=capacity.gpus, tags=frozenset(capacity.tags), cpus=capacity.cpus)
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

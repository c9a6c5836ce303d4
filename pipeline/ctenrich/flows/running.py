"""Run a flow on its input: containers, and products, of which those that read the same images are one run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ctenrich import steps
from ctenrich.containers.engines import Engine, find_engine
from ctenrich.containers.programs import ProgramEngine
from ctenrich.errors import CtenrichError, ToolError, UsageError, did_you_mean, is_disk_full
from ctenrich.flows.builtin import Products
from ctenrich.flows.capacity import parse_capacity
from ctenrich.flows.product_files import objects_of_step, write_results
from ctenrich.flows.records import DST, SRC, Flow, Step
from ctenrich.flows.request import RunRequest
from ctenrich.flows.step_graph import ContainerStep, StepGraph
from ctenrich.reasons import Reason
from ctenrich.runner.creation import create_run
from ctenrich.runner.executors import ExecutorName
from ctenrich.runner.recorder import RunEnd
from ctenrich.runner.run import INPUT, Run
from ctenrich.runner.stopping import StopSignal
from ctenrich.select.sources import make_cohort
from ctenrich.settings import Settings, load_settings
from ctenrich.workspace import Workspace, sha256_of_file, sync_folders, write_bytes

__all__ = [
    "End",
    "EndState",
    "FlowEnd",
    "RunRequest",
    "end_left_steps",
    "end_of_error",
    "executor_of",
    "link_images",
    "owner_of",
    "results_of",
    "run_flow",
    "run_products",
]

_RESULTS = "results.json"
"""Names of the objects for the destinations, relative to the folder of the flow."""
_NOTHING_USABLE = frozenset({Reason.EMPTY_INPUT, Reason.NO_CT, Reason.EMPTY_COHORT})


class EndState(StrEnum):
    """How something that was run ended."""

    INTERRUPTED = "interrupted"
    """It goes on when it is run again."""
    SKIPPED = "skipped"
    """Nothing in its input can be used."""
    DONE = "done"
    FAILED = "failed"


_SEVERITY = {state: number for number, state in enumerate((EndState.SKIPPED, EndState.DONE, EndState.FAILED))}


@dataclass(frozen=True)
class End:
    """How a run or flow ended."""

    state: EndState
    reason: str = ""
    """Reason codes, joined by commas."""
    message: str = ""
    """One sentence, without identifiers."""


@dataclass(frozen=True, kw_only=True)
class FlowEnd:
    """How a flow ended on its input, and what it has made."""

    end: End
    files: tuple[Path, ...] = ()
    """Objects for the destinations."""


def run_flow(flow: Flow, sources: Mapping[str, Mapping[str, Path]], folder: Path, request: RunRequest) -> FlowEnd:
    """Run a flow on its input; what was done before in the same folder is not done again.

    Parameters
    ----------
    flow : Flow
        The flow.
    sources : mapping
        ``src`` and the roles -> their files by the names that they get, in the order of arrival.
    folder : Path
        Gets ``images/SOURCE`` with links to the files, and ``run`` (``run-ROLE``) with the results.
    request : RunRequest
        Settings of the products; what runs is that of the flow.

    Returns
    -------
    FlowEnd

    Raises
    ------
    UsageError
        BAD_FLOW for a step that cannot be run.
    OSError
        The disk is full.
    """
    work = _ProductWork(received=frozenset(sources), folder=folder, request=request, ends=[], files=[])
    containers = any(not step.use for step in flow.steps)
    try:
        with StopSignal() if containers else nullcontext(lambda: False) as stop:
            graph = StepGraph(
                flow=flow,
                engine=find_engine(request.engine) if any(step.image for step in flow.steps) else None,
                folder=folder,
                stop=stop,
                capacity=parse_capacity(request.resources),
                products=work.run,
                commands=request.commands,
                static=request.static,
                owner=request.owner,
            )
            ended = graph.run(sources)
    except KeyboardInterrupt:
        return FlowEnd(end=End(EndState.INTERRUPTED))
    except CtenrichError as error:
        if is_disk_full(error) or error.reason is Reason.BAD_FLOW:
            raise
        work.ends.append(End(EndState.FAILED, error.reason.value, error.message))
        ended = []
    else:
        work.ends.extend(_ends_of_containers(ended) if containers else ())
    found = [path for one in ended for path in one.results]
    worst = max(work.ends, key=lambda end: _SEVERITY[end.state])
    reasons = sorted({code for end in work.ends if end.state is worst.state for code in end.reason.split(",") if code})
    message = "; ".join(end.message for end in work.ends if end.message)
    files = (*work.files, *found)
    _keep_results(folder, files)
    return FlowEnd(end=End(worst.state, ",".join(reasons), message), files=files)


def owner_of(folder: Path) -> str:
    """Return the hash that labels the steps of a station or run.

    Parameters
    ----------
    folder : Path
        Of the station or run.

    Returns
    -------
    str
    """
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]


def end_left_steps(request: RunRequest) -> int:
    """End the containers and programs that a killed process left, before this one runs its first step.

    Parameters
    ----------
    request : RunRequest
        Its owner, engine and programs.

    Returns
    -------
    int
        How many were ended; 0 without an owner, or if there is no engine.
    """
    engines: list[Engine] = [ProgramEngine(request.commands)] if request.commands else []
    with suppress(CtenrichError):
        engines.append(find_engine(request.engine))
    ended = 0
    for engine in engines if request.owner else ():
        with suppress(ToolError):  # an engine that does not answer runs no step either
            ended += engine.reap(owner=request.owner)
    return ended


def _keep_results(folder: Path, files: Sequence[Path]) -> None:
    names = [str(path.relative_to(folder)) for path in files]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / _RESULTS, json.dumps(names, indent=1).encode())


def results_of(folder: Path) -> tuple[Path, ...]:
    """Return the objects for the destinations that a flow has made.

    Parameters
    ----------
    folder : Path
        Of the flow in a revision of a case.

    Returns
    -------
    tuple of Path
    """
    try:
        names = json.loads((folder / _RESULTS).read_bytes())
    except FileNotFoundError:  # made by a version that did not list them; it had one run per source
        return tuple(path for run in sorted(folder.glob("run*")) for path in objects_of(run))
    return tuple(folder / name for name in names)


def _ends_of_containers(ended: Sequence[ContainerStep]) -> Iterator[End]:
    """How the containers of a flow ended, none of which failed."""
    skipped = [one.step for one in ended if not one.outputs]
    if len(skipped) < len(ended):
        found = sum(len(one.results) for one in ended)
        yield End(EndState.DONE, "", f"containers: {len(ended) - len(skipped)} done, {found} objects")
    if skipped:
        message = f"{', '.join(skipped)}: the product whose results it reads has none"
        yield End(EndState.SKIPPED, Reason.EMPTY_INPUT.value, message)


@dataclass(frozen=True, kw_only=True)
class _ProductWork:
    """Runs the built-in products of a flow, those of one source together."""

    received: frozenset[str]
    """Sources that are received images."""
    folder: Path
    request: RunRequest
    ends: list[End]
    files: list[Path]
    """Objects for the destinations."""

    def run(self, source: str, group: Products, given: Mapping[str, Path]) -> dict[str, Path]:
        """Run products, and return the folder of each mount that other steps read.

        Images that a container made have folders of their own for each content: links and a run of other images of the
        same names would be taken for theirs.
        """
        name = source if source in self.received else f"{source}-{_hash_of(given)}"
        images = link_images(given, self.folder / "images" / name)
        out = self.folder / ("run" if source == SRC else f"run-{name}")
        request = replace(self.request, segmenters=group.segmenters, bodypart=group.bodypart)
        try:
            end = run_products(images, out, request)
        except CtenrichError as error:
            if is_disk_full(error):
                raise
            end = end_of_error(error)
        if end.state is EndState.INTERRUPTED:
            raise KeyboardInterrupt
        self.ends.append(end)
        read = [(one, mount.source) for one in group.steps for mount in one.outputs if mount.source != DST]
        if not read:
            self.files.extend(objects_of(out))
            return {}
        if not (out / "run.json").is_file():
            return {}
        run = Run.open(out)
        sent = [one for one in group.steps if DST in {mount.source for mount in one.outputs}]
        self.files.extend(sorted(path for one in sent for path in objects_of_step(run, one)))
        return self._results(run, read) if end.state is EndState.DONE else {}

    def _results(self, run: Run, read: Sequence[tuple[Step, str]]) -> dict[str, Path]:
        """Write the results that other steps read; mounts of products without results are left out."""
        found = {}
        for step, mount in read:
            target = self.folder / "steps" / step.name / "out" / mount
            write_results(run, step, target)
            if any(target.iterdir()):
                found[mount] = target
        return found


def _hash_of(files: Mapping[str, Path]) -> str:
    text = "".join(f"{name} {sha256_of_file(path)}\n" for name, path in files.items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def end_of_error(error: CtenrichError) -> End:
    """Return how something ended that raised an error: SKIPPED if there is nothing usable in its input."""
    if error.reason in _NOTHING_USABLE:
        return End(EndState.SKIPPED, error.reason.value, error.message.partition(" (")[0])  # without the path
    return End(EndState.FAILED, error.reason.value)


def objects_of(run: Path) -> list[Path]:
    """Objects of a run, sorted."""
    return list(Workspace(run).object_files())


def run_products(images: Path, out: Path, request: RunRequest) -> End:
    """Run segmenters and body part regression on a folder of images, like ``ctenrich run``.

    Parameters
    ----------
    images : Path
        The folder.
    out : Path
        The run's folder; a run that is there goes on.
    request : RunRequest
        What runs.

    Returns
    -------
    End

    Raises
    ------
    CtenrichError
        Of the selection, the models and the settings.
    OSError
        The disk is full.
    """
    cohort = make_cohort(str(images), out / INPUT)
    if not request.asked:
        return End(EndState.DONE, "", f"{cohort}; nothing was asked to run")
    run = create_run(
        cohort.path,
        out,
        segmenters=request.segmenters,
        bodypart=request.bodypart,
        settings=settings_of(request),
        allow_demo=request.allow_demo_models,
    )
    summary = steps.run_all(run, executor=executor_of(request), address=request.address or None)
    if summary.ended is RunEnd.INTERRUPTED:
        return End(EndState.INTERRUPTED)
    if summary.ended is RunEnd.DISK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    counts = ", ".join(f"{number} {state}" for state, number in summary.states.items() if number)
    state = EndState.FAILED if summary.exit_code else EndState.DONE
    return End(state, ",".join(sorted(summary.reasons)), f"series and products: {counts}")


def link_images(files: Mapping[str, Path], folder: Path) -> Path:
    """Make a folder of hard links to files; returns the folder.

    Parameters
    ----------
    files : mapping
        Name -> file.
    folder : Path
        Created if it does not exist; links that are there are kept.

    Returns
    -------
    Path
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, source in files.items():
        target = folder / name
        try:
            os.link(source.resolve(), target)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(source, target)  # a file system without hard links, or another one
    sync_folders([folder, folder.parent])
    return folder


def executor_of(request: RunRequest) -> ExecutorName:
    """Return where jobs run.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    names = [one.value for one in ExecutorName]
    if request.executor not in names:
        hint = did_you_mean(request.executor, names, f"choose from {', '.join(names)}")
        raise UsageError(Reason.BAD_PARAMETER, f"there is no executor {request.executor[:40]!r}", hint)
    return ExecutorName(request.executor)


def settings_of(request: RunRequest) -> Settings:
    """Return the settings of a request.

    Raises
    ------
    UsageError
        BAD_SETTINGS.
    """
    settings = load_settings(Path(request.settings) if request.settings else None)
    if request.device:
        settings = replace(settings, segment=replace(settings.segment, device=request.device))
    if request.rois:
        rois = tuple(dict.fromkeys((*settings.contours.rois, *request.rois)))
        settings = replace(settings, contours=replace(settings.contours, rois=rois))
    if request.mappings:
        settings = replace(settings, codes=replace(settings.codes, mappings=request.mappings))
    return settings

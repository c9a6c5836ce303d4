"""Run a flow on its input: the built-in products, those that read the same images in one run of ``ctenrich run``."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ctenrich import steps
from ctenrich.containers.engines import find_engine
from ctenrich.errors import CtenrichError, UsageError, did_you_mean, is_disk_full
from ctenrich.flows.builtin import products_by_source
from ctenrich.flows.capacity import parse_capacity
from ctenrich.flows.records import SRC, Flow
from ctenrich.flows.request import RunRequest
from ctenrich.flows.step_graph import StepGraph
from ctenrich.reasons import Reason
from ctenrich.runner.executors import ExecutorName
from ctenrich.runner.recorder import RunEnd
from ctenrich.runner.run import INPUT, Run
from ctenrich.runner.stopping import StopSignal
from ctenrich.select.sources import make_cohort
from ctenrich.settings import Settings, load_settings
from ctenrich.workspace import sync_folders

__all__ = [
    "End",
    "EndState",
    "FlowEnd",
    "RunRequest",
    "end_of_error",
    "executor_of",
    "link_images",
    "run_flow",
    "run_products",
]

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
    ends: list[End] = []
    files: list[Path] = []
    for name, products in products_by_source(flow).items():
        images = link_images(sources[name], folder / "images" / name)
        run = folder / ("run" if name == SRC else f"run-{name}")
        try:
            end = run_products(images, run, replace(request, **vars(products)))
        except CtenrichError as error:
            if is_disk_full(error):
                raise
            end = end_of_error(error)
        if end.state is EndState.INTERRUPTED:
            return FlowEnd(end=end)
        ends.append(end)
        files += objects_of(run)
    if any(step.image for step in flow.steps):
        end = _run_containers(flow, sources, folder, request, files)
        if end.state is EndState.INTERRUPTED:
            return FlowEnd(end=end)
        ends.append(end)
    worst = max(ends, key=lambda end: _SEVERITY[end.state])
    reasons = sorted({code for end in ends if end.state is worst.state for code in end.reason.split(",") if code})
    message = "; ".join(end.message for end in ends if end.message)
    return FlowEnd(end=End(worst.state, ",".join(reasons), message), files=tuple(files))


def _run_containers(
    flow: Flow, sources: Mapping[str, Mapping[str, Path]], folder: Path, request: RunRequest, files: list[Path]
) -> End:
    """Run the containers of a flow; objects for the destinations are added to `files`."""
    try:
        with StopSignal() as stop:
            engine, capacity = find_engine(request.engine), parse_capacity(request.resources)
            graph = StepGraph(flow=flow, engine=engine, folder=folder, stop=stop, capacity=capacity)
            ended = graph.run(sources)
    except KeyboardInterrupt:
        return End(EndState.INTERRUPTED)
    except CtenrichError as error:
        if is_disk_full(error):
            raise
        return End(EndState.FAILED, error.reason.value, error.message)
    found = [path for one in ended for path in one.results]
    files += found
    return End(EndState.DONE, "", f"containers: {len(ended)} done, {len(found)} objects")


def end_of_error(error: CtenrichError) -> End:
    """Return how something ended that raised an error: SKIPPED if there is nothing usable in its input."""
    if error.reason in _NOTHING_USABLE:
        return End(EndState.SKIPPED, error.reason.value, error.message.partition(" (")[0])  # without the path
    return End(EndState.FAILED, error.reason.value)


def objects_of(run: Path) -> list[Path]:
    """Objects of a run, sorted."""
    return sorted((run / "series").glob("*/*/objects/*.dcm"))


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
    run = Run.create(
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

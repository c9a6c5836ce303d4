"""Tasks of a graph: order, priorities, resources that are never given twice, and how a failure ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.support.flows import flow_of

from ctenrich.errors import UsageError
from ctenrich.flows.capacity import Allotment, Capacity, Needs, needs_of, parse_capacity
from ctenrich.flows.errors import BadFlowError
from ctenrich.flows.request import RunRequest
from ctenrich.flows.scheduling import GraphTask, run_tasks
from ctenrich.flows.step_graph import machine_of

SECONDS = 30


def named(name: str, **options: object) -> GraphTask[str]:
    return GraphTask(name=name, run=lambda given, stop: name, **options)


def test_priorities_and_order() -> None:
    tasks = [named("last", before=frozenset("ab")), named("a", priority=1), named("b", priority=2), named("c")]
    assert run_tasks(tasks, Capacity(cpus=1)) == ["b", "a", "c", "last"]


def test_a_gpu_and_a_tag_are_never_given_twice() -> None:
    both, lock, active = threading.Barrier(2), threading.Lock(), set[str]()

    def run(given: Allotment, stop: Callable[[], bool]) -> str:
        with lock:
            assert given.device not in active
            active.add(given.device)
            assert len(active) <= 2
        both.wait(SECONDS)
        with lock:
            active.remove(given.device)
        return given.device

    tasks = [GraphTask(name=str(n), run=run, needs=Needs(gpu=True)) for n in range(6)]
    devices = run_tasks(tasks, parse_capacity(["cpu=8", "gpu=2"]))
    assert set(devices) == {"0", "1"}
    tasks = [named(str(n), needs=Needs(gpu=True, device="1", tags=frozenset({"licence"}))) for n in range(3)]
    capacity = parse_capacity(["cpu=8", "gpu=2", "licence=1"])
    assert run_tasks([*tasks, named("other")], capacity)
    assert len(capacity.tags) == 1


def test_a_task_that_waits_for_cpus_is_not_overtaken_by_smaller_ones() -> None:
    started, release = [], threading.Event()

    def run(name: str) -> Callable[[Allotment, Callable[[], bool]], str]:
        def body(given: Allotment, stop: Callable[[], bool]) -> str:
            started.append(name)
            if name == "first":
                release.wait(SECONDS)
            if name == "free":  # it needs no CPU that the large task waits for only once that one has run
                assert "large" in started
            return name

        return body

    tasks = [
        GraphTask(name="first", run=run("first"), priority=5),
        GraphTask(name="large", run=run("large"), priority=4, needs=Needs(cpus=2)),
        GraphTask(name="free", run=run("free"), priority=1),
    ]
    threading.Timer(0.05, release.set).start()
    assert run_tasks(tasks, Capacity(cpus=2)) == ["first", "large", "free"]


def test_a_failure_is_raised_and_a_stop_is_no_failure() -> None:
    running = threading.Event()

    def waits(given: Allotment, stop: Callable[[], bool]) -> str:
        running.set()
        while not stop():
            threading.Event().wait(0.01)
        raise KeyboardInterrupt

    def fails(given: Allotment, stop: Callable[[], bool]) -> str:
        running.wait(SECONDS)
        raise ValueError("bad")

    tasks = [GraphTask(name="a", run=waits), GraphTask(name="b", run=fails), named("c", before=frozenset("a"))]
    with pytest.raises(ValueError, match="bad"):
        run_tasks(tasks, Capacity(cpus=2))
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks[:1], Capacity(cpus=2), stop=running.is_set)
    with pytest.raises(KeyboardInterrupt):  # a container that ended because of the same signal
        run_tasks([GraphTask(name="b", run=fails)], Capacity(cpus=2), stop=running.is_set)


def test_tasks_of_the_calling_thread() -> None:
    def where(given: Allotment, stop: Callable[[], bool]) -> bool:
        return threading.current_thread() is threading.main_thread()

    tasks = [GraphTask(name=str(n), run=where, in_caller=n < 2) for n in range(4)]
    assert sorted(run_tasks(tasks, Capacity(cpus=4))) == [False, False, True, True]


def test_resources_of_a_machine_and_needs_of_a_step() -> None:
    capacity = parse_capacity(["cpu=3", "gpu=2", "big=1"])
    assert (capacity.cpus, capacity.gpus, capacity.tags) == (3, ("0", "1"), {"big": 1})
    assert parse_capacity([]).gpus is None
    for text in ("cpu", "cpu=0", "gpu=-1", "a b=1", "cpu=1=2"):
        with pytest.raises(UsageError, match="states no resource"):
            parse_capacity([text])
    text = "triggers: [{}]\nmodels: [{image: x, gpu: true, tags: [big], cpus: 2}]"
    assert needs_of(flow_of(text).steps[0]) == Needs(cpus=2, gpu=True, tags=frozenset({"big"}))
    for resources, message in [
        (("cpu=2", "gpu=1"), "a tag cannot be 'big'"),
        (("cpu=2", "gpu=0", "big=1"), "step1 needs a GPU, and this machine has none"),
        (("cpu=1", "big=1"), "step1 needs 2 CPUs, and containers may have 1"),
    ]:
        with pytest.raises(BadFlowError) as caught:
            flow_of(text, machine_of(RunRequest(resources=resources, engine="apptainer")))
        fault = caught.value.faults[-1]
        assert (fault.place, fault.message) == ((2, 10), message)
    with pytest.raises(UsageError, match="needs more than"):
        run_tasks([named("a", needs=Needs(cpus=4))], Capacity(cpus=2))

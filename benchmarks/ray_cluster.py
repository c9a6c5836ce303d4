"""A cluster of Ray on this machine whose few worker processes each stand for many workers, which only wait.

The scheduler, the ledger, the executor and Ray's calls are the real ones, and so are nodes, each with its raylet. What
is not: a process for every worker. Each node has one actor with a thread for each of its workers; a thread receives a
job, waits, and answers as if its stages were done. No file of a series is written.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.runner_cases import timing

from ctenrich.runner.executors.ray import RayExecutor
from ctenrich.runner.job import Job, JobResult
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.settings import RunSettings, Settings

__all__ = ["ClusterFigures", "ClusterPlan", "pool_settings", "simulate_cluster"]


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """Workers of a cluster, and the loss of its nodes."""

    workers: int
    nodes: int = 4
    """Nodes among which the workers are divided."""
    seconds: float = 0.2
    """Time that every job takes."""
    losses: int = 0
    """Nodes that are lost; another node takes the place of each."""
    lose_every: float = 60.0
    """Seconds between two losses."""


@dataclass(frozen=True, kw_only=True)
class ClusterFigures:
    """What a run on the cluster took."""

    series: int
    jobs: int
    """Jobs that workers were given, those that were given twice included."""
    again: int
    """Jobs that were lost with a node and given to another worker."""
    nodes_lost: int
    most_in_flight: int
    """Largest number of jobs that the workers had at a time."""
    states: dict[str, int]
    cpu: float
    """Seconds of the driver, with all its threads."""
    seconds: float
    megabytes: float
    """Largest resident memory of the driver."""
    objects: int
    """Objects in the object stores of all nodes at the end of the run."""


def pool_settings(workers: int) -> Settings:
    """Settings of a run with a number of workers: a quarter for input, a quarter for inference, half for output."""
    quarter = workers // 4
    devices = tuple(f"cpu:{n}" for n in range(quarter))
    return Settings(
        run=RunSettings(input_workers=quarter, output_workers=workers - 2 * quarter, devices=devices),
    )


class _Host:
    """The workers of one node, each a thread of this actor."""

    def process(self) -> int:
        """Number of the process."""
        return os.getpid()

    def run(self, job: Job, seconds: float) -> JobResult:
        """Wait as long as a worker would work."""
        time.sleep(seconds)
        small = replace(job, entry=replace(job.entry, instances=()), prefetch=())
        return JobResult(job=small, timings=tuple(timing(job, stage) for stage in job.stages))


class SharedWorkers:
    """Workers of the cluster, in place of :class:`ctenrich.runner.executors.ray.RayWorkers`.

    Parameters
    ----------
    ray : module
        Ray, connected to the cluster.
    cluster : Cluster
        Its nodes.
    plan : ClusterPlan
        Workers and nodes.
    devices : int
        Workers that are for inference.
    """

    def __init__(self, ray: Any, cluster: Any, plan: ClusterPlan, devices: int) -> None:
        self._ray, self._cluster, self._seconds = ray, cluster, plan.seconds
        self._threads = -(-plan.workers // plan.nodes)
        self.actors = devices
        self.started: Counter[str] = Counter()
        self.lost = 0
        self._lock = threading.Lock()
        self._number = 0
        self._made = 0
        self._nodes = [self._new_node() for _ in range(plan.nodes)]
        self._spare = [self._new_node() for _ in range(plan.losses)]

    def _new_node(self) -> tuple[Any, Any, int]:
        """Add a node, and the actor with its workers; also return its process."""
        name = f"node{self._made}"
        self._made += 1
        node = self._cluster.add_node(
            num_cpus=1, resources={name: 1}, node_ip_address="127.0.0.1", object_store_memory=80_000_000
        )
        options = {"num_cpus": 0, "resources": {name: 1}, "max_restarts": 0, "max_concurrency": self._threads}
        host = self._ray.remote(_Host).options(**options).remote()
        return node, host, self._ray.get(host.process.remote())

    def start(self, job: Job, actor: int | None) -> Any:
        """Give a job to the next node in turn."""
        self.started[f"{job.key}{job.stages}"] += 1
        with self._lock:
            self._number += 1
            _, host, _ = self._nodes[self._number % len(self._nodes)]
        return host.run.remote(job, self._seconds)

    def replace(self, actor: int) -> None:
        """Do nothing: the workers of a lost node come back with another node."""

    def lose_node(self) -> None:
        """Kill the processes of a node, as a failure of its machine does: its jobs are lost. A spare one follows."""
        with self._lock:
            node, _, process = self._nodes.pop(0)
            self._nodes += self._spare[:1]
            del self._spare[:1]
            os.kill(process, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)
        self.lost += 1

    def close(self) -> None:
        """Leave the nodes to the cluster."""


class _CountsObjects(RayExecutor):
    """Counts the objects in the stores of all nodes before it disconnects."""

    objects = 0

    def close(self, *, kill: bool = False) -> None:
        self.objects = _objects_in_stores()
        super().close(kill=kill)


def simulate_cluster(run: Run, plan: ClusterPlan) -> ClusterFigures:
    """Run a cohort on a cluster of this machine.

    Parameters
    ----------
    run : Run
        Its settings are those of :func:`pool_settings`.
    plan : ClusterPlan
        Workers, nodes and their losses.

    Returns
    -------
    ClusterFigures
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's switch for nodes on the loopback
    import ray
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    ray_constants.ENABLE_RAY_CLUSTER = False
    head = {"num_cpus": 0, "node_ip_address": "127.0.0.1", "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    made: list[SharedWorkers] = []

    def make_workers(module: Any) -> Any:
        made.append(SharedWorkers(module, cluster, plan, len(run.config.settings.run.devices)))
        return made[0]

    ended = threading.Event()
    most = 0
    try:
        executor = _CountsObjects(run.root, run.config.settings, address=cluster.address, workers=make_workers)

        def lose_nodes() -> None:
            for _ in range(plan.losses):
                if not ended.wait(plan.lose_every):
                    made[0].lose_node()

        def watch() -> bool:
            nonlocal most
            most = max(most, executor.in_flight)
            return False

        loser = threading.Thread(target=lose_nodes)
        loser.start()
        began, cpu = time.monotonic(), time.process_time()
        summary = Runner(run, executor, options=RunnerOptions(stop=watch)).run()
        took, spent = time.monotonic() - began, time.process_time() - cpu
        ended.set()
        loser.join()
    finally:
        ended.set()
        ray.shutdown()
        cluster.shutdown()
    jobs = made[0].started
    return ClusterFigures(
        series=len(run.cohort.series),
        jobs=jobs.total(),
        again=jobs.total() - len(jobs),
        nodes_lost=made[0].lost,
        most_in_flight=most,
        states=dict(summary.states),
        cpu=spent,
        seconds=took,
        megabytes=_peak_megabytes(),
        objects=executor.objects,
    )


def _objects_in_stores() -> int:
    """Number of objects in the object stores of all nodes, as ``ray memory --stats-only`` states it.

    The head is asked: a node that has just been lost is listed as alive until its heartbeats are missed.
    """
    import ray
    from ray._private import internal_api

    api: Any = internal_api  # without annotations
    head = next(node for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
    state = api.get_state_from_address(None)
    reply = api.get_memory_info_reply(state, head["NodeManagerAddress"], str(head["NodeManagerPort"]))
    text = api.store_stats_summary(reply)
    found = re.search(r"Plasma memory usage [\d.]+ MiB, (\d+) objects", text)
    assert found, text
    return int(found[1])


def _peak_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    return 0.0

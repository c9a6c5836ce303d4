"""Ray Core gives the same bytes, and a node that goes away costs time, not results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import need_package
from tests.support.cohorts import make_cohort, result_hashes

from ctenrich import steps
from ctenrich.runner.executors.ray import RayExecutor
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.settings import RunSettings, Settings

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
COUNT = 4


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_package("ray", "ray")
    return make_cohort(tmp_path_factory.mktemp("cohort"), COUNT)


@pytest.fixture(scope="module")
def expected(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("serial") / "run"
    assert steps.run_all(steps.start(cohort, out, segmenters=["expert"])).exit_code == 0
    return result_hashes(out)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes on the loopback (Ray's switch for it has the name of other systems)."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "node_ip_address": "127.0.0.1"})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_local_cluster_gives_the_same_bytes(cohort: Path, expected: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(run=RunSettings(input_workers=1, output_workers=1))
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    summary = Runner(run, RayExecutor(run.root, settings)).run()
    assert summary.exit_code == 0
    steps.tables(run)
    assert result_hashes(tmp_path / "run") == expected


def test_a_node_killed_in_the_middle_costs_nothing_but_time(
    cohort: Path, expected: dict[str, str], tmp_path: Path, cluster: Any
) -> None:
    second = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    settings = Settings(run=RunSettings(input_workers=2, output_workers=2))
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    executor = RayExecutor(run.root, settings, address=cluster.address)
    began = time.monotonic()
    killed: list[float] = []

    def kill_soon() -> bool:
        if not killed and (run.root / "log.jsonl").is_file():
            cluster.remove_node(second, allow_graceful=False)
            killed.append(time.monotonic() - began)
        return False

    summary = Runner(run, executor, options=RunnerOptions(stop=kill_soon)).run()
    assert killed
    assert summary.exit_code == 0, summary
    steps.tables(run)
    assert result_hashes(tmp_path / "run") == expected

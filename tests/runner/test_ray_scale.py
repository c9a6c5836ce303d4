"""Many workers on several nodes: bounded jobs in flight, nothing in the object stores, a node that is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import need_package
from tests.support.runner_cases import EXPERT, NETWORK, SCORER, make_run

from ctenrich.records import State

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

WORKERS, SERIES = 24, 60


def test_a_node_of_many_workers_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_package("ray", "ray")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # put back after the test
    from ray._private import ray_constants

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    from benchmarks.ray_cluster import ClusterPlan, pool_settings, simulate_cluster

    products = (EXPERT, NETWORK, SCORER)
    run = make_run(tmp_path / "run", SERIES, products=products, settings=pool_settings(WORKERS))
    found = simulate_cluster(run, ClusterPlan(workers=WORKERS, nodes=2, seconds=0.3, losses=1, lose_every=0.7))
    assert found.states[State.DONE.value] == SERIES * (len(products) + 1), found
    assert found.nodes_lost == 1
    assert found.again >= 1, "the jobs of the lost node were given to others"
    assert WORKERS // 2 < found.most_in_flight <= WORKERS
    assert found.objects == 0

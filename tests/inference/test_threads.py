"""Work side by side: results in order, nothing left running, and the same volumes whatever the number of workers."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.small_models import smooth_volume, v2_plans, write_v2

from ctenrich.inference.registry import resolve_model
from ctenrich.inference.threads import in_order, torch_threads
from ctenrich.nnunet.postprocess import to_source
from ctenrich.nnunet.preprocess import to_network
from ctenrich.nnunet.store import prepare

CPU = torch.device("cpu")


def test_results_come_in_order_from_several_threads() -> None:
    seen = set()

    def work(n: int) -> int:
        seen.add(threading.get_ident())
        time.sleep(0.002 * (n % 3 == 0))
        return n * n

    assert list(in_order(work, range(30), 3)) == [n * n for n in range(30)]
    assert threading.get_ident() not in seen
    assert 1 <= len(seen) <= 3
    seen.clear()
    assert list(in_order(work, range(4), 1)) == [0, 1, 4, 9]
    assert seen == {threading.get_ident()}
    assert list(in_order(work, [], 2)) == []


def test_an_error_ends_the_work_and_gives_the_threads_back() -> None:
    before, done = torch.get_num_threads(), []

    def work(n: int) -> int:
        if n == 3:
            raise ValueError("three")
        done.append(n)
        return n

    with pytest.raises(ValueError, match="three"):
        list(in_order(work, range(100), 2))
    assert max(done) < 10
    assert torch.get_num_threads() == before
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_the_caller_takes_no_cores_from_the_workers() -> None:
    with torch_threads(2):
        found = [torch.get_num_threads() for _ in in_order(lambda n: n, range(6), 2)]
        assert found == [1] * 6
        assert [torch.get_num_threads() for _ in in_order(lambda n: n, range(2), 1)] == [2] * 2
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("spacing", [(3.0, 1.3, 1.2), (5.0, 1.1, 1.2), (1.0, 1.2, 4.5)])
def test_workers_do_not_change_what_goes_in_and_what_comes_out(
    tmp_path: Path, spacing: tuple[float, float, float]
) -> None:
    write_v2(tmp_path / "m", v2_plans())
    stored = prepare(resolve_model(str(tmp_path / "m")))
    plan = stored.plan(stored.configurations[0])
    array = smooth_volume((37, 40, 36), 3)
    array[:, :4] = 0
    found: list[tuple[Any, Any, Any]] = []
    for workers in (1, 3):
        data, grids = to_network(array, spacing, plan, CPU, workers)
        scores = torch.stack([torch.roll(data, n * 3, 2) for n in range(4)])
        kept = torch.full((4, *grids.cropped), float("nan"))

        def keep(where: Any, slab: Any, _: Any, axis: int, kept: Any = kept) -> None:
            view = kept.movedim(axis + 1, 1)
            assert bool(view[:, where].isnan().all()), "a plane was made twice"
            view[:, where] = slab[:, None]

        found.append((data, to_source(scores, plan, grids, keep, workers), kept))
    (data, labels, kept), (same_data, same_labels, same_kept) = found
    assert torch.equal(data, same_data)
    assert np.array_equal(labels, same_labels)
    assert torch.equal(kept, same_kept)
    assert not bool(kept.isnan().any())
    assert len(np.unique(labels)) == 4

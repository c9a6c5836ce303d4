"""ROIs of a run compared with the organs of its other products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.support import encode_cases as cases

from ctenrich.masks import full_mask
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.propose import propose_name
from ctenrich.structure_names.run_masks import evidence_of_run
from ctenrich.workspace import Workspace


def test_every_roi_is_compared_with_the_organs_of_the_other_products(tmp_path: Path, workspace: Workspace) -> None:
    series, _ = cases.make_series(tmp_path / "ct")
    uid = series.series_instance_uid
    store = SeriesStore(workspace)
    store.save(series, uid)
    expert = cases.make_expert_masks(series, workspace)
    store.save(expert, uid, expert.product)
    assert list(evidence_of_run(workspace.root)) == [], "there is nothing to compare with"
    labels = np.where(full_mask(expert, 1, workspace), 2, 0).astype(np.uint8)  # 2: heart
    labels[12:, :4, :4] = 4
    network = cases.make_masks(series, workspace, labels)
    store.save(network, uid, network.product)
    found = {one.name: one for one in evidence_of_run(workspace.root)}
    assert set(found) == {"Heart", "Lung-Left", "GTV-1"}, "the spinal cord is absent"
    assert found["Heart"].evidence.organs == (("heart", 1.0),)
    assert found["GTV-1"].evidence.organs == ()
    shared = int((full_mask(expert, 1, workspace) & full_mask(expert, 2, workspace)).sum())
    sizes = [int(full_mask(expert, number, workspace).sum()) for number in (1, 2)]
    assert found["Lung-Left"].evidence.organs == (("heart", 2 * shared / sum(sizes)),)
    assert propose_name("roi 1", found["Heart"].evidence).candidates[0].name == "Heart"

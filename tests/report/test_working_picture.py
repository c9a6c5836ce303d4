"""Files of the picture of a series page: what a browser decodes from them is the volume and the masks."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ctenrich.records import Quantity, SegmentMasks, Volume
from ctenrich.report import build_report
from ctenrich.report import working_picture as module
from ctenrich.report.reduction import reduce_volume, reduction_of, scale_of
from ctenrich.report.working_picture import Pictures, working_picture
from ctenrich.workspace import Workspace, load_array, load_record
from tests.support.report_runs import NETWORK, make_run, uid_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_run(tmp_path_factory.mktemp("picture") / "run", 1)


def records(run: Workspace) -> tuple[Volume, SegmentMasks]:
    volume = load_record(run.series_dir(uid_of(0)) / "volume.json", Volume)
    return volume, load_record(run.product_dir(uid_of(0), NETWORK) / "masks.json", SegmentMasks)


def parts_of(path: Path) -> tuple[str, list[bytes]]:
    """Key and decoded texts of a script file; it is one call and nothing else."""
    found = re.fullmatch(r"ctenrichPicture\((\"[0-9a-f]{24}\"),(\[.*\])\);\n", path.read_text("ascii"))
    assert found is not None
    return json.loads(found[1]), [base64.b64decode(text, validate=True) for text in json.loads(found[2])]


def made(run: Workspace, folder: Path) -> tuple[dict[str, Any], Volume, SegmentMasks]:
    volume, masks = records(run)
    picture = working_picture(volume, {str(NETWORK): masks}, {}, Pictures(folder / "pictures", "pictures/", run))
    return picture.meta, volume, masks


def test_slices_and_masks_survive_the_files(run: Workspace, tmp_path: Path) -> None:
    meta, volume, masks = made(run, tmp_path)
    shape = tuple(axis["count"] for axis in meta["axes"])
    key, sheets = parts_of(tmp_path / meta["file"])
    assert key == meta["key"]
    rows = -(-shape[1] // 8) * 8
    planes = [np.asarray(Image.open(BytesIO(sheet))).reshape(-1, rows, shape[2])[:, : shape[1]] for sheet in sheets]
    assert {len(p) for p in planes[:-1]} <= {meta["chunk"]}
    decoded = np.concatenate(planes)
    levels = reduce_volume(volume, reduction_of(volume), scale_of(volume, run), run)
    assert decoded.shape == levels.shape == shape
    assert np.abs(decoded.astype(int) - levels).mean() < 1.5
    product = meta["products"][0]
    key, layers = parts_of(tmp_path / product["file"])
    assert key == product["key"]
    labels = np.frombuffer(zlib.decompress(layers[0]), np.uint8).reshape(shape)
    source = load_array(run.resolve(uid_of(0), masks.label_map_path or ""))
    assert np.array_equal(labels, source[::-1]), "from head to feet; segment numbers are 1, 2, 3"
    heart = product["segments"][0]
    assert (labels[heart["at"][0]] == 1).sum() == max((plane == 1).sum() for plane in labels)
    assert product["segments"][2]["at"] is None, "the trachea is absent"


def test_it_opens_at_the_slice_with_most_structures(run: Workspace, tmp_path: Path) -> None:
    meta, _, masks = made(run, tmp_path)
    labels = load_array(run.resolve(uid_of(0), masks.label_map_path or ""))[::-1]
    for axis in range(3):
        numbers = [len(np.unique(plane)) for plane in np.moveaxis(labels, axis, 0)]
        assert numbers[meta["start"][axis]] == max(numbers)


def test_a_noisy_series_is_stored_at_lower_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(3).integers(0, 255, (20, 61, 64)).astype(np.uint8)

    def size() -> int:
        return sum(len(base64.b64decode(text)) for text in module._slices_text(levels))

    best = size()
    monkeypatch.setattr(module, "_MOST_BYTES", best * 6 // 10)
    assert size() <= best * 6 // 10


def test_a_volume_without_hu_has_its_own_range(run: Workspace, tmp_path: Path) -> None:
    volume, _ = records(run)
    other = replace(volume, quantity=Quantity.SUV, sha256="another")
    meta = working_picture(other, {}, {}, Pictures(tmp_path / "pictures", "pictures/", run)).meta
    assert meta["knots"] == [[-1000.0, 0], [700.0, 255]]
    assert (meta["hu"], meta["unit"], meta["products"]) == (False, "SUV", [])
    assert meta["start"] == (20, 32, 40), "the middle"


def test_masks_that_are_no_longer_on_the_disk_are_not_drawn(tmp_path: Path) -> None:
    workspace = make_run(tmp_path / "run", 1)
    _, masks = records(workspace)
    workspace.resolve(uid_of(0), masks.label_map_path or "").unlink()
    build_report(workspace)
    text = (workspace.report / "series" / f"{uid_of(0)}.html").read_text("utf-8")
    assert 'aria-label="Coronal CT picture, landmarks lung start, Th8, lung end"' in text
    assert '"products":[]' in text

"""Damaged files end in one typed error or in a reading that says what it is, never in a crash."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.support.encode_cases import make_expert_masks, make_series, make_shape

from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.sr import read_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import CtenrichError
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("damage")
    workspace = Workspace(folder / "run")
    series, volume = make_series(folder / "ct")
    masks = make_expert_masks(series, workspace)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    sr = encode_shape_sr(make_shape(masks), masks, seg, series, settings=Settings(), workspace=workspace)
    return [workspace.resolve(series.series_instance_uid, item.path) for item in (seg, sr)]


@pytest.mark.parametrize("seed", range(12))
def test_flipped_and_missing_bytes(seed: int, files: list[Path], tmp_path: Path) -> None:
    chance = random.Random(seed)
    read, refused = 0, list[str]()
    for path, reader in zip(files, (read_seg, read_sr), strict=True):
        content = bytearray(path.read_bytes())
        for _ in range(4):
            changed = bytearray(content)
            for _ in range(chance.choice([1, 3, 20])):
                changed[chance.randrange(132, len(changed))] = chance.randrange(256)
            if chance.random() < 0.3:
                del changed[chance.randrange(200, len(changed)) :]
            damaged = tmp_path / "damaged.dcm"
            damaged.write_bytes(changed)
            try:
                reader(damaged)
                read += 1
            except CtenrichError as error:
                refused.append(str(error))
    assert read + len(refused) == 8
    assert not [message for message in refused if str(tmp_path) in message]

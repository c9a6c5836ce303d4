"""The coronal picture: landmark lines lie on the rows of their slices."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.bodypart.regions import find_regions
from ctenrich.errors import GeometryError
from ctenrich.records import Volume
from ctenrich.report.coronal import coronal_picture, coronal_png
from ctenrich.workspace import Workspace
from tests.support.bodypart_cases import affine, make_scores, make_volume

SLICES, SPACING = 41, 8.0


def striped(workspace: Workspace, row: tuple[float, float, float] = (1, 0, 0)) -> Volume:
    """A body whose slice n from the feet has a mark: bone on slice 17, where Th8 lies; the left half is brighter."""
    array = np.full((SLICES, 60, 80), -1000, np.int16)
    array[:, 10:50, 10:70] = -50
    array[:, 10:50, 40:70] = 60
    array[17, 10:50, 10:70] = 900
    if row[0] < 0:
        array = np.ascontiguousarray(array[::-1, :, ::-1])
    return make_volume(workspace, array, affine(row=row, column=(0, 1, 0), spacing=(SPACING, 5.0, 5.0)))


def pixels(png: bytes) -> Any:
    from PIL import Image

    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("row", [(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)])
def test_a_line_lies_on_its_slice_and_the_head_is_up(row: tuple[float, float, float], workspace: Workspace) -> None:
    volume = striped(workspace, row)
    picture = coronal_picture(volume, workspace, height=410)
    upwards = row[0] > 0
    bright = np.flatnonzero(picture.pixels[:, picture.pixels.shape[1] // 4] > 200)
    expected = picture.row_of((17 if upwards else SLICES - 1 - 17) * SPACING)
    assert expected == pytest.approx((SLICES - 1 - 17 + 0.5) * 10 - 0.5)
    assert bright.mean() == pytest.approx(expected, abs=1)
    width = picture.pixels.shape[1]
    assert picture.pixels[200, width * 3 // 4] > picture.pixels[200, width // 4]  # the patient's left is on the right


def test_lines_and_bands_of_the_png(workspace: Workspace) -> None:
    volume = striped(workspace)
    scores = make_scores([40.0 + k for k in range(SLICES)], SPACING)
    landmarks, regions = find_landmarks(scores), find_regions(scores)
    png = coronal_png(volume, landmarks, regions, workspace=workspace, height=410)
    assert png == coronal_png(volume, landmarks, regions, workspace=workspace, height=410)
    image = pixels(png)
    yellow = np.flatnonzero((image[:, 2] == (255, 214, 64)).all(axis=1))
    wanted = [
        round((SLICES - 1 - (i.score - 40) + 0.5) * 10 - 0.5) for i in landmarks.items if i.slice_index is not None
    ]
    assert yellow.tolist() == sorted(wanted)
    assert len({tuple(c) for c in image[:, -14:].reshape(-1, 3).tolist()}) > 1


def test_a_series_without_landmarks_has_a_picture(workspace: Workspace) -> None:
    scores = make_scores([None] * SLICES, SPACING)
    png = coronal_png(striped(workspace), find_landmarks(scores), find_regions(scores), workspace=workspace)
    assert pixels(png).shape[0] == 420


def test_coronal_series_are_refused(workspace: Workspace) -> None:
    array = np.zeros((4, 8, 8), np.int16)
    volume = make_volume(workspace, array, affine(row=(1, 0, 0), column=(0, 0, -1), spacing=(3, 3, 3)))
    with pytest.raises(GeometryError):
        coronal_picture(volume, workspace)

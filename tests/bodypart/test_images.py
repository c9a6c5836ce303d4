"""Images of slices: as bpreg makes them, the same for every order of rows and columns, air found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.bodypart_cases import affine, body
from tests.support.bodypart_golden import sample, volumes

from ctenrich.bodypart.images import ImageAxes, ImageMaker, feet_to_head, plan_images, resampling_matrix
from ctenrich.errors import GeometryError, InputError
from ctenrich.reasons import Reason

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "bodypart.json").read_text())
VOLUMES = sorted(volumes())
AXIAL = {"row": (1, 0, 0), "column": (0, 1, 0)}


@pytest.mark.parametrize("name", VOLUMES)
def test_images_as_bpreg_makes_them(name: str) -> None:
    array, spacing = volumes()[name]
    plan = plan_images(array.shape, affine(**AXIAL, spacing=spacing))  # type: ignore[arg-type]
    images, empty = ImageMaker(array, plan).images(0, 8)
    assert images.shape == (3, 128, 128)
    assert not empty.any()
    np.testing.assert_allclose(sample(images), GOLDEN["images"][name]["images"], atol=5e-6)


def test_a_matrix_keeps_constants_and_pads_with_nothing() -> None:
    wide, narrow = resampling_matrix(600, 1.0), resampling_matrix(100, 1.0)
    np.testing.assert_allclose(wide.sum(axis=1), 1, atol=1e-6)
    assert np.flatnonzero(narrow.any(axis=1)).tolist() == list(range(49, 78))  # 29 pixels of 3.5 mm, 49 before them


@pytest.mark.parametrize(
    ("row", "column", "turn"),
    [
        ((1, 0, 0), (0, 1, 0), lambda a: a),
        ((-1, 0, 0), (0, 1, 0), lambda a: a[:, :, ::-1]),
        ((1, 0, 0), (0, -1, 0), lambda a: a[:, ::-1]),
        ((-1, 0, 0), (0, -1, 0), lambda a: a[:, ::-1, ::-1]),
        ((0, 1, 0), (1, 0, 0), lambda a: a.transpose(0, 2, 1)),
        ((0, -1, 0), (1, 0, 0), lambda a: a.transpose(0, 2, 1)[:, :, ::-1]),
        ((0, 1, 0), (-1, 0, 0), lambda a: a.transpose(0, 2, 1)[:, ::-1]),
        ((0, -1, 0), (-1, 0, 0), lambda a: a.transpose(0, 2, 1)[:, ::-1, ::-1]),
    ],
)
@pytest.mark.parametrize("axes", list(ImageAxes))
def test_the_same_anatomy_gives_the_same_image(
    row: Any, column: Any, turn: Callable[..., Any], axes: ImageAxes
) -> None:
    """`turn` stores the same patient with other row and column directions."""
    array = body()
    standard = affine(**AXIAL, spacing=(3.0, 2.0, 2.0))  # type: ignore[arg-type]
    expected = ImageMaker(array, plan_images(array.shape, standard, axes)).images(0, 8)[0]
    stored = np.ascontiguousarray(turn(array))
    plan = plan_images(stored.shape, affine(row=row, column=column, spacing=(3.0, 2.0, 2.0)), axes)
    np.testing.assert_allclose(ImageMaker(stored, plan).images(0, 8)[0], expected, atol=1e-6)


def test_nifti_axes_are_viewer_axes_turned() -> None:
    """64 mm x 2 give 37 pixels, 45 before and 46 after: turned images are one pixel further on."""
    array = body(rows=64, columns=64)
    matrix = affine(**AXIAL, spacing=(3.0, 2.0, 2.0))  # type: ignore[arg-type]
    viewer, nifti = (ImageMaker(array, plan_images(array.shape, matrix, a)).images(0, 8)[0] for a in ImageAxes)
    np.testing.assert_allclose(nifti[:, :, 45:82], viewer.transpose(0, 2, 1)[:, :, 81:44:-1], atol=1e-6)


def test_feet_to_head_by_the_normal() -> None:
    assert feet_to_head(affine(**AXIAL, spacing=(3, 1, 1)))  # type: ignore[arg-type]
    assert not feet_to_head(affine(row=(-1, 0, 0), column=(0, 1, 0), spacing=(3, 1, 1)))
    tilted = (0, float(np.cos(0.32)), float(np.sin(0.32)))
    assert feet_to_head(affine(row=(1, 0, 0), column=tilted, spacing=(3, 1, 1)))  # gantry tilt of 18 degrees


@pytest.mark.parametrize(("row", "column"), [((1, 0, 0), (0, 0, -1)), ((0, 1, 0), (0, 0, -1))])
def test_coronal_and_sagittal_slices_have_no_scores(row: Any, column: Any) -> None:
    with pytest.raises(GeometryError) as caught:
        plan_images((9, 64, 64), affine(row=row, column=column, spacing=(3, 1, 1)))
    assert caught.value.reason is Reason.NOT_AXIAL


def test_slices_with_air_only_or_one_value_are_empty() -> None:
    array = body(6)
    array[0] = -1024
    array[2] = np.random.default_rng(0).integers(-1020, -980, array[2].shape)
    array[5] = 40
    plan = plan_images(array.shape, affine(**AXIAL, spacing=(3, 4.0, 4.0)))  # type: ignore[arg-type]
    maker = ImageMaker(array, plan)
    parts = [maker.images(0, 4), maker.images(4, 8)]
    assert np.concatenate([e for _, e in parts]).tolist() == [True, False, True, False, False, True]
    assert [len(i) for i, _ in parts] == [4, 2]


@pytest.mark.parametrize(("length", "spacing"), [(100, 0.0), (100, -1.0), (100, float("nan")), (10, 0.3)])
def test_spacings_that_make_no_image(length: int, spacing: float) -> None:
    with pytest.raises(GeometryError) as caught:
        resampling_matrix(length, spacing)
    assert caught.value.reason is Reason.ZERO_SPACING


def test_values_that_are_not_numbers_are_refused() -> None:
    array = body().astype(np.float32)
    array[5, 3, 3] = np.nan
    maker = ImageMaker(array, plan_images(array.shape, affine(**AXIAL, spacing=(3, 4.0, 4.0))))  # type: ignore[arg-type]
    assert len(maker.images(0, 5)[0]) == 5
    with pytest.raises(InputError) as caught:
        maker.images(4, 8)
    assert caught.value.reason is Reason.HU_RANGE


def test_clipping_keeps_extreme_values_in_range() -> None:
    array = body()
    array[:, 12, 20] = 30_000
    array[:, 13, 20] = -30_000
    images, _ = ImageMaker(array, plan_images(array.shape, affine(**AXIAL, spacing=(3, 4.0, 4.0)))).images(0, 8)  # type: ignore[arg-type]
    assert images.min() >= -1 - 1e-5
    assert images.max() <= 1 + 1e-5

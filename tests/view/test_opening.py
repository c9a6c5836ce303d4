"""The slice that is opened, and the names of products."""

from __future__ import annotations

import pytest

from ctenrich.records import Box, Product, ProductKind, Segment, SegmentMasks, Slice, SortedSeries
from ctenrich.view.opening import opening_point, product_name, slice_of_segment


def series(slices: int) -> SortedSeries:
    return SortedSeries(
        "1.1",
        "1.2",
        "1.3",
        tuple(Slice(f"1.2.{k + 1}", "1", f"{k}.dcm", (-50.0, -60.0, 10.0 + 3 * k), 3.0 * k) for k in range(slices)),
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.5, 2.0),
        3.0,
        100,
        100,
    )


def masks(*boxes: tuple[int, int, int] | None) -> SegmentMasks:
    """Segments with (k0, k1, voxels); None: absent."""
    segments = tuple(
        Segment(n, f"organ_{n}", "", box[2], Box(box[0], box[1], 20, 41, 10, 31))
        if box
        else Segment(n, f"organ_{n}", "", 0)
        for n, box in enumerate(boxes, 1)
    )
    return SegmentMasks(Product(ProductKind.EXPERT), "1.2", (40, 100, 100), segments, None, "")


def test_most_organs_then_the_middle_of_their_voxels() -> None:
    found = opening_point(masks((0, 20, 100), (10, 40, 100), None), series(40))
    assert found is not None
    assert 10 <= found.slice_index < 20
    # mean of the middles 9.5 and 24.5 is 17: a slice with two organs, nearest to it
    assert found.slice_index == 17
    assert found.position == pytest.approx((-50 + 20 * 2.0, -60 + 30 * 0.5, 10 + 17 * 3))


def test_a_stated_slice_is_kept_also_without_an_organ() -> None:
    found = opening_point(masks((0, 5, 10)), series(40), 30)
    assert found is not None
    assert found.slice_index == 30
    assert found.position[2] == pytest.approx(100.0)


@pytest.mark.parametrize("nothing", [None, masks(), masks(None, None)])
def test_nothing_to_open_at(nothing: SegmentMasks | None) -> None:
    assert opening_point(nothing, series(3)) is None
    assert slice_of_segment(nothing, 1) is None


def test_the_middle_slice_of_an_organ() -> None:
    assert slice_of_segment(masks((3, 8, 5)), 1) == 5
    assert slice_of_segment(masks((3, 8, 5)), 9) is None


@pytest.mark.parametrize(
    ("product", "name"),
    [
        (Product(ProductKind.EXPERT), "Expert contours (RTSTRUCT)"),
        (
            Product(ProductKind.NNUNET, "task55", "3d_lowres", ("0", "1"), mirror=False),
            "task55 3d_lowres, nnU-Net segmentation, folds 0, 1",
        ),
        (Product(ProductKind.BODYPART, "demo-bodypart"), "demo-bodypart, body part regression"),
        (Product("notinstalled", "thing"), "thing, notinstalled"),
    ],
)
def test_names_of_products_begin_with_the_model(product: Product, name: str) -> None:
    assert product_name(product) == name

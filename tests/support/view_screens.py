"""What OHIF shows of a slice, voxel by voxel, beside the masks that it should show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ctenrich.codes.mappings import load_segments
from ctenrich.masks import full_mask
from ctenrich.records import Product, SegmentMasks, SortedSeries
from ctenrich.workspace import Workspace, load_record

_OWN_NOISE = ("favicon", "The stack viewport has been destroyed")
"""OHIF's own complaints, while it swaps a viewport."""


@dataclass
class Overlay:
    """The masks of a series: name -> [k, j, i]."""

    masks: dict[str, NDArray[np.bool_]]
    instance_numbers: list[int]

    @property
    def union(self) -> NDArray[np.bool_]:
        """Any segment, [k, j, i]."""
        return np.any(list(self.masks.values()), axis=0)

    @property
    def single(self) -> NDArray[np.bool_]:
        """Voxels of one segment only."""
        return np.sum([m.astype(np.uint8) for m in self.masks.values()], axis=0) == 1

    def one_sided(self, index: int) -> bool:
        """Whether a slice's mask and its mirror image can be told apart."""
        plane = self.union[index]
        return bool(plane.any()) and overlap(plane, plane[:, ::-1]) < 0.7


def overlay_of(run: Workspace, uid: str, product: Product) -> Overlay:
    """The masks of a product, from its record."""
    series = load_record(run.series_dir(uid) / "sorted.json", SortedSeries)
    masks = load_record(run.product_dir(uid, product) / "masks.json", SegmentMasks)
    found = {s.name: full_mask(masks, s.number, run) for s in masks.segments if not s.absent}
    return Overlay(found, [int(one.instance_number or 0) for one in series.slices])


def canvas_pixels(page: Any, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The colour in the middle of every voxel, [j, i, RGB]: the slice fills the canvas' smaller side.

    The outer 8 % are black: OHIF writes its texts there, in blue.
    """
    from PIL import Image

    picture = np.asarray(Image.open(BytesIO(page.screenshot())).convert("RGB"))
    box = page.locator(".cornerstone-canvas").first.bounding_box()
    rows, columns = shape
    if box is None:  # OHIF is replacing its viewport
        return np.zeros((*shape, 3), np.uint8)
    scale = min(box["width"] / columns, box["height"] / rows)
    y = box["y"] + box["height"] / 2 + scale * (np.arange(rows) + 0.5 - rows / 2)
    x = box["x"] + box["width"] / 2 + scale * (np.arange(columns) + 0.5 - columns / 2)
    inside = [np.clip(v.astype(int), 0, n - 1) for v, n in ((y, picture.shape[0]), (x, picture.shape[1]))]
    found = picture[np.ix_(*inside)]
    for axis, size in enumerate(shape):
        edge = int(np.ceil(0.08 * size))
        np.moveaxis(found, axis, 0)[[*range(edge), *range(size - edge, size)]] = 0
    return found


def coloured(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an overlay is drawn: CT is grey."""
    return (pixels.max(axis=-1).astype(int) - pixels.min(axis=-1)) > 25


def hue_matches(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Whether the colour cast of each pixel points the way of `colour`."""
    cast = pixels.astype(float) - pixels.astype(float).min(axis=-1, keepdims=True)
    want = np.array(colour, float) - min(colour)
    size = np.linalg.norm(cast, axis=-1)
    cosine = (cast @ want) / np.maximum(size * np.linalg.norm(want), 1e-9)
    return np.asarray((size > 20) & (cosine > 0.94))


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 for two empty ones."""
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def check_slice(page: Any, overlay: Overlay, *, least: float = 0.85) -> int:
    """Hold what is on the screen to the mask of the slice that the screen names; returns its index.

    Fails if another slice's masks, or mirrored ones, fit better than the slice's own, if a segment has another colour,
    or if voxels outside all masks are coloured.
    """
    index = overlay.instance_numbers.index(shown_instance(page))
    own = overlay.union[index]
    pixels = canvas_pixels(page, own.shape)
    seen = coloured(pixels)
    fits = [overlap(seen, plane) for plane in overlay.union]
    assert fits[index] > least, f"slice {index}: the overlay fits its mask by {fits[index]:.2f} only"
    assert fits[index] == max(fits), f"slice {index}: the mask of slice {int(np.argmax(fits))} fits better"
    if overlay.one_sided(index):
        assert overlap(seen, own[:, ::-1]) < fits[index] - 0.1, "a wrong side must not pass"
    for name, mask in overlay.masks.items():
        inner = mask[index] & overlay.single[index]
        if inner.sum() >= 8:
            share = float(hue_matches(pixels, load_segments()[name].colour)[inner].mean())
            assert share > 0.85, f"slice {index}: {name} has its colour in {share:.2f} of its voxels only"
    return index


def shown_instance(page: Any) -> int:
    """Instance Number that OHIF writes on the viewport; for a moment there is none, while it swaps the viewport."""
    for _ in range(120):
        found = re.search(r"I:\s*(\d+)", page.inner_text("body"))
        if found is not None:
            return int(found[1])
        page.wait_for_timeout(500)
    pytest.fail("no slice is shown")


def wait_for_overlay(page: Any, overlay: Overlay) -> None:
    """Until CT and SEG are there."""
    page.wait_for_selector(".cornerstone-canvas", timeout=120_000)
    page.wait_for_function("() => /I:\\s*\\d+/.test(document.body.innerText)", timeout=120_000)
    page.wait_for_timeout(2000)
    if not _settle(page, overlay, 90, first=True):
        pytest.fail("no overlay was drawn within 90 seconds")


def _settle(page: Any, overlay: Overlay, seconds: int, *, first: bool = False) -> bool:
    """Wait until something like the slice's own mask is drawn; what is wrong then is for `check_slice` to say.

    The `first` view is one of a slice that has a mask.
    """
    for _ in range(2 * seconds):
        page.wait_for_timeout(500)
        own = overlay.union[overlay.instance_numbers.index(shown_instance(page))]
        if first and not own.any():
            continue
        if overlap(coloured(canvas_pixels(page, own.shape)), own) > 0.6 and "Loading SEG" not in page.inner_text(
            "body"
        ):
            return True
    return False


def scroll_to(page: Any, overlay: Overlay, instance: int) -> None:
    """Turn the wheel until the slice with this Instance Number is shown and drawn."""
    box = page.locator(".cornerstone-canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    order = overlay.instance_numbers
    sign = 0
    for _ in range(4 * len(order)):
        before = shown_instance(page)
        if before == instance:
            break
        page.mouse.wheel(0, 100 if sign >= 0 else -100)
        page.wait_for_timeout(120)
        after = shown_instance(page)
        if abs(order.index(after) - order.index(instance)) > abs(order.index(before) - order.index(instance)):
            sign = -1 if sign >= 0 else 1
    assert shown_instance(page) == instance
    page.wait_for_timeout(500)
    _settle(page, overlay, 10)


def complaints(errors: list[str]) -> list[str]:
    """Console errors but for OHIF's own noise."""
    return [e for e in errors if not any(known in e for known in _OWN_NOISE)]

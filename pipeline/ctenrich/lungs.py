"""Find the lungs by threshold and components, without a network: an independent witness for masks and landmarks.

Lungs are large components of low attenuation that no slice connects with the border of the image, and that have the
body in front of and behind them. (After Hu, Hoffman and Reinhardt, IEEE Trans Med Imaging 20, 2001.) The result has
gaps where vessels and tumours are, and contains large airways.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["LungWitness", "find_lungs"]

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

_TISSUE = -300
_LUNG = -400
_GRID = 2.5
"""mm in the slice: the search does not need the full resolution."""
_OPENING = 5.5
"""mm by which tissue is eroded and dilated within the slices."""
_PART_ML = 60.0
"""Components of air that are smaller are bowel or airways."""
_MEAN_HU = (-960.0, -480.0)
"""Mean attenuation of a component: gas in the bowel is darker."""
_END_CM2 = 4.0
"""A slice shows lung if it has this area of it."""
_WITHIN = 0.8
"""Share of a component with the body in front and behind: the table has it only in front."""
_CROSS = np.array([[[0] * 3] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0] * 3] * 3], bool)
"""Edge neighbours within a slice."""


@dataclass(frozen=True, kw_only=True)
class LungWitness:
    """Lungs by threshold, in patient axes on a coarser grid of the same slices."""

    mask: Mask = field(repr=False)
    """[z, y, x]; every `stride`-th row and column of the volume."""
    body: Mask = field(repr=False)
    """The body without its cavities, on the same grid."""
    stride: tuple[int, int]
    """Rows and columns of the volume for one of the mask."""
    spacing: Spacing
    """mm, of the mask."""
    volume: float
    """mL, both lungs."""
    bottom: float | None
    """mm above the lowest slice: lowest slice with lung; None without lungs."""
    top: float | None
    """mm above the lowest slice: highest slice with lung."""
    cut_bottom: bool
    """Whether the lungs reach the lowest slice."""
    cut_top: bool
    """Whether the lungs reach the highest slice."""
    middle: float | None
    """mm from the first column: middle of the body at the height of the lungs."""

    def coarse(self, mask: Mask) -> Mask:
        """Bring a mask [z, y, x] of the volume to the grid of the witness."""
        return mask[:, :: self.stride[0], :: self.stride[1]]


def find_lungs(ct: NDArray[np.int16], spacing: Spacing) -> LungWitness:
    """Find the lungs in a CT.

    Parameters
    ----------
    ct : array of int16, [z, y, x]
        HU, in patient axes.
    spacing : (float, float, float)
        mm, axes [z, y, x].

    Returns
    -------
    LungWitness
        Without lungs its mask is empty.
    """
    stride = max(1, round(_GRID / spacing[1])), max(1, round(_GRID / spacing[2]))
    part = ct[:, :: stride[0], :: stride[1]]
    grid = (spacing[0], spacing[1] * stride[0], spacing[2] * stride[1])
    body = _body(part, grid)
    mask = _lungs_in(part, body, grid)
    area = mask.sum(axis=(1, 2)) * grid[1] * grid[2] / 100
    shown = np.flatnonzero(area >= _END_CM2)
    found = shown.size > 0
    low, high = (int(shown[0]), int(shown[-1])) if found else (0, -1)
    columns = np.flatnonzero(body[low : high + 1].any(axis=(0, 1))) if found else np.zeros(0, int)
    return LungWitness(
        mask=mask,
        body=body,
        stride=stride,
        spacing=grid,
        volume=float(np.count_nonzero(mask) * np.prod(grid) / 1000),
        bottom=low * spacing[0] if found else None,
        top=high * spacing[0] if found else None,
        cut_bottom=found and low == 0,
        cut_top=found and high == len(area) - 1,
        middle=float(columns[0] + columns[-1]) / 2 * grid[2] if columns.size else None,
    )


def _body(part: NDArray[np.int16], grid: Spacing) -> Mask:
    """Largest piece of tissue; the opening within the slices cuts off the table and thin walls."""
    from scipy import ndimage

    opened, steps = part > _TISSUE, round(_OPENING / grid[1])
    if steps:
        opened = ndimage.binary_opening(opened, _CROSS, iterations=steps)
    labels, count = ndimage.label(opened)
    if count == 0:
        return np.zeros(part.shape, bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


def _lungs_in(part: NDArray[np.int16], body: Mask, grid: Spacing) -> Mask:
    """Large components of air that no slice connects with the border, with the body in front and behind."""
    from scipy import ndimage

    air = part < _LUNG
    labels, _ = ndimage.label(air, _CROSS)
    rim = [labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]
    open_to_border = np.zeros(int(labels.max()) + 1, bool)
    open_to_border[np.unique(np.concatenate([r.ravel() for r in rim]))] = True
    air &= ~open_to_border[labels]
    between = np.maximum.accumulate(body, axis=1) & np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    labels, count = ndimage.label(air)
    if count == 0:
        return np.asarray(air)
    sizes = np.bincount(labels.ravel(), minlength=count + 1).astype(float)
    within = np.bincount(labels.ravel(), between.ravel(), minlength=count + 1)
    means = np.bincount(labels.ravel(), part.ravel(), minlength=count + 1) / np.maximum(sizes, 1)
    kept = (sizes * float(np.prod(grid)) / 1000 >= _PART_ML) & (within >= _WITHIN * sizes)
    kept &= (means >= _MEAN_HU[0]) & (means <= _MEAN_HU[1])
    kept[0] = False
    return np.asarray(kept[labels])

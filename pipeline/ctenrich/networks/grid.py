"""Resample a volume to a network's axes and spacing and its labels back, with the results of MONAI's transforms.

The rules are those of ``Orientationd``, ``Spacingd`` (align_corners=False, border padding, double precision) and
``Invertd`` with nearest_interp of MONAI 1.6. Arrays are [x, y, z] here, as MONAI has them. Coordinates are computed as
torch's ``affine_grid`` computes them, a few planes at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.nnunet.preprocess import Axes
from ctenrich.recipes.executor import closest_axes
from ctenrich.records import Matrix4

if TYPE_CHECKING:
    import torch

__all__ = ["NetworkGrid", "labels_to_source", "network_grid", "volume_to_network"]

Shape = tuple[int, int, int]
Affine = NDArray[np.float64]

_TOLERANCE = 1e-3
"""Spacings, mm, and elements of affines that differ by no more are equal."""
_SLAB_VOXELS = 2**22


@dataclass(frozen=True, kw_only=True)
class NetworkGrid:
    """Grid of a volume on a network's axes, and the network's own grid."""

    axes: Axes
    """From arrays [k, j, i] to [z, y, x]."""
    shape: Shape
    """(x, y, z) of the volume on the network's axes."""
    target: Shape
    """(x, y, z) of the network's grid."""
    to_target: Affine
    """Voxel of the network's grid -> voxel of the volume; 4x4."""
    to_source: Affine
    """Voxel of the volume -> voxel of the network's grid; 4x4."""

    @property
    def same(self) -> bool:
        """Whether nothing is resampled."""
        return self.shape == self.target and np.allclose(self.to_target, np.eye(4), atol=_TOLERANCE)


def network_grid(
    shape: tuple[int, ...], affine_lps: Matrix4, axes: str, spacing: tuple[float, float, float] | None
) -> NetworkGrid:
    """Find the grid on which a network sees a volume.

    Parameters
    ----------
    shape : (k, j, i)
    affine_lps : 4x4
        (i, j, k, 1) -> mm, LPS.
    axes : str
        Directions of growing x, y, z: RAS, LAS or LPS.
    spacing : (x, y, z), mm, optional
        None: that of the volume.

    Returns
    -------
    NetworkGrid
    """
    turn = closest_axes(affine_lps, axes)
    turned: Shape = (shape[turn.order[2]], shape[turn.order[1]], shape[turn.order[0]])
    source = _turned_affine(affine_lps, turn, turned)
    if spacing is None:
        return NetworkGrid(axes=turn, shape=turned, target=turned, to_target=np.eye(4), to_source=np.eye(4))
    own = np.sqrt((source[:3, :3] ** 2).sum(axis=0))
    wanted = np.where(np.abs(own - np.asarray(spacing)) <= _TOLERANCE, own, np.asarray(spacing, float))
    target = _zoomed_affine(source, wanted)
    count, offset = _count_and_offset(turned, source, target)
    target[:3, 3] = offset
    to_target = np.asarray(np.linalg.solve(source, target), np.float64)
    reached = source @ to_target
    to_source = np.asarray(np.linalg.solve(reached, source), np.float64)
    return NetworkGrid(axes=turn, shape=turned, target=count, to_target=to_target, to_source=to_source)


def _turned_affine(affine_lps: Matrix4, axes: Axes, shape: Shape) -> Affine:
    """(x, y, z, 1) of the turned array -> mm, RAS; with the elements in single precision, as in a NIfTI header."""
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine_lps, float)
    ras = ras.astype(np.float32).astype(float)
    out = np.eye(4)
    out[:3, 3] = ras[:3, 3]
    for axis in range(3):  # x, y, z
        column = ras[:3, 2 - axes.order[2 - axis]]
        flipped = 2 - axis in axes.flips
        out[:3, axis] = -column if flipped else column
        if flipped:
            out[:3, 3] += column * (shape[axis] - 1)
    return out


def _zoomed_affine(affine: Affine, spacing: NDArray[np.float64]) -> Affine:
    """The same rotation without shear, with another spacing and no translation."""
    matrix = affine[:3, :3]
    upper = np.linalg.cholesky(matrix.T @ matrix).T
    rotation = matrix @ np.linalg.inv(upper)
    out = np.eye(4)
    out[:3, :3] = rotation @ np.diag(np.sign(np.diag(upper)) * np.abs(spacing))
    return out


def _count_and_offset(shape: Shape, source: Affine, target: Affine) -> tuple[Shape, NDArray[np.float64]]:
    """Number of voxels that cover the volume from its first to its last voxel centre, and the first one's position."""
    corners = np.asarray(np.meshgrid(*((0.0, n - 1.0) for n in shape), indexing="ij")).reshape(3, -1)
    corners = np.concatenate((corners, np.ones_like(corners[:1])))
    there = (np.linalg.solve(target, source) @ corners)[:3]
    x, y, z = np.round(np.ptp(there, axis=1) + 1.0).astype(int).tolist()
    world = (source @ corners)[:3]
    for n in range(corners.shape[1]):
        if np.allclose(np.min(there - there[:, n : n + 1], axis=1), 0.0, rtol=_TOLERANCE):
            return (x, y, z), world[:, n]
    middle = source[:3, :3] @ (np.asarray(shape) / 2) + source[:3, 3]
    return (x, y, z), middle - target[:3, :3] @ (np.asarray((x, y, z)) / 2)


# ---------------------------------------------------------------- resampling


def volume_to_network(array: NDArray[Any], grid: NetworkGrid) -> torch.Tensor:
    """Turn a volume to the network's axes and resample it by linear interpolation.

    Parameters
    ----------
    array : array, [k, j, i], HU
    grid : NetworkGrid

    Returns
    -------
    tensor, [x, y, z], float32
    """
    import torch  # heavy; a network is loaded anyway

    turned = np.ascontiguousarray(grid.axes.turn(array).transpose(2, 1, 0))
    if grid.same:
        return torch.from_numpy(turned.astype(np.float32))
    values = torch.from_numpy(turned.astype(np.float64))
    return _sample(values, grid.to_target, grid.target, "bilinear")


def labels_to_source(labels: torch.Tensor, grid: NetworkGrid) -> NDArray[Any]:
    """Resample labels to the volume by the nearest neighbour, and turn them back.

    Parameters
    ----------
    labels : tensor, [x, y, z], uint8 or int16
        On the network's grid.
    grid : NetworkGrid

    Returns
    -------
    array, [k, j, i], of the same type
    """
    found = labels
    if not grid.same:
        found = _sample(labels.double(), grid.to_source, grid.shape, "nearest").to(labels.dtype)
    return np.ascontiguousarray(grid.axes.back(found.numpy().transpose(2, 1, 0)))


def _sample(values: torch.Tensor, matrix: Affine, shape: Shape, mode: str) -> torch.Tensor:
    """Sample an array [x, y, z] at the voxels of another grid; `matrix` maps these to voxels of the array."""
    import torch  # heavy; a network is loaded anyway
    from torch.nn import functional as nnf

    normalised = _unit_transform(tuple(values.shape)) @ torch.from_numpy(matrix)
    normalised = normalised @ torch.from_numpy(np.linalg.inv(_unit_transform(shape).numpy()))
    reverse = [2, 1, 0]  # grid_sample has x last
    theta = normalised.clone()
    theta[:3] = theta[reverse]
    theta[:, :3] = theta[:, reverse]
    lines = [_unit_line(n) for n in shape]
    out = torch.empty(shape, dtype=torch.float32)
    planes = max(1, _SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], planes):
        part = lines[0][first : first + planes]
        base = torch.ones((len(part), shape[1], shape[2], 4), dtype=torch.float64)
        base[..., 0] = lines[2]
        base[..., 1] = lines[1][:, None]
        base[..., 2] = part[:, None, None]
        points = base.view(1, -1, 4).bmm(theta[None, :3].transpose(1, 2))
        points = points.view(1, len(part), shape[1], shape[2], 3)
        sampled = nnf.grid_sample(values[None, None], points, mode=mode, padding_mode="border", align_corners=False)
        out[first : first + planes] = sampled[0, 0]
    return out


def _unit_transform(shape: tuple[int, ...]) -> torch.Tensor:
    """Voxel -> coordinate from -1 to 1, where the ends are the outer faces of the first and the last voxel."""
    import torch  # heavy; a network is loaded anyway

    sizes = torch.tensor(shape, dtype=torch.float64)
    out = torch.diag(torch.cat((2.0 / sizes, torch.ones(1, dtype=torch.float64))))
    out[:-1, -1] = 1.0 / sizes - 1.0
    return out


def _unit_line(count: int) -> torch.Tensor:
    """Coordinates of the voxels of an axis."""
    import torch  # heavy; a network is loaded anyway

    if count <= 1:
        return torch.zeros(count, dtype=torch.float64)
    return torch.linspace(-1, 1, count, dtype=torch.float64) * (count - 1) / count

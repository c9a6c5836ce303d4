"""Sum the weighted tiles of a volume block by block: a block is handed out and freed once its last tile was added.

The starts and ends of the tiles cut each axis into intervals, and the volume into blocks. All voxels of a block are
covered by the same tiles, so a block is complete with the last of them. The scores of all classes exist only for blocks
that wait for a tile of the next layers, not for the volume.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Block", "Finish", "Region", "TileGrid", "TileSums"]

_PLANES = 32
"""Planes of a block at most: the scores of one tile are made for so many planes at a time."""
_FLOAT = 4
Region = tuple[slice, slice, slice]
Finish = Callable[[Region, "torch.Tensor"], None]


@dataclass(frozen=True)
class _Interval:
    """Indices of an axis that the same tiles cover."""

    start: int
    stop: int
    first: int
    """The first tile that covers it, counted along the axis."""
    last: int


def _intervals(size: int, patch: int, starts: Sequence[int], longest: int) -> list[_Interval]:
    edges = sorted({0, size, *starts, *(s + patch for s in starts)})
    cuts = [c for a, b in itertools.pairwise(edges) for c in range(a, b, longest)] + [size]
    out = []
    for a, b in itertools.pairwise(cuts):
        covering = [n for n, s in enumerate(starts) if s <= a and b <= s + patch]
        out.append(_Interval(a, b, covering[0], covering[-1]))
    return out


@dataclass(frozen=True)
class Block:
    """A part of the volume that the same tiles cover."""

    key: tuple[int, int, int]
    """Number of its interval along z, y and x."""
    region: Region
    """In the volume."""
    first: tuple[int, ...]
    """The first tile that covers it, as numbers along z, y and x."""
    last: tuple[int, ...]

    @property
    def voxels(self) -> int:
        """Number of its voxels."""
        return int(np.prod([s.stop - s.start for s in self.region]))


class TileGrid:
    """Tiles of a volume in their order (z slowest) and the blocks that each of them covers.

    Parameters
    ----------
    shape, patch : (z, y, x)
        Of the volume and of a tile.
    starts : sequence of int for z, y and x
        First index of each tile along the axis, in rising order.
    """

    def __init__(self, shape: Sequence[int], patch: Sequence[int], starts: Sequence[Sequence[int]]) -> None:
        self.patch = tuple(patch)
        self.starts = [list(row) for row in starts]
        longest = (_PLANES, shape[1], shape[2])
        self._axes = [_intervals(*axis) for axis in zip(shape, patch, self.starts, longest, strict=True)]

    @property
    def tiles(self) -> Iterator[tuple[int, ...]]:
        """Numbers of the tiles along z, y and x, in their order."""
        return itertools.product(*(range(len(row)) for row in self.starts))

    def slabs(self, tile: Sequence[int]) -> Iterator[list[Block]]:
        """Blocks that a tile covers, those of the same planes together."""
        covered = [
            [(n, i) for n, i in enumerate(intervals) if i.first <= number <= i.last]
            for intervals, number in zip(self._axes, tile, strict=True)
        ]
        for plane in covered[0]:
            yield [_block(plane, row, column) for row, column in itertools.product(covered[1], covered[2])]

    def within(self, region: Region, tile: Sequence[int]) -> Region:
        """A region of the volume as one of a tile."""
        z, y, x = (
            slice(s.start - row[n], s.stop - row[n]) for s, row, n in zip(region, self.starts, tile, strict=True)
        )
        return z, y, x

    def covering(self, block: Block) -> Iterator[tuple[int, ...]]:
        """Tiles that cover a block, in their order."""
        return itertools.product(*(range(a, b + 1) for a, b in zip(block.first, block.last, strict=True)))

    def most_voxels(self) -> int:
        """Voxels of the blocks that wait for a further tile, at the time when there are most of them."""
        now = most = 0
        for tile in self.tiles:
            for blocks in self.slabs(tile):
                now += sum(b.voxels for b in blocks if b.first == tile != b.last)
                most = max(most, now)
                now -= sum(b.voxels for b in blocks if b.first != tile == b.last)
        return most

    def most_bytes(self, classes: int) -> int:
        """Bytes of the sums that are kept at the same time for so many classes, float32."""
        return self.most_voxels() * classes * _FLOAT


def _block(*axes: tuple[int, _Interval]) -> Block:
    z, y, x = (slice(i.start, i.stop) for _, i in axes)
    key = (axes[0][0], axes[1][0], axes[2][0])
    return Block(key, (z, y, x), tuple(i.first for _, i in axes), tuple(i.last for _, i in axes))


class TileSums:
    """Weighted sums of tiles, divided by the sums of their weights.

    Parameters
    ----------
    grid : TileGrid
    weights : tensor, [*patch], float32
        Of a tile's voxels.
    finish : callable
        Receives each complete block once: its region in the volume, and its mean scores [class, z, y, x].
    """

    def __init__(self, grid: TileGrid, weights: torch.Tensor, finish: Finish) -> None:
        self.grid = grid
        self.weights = weights
        self.finish = finish
        self.kept: dict[tuple[int, int, int], torch.Tensor] = {}

    def add(self, tile: tuple[int, ...], scores: Callable[[slice], torch.Tensor]) -> None:
        """Add a tile; tiles are added in the order of `TileGrid.tiles`.

        Parameters
        ----------
        tile : tuple of int
            Its numbers along z, y and x.
        scores : callable
            Scores [class, planes, y, x] of a range of the tile's planes; they are overwritten.
        """
        for blocks in self.grid.slabs(tile):
            planes = self.grid.within(blocks[0].region, tile)[0]
            slab = scores(planes).mul_(self.weights[planes])
            for block in blocks:
                _, rows, columns = self.grid.within(block.region, tile)
                self._add_block(block, tile, slab[:, :, rows, columns])

    def _add_block(self, block: Block, tile: tuple[int, ...], part: torch.Tensor) -> None:
        import torch

        if block.first != tile:
            part = self.kept[block.key].add_(part)
        elif block.last != tile:
            self.kept[block.key] = torch.clone(part, memory_format=torch.contiguous_format)
        if block.last == tile:
            self.finish(block.region, part.div_(self._norm(block)))
            self.kept.pop(block.key, None)

    def _norm(self, block: Block) -> torch.Tensor:
        """Sum of the weights of the tiles that cover a block, in their order."""
        first, *others = (self.weights[self.grid.within(block.region, tile)] for tile in self.grid.covering(block))
        norm = first.clone()
        for weights in others:
            norm += weights
        return norm

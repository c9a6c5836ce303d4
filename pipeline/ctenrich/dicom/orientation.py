"""Transpose and flip frames so that their rows and columns run like those of the source images.

A segmentation that was made by way of NIfTI often has its rows or columns in another direction than its CT: the same
positions, another order of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.dicom.frames import Frame

__all__ = ["Reorientation", "find_reorientation"]


@dataclass(frozen=True)
class Reorientation:
    """Transposition and flips of a plane [row, column], in this order."""

    transpose: bool = False
    rows: bool = False
    columns: bool = False

    def plane(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The pixels in the source's order (a view)."""
        turned = pixels.T if self.transpose else pixels
        return turned[:: -1 if self.rows else 1, :: -1 if self.columns else 1]

    def frame(self, frame: Frame, size: tuple[int, int]) -> Frame:
        """The frame with its new description; its position is the centre of what is now the first pixel.

        Parameters
        ----------
        frame : Frame
            As the object describes it.
        size : (int, int)
            Its rows and columns, before the turn.
        """
        along, down = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
        between_rows, between_columns = frame.pixel_spacing
        first_row, first_column = (self.columns, self.rows) if self.transpose else (self.rows, self.columns)
        position = np.array(frame.position, float)
        position += down * (between_rows * (size[0] - 1) * first_row)
        position += along * (between_columns * (size[1] - 1) * first_column)
        if self.transpose:
            along, down, between_rows, between_columns = down, along, between_columns, between_rows
        along, down = along * (-1 if self.columns else 1), down * (-1 if self.rows else 1)
        return replace(
            frame,
            position=tuple(position.tolist()),
            orientation=(*along.tolist(), *down.tolist()),
            pixel_spacing=(between_rows, between_columns),
        )


def find_reorientation(
    orientation: Sequence[float], wanted: Sequence[float], *, tolerance: float = 1e-3
) -> Reorientation | None:
    """Find the transposition and flips that give a frame the wanted row and column directions.

    Parameters
    ----------
    orientation, wanted : 6 numbers
        Image Orientation (Patient): direction of growing column index, then of growing row index.
    tolerance : float
        Largest difference of a cosine.

    Returns
    -------
    Reorientation or None
        None where no transposition and flips lead from one to the other.
    """
    for transpose in (False, True):
        along, down = (orientation[3:], orientation[:3]) if transpose else (orientation[:3], orientation[3:])
        for rows in (False, True):
            for columns in (False, True):
                turned = (*(-v if columns else v for v in along), *(-v if rows else v for v in down))
                if np.allclose(turned, wanted, atol=tolerance):
                    return Reorientation(transpose, rows, columns)
    return None

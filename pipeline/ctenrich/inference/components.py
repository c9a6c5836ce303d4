"""Connected components of a label map, by faces."""

from __future__ import annotations

from importlib import import_module

import numpy as np
from numpy.typing import NDArray

__all__ = ["keep_largest_component"]


def keep_largest_component(labels: NDArray[np.unsignedinteger], value: int) -> int:
    """Remove all but the largest component of a class, in place; of two equal ones the first in the order of x stays.

    Parameters
    ----------
    labels : array, [z, y, x]
    value : int
        Label value of the class.

    Returns
    -------
    int
        Number of voxels that were removed.
    """
    mask = labels == value
    # scipy takes long to import, and few products need it
    components, count = import_module("scipy.ndimage").label(mask.transpose(2, 1, 0))
    if count < 2:
        return 0
    sizes = np.bincount(components.ravel())[1:]
    largest = int(np.argmax(sizes)) + 1
    labels[mask & (components.transpose(2, 1, 0) != largest)] = 0
    return int(sizes.sum() - sizes[largest - 1])

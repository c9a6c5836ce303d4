"""The arrays of feature vectors: loaded, and hashed."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ctenrich.records import ModelVectors
from ctenrich.workspace import Workspace

__all__ = ["floats_sha256", "load_vectors"]


def load_vectors(found: ModelVectors, uid: str, workspace: Workspace) -> NDArray[np.float32] | None:
    """Load the array of a model's vectors.

    Parameters
    ----------
    found : ModelVectors
        The record.
    uid : str
        Series Instance UID.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    array of float32, [vector, value], or None
        None if the file is missing, or its form is not that of the record.
    """
    path = workspace.resolve(uid, found.array_path)
    try:
        values: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    fits = values.dtype == np.float32 and values.shape == (len(found.vectors), found.length)
    return values if fits else None


def floats_sha256(values: NDArray[np.float32]) -> str:
    """SHA-256 of values in C order, float32, little endian."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()

"""Volumes in patient axes."""

from __future__ import annotations

import numpy as np

from ctenrich.geometry.patient_axes import patient_axes


def test_turns_of_volumes() -> None:
    """Whatever the axes of the source are: z to the head, y to the back, x to the left."""
    array = np.arange(24).reshape(2, 3, 4)
    identity = patient_axes(np.diag([1.0, 1, 1, 1]), array.shape)
    assert np.array_equal(identity.apply(array), array)
    feet_first = patient_axes(np.diag([1.0, -1, -1, 1]), array.shape)
    assert np.array_equal(feet_first.apply(array), array[::-1, ::-1])
    assert feet_first.flips == (True, True, False)
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 2, 0], [0, -3, 0, 0], [0, 0, 0, 1]])  # rows down, slices to the back
    turned = patient_axes(coronal, array.shape)
    assert np.array_equal(turned.apply(array), array[:, ::-1].transpose(1, 0, 2))

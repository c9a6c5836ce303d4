"""Dose of a series on the samples of its picture: levels in a script file, and the isodose lines that are offered."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.dose.grid import DoseGrid, DoseSampler, Lattice
from ctenrich.errors import CtenrichError
from ctenrich.evaluate.doses import dose_of_series
from ctenrich.records import DoseMeasurements, Volume
from ctenrich.report.reduction import Reduction, reduction_of
from ctenrich.report.working_picture import Pictures

__all__ = ["dose_levels", "dose_picture", "isodose_lines"]

Row = dict[str, Any]

_FORMAT = "1"
"""Changed when the contents of the file change for the same dose and volume."""
_LINES = (107.0, 95.0, 80.0, 50.0, 20.0)
"""Percent of the prescribed dose, or of the maximum where none is known."""


def dose_picture(uid: str, volume: Volume, doses: Mapping[str, DoseMeasurements], pictures: Pictures) -> Row | None:
    """Write the dose of a series for its picture, if it is not in the folder, and describe it.

    Parameters
    ----------
    uid : str
        Series Instance UID.
    volume : Volume
        The CT.
    doses : mapping
        Key of a product -> its doses.
    pictures : Pictures
        Keeps the files.

    Returns
    -------
    dict or None
        None without a dose, and where its files are not there any more or have changed since they were measured.
    """
    known = next((one for one in doses.values() if one.reason is None and one.maximum), None)
    if known is None:
        return None
    parts = ("dose", _FORMAT, known.doses, repr(known.maximum), volume.affine_lps, volume.shape)
    key = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:24]

    def scripted() -> bytes:
        grid = dose_of_series(pictures.workspace, uid).dose.grid
        text = base64.b64encode(zlib.compress(dose_levels(grid, volume, reduction_of(volume)).tobytes(), 2)).decode()
        return f"ctenrichPicture({json.dumps(key)},{json.dumps([text])});\n".encode()

    try:
        file = pictures.file(f"{key}.js", scripted)
    except (CtenrichError, OSError):
        return None
    return {"key": key, "file": file, "maximum": known.maximum, "lines": isodose_lines(known)}


def dose_levels(grid: DoseGrid, volume: Volume, reduction: Reduction) -> NDArray[np.uint8]:
    """Sample a dose at the samples of a reduced volume.

    Parameters
    ----------
    grid : DoseGrid
        In Gy.
    volume : Volume
        The CT.
    reduction : Reduction
        Its samples.

    Returns
    -------
    array of uint8
        0 outside the dose grid, else 1 for 0 Gy up to 255 for the maximum; [head to feet, front to back, right to
        left].
    """
    by_array = sorted(reduction.axes, key=lambda axis: axis.array_axis)
    slices, rows, columns = (np.sort(axis.indices) for axis in by_array)
    affine = np.asarray(volume.affine_lps)
    row, column = (affine[:3, n] / np.linalg.norm(affine[:3, n]) for n in (0, 1))
    normal = np.cross(row, column)
    sampler = DoseSampler(grid, row, column)
    out = np.zeros((slices.size, rows.size, columns.size), np.uint8)
    for n, k in enumerate(slices):
        corner = affine[:3, 3] + k * affine[:3, 2]
        lattice = Lattice(
            along_rows=corner @ row + columns * np.linalg.norm(affine[:3, 0]),
            along_columns=corner @ column + rows * np.linalg.norm(affine[:3, 1]),
        )
        dose = sampler.plane(float(corner @ normal), lattice)
        out[n] = np.where(np.isnan(dose), 0, np.rint(1 + 254 * np.nan_to_num(dose) / grid.maximum))
    return np.ascontiguousarray(reduction.turn(out))


def isodose_lines(doses: DoseMeasurements) -> list[float]:
    """Doses in Gy whose lines a page offers: shares of the prescribed dose, or of the maximum, the highest first."""
    whole = doses.prescription or doses.maximum or 0.0
    found = [round(share / 100 * whole, 2) for share in _LINES]
    return [dose for dose in found if 0 < dose < (doses.maximum or 0.0)]

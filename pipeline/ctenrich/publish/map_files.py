"""Values of a parametric map -> one NIfTI or NRRD file on its grid, with a JSON description of quantity and unit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ctenrich.dicom.parametric_map import DecodedMap
from ctenrich.publish.mask_files import SUFFIX, write_nifti, write_nrrd
from ctenrich.workspace import write_bytes

__all__ = ["write_map"]


def write_map(decoded: DecodedMap, fmt: str, folder: Path) -> tuple[Path, ...]:
    """Write the real world values of a map, and what they are.

    Parameters
    ----------
    decoded : DecodedMap
        The map.
    fmt : str
        ``nifti`` or ``nrrd``.
    folder : Path
        Created; gets ``map`` with the values (32-bit floating point where the object stores such and maps them by the
        identity, else 64-bit; NaN where it states no value) and ``map.json``.

    Returns
    -------
    tuple of Path
        The files.
    """
    write = write_nifti if fmt == "nifti" else write_nrrd
    path, about = folder / f"map{SUFFIX[fmt]}", folder / "map.json"
    write(path, iter(decoded.values), decoded.values.dtype, decoded.grid, ())
    described = {
        "map_instance_uid": decoded.sop_instance_uid,
        "source_series_uid": decoded.source_series_uid,
        "series_description": decoded.series_description,
        "quantity": asdict(decoded.quantity) if decoded.quantity else None,
        "unit": asdict(decoded.unit) if decoded.unit else None,
        "label": decoded.label,
        "stored_type": decoded.stored,
        "voxels_without_value": int(np.count_nonzero(np.isnan(decoded.values))),
        "shape_kji": list(decoded.grid.shape),
        "spacing_kji_mm": list(decoded.grid.spacing),
        "issues": [{"severity": i.severity.value, "rule": i.rule, "message": i.message} for i in decoded.issues],
    }
    write_bytes(about, json.dumps(described, indent=1).encode() + b"\n")
    return path, about

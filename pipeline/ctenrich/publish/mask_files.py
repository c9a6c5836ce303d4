"""Masks of a SEG -> NIfTI or NRRD files on its grid, with a JSON description of the segments."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.dicom.frames import Grid
from ctenrich.dicom.seg import DecodedSeg, DecodedSegment
from ctenrich.geometry import lps_to_ras
from ctenrich.workspace import atomic_path, write_bytes

__all__ = ["SUFFIX", "write_masks", "write_nifti", "write_nrrd"]

_NIFTI_START = 352
"""Offset of the voxels in a NIfTI-1 file of one part."""
_NRRD_TYPES = {"uint8": "uint8", "uint16": "uint16", "int16": "int16", "float32": "float", "float64": "double"}
SUFFIX = {"nifti": ".nii.gz", "nrrd": ".nrrd"}
"""Format -> ending of its files."""


def write_masks(seg: DecodedSeg, fmt: str, folder: Path) -> tuple[Path, ...]:
    """Write every segment, all of them as one label map where they do not overlap, and their description.

    Parameters
    ----------
    seg : DecodedSeg
        The masks.
    fmt : str
        ``nifti`` or ``nrrd``.
    folder : Path
        Created; gets ``<number>_<label>``, ``labels`` and ``segments.json``.

    Returns
    -------
    tuple of Path
        The files.
    """
    write = write_nifti if fmt == "nifti" else write_nrrd
    fractional = seg.segmentation_type == "FRACTIONAL"
    slices = range(seg.grid.shape[0])
    files = []
    for segment in seg.segments:
        path = folder / f"{segment.number:03d}_{_safe(segment.label)}{SUFFIX[fmt]}"
        draw = seg.fraction_plane if fractional else seg.mask_plane
        kind = np.dtype(np.float32 if fractional else np.uint8)
        write(path, (draw(segment.number, k) for k in slices), kind, seg.grid, ())
        files.append(path)
    disjoint = not fractional and not seg.overlapping
    if disjoint:
        kind = np.dtype(np.uint8 if max(seg.planes.numbers(), default=0) < 256 else np.uint16)
        path = folder / ("labels.nii.gz" if fmt == "nifti" else "labels.seg.nrrd")
        planes = (plane for k in slices if (plane := seg.label_plane(k)) is not None)
        write(path, planes, kind, seg.grid, seg.segments)
        files.append(path)
    path = folder / "segments.json"
    write_bytes(path, json.dumps(_description(seg, disjoint), indent=1).encode() + b"\n")
    return tuple(dict.fromkeys((*files, path)))


def _safe(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_+-]+", "_", label).strip("_")[:80] or "segment"


def _description(seg: DecodedSeg, disjoint: bool) -> dict[str, Any]:
    return {
        "seg_instance_uid": seg.sop_instance_uid,
        "source_series_uid": seg.source_series_uid,
        "segmentation_type": seg.segmentation_type,
        "on_source_grid": seg.on_source_grid,
        "shape_kji": list(seg.grid.shape),
        "spacing_kji_mm": list(seg.grid.spacing),
        "label_map": disjoint,
        "segments": [asdict(segment) for segment in seg.segments],
        "issues": [{"severity": i.severity.value, "rule": i.rule, "message": i.message} for i in seg.issues],
    }


_Planes = Iterable[NDArray[Any]]


def _pack(path: Path, start: bytes, packed: bytes, planes: _Planes, kind: np.dtype[Any]) -> None:
    """Write `start`, then `packed` and the slices compressed; one slice at a time is in memory."""
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        out.write(start)
        with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=1, mtime=0) as packer:
            packer.write(packed)
            for plane in planes:
                packer.write(np.ascontiguousarray(plane, kind).tobytes())


def write_nifti(
    path: Path, planes: _Planes, kind: np.dtype[Any], grid: Grid, segments: Sequence[DecodedSegment] = ()
) -> None:
    """Write NIfTI-1: axes (i, j, k), affine in RAS; the bytes of the slices in turn are its order of voxels.

    Parameters
    ----------
    path : Path
        The file, ``.nii.gz``.
    planes : iterable of array, [j, i]
        The slices in turn.
    kind : dtype
        uint8, uint16, int16, float32 or float64.
    grid : Grid
        Shape and affine (voxel indices to mm, LPS).
    segments : sequence of DecodedSegment
        Segments whose numbers are the label values; the header's description says that they are.
    """
    import nibabel

    affine = np.array(lps_to_ras(np.array(grid.affine_lps)))
    shape = grid.shape[::-1]
    image: Any = nibabel.Nifti1Image(np.broadcast_to(np.zeros((), kind), shape), affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"ctenrich segment numbers" if segments else b"ctenrich"
    image.update_header()
    image.header.set_data_offset(_NIFTI_START)
    image.header.set_slope_inter(1, 0)
    start = image.header.binaryblock
    _pack(path, b"", start + bytes(_NIFTI_START - len(start)), planes, kind)


def write_nrrd(
    path: Path, planes: _Planes, kind: np.dtype[Any], grid: Grid, segments: Sequence[DecodedSegment] = ()
) -> None:
    """Write NRRD with gzip encoding in LPS; a label map names its segments with the keys of 3D Slicer.

    Parameters
    ----------
    path : Path
        The file.
    planes : iterable of array, [j, i]
        The slices in turn.
    kind : dtype
        uint8, uint16, int16, float32 or float64.
    grid : Grid
        Shape and affine (voxel indices to mm, LPS).
    segments : sequence of DecodedSegment
        Segments whose numbers are the label values.
    """
    affine = np.array(grid.affine_lps)
    lines = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[kind.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, grid.shape[::-1]))}",
        f"space directions: {' '.join(_vector(affine[:3, axis]) for axis in range(3))}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(affine[:3, 3])}",
    ]
    for index, segment in enumerate(segments):
        keys = {"ID": f"Segment_{segment.number}", "Name": _safe(segment.label), "LabelValue": str(segment.number)}
        lines += [f"Segment{index}_{key}:={value}" for key, value in (keys | {"Layer": "0"}).items()]
    _pack(path, ("\n".join(lines) + "\n\n").encode("ascii"), b"", planes, kind.newbyteorder("<"))


def _vector(values: NDArray[Any]) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"

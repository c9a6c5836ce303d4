"""Masks of a SEG -> NIfTI or NRRD files on its grid, with a JSON description of the segments."""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.dicom.frames import Grid
from ctenrich.dicom.seg import DecodedSeg, DecodedSegment
from ctenrich.geometry import lps_to_ras
from ctenrich.workspace import write_bytes

__all__ = ["write_masks"]

_SUFFIX = {"nifti": ".nii.gz", "nrrd": ".nrrd"}


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
    write = _nifti if fmt == "nifti" else _nrrd
    fractional = seg.segmentation_type == "FRACTIONAL"
    files = []
    for segment in seg.segments:
        array: NDArray[Any] = seg.mask(segment.number).astype(np.uint8)
        if fractional:
            array = seg.fraction(segment.number)
        path = folder / f"{segment.number:03d}_{_safe(segment.label)}{_SUFFIX[fmt]}"
        write_bytes(path, write(array, seg.grid, ()))
        files.append(path)
    labels = None if fractional else seg.label_map()
    if labels is not None:
        small = labels.astype(np.uint8) if labels.max(initial=0) < 256 else labels
        path = folder / ("labels.nii.gz" if fmt == "nifti" else "labels.seg.nrrd")
        write_bytes(path, write(small, seg.grid, seg.segments))
        files.append(path)
    path = folder / "segments.json"
    write_bytes(path, json.dumps(_description(seg, labels is not None), indent=1).encode() + b"\n")
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


def _gzip(data: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packer:
        packer.write(data)
    return out.getvalue()


def _nifti(array: NDArray[Any], grid: Grid, segments: Sequence[DecodedSegment]) -> bytes:
    """NIfTI-1: axes (i, j, k), affine in RAS."""
    import nibabel

    affine = np.array(lps_to_ras(np.array(grid.affine_lps)))
    image: Any = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"ctenrich segment numbers" if segments else b"ctenrich mask"
    return _gzip(image.to_bytes())


def _nrrd(array: NDArray[Any], grid: Grid, segments: Sequence[DecodedSegment]) -> bytes:
    """NRRD with gzip encoding in LPS; a label map names its segments with the keys of 3D Slicer."""
    import SimpleITK  # slow to import

    affine = np.array(grid.affine_lps)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image: Any = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    for index, segment in enumerate(segments):
        keys = {"ID": f"Segment_{segment.number}", "Name": _safe(segment.label), "LabelValue": str(segment.number)}
        for key, value in (keys | {"Layer": "0"}).items():
            image.SetMetaData(f"Segment{index}_{key}", value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mask.nrrd")
        SimpleITK.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
        return path.read_bytes()

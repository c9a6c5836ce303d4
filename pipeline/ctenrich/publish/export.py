"""Written objects -> files of other tools: masks as NIfTI or NRRD on the full grid of the CT, measurements as CSV.

What is exported comes from the DICOM objects, never from the arrays they were made of. Objects of other makers are
read in the same way, beside a folder with their CT where there is one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.dicom.frames import Grid
from ctenrich.dicom.objects import header, quiet
from ctenrich.dicom.seg import DecodedSeg, DecodedSegment, read_seg
from ctenrich.dicom.series import series_of_folder
from ctenrich.dicom.sop_classes import SEGMENTATION_CLASSES, is_structured_report
from ctenrich.dicom.sr import read_sr, rows_of
from ctenrich.errors import InputError, UsageError
from ctenrich.geometry import lps_to_ras
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["FORMATS", "export_objects", "export_run"]

FORMATS = ("nifti", "nrrd", "csv")
_SUFFIX = {"nifti": ".nii.gz", "nrrd": ".nrrd"}
_COLUMNS = (
    *(
        "series_instance_uid",
        "product",
        "series_description",
        "sr_instance_uid",
        "group",
        "tracking_id",
        "tracking_uid",
    ),
    *("finding", "finding_site", "finding_site_code", "laterality", "topographical_modifier"),
    *("segment_instance_uid", "segment_number", "source_series_uid", "source_image_uid"),
    *("quantity", "quantity_code", "quantity_scheme", "value", "unit", "derivation", "qualifier"),
    *("evaluation", "evaluation_code", "algorithm"),
)


@dataclass(frozen=True)
class _Object:
    """A SEG or SR file and where it belongs."""

    path: Path
    sop_class: str
    series: str
    product: str
    source: SortedSeries | None


def export_run(workspace: Workspace, fmt: str, out: Path, *, progress: Progress = SILENT) -> tuple[Path, ...]:
    """Export all SEGs (``nifti``, ``nrrd``) or all SRs (``csv``) of a run.

    Each segment is written as ``OUT/<series>/<product>/<number>_<label>``, and all of them as one label map where they
    do not overlap, on the full grid of the source CT; ``segments.json`` beside them describes the segments.

    Parameters
    ----------
    workspace : Workspace
        The run.
    fmt : str
        ``nifti``, ``nrrd`` or ``csv``.
    out : Path
        Folder to write to.
    progress : Progress
        Advanced by one for every SEG; gets issues as notes.

    Returns
    -------
    tuple of Path
        The files that were written.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format.
    InputError
        NOT_PREPARED if the run holds no such object.
    """
    _check_format(fmt)
    files = _export(list(_objects_of_run(workspace)), fmt, out, progress)
    if not files:
        what = "SR" if fmt == "csv" else "SEG"
        raise InputError(Reason.NOT_PREPARED, f"the run holds no {what} yet", "run the stages first")
    return files


def export_objects(
    paths: Sequence[Path], fmt: str, out: Path, *, source: Path | None = None, progress: Progress = SILENT
) -> tuple[tuple[Path, ...], tuple[Issue, ...]]:
    """Export SEG and SR files of any maker.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are searched.
    fmt : str
        ``nifti``, ``nrrd`` or ``csv``.
    out : Path
        Folder to write to.
    source : Path, optional
        Folder with the CT series that SEGs refer to; without it masks have the smallest grid that holds their frames.
    progress : Progress
        Advanced by one for every SEG; gets issues as notes.

    Returns
    -------
    (files, issues)
        The files that were written, and issues, e.g. how many referenced instances are missing.

    Raises
    ------
    UsageError
        BAD_PARAMETER for an unknown format.
    InputError
        NOT_FOUND if there is no such object.
    """
    _check_format(fmt)
    objects = []
    for path in sorted(p for top in paths for p in _files(top)):
        try:
            with quiet():
                head = header(path, ["SOPClassUID", "SeriesInstanceUID", "ReferencedSeriesSequence"])
        except InputError:
            continue
        kind = str(head.get("SOPClassUID", ""))
        wanted = kind in SEGMENTATION_CLASSES if fmt != "csv" else is_structured_report(kind)
        if wanted:
            referenced = head.get("ReferencedSeriesSequence")
            uid = str(referenced[0].get("SeriesInstanceUID", "")) if referenced else ""
            series = series_of_folder(source, uid) if source is not None and fmt != "csv" else None
            objects.append(_Object(path, kind, "", path.stem, series))
    if not objects:
        raise InputError(Reason.NOT_FOUND, f"no {'SR' if fmt == 'csv' else 'SEG'} was found")
    issues: list[Issue] = []
    return _export(objects, fmt, out, progress, issues), tuple(issues)


def _check_format(fmt: str) -> None:
    if fmt not in FORMATS:
        raise UsageError(Reason.BAD_PARAMETER, f"unknown format {fmt!r}", f"known: {', '.join(FORMATS)}")


def _files(top: Path) -> Iterator[Path]:
    yield from (p for p in top.rglob("*") if p.is_file()) if top.is_dir() else (top,)


def _objects_of_run(workspace: Workspace) -> Iterator[_Object]:
    store = SeriesStore(workspace)
    for uid in store.series():
        for path in sorted(store.folder(uid).glob("*/objects/*.dcm")):
            with quiet():
                kind = str(header(path, ["SOPClassUID"]).get("SOPClassUID", ""))
            yield _Object(path, kind, uid, path.parents[1].name, store.find(SortedSeries, uid))


def _export(
    objects: Sequence[_Object], fmt: str, out: Path, progress: Progress, issues: list[Issue] | None = None
) -> tuple[Path, ...]:
    if fmt == "csv":
        rows = [_row(item, row) for item in objects if ".88." in item.sop_class for row in rows_of(read_sr(item.path))]
        return (_write_csv(out / "measurements.csv", rows),) if rows else ()
    segs = [item for item in objects if item.sop_class in SEGMENTATION_CLASSES]
    progress.start("export", len(segs))
    files: list[Path] = []
    for item in segs:
        decoded = read_seg(item.path, item.source)
        files += _write_masks(decoded, fmt, out / item.series / item.product)
        if issues is not None:
            issues += decoded.issues
        for issue in decoded.issues:
            progress.note(f"{issue.severity.value}: {issue.message}")
        progress.advance("export")
    progress.finish("export")
    return tuple(files)


# ---------------------------------------------------------------- tables


def _row(item: _Object, row: dict[str, object]) -> dict[str, object]:
    return {"series_instance_uid": item.series, "product": item.product, **row}


def _write_csv(path: Path, rows: Iterable[dict[str, object]]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: ("" if v is None else v) for k, v in row.items()} for row in rows)
    write_bytes(path, text.getvalue().encode("utf-8"))
    return path


# ---------------------------------------------------------------- masks


def _write_masks(seg: DecodedSeg, fmt: str, folder: Path) -> list[Path]:
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
    return [*files, path]


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

"""Images beside exported masks, on the same grid, and the table of both that pyradiomics' batch mode reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ctenrich.dicom.seg import grid_of_series
from ctenrich.errors import InputError, UsageError
from ctenrich.publish.export import Export
from ctenrich.publish.mask_files import SUFFIX, write_nifti, write_nrrd
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries, State, Volume
from ctenrich.results.csv_cells import csv_cell
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, load_array, write_bytes

__all__ = ["BATCH", "export_images", "write_image"]

BATCH = "pyradiomics.csv"
_COLUMNS = ("Image", "Mask", "Label", "SeriesInstanceUID", "Product", "SegmentNumber", "Segment")


def write_image(workspace: Workspace, uid: str, path: Path) -> Path:
    """Write the CT of a series of a run, in Hounsfield units, on the grid that exported masks have.

    Parameters
    ----------
    workspace : Workspace
        The run.
    uid : str
        Series Instance UID.
    path : Path
        The file; ``.nii.gz`` or ``.nrrd``.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        NOT_PREPARED if the run has no volume of the series, or not any more.
    """
    store = SeriesStore(workspace)
    volume, series = store.find(Volume, uid), store.find(SortedSeries, uid)
    if volume is None or series is None or not workspace.resolve(uid, volume.array_path).is_file():
        message = f"the run has no volume of the series {uid}"
        raise InputError(Reason.NOT_PREPARED, message, "run the stages first")
    array, grid = load_array(workspace.resolve(uid, volume.array_path)), grid_of_series(series)
    if array.shape != grid.shape:
        raise InputError(Reason.NOT_PREPARED, f"the volume of the series {uid} is not of its slices", "convert again")
    write = write_nrrd if path.suffix == ".nrrd" else write_nifti
    write(path, (array[k] for k in range(len(array))), np.dtype(np.int16), grid)
    return path


def export_images(workspace: Workspace, found: Export, fmt: str, out: Path) -> tuple[Path, ...]:
    """Write the CT of each series of an export, and ``pyradiomics.csv`` with a row per segment that has voxels.

    Parameters
    ----------
    workspace : Workspace
        The run.
    found : Export
        What `export_run` exported of it as `fmt` to `out`.
    fmt : str
        ``nifti`` or ``nrrd``.
    out : Path
        Folder of the export: gets ``<series>/image`` and the table, whose paths are relative to it.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another format.
    InputError
        NOT_PREPARED if the run has no volume of a series.
    """
    if fmt not in SUFFIX:
        raise UsageError(Reason.BAD_PARAMETER, "images are written beside masks in nifti or nrrd")
    rows = [row for item in found.objects if item.state is State.DONE for row in _rows_of(item.files, out)]
    series = list(dict.fromkeys(str(row["SeriesInstanceUID"]) for row in rows))
    images = [write_image(workspace, uid, out / uid / f"image{SUFFIX[fmt]}") for uid in series]
    for row in rows:
        row["Image"] = f"{row['SeriesInstanceUID']}/image{SUFFIX[fmt]}"
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    write_bytes(out / BATCH, text.getvalue().encode("utf-8"))
    return (*images, out / BATCH)


def _rows_of(files: tuple[Path, ...], out: Path) -> Iterator[dict[str, object]]:
    """Rows of one object, without the image; none for fractions, and for masks that are not on the grid of the CT."""
    folder = files[-1].parent
    described = json.loads((folder / "segments.json").read_text("utf-8"))
    if described["segmentation_type"] == "FRACTIONAL" or not described["on_source_grid"]:
        return
    place = folder.relative_to(out)
    for segment in described["segments"]:
        start = f"{segment['number']:03d}_"
        mask = next(path for path in files if path.name.startswith(start))
        if segment["voxels"]:
            yield {
                "Mask": (place / mask.name).as_posix(),
                "Label": 1,
                "SeriesInstanceUID": place.parts[0],
                "Product": place.parts[1],
                "SegmentNumber": segment["number"],
                "Segment": segment["label"],
            }

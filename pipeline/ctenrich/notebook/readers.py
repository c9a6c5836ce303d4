"""The objects of a run read by other programs, highdicom and dcmqi, as tables for notebooks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctenrich.dicom.sr import read_sr
from ctenrich.errors import ToolError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObjects
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.tools import find_tool, need_package, run_tool

__all__ = ["compare_readers", "read_reports"]


def compare_readers(run: Run, series: str, product: str, exported: Sequence[Path]) -> Any:
    """Count the voxels of each segment of a SEG as three programs read it.

    Parameters
    ----------
    run : Run
        The run.
    series : str
        Series Instance UID.
    product : str
        Key of a product with masks.
    exported : sequence of Path
        Files that ``steps.export(run, "nifti", ...)`` wrote.

    Returns
    -------
    pandas.DataFrame
        One row per segment; without dcmqi its column is missing.

    Raises
    ------
    UsageError
        NOT_FOUND if the product has no SEG.
    """
    need_package("pandas", extra="colab", purpose="a table in a notebook")
    import highdicom as hd
    import pandas as pd

    path = _object_file(run, series, product, "seg")
    seg = hd.seg.segread(path)
    numbers = [int(n) for n in seg.segment_numbers]
    frames = seg.get_volume(segment_numbers=numbers, combine_segments=False)
    mine = [f for f in exported if f.parent.name == path.parents[1].name and series in f.parts]
    columns = {
        "segment": {n: str(seg.get_segment_description(n).segment_label) for n in numbers},
        "ctenrich, voxels": {int(f.name[:3]): _voxels(f) for f in mine if f.name[:3].isdigit()},
        "highdicom, voxels": {n: int(frames.array[..., i].sum()) for i, n in enumerate(numbers)},
    }
    counts = _read_by_dcmqi(path)
    if counts is not None:
        columns["dcmqi, voxels"] = counts
    return pd.DataFrame({name: pd.Series(values).reindex(numbers) for name, values in columns.items()})


def _object_file(run: Run, series: str, product: str, kind: str) -> Path:
    store = SeriesStore(run.workspace)
    chosen = {str(p): p for p in store.products(series)}.get(product)
    record = store.find(EncodedObjects, series, chosen) if chosen is not None else None
    for one in record.objects if record is not None else ():
        if one.kind == kind:
            return run.workspace.resolve(series, one.path)
    raise UsageError(Reason.NOT_FOUND, f"the series has no {kind} of the product {product!r}")


def _voxels(path: Path) -> int:
    import nibabel as nib

    image: Any = nib.load(path)
    return int((np.asarray(image.dataobj) > 0).sum())


def _read_by_dcmqi(path: Path) -> dict[int, int] | None:
    """Segment number -> voxels; None without dcmqi."""
    try:
        tool = find_tool("segimage2itkimage")
    except ToolError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        run_tool([tool, "--inputDICOM", path, "--outputDirectory", folder, "-t", "nii"])
        # the name of a file is the number of its segment
        return {int(f.name.split(".")[0]): _voxels(f) for f in Path(folder).glob("*.nii*")}


def read_reports(run: Run, series: str) -> Any:
    """Read every SR of a series by ctenrich, by highdicom and, if it is installed, by dcmqi.

    Parameters
    ----------
    run : Run
        The run.
    series : str
        Series Instance UID.

    Returns
    -------
    pandas.DataFrame
        One row per SR, with the number of measurements or groups that each program found.
    """
    need_package("pandas", extra="colab", purpose="a table in a notebook")
    import highdicom as hd
    import pandas as pd

    rows = []
    for path in sorted((run.workspace.series_dir(series)).glob("*/objects/*_sr.dcm")):
        numbers = hd.sr.utils.find_content_items(
            hd.sr.srread(path), value_type=hd.sr.ValueTypeValues.NUM, recursive=True
        )
        row: dict[str, Any] = {"product": path.parents[1].name, "file": path.name}
        row |= {"ctenrich": type(read_sr(path)).__name__, "highdicom, numbers": len(numbers)}
        groups = _groups_by_dcmqi(path)
        rows.append(row | ({} if groups is None else {"dcmqi, groups": groups}))
    return pd.DataFrame(rows)


def _groups_by_dcmqi(path: Path) -> int | None:
    try:
        tool = find_tool("tid1500reader")
    except ToolError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.json"
        run_tool([tool, "--inputDICOM", path, "--outputMetadata", target])
        return len(json.loads(target.read_text("utf-8"))["Measurements"])

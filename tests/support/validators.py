"""The four objects of a small series, and edits of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from ctenrich.encode.landmarks_sr import encode_landmarks_sr
from ctenrich.encode.regions_sr import encode_regions_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.records import Issue, Severity, SortedSeries
from ctenrich.settings import Settings
from ctenrich.shape.measure import measure_shape
from ctenrich.workspace import Workspace
from tests.support import encode_cases as cases


def write_four(
    folder: Path,
    workspace: Workspace,
    grid: cases.Grid | None = None,
    expert: bool = False,
    settings: Settings | None = None,
) -> tuple[SortedSeries, dict[str, Path]]:
    """SEG, shape SR, landmarks SR and regions SR of a small series: {kind: path}."""
    series, volume = cases.make_series(folder / "ct", grid)
    options = {"settings": settings or Settings(), "workspace": workspace}
    masks = cases.make_expert_masks(series, workspace) if expert else cases.make_masks(series, workspace)
    shape = measure_shape(masks, volume, **options)
    seg = encode_seg(masks, volume, series, **options)
    scores = cases.make_scores(series)
    objects = [
        seg,
        encode_shape_sr(shape, masks, seg, series, **options),
        encode_landmarks_sr(cases.make_landmarks(series), scores, series, **options),
        encode_regions_sr(cases.make_regions(series), scores, series, **options),
    ]
    return series, {str(o.kind): workspace.resolve(series.series_instance_uid, o.path) for o in objects}


def edited(path: Path, target: Path, edit: Callable[[Dataset], None]) -> Path:
    """A copy with one fault."""
    ds = pydicom.dcmread(path)
    edit(ds)
    ds.save_as(target)
    return target


def errors(issues: tuple[Issue, ...]) -> list[Issue]:
    return [i for i in issues if i.severity is Severity.ERROR]

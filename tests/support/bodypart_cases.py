"""Volumes and series made by hand for the tests of body part regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.records import Matrix4, ModelInfo, Product, ProductKind, Slice, SliceScores, SortedSeries, Volume
from ctenrich.workspace import Workspace, save_array, sha256_of_array

STUDY, SERIES, FRAME = "2.25.1", "2.25.2", "2.25.3"
CT = "1.2.840.10008.5.1.4.1.1.2"


def affine(
    *, row: tuple[float, float, float], column: tuple[float, float, float], spacing: tuple[float, float, float]
) -> Matrix4:
    """Affine of a volume at the origin; spacing is (slices, rows, columns)."""
    normal = np.cross(row, column)
    matrix = np.eye(4)
    matrix[:3, 0] = np.array(row) * spacing[2]
    matrix[:3, 1] = np.array(column) * spacing[1]
    matrix[:3, 2] = normal * spacing[0]
    return tuple(tuple(float(v) for v in line) for line in matrix)  # type: ignore[return-value]


def make_series(
    count: int,
    spacing: float,
    *,
    row: tuple[float, float, float] = (1, 0, 0),
    column: tuple[float, float, float] = (0, 1, 0),
    pixel: tuple[float, float] = (1.0, 1.0),
    matrix: tuple[int, int] = (64, 64),
    uids: tuple[str, ...] = (),
) -> SortedSeries:
    """A sorted series whose slice k has the UID 2.25.100k unless others are given."""
    normal = np.cross(row, column)
    names = uids or tuple(f"2.25.{1000 + k}" for k in range(count))
    slices = tuple(
        Slice(uid, CT, f"{k}.dcm", tuple(float(v) for v in normal * spacing * k), k * spacing)
        for k, uid in enumerate(names)
    )
    return SortedSeries(STUDY, SERIES, FRAME, slices, row, column, pixel, spacing, *matrix)


def make_volume(workspace: Workspace, array: NDArray[np.int16], matrix: Matrix4) -> Volume:
    """A volume in the workspace."""
    path = workspace.series_dir(SERIES) / "volume" / "ct.npy"
    save_array(path, array)
    axes = np.linalg.norm(np.array(matrix)[:3, :3], axis=0)
    return Volume(
        SERIES,
        workspace.relative(SERIES, path),
        array.shape,  # type: ignore[arg-type]
        matrix,
        (float(axes[2]), float(axes[1]), float(axes[0])),
        FRAME,
        sha256_of_array(array),
    )


def read_ct(folder: Path, workspace: Workspace, every: int = 1) -> tuple[Volume, SortedSeries]:
    """The CT series below a folder (every n-th slice of it), read plainly with pydicom; standard axial series only."""
    import pydicom

    images = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            ds = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            continue
        if ds.SOPClassUID == CT and "PixelData" in ds:
            images.append((float(ds.ImagePositionPatient[2]), path, ds))
    images.sort(key=lambda item: item[0])
    images = images[::every]
    first = images[0][2]
    row, column = (tuple(float(v) for v in first.ImageOrientationPatient[a : a + 3]) for a in (0, 3))
    array = np.stack(
        [ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for _, _, ds in images]
    ).astype(np.int16)
    spacing = (images[-1][0] - images[0][0]) / (len(images) - 1)
    pixel = (float(first.PixelSpacing[0]), float(first.PixelSpacing[1]))
    matrix = np.array(affine(row=row, column=column, spacing=(spacing, *pixel)))  # type: ignore[arg-type]
    matrix[:3, 3] = [float(v) for v in first.ImagePositionPatient]
    slices = tuple(
        Slice(str(ds.SOPInstanceUID), CT, str(path), tuple(float(v) for v in ds.ImagePositionPatient), z - images[0][0])
        for z, path, ds in images
    )
    series = SortedSeries(
        str(first.StudyInstanceUID), SERIES, str(first.FrameOfReferenceUID), slices, row, column, pixel, spacing,
        int(first.Rows), int(first.Columns),
    )  # fmt: skip
    return make_volume(workspace, array, tuple(tuple(float(v) for v in r) for r in matrix)), series  # type: ignore[arg-type]


LOOKUP = {
    "pelvis_start": (0.0, 1.983),
    "L5": (25.532, 1.854),
    "pelvis_end": (28.824, 1.881),
    "L1": (41.478, 2.276),
    "lung_start": (44.143, 4.385),
    "Th12": (44.952, 2.287),
    "Th9": (53.994, 2.613),
    "Th8": (56.856, 2.36),
    "Th3": (70.973, 2.038),
    "Th2": (73.401, 1.694),
    "lung_end": (75.389, 1.478),
    "Th1": (75.794, 1.811),
    "C5": (81.826, 1.527),
    "C2": (87.206, 1.327),
    "eyes_end": (100.0, 3.789),
}
"""Part of the published look-up table."""


def make_scores(
    line: list[float | None],
    spacing: float,
    *,
    feet_to_head: bool = True,
    reverse: bool = False,
    valid_z_spacing: bool | None = True,
    uids: tuple[str, ...] = (),
) -> SliceScores:
    """Scores whose cleaned line, by slice index, is given."""
    known = [v for v in line if v is not None]
    return SliceScores(
        product=Product(ProductKind.BODYPART, "hand"),
        series_instance_uid=SERIES,
        sop_instance_uids=uids or tuple(f"2.25.{1000 + k}" for k in range(len(line))),
        z=tuple(spacing * k for k in range(len(line))),
        raw=tuple(None if v is None else v / 25 - 2.4 for v in line),
        cleaned=tuple(line),
        observed_slope=0.118 if len(known) > 1 else None,
        expected_slope=0.118,
        slope_ratio=1.0,
        valid_z_spacing=valid_z_spacing,
        reverse_z_ordering=reverse,
        expected_z_spacing=spacing,
        z_spacing=spacing,
        feet_to_head=feet_to_head,
        lookup_table=LOOKUP,
        model=ModelInfo("hand", "1", "0" * 64),
        settings={"transform_min": -2.4, "transform_max": 1.6},
    )


def body(slices: int = 8, rows: int = 64, columns: int = 72) -> NDArray[np.int16]:
    """HU of a box with soft tissue and a darker part in air, [k, j, i]."""
    rng = np.random.default_rng(2)
    array = np.full((slices, rows, columns), -1000, np.int16)
    array[:, 10:50, 12:60] = rng.integers(-200, 300, (slices, 40, 48))
    array[:, 20:30, 15:25] = -850
    return array

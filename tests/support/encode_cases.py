"""Small series, masks, scores and measurements that the tests of encoding, decoding and export share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ctenrich.codes.mappings import load_features
from ctenrich.masks import masks_from_label_map, masks_from_segments
from ctenrich.records import (
    Landmark,
    Landmarks,
    ModelInfo,
    Product,
    ProductKind,
    Regions,
    SegmentMasks,
    SegmentShape,
    ShapeMeasurements,
    Slice,
    SliceRegions,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

MODEL = ModelInfo(
    "small-organs",
    "1.2",
    "ab" * 32,
    "3d_fullres",
    ("0",),
    True,
    licence="Apache-2.0",
    citation="Nobody et al., Example 2026",
)
NNUNET = Product(ProductKind.NNUNET, "small-organs", "3d_fullres", ("0",), True)
EXPERT = Product(ProductKind.EXPERT)
BODYPART = Product(ProductKind.BODYPART, "small-bodypart")


@dataclass(frozen=True)
class Grid:
    """Geometry of a made-up series."""

    slices: int = 14
    rows: int = 40
    columns: int = 48
    row: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column: tuple[float, float, float] = (0.0, 1.0, 0.0)
    spacing: tuple[float, float] = (0.8, 0.7)
    step: float = 2.5
    origin: tuple[float, float, float] = (-120.25, -99.5, -310.75)
    jitter: float = 0.0
    """mm along the normal that every third slice is off its place."""


def make_series(folder: Path, grid: Grid | None = None, **attributes: object) -> tuple[SortedSeries, Volume]:
    """Write CT files and describe them; `attributes` replace values of the header (None removes one)."""
    grid = grid or Grid()
    row, column = np.array(grid.row), np.array(grid.column)
    normal = np.cross(row, column)
    study, series, frame = (derive_uid("test", str(grid), name) for name in ("study", "series", "frame"))
    slices = []
    for k in range(grid.slices):
        position = tuple(
            float(round(v, 6)) for v in np.array(grid.origin) + (k * grid.step + grid.jitter * (k % 3 == 1)) * normal
        )
        header = _header(grid, k, position, study, series, frame)
        for keyword, value in attributes.items():
            if value is None:
                delattr(header, keyword)
            else:
                setattr(header, keyword, value)
        path = folder / f"{k:03d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dcmwrite(path, header, enforce_file_format=True)
        distance = float(np.dot(normal, position))
        slices.append(Slice(header.SOPInstanceUID, str(CTImageStorage), str(path), position, distance, k + 1))
    described = SortedSeries(
        study,
        series,
        frame,
        tuple(slices),
        grid.row,
        grid.column,
        grid.spacing,
        grid.step,
        grid.rows,
        grid.columns,
        source_sha256="cd" * 32,
    )
    return described, volume_of(described)


def volume_of(series: SortedSeries) -> Volume:
    row, column = np.array(series.row_cosines), np.array(series.column_cosines)
    affine = np.eye(4)
    affine[:3, 0] = row * series.pixel_spacing[1]
    affine[:3, 1] = column * series.pixel_spacing[0]
    affine[:3, 2] = np.cross(row, column) * series.slice_spacing
    affine[:3, 3] = series.slices[0].position
    return Volume(
        series.series_instance_uid,
        "volume/ct.npy",
        series.shape,
        tuple(tuple(float(v) for v in line) for line in affine),  # type: ignore[arg-type]
        (series.slice_spacing, *series.pixel_spacing),
        series.frame_of_reference_uid,
        "ef" * 32,
    )


def _header(grid: Grid, k: int, position: tuple[float, ...], study: str, series: str, frame: str) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = derive_uid("test", series, str(k))
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, frame
    header.Modality = "CT"
    header.PatientName, header.PatientID = "Test^Case", "case-1"
    header.PatientBirthDate, header.PatientSex, header.PatientAge = "19500102", "F", "071Y"
    header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20200304", "101112", "7", "8"
    header.ReferringPhysicianName = ""
    header.InstanceNumber = k + 1
    header.Rows, header.Columns = grid.rows, grid.columns
    header.PixelSpacing = list(grid.spacing)
    header.SliceThickness = grid.step
    header.ImageOrientationPatient = [*grid.row, *grid.column]
    header.ImagePositionPatient = [f"{v:.6f}".rstrip("0").rstrip(".") for v in position]
    return header


def label_map(shape: tuple[int, int, int]) -> np.ndarray:
    """Four organs, the third absent; the fourth touches the border of the volume and has two parts."""
    labels = np.zeros(shape, np.uint8)
    n, r, c = shape
    labels[2 : n - 2, r // 4 : r // 2, c // 4 : c // 2] = 2
    labels[n // 2, r // 4 + 2, c // 4 + 3] = 1
    labels[1 : n - 1, r // 2 : r // 2 + 5, c // 3 : c // 3 + 4] = 1
    labels[0:3, r - 6 : r, c - 5 : c] = 4
    labels[n - 1, 0:3, 0:4] = 4
    return labels


ORGANS = [(1, "esophagus", "esophagus"), (2, "heart", "heart"), (3, "trachea", "trachea"), (4, "aorta", "aorta")]


def make_masks(series: SortedSeries, workspace: Workspace, labels: np.ndarray | None = None) -> SegmentMasks:
    """Masks of a network: a label map."""
    template = SegmentMasks(NNUNET, series.series_instance_uid, series.shape, (), None, "", MODEL)
    path = workspace.product_dir(series.series_instance_uid, NNUNET) / "masks" / "labels.npy"
    return masks_from_label_map(
        label_map(series.shape) if labels is None else labels, ORGANS, template, path, workspace
    )


def make_expert_masks(series: SortedSeries, workspace: Workspace) -> SegmentMasks:
    """Masks of an expert: heart and left lung overlap, a tumour lies in the lung, the cord is absent."""
    template = SegmentMasks(EXPERT, series.series_instance_uid, series.shape, (), None, "", algorithm_type="MANUAL")
    heart, lung, tumour, cord = (np.zeros(series.shape, bool) for _ in range(4))
    heart[2:9, 5:20, 6:22] = True
    lung[1:12, 8:30, 15:44] = True
    tumour[4:7, 20:26, 30:36] = True
    parts = [
        (1, "heart", "Heart", heart),
        (2, "lung_left", "Lung-Left", lung),
        (3, "gtv_1", "GTV-1", tumour),
        (4, "spinal_cord", "Spinal-Cord", cord),
    ]
    folder = workspace.product_dir(series.series_instance_uid, EXPERT) / "masks"
    return masks_from_segments(parts, template, folder, workspace)


def make_shape(masks: SegmentMasks) -> ShapeMeasurements:
    """Invented but finite values, full of digits; one feature of the first segment is omitted."""
    features = [name for name, code in load_features().items() if code.feature_class == "shape"]
    segments = []
    for s in masks.segments:
        values = {} if s.absent else {f: (s.number + 1 / 3) * 10.0 ** (i % 7 - 2) for i, f in enumerate(features)}
        omitted = {}
        if s.number == 1:
            omitted = {"Flatness": "flat"}
            values.pop("Flatness", None)
        segments.append(SegmentShape(s.number, s.name, values, omitted))
    return ShapeMeasurements(
        masks.product, masks.series_instance_uid, tuple(segments), "fast", "ctenrich shape", "0.1.0", sha256="12" * 32
    )


def make_scores(series: SortedSeries) -> SliceScores:
    n = len(series.slices)
    values = tuple(20.0 + 4 * i for i in range(n))
    cleaned = tuple(None if i < 2 else v for i, v in enumerate(values))
    return SliceScores(
        BODYPART,
        series.series_instance_uid,
        series.sop_instance_uids,
        tuple(series.slice_spacing * i for i in range(n)),
        values,
        cleaned,
        0.12,
        0.118,
        1.0,
        True,
        False,
        series.slice_spacing,
        series.slice_spacing,
        True,
        {},
        replace(MODEL, name="small-bodypart"),
        sha256="34" * 32,
    )


def make_landmarks(series: SortedSeries) -> Landmarks:
    uids = series.sop_instance_uids
    items = (
        Landmark("kidney", 37.597, 4, uids[4], 10.2, -0.2, 0.7),
        Landmark("L1", 41.478, 5, uids[5], 12.6, 0.1, 0.9),
        Landmark("lung_start", 44.143, 6, uids[6], 15.0, 0.0, 0.5),
        Landmark("Th12", 44.952, 6, uids[6], 15.1, 0.1, 0.8),
        Landmark("head_end", 107.756, absent_reason="above the last slice"),
    )
    return Landmarks(BODYPART, series.series_instance_uid, items)


def make_regions(series: SortedSeries) -> Regions:
    scores = make_scores(series)
    slices = []
    for i, uid in enumerate(series.sop_instance_uids):
        score = scores.cleaned[i]
        names: tuple[str, ...] = ()
        if score is not None:
            bounds = {"abdomen": (25.532, 56.856), "chest": (44.952, 75.794)}
            names = tuple(name for name, (low, high) in bounds.items() if low <= score < high)
        slices.append(SliceRegions(i, uid, score, names))
    return Regions(BODYPART, series.series_instance_uid, tuple(slices), "CHEST-ABDOMEN")

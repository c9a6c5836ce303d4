"""Bad input of the objects: each kind ends in a right object (proven, clean by dciodvfy) or in a clear error."""

from __future__ import annotations

import contextlib
import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctenrich.codes import mappings as codes
from ctenrich.codes.mappings import load_segments
from ctenrich.encode.memory import LARGEST_PIXEL_DATA, check_frames, check_label_map, frames_at_most
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import CtenrichError, EncodingError, InputError, UsageError
from ctenrich.masks import Mask, masks_from_label_map, masks_from_segments
from ctenrich.reasons import Reason
from ctenrich.records import Box, EncodedObject, Segment, SegmentMasks, ShapeMeasurements, SortedSeries, Volume
from ctenrich.resources import folder
from ctenrich.settings import EncodeSettings, RunSettings, Settings
from ctenrich.shape.measure import measure_shape
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace
from tests.conftest import skip_or_fail
from tests.support import encode_cases as cases
from tests.support.proofs import prove_segmentation

Labels = np.ndarray
S2 = 0.5**0.5


def dciodvfy_errors(path: Path) -> list[str]:
    try:
        tool = find_tool("dciodvfy")
    except CtenrichError:
        skip_or_fail("dicom3tools", "dciodvfy is not installed")
        raise
    said = run_tool([tool, path], check=False)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


def right_objects(
    masks: SegmentMasks, volume: Volume, series: SortedSeries, workspace: Workspace
) -> tuple[ShapeMeasurements, EncodedObject, EncodedObject]:
    """SEG and shape SR of `masks`; the proof passes and dciodvfy finds no error."""
    options = {"settings": Settings(), "workspace": workspace}
    shape = measure_shape(masks, volume, **options)
    seg = encode_seg(masks, volume, series, **options)
    report = encode_shape_sr(shape, masks, seg, series, **options)
    proof = prove_segmentation(masks, shape, volume, series, [seg, report], **options)
    assert [c for c in proof.checks if not c.passed] == []
    for item in (seg, report):
        assert dciodvfy_errors(workspace.resolve(series.series_instance_uid, item.path)) == []
    return shape, seg, report


def blank(shape: tuple[int, int, int]) -> Labels:
    return np.zeros(shape, np.uint8)


def one_voxel(shape: tuple[int, int, int]) -> Labels:
    labels = blank(shape)
    labels[shape[0] // 2, 7, 9] = 2
    return labels


def corners(shape: tuple[int, int, int]) -> Labels:
    labels = blank(shape)
    labels[0, 0, 0], labels[-1, -1, -1] = 1, 2
    labels[0, -1, 0], labels[-1, 0, -1] = 3, 4
    return labels


def full(shape: tuple[int, int, int]) -> Labels:
    """Every face of the volume is touched from inside, by one organ that fills it all but for a core of another."""
    labels = blank(shape) + np.uint8(2)
    labels[3:6, 8:20, 9:30] = 1
    return labels


# ---------------------------------------------------------------- right objects


@pytest.mark.parametrize("draw", [one_voxel, corners, full])
def test_one_voxel_and_borders(draw: Callable[..., Labels], tmp_path: Path, workspace: Workspace) -> None:
    series, volume = cases.make_series(tmp_path / "ct")
    masks = cases.make_masks(series, workspace, draw(series.shape))
    shape, _, _ = right_objects(masks, volume, series, workspace)
    for segment, measured in zip(masks.segments, shape.segments, strict=True):
        values = list(measured.values.values())
        assert np.isfinite(values).all()
        if segment.voxels == 1:
            assert measured.values["VoxelVolume"] == pytest.approx(0.8 * 0.7 * 2.5)
            assert measured.omitted, "what one voxel has no value of is left out with a reason"
        assert bool(values) is not segment.absent


@pytest.mark.parametrize(
    "grid",
    [
        cases.Grid(spacing=(0.5, 1.75)),
        cases.Grid(row=(0.0, 1.0, 0.0), column=(0.0, 0.0, -1.0), spacing=(0.9, 0.6)),
        cases.Grid(row=(1.0, 0.0, 0.0), column=(0.0, 0.0, -1.0)),
        cases.Grid(row=(S2, S2, 0.0), column=(-0.5, 0.5, S2), spacing=(0.5, 1.25), step=1.3),
    ],
    ids=["pixels that are not square", "sagittal", "coronal", "oblique"],
)
def test_other_pixels_and_stacks(grid: cases.Grid, tmp_path: Path, workspace: Workspace) -> None:
    series, volume = cases.make_series(tmp_path / "ct", grid)
    masks = cases.make_masks(series, workspace)
    shape, seg, _ = right_objects(masks, volume, series, workspace)
    voxel = grid.spacing[0] * grid.spacing[1] * grid.step
    for segment, measured in zip(masks.segments, shape.segments, strict=True):
        if not segment.absent:
            assert measured.values["VoxelVolume"] == pytest.approx(segment.voxels * voxel, rel=1e-9)
    shared = pydicom.dcmread(workspace.resolve(series.series_instance_uid, seg.path)).SharedFunctionalGroupsSequence[0]
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == list(grid.spacing)
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert np.allclose([float(v) for v in orientation], [*grid.row, *grid.column], atol=1e-9)


@pytest.mark.long
def test_three_hundred_labels(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = cases.make_series(tmp_path / "ct", cases.Grid(slices=3, rows=60, columns=60))
    keys = list(load_segments())
    labels = np.zeros(series.shape, np.uint16)
    labels.reshape(-1)[: 300 * 30] = np.repeat(np.arange(1, 301), 30)
    template = SegmentMasks(cases.NNUNET, series.series_instance_uid, series.shape, (), None, "", cases.MODEL)
    path = workspace.product_dir(series.series_instance_uid, cases.NNUNET) / "masks" / "labels.npy"
    names = [(n, keys[n % len(keys)], keys[n % len(keys)]) for n in range(1, 301)]
    masks = masks_from_label_map(labels, names, template, path, workspace)
    _, seg, report = right_objects(masks, volume, series, workspace)
    read = pydicom.dcmread(workspace.resolve(series.series_instance_uid, seg.path))
    assert [int(s.SegmentNumber) for s in read.SegmentSequence] == list(range(1, 301))
    tracked = pydicom.dcmread(workspace.resolve(series.series_instance_uid, report.path))
    assert sum(i.keyword == "ReferencedSegmentNumber" for i in tracked.iterall()) >= 300


GONE = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate", "StudyTime", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "SliceThickness", "InstanceNumber")  # fmt: skip


def test_a_source_without_attributes(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = cases.make_series(tmp_path / "ct", None, **dict.fromkeys(GONE))
    right_objects(cases.make_masks(series, workspace), volume, series, workspace)


def test_a_source_with_malformed_attributes(tmp_path: Path, workspace: Workspace) -> None:
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series, volume = cases.make_series(
            tmp_path / "ct",
            None,
            PatientAge="seventy",
            PatientBirthDate="1950/01/02",
            PatientSex="unknown",
            StudyDate="yesterday",
            StudyTime="25:99",
        )
    shape, seg, report = right_objects(cases.make_masks(series, workspace), volume, series, workspace)
    assert shape.segments
    for item in (seg, report):
        noted = {i.message.split()[0] for i in item.issues if i.rule == "SOURCE_ATTRIBUTE"}
        assert {"PatientAge", "PatientSex", "StudyDate", "StudyTime"} <= noted


# ---------------------------------------------------------------- clear errors


def refused(masks: SegmentMasks, volume: Volume, series: SortedSeries, workspace: Workspace) -> CtenrichError:
    with pytest.raises(CtenrichError) as caught:
        encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    assert not (workspace.product_dir(series.series_instance_uid, masks.product) / "objects").exists()
    return caught.value


def test_an_empty_segmentation(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = cases.make_series(tmp_path / "ct")
    error = refused(cases.make_masks(series, workspace, blank(series.shape)), volume, series, workspace)
    assert isinstance(error, InputError)
    assert error.reason is Reason.EMPTY_SEGMENTATION


def test_duplicate_uids(tmp_path: Path, workspace: Workspace) -> None:
    """Sorting drops or refuses them; if they come anyway, no object refers to two slices by one name."""
    series, volume = cases.make_series(tmp_path / "ct")
    twice = replace(series.slices[5], sop_instance_uid=series.slices[4].sop_instance_uid)
    doubled = replace(series, slices=(*series.slices[:5], twice, *series.slices[6:]))
    error = refused(cases.make_masks(series, workspace), volume, doubled, workspace)
    assert error.reason is Reason.CONFLICTING_DUPLICATE


def test_a_label_map_of_another_grid(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = cases.make_series(tmp_path / "ct")
    other, _ = cases.make_series(tmp_path / "other", cases.Grid(rows=48, columns=40))
    foreign = replace(cases.make_masks(other, workspace), series_instance_uid=series.series_instance_uid)
    error = refused(foreign, volume, series, workspace)
    assert error.reason is Reason.ENCODING
    assert "grids" in error.message
    assert "(14, 48, 40)" in error.message
    whose = refused(cases.make_masks(other, workspace), volume, replace(series, rows=48, columns=40), workspace)
    assert whose.reason is Reason.ENCODING


def test_the_file_of_a_label_map_of_another_grid(tmp_path: Path, workspace: Workspace) -> None:
    """The record says one shape, and the file has another."""
    series, volume = cases.make_series(tmp_path / "ct")
    masks = cases.make_masks(series, workspace)
    assert masks.label_map_path is not None
    path = workspace.resolve(series.series_instance_uid, masks.label_map_path)
    np.save(path, np.load(path)[:, :, ::-1].transpose(0, 2, 1))
    error = refused(masks, volume, series, workspace)
    assert error.reason is Reason.ENCODING
    assert "(14, 48, 40)" in error.message


def test_a_source_without_frame_of_reference(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = cases.make_series(tmp_path / "ct")
    nowhere = replace(series, frame_of_reference_uid="")
    error = refused(cases.make_masks(series, workspace), replace(volume, frame_of_reference_uid=""), nowhere, workspace)
    assert error.reason is Reason.ENCODING
    assert "frame of reference" in error.message


def test_a_mapping_row_with_an_error(tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    series, volume = cases.make_series(tmp_path / "ct")
    masks = cases.make_masks(series, workspace)
    target = shutil.copytree(folder("mappings"), tmp_path / "mappings")
    lines = (target / "segments.csv").read_text("utf-8").splitlines()
    row = next(n for n, line in enumerate(lines) if "80891009" in line)
    lines[row] = lines[row].replace("80891009", "80891008")
    (target / "segments.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(codes, "folder", lambda name: tmp_path / name)
    error = refused(masks, volume, series, workspace)
    assert isinstance(error, UsageError)
    assert error.reason is Reason.BAD_MAPPING
    assert f"segments.csv:{row + 1}" in error.message


# ---------------------------------------------------------------- memory


def tall(slices: int, segments: int) -> SegmentMasks:
    """The record of a large segmentation without its arrays: every segment goes through all slices."""
    keys = list(load_segments())
    box = Box(0, slices, 0, 512, 0, 512)
    parts = tuple(Segment(n, keys[n % len(keys)], "x", 10**6, box) for n in range(1, segments + 1))
    return SegmentMasks(cases.NNUNET, "1.2.3", (slices, 512, 512), parts, "masks/labels.npy", "", cases.MODEL)


def limited(limit: int, kind: str = "BINARY") -> Settings:
    return Settings(encode=EncodeSettings(seg_type=kind), run=RunSettings(memory_limit=limit))


def test_a_large_segmentation_is_refused_before_anything_is_made() -> None:
    masks = tall(600, 117)
    assert frames_at_most(masks) == 70200
    tracemalloc.start()
    with pytest.raises(EncodingError) as caught:
        check_frames(masks, limited(4 * 2**30))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert "70200 frames of 512 x 512" in caught.value.message
    assert "4 GiB" in caught.value.message
    assert peak < 2**20
    check_frames(masks, limited(16 * 2**30))
    check_frames(tall(600, 10), limited(4 * 2**30))
    check_frames(masks, limited(2**30, "LABELMAP"))


def test_a_label_map_is_forecast_from_the_volume_alone() -> None:
    shape = (600, 512, 512)
    check_label_map(shape, limited(2 * 600 * 512 * 512, "LABELMAP"))
    with pytest.raises(EncodingError, match="label map") as caught:
        check_label_map(shape, limited(2 * 600 * 512 * 512 - 1, "LABELMAP"))
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    check_label_map(shape, limited(1, "BINARY"))


def test_pixel_data_longer_than_dicom_can_say() -> None:
    assert 600 * 28 * 512 * 512 > LARGEST_PIXEL_DATA > 600 * 27 * 512 * 512
    with pytest.raises(EncodingError, match="16800 frames") as caught:
        check_frames(tall(600, 28), limited(2**50, "FRACTIONAL"))
    assert caught.value.reason is Reason.ENCODING
    check_frames(tall(600, 27), limited(2**50, "FRACTIONAL"))
    check_frames(tall(600, 28), limited(2**50))


@pytest.mark.parametrize(
    ("kind", "overlapping"),
    [("BINARY", False), ("BINARY", True), ("FRACTIONAL", False), ("FRACTIONAL", True), ("LABELMAP", False)],
)
def test_what_is_accepted_stays_below_the_limit(
    kind: str, overlapping: bool, tmp_path: Path, workspace: Workspace
) -> None:
    """Whatever the limit: either it is refused for the lack of memory, or it is written in less."""
    series, volume = cases.make_series(tmp_path / "ct", cases.Grid(slices=20, rows=256, columns=256))
    masks = large(series, workspace, overlapping)
    encode_seg(masks, volume, series, settings=limited(0, kind), workspace=workspace)  # imports are not counted
    written = []
    for limit in (2**20, 3 * 2**20, 10 * 2**20, 30 * 2**20, 100 * 2**20):
        tracemalloc.start()
        with contextlib.suppress(EncodingError):
            encode_seg(masks, volume, series, settings=limited(limit, kind), workspace=workspace)
            written.append(limit)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.25 * limit + 2**21
    assert written
    assert written[0] > 2**20
    with pytest.raises(EncodingError) as caught:
        encode_seg(masks, volume, series, settings=limited(2**20, kind), workspace=workspace)
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def large(series: SortedSeries, workspace: Workspace, overlapping: bool) -> SegmentMasks:
    template = SegmentMasks(cases.NNUNET, series.series_instance_uid, series.shape, (), None, "", cases.MODEL)
    folder = workspace.product_dir(series.series_instance_uid, cases.NNUNET) / "masks"
    parts: list[tuple[int, str, str, Mask]] = []
    for n, name in enumerate(list(load_segments())[:8], 1):
        mask = np.zeros(series.shape, bool)
        mask[:, 20 * n : 20 * n + (30 if overlapping else 20)] = True
        parts.append((n, name, name, mask))
    if overlapping:
        return masks_from_segments(parts, template, folder, workspace)
    labels = sum(np.uint8(n) * mask for n, _, _, mask in parts)
    names = [(n, name, name) for n, name, _, _ in parts]
    return masks_from_label_map(np.asarray(labels), names, template, folder / "labels.npy", workspace)

"""Reading SEGs: our own voxel for voxel on the full grid, and other makers' as their own programs read them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tests.support.encode_cases import Grid, make_expert_masks, make_masks, make_series, volume_of

from ctenrich.dicom import frames, objects
from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.series import series_of_folder
from ctenrich.encode.seg import encode_seg
from ctenrich.errors import EncodingError, InputError, UnsafeInputError
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, Severity, SortedSeries
from ctenrich.settings import EncodeSettings, Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace, save_array

TURNS = (
    [
        ((x, 0.0, 0.0), (0.0, y, 0.0)) if not swap else ((0.0, y, 0.0), (x, 0.0, 0.0))
        for x in (1.0, -1.0)
        for y in (1.0, -1.0)
        for swap in (False, True)
    ]
    + [((0.0, a, 0.0), (0.0, 0.0, b)) for a in (1.0, -1.0) for b in (1.0, -1.0)]
    + [((a, 0.0, 0.0), (0.0, 0.0, b)) for a in (1.0, -1.0) for b in (1.0, -1.0)]
)


def write(
    tmp_path: Path, workspace: Workspace, grid: Grid | None = None, *, expert: bool = False, kind: str = "BINARY"
) -> tuple[Path, SegmentMasks, SortedSeries]:
    series, volume = make_series(tmp_path / "ct", grid)
    masks = make_expert_masks(series, workspace) if expert else make_masks(series, workspace)
    settings = Settings(encode=EncodeSettings(seg_type=kind))
    seg = encode_seg(masks, volume, series, settings=settings, workspace=workspace)
    return workspace.resolve(series.series_instance_uid, seg.path), masks, series


@pytest.mark.parametrize("turn", TURNS)
def test_sixteen_orientations_come_back(
    turn: tuple[tuple[float, float, float], tuple[float, float, float]], tmp_path: Path, workspace: Workspace
) -> None:
    path, masks, series = write(tmp_path, workspace, Grid(row=turn[0], column=turn[1]), expert=True)
    read = read_seg(path, series)
    assert read.on_source_grid
    assert not read.issues
    assert read.grid.shape == series.shape
    assert np.allclose(read.grid.affine_lps, volume_of(series).affine_lps)
    for segment in masks.segments:
        assert np.array_equal(read.mask(segment.number), full_mask(masks, segment.number, workspace))
    assert read.overlapping
    assert [s.voxels for s in read.segments] == [s.voxels for s in masks.segments]


def test_without_the_source_the_grid_is_the_smallest(tmp_path: Path, workspace: Workspace) -> None:
    path, masks, series = write(tmp_path, workspace)
    read = read_seg(path)
    whole = read_seg(path, series)
    labels = whole.label_map()
    assert labels is not None
    assert np.array_equal(labels == 2, full_mask(masks, 2, workspace))
    used = np.flatnonzero(labels.any(axis=(1, 2)))
    assert read.grid.shape == (used[-1] - used[0] + 1, *series.shape[1:])
    small = read.label_map()
    assert small is not None
    assert np.array_equal(small, labels[used[0] : used[-1] + 1])
    first = read.grid.affine_lps
    assert np.allclose([row[3] for row in first[:3]], series.slices[used[0]].position, atol=1e-6)


@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_other_types_hold_the_same(kind: str, tmp_path: Path, workspace: Workspace) -> None:
    path, masks, series = write(tmp_path, workspace, kind=kind)
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    assert dataset.SegmentationType == kind
    if kind == "LABELMAP":
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.80"
    read = read_seg(path, series)
    assert [s.label for s in read.segments] == ["esophagus", "heart", "trachea", "aorta"]
    for segment in masks.segments:
        assert np.array_equal(read.mask(segment.number), full_mask(masks, segment.number, workspace))
    said = run_tool([find_tool("dciodvfy"), path], check=False)
    assert "Error" not in said.stdout + said.stderr, said.stderr


def test_probabilities_come_back_within_half_a_step(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_masks(series, workspace)
    chance = np.random.default_rng(1)
    values = chance.random((4, *series.shape)).astype(np.float16) * np.float16(0.9)
    values[2] = 0
    values[:, 3] = 0.0005
    path = workspace.product_dir(series.series_instance_uid, masks.product) / "masks" / "probabilities.npy"
    save_array(path, values)
    kept = dataclasses.replace(masks, probabilities_path=workspace.relative(series.series_instance_uid, path))
    settings = Settings(encode=EncodeSettings(seg_type="FRACTIONAL"))
    seg = encode_seg(kept, volume, series, settings=settings, workspace=workspace)
    written = workspace.resolve(series.series_instance_uid, seg.path)
    read = read_seg(written, series)
    for segment in masks.segments:
        expected = values[segment.number - 1].astype(np.float32)
        assert np.abs(read.fraction(segment.number) - expected).max() <= 0.5 / 255 + 1e-6
    dataset = pydicom.dcmread(written, stop_before_pixels=True)
    assert (dataset.SegmentationFractionalType, dataset.MaximumFractionalValue) == ("PROBABILITY", 255)
    assert dataset.NumberOfFrames == 3 * (len(series.slices) - 1)
    wrong = dataclasses.replace(masks, probabilities_path=masks.label_map_path)
    with pytest.raises(EncodingError, match="do not fit"):
        encode_seg(wrong, volume, series, settings=settings, workspace=workspace)


def test_label_map_type_cannot_hold_overlaps(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(EncodingError, match="overlap"):
        write(tmp_path, workspace, expert=True, kind="LABELMAP")


def test_a_source_that_does_not_fit_is_reported(tmp_path: Path, workspace: Workspace) -> None:
    path, _, series = write(tmp_path, workspace)
    other = dataclasses.replace(
        series,
        frame_of_reference_uid="1.2.3",
        slices=tuple(dataclasses.replace(s, sop_instance_uid=f"1.2.{k}") for k, s in enumerate(series.slices)),
    )
    read = read_seg(path, other)
    assert not read.on_source_grid
    assert [(i.rule, i.severity) for i in read.issues] == [("SEG_SOURCE", Severity.WARNING)]
    read = read_seg(path, dataclasses.replace(series, slices=other.slices))
    assert read.on_source_grid, "by position"
    assert [(i.rule, i.severity) for i in read.issues] == [("SEG_REFERENCES", Severity.ERROR)]
    assert "0 of 14" in read.issues[0].message
    read = read_seg(path, dataclasses.replace(series, frame_of_reference_uid="1.2.3"))
    assert read.on_source_grid, "by reference"
    assert [(i.rule, i.severity) for i in read.issues] == [("SEG_FRAME_OF_REFERENCE", Severity.ERROR)]
    moved = dataclasses.replace(
        series,
        slices=tuple(
            dataclasses.replace(s, position=(s.position[0], s.position[1], s.position[2] + 0.9)) for s in series.slices
        ),
    )
    read = read_seg(path, moved)
    assert not read.on_source_grid
    assert any(i.rule == "SEG_GRID" for i in read.issues)


@pytest.mark.parametrize(
    ("move", "reason"), [((4.0, 0.0, 0.0), Reason.LATERAL_DRIFT), ((0.0, 0.0, 0.4), None), ((0.05, 0.0, 0.0), None)]
)
def test_frames_beside_their_grid(
    move: tuple[float, float, float], reason: Reason | None, tmp_path: Path, workspace: Workspace
) -> None:
    """Frames of a tilted gantry, or shifted ones, have no place on a grid along the normal."""
    path, _, series = write(tmp_path, workspace)
    dataset = pydicom.dcmread(path)
    for frame in list(dataset.PerFrameFunctionalGroupsSequence)[5:]:
        place = frame.PlanePositionSequence[0]
        place.ImagePositionPatient = [a + b for a, b in zip(place.ImagePositionPatient, move, strict=True)]
    dataset.save_as(path)
    for source in (None, series):
        if reason is None:
            rules = {i.rule for i in read_seg(path, source).issues} - {"SEG_DUPLICATE_FRAME"}
            assert rules == ({"SEG_IRREGULAR"} if move[2] else set()) | ({"SEG_GRID"} if move[2] and source else set())
        else:
            with pytest.raises(InputError) as caught:
                read_seg(path, source)
            assert caught.value.reason is reason


def test_frames_of_one_place_are_one_issue_per_segment(tmp_path: Path, workspace: Workspace) -> None:
    path, _, series = write(tmp_path, workspace)
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient = list(series.slices[0].position)
    dataset.save_as(path)
    issues = read_seg(path).issues
    assert {i.rule for i in issues} == {"SEG_DUPLICATE_FRAME"}
    assert len({i.message for i in issues}) == len(issues) <= 4


@pytest.mark.parametrize("fault", ["short", "no_frames", "no_position", "not_dicom", "ct"])
def test_broken_files_are_refused(fault: str, tmp_path: Path, workspace: Workspace) -> None:
    path, _, series = write(tmp_path, workspace)
    bad = tmp_path / "bad.dcm"
    dataset = pydicom.dcmread(path)
    if fault == "short":
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]
    elif fault == "no_frames":
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:3]
    elif fault == "no_position":
        del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    if fault == "not_dicom":
        bad.write_bytes(b"no DICOM here" * 100)
    elif fault == "ct":
        bad = Path(series.slices[0].path)
    else:
        dataset.save_as(bad)
    with pytest.raises(InputError) as caught:
        read_seg(bad, series)
    expected = {"short": Reason.TRUNCATED, "no_frames": Reason.MISSING_GEOMETRY, "no_position": Reason.MISSING_GEOMETRY}
    assert caught.value.reason is expected.get(fault, Reason.NOT_DICOM)


def test_a_deflated_bomb_is_refused(tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, _ = write(tmp_path, workspace)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packed = tmp_path / "packed.dcm"
    dataset.save_as(packed)
    assert read_seg(packed).segments[1].voxels > 0
    monkeypatch.setattr(objects, "MAX_UNPACKED", 2000)
    with pytest.raises(UnsafeInputError) as caught:
        read_seg(packed)
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB


@pytest.mark.parametrize("limit", ["_LARGEST_PLANE", "_LARGEST_WHOLE"])
def test_frames_that_claim_more_than_anybody_needs_are_not_decoded(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    path, _, _ = write(tmp_path, workspace)
    data = pydicom.dcmread(path)
    most = data.Rows * data.Columns * (int(data.NumberOfFrames) if limit == "_LARGEST_WHOLE" else 1)
    monkeypatch.setattr(frames, limit, most)
    assert read_seg(path).segments[1].voxels > 0
    monkeypatch.setattr(frames, limit, most - 1)
    with pytest.raises(UnsafeInputError) as caught:
        read_seg(path)
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB


@pytest.fixture
def others(real_data: Callable[[str], Path]) -> Path:
    return real_data("ref_objects") / "ref_objects"


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "dcmqi_data/segmentations/liver.dcm",
        "dcmqi_data/segmentations/partial_overlaps.dcm",
        "dcmqi_data/segmentations/sparse-labelmap-noppv.dcm",
        "dcmqi_data/segmentations/sparse-labelmap-ppv5.dcm",
        "dcmqi_data/segmentations/23x38x3/seg/label.seg",
        "dcmqi_data/sr-example/seg.dcm",
        "highdicom/seg_image_ct_binary.dcm",
        "highdicom/seg_image_ct_binary_fractional.dcm",
        "highdicom/seg_image_ct_true_fractional.dcm",
        "highdicom/seg_image_ct_binary_single_frame.dcm",
    ],
)
def test_others_segs_as_dcmqi_reads_them(name: str, others: Path, tmp_path: Path) -> None:
    import SimpleITK

    read = read_seg(others / name)
    reader = find_tool("segimage2itkimage")
    run_tool([reader, "--inputDICOM", others / name, "--outputDirectory", tmp_path, "--outputType", "nrrd"])
    assert read.segments
    for segment in read.segments:
        image = SimpleITK.ReadImage(str(tmp_path / f"{segment.number}.nrrd"))
        theirs = SimpleITK.GetArrayFromImage(image)
        if read.segmentation_type == "FRACTIONAL":
            full = pydicom.dcmread(others / name, stop_before_pixels=True).MaximumFractionalValue
            theirs = theirs.astype(float) / full >= 0.5
        if read.segmentation_type == "LABELMAP":
            theirs = theirs == segment.number  # slices without a frame hold the padding value there
        assert segment.voxels == int(np.count_nonzero(theirs))
        ours = np.argwhere(read.mask(segment.number)).mean(axis=0)
        place = np.array(read.grid.affine_lps) @ np.array([ours[2], ours[1], ours[0], 1.0])
        index = np.argwhere(theirs).mean(axis=0)[::-1]
        assert np.allclose(
            place[:3], image.TransformContinuousIndexToPhysicalPoint([float(v) for v in index]), atol=0.01
        )


@pytest.mark.data
def test_partial_overlaps_stay_overlapping(others: Path) -> None:
    read = read_seg(others / "dcmqi_data/segmentations/partial_overlaps.dcm")
    assert read.overlapping
    assert len(read.segments) == 5
    source = series_of_folder(others / "dcmqi_data/segmentations/ct-3slice")
    on_ct = read_seg(others / "dcmqi_data/segmentations/partial_overlaps.dcm", source)
    assert on_ct.on_source_grid
    assert [s.voxels for s in on_ct.segments] == [s.voxels for s in read.segments]
    assert not [i for i in on_ct.issues if i.rule == "SEG_REFERENCES"]


@pytest.mark.data
def test_a_seg_of_another_study_is_reported_as_such(real_data: Callable[[str], Path]) -> None:
    folder = real_data("LUNG1-005")
    (path,) = folder.rglob("300-Segmentation*/*.dcm")
    series = series_of_folder(folder)
    read = read_seg(path, series)
    assert any(i.rule == "SEG_REFERENCES" and "0 of 91" in i.message for i in read.issues)
    assert [s.voxels for s in read.segments] == [29176]


@pytest.mark.parametrize(("rows", "columns"), [(True, False), (False, True), (True, True)])
def test_a_segmentation_by_way_of_nifti_lies_on_the_source_grid(
    tmp_path: Path, workspace: Workspace, rows: bool, columns: bool
) -> None:
    """dcmqi keeps the pixel order of the label file, whose rows and columns often run the other way than the CT's."""
    nibabel = pytest.importorskip("nibabel")
    grid = Grid()
    stored = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16}
    stored |= {"HighBit": 15, "PixelRepresentation": 1, "PixelData": bytes(2 * grid.rows * grid.columns)}
    series, volume = make_series(tmp_path / "ct", grid, **stored)
    masks = make_masks(series, workspace)
    number = masks.segments[0].number
    labels = full_mask(masks, number, workspace)[:, :: -1 if rows else 1, :: -1 if columns else 1]
    lps = np.array(volume.affine_lps)
    for axis, flip in ((1, rows), (0, columns)):
        if flip:
            size = series.rows if axis == 1 else series.columns
            lps[:3, 3] += lps[:3, axis] * (size - 1)
            lps[:3, axis] *= -1
    image = tmp_path / "labels.nii.gz"
    nibabel.save(
        nibabel.Nifti1Image(labels.astype(np.uint8).transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1]) @ lps), image
    )
    code = {"CodeValue": "80891009", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Heart"}
    category = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    segment = {"labelID": 1, "SegmentLabel": "heart", "SegmentDescription": "heart", "SegmentAlgorithmType": "MANUAL"}
    segment |= {"SegmentedPropertyCategoryCodeSequence": category, "SegmentedPropertyTypeCodeSequence": code}
    (tmp_path / "seg.json").write_text(json.dumps({"SeriesDescription": "x", "segmentAttributes": [[segment]]}))
    tool, out = find_tool("itkimage2segimage"), tmp_path / "seg.dcm"
    arguments = ["--inputImageList", image, "--inputDICOMDirectory", tmp_path / "ct", "--outputDICOM", out]
    run_tool([tool, *arguments, "--inputMetadata", tmp_path / "seg.json", "--skip", "1"])
    read = read_seg(out, series)
    assert read.on_source_grid, read.issues
    assert np.array_equal(read.mask(read.segments[0].number), full_mask(masks, number, workspace))


def test_a_grid_that_no_segmentation_needs_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    """Two frames far apart ask for all slices between them."""
    path, _, _ = write(tmp_path, workspace)
    dataset = pydicom.dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    position = frames[-1].PlanePositionSequence[0].ImagePositionPatient
    position[2] = float(position[2]) + 1000 * float(
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    )
    dataset.save_as(tmp_path / "far.dcm")
    read = read_seg(tmp_path / "far.dcm")
    voxels = int(np.prod(read.grid.shape))
    assert read.grid.shape[0] > 900
    assert read_seg(tmp_path / "far.dcm", max_voxels=voxels).grid == read.grid
    with pytest.raises(UnsafeInputError, match="need a grid of") as caught:
        read_seg(tmp_path / "far.dcm", max_voxels=voxels - 1)
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB


def test_masks_stay_within_their_budget(tmp_path: Path, workspace: Workspace) -> None:
    path, _, series = write(tmp_path, workspace)
    with pytest.raises(UnsafeInputError, match="more memory") as caught:
        read_seg(path, series, max_bytes=100)
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB

"""The SEG: right voxel, right number, right reference, same bytes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from ctenrich.encode.seg import encode_seg
from ctenrich.errors import EncodingError, InputError
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, SegmentMasks, SortedSeries
from ctenrich.settings import EncodeSettings, Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace
from tests.support.encode_cases import (
    MODEL,
    NNUNET,
    ORGANS,
    Grid,
    make_expert_masks,
    make_masks,
    make_series,
    volume_of,
)

S2 = 2**-0.5
GRIDS = {
    "axial": Grid(),
    "feet_first": Grid(row=(-1.0, 0.0, 0.0)),
    "reversed_columns": Grid(column=(0.0, -1.0, 0.0)),
    "sagittal": Grid(row=(0.0, 1.0, 0.0), column=(0.0, 0.0, -1.0)),
    "coronal": Grid(row=(1.0, 0.0, 0.0), column=(0.0, 0.0, -1.0)),
    "oblique": Grid(row=(S2, S2, 0.0), column=(-S2, S2, 0.0), step=1.25),
}


def encoded(
    tmp_path: Path,
    workspace: Workspace,
    grid: Grid | None = None,
    expert: bool = False,
    settings: Settings | None = None,
) -> tuple[pydicom.Dataset, EncodedObject, SegmentMasks, SortedSeries, Path]:
    series, volume = make_series(tmp_path / "ct", grid)
    masks = make_expert_masks(series, workspace) if expert else make_masks(series, workspace)
    seg = encode_seg(masks, volume, series, settings=settings or Settings(), workspace=workspace)
    path = workspace.resolve(series.series_instance_uid, seg.path)
    return pydicom.dcmread(path), seg, masks, series, path


def frame_numbers(dataset: pydicom.Dataset) -> list[int]:
    items = dataset.PerFrameFunctionalGroupsSequence
    return [item.SegmentIdentificationSequence[0].ReferencedSegmentNumber for item in items]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("expert", [False, True])
def test_every_voxel_lies_on_its_source_slice(name: str, expert: bool, tmp_path: Path, workspace: Workspace) -> None:
    dataset, _, masks, series, _ = encoded(tmp_path, workspace, GRIDS[name], expert)
    frames = dataset.pixel_array.reshape(-1, series.rows, series.columns)
    index = {uid: k for k, uid in enumerate(series.sop_instance_uids)}
    found = {s.number: np.zeros(series.shape, bool) for s in masks.segments}
    for frame, item in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        k = index[source.ReferencedSOPInstanceUID]
        position = item.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(position, series.slices[k].position, atol=1e-6)
        assert not found[number][k].any()
        assert frame.any()
        found[number][k] = frame
    for segment in masks.segments:
        assert np.array_equal(found[segment.number], full_mask(masks, segment.number, workspace))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, series.pixel_spacing)
    assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == pytest.approx(series.slice_spacing)
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert np.allclose(orientation, (*series.row_cosines, *series.column_cosines), atol=1e-6)
    assert dataset.FrameOfReferenceUID == series.frame_of_reference_uid
    assert dataset.SegmentsOverlap == ("YES" if expert else "NO")


def test_all_source_slices_are_referenced(tmp_path: Path, workspace: Workspace) -> None:
    dataset, _, _, series, _ = encoded(tmp_path, workspace)
    assert len(dataset.ReferencedSeriesSequence) == 1
    reference = dataset.ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == series.series_instance_uid
    uids = {item.ReferencedSOPInstanceUID for item in reference.ReferencedInstanceSequence}
    assert uids == set(series.sop_instance_uids)


def test_segments_are_described(tmp_path: Path, workspace: Workspace) -> None:
    dataset, seg, _, series, _ = encoded(tmp_path, workspace)
    assert [s.SegmentNumber for s in dataset.SegmentSequence] == [1, 2, 3, 4]
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == ["esophagus", "heart", "trachea", "aorta"]
    trachea = dataset.SegmentSequence[2]
    assert trachea.SegmentedPropertyTypeCodeSequence[0].CodeValue == "44567001"
    assert trachea.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    algorithm = trachea.SegmentationAlgorithmIdentificationSequence[0]
    assert trachea.SegmentAlgorithmType == "AUTOMATIC"
    assert trachea.SegmentAlgorithmName == algorithm.AlgorithmName == "3d_fullres-tta_nnU-Net"
    assert (algorithm.AlgorithmVersion, algorithm.AlgorithmSource) == ("1.2", "small-organs")
    assert MODEL.sha256 in algorithm.AlgorithmParameters
    used = {
        f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in dataset.PerFrameFunctionalGroupsSequence
    }
    assert used == {1, 2, 4}
    assert len({s.TrackingUID for s in dataset.SegmentSequence}) == 4
    assert dataset.SeriesDescription == "3d_fullres-tta_nnU-Net_Segmentation small-organs"
    assert dataset.ContentDescription == "Image segmentation by small-organs"
    assert (dataset.SOPInstanceUID, dataset.SeriesInstanceUID) == (seg.sop_instance_uid, seg.series_instance_uid)
    assert dataset.StudyInstanceUID == series.study_instance_uid
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_sides_and_regions_are_coded(tmp_path: Path, workspace: Workspace) -> None:
    dataset, _, _, _, _ = encoded(tmp_path, workspace, expert=True)
    lung, tumour = dataset.SegmentSequence[1], dataset.SegmentSequence[2]
    side = lung.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm, Primary"
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Anatomical Structure"
    assert lung.SegmentDescription == "Lung-Left"
    assert {s.SegmentAlgorithmType for s in dataset.SegmentSequence} == {"MANUAL"}
    assert "SegmentAlgorithmName" not in lung
    assert dataset.SeriesDescription == "Manual_segmentations_Segmentation"


def test_the_same_bytes_twice_and_in_another_process(tmp_path: Path, workspace: Workspace) -> None:
    _, seg, masks, series, path = encoded(tmp_path, workspace)
    code = (
        "import sys; from pathlib import Path\n"
        "from ctenrich.records import SegmentMasks, SortedSeries\n"
        "from ctenrich.workspace import Workspace, load_record\n"
        "from ctenrich.encode.seg import encode_seg\n"
        "from ctenrich.settings import Settings\n"
        "from tests.support.encode_cases import volume_of\n"
        "folder = Path(sys.argv[1]); w = Workspace(Path(sys.argv[2]))\n"
        "m = load_record(folder / 'masks.json', SegmentMasks); s = load_record(folder / 'series.json', SortedSeries)\n"
        "print(encode_seg(m, volume_of(s), s, settings=Settings(), workspace=w).sha256)\n"
    )
    from ctenrich.workspace import save_record

    save_record(tmp_path / "masks.json", masks)
    save_record(tmp_path / "series.json", series)
    first = path.read_bytes()
    path.unlink()
    arguments = [sys.executable, "-c", code, str(tmp_path), str(workspace.root)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == seg.sha256
    assert path.read_bytes() == first


def test_identifiers_follow_what_made_the_object(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_masks(series, workspace)

    def uid(m: SegmentMasks, s: SortedSeries, settings: Settings) -> str:
        return encode_seg(m, volume, s, settings=settings, workspace=workspace).sop_instance_uid

    plain = Settings()
    first = uid(masks, series, plain)
    other_model = dataclasses.replace(masks, model=dataclasses.replace(MODEL, sha256="00" * 32))
    other_date = dataclasses.replace(plain, encode=EncodeSettings(content_date="20200101"))
    other_source = dataclasses.replace(series, source_sha256="99" * 32)
    others = [uid(other_model, series, plain), uid(masks, series, other_date), uid(masks, other_source, plain)]
    assert len({first, *others}) == 4
    assert uid(masks, series, plain) == first
    assert all(len(u) <= 64 and u.startswith("2.25.") for u in (first, *others))


def test_dates_come_from_the_settings(tmp_path: Path, workspace: Workspace) -> None:
    settings = Settings(encode=EncodeSettings(content_date="20210203", content_time="112233"))
    dataset, *_ = encoded(tmp_path, workspace, settings=settings)
    for keyword in ("ContentDate", "InstanceCreationDate"):
        assert dataset[keyword].value == "20210203"
    assert dataset.ContentTime == "112233"
    assert dataset.StudyDate == "20200304"
    text = str(dataset)
    assert "ContributionDateTime" not in text
    with pytest.raises(EncodingError):
        encoded(tmp_path, workspace, settings=Settings(encode=EncodeSettings(content_date="2021-02-03")))


def test_all_empty_is_an_outcome_not_an_object(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_masks(series, workspace, np.zeros(series.shape, np.uint8))
    with pytest.raises(InputError) as caught:
        encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    assert caught.value.reason is Reason.EMPTY_SEGMENTATION
    assert not (workspace.product_dir(series.series_instance_uid, NNUNET) / "objects").exists()


def test_another_grid_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_masks(series, workspace)
    for bad in (
        dataclasses.replace(volume, shape=(14, 48, 40)),
        dataclasses.replace(volume, frame_of_reference_uid="1.2"),
    ):
        with pytest.raises(EncodingError):
            encode_seg(masks, bad, series, settings=Settings(), workspace=workspace)
    gap = dataclasses.replace(masks, segments=masks.segments[1:])
    with pytest.raises(EncodingError, match="without gaps"):
        encode_seg(gap, volume, series, settings=Settings(), workspace=workspace)


def test_an_unmapped_segment_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_masks(series, workspace)
    odd = dataclasses.replace(masks.segments[0], name="flux_capacitor")
    with pytest.raises(EncodingError) as caught:
        encode_seg(
            dataclasses.replace(masks, segments=(odd, *masks.segments[1:])),
            volume,
            series,
            settings=Settings(),
            workspace=workspace,
        )
    assert caught.value.reason is Reason.UNMAPPED_LABEL


@pytest.mark.parametrize("voxels", [1, 0])
def test_one_voxel_and_touching_borders(voxels: int, tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    labels = np.zeros(series.shape, np.uint8)
    labels[0, 0, 0] = 1
    labels[-1, -1, -1] = 2
    if voxels == 0:
        labels[:, 0, :] = labels[:, -1, :] = 4
    masks = make_masks(series, workspace, labels)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    read = hd.seg.segread(workspace.resolve(series.series_instance_uid, seg.path))
    pixels = read.get_pixels_by_source_instance(list(series.sop_instance_uids), assert_missing_frames_are_empty=True)
    combined = np.zeros(series.shape, np.uint8)
    for index, (number, _, _) in enumerate(ORGANS):
        combined[pixels[..., index] > 0] = number
    assert np.array_equal(combined, labels)


def test_validators_and_dcmqi_read_it(tmp_path: Path, workspace: Workspace) -> None:
    import SimpleITK

    for expert in (False, True):
        _, _, masks, series, path = encoded(tmp_path, workspace, GRIDS["oblique"], expert)
        said = run_tool([find_tool("dciodvfy"), path], check=False)
        assert "Error" not in said.stdout + said.stderr, said.stderr
        out = tmp_path / f"itk{expert}"
        out.mkdir()
        run_tool(
            [find_tool("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", out, "--outputType", "nrrd"]
        )
        for segment in masks.segments:
            if segment.absent:
                continue
            image = SimpleITK.ReadImage(str(out / f"{segment.number}.nrrd"))
            voxels = SimpleITK.GetArrayFromImage(image) > 0
            assert int(voxels.sum()) == segment.voxels
            full = full_mask(masks, segment.number, workspace)
            points = np.argwhere(full).mean(axis=0)
            affine = np.array(volume_of(series).affine_lps)
            ours = affine @ np.array([points[2], points[1], points[0], 1.0])
            theirs = image.TransformContinuousIndexToPhysicalPoint(
                [float(v) for v in np.argwhere(voxels).mean(axis=0)[::-1]]
            )
            assert np.allclose(ours[:3], theirs, atol=0.01)


def test_many_labels(tmp_path: Path, workspace: Workspace) -> None:
    from ctenrich.codes.mappings import load_segments
    from ctenrich.masks import masks_from_label_map

    series, volume = make_series(tmp_path / "ct", Grid(slices=3, rows=60, columns=60))
    keys = list(load_segments())
    names = [(n, keys[n % len(keys)], keys[n % len(keys)]) for n in range(1, 301)]
    labels = np.zeros(series.shape, np.uint16)
    flat = labels.reshape(-1)
    flat[: 300 * 30] = np.repeat(np.arange(1, 301), 30)
    template = SegmentMasks(NNUNET, series.series_instance_uid, series.shape, (), None, "", MODEL)
    path = workspace.product_dir(series.series_instance_uid, NNUNET) / "masks" / "labels.npy"
    masks = masks_from_label_map(labels, names, template, path, workspace)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    dataset = pydicom.dcmread(workspace.resolve(series.series_instance_uid, seg.path))
    assert len(dataset.SegmentSequence) == 300
    frames = dataset.pixel_array
    numbers = [
        f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in dataset.PerFrameFunctionalGroupsSequence
    ]
    counts = np.zeros(301, int)
    np.add.at(counts, numbers, frames.sum(axis=(1, 2)))
    assert (counts[1:] == 30).all()

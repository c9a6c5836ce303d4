"""The files of a phantom: valid, repeatable, and faulty exactly as asked."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError

from ctenrich.phantom import (
    FileOrder,
    PhantomOptions,
    PhantomStudy,
    PixelEncoding,
    Quirk,
    write_phantom_study,
)
from ctenrich.tools import find_tool, run_tool

SMALL = PhantomOptions(rows=60, columns=72, pixel_spacing=(6.5, 5.5), slices=16, slice_spacing=20.0)


def read(path: Path) -> FileDataset:
    return pydicom.dcmread(path)


def hu(dataset: Dataset) -> np.ndarray:
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def positions(study: PhantomStudy) -> np.ndarray:
    return np.array([[float(v) for v in read(p).ImagePositionPatient] for p in study.slices])


def errors_of_dciodvfy(path: Path) -> list[str]:
    result = run_tool([find_tool("dciodvfy"), path], check=False)
    assert "CTImage" in result.stderr or "RTStructureSet" in result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("Error")]


def test_files_hold_the_array_and_its_geometry(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path, SMALL)
    assert len(study.files) == len(study.slices) == SMALL.slices
    for k, path in enumerate(study.slices):
        dataset = read(path)
        assert np.array_equal(hu(dataset), study.phantom.array[k])
        assert np.allclose([float(v) for v in dataset.ImagePositionPatient], study.phantom.positions[k], atol=1e-5)
        assert dataset.SOPInstanceUID == study.sop_instance_uids[k]
        assert dataset.SeriesInstanceUID == study.series_instance_uid
        assert [float(v) for v in dataset.PixelSpacing] == [6.5, 5.5]


def test_slices_and_rtstruct_pass_dciodvfy(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path, SMALL.changed(rtstruct=True))
    assert study.rtstruct is not None
    for path in (study.slices[3], study.rtstruct):
        assert errors_of_dciodvfy(path) == []


@pytest.mark.parametrize("quirk", [Quirk.UNSIGNED, Quirk.PADDING, Quirk.RESCALE_CHANGE, Quirk.LOCALIZER])
def test_harmless_quirks_pass_dciodvfy(tmp_path: Path, quirk: Quirk) -> None:
    study = write_phantom_study(tmp_path, SMALL.with_quirks(quirk))
    for path in (study.files[-1], study.slices[-1]):
        assert errors_of_dciodvfy(path) == []


def test_equal_options_give_equal_bytes(tmp_path: Path) -> None:
    options = SMALL.changed(rtstruct=True, file_order=FileOrder.SHUFFLED).with_quirks(Quirk.LOCALIZER, Quirk.JUNK_FILE)
    write_phantom_study(tmp_path / "a", options)
    write_phantom_study(tmp_path / "b", options)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_uids_are_valid_and_other_options_give_other_ones(tmp_path: Path) -> None:
    first = write_phantom_study(tmp_path / "a", SMALL)
    other = write_phantom_study(tmp_path / "b", SMALL.changed(series_number=2))
    patient = write_phantom_study(tmp_path / "c", SMALL.changed(seed=5))
    for uid in (first.study_instance_uid, first.series_instance_uid, *first.sop_instance_uids):
        assert re.fullmatch(r"2\.25\.[1-9][0-9]*", uid)
        assert len(uid) <= 64
    assert len(set(first.sop_instance_uids)) == SMALL.slices
    assert not set(first.sop_instance_uids) & set(other.sop_instance_uids)
    assert first.study_instance_uid == other.study_instance_uid != patient.study_instance_uid
    assert first.frame_of_reference_uid == other.frame_of_reference_uid != patient.frame_of_reference_uid
    assert first.series_instance_uid != other.series_instance_uid


@pytest.mark.parametrize("order", FileOrder)
def test_file_order(tmp_path: Path, order: FileOrder) -> None:
    study = write_phantom_study(tmp_path, SMALL.changed(file_order=order))
    by_name = [float(read(p).ImagePositionPatient[2]) for p in sorted(tmp_path.iterdir())]
    numbers = [int(read(p).InstanceNumber) for p in study.slices]
    assert sorted(numbers) == list(range(1, SMALL.slices + 1))
    rising = by_name == sorted(by_name)
    falling = by_name == sorted(by_name, reverse=True)
    expected = {FileOrder.ALONG_NORMAL: (True, False), FileOrder.AGAINST_NORMAL: (False, True)}
    assert (rising, falling) == expected.get(order, (False, False))
    numbers_rise = numbers == sorted(numbers)
    assert numbers_rise is (order in (FileOrder.ALONG_NORMAL, FileOrder.SHUFFLED))
    assert (np.diff(positions(study)[:, 2]) > 0).all(), "slices are listed along the normal all the same"


@pytest.mark.parametrize("encoding", PixelEncoding)
def test_every_transfer_syntax_holds_the_same_pixels(tmp_path: Path, encoding: PixelEncoding) -> None:
    study = write_phantom_study(tmp_path, SMALL.changed(encoding=encoding, slices=3))
    for k, path in enumerate(study.slices):
        dataset = read(path)
        assert dataset.file_meta.TransferSyntaxUID == encoding.value
        assert np.array_equal(hu(dataset), study.phantom.array[k])


def test_rtstruct_refers_to_the_slices_and_fills_to_the_truth(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path, SMALL.changed(rtstruct=True))
    assert study.rtstruct is not None
    dataset = read(study.rtstruct)
    names = [item.ROIName for item in dataset.StructureSetROISequence]
    assert names == ["Esophagus", "Heart", "Trachea", "Aorta", "Lung-Left", "Lung-Right", "Spinal-Cord"]
    place = {uid: k for k, uid in enumerate(study.sop_instance_uids)}
    inverse = np.linalg.inv(study.phantom.affine_lps)
    for roi, (name, mask) in zip(dataset.ROIContourSequence, study.phantom.masks.items(), strict=True):
        area = np.zeros(SMALL.slices)
        for contour in roi.ContourSequence:
            k = place[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            i, j, kk = inverse[:3, :3] @ points.T + inverse[:3, 3:]
            assert np.allclose(kk, k, atol=1e-3)
            area[k] += 0.5 * np.sum(i * np.roll(j, -1) - np.roll(i, -1) * j)
        assert np.allclose(area, mask.sum(axis=(1, 2)), atol=0.02), name
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    images = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence
    assert {item.ReferencedSOPInstanceUID for item in images} == set(study.sop_instance_uids)
    assert frame.FrameOfReferenceUID == study.frame_of_reference_uid


def odd_ones(study: PhantomStudy, keyword: str) -> list[int]:
    """Indices of the slices whose attribute differs from the first slice's."""
    values = [str(read(p).get(keyword)) for p in study.slices]
    return [k for k, value in enumerate(values) if value != values[0]]


def written(tmp_path: Path, quirk: Quirk) -> PhantomStudy:
    return write_phantom_study(tmp_path, SMALL.with_quirks(quirk))


def test_localizer(tmp_path: Path) -> None:
    study = written(tmp_path, Quirk.LOCALIZER)
    (extra,) = set(study.files) - set(study.slices)
    dataset = read(extra)
    assert "LOCALIZER" in dataset.ImageType
    assert dataset.SeriesInstanceUID == study.series_instance_uid
    cosines = [float(v) for v in dataset.ImageOrientationPatient]
    assert cosines == [1, 0, 0, 0, 0, -1]
    image = hu(dataset)
    assert image.shape == (SMALL.slices, SMALL.columns)
    assert image.mean() > -1000


def test_missing_slice_and_one_slice(tmp_path: Path) -> None:
    study = written(tmp_path / "missing", Quirk.MISSING_SLICE)
    assert sorted(set(np.round(np.diff(positions(study)[:, 2]), 3))) == [20.0, 40.0]
    assert len(written(tmp_path / "one", Quirk.ONE_SLICE).files) == 1


def test_moved_slices(tmp_path: Path) -> None:
    gaps = np.diff(positions(written(tmp_path / "alternating", Quirk.ALTERNATING_SPACING))[:, 2])
    assert set(np.round(gaps, 3)) == {15.0, 25.0}
    gaps = np.diff(positions(written(tmp_path / "jitter", Quirk.POSITION_JITTER))[:, 2])
    assert 0 < abs(gaps - 20.0).max() <= 0.08
    drift = positions(written(tmp_path / "drift", Quirk.LATERAL_DRIFT))
    assert np.allclose(np.diff(drift, axis=0), [0.05, 0, 20.0], atol=1e-5)


def test_gantry_tilt(tmp_path: Path) -> None:
    study = write_phantom_study(tmp_path, SMALL.changed(gantry_tilt=18.0))
    dataset = read(study.slices[0])
    assert float(dataset.GantryDetectorTilt) == 18
    assert float(dataset.ImageOrientationPatient[5]) == pytest.approx(-np.sin(np.deg2rad(18)))
    assert np.allclose(np.diff(positions(study), axis=0), [0, 0, 20.0], atol=1e-5)


def test_duplicates(tmp_path: Path) -> None:
    study = written(tmp_path / "file", Quirk.DUPLICATE_FILE)
    assert len(hashes(tmp_path / "file")) == len(set(hashes(tmp_path / "file").values())) + 1
    study = written(tmp_path / "conflict", Quirk.CONFLICTING_DUPLICATE)
    (extra,) = set(study.files) - set(study.slices)
    twin = study.slices[study.sop_instance_uids.index(read(extra).SOPInstanceUID)]
    assert not np.array_equal(read(twin).pixel_array, read(extra).pixel_array)
    study = written(tmp_path / "position", Quirk.SAME_POSITION)
    (extra,) = set(study.files) - set(study.slices)
    assert read(extra).SOPInstanceUID not in study.sop_instance_uids
    assert tuple(read(extra).ImagePositionPatient) in {tuple(read(p).ImagePositionPatient) for p in study.slices}


@pytest.mark.parametrize(
    ("quirk", "keyword"),
    [
        (Quirk.OTHER_PIXEL_SPACING, "PixelSpacing"),
        (Quirk.OTHER_FRAME_OF_REFERENCE, "FrameOfReferenceUID"),
        (Quirk.OTHER_MATRIX, "Rows"),
        (Quirk.LYING_ROWS, "Rows"),
        (Quirk.NO_POSITION, "ImagePositionPatient"),
    ],
)
def test_one_odd_slice(tmp_path: Path, quirk: Quirk, keyword: str) -> None:
    study = written(tmp_path, quirk)
    values = [str(read(p).get(keyword)) for p in study.slices]
    if quirk is Quirk.NO_POSITION:
        assert values.count("None") == 1
        return
    assert len(odd_ones(study, keyword)) == 1


def test_lying_rows_and_truncated_file_cannot_be_decoded(tmp_path: Path) -> None:
    study = written(tmp_path / "rows", Quirk.LYING_ROWS)
    liar = next(p for p in study.slices if read(p).Rows == 65535)
    with pytest.raises(ValueError, match="pixel data"):
        _ = read(liar).pixel_array
    study = written(tmp_path / "short", Quirk.TRUNCATED)
    short = min(study.slices, key=lambda p: p.stat().st_size)
    assert short.stat().st_size < max(p.stat().st_size for p in study.slices) * 0.8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, EOFError, AttributeError)):
            _ = read(short).pixel_array


def test_two_orientations(tmp_path: Path) -> None:
    study = written(tmp_path, Quirk.TWO_ORIENTATIONS)
    assert odd_ones(study, "ImageOrientationPatient") == [12, 13, 14, 15]


def test_rescale_change_keeps_the_hounsfield_units(tmp_path: Path) -> None:
    study = written(tmp_path, Quirk.RESCALE_CHANGE)
    slopes = [float(read(p).RescaleSlope) for p in study.slices]
    assert set(slopes[:8]) == {1.0}
    assert set(slopes[8:]) == {2.0}
    for k, path in enumerate(study.slices):
        assert abs(hu(read(path)) - study.phantom.array[k]).max() <= 1.0


def test_padding_and_unsigned(tmp_path: Path) -> None:
    dataset = read(written(tmp_path / "padding", Quirk.PADDING).slices[8])
    assert dataset.PixelPaddingValue == -2000
    assert dataset.pixel_array[0, 0] == -2000
    assert dataset.pixel_array[30, 36] != -2000
    study = written(tmp_path / "unsigned", Quirk.UNSIGNED)
    dataset = read(study.slices[8])
    assert (dataset.PixelRepresentation, dataset.BitsStored) == (0, 12)
    assert np.array_equal(hu(dataset), study.phantom.array[8])


def test_image_types(tmp_path: Path) -> None:
    assert "ImageType" not in read(written(tmp_path / "none", Quirk.NO_IMAGE_TYPE).slices[0])
    assert read(written(tmp_path / "second", Quirk.SECONDARY).slices[0]).ImageType[1] == "SECONDARY"
    assert read(written(tmp_path / "derived", Quirk.DERIVED).slices[0]).ImageType[0] == "DERIVED"


def test_mixed_modality_zero_spacing_and_stray_files(tmp_path: Path) -> None:
    study = written(tmp_path / "mixed", Quirk.MIXED_MODALITY)
    (extra,) = set(study.files) - set(study.slices)
    assert read(extra).Modality == "MR"
    assert read(extra).SeriesInstanceUID == study.series_instance_uid
    assert [float(v) for v in read(written(tmp_path / "zero", Quirk.ZERO_SPACING).slices[0]).PixelSpacing] == [0, 0]
    written(tmp_path / "junk", Quirk.JUNK_FILE)
    with pytest.raises(InvalidDicomError):
        read(tmp_path / "junk" / "notes.txt")
    written(tmp_path / "empty", Quirk.EMPTY_FILE)
    assert (tmp_path / "empty" / "empty.dcm").stat().st_size == 0


def test_no_preamble(tmp_path: Path) -> None:
    study = written(tmp_path, Quirk.NO_PREAMBLE)
    assert study.slices[0].read_bytes()[:2] == b"\x02\x00"
    dataset = pydicom.dcmread(study.slices[0], force=True)
    assert np.array_equal(hu(dataset), study.phantom.array[0])


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    study = written(tmp_path, Quirk.ENHANCED)
    (path,) = study.files
    dataset = read(path)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2.1"
    assert dataset.NumberOfFrames == SMALL.slices
    assert np.array_equal(dataset.pixel_array.astype(int) - 1024, study.phantom.array)


def test_every_quirk_has_a_sentence_and_is_tried_here() -> None:
    source = Path(__file__).read_text("utf-8")
    for quirk in Quirk:
        assert quirk.sentence.endswith(".")
        assert f"Quirk.{quirk.name}" in source, quirk


def test_patient_name_is_the_one_asked_for(tmp_path: Path) -> None:
    dataset = read(write_phantom_study(tmp_path, SMALL.changed(patient_name="Canary^Token", slices=2)).slices[0])
    assert dataset.PatientName == "Canary^Token"
    assert dataset.PatientID == "PHANTOM-0"

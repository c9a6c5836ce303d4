"""Parametric maps are read as dcmqi and highdicom read them, and what is not clear is refused or stated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from tests.support.map_cases import SHAPE, by_highdicom, small_sources

from ctenrich.dicom.frames import read_frames
from ctenrich.dicom.parametric_map import read_map
from ctenrich.dicom.series import SourceFolder
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason
from ctenrich.tools import find_tool, run_tool


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    return small_sources(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def counts(sources: list[Dataset]) -> tuple[Dataset, NDArray[np.uint16]]:
    """A map of 16-bit integers with the real world values 0.001 * stored - 2."""
    stored = np.random.default_rng(1).integers(1, 65535, SHAPE).astype(np.uint16)
    return by_highdicom(sources, stored, 0.001, -2.0), stored


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path)
    return path


def mapping_of(dataset: Dataset) -> Dataset:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    groups = shared if "RealWorldValueMappingSequence" in shared else dataset.PerFrameFunctionalGroupsSequence[0]
    return groups.RealWorldValueMappingSequence[0]


def as_highdicom_reads(path: Path) -> NDArray[np.float64]:
    """Real world values by highdicom, whose volumes begin with the last slice of ours."""
    volume = hd.imread(path).get_volume(apply_real_world_transform=True)
    assert volume.direction[2, 0] < 0
    return np.asarray(volume.array)[::-1]


@pytest.mark.data
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "source"),
    [("pm", "pm-example"), ("pm3", "pm-example-3slices-256x256"), ("pmfloat", "pm-example-float")],
)
def test_maps_of_dcmqi_are_read_as_dcmqi_reads_them(
    name: str, source: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = real_data("dcmqi") / "dcmqi"
    path = folder / "made" / f"{name}.dcm"
    ours = read_map(path)
    run_tool([find_tool("paramap2itkimage"), "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd"])
    image = SimpleITK.ReadImage(str(tmp_path / "pmap.nrrd"))
    theirs = SimpleITK.GetArrayFromImage(image)
    put_in = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "paramaps" / f"{source}.nrrd")))
    assert theirs.max() > theirs.min() == 0
    np.testing.assert_allclose(ours.values, theirs, rtol=0, atol=1e-6 * float(theirs.max()))
    np.testing.assert_allclose(ours.values, put_in, rtol=0, atol=1e-6 * float(theirs.max()))
    affine = np.array(ours.grid.affine_lps)
    for index in [(0, 0, 0), (5, 9, ours.grid.shape[0] - 1)]:
        there = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((affine @ [*index, 1])[:3], there, atol=1e-3)
    assert ours.quantity is not None
    assert ours.unit is not None
    assert (ours.quantity.value, ours.unit.value) == ("113041", "m2/s" if name == "pmfloat" else "um2/s")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floating_point_is_read_bit_for_bit(kind: type, sources: list[Dataset], tmp_path: Path) -> None:
    stored = np.random.default_rng(2).normal(size=SHAPE).astype(kind)
    ours = read_map(saved(by_highdicom(sources, stored), tmp_path / "pm.dcm"))
    assert ours.values.dtype == kind
    assert np.array_equal(ours.values, stored)
    assert ours.issues == ()
    np.testing.assert_allclose(np.array(ours.grid.affine_lps)[:3, 3], sources[0].ImagePositionPatient, atol=1e-6)
    assert set(ours.referenced) == {str(s.SOPInstanceUID) for s in sources}
    assert (ours.frame_of_reference_uid, ours.source_series_uid) == ("1.2.3.3", "1.2.3.2")


def test_integers_are_mapped_as_highdicom_maps_them(counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path) -> None:
    path = saved(counts[0], tmp_path / "pm.dcm")
    ours = read_map(path)
    np.testing.assert_allclose(ours.values, counts[1] * 0.001 - 2.0, rtol=1e-12)
    np.testing.assert_allclose(ours.values, as_highdicom_reads(path), rtol=1e-12)
    assert (ours.stored, ours.values.dtype) == ("uint16", np.float64)


def test_the_slope_of_the_display_is_not_applied_as_well(
    counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path
) -> None:
    dataset = copy.deepcopy(counts[0])
    item = Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = "3", "7", "US"
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [item]
    ours = read_map(saved(dataset, tmp_path / "pm.dcm"))
    np.testing.assert_allclose(ours.values, counts[1] * 0.001 - 2.0, rtol=1e-12)


def test_signed_integers_are_signed(counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path) -> None:
    dataset = copy.deepcopy(counts[0])
    dataset.PixelRepresentation = 1
    item = mapping_of(dataset)
    for keyword, value in (("RealWorldValueFirstValueMapped", -32768), ("RealWorldValueLastValueMapped", 32767)):
        delattr(item, keyword)
        item.add_new(keyword, "SS", value)
    ours = read_map(saved(dataset, tmp_path / "pm.dcm"))
    np.testing.assert_allclose(ours.values, counts[1].view(np.int16) * 0.001 - 2.0, rtol=1e-12)


def test_frames_are_ordered_by_their_positions(counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path) -> None:
    dataset = copy.deepcopy(counts[0])
    order = [2, 0, 3, 1]
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    size = 2 * SHAPE[1] * SHAPE[2]
    dataset.PixelData = b"".join(dataset.PixelData[k * size :][:size] for k in order)
    ours = read_map(saved(dataset, tmp_path / "pm.dcm"))
    np.testing.assert_allclose(ours.values, counts[1] * 0.001 - 2.0, rtol=1e-12)


def test_padding_and_values_outside_the_mapping_have_no_value(
    counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path
) -> None:
    dataset = copy.deepcopy(counts[0])
    dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 3000, 100
    mapping_of(dataset).RealWorldValueLastValueMapped = 40000
    ours = read_map(saved(dataset, tmp_path / "pm.dcm"))
    absent = ((counts[1] >= 100) & (counts[1] <= 3000)) | (counts[1] > 40000)
    assert (counts[1] <= 3000).sum() > 0
    assert 0 < absent.sum() < absent.size
    assert np.array_equal(np.isnan(ours.values), absent)


def test_a_table_maps_as_highdicom_s(sources: list[Dataset], tmp_path: Path) -> None:
    stored = np.random.default_rng(3).integers(0, 20, SHAPE).astype(np.uint16)
    dataset = by_highdicom(sources, stored)
    item = mapping_of(dataset)
    del item.RealWorldValueSlope, item.RealWorldValueIntercept
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 19
    item.RealWorldValueLUTData = [float(n * n) for n in range(20)]
    path = saved(dataset, tmp_path / "pm.dcm")
    assert np.array_equal(read_map(path).values, stored.astype(float) ** 2)
    assert np.array_equal(as_highdicom_reads(path), stored.astype(float) ** 2)


def test_a_second_mapping_and_a_missing_one_are_stated(
    counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path
) -> None:
    dataset = copy.deepcopy(counts[0])
    groups = dataset.SharedFunctionalGroupsSequence[0]
    other = copy.deepcopy(mapping_of(dataset))
    other.LUTLabel, other.RealWorldValueSlope = "OTHER", 5.0
    groups.RealWorldValueMappingSequence.append(other)
    ours = read_map(saved(dataset, tmp_path / "two.dcm"))
    assert [(i.rule, "OTHER" in i.message) for i in ours.issues] == [("MAP_MAPPINGS", True)]
    np.testing.assert_allclose(ours.values, counts[1] * 0.001 - 2.0, rtol=1e-12)
    del groups.RealWorldValueMappingSequence
    bare = read_map(saved(dataset, tmp_path / "none.dcm"))
    assert [i.rule for i in bare.issues] == ["MAP_MAPPING"]
    assert np.array_equal(bare.values, counts[1])


def test_what_is_not_one_map_is_refused(counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path) -> None:
    def reason(edit: Callable[[Dataset], None]) -> Reason:
        dataset = copy.deepcopy(counts[0])
        edit(dataset)
        with pytest.raises(InputError) as caught:
            read_map(saved(dataset, tmp_path / "pm.dcm"))
        return caught.value.reason

    def same_position(dataset: Dataset) -> None:
        groups = dataset.PerFrameFunctionalGroupsSequence
        groups[1].PlanePositionSequence = copy.deepcopy(groups[0].PlanePositionSequence)

    def other_unit(dataset: Dataset) -> None:
        item = copy.deepcopy(mapping_of(dataset))
        item.MeasurementUnitsCodeSequence[0].CodeValue = "um2/s"
        dataset.PerFrameFunctionalGroupsSequence[1].RealWorldValueMappingSequence = [item]

    def short(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[:-2]

    def other_class(dataset: Dataset) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"

    assert reason(same_position) is Reason.DUPLICATE_POSITION
    assert reason(other_unit) is Reason.BAD_DESCRIPTION
    assert reason(short) is Reason.TRUNCATED
    assert reason(other_class) is Reason.NOT_DICOM
    with pytest.raises(UnsafeInputError, match="4 x 6 x 5"):
        read_map(saved(counts[0], tmp_path / "pm.dcm"), max_voxels=100)


def test_a_map_is_no_source_of_segmentations(counts: tuple[Dataset, NDArray[np.uint16]], tmp_path: Path) -> None:
    dataset = copy.deepcopy(counts[0])
    dataset.Modality = "MR"  # as dcmqi's maps
    assert len(read_frames(dataset)) == SHAPE[0]
    saved(dataset, tmp_path / "pm.dcm")
    with pytest.raises(InputError) as caught:
        SourceFolder(tmp_path).find_series()
    assert caught.value.reason is Reason.NO_CT

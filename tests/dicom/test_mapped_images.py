"""Real World Value Mapping objects are applied to the images that they map, to stored values and never twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from tests.support.map_cases import SHAPE, grid_of_sources, make_source

from ctenrich.dicom.mapped_images import read_mapped_images
from ctenrich.dicom.series import SourceFolder
from ctenrich.errors import CtenrichError
from ctenrich.publish.export import export_objects
from ctenrich.reasons import Reason
from ctenrich.records import State

KIND = "1.2.840.10008.5.1.4.1.1.67"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def mapping(slope: float = 0.25, intercept: float = -3.0, label: str = "SUVbw", unit: str = "g/ml{SUVbw}") -> Dataset:
    item, quantity = Dataset(), Dataset()
    item.LUTLabel, item.LUTExplanation = label, "uptake"
    item.MeasurementUnitsCodeSequence = [code(unit, "UCUM", unit)]
    item.add_new("RealWorldValueFirstValueMapped", "US", 0)
    item.add_new("RealWorldValueLastValueMapped", "US", 3900)
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [code("246205007", "SCT", "Quantity")]
    quantity.ConceptCodeSequence = [code("126401", "DCM", "SUVbw")]
    item.QuantityDefinitionSequence = [quantity]
    return item


def write(path: Path, *maps: tuple[list[tuple[str, int | None]], list[Dataset]]) -> Path:
    """A mapping object; each item has the images (and frames) and their mappings."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = KIND, "1.2.3.8.1"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3.1", "1.2.3.8", "RWV"
    items = []
    for images, mappings in maps:
        item = Dataset()
        item.ReferencedImageSequence = []
        for uid, frame in images:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.128", uid
            if frame is not None:
                reference.ReferencedFrameNumber = frame
            item.ReferencedImageSequence.append(reference)
        item.RealWorldValueMappingSequence = mappings
        items.append(item)
    data.ReferencedImageRealWorldValueMappingSequence = items
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = KIND, data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def pet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("pet"), "pet")


def images_of(folder: Path) -> list[Dataset]:
    """The images of a folder, by position."""
    found = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    return sorted(found, key=lambda one: float(one.ImagePositionPatient[2]))


def test_values_are_those_that_highdicom_maps(pet: Path, tmp_path: Path) -> None:
    """highdicom maps one image after the other, with the mapping put into the image, as a scanner would."""
    images = images_of(pet)
    path = write(tmp_path / "rwvm.dcm", ([(one.SOPInstanceUID, None) for one in images], [mapping()]))
    found = read_mapped_images(path, SourceFolder(pet))
    for k, one in enumerate(images):
        one.RealWorldValueMappingSequence = [mapping()]
        mapped = one.pixel_array <= 3900
        one.RealWorldValueMappingSequence[0]["RealWorldValueLastValueMapped"].value = 65535  # highdicom refuses others
        theirs = hd.Image.from_dataset(one).get_frame(1, apply_real_world_transform=True)
        np.testing.assert_array_equal(found.values[k], np.where(mapped, theirs, np.nan))
    assert np.isnan(found.values).any(), "some stored values are outside of the range"
    assert (found.quantity.value, found.unit.value, found.label) == ("126401", "g/ml{SUVbw}", "SUVbw")  # type: ignore[union-attr]
    assert found.stored == "uint16"
    np.testing.assert_allclose(np.array(found.grid.affine_lps), grid_of_sources(pet), atol=1e-9)
    assert not found.issues


def test_further_mappings_missing_images_and_padding_are_stated(pet: Path, tmp_path: Path) -> None:
    images = images_of(pet)
    uids = [one.SOPInstanceUID for one in images]
    path = write(
        tmp_path / "rwvm.dcm",
        ([(uids[0], None), (uids[1], None), ("1.2.9", None)], [mapping(), mapping(label="SUVlbm")]),
        ([(uids[2], None)], [mapping(slope=1.0, intercept=0.0)]),
    )
    folder = tmp_path / "images"
    folder.mkdir()
    padding = int(images[2].pixel_array[0, 0])
    for number, one in enumerate(images):
        one.add_new("PixelPaddingValue", "US", padding)
        one.save_as(folder / f"{number}.dcm")
    found = read_mapped_images(path, SourceFolder(folder))
    assert [(i.rule, i.message) for i in found.issues] == [
        ("MAP_UNMAPPED", "1 of 4 slices have no mapping: NaN"),
        ("MAP_IMAGES", "1 of 4 images that are mapped are not in the folder"),
        ("MAP_MAPPINGS", "further mappings (SUVlbm): the first one is applied"),
    ]
    assert np.isnan(found.values[3]).all()
    assert np.isnan(found.values[2, 0, 0])
    third = images[2].pixel_array
    kept = (third <= 3900) & (third != padding)
    assert np.array_equal(found.values[2][kept], third[kept])


@pytest.mark.parametrize("form", ["legacy_pet", "enhanced_mr"])
def test_frames_have_the_mapping_of_their_number(form: str, tmp_path: Path) -> None:
    folder = make_source(tmp_path / "images", form)
    (data,) = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    places = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in data.PerFrameFunctionalGroupsSequence]
    maps = [([(data.SOPInstanceUID, n)], [mapping(slope=float(n), intercept=0.0)]) for n in (1, 2, 3, 4)]
    found = read_mapped_images(write(tmp_path / "rwvm.dcm", *maps), SourceFolder(folder))
    for k, frame in enumerate(np.argsort(places)):
        stored = data.pixel_array[frame].astype(float)
        np.testing.assert_array_equal(found.values[k], np.where(stored <= 3900, stored * (frame + 1), np.nan))


def test_what_cannot_be_mapped_is_refused(pet: Path, tmp_path: Path) -> None:
    uid = images_of(pet)[0].SOPInstanceUID
    cases = {
        "none": ((), Reason.BAD_DESCRIPTION),
        "units": (
            (([(uid, None)], [mapping()]), ([("1.2.9", None)], [mapping(unit="Bq/ml")])),
            Reason.BAD_DESCRIPTION,
        ),
        "others": ((([("1.2.9", None)], [mapping()]),), Reason.NO_REFERENCE),
    }
    for name, (maps, reason) in cases.items():
        path = write(tmp_path / f"{name}.dcm", *maps)
        with pytest.raises(CtenrichError) as caught:
            read_mapped_images(path, SourceFolder(pet))
        assert caught.value.reason is reason, name
    path = write(tmp_path / "large.dcm", ([(uid, None)], [mapping()]))
    with pytest.raises(CtenrichError) as caught:
        read_mapped_images(path, SourceFolder(pet), max_voxels=10)
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB
    echoes = make_source(tmp_path / "echoes", "echoes")
    with pytest.raises(CtenrichError) as caught:
        read_mapped_images(path, SourceFolder(echoes))
    assert caught.value.reason is Reason.DUPLICATE_POSITION
    with pytest.raises(CtenrichError) as caught:
        read_mapped_images(next(pet.glob("*.dcm")), SourceFolder(pet))
    assert caught.value.reason is Reason.NOT_DICOM


@pytest.mark.data
def test_the_factors_of_dcmqis_example_give_suv(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Its object maps 191 PET slices and names no series: the series with such images is chosen among two."""
    path = real_data("dcmqi") / "dcmqi" / "sr-example" / "rwvm.dcm"
    uids = [
        one.ReferencedSOPInstanceUID
        for one in pydicom.dcmread(path).ReferencedImageRealWorldValueMappingSequence[0].ReferencedImageSequence
    ]
    folder = make_source(tmp_path / "images" / "pet", "pet")
    make_source(tmp_path / "images" / "ct", "ct")
    for number, file in enumerate(sorted(folder.glob("*.dcm"))):
        data = pydicom.dcmread(file)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uids[number]
        data.SeriesInstanceUID = "1.2.3.5"
        data.save_as(file)
    found = export_objects([path], "nrrd", tmp_path / "out", source=tmp_path / "images")
    (one,) = found.objects
    assert one.state is State.DONE
    assert [i.rule for i in one.issues] == ["MAP_IMAGES"]
    mapped = read_mapped_images(path, SourceFolder(tmp_path / "images"))
    stored = np.stack([image.pixel_array for image in images_of(folder)])
    np.testing.assert_allclose(mapped.values, stored * 0.000375125, rtol=1e-12)
    assert mapped.values.shape == SHAPE
    assert (mapped.quantity.value, mapped.unit.value) == ("126400", "{SUVbw}g/ml")  # type: ignore[union-attr]
    assert {file.name for file in one.files} == {"map.nrrd", "map.json"}
    with pytest.raises(CtenrichError) as caught:
        export_objects([path], "nrrd", tmp_path / "again")
    assert caught.value.reason is Reason.NOT_FOUND
    assert caught.value.hint == "its values are those of images: name their folder with --source"

"""Sample objects: every kind is among them, and what the README states is what other readers find."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from tests.support.dcmjs import read_by_dcmjs
from tests.support.validators import errors

from ctenrich.dicom.series import series_of_folder
from ctenrich.errors import UsageError
from ctenrich.objects.kinds import BUILT_IN
from ctenrich.phantom import PhantomOptions, make_phantom
from ctenrich.phantom.dose import phantom_dose
from ctenrich.reasons import Reason
from ctenrich.samples import SAMPLES, Samples, make_samples
from ctenrich.settings import Settings
from ctenrich.validate import validate_objects

PAGE = Path(__file__).parents[2] / "docs" / "sample-objects.md"
SMALL = PhantomOptions(
    seed=9010, rows=64, columns=64, pixel_spacing=(6.4, 6.4), slices=38, slice_spacing=8.0, rtstruct=True
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples") / "out", options=SMALL)


def test_every_kind_of_object_is_among_them() -> None:
    names = {sample.file.removesuffix(".dcm") for sample in SAMPLES}
    assert names >= BUILT_IN.keys() - {"seg"}
    assert names >= {"seg_binary", "seg_labelmap", "structure_set", "isodoses_seg", "isodoses_rtstruct"}
    assert names >= {"seg_fractional", "map_float", "map_integer"}


def test_the_page_lists_every_sample() -> None:
    listed = re.findall(r"^\| `(\w+\.dcm)`", PAGE.read_text("utf-8"), re.MULTILINE)
    assert listed == [sample.file for sample in SAMPLES]


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        make_samples(tmp_path)
    assert caught.value.reason is Reason.BAD_PARAMETER
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.long
def test_regions_are_those_that_highdicom_reads_and_that_were_planted(made: Samples) -> None:
    truth = make_phantom(SMALL).masks
    for file in ("seg_binary.dcm", "seg_labelmap.dcm", "seg_harmonised.dcm"):
        seg = highdicom.seg.segread(made.folder / "objects" / file)
        array = seg.get_volume(combine_segments=False).array
        counts = dict(zip(seg.segment_numbers, np.count_nonzero(array, axis=(0, 1, 2)), strict=True))
        assert {one.number: one.voxels for one in made.contents[file].regions} == counts
        assert {one.name: one.voxels for one in made.contents[file].regions} == {
            name: int(mask.sum()) for name, mask in truth.items() if mask.any()
        }
        sides = {one.name: one.side for one in made.contents[file].regions}
        assert (sides["lung_left"], sides["lung_right"], sides["trachea"]) == ("left", "right", "middle")
    named = {one.name: one.voxels for one in made.contents["structure_set.dcm"].regions}
    assert (named["Lung_L"], named["Lung_R"]) == (int(truth["lung_left"].sum()), int(truth["lung_right"].sum()))


@pytest.mark.long
def test_isodoses_are_the_spheres_of_the_dose_function(made: Samples) -> None:
    for file in ("isodoses_seg.dcm", "isodoses_rtstruct.dcm"):
        volumes = {one.name: one.volume_ml for one in made.contents[file].regions}
        for level in (20, 40):
            radius = 45.0 * math.sqrt(2 * math.log(64 / level))
            assert volumes[f"Isodose {level} Gy"] == pytest.approx(4 / 3 * math.pi * radius**3 / 1000, rel=0.04)
        assert {one.side for one in made.contents[file].regions} == {"left"}


@pytest.mark.long
def test_maps_are_the_dose_function_and_fractions_the_neighbours_of_the_masks(made: Samples) -> None:
    """By highdicom, whose values are those of the README."""
    exact = made.contents["map_float.dcm"].map
    steps = made.contents["map_integer.dcm"].map
    assert exact is not None
    assert steps is not None
    assert (exact.stored, steps.stored, exact.unit, exact.quantity) == ("float32", "uint16", "Gy", "Absorbed Dose")
    assert max(abs(a.value - b.value) for a, b in zip(exact.examples, steps.examples, strict=True)) <= 0.0051
    for file, found in (("map_float.dcm", exact), ("map_integer.dcm", steps)):
        volume = highdicom.imread(made.folder / "objects" / file).get_volume(apply_real_world_transform=True)
        for place in found.examples:
            where = volume.map_reference_to_indices(np.array([place.position_mm]), round_output=True)[0]
            assert volume.array[tuple(where)] == pytest.approx(place.value, abs=1e-4)
            points = np.array(place.position_mm)
            assert place.value == pytest.approx(float(phantom_dose(points, SMALL.carina)), abs=0.0051)
    truth = make_phantom(SMALL).masks
    seg = highdicom.seg.segread(made.folder / "objects" / "seg_fractional.dcm")
    array = seg.get_volume(combine_segments=False, allow_missing_positions=True).array
    assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == [
        "heart",
        "lung_left",
        "lung_right",
    ]
    for number, name in enumerate(("heart", "lung_left", "lung_right")):
        assert array[..., number].sum() == pytest.approx(truth[name].sum(), rel=1e-3)


@pytest.mark.long
def test_dcmjs_reads_every_object(made: Samples, tmp_path: Path) -> None:
    """Segments, ROIs, frames, numbers and pixels of every object, as pydicom has them."""
    paths = sorted((made.folder / "objects").glob("*.dcm"))
    found = read_by_dcmjs(paths, tmp_path)
    for path, theirs in zip(paths, found, strict=True):
        data = pydicom.dcmread(path)
        numbers = sum(one.keyword == "ValueType" and one.value == "NUM" for one in data.iterall())
        assert (theirs["uid"], theirs["modality"]) == (data.SOPInstanceUID, data.Modality)
        assert theirs["frames"] == int(data.get("NumberOfFrames", 0)), path.name
        assert theirs["labels"] == [one.SegmentLabel for one in data.get("SegmentSequence", ())], path.name
        assert theirs["rois"] == [one.ROIName for one in data.get("StructureSetROISequence", ())], path.name
        assert theirs["numbers"] == numbers, path.name
        if data.get("SegmentationType") == "BINARY":
            assert theirs["voxels"] == int(np.count_nonzero(data.pixel_array)), path.name
        if "FloatPixelData" in data:
            assert theirs["sum"] == pytest.approx(float(np.frombuffer(data.FloatPixelData, "<f4").sum(dtype=float)))
    reports = [one["numbers"] for one in found if one["modality"] == "SR"]
    assert min(reports) > 0


@pytest.mark.long
def test_every_object_is_valid_and_refers_to_what_is_there(made: Samples) -> None:
    series = series_of_folder(made.folder / "images")
    images = sorted((made.folder / "images").glob("*.dcm"))
    uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in images}
    assert uids >= set(series.sop_instance_uids)
    paths = sorted((made.folder / "objects").glob("*.dcm"))
    assert errors(validate_objects(paths, settings=Settings(), sources=uids)) == []


@pytest.mark.long
def test_readme_and_expected_numbers_name_every_object(made: Samples) -> None:
    text = (made.folder / "README.md").read_text("utf-8")
    expected = json.loads((made.folder / "expected.json").read_text("utf-8"))
    for sample in SAMPLES:
        if sample.file not in made.left_out:
            assert f"## {sample.file}" in text
            found = pydicom.dcmread(made.folder / "objects" / sample.file, stop_before_pixels=True)
            assert expected[sample.file]["sop_instance_uid"] == found.SOPInstanceUID
    heart = next(one for one in made.contents["seg_binary.dcm"].regions if one.name == "heart")
    assert f"| {heart.number} | heart | {heart.side} | {heart.voxels} | {heart.volume_ml:.3f} |" in text
    assert "Nobody was imaged" in text
    assert "CC0 1.0" in (made.folder / "LICENSE.txt").read_text("utf-8")
    report = highdicom.sr.srread(made.folder / "objects" / "dose_sr.dcm").content
    groups = report.get_volumetric_roi_measurement_groups()
    assert expected["dose_sr.dcm"]["report"]["groups"] == len(groups)
    assert expected["dose_sr.dcm"]["report"]["values"] == sum(len(group.get_measurements()) for group in groups)

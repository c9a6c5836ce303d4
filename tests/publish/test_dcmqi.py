"""Export for dcmqi: its programs make objects of the files, and these are equal to the ones that were exported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from tests.support.encode_cases import Grid, make_expert_masks, make_masks, make_series, make_shape

from ctenrich.codes.dcmqi import json_code
from ctenrich.dicom.seg import read_seg
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.harmonise.dcmqi import read_seg_description
from ctenrich.publish.export import ExportedObject, export_objects, export_run
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, SortedSeries, State
from ctenrich.settings import Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace, save_record

GRID = Grid()
OURS = ("@schema", "segmentAttributesFileMapping", "ContentLabel", "ContentDescription")
"""Keys that dcmqi reads and does not write."""
PIXELS = {
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelRepresentation": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelData": bytes(GRID.rows * GRID.columns),
}
"""dcmqi takes only images."""


@dataclass(frozen=True)
class Made:
    """A run with a label map and with masks that overlap, exported."""

    series: SortedSeries
    masks: SegmentMasks
    expert: SegmentMasks
    root: Path
    out: Path
    objects: tuple[ExportedObject, ...]

    def folder(self, masks: SegmentMasks) -> Path:
        return self.out / self.series.series_instance_uid / masks.product.folder

    def source(self, masks: SegmentMasks, kind: str) -> Path:
        workspace = Workspace(self.root / "run")
        return workspace.product_dir(self.series.series_instance_uid, masks.product) / "objects" / f"{kind}.dcm"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("dcmqi")
    workspace = Workspace(root / "run")
    series, volume = make_series(root / "ct", **PIXELS)
    save_record(workspace.series_dir(series.series_instance_uid) / "sorted.json", series)
    products = (make_masks(series, workspace), make_expert_masks(series, workspace))
    for masks in products:
        seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
        encode_shape_sr(make_shape(masks), masks, seg, series, settings=Settings(), workspace=workspace)
    found = export_run(workspace, "dcmqi", root / "out")
    return Made(series, *products, root, root / "out", found.objects)


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def make_seg(folder: Path, ct: Path, target: Path, *options: str) -> Path:
    """dcmqi makes a SEG of an export."""
    images = ",".join(str(folder / name) for name in read(folder / "meta.json")["segmentAttributesFileMapping"])
    given = ["--inputImageList", images, "--inputMetadata", folder / "meta.json", "--inputDICOMDirectory", ct]
    run_tool([find_tool("itkimage2segimage"), *given, "--outputDICOM", target, *options])
    return target


def described_by_dcmqi(path: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    reader = find_tool("segimage2itkimage")
    run_tool([reader, "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"])
    return read(folder / "meta.json")


def test_every_object_is_done(made: Made) -> None:
    assert [item.state for item in made.objects] == [State.DONE] * 4
    assert not [issue for item in made.objects for issue in item.issues]


@pytest.mark.parametrize("name", ["masks", "expert"])
def test_dcmqi_makes_the_seg_again(made: Made, name: str, tmp_path: Path) -> None:
    """Voxels, codes, labels, tracking and colours; absent segments are described, but dcmqi writes none."""
    masks: SegmentMasks = getattr(made, name)
    again = read_seg(make_seg(made.folder(masks), made.root / "ct", tmp_path / "seg.dcm"), made.series)
    first = read_seg(made.source(masks, "seg"), made.series)
    present = [s for s in first.segments if s.voxels]
    assert [s.label for s in again.segments] == [s.label for s in present]
    for one, other in zip(present, again.segments, strict=True):
        assert np.array_equal(first.mask(one.number), again.mask(other.number))
        assert (one.category, one.type, one.laterality, one.region) == (
            *(other.category, other.type, other.laterality, other.region),
        )
        assert (one.tracking_id, one.tracking_uid) == (other.tracking_id, other.tracking_uid)
        assert (one.algorithm_type, one.algorithm_name) == (other.algorithm_type, other.algorithm_name)
    assert not [i for i in again.issues if i.rule == "SEG_REFERENCES"]


@pytest.mark.parametrize("name", ["masks", "expert"])
def test_the_description_is_the_one_that_dcmqi_writes(made: Made, name: str, tmp_path: Path) -> None:
    """Of the same SEG; dcmqi leaves out absent segments, and writes empty texts."""
    masks: SegmentMasks = getattr(made, name)
    theirs = described_by_dcmqi(made.source(masks, "seg"), tmp_path / "theirs")
    ours = read(made.folder(masks) / "meta.json")
    absent = {s.number for s in masks.segments if s.absent}
    stated = [s for group in ours["segmentAttributes"] for s in group]
    assert {s["labelID"] for s in stated} == {s.number for s in masks.segments}
    plain = [{k: v for k, v in s.items() if k != "labelID" and v != ""} for s in stated if s["labelID"] not in absent]
    found = [s for group in theirs["segmentAttributes"] for s in group]
    by_uid = {s["TrackingUniqueIdentifier"]: s for s in found}
    for segment in plain:
        same = {k: v for k, v in by_uid[segment["TrackingUniqueIdentifier"]].items() if k != "labelID" and v != ""}
        assert segment == same
    heads = {
        k: v for k, v in ours.items() if k not in (*OURS, "segmentAttributes", "ContentLabel", "ContentDescription")
    }
    assert heads == {k: theirs.get(k) for k in heads}


def test_segment_numbers_survive_where_dcmqi_is_told_to_keep_them(made: Made, tmp_path: Path) -> None:
    options = ("--segmentationType", "labelmap", "--useLabelIDAsSegmentNumber")
    again = read_seg(make_seg(made.folder(made.masks), made.root / "ct", tmp_path / "seg.dcm", *options), made.series)
    assert {s.number: s.label for s in again.segments} == {1: "esophagus", 2: "heart", 4: "aorta"}


def test_images_are_given_in_any_order(made: Made, tmp_path: Path) -> None:
    """The description names the image of each list, so that dcmqi cannot exchange segments."""
    folder = made.folder(made.expert)
    images = ",".join(str(p) for p in sorted(folder.glob("*.nrrd"), reverse=True))
    given = ["--inputImageList", images, "--inputMetadata", folder / "meta.json"]
    target = ["--inputDICOMDirectory", made.root / "ct", "--outputDICOM", tmp_path / "seg.dcm"]
    run_tool([find_tool("itkimage2segimage"), *given, *target])
    again, first = read_seg(tmp_path / "seg.dcm"), read_seg(made.source(made.expert, "seg"))
    sizes = {s.label: s.voxels for s in first.segments if s.voxels}
    assert {s.label: s.voxels for s in again.segments} == sizes


def test_our_own_reader_takes_the_description(made: Made) -> None:
    described = read_seg_description(made.folder(made.expert) / "meta.json")
    assert [(s.file_index, s.label_id) for s in described] == [(0, 1), (0, 4), (1, 2), (2, 3)]


@pytest.mark.parametrize("name", ["masks", "expert"])
def test_dcmqi_makes_the_report_again(made: Made, name: str, tmp_path: Path) -> None:
    """Its reader gives the same of ours and of the one that it made of our JSON."""
    masks: SegmentMasks = getattr(made, name)
    target = tmp_path / "sr.dcm"
    context = ["--inputCompositeContextDirectory", made.root / "run", "--inputImageLibraryDirectory", made.root / "ct"]
    given = ["--inputMetadata", made.folder(masks) / "shape_sr.json", "--outputDICOM", target]
    run_tool([find_tool("tid1500writer"), *given, *context])
    found = []
    for path in (made.source(masks, "shape_sr"), target):
        run_tool([find_tool("tid1500reader"), "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json"])
        found.append(read(tmp_path / "sr.json"))
    first, again = found
    assert again["Measurements"] == first["Measurements"]
    assert again == first
    present = [s for s in masks.segments if not s.absent]
    assert sum(bool(g["measurementItems"]) for g in again["Measurements"]) == len(present)


def edited(path: Path, target: Path, edit: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(target)
    return target


def test_what_the_schema_has_no_place_for_is_a_warning(made: Made, tmp_path: Path) -> None:
    def second_region(dataset: Dataset) -> None:
        segment = dataset.SegmentSequence[0]
        region = segment.SegmentedPropertyTypeCodeSequence[0]
        segment.AnatomicRegionSequence = [region, region]

    def second_site(dataset: Dataset) -> None:
        group = next(i for i in dataset.ContentSequence[-1].ContentSequence if i.ValueType == "CONTAINER")
        site = next(i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site")
        number = next(i for i in group.ContentSequence if i.ValueType == "NUM")
        group.ContentSequence.append(site)
        number.MeasuredValueSequence = []

    edited(made.source(made.masks, "seg"), tmp_path / "in" / "seg.dcm", second_region)
    edited(made.source(made.masks, "shape_sr"), tmp_path / "in" / "sr.dcm", second_site)
    found = export_objects([tmp_path / "in"], "dcmqi", tmp_path / "out")
    texts = [issue.message for issue in found.issues if issue.rule == "DCMQI_DESCRIPTION"]
    assert texts[0] == "segment 1 has 2 anatomic regions: dcmqi's JSON has the first"
    assert any("has 2 finding sites" in text for text in texts)
    assert any("has no value" in text for text in texts)
    assert (tmp_path / "out" / "sr" / "sr.json").is_file()


def test_reports_without_segments_are_skipped(made: Made, tmp_path: Path) -> None:
    def without_segments(dataset: Dataset) -> None:
        for group in dataset.ContentSequence[-1].ContentSequence:
            group.ContentSequence = [
                i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning != "Referenced Segment"
            ]

    edited(made.source(made.masks, "shape_sr"), tmp_path / "in" / "sr.dcm", without_segments)
    (item,) = export_objects([tmp_path / "in"], "dcmqi", tmp_path / "out").objects
    assert (item.state, item.message) == (State.SKIPPED, "a report without a measurement group of a segment")
    assert not (tmp_path / "out").exists()


def test_what_dcmqi_cannot_hold_fails(made: Made, tmp_path: Path) -> None:
    def fractional(dataset: Dataset) -> None:
        dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
        dataset.MaximumFractionalValue, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 255, 8, 8, 7
        size = dataset.Rows * dataset.Columns * int(dataset.NumberOfFrames)
        dataset.PixelData = bytes([200]) * (size + size % 2)

    def empty(dataset: Dataset) -> None:
        dataset.PixelData = bytes(len(dataset.PixelData))

    source = made.source(made.masks, "seg")
    edited(source, tmp_path / "in" / "a.dcm", fractional)
    edited(source, tmp_path / "in" / "b.dcm", empty)
    one, other = export_objects([tmp_path / "in"], "dcmqi", tmp_path / "out").objects
    assert (one.reason, other.reason) == (Reason.BAD_MASK, Reason.EMPTY_SEGMENTATION)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- dcmqi's own schemas

SCHEMAS = os.environ.get("CTENRICH_DCMQI_SCHEMAS", "")
needs_schemas = pytest.mark.skipif(
    not SCHEMAS, reason="CTENRICH_DCMQI_SCHEMAS does not name the folder doc/schemas of a clone of dcmqi"
)


def complaints(schema: str, content: dict[str, Any]) -> list[str]:
    """What dcmqi's schema, which refers to others beside it, says against a description."""
    from jsonschema.validators import validator_for
    from referencing import Registry, Resource

    def beside(uri: str) -> Resource[Any]:
        return Resource.from_contents(read(Path(SCHEMAS, uri.rstrip("#").rpartition("/")[2])))

    found = read(Path(SCHEMAS, schema))
    return [one.message for one in validator_for(found)(found, registry=Registry(retrieve=beside)).iter_errors(content)]


@needs_schemas
def test_dcmqis_schemas_accept_what_is_written(made: Made) -> None:
    for masks in (made.masks, made.expert):
        description = read(made.folder(masks) / "meta.json")
        assert complaints("seg-schema.json", description) == []
        del description["segmentAttributes"][0][0]["SegmentedPropertyTypeCodeSequence"]
        assert complaints("seg-schema.json", description)
        report = read(made.folder(masks) / "shape_sr.json")
        assert complaints("sr-tid1500-schema.json", report) == []
        report["Measurements"][0]["measurementItems"][0]["units"] = "mm"
        assert complaints("sr-tid1500-schema.json", report)


# ---------------------------------------------------------------- dcmqi's own examples


@pytest.mark.data
def test_every_description_of_the_documentation_is_read(real_data: Callable[[str], Path]) -> None:
    paths = sorted((real_data("dcmqi") / "dcmqi" / "examples").glob("seg-example*.json"))
    assert len(paths) >= 9
    for path in paths:
        lists = read(path)["segmentAttributes"]
        expected = [(n, one) for n, group in enumerate(lists) for one in group]
        found = read_seg_description(path)
        assert len(found) == len(expected)
        for segment, (file_index, one) in zip(found, expected, strict=True):
            assert (segment.file_index, segment.label_id) == (file_index, one["labelID"])
            assert json_code(segment.type) == one["SegmentedPropertyTypeCodeSequence"]
            assert json_code(segment.category) == one["SegmentedPropertyCategoryCodeSequence"]
            modifier = one.get("SegmentedPropertyTypeModifierCodeSequence")
            assert (json_code(segment.modifier) if segment.modifier else None) == modifier
            assert segment.algorithm_type == one["SegmentAlgorithmType"]


EXAMPLES = {
    "sr-liver": "sr-tid1500-ct-liver-example",
    "sr-qual": "sr-tid1500-qualitative",
    "sr-example": "sr-tid1500-example",
    "sr-nan": "sr-tid1500-example-nan",
}
"""Report -> the JSON that dcmqi made it from."""
REMADE = ("bin2label2", "liver", "liver_heart_seg", "partial_overlaps", "reordered", "single_input")
"""SEGs that dcmqi made of the descriptions in its documentation."""


@pytest.mark.data
@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_reports_of_dcmqi_give_their_json_back(name: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """But for the UID that dcmqi added, its default procedure, names of files, and the item that it dropped (NaN)."""
    folder = real_data("dcmqi") / "dcmqi"
    source = read(folder / "examples" / f"{EXAMPLES[name]}.json")
    named = [folder / "made" / f"{name}.dcm", folder / "segmentations" / "liver.dcm"]
    named += [folder / "sr-example" / "seg.dcm", folder / "sr-example" / "rwvm.dcm"]
    export_objects(named, "dcmqi", tmp_path, source=folder / "segmentations" / "ct-3slice")
    ours = read(tmp_path / name / f"{name}.json")
    assert ours["imageLibrary"] == source.pop("imageLibrary")
    assert ours.pop("compositeContext") == source.pop("compositeContext")
    assert ours.pop("procedureReported")["CodeMeaning"] == "Imaging procedure"
    for group, other in zip(ours["Measurements"], source["Measurements"], strict=True):
        del group["TrackingUniqueIdentifier"]
        other["measurementItems"] = [i for i in other["measurementItems"] if i["value"] != "nan"]
    del ours["imageLibrary"]
    assert ours == source


@pytest.mark.data
@pytest.mark.long
@pytest.mark.parametrize("name", REMADE)
def test_segs_of_dcmqi_are_made_again(name: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The descriptions that dcmqi writes of its own SEG and of the one that it makes of our export are equal."""
    folder = real_data("dcmqi") / "dcmqi"
    first, ct = folder / "made" / f"{name}.dcm", folder / "segmentations" / "ct-3slice"
    export_objects([first], "dcmqi", tmp_path / "out", source=ct)
    again = make_seg(tmp_path / "out" / name, ct, tmp_path / "again.dcm")
    assert described_by_dcmqi(first, tmp_path / "a") == described_by_dcmqi(again, tmp_path / "b")
    one, other = read_seg(first), read_seg(again)
    assert [s.voxels for s in one.segments] == [s.voxels for s in other.segments]
    for left, right in zip(one.segments, other.segments, strict=True):
        assert np.array_equal(one.mask(left.number), other.mask(right.number))

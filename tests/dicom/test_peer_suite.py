"""Test objects of peers: SEGs of dcmqi and highdicom, and six TID 1500 documents, are read as their makers do."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray

from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.sr import read_sr
from ctenrich.tools import find_tool, run_tool

pytestmark = [pytest.mark.data, pytest.mark.long]

MADE = (
    "liver", "liver-labelmap-direct", "liver_spine-labelmap", "liver_spine-labelmap-labelID", "gapped",
    "partial_overlaps", "liver_heart_seg", "reordered", "single_input", "deflate", "bin2label2",
)  # fmt: skip
"""What dcmqi writes from its own test inputs."""
STORED = (
    "segmentations/liver.dcm", "segmentations/partial_overlaps.dcm", "segmentations/sparse-labelmap-noppv.dcm",
    "segmentations/sparse-labelmap-ppv5.dcm", "segmentations/23x38x3/seg/label.seg",
    "segmentations/24x38x3/seg/label.seg", "sr-example/seg.dcm",
)  # fmt: skip
"""SEGs among those inputs."""
REPORTS = {
    "sr-liver": "sr-tid1500-ct-liver-example",
    "sr-qual": "sr-tid1500-qualitative",
    "sr-example": "sr-tid1500-example",
    "sr-nan": "sr-tid1500-example-nan",
}
"""Document -> the JSON that dcmqi made it from."""


def positions(array: NDArray[np.bool_], affine: NDArray[np.float64]) -> set[tuple[float, ...]]:
    """Centres of voxels in the patient, mm, LPS, rounded to a hundredth."""
    k, j, i = np.nonzero(array)
    points = (affine @ np.stack([i, j, k, np.ones_like(i)]))[:3].T
    return {tuple(point) for point in (np.round(points, 2) + 0.0).tolist()}


def itk_affine(image: Any) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


@pytest.mark.parametrize("name", [*(f"made/{name}.dcm" for name in MADE), *STORED])
def test_segs_of_dcmqi_are_read_as_dcmqi_reads_them(
    name: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Equal as sets of patient positions, segment by segment."""
    path = real_data("dcmqi") / "dcmqi" / name
    ours = read_seg(path)
    reader = find_tool("segimage2itkimage")
    run_tool([reader, "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd"])
    files = {int(p.stem): p for p in tmp_path.glob("*.nrrd")}
    whole = len(files) == 1  # dcmqi writes disjoint label maps as one image
    for segment in ours.segments:
        image = SimpleITK.ReadImage(str(files[1] if whole else files[segment.number]))
        theirs = SimpleITK.GetArrayFromImage(image)
        theirs = theirs == segment.number if ours.segmentation_type == "LABELMAP" else theirs != 0
        found = positions(ours.mask(segment.number), np.array(ours.grid.affine_lps))
        assert len(found) == segment.voxels > 0
        assert _same(found, positions(theirs, itk_affine(image))), segment


def _same(ours: set[tuple[float, ...]], theirs: set[tuple[float, ...]]) -> bool:
    """Equal but for a last digit that was rounded to the other side."""
    if len(ours) != len(theirs):
        return False
    one, other = (np.array(sorted(points)) for points in (ours, theirs))
    return ours == theirs or bool(np.abs(np.sort(one, axis=0) - np.sort(other, axis=0)).max() <= 0.0101)


@pytest.mark.parametrize("name", ["liver_seg", "spine_seg", "heart_seg"])
def test_segs_are_the_images_that_dcmqi_made_them_from(name: str, real_data: Callable[[str], Path]) -> None:
    """Without dcmqi's reader: the NRRD that went in."""
    folder = real_data("dcmqi") / "dcmqi"
    image = SimpleITK.ReadImage(str(folder / "segmentations" / f"{name}.nrrd"))
    truth = positions(SimpleITK.GetArrayFromImage(image) != 0, itk_affine(image))
    seg = read_seg(folder / "made" / "reordered.dcm")
    found = [positions(seg.mask(s.number), np.array(seg.grid.affine_lps)) for s in seg.segments]
    assert sum(_same(one, truth) for one in found) == 1


@pytest.mark.parametrize(
    "name",
    ["ct_binary", "ct_binary_overlap", "ct_binary_single_frame", "ct_binary_fractional", "ct_true_fractional"],
)
def test_segs_of_highdicom_are_read_as_highdicom_reads_them(name: str, real_data: Callable[[str], Path]) -> None:
    path = real_data("ref_objects") / "ref_objects" / "highdicom" / f"seg_image_{name}.dcm"
    ours, theirs = read_seg(path), hd.seg.segread(path)
    frames = theirs.pixel_array.reshape(-1, theirs.Rows, theirs.Columns).astype(np.float64)
    scale = float(theirs.get("MaximumFractionalValue", 1))
    groups = theirs.PerFrameFunctionalGroupsSequence
    numbers = [int(g.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for g in groups]
    for segment in ours.segments:
        own = [frames[n] / scale for n, number in enumerate(numbers) if number == segment.number]
        fractions = ours.fraction(segment.number)
        assert Counter(np.round(fractions[fractions > 0], 4).tolist()) == Counter(
            np.round(np.concatenate([f[f > 0] for f in own]).astype(np.float32), 4).tolist()
        )
        assert segment.voxels == sum(int(np.count_nonzero(f >= 0.5)) for f in own)


# ---------------------------------------------------------------- reports


def stated(items: Iterable[dict[str, Any]]) -> list[tuple[str, str, str, float]]:
    """(quantity, unit, derivation, value) of dcmqi's measurement items that are numbers."""
    return [
        (
            item["quantity"]["CodeValue"],
            item["units"]["CodeValue"],
            item.get("derivationModifier", {}).get("CodeValue", ""),
            float(item["value"]),
        )
        for item in items
        if math.isfinite(float(item["value"]))
    ]


@pytest.mark.parametrize("name", REPORTS)
def test_reports_of_dcmqi_are_the_json_that_they_were_made_from(name: str, real_data: Callable[[str], Path]) -> None:
    folder = real_data("dcmqi") / "dcmqi"
    source = json.loads((folder / "examples" / f"{REPORTS[name]}.json").read_text("utf-8"))["Measurements"]
    report = read_sr(folder / "made" / f"{name}.dcm")
    assert len(report.groups) == len(source)
    for group, item in zip(report.groups, source, strict=True):
        found = [
            (v.quantity.value, v.unit.value if v.unit else "", v.derivation.value if v.derivation else "", v.value)
            for v in group.values
        ]
        assert found == stated(item["measurementItems"])
        assert (group.tracking_id, group.segment_number) == (item["TrackingIdentifier"], item["ReferencedSegment"])
        assert group.segment_instance_uid == item["segmentationSOPInstanceUID"]
        assert group.source_series_uid == item["SourceSeriesForImageSegmentation"]
        assert group.finding is not None
        assert group.finding.value == item["Finding"]["CodeValue"]
        assert [s.code.value for s in group.sites] == [item["FindingSite"]["CodeValue"]]
        evaluations = [(e.name.value, e.code.value if e.code else e.text) for e in group.evaluations]
        assert evaluations == [
            (e["conceptCode"]["CodeValue"], e["conceptValue"]["CodeValue"] if isinstance(e["conceptValue"], dict)
             else e["conceptValue"])
            for e in item.get("qualitativeEvaluations", [])
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["sr_document", "sr_document_with_multiple_groups"])
def test_reports_of_highdicom_hold_the_numbers_of_their_tree(name: str, real_data: Callable[[str], Path]) -> None:
    """pydicom's walk over all NUM items is the reference: highdicom's own class refuses the older of the two."""
    path = real_data("ref_objects") / "ref_objects" / "highdicom" / f"{name}.dcm"
    numbers = [
        (item.ConceptNameCodeSequence[0].CodeValue, float(item.MeasuredValueSequence[0].NumericValue))
        for item in _items(pydicom.dcmread(path))
        if item.get("ValueType") == "NUM" and item.get("RelationshipType") == "CONTAINS"
    ]
    found = [(v.quantity.value, v.value) for group in read_sr(path).groups for v in group.values]
    assert numbers
    assert [code for code, _ in found] == [code for code, _ in numbers]
    assert [value for _, value in found] == pytest.approx([value for _, value in numbers])


def _items(dataset: Any) -> Iterable[Any]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)

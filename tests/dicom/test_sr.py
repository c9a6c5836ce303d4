"""Reading SRs: ours value for value, and other makers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from tests.support.encode_cases import (
    make_expert_masks,
    make_landmarks,
    make_regions,
    make_scores,
    make_series,
    make_shape,
)

from ctenrich.codes.mappings import load_features
from ctenrich.dicom.sr import read_sr, rows_of
from ctenrich.encode.landmarks_sr import encode_landmarks_sr
from ctenrich.encode.regions_sr import encode_regions_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import InputError
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace


def test_shape_values_come_back_exactly(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_expert_masks(series, workspace)
    shape = make_shape(masks)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    written = encode_shape_sr(shape, masks, seg, series, settings=Settings(), workspace=workspace)
    report = read_sr(workspace.resolve(series.series_instance_uid, written.path))
    names = {code.quantity.value: name for name, code in load_features().items()}
    assert len(report.groups) == 4
    for group, expected in zip(report.groups, shape.segments, strict=True):
        assert group.segment_number == expected.number
        assert group.segment_instance_uid == seg.sop_instance_uid
        assert group.source_series_uid == series.series_instance_uid
        assert {names[v.quantity.value]: v.value for v in group.values} == expected.values
    lung, cord = report.groups[1], report.groups[3]
    assert lung.sites[0].laterality is not None
    assert lung.sites[0].laterality.meaning == "Left"
    assert cord.evaluations[0].code is not None
    assert cord.evaluations[0].code.meaning == "Absent"
    assert lung.algorithm == ("ctenrich shape", "0.1.0")
    rows = rows_of(report)
    assert len(rows) == sum(len(s.values) for s in shape.segments) + 1
    assert rows[-1]["evaluation"] == "Absent"
    assert set(report.evidence) == {*series.sop_instance_uids, seg.sop_instance_uid}


def test_landmarks_and_regions_come_back(tmp_path: Path, workspace: Workspace) -> None:
    series, _ = make_series(tmp_path / "ct")
    scores, landmarks, regions = make_scores(series), make_landmarks(series), make_regions(series)
    one = encode_landmarks_sr(landmarks, scores, series, settings=Settings(), workspace=workspace)
    two = encode_regions_sr(regions, scores, series, settings=Settings(), workspace=workspace)
    report = read_sr(workspace.resolve(series.series_instance_uid, one.path))
    places = [item.sop_instance_uid for item in landmarks.items if item.slice_index is not None]
    assert [g.source_images for g in report.groups] == [(uid,) for uid in places]
    start = report.groups[2].sites[0]
    assert (start.code.meaning, start.topography.meaning if start.topography else "") == ("Lung", "Bottom")
    report = read_sr(workspace.resolve(series.series_instance_uid, two.path))
    assert [len(g.sites) for g in report.groups] == [len(item.regions) for item in regions.slices]
    assert [g.values[0].value if g.values else None for g in report.groups] == [i.score for i in regions.slices]
    assert len(rows_of(report)) == len(series.slices)


def test_not_a_number_and_a_damaged_tree(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_expert_masks(series, workspace)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    written = encode_shape_sr(make_shape(masks), masks, seg, series, settings=Settings(), workspace=workspace)
    path = workspace.resolve(series.series_instance_uid, written.path)
    dataset = pydicom.dcmread(path)
    group = next(
        i for i in dataset.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"
    ).ContentSequence[0]
    nums = [i for i in group.ContentSequence if i.ValueType == "NUM"]
    nums[0].MeasuredValueSequence = []
    del nums[1].ConceptNameCodeSequence
    changed = tmp_path / "changed.dcm"
    dataset.save_as(changed)
    values = read_sr(changed).groups[0].values
    assert values[0].value is None
    assert len(values) == len(nums) - 1
    for bad in (Path(series.slices[0].path), workspace.resolve(series.series_instance_uid, seg.path)):
        with pytest.raises(InputError):
            read_sr(bad)


@pytest.mark.data
def test_others_reports(real_data: Callable[[str], Path]) -> None:
    others = real_data("ref_objects") / "ref_objects"
    iowa = read_sr(others / "dcmqi_data/sr-example/sr.dcm")
    (group,) = iowa.groups
    assert (group.tracking_id, group.segment_number) == ("primary tumor", 1)
    assert len(group.values) == 22
    mean = next(v for v in group.values if v.derivation is not None and v.derivation.meaning == "Mean")
    assert (mean.quantity.meaning, mean.value) == ("SUVbw", 6.01529)
    seg = pydicom.dcmread(others / "dcmqi_data/sr-example/seg.dcm", stop_before_pixels=True)
    assert group.segment_instance_uid == seg.SOPInstanceUID
    several = read_sr(others / "highdicom/sr_document_with_multiple_groups.dcm")
    assert len(several.groups) == 4
    assert several.groups[0].values[0].value == pytest.approx(-119.0738525390625)
    old = read_sr(others / "highdicom/sr_document.dcm").groups[0]
    assert old.sites[0].code.meaning == "Cervico-thoracic spine"
    assert old.values[0].value == 1.7

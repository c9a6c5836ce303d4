"""The expert segmenter: numbers of real series, ties, names, notes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ctenrich.contours import ExpertSegmenter, grid_of
from ctenrich.errors import InputError, UsageError
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import Severity
from ctenrich.settings import ContoursSettings, Settings
from tests.support.contours import make_series, sorted_real, to_mm, write_rtstruct

SQUARE = [(4.5, 4.5), (9.5, 4.5), (9.5, 9.5), (4.5, 9.5)]
SHIFTED = [(7.5, 4.5), (12.5, 4.5), (12.5, 9.5), (7.5, 9.5)]


def segment(series, workspace, inputs=None, **contours):
    settings = Settings(contours=ContoursSettings(**contours))
    return ExpertSegmenter().segment(inputs or {}, series, settings=settings, workspace=workspace)


def with_rtstruct(tmp_path, rois, name="rt.dcm", **options):
    series = make_series()
    drawn = [(roi, [("CLOSED_PLANAR", to_mm(series, k, polygon)) for k, polygon in parts]) for roi, parts in rois]
    path = write_rtstruct(tmp_path / name, series, drawn, **options)
    return replace(series, companions=(str(path),))


def test_overlaps_names_absent_and_unmapped(tmp_path, workspace):
    rois = [
        ("Heart", [(2, SQUARE)]),
        ("Lung-Left", [(2, SHIFTED)]),
        ("Isocenter 1", [(2, SQUARE)]),
        ("Esophagus", []),
        ("GTV-1", [(1, SQUARE)]),
    ]
    masks = segment(with_rtstruct(tmp_path, rois), workspace)
    got = [(s.number, s.name, s.source_label, s.voxels) for s in masks.segments]
    assert got == [
        (1, "heart", "Heart", 25),
        (2, "lung_left", "Lung-Left", 25),
        (3, "esophagus", "Esophagus", 0),
        (4, "gtv_1", "GTV-1", 25),
    ]
    assert masks.algorithm_type == "MANUAL"
    assert masks.label_map_path is None
    both = full_mask(masks, 1, workspace) & full_mask(masks, 2, workspace)
    assert both.sum() == 10
    rules = {(i.rule, i.severity) for i in masks.issues}
    assert ("contours.unmapped", Severity.NOTE) in rules
    assert ("contours.empty", Severity.WARNING) in rules
    assert masks.source_sop_instance_uid == "2.25.4000.9"


TWO_HEARTS = [("Heart", [(2, SQUARE)]), ("Aorta", [(1, SQUARE)]), ("HEART", [(2, SHIFTED)])]


@pytest.mark.parametrize(
    ("same_name", "expected", "rule"),
    [
        ("separate", [("heart", "Heart", 25), ("aorta", "Aorta", 25), ("heart#2", "HEART", 25)], "contours.same_name"),
        ("merge", [("heart", "Heart + HEART", 40), ("aorta", "Aorta", 25)], "contours.united"),
        ("first", [("heart", "Heart", 25), ("aorta", "Aorta", 25)], "contours.dropped"),
    ],
)
def test_several_rois_of_one_name(tmp_path, workspace, same_name, expected, rule):
    masks = segment(with_rtstruct(tmp_path, TWO_HEARTS), workspace, same_name=same_name)
    assert [(s.name, s.source_label, s.voxels) for s in masks.segments] == expected
    assert [s.number for s in masks.segments] == list(range(1, len(expected) + 1))
    (issue,) = (i for i in masks.issues if i.rule == rule)
    assert issue.severity is Severity.WARNING
    assert "'Heart', 'HEART'" in issue.message


def test_rois_without_a_mapping_are_taken_along_by_a_pattern(tmp_path, workspace):
    rois = [
        ("PTV 70Gy", [(2, SQUARE)]),
        ("ptv-70gy", [(1, SQUARE)]),
        ("Heart", [(2, SHIFTED)]),
        ("Couch", [(2, SQUARE)]),
    ]
    masks = segment(with_rtstruct(tmp_path, rois), workspace, rois=("ptv.*",))
    assert [(s.name, s.source_label) for s in masks.segments] == [
        ("roi:ptv_70gy", "PTV 70Gy"),
        ("roi:ptv_70gy#2", "ptv-70gy"),
        ("heart", "Heart"),
    ]
    dropped = [i.message for i in masks.issues if i.rule == "contours.unmapped"]
    assert len(dropped) == 1
    assert "'Couch'" in dropped[0]


def test_a_pattern_must_match_the_whole_name_and_be_one(tmp_path, workspace):
    with pytest.raises(InputError) as caught:
        segment(with_rtstruct(tmp_path, [("PTV-1", [(2, SQUARE)])]), workspace, rois=("PTV",))
    assert caught.value.reason is Reason.NO_MAPPED_ROI
    with pytest.raises(UsageError) as refused:
        segment(with_rtstruct(tmp_path, [("PTV-1", [(2, SQUARE)])]), workspace, rois=("PTV(",))
    assert refused.value.reason is Reason.BAD_SETTINGS


def test_another_series_is_refused(tmp_path, workspace):
    options = {"series_uid": "2.25.1", "image_uids": ["2.25.2"]}
    with pytest.raises(InputError) as caught:
        segment(with_rtstruct(tmp_path, [("Heart", [(2, SQUARE)])], frame_uid="2.25.3", **options), workspace)
    assert caught.value.reason is Reason.NO_REFERENCE
    masks = segment(with_rtstruct(tmp_path, [("Heart", [(2, SQUARE)])], **options), workspace)
    assert "contours.link" in {i.rule for i in masks.issues}


def test_no_structure_set_and_no_mapped_name(tmp_path, workspace):
    with pytest.raises(InputError) as caught:
        segment(make_series(), workspace)
    assert caught.value.reason is Reason.NO_EXPERT
    with pytest.raises(InputError) as caught:
        segment(with_rtstruct(tmp_path, [("Isocenter 1", [(2, SQUARE)]), ("PTV", [(2, SQUARE)])]), workspace)
    assert caught.value.reason is Reason.NO_MAPPED_ROI
    assert "'Isocenter 1', 'PTV'" in caught.value.message
    assert not workspace.root.exists()


def test_the_newest_structure_set_is_taken_and_broken_ones_do_not_stop_it(tmp_path, workspace):
    old = with_rtstruct(tmp_path, [("Heart", [(1, SQUARE)])], name="old.dcm", date="20190101", uid="2.25.71")
    new = with_rtstruct(tmp_path, [("Heart", [(3, SQUARE)])], name="new.dcm", date="20210101", uid="2.25.72")
    (tmp_path / "broken.dcm").write_bytes(b"x" * 500)
    series = replace(new, companions=(*new.companions, str(tmp_path / "broken.dcm"), *old.companions))
    masks = segment(series, workspace)
    assert masks.source_sop_instance_uid == "2.25.72"
    assert {"contours.other", "contours.unreadable"} <= {i.rule for i in masks.issues}
    assert all("broken" not in i.object for i in masks.issues)


def test_two_readings_give_the_same_record(tmp_path, workspace):
    series = with_rtstruct(tmp_path, [("Heart", [(2, SQUARE)]), ("GTV-1", [(1, SQUARE)])])
    one, two = segment(series, workspace), segment(series, workspace)
    assert replace(one, timings={}) == replace(two, timings={})


REAL = {
    "LUNG1-005": {
        "heart": (267_979, 3),
        "esophagus": (19_289, 0),
        "spinal_cord": (23_645, 0),
        "gtv_1": (29_176, 0),
        "lung_left": (550_453, 20),
        "lung_right": (488_364, 20),
    },
    "LUNG1-001": {"lung_left": (795_750, 20), "lung_right": (1_036_804, 20)},
    "LUNG1-002-RT": {"gtv_1": (125_204, 0), "lung_left": (686_332, 2), "heart": (373_246, 10)},
}
HOLES = {"LUNG1-001": {"lung_left": 0.76, "lung_right": 1.46}, "LUNG1-005": {"lung_right": 4.9, "lung_left": 5.9}}
"""cm3 that lie inside the lungs' inner contours."""


@pytest.mark.parametrize("archive", REAL)
def test_real_series_have_the_voxels_that_others_count(archive, real_data, workspace):
    masks = segment(sorted_real(real_data(archive)), workspace)
    voxels = {s.name: s.voxels for s in masks.segments}
    for name, (expected, tolerance) in REAL[archive].items():
        assert abs(voxels[name] - expected) <= tolerance, name
    if archive == "LUNG1-005":
        full = {s.name: full_mask(masks, s.number, workspace) for s in masks.segments}
        lungs = full["lung_left"] | full["lung_right"]
        assert abs(int(np.count_nonzero(full["heart"] & lungs)) - 1_514) <= 3
        assert np.count_nonzero(full["esophagus"] & full["gtv_1"]) == 98
    if archive == "LUNG1-002-RT":
        (remark,) = (i for i in masks.issues if i.rule == "contours.references")
        assert remark.message.startswith("111 of 222 images")


@pytest.mark.parametrize("archive", HOLES)
def test_the_holes_of_real_lungs_are_cut_out(archive, real_data, workspace):
    series = sorted_real(real_data(archive))
    found = {}
    for nesting in ("holes", "union"):
        masks = segment(series, workspace, nesting=nesting)
        found[nesting] = {s.name: s.voxels for s in masks.segments}
    for name, expected in HOLES[archive].items():
        lost = found["union"][name] - found["holes"][name]
        assert lost * grid_of(series).voxel_volume / 1000 == pytest.approx(expected, abs=0.1)


def test_a_real_structure_set_of_another_patient_is_refused(real_data, workspace):
    one, other = sorted_real(real_data("LUNG1-005")), sorted_real(real_data("LUNG1-001"))
    with pytest.raises(InputError) as caught:
        segment(replace(one, companions=other.companions), workspace)
    assert caught.value.reason is Reason.NO_REFERENCE

"""The expert segmenter: numbers of real series, ties, names, notes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ctenrich.contours import ExpertSegmenter
from ctenrich.errors import InputError
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import Severity
from ctenrich.settings import Settings
from tests.support.contours import make_series, sorted_real, to_mm, write_rtstruct

SQUARE = [(4.5, 4.5), (9.5, 4.5), (9.5, 9.5), (4.5, 9.5)]
SHIFTED = [(7.5, 4.5), (12.5, 4.5), (12.5, 9.5), (7.5, 9.5)]


def segment(series, workspace):
    return ExpertSegmenter().segment({}, series, settings=Settings(), workspace=workspace)


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


def test_two_rois_of_one_name_are_united(tmp_path, workspace):
    masks = segment(with_rtstruct(tmp_path, [("Heart", [(2, SQUARE)]), ("HEART", [(2, SHIFTED)])]), workspace)
    (heart,) = masks.segments
    assert (heart.voxels, heart.source_label) == (40, "Heart + HEART")
    assert "contours.united" in {i.rule for i in masks.issues}


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
        segment(with_rtstruct(tmp_path, [("Isocenter 1", [(2, SQUARE)])]), workspace)
    assert caught.value.reason is Reason.NO_MAPPED_ROI
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
        "lung_left": (552_510, 20),
        "lung_right": (490_062, 20),
    },
    "LUNG1-002-RT": {"gtv_1": (125_204, 0)},
}


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
    else:
        (remark,) = (i for i in masks.issues if i.rule == "contours.references")
        assert remark.message.startswith("111 of 222 images")


def test_a_real_structure_set_of_another_patient_is_refused(real_data, workspace):
    one, other = sorted_real(real_data("LUNG1-005")), sorted_real(real_data("LUNG1-001"))
    with pytest.raises(InputError) as caught:
        segment(replace(one, companions=other.companions), workspace)
    assert caught.value.reason is Reason.NO_REFERENCE

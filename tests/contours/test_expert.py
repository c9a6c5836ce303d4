"""The expert segmenter: numbers of real series, ties, names, notes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctenrich.contours.expert import ExpertSegmenter
from ctenrich.contours.raster import grid_of
from ctenrich.errors import InputError, UsageError
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import Severity, Volume
from ctenrich.settings import ContoursSettings, Settings
from ctenrich.workspace import save_array
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
    assert not list(workspace.root.rglob("*.npy"))


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


def tutorial_numbers() -> dict[str, int]:
    """The numbers that docs/tutorial.md promises to its readers."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text("utf-8")
    return {name: int(n.replace(",", "")) for name, n in re.findall(r"^\| \d \| (\w+) \| ([\d,]+) \|$", text, re.M)}


@pytest.mark.parametrize("archive", REAL)
def test_real_series_have_the_voxels_that_others_count(archive, real_data, workspace):
    masks = segment(sorted_real(real_data(archive)), workspace)
    voxels = {s.name: s.voxels for s in masks.segments}
    for name, (expected, tolerance) in REAL[archive].items():
        assert abs(voxels[name] - expected) <= tolerance, name
    if archive == "LUNG1-005":
        assert voxels == tutorial_numbers()
        full = {s.name: full_mask(masks, s.number, workspace) for s in masks.segments}
        lungs = full["lung_left"] | full["lung_right"]
        assert abs(int(np.count_nonzero(full["heart"] & lungs)) - 1_514) <= 3
        assert np.count_nonzero(full["esophagus"] & full["gtv_1"]) == 98
    if archive == "LUNG1-002-RT":
        (remark,) = (i for i in masks.issues if i.rule == "contours.references")
        assert "111 of 222 images" in remark.message
        assert "0 of 111 of those on which contours were drawn" in remark.message


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


# ---------------------------------------------------------------- what is not as it should be


def issues_of(masks):
    return {i.rule: (i.severity, i.message) for i in masks.issues}


def damaged(tmp_path, edit, rois=None):
    """A series whose RTSTRUCT was edited after writing."""
    series = with_rtstruct(tmp_path, rois or [("Heart", [(k, SQUARE) for k in range(4)]), ("Aorta", [(1, SQUARE)])])
    ds = pydicom.dcmread(series.companions[0])
    edit(ds)
    ds.save_as(series.companions[0])
    return series


def contours_of(ds, roi=0):
    return ds.ROIContourSequence[roi].ContourSequence


def without_type(contour):
    del contour.ContourGeometricType


def without_last_number(contour):
    contour.ContourData = list(contour.ContourData)[:-1]


@pytest.mark.parametrize(
    ("edit", "words"),
    [(without_type, "Contour Geometric Type is missing"), (without_last_number, "coordinates are missing")],
)
def test_one_damaged_contour_is_an_error_with_its_cause(tmp_path, workspace, edit, words):
    masks = segment(damaged(tmp_path, lambda ds: edit(contours_of(ds)[1])), workspace)
    assert [(s.name, s.voxels) for s in masks.segments] == [("heart", 75), ("aorta", 25)]
    severity, message = issues_of(masks)["contours.unreadable"]
    assert severity is Severity.ERROR
    assert message == f"1 of 4 contours: cannot be read: {words}"
    assert issues_of(masks)["contours.missing_slices"][1].startswith("1 of 2 slices")


def test_a_roi_that_is_damaged_throughout_is_no_segment_instead_of_an_absent_one(tmp_path, workspace):
    def edit(ds):
        for contour in contours_of(ds):
            without_type(contour)

    masks = segment(damaged(tmp_path, edit), workspace)
    assert [(s.number, s.name) for s in masks.segments] == [(1, "aorta")]
    severity, message = issues_of(masks)["contours.damaged"]
    assert severity is Severity.ERROR
    assert message.startswith("ROI 'Heart': it has no voxel, and 4 of its contours cannot be read")


def test_nothing_but_damage_is_a_decode_error_that_names_the_rois(tmp_path, workspace):
    def edit(ds):
        for roi in (0, 1):
            for contour in contours_of(ds, roi):
                without_last_number(contour)

    with pytest.raises(InputError, match=r"'Heart'.*'Aorta'") as caught:
        segment(damaged(tmp_path, edit), workspace)
    assert caught.value.reason is Reason.DECODE_ERROR


def moved(ds, roi, distance):
    for contour in contours_of(ds, roi):
        values = [float(v) for v in contour.ContourData]
        contour.ContourData = [f"{v + distance * (n % 3 == 2):.4f}" for n, v in enumerate(values)]


def test_a_roi_off_the_slices_is_unplaceable(tmp_path, workspace):
    masks = segment(damaged(tmp_path, lambda ds: moved(ds, 1, 400)), workspace)
    assert [s.name for s in masks.segments] == ["heart"]
    assert issues_of(masks)["contours.unplaceable"][0] is Severity.ERROR

    def both(ds):
        moved(ds, 0, 400)
        moved(ds, 1, 400)

    with pytest.raises(InputError) as caught:
        segment(damaged(tmp_path, both), workspace)
    assert caught.value.reason is Reason.CONTOURS_OFF_SLICES


TINY = [(4.2, 4.2), (4.4, 4.2), (4.4, 4.4)]
OUTSIDE = [(104.5, 4.5), (109.5, 4.5), (109.5, 9.5), (104.5, 9.5)]


def test_damage_beside_contours_without_a_voxel_is_no_absence(tmp_path, workspace):
    rois = [("Heart", [(1, TINY), (2, SQUARE)]), ("Aorta", [(1, SQUARE)]), ("Esophagus", [(1, TINY)])]
    masks = segment(damaged(tmp_path, lambda ds: without_type(contours_of(ds)[1]), rois), workspace)
    assert [(s.name, s.voxels) for s in masks.segments] == [("aorta", 25), ("esophagus", 0)]
    assert issues_of(masks)["contours.damaged"][0] is Severity.ERROR
    assert issues_of(masks)["contours.empty"] == (Severity.WARNING, "the contours enclose no voxel centre")


def test_a_roi_beside_the_image_is_unplaceable(tmp_path, workspace):
    masks = segment(with_rtstruct(tmp_path, [("Heart", [(1, OUTSIDE)]), ("Aorta", [(1, SQUARE)])]), workspace)
    assert [s.name for s in masks.segments] == ["aorta"]
    assert issues_of(masks)["contours.unplaceable"][1].startswith("ROI 'Heart': 1 contours leave the image")


def test_only_points_and_open_lines_are_no_segment(tmp_path, workspace):
    def edit(ds):
        contours_of(ds, 0)[0].ContourGeometricType = "OPEN_PLANAR"
        for contour in contours_of(ds, 0)[1:]:
            contour.ContourGeometricType = "POINT"

    masks = segment(damaged(tmp_path, edit), workspace)
    assert [s.name for s in masks.segments] == ["aorta"]
    found = issues_of(masks)
    assert found["contours.points"][1].startswith("3 of 4 contours: single points")
    assert found["contours.open"][1].startswith("1 of 4 contours: open lines")
    assert found["contours.no_area"][0] is Severity.WARNING
    with pytest.raises(InputError) as caught:
        segment(damaged(tmp_path, edit, [("Heart", [(k, SQUARE) for k in range(4)])]), workspace)
    assert caught.value.reason is Reason.EMPTY_SEGMENTATION


def test_contours_on_every_second_slice_between_slices_and_beyond_the_image_are_warnings(tmp_path, workspace):
    wide = [(-9, 4.5), (9.5, 4.5), (9.5, 9.5), (-9, 9.5)]
    series = damaged(tmp_path, lambda ds: moved(ds, 0, 0.9), [("Heart", [(0, SQUARE), (2, SQUARE), (4, wide)])])
    found = issues_of(segment(series, workspace))
    assert found["contours.missing_slices"] == (
        Severity.WARNING,
        "2 of 3 slices between the first and the last contour have none",
    )
    assert found["contours.between_slices"][1].startswith("3 contours are not on a slice (up to 0.90 mm away)")
    assert found["contours.beyond_image"] == (Severity.WARNING, "1 contours leave the image and were cut at its border")


RING = [(2.5, 2.5), (22.5, 2.5), (22.5, 22.5), (2.5, 22.5)]
INNER = [(5.5, 5.5), (5.5, 15.5), (15.5, 15.5), (15.5, 5.5)]


@pytest.mark.parametrize(
    ("nesting", "voxels", "rule", "severity"),
    [
        ("holes", 300, "contours.holes", Severity.NOTE),
        ("union", 400, "contours.holes", Severity.WARNING),
        ("xor", 300, "contours.holes", Severity.NOTE),
    ],
)
def test_a_ring_by_each_rule_and_all_volumes_with_the_median_between(
    tmp_path, workspace, nesting, voxels, rule, severity
):
    series = with_rtstruct(tmp_path, [("Heart", [(1, RING), (1, INNER)])])
    volume = volume_of(series, workspace)
    masks = segment(series, workspace, {"CT": volume}, nesting=nesting)
    assert masks.segments[0].voxels == voxels
    found = issues_of(masks)
    assert found[rule][0] is severity
    volumes = "holes 1.69 cm3, union 2.25 cm3, xor 1.69 cm3"
    text = f"volume by rule of nesting: {volumes} (used: {nesting}); median of the difference -8 HU"
    assert found["contours.volume"] == (Severity.WARNING, text)


def volume_of(series, workspace) -> Volume:
    """-8 HU where the inner contour is, -852 around."""
    array = np.full(series.shape, -852, np.int16)
    array[1, 6:16, 6:16] = -8
    path = workspace.root / "ct.npy"
    save_array(path, array)
    return Volume(series.series_instance_uid, str(path), series.shape, np.eye(4).tolist(), (3, 1.5, 1.25), "2.25.1", "")


def test_two_rois_of_one_number_are_an_error_because_either_may_be_meant(tmp_path, workspace):
    def edit(ds):
        ds.StructureSetROISequence[1].ROINumber = 1

    masks = segment(damaged(tmp_path, edit), workspace)
    assert issues_of(masks)["contours.number"][0] is Severity.ERROR
    assert issues_of(masks)["contours.nameless"][1].startswith("1 contours have the number of no ROI")

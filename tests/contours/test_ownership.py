"""A structure set that was drawn on several series is judged ROI by ROI, and every ROI has a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctenrich.contours.expert import ExpertSegmenter
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import RoiDrop, SegmentMasks, SortedSeries, StructureRois
from ctenrich.series_store import SeriesStore
from ctenrich.settings import ContoursSettings, Settings
from ctenrich.workspace import Workspace
from tests.support.contours import list_series, make_series, refer_contours, to_mm, write_rtstruct

SQUARE = [(4.5, 4.5), (9.5, 4.5), (9.5, 9.5), (4.5, 9.5)]
PHASE, PHASE_IMAGES = "2.25.4500", [f"2.25.4500.{k}" for k in range(5)]
THIRD, THIRD_IMAGES = "2.25.4600", [f"2.25.4600.{k}" for k in range(5)]
PET = "1.2.840.10008.5.1.4.1.1.128"


def drawn(folder: Path, rois: dict[str, Sequence[str | None]], name: str = "rt.dcm", **options: str) -> SortedSeries:
    """A series of phase 0 with an RTSTRUCT; each ROI has one contour per given image (by slice, from 1)."""
    series = make_series()
    contours = [
        (roi, [("CLOSED_PLANAR", to_mm(series, k, SQUARE)) for k in range(1, len(images) + 1)])
        for roi, images in rois.items()
    ]
    path = write_rtstruct(folder / name, series, contours, **options)
    refer_contours(path, list(rois.values()))
    return replace(series, companions=(str(path),))


def segment(series: SortedSeries, workspace: Workspace, **contours: object) -> SegmentMasks:
    settings = Settings(contours=ContoursSettings(**contours))  # type: ignore[arg-type]
    return ExpertSegmenter().segment({}, series, settings=settings, workspace=workspace)


def records(series: SortedSeries, workspace: Workspace) -> StructureRois:
    found = SeriesStore(workspace).find(StructureRois, series.series_instance_uid, ExpertSegmenter().product)
    assert found is not None
    return found


def drops(series: SortedSeries, workspace: Workspace) -> dict[str, RoiDrop | None]:
    return {roi.name: roi.dropped for roi in records(series, workspace).items}


OWN = make_series().sop_instance_uids


def test_a_roi_of_another_phase_is_not_drawn_on_this_one(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": OWN[1:3], "GTV-1": PHASE_IMAGES[1:3]})
    list_series(Path(series.companions[0]), [(PHASE, PHASE_IMAGES)])
    masks = segment(series, workspace)
    assert [(s.name, s.voxels) for s in masks.segments] == [("heart", 50)]
    (issue,) = (i for i in masks.issues if i.rule == "contours.other_series")
    text = f"ROI 'GTV-1' was dropped: its contours refer to images of another series ({PHASE})"
    assert issue.message == text
    heart, tumour = records(series, workspace).items
    assert (heart.segment, heart.segment_number, heart.dropped, heart.images, heart.images_found) == (
        "heart", 1, None, 2, 2,
    )  # fmt: skip
    assert (tumour.segment, tumour.dropped, tumour.images, tumour.images_found) == ("", RoiDrop.OTHER_SERIES, 2, 0)
    assert tumour.voxels == {}


def test_a_series_that_is_not_listed_is_another_one_too(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": OWN[1:3], "GTV-1": PHASE_IMAGES[1:3]})
    masks = segment(series, workspace)
    assert [s.name for s in masks.segments] == ["heart"]
    assert drops(series, workspace)["GTV-1"] is RoiDrop.OTHER_SERIES


def test_contours_of_both_phases_in_one_roi_are_parted(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": [OWN[1], PHASE_IMAGES[2], None, OWN[4]]})
    list_series(Path(series.companions[0]), [(PHASE, PHASE_IMAGES)])
    masks = segment(series, workspace)
    assert [s.voxels for s in masks.segments] == [75]
    (issue,) = (i for i in masks.issues if i.rule == "contours.other_series")
    assert issue.message == "1 contours refer to images of another series and were left out"


def test_identifiers_that_resolve_nowhere_are_accepted_where_one_series_is_listed(
    tmp_path: Path, workspace: Workspace
) -> None:
    series = drawn(tmp_path, {"Heart": ["2.25.1", "2.25.2"], "GTV-1": ["2.25.2"]})
    masks = segment(series, workspace)
    assert [s.name for s in masks.segments] == ["heart", "gtv_1"]
    assert "contours.references" in {i.rule for i in masks.issues}


def test_all_rois_on_another_phase_belong_to_it(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": PHASE_IMAGES[1:3], "GTV-1": PHASE_IMAGES[1:2]})
    list_series(Path(series.companions[0]), [(PHASE, PHASE_IMAGES)])
    with pytest.raises(InputError) as caught:
        segment(series, workspace)
    assert caught.value.reason is Reason.NO_REFERENCE


@pytest.mark.parametrize("listed", [[(PHASE, PHASE_IMAGES)], [(PHASE, ()), (THIRD, THIRD_IMAGES)]])
def test_contours_without_images_under_several_phases_are_refused_with_the_candidates(
    tmp_path: Path, workspace: Workspace, listed: list[tuple[str, Sequence[str]]]
) -> None:
    series = drawn(tmp_path, {"Heart": [None, None], "GTV-1": [None]})
    list_series(Path(series.companions[0]), listed)
    with pytest.raises(InputError) as caught:
        segment(series, workspace)
    assert caught.value.reason is Reason.NO_REFERENCE
    for uid in (series.series_instance_uid, *(uid for uid, _ in listed)):
        assert uid in caught.value.message
    assert set(drops(series, workspace).values()) == {RoiDrop.SEVERAL_SERIES}


def test_images_of_another_modality_are_no_candidates(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": [None, None]})
    list_series(Path(series.companions[0]), [(PHASE, PHASE_IMAGES)], sop_class=PET)
    assert [s.voxels for s in segment(series, workspace).segments] == [50]


def test_a_series_of_another_frame_of_reference_is_no_candidate(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": [None, None]})
    path = Path(series.companions[0])
    list_series(path, [(PHASE, PHASE_IMAGES)])
    ds = pydicom.dcmread(path)
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    listed = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    ds.ReferencedFrameOfReferenceSequence.append(pydicom.Dataset())
    other = ds.ReferencedFrameOfReferenceSequence[1]
    other.FrameOfReferenceUID, other.RTReferencedStudySequence = "2.25.77", [pydicom.Dataset()]
    other.RTReferencedStudySequence[0].RTReferencedSeriesSequence = [listed.pop()]
    ds.save_as(path)
    assert [s.voxels for s in segment(series, workspace).segments] == [50]


def test_the_other_rois_decide_for_one_without_images(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": OWN[1:3], "GTV-1": [None]})
    list_series(Path(series.companions[0]), [(PHASE, PHASE_IMAGES)])
    assert [s.name for s in segment(series, workspace).segments] == ["heart", "gtv_1"]
    mixed = drawn(tmp_path, {"Heart": OWN[1:3], "Aorta": PHASE_IMAGES[1:3], "GTV-1": [None]}, "mixed.dcm")
    list_series(Path(mixed.companions[0]), [(PHASE, PHASE_IMAGES)])
    assert [s.name for s in segment(mixed, workspace).segments] == ["heart"]
    assert drops(mixed, workspace) == {
        "Heart": None,
        "Aorta": RoiDrop.OTHER_SERIES,
        "GTV-1": RoiDrop.SEVERAL_SERIES,
    }


def test_contours_of_two_unknown_series_are_drawn_on_neither(tmp_path: Path, workspace: Workspace) -> None:
    options = {"series_uid": THIRD, "image_uids": THIRD_IMAGES}
    one = drawn(tmp_path, {"Heart": THIRD_IMAGES[1:3]}, **options)
    assert [s.name for s in segment(one, workspace).segments] == ["heart"], "replaced identifiers of one series"
    two = drawn(tmp_path, {"Heart": THIRD_IMAGES[1:3], "GTV-1": PHASE_IMAGES[1:2]}, "two.dcm", **options)
    list_series(Path(two.companions[0]), [(PHASE, PHASE_IMAGES)])
    with pytest.raises(InputError, match=f"{PHASE}, {THIRD}") as caught:
        segment(two, workspace)
    assert caught.value.reason is Reason.NO_REFERENCE


def test_a_set_that_fits_is_taken_before_one_that_is_undecided(tmp_path: Path, workspace: Workspace) -> None:
    fits = drawn(tmp_path, {"Heart": OWN[1:2]}, "a.dcm", uid="2.25.91", date="20190101")
    open_ = drawn(tmp_path, {"Heart": [None, None]}, "b.dcm", uid="2.25.92", date="20210101")
    list_series(Path(open_.companions[0]), [(PHASE, PHASE_IMAGES)])
    masks = segment(replace(fits, companions=(*open_.companions, *fits.companions)), workspace)
    assert masks.source_sop_instance_uid == "2.25.91"
    assert "contours.reference" in {i.rule for i in masks.issues}


# ---------------------------------------------------------------- the record of every ROI


def test_every_roi_has_a_record_with_what_became_of_it(tmp_path: Path, workspace: Workspace) -> None:
    series = make_series()
    ring = [(2.5, 2.5), (22.5, 2.5), (22.5, 22.5), (2.5, 22.5)]
    inner = [(5.5, 5.5), (5.5, 15.5), (15.5, 15.5), (15.5, 5.5)]
    twice = to_mm(series, 1, ring)
    off = to_mm(series, 1, SQUARE) + np.array([0, 0, 400])
    rois = [
        ("Heart", [("CLOSED_PLANAR", twice), ("CLOSED_PLANAR", twice), ("CLOSED_PLANAR", to_mm(series, 1, inner)),
                   ("CLOSED_PLANAR", to_mm(series, 4, ring))]),
        ("Couch", [("CLOSED_PLANAR", to_mm(series, 2, SQUARE))]),
        ("Aorta", [("CLOSED_PLANAR", off)]),
        ("Trachea", [("POINT", to_mm(series, 2, SQUARE)[:1])]),
        ("HEART", [("CLOSED_PLANAR", to_mm(series, 2, SQUARE))]),
        ("Esophagus", []),
        ("Lung-Left", [("", to_mm(series, 2, SQUARE))]),
    ]  # fmt: skip
    path = write_rtstruct(tmp_path / "rt.dcm", series, rois)
    series = replace(series, companions=(str(path),))
    masks = segment(series, workspace, same_name="first")
    assert [s.name for s in masks.segments] == ["heart", "esophagus"]
    record = records(series, workspace)
    assert record.source_sop_instance_uid == masks.source_sop_instance_uid
    assert record.voxel_volume == pytest.approx(3 * 1.5 * 1.25)
    found = {roi.name: roi for roi in record.items}
    assert {name: roi.dropped for name, roi in found.items()} == {
        "Heart": None,
        "Couch": RoiDrop.NO_MAPPING,
        "Aorta": RoiDrop.UNPLACEABLE,
        "Trachea": RoiDrop.NO_AREA,
        "HEART": RoiDrop.SAME_NAME,
        "Esophagus": None,
        "Lung-Left": RoiDrop.DAMAGED,
    }
    heart = found["Heart"]
    assert (heart.number, heart.contours, heart.copies, heart.missing_slices) == (1, 4, 1, 2)
    assert heart.voxels == {"holes": 700, "union": 800, "xor": 700}
    assert (found["Esophagus"].segment, found["Esophagus"].segment_number, found["Esophagus"].contours) == (
        "esophagus", 2, 0,
    )  # fmt: skip
    assert found["Aorta"].detail == "1 contours are on no slice"
    assert all(bool(roi.detail) == (roi.dropped is not None) for roi in found.values())


def test_united_rois_share_a_segment(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": [None], "HEART": [None, None]})
    segment(series, workspace, same_name="merge")
    assert [(r.name, r.segment, r.segment_number) for r in records(series, workspace).items] == [
        ("Heart", "heart", 1),
        ("HEART", "heart", 1),
    ]


def test_the_record_is_there_also_if_no_roi_is_left_and_the_message_names_all(
    tmp_path: Path, workspace: Workspace
) -> None:
    names = [f"Dose {n} cGy" for n in range(80)]
    series = drawn(tmp_path, {name: [None] for name in names})
    with pytest.raises(InputError) as caught:
        segment(series, workspace)
    assert caught.value.reason is Reason.NO_MAPPED_ROI
    assert all(repr(name) in caught.value.message for name in names)
    assert drops(series, workspace) == dict.fromkeys(names, RoiDrop.NO_MAPPING)


def test_a_record_of_an_earlier_attempt_does_not_stay(tmp_path: Path, workspace: Workspace) -> None:
    series = drawn(tmp_path, {"Heart": [None]})
    segment(series, workspace)
    with pytest.raises(InputError) as caught:
        segment(replace(series, companions=()), workspace)
    assert caught.value.reason is Reason.NO_EXPERT
    assert SeriesStore(workspace).find(StructureRois, series.series_instance_uid, ExpertSegmenter().product) is None

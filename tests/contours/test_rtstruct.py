"""RTSTRUCT files, good and bad, and what ties them to a series."""

from __future__ import annotations

import zlib

import numpy as np
import pydicom
import pytest

from ctenrich.contours.rtstruct import ContourFaults, StructureSet, link_to, load_contours
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink
from tests.support.contours import make_series, to_mm, write_rtstruct

SQUARE = [(4.5, 4.5), (9.5, 4.5), (9.5, 9.5), (4.5, 9.5)]


@pytest.fixture
def series():
    return make_series()


def heart(series):
    return [("Heart", [("CLOSED_PLANAR", to_mm(series, 2, SQUARE))])]


def test_names_types_and_points_are_read(tmp_path, series):
    rois = [
        ("Heart", [("CLOSED_PLANAR", to_mm(series, 2, SQUARE)), ("CLOSEDPLANAR_XOR", to_mm(series, 3, SQUARE))]),
        ("Isocenter", [("POINT", to_mm(series, 2, SQUARE[:1]))]),
        ("Line", [("OPEN_PLANAR", to_mm(series, 2, SQUARE))]),
        ("Nothing", []),
    ]
    structures = load_contours(write_rtstruct(tmp_path / "rt.dcm", series, rois))
    assert [(r.name, len(r.contours), r.faults.points, r.faults.open) for r in structures.rois] == [
        ("Heart", 2, 0, 0),
        ("Isocenter", 0, 1, 0),
        ("Line", 0, 0, 1),
        ("Nothing", 0, 0, 0),
    ]
    assert [c.exclusive for c in structures.rois[0].contours] == [False, True]
    np.testing.assert_allclose(structures.rois[0].contours[0].points, to_mm(series, 2, SQUARE), atol=1e-6)


def test_the_tie_is_reference_then_frame_then_none(tmp_path, series):
    other = {"series_uid": "2.25.1", "image_uids": ["2.25.2"]}
    by_reference = load_contours(write_rtstruct(tmp_path / "a.dcm", series, heart(series)))
    by_images = load_contours(write_rtstruct(tmp_path / "b.dcm", series, heart(series), series_uid="2.25.1"))
    by_frame = load_contours(write_rtstruct(tmp_path / "c.dcm", series, heart(series), **other))
    stranger = load_contours(write_rtstruct(tmp_path / "d.dcm", series, heart(series), frame_uid="2.25.3", **other))
    assert link_to(by_reference, series) is CompanionLink.REFERENCE
    assert link_to(by_images, series) is CompanionLink.REFERENCE
    assert link_to(by_frame, series) is CompanionLink.FRAME_OF_REFERENCE
    assert link_to(stranger, series) is None


def test_of_several_listed_series_the_contours_images_decide(series):
    frame, own = series.frame_of_reference_uid, frozenset(series.sop_instance_uids)
    other = frozenset({"2.25.71", "2.25.72"})

    def linked(listed: set[str], images: frozenset[str], drawn: frozenset[str]) -> CompanionLink | None:
        found = StructureSet(
            sop_instance_uid="2.25.9", rois=(), frame_of_reference_uids=frozenset({frame}), image_uids=images | drawn,
            series_instance_uids=frozenset(listed), contour_image_uids=drawn,
        )  # fmt: skip
        return link_to(found, series)

    uid = series.series_instance_uid
    assert linked({uid, "2.25.7"}, own | other, other) is None, "listed, but drawn on the other series"
    assert linked({"2.25.7"}, own, other) is None, "images listed, but drawn on the other series"
    assert linked({uid, "2.25.7"}, own | other, own) is CompanionLink.REFERENCE
    assert linked({uid, "2.25.7"}, own | other, frozenset()) is CompanionLink.REFERENCE, "contours that state no image"
    assert linked({uid}, other, other) is CompanionLink.REFERENCE, "the only series that is listed"


@pytest.mark.parametrize("broken", [b"", b"junk" * 100])
def test_a_file_that_is_not_dicom(tmp_path, broken):
    path = tmp_path / "x.dcm"
    path.write_bytes(broken)
    with pytest.raises(InputError) as caught:
        load_contours(path)
    assert caught.value.reason in {Reason.NOT_DICOM, Reason.TRUNCATED}


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(InputError) as caught:
        load_contours(tmp_path / "gone.dcm")
    assert caught.value.reason is Reason.NOT_FOUND


def test_no_truncation_gives_fewer_contours(tmp_path, series):
    """Cut anywhere: a named refusal, also between two top-level elements."""
    contours = [("CLOSED_PLANAR", to_mm(series, k, SQUARE)) for k in range(4)]
    whole = write_rtstruct(tmp_path / "rt.dcm", series, [("Heart", contours)]).read_bytes()
    path = tmp_path / "cut.dcm"
    outcomes = set()
    for size in range(140, len(whole) - 1, 7):
        path.write_bytes(whole[:size])
        try:
            outcomes.add(sum(len(roi.contours) for roi in load_contours(path).rois))
        except InputError as error:
            outcomes.add(error.reason.value)
    assert outcomes <= {"TRUNCATED", "NOT_DICOM", "DECODE_ERROR"}
    assert "TRUNCATED" in outcomes


def test_another_object_is_no_structure_set(tmp_path, series):
    path = write_rtstruct(tmp_path / "rt.dcm", series, heart(series))
    ds = pydicom.dcmread(path)
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    del ds.StructureSetROISequence
    ds.save_as(path)
    with pytest.raises(InputError) as caught:
        load_contours(path)
    assert caught.value.reason is Reason.NO_EXPERT


def test_numbers_that_are_none_are_left_out(tmp_path, series):
    path = write_rtstruct(tmp_path / "rt.dcm", series, heart(series))
    data = path.read_bytes()
    text = "\\".join(f"{v:.8f}"[:16] for v in to_mm(series, 2, SQUARE).ravel()).encode()
    assert text in data
    for bad in (b"nan", b"1E400", b"abc"):
        path.write_bytes(data.replace(text, (bad + text[len(bad) :])))
        (roi,) = load_contours(path).rois
        assert roi.contours == ()
        assert roi.faults == ContourFaults(not_numbers=1)


def test_a_deflated_bomb_is_refused(tmp_path, series):
    path = write_rtstruct(tmp_path / "rt.dcm", series, heart(series))
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    ds.save_as(path, enforce_file_format=True)
    assert load_contours(path).rois[0].name == "Heart"
    data = path.read_bytes()
    start = 132 + 12 + int(pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = b"\x09\x00\x10\x10OB\0\0" + (50_000_000).to_bytes(4, "little")
    path.write_bytes(data[:start] + deflate.compress(element + bytes(50_000_000)) + deflate.flush())
    with pytest.raises(UnsafeInputError) as caught:
        load_contours(path, limit=10_000_000)
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB


def edited(tmp_path, series, edit, rois=None):
    path = write_rtstruct(tmp_path / "rt.dcm", series, rois or heart(series))
    ds = pydicom.dcmread(path)
    edit(ds)
    ds.save_as(path)
    return load_contours(path)


def first_contour(ds):
    return ds.ROIContourSequence[0].ContourSequence[0]


@pytest.mark.parametrize(
    ("edit", "faults"),
    [
        (lambda c: c.__delattr__("ContourGeometricType"), ContourFaults(untyped=1)),
        (lambda c: setattr(c, "ContourGeometricType", ""), ContourFaults(untyped=1)),
        (lambda c: setattr(c, "ContourGeometricType", "FREEHAND"), ContourFaults(unknown_type=1)),
        (lambda c: setattr(c, "ContourData", list(c.ContourData)[:-1]), ContourFaults(incomplete=1)),
        (lambda c: setattr(c, "ContourData", []), ContourFaults(incomplete=1)),
        (lambda c: c.__delattr__("ContourData"), ContourFaults(incomplete=1)),
        (lambda c: setattr(c, "ContourGeometricType", "POINT"), ContourFaults(points=1)),
        (lambda c: setattr(c, "ContourGeometricType", "OPEN_NONPLANAR"), ContourFaults(open=1)),
    ],
)
def test_every_contour_that_is_not_drawn_is_counted_by_its_fault(tmp_path, series, edit, faults):
    (roi,) = edited(tmp_path, series, lambda ds: edit(first_contour(ds))).rois
    assert roi.contours == ()
    assert roi.faults == faults


def test_a_contour_with_fewer_points_than_stated_is_drawn_and_counted(tmp_path, series):
    (roi,) = edited(
        tmp_path, series, lambda ds: setattr(first_contour(ds), "ContourData", list(first_contour(ds).ContourData)[:-3])
    ).rois
    assert len(roi.contours[0].points) == 3
    assert roi.faults == ContourFaults(miscounted=1)


def test_all_contour_items_of_one_number_belong_to_the_roi(tmp_path, series):
    rois = [(name, [("CLOSED_PLANAR", to_mm(series, k, SQUARE))]) for k, name in enumerate(("Heart", "Aorta", "Liver"))]

    def edit(ds):
        ds.ROIContourSequence[2].ReferencedROINumber = 1

    found = edited(tmp_path, series, edit, rois).rois
    assert [len(roi.contours) for roi in found] == [2, 1, 0]


def test_contours_of_no_roi_and_rois_of_one_number_are_known(tmp_path, series):
    rois = [(name, [("CLOSED_PLANAR", to_mm(series, 1, SQUARE))]) for name in ("Heart", "Aorta")]

    def orphan(ds):
        ds.ROIContourSequence[1].ReferencedROINumber = 77

    def twins(ds):
        ds.StructureSetROISequence[1].ROINumber = 1

    assert edited(tmp_path, series, orphan, rois).nameless_contours == 1
    assert [roi.shares_number for roi in edited(tmp_path, series, twins, rois).rois] == [True, True]

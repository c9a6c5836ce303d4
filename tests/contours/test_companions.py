"""A structure set that is damaged or could not be fetched is never reported as absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset

from ctenrich import steps
from ctenrich.contours.companions import read_companions
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity, SortedSeries
from ctenrich.runner.executors import ExecutorName
from tests.support.cohorts import make_cohort
from tests.support.contours import make_series, to_mm, write_rtstruct

SQUARE = [(4.5, 4.5), (9.5, 4.5), (9.5, 9.5), (4.5, 9.5)]
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def absence(series: SortedSeries, *paths: Path) -> InputError:
    found = read_companions(paths, series, limit=10**8)
    with pytest.raises(InputError) as caught:
        found.choose(series)
    return caught.value


def structure_set(folder: Path, edit: Callable[[Dataset], None] | None = None, **options: object) -> Path:
    series = make_series()
    contours = [("CLOSED_PLANAR", to_mm(series, 1, SQUARE))]
    path = write_rtstruct(folder / "rt.dcm", series, [("Heart", contours)], **options)  # type: ignore[arg-type]
    if edit is not None:
        ds = pydicom.dcmread(path)
        edit(ds)
        ds.save_as(path)
    return path


def shorten(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def as_seg(ds: Dataset) -> None:
    ds.SOPClassUID = SEG


def without_class(ds: Dataset) -> None:
    del ds.SOPClassUID


def without_rois(ds: Dataset) -> None:
    del ds.StructureSetROISequence


def without_contours(ds: Dataset) -> None:
    ds.ROIContourSequence = []


def malformed(ds: Dataset) -> None:
    del ds.ROIContourSequence[0].ReferencedROINumber


@pytest.mark.parametrize(
    ("edit", "reason", "words"),
    [
        (as_seg, Reason.DECODE_ERROR, SEG),
        (malformed, Reason.DECODE_ERROR, "malformed"),
        (without_class, Reason.TRUNCATED, "has no SOP class"),
        (without_rois, Reason.TRUNCATED, "has no item in StructureSetROISequence"),
        (without_contours, Reason.TRUNCATED, "has no item in ROIContourSequence"),
    ],
)
def test_a_malformed_structure_set_is_damaged_and_not_absent(
    tmp_path: Path, edit: Callable[[Dataset], None], reason: Reason, words: str
) -> None:
    error = absence(make_series(), structure_set(tmp_path, edit))
    assert error.reason is reason
    assert error.message.startswith("there is an RT Structure Set for the series, but it cannot be used: ")
    assert words in error.message


def test_a_structure_set_cut_anywhere_exists_and_never_loses_its_contours(tmp_path: Path) -> None:
    path = structure_set(tmp_path)
    whole = path.read_bytes()
    reasons = set()
    for size in range(400, len(whole) - 2, 41):
        path.write_bytes(whole[:size])
        error = absence(make_series(), path)
        assert "there is an RT Structure Set for the series" in error.message
        reasons.add(error.reason)
    assert reasons == {Reason.TRUNCATED, Reason.DECODE_ERROR}


def test_a_companion_of_unknown_kind_may_be_one(tmp_path: Path) -> None:
    path = tmp_path / "rt.dcm"
    path.write_bytes(b"junk" * 100)
    error = absence(make_series(), path)
    assert error.reason is Reason.NOT_DICOM
    assert error.message.startswith("a companion, which may be the RT Structure Set of the series, cannot be used")


def test_a_damaged_segmentation_is_no_structure_set(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        ds.SOPClassUID, ds.Modality = SEG, "SEG"

    error = absence(make_series(), shorten(structure_set(tmp_path, edit), 0.9))
    assert error.reason is Reason.NO_EXPERT


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("the RTSTRUCT that belongs to the series could not be fetched: CHECKSUM: wrong size (x)", Reason.CHECKSUM),
        ("a companion could not be fetched: INCOMPLETE: 1 object is missing", Reason.INCOMPLETE),
        ("the SEG that belongs to the series could not be fetched: CHECKSUM: wrong size", Reason.NO_EXPERT),
    ],
)
def test_one_that_could_not_be_fetched_exists(message: str, reason: Reason) -> None:
    series = make_series()
    error = absence(replace(series, issues=(Issue("fetch.companion", Severity.WARNING, "1.2", message),)))
    assert error.reason is reason
    assert (message in error.message) == (reason is not Reason.NO_EXPERT)


def test_damage_goes_before_the_structure_set_of_another_series_and_both_are_named(tmp_path: Path) -> None:
    stranger = structure_set(tmp_path / "a", series_uid="2.25.1", image_uids=["2.25.2"], frame_uid="2.25.3")
    error = absence(make_series(), stranger, shorten(structure_set(tmp_path / "b"), 0.9))
    assert error.reason is not Reason.NO_REFERENCE
    assert "cannot be used" in error.message
    assert "belongs to another series" in error.message


def test_a_run_names_the_structure_set_that_changed_after_the_crawl(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    (path,) = (tmp_path / "dicom").rglob("RS*.dcm")
    shorten(path, 0.7)
    steps.run_all(steps.start(cohort, tmp_path / "run", segmenters=["expert"]), executor=ExecutorName.SERIAL)
    outcomes = pq.read_table(tmp_path / "run" / "tables" / "outcomes.parquet").to_pylist()
    (outcome,) = (row for row in outcomes if row["product"] == "expert")
    assert outcome["reason"] == "CHECKSUM"
    assert outcome["message"].startswith("the RTSTRUCT that belongs to the series could not be fetched: CHECKSUM: ")

"""Experts' contours through a whole run: ROIs by pattern, own mappings, and what makes a segmentation run again."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

from ctenrich import steps
from ctenrich.codes.mappings import use_mappings
from ctenrich.contours.kind import EXPERT
from ctenrich.errors import UsageError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.reasons import Reason
from ctenrich.resources import folder
from ctenrich.results.tables import build_tables
from ctenrich.runner.executors import ExecutorName
from ctenrich.settings import CodesSettings, ContoursSettings, EncodeSettings, RunSettings, Settings
from ctenrich.workspace import Workspace
from tests.support.cohorts import TINY, make_cohort, write_series


@pytest.fixture
def package_mappings() -> Iterator[None]:
    yield
    use_mappings("")


def cohort_with_contours(folder: Path, names: dict[str, str]) -> Path:
    """One phantom with its truth as contours, of which some have other names."""
    write_series(folder / "dicom", 1, options=TINY.changed(rtstruct=True))
    for path in folder.rglob("RS*.dcm"):
        ds = pydicom.dcmread(path)
        for roi in ds.StructureSetROISequence:
            roi.ROIName = names.get(roi.ROIName, roi.ROIName)
        ds.save_as(path)
    steps.index([folder / "dicom"], folder / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    return folder / "cohort.parquet"


def own_mappings(path: Path) -> Path:
    path.mkdir()
    with (folder("mappings") / "segments.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    with (path / "segments.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerow(next(r for r in rows if r["name"] == "trachea") | {"name": "airway", "labels": "tube"})
    return path


@pytest.mark.usefixtures("package_mappings")
def test_rois_by_pattern_and_own_names_reach_the_objects_and_are_proven(tmp_path: Path) -> None:
    names = {"Esophagus": "PTV_56", "Aorta": "HEART", "Trachea": "Tube", "Spinal-Cord": "Couch"}
    cohort = cohort_with_contours(tmp_path, names)
    settings = Settings(
        contours=ContoursSettings(rois=("ptv.*",)), codes=CodesSettings(str(own_mappings(tmp_path / "own")))
    )
    made = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    summary = steps.run_all(made, executor=ExecutorName.SERIAL)
    assert summary.exit_code == 0, summary
    (path,) = (tmp_path / "run").glob("series/*/expert/objects/seg.dcm")
    items = pydicom.dcmread(path).SegmentSequence
    found = {i.SegmentLabel: (i.SegmentDescription, i.SegmentedPropertyTypeCodeSequence[0].CodeValue) for i in items}
    assert found["roi:ptv_56"] == ("PTV_56", "111099")
    assert found["heart"] == ("Heart", "80891009")
    assert found["heart#2"] == ("HEART", "80891009")
    assert found["airway"] == ("Tube", "44567001")
    assert "spinal_cord" not in found
    page = "".join(p.read_text() for p in (tmp_path / "run" / "report").rglob("*.html"))
    assert "ROI &#39;Couch&#39;" in page or "ROI 'Couch'" in page


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(contours=ContoursSettings(rois=("GTV(",))), Reason.BAD_SETTINGS),
        (Settings(codes=CodesSettings("/nowhere")), Reason.BAD_MAPPING),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(tmp_path: Path, settings: Settings, reason: Reason) -> None:
    cohort = make_cohort(tmp_path, 1)
    with pytest.raises(UsageError) as caught:
        steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    assert caught.value.reason is reason
    assert not (tmp_path / "run").exists()


def test_settings_of_contours_make_only_the_expert_run_again() -> None:
    assert EXPERT.cache_key is not None
    keys = {
        EXPERT.cache_key(replace(Settings(), contours=contours))
        for contours in (
            ContoursSettings(),
            ContoursSettings(nesting="union"),
            ContoursSettings(same_name="merge"),
            ContoursSettings(rois=("GTV.*",)),
        )
    }
    assert len(keys) == 4
    assert segmenter_kind("nnunet").cache_key is None
    assert segmenter_kind("bodypart").cache_key is None


def rois_of(run: Path) -> dict[str, dict[str, object]]:
    return {row["roi_name"]: row for row in pq.read_table(run / "tables" / "rois.parquet").to_pylist()}


def test_every_roi_is_in_the_table_and_the_report_dropped_ones_too(tmp_path: Path) -> None:
    cohort = cohort_with_contours(tmp_path, {"Spinal-Cord": "Couch"})
    steps.run_all(steps.start(cohort, tmp_path / "run", segmenters=["expert"]), executor=ExecutorName.SERIAL)
    found = rois_of(tmp_path / "run")
    heart, couch = found["Heart"], found["Couch"]
    segments = pq.read_table(tmp_path / "run" / "tables" / "segments.parquet").to_pylist()
    (segment,) = (row for row in segments if row["segment"] == "heart")
    assert heart["segment_number"] == segment["segment_number"]
    assert heart["volume_holes"] == pytest.approx(segment["voxels"] * 10 * 10 * 20 / 1000)
    assert heart["volume_union"] >= heart["volume_holes"]
    assert heart["dropped"] is None
    assert (couch["segment"], couch["dropped"], couch["volume_holes"]) == (None, "no_mapping", None)
    page = "".join(p.read_text() for p in (tmp_path / "run" / "report").rglob("*.html"))
    assert "ROIs of the structure set" in page
    assert re.search(r'<th scope="row"><bdi>Couch</bdi></th>.*?no mapping: it has no row', page)


def test_rois_of_a_product_that_failed_are_in_the_table_the_report_and_the_message(tmp_path: Path) -> None:
    names = ("Heart", "Esophagus", "Aorta", "Trachea", "Spinal-Cord", "Lung-Left", "Lung-Right", "GTV-1", "Liver")
    cohort = cohort_with_contours(tmp_path, {name: f"X {n}" for n, name in enumerate(names)})
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    for _ in range(2):  # the second time the failure is remembered
        steps.run_all(run, executor=ExecutorName.SERIAL)
        found = rois_of(tmp_path / "run")
        assert len(found) > 3
        assert {row["dropped"] for row in found.values()} == {"no_mapping"}
        outcomes = pq.read_table(tmp_path / "run" / "tables" / "outcomes.parquet").to_pylist()
        (outcome,) = (row for row in outcomes if row["product"] == "expert")
        assert outcome["reason"] == "NO_MAPPED_ROI"
        page = "".join(p.read_text() for p in (tmp_path / "run" / "report").rglob("*.html"))
        for name in found:
            assert repr(name) in outcome["message"]
            assert f'<th scope="row"><bdi>{name}</bdi></th>' in page
        issues = pq.read_table(tmp_path / "run" / "tables" / "issues.parquet").to_pylist()
        dropped = [row["message"] for row in issues if (row["product"], row["stage"]) == ("expert", "segment")]
        assert all(any(repr(name) in message for message in dropped) for name in found), "also of a failed product"


def test_a_run_without_records_of_rois_has_rows_of_its_segments(tmp_path: Path) -> None:
    cohort = cohort_with_contours(tmp_path, {})
    steps.run_all(steps.start(cohort, tmp_path / "run", segmenters=["expert"]), executor=ExecutorName.SERIAL)
    new = rois_of(tmp_path / "run")
    (record,) = (tmp_path / "run").glob("series/*/expert/rois.json")
    record.unlink()
    build_tables(Workspace(tmp_path / "run"))
    old = rois_of(tmp_path / "run")
    assert old.keys() == new.keys()
    assert {row["segment"]: row["segment_number"] for row in old.values()} == {
        row["segment"]: row["segment_number"] for row in new.values()
    }
    for name in ("roi_number", "dropped", "contours", "copies", "missing_slices", "volume_holes", "images"):
        assert {row[name] for row in old.values()} == {None}


def test_a_label_map_that_cannot_fit_is_found_in_the_first_stage_of_the_product(tmp_path: Path) -> None:
    cohort = cohort_with_contours(tmp_path, {})
    settings = Settings(encode=EncodeSettings(seg_type="LABELMAP"), run=RunSettings(memory_limit=1000))
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    steps.run_all(run, executor=ExecutorName.SERIAL)
    outcomes = pq.read_table(tmp_path / "run" / "tables" / "outcomes.parquet").to_pylist()
    (outcome,) = (row for row in outcomes if row["product"] == "expert")
    assert (outcome["stage"], outcome["reason"]) == ("segment", "OUT_OF_MEMORY")

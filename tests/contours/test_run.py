"""Experts' contours through a whole run: ROIs by pattern, own mappings, and what makes a segmentation run again."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from ctenrich import steps
from ctenrich.codes.mappings import use_mappings
from ctenrich.contours.kind import EXPERT
from ctenrich.errors import UsageError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.reasons import Reason
from ctenrich.resources import folder
from ctenrich.runner.executors import ExecutorName
from ctenrich.settings import CodesSettings, ContoursSettings, Settings
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

from __future__ import annotations

import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ctenrich.results.rows import numeric
from ctenrich.results.tables import build_object_tables, build_tables
from ctenrich.workspace import Workspace, sha256_of_file
from tests.support.result_reports import (
    CT,
    HEART,
    LABEL_MAP,
    MM3,
    OLD_SITE,
    SITE,
    VOLUME,
    coded,
    content,
    group,
    head,
    number,
    reference,
    segment_links,
    write_seg,
    write_sr,
)

LEFT = coded(("272741003", "SCT", "Laterality"), ("7771000", "SCT", "Left"))
DERIVATION = coded(("121401", "DCM", "Derivation"), ("373098007", "SCT", "Mean"))
METHOD = coded(("370129005", "SCT", "Measurement Method"), ("1", "99TEST", "Mine"))


def tables(files: list[Path], folder: Path) -> dict[str, list[dict[str, Any]]]:
    built = build_object_tables(files, folder)
    return {name: pq.read_table(path).to_pylist() for name, path in built.items()}


def whole_group(*more: Any, site: Any = None) -> Any:
    return group(*head(), site or coded(SITE, HEART, LEFT), *segment_links("1.2.3.4", "1.2.3.10"), *more)


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    return write_seg(tmp_path / "seg.dcm", "1.2.3.4")


def test_segmentations_have_idcs_columns(seg: Path, tmp_path: Path) -> None:
    rows = tables([seg], tmp_path / "t")
    assert rows["strict_segmentations"][1] == {
        "PatientID": "P1",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.4.1",
        "SOPInstanceUID": "1.2.3.4",
        "FrameOfReferenceUID": "1.2.3.5",
        "SegmentationType": "BINARY",
        "AnatomicRegion": None,
        "AnatomicRegionModifier": None,
        "SegmentedPropertyCategory": {
            "CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure",
        },
        "SegmentedPropertyType": {
            "CodeValue": "39607008",
            "CodingSchemeDesignator": "SCT",
            "CodeMeaning": "Lung",
            "AnatomicRegionModifierSequence": [],
            "SegmentedPropertyTypeModifierCodeSequence": [
                {"CodeValue": "7771000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Left"}
            ],
        },
        "SegmentAlgorithmType": "AUTOMATIC",
        "SegmentAlgorithmName": "Test",
        "SegmentNumber": 3,
        "TrackingUID": None,
        "TrackingID": None,
        "segmented_SeriesInstanceUID": "1.2.3.10",
        "viewer_url": "https://viewer.imaging.datacommons.cancer.gov/v3/viewer/?StudyInstanceUIDs=1.2.3.1"
        "&initialSeriesInstanceUID=1.2.3.4.1",
    }  # fmt: skip
    extended = rows["segmentations"][1]
    assert list(extended)[:17] == list(rows["strict_segmentations"][1])
    assert extended["SegmentLabel"] == "Lung"


def test_label_maps_are_only_in_the_extended_form(tmp_path: Path) -> None:
    rows = tables([write_seg(tmp_path / "s.dcm", "1.2.3.4", LABEL_MAP)], tmp_path / "t")
    assert len(rows["segmentations"]) == 2
    assert rows["strict_segmentations"] == []


def test_a_whole_group(seg: Path, tmp_path: Path) -> None:
    first = content("TEXT", ("1", "99TEST", "x"), TextValue="an item before the group")
    sr = write_sr(tmp_path / "sr.dcm", "1.2.3.6", [first, whole_group(number(VOLUME, "12.5", MM3, DERIVATION))])
    rows = tables([seg, sr], tmp_path / "t")
    (mine,), (strict,) = rows["measurement_groups"], rows["strict_measurement_groups"]
    assert list(mine)[:14] == list(strict)
    assert strict["measurementGroup_number"] == 1, "the position among all items, from 0"
    assert (strict["trackingIdentifier"], strict["trackingUniqueIdentifier"]) == ("Heart 1", "1.2.9")
    assert strict["findingSite"]["CodeValue"] == "80891009"
    assert strict["segmentationSeriesUID"] == "1.2.3.4.1", "looked up in the SEG itself"
    assert strict["segmentationSegmentNumber"] == 2
    assert strict["contentSequence"]["ContentSequence"][0]["TextValue"] == "Heart 1"
    (value,) = rows["strict_quantitative_measurements"]
    assert value["Value"] == Decimal("12.500000000")
    assert value["Units"] == {
        "CodeValue": "mm3", "CodingSchemeDesignator": "UCUM", "CodingSchemeVersion": None,
        "CodeMeaning": "cubic millimeter",
    }  # fmt: skip
    assert value["derivationModifier"]["CodeMeaning"] == "Mean"
    assert value["lateralityModifier"]["CodeMeaning"] == "Left"
    assert rows["quantitative_measurements"][0]["valueFloat"] == 12.5


def test_only_the_first_child_counts_in_the_strict_form(seg: Path, tmp_path: Path) -> None:
    sr = write_sr(tmp_path / "sr.dcm", "1.2.3.6", [whole_group(number(VOLUME, "1", MM3, METHOD, DERIVATION))])
    rows = tables([seg, sr], tmp_path / "t")
    none = {"CodeValue": None, "CodingSchemeDesignator": None, "CodeMeaning": None}
    assert rows["strict_quantitative_measurements"][0]["derivationModifier"] == none
    assert rows["quantitative_measurements"][0]["derivationModifier"]["CodeMeaning"] == "Mean"


@pytest.mark.parametrize("missing", range(6))
def test_a_group_without_one_part_is_not_in_the_strict_form(seg: Path, tmp_path: Path, missing: int) -> None:
    parts = [*head(), coded(SITE, HEART), *segment_links("1.2.3.4", "1.2.3.10")]
    del parts[missing]
    sr = write_sr(tmp_path / "sr.dcm", "1.2.3.6", [group(*parts, number(VOLUME, "1", MM3))])
    rows = tables([seg, sr], tmp_path / "t")
    assert len(rows["measurement_groups"]) == len(rows["quantitative_measurements"]) == 1
    assert rows["strict_measurement_groups"] == rows["strict_quantitative_measurements"] == []


def test_a_seg_that_is_not_at_hand_drops_its_groups(tmp_path: Path) -> None:
    sr = write_sr(tmp_path / "sr.dcm", "1.2.3.6", [whole_group()])
    assert tables([sr], tmp_path / "t")["strict_measurement_groups"] == []


@pytest.mark.parametrize(
    "change", [{"ContentTemplateSequence": None}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}]
)
def test_other_documents_have_no_groups(seg: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    sr = write_sr(tmp_path / "sr.dcm", "1.2.3.6", [whole_group()], **change)
    assert tables([seg, sr], tmp_path / "t")["measurement_groups"] == []


def test_the_group_is_found_by_its_meaning(seg: Path, tmp_path: Path) -> None:
    other = whole_group()
    other.ConceptNameCodeSequence[0].CodeMeaning = "Measurement group"
    sr = write_sr(tmp_path / "sr.dcm", "1.2.3.6", [other])
    assert tables([seg, sr], tmp_path / "t")["measurement_groups"] == []


def test_qualitative_items_and_what_idc_drops(seg: Path, tmp_path: Path) -> None:
    mine = coded(("1", "99LIDC", "Margin"), ("2", "99LIDC", "Sharp"))
    dicom = coded(("121402", "DCM", "Normality"), ("17621005", "SCT", "Normal"))
    new = write_sr(tmp_path / "new.dcm", "1.2.3.6", [whole_group(mine, dicom)])
    old = write_sr(tmp_path / "old.dcm", "1.2.3.7", [whole_group(mine, dicom, site=coded(OLD_SITE, HEART))])
    rows = tables([seg, new, old], tmp_path / "t")
    strict = [(r["SOPInstanceUID"], r["Quantity"]["CodeMeaning"]) for r in rows["strict_qualitative_measurements"]]
    assert strict == [("1.2.3.7", "Margin")]
    names = [(r["SOPInstanceUID"], r["Quantity"]["CodeMeaning"]) for r in rows["qualitative_measurements"]]
    assert names == [(u, q) for u in ("1.2.3.6", "1.2.3.7") for q in ("Margin", "Normality")]


def test_image_level_groups(tmp_path: Path) -> None:
    modifier = coded(("106233006", "SCT", "Topographical modifier"), ("421812003", "SCT", "Top"))
    parts = [*head(), reference(("260753009", "SCT", "Source"), CT, "1.2.3.100"), coded(SITE, HEART, modifier)]
    score = number(("1", "99TEST", "Slice score"), "43.5", ("1", "UCUM", "no units"))
    sr = write_sr(tmp_path / "sr.dcm", "1.2.3.6", [group(*parts, coded(SITE, ("2", "SCT", "Lung")), score)])
    rows = tables([sr], tmp_path / "t")
    found = rows["image_level_annotations"]
    assert [r["Value"]["CodeMeaning"] for r in found] == ["Heart", "Lung"]
    assert [(r["topographicalModifier"] or {}).get("CodeMeaning") for r in found] == ["Top", None]
    assert {(r["ReferencedSOPInstanceUID"], r["ReferencedSeriesInstanceUID"]) for r in found} == {
        ("1.2.3.100", "1.2.3.10")
    }
    assert rows["quantitative_measurements"][0]["referencedSOPInstanceUID"] == "1.2.3.100"
    assert rows["strict_measurement_groups"] == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5e-10", Decimal(0)),
        ("1.00000000049", Decimal("1.000000000")),
        ("0.0000000005", Decimal("1e-9")),
        ("NaN", None),
        ("Infinity", None),
        ("1e29", None),
        ("99999999999999999999999999999.999999999", Decimal("99999999999999999999999999999.999999999")),
        ("", None),
        ("abc", None),
        (None, None),
    ],
)
def test_values_are_bigquery_numeric(text: str | None, value: Decimal | None) -> None:
    assert numeric(text) == value


def test_rebuilding_from_dicom_gives_the_same_bytes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run")
    for series in ("1.9", "1.10"):
        folder = workspace.series_dir(series) / "expert" / "objects"
        write_seg(folder / "seg.dcm", f"{series}.4")
        links = [*head(), coded(SITE, HEART), *segment_links(f"{series}.4", series)]
        write_sr(folder / "shape_sr.dcm", f"{series}.6", [group(*links, number(VOLUME, "3", MM3))])
    before = {name: sha256_of_file(path) for name, path in build_tables(workspace).items()}
    assert pq.read_table(workspace.tables / "strict_quantitative_measurements.parquet").num_rows == 2
    shutil.rmtree(workspace.tables)
    after = {name: sha256_of_file(path) for name, path in build_tables(workspace, processes=1).items()}
    assert before == after


def test_several_processes_give_the_same_bytes(tmp_path: Path) -> None:
    files = [write_seg(tmp_path / f"{i:03d}.dcm", f"1.2.{i}") for i in range(100)]
    one = build_object_tables(files, tmp_path / "one", processes=1)
    two = build_object_tables(files, tmp_path / "two", processes=2)
    assert {n: sha256_of_file(p) for n, p in one.items()} == {n: sha256_of_file(p) for n, p in two.items()}


@pytest.mark.data
def test_objects_of_other_makers(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = real_data("ref_objects") / "ref_objects"
    example = root / "dcmqi_data" / "sr-example"
    files = sorted([example / "sr.dcm", example / "seg.dcm", *root.glob("highdicom/s*.dcm")])
    rows = tables(files, tmp_path / "t")
    (mine,) = rows["strict_measurement_groups"]
    assert mine["trackingIdentifier"] == "primary tumor"
    values = {r["Quantity"]["CodeMeaning"]: r["Value"] for r in rows["strict_quantitative_measurements"]}
    assert len(rows["strict_quantitative_measurements"]) == 22
    assert values["Volume"] > 0
    assert rows["strict_qualitative_measurements"] == [], "dcmqi codes its session items in DCM"
    assert len(rows["dicom_metadata"]) == len(files)

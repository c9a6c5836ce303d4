"""Rules on attributes of the header: each one in SQL, with its reason, for values that are missing, odd or mixed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.select.test_rules_agree import stack
from tests.support.catalog_cases import write_series
from tests.support.generated_cohorts import TableCatalog
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.catalog.base import Catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.catalog.idc_index import IdcIndexCatalog
from ctenrich.catalog.queries import load_query, parse_query
from ctenrich.cli.main import app
from ctenrich.cli.selection_options import RuleOptions
from ctenrich.dicom.datetimes import age_in_years
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, SeriesEntry, SeriesFacts
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.files import without_patients, write_cohort
from ctenrich.select.selection import select_cohort

Rules = dict[str, object]
HEIGHTS: list[float] = [0, 3, 6]


def verdict(rules: Rules, **attributes: Any) -> tuple[list[str], str | None]:
    """Failed rules and detail of one series with these attributes."""
    catalog = TableCatalog(stack("1.1", HEIGHTS, **attributes))
    (row,) = catalog.run(load_query("select_ct_series"), rules).table.select(["failed", "detail"]).to_pylist()
    catalog.close()
    return row["failed"], row["detail"]


CASES: list[tuple[Rules, dict[str, Any], str, str]] = [
    # rules, attributes, first reason ("": selected), detail
    ({"manufacturers": ["siemens"]}, {"Manufacturer": " SIEMENS "}, "", ""),
    ({"manufacturers": ["siemens"]}, {"Manufacturer": "Siemens Healthineers"}, "MANUFACTURER", "Siemens Healthineers"),
    ({"manufacturers": ["ge*", "siemens*"]}, {"Manufacturer": "Siemens Healthineers"}, "", ""),
    ({"manufacturers": ["siemens"]}, {}, "NOT_STATED", "(none)"),
    ({"models": ["Biograph 40"]}, {"ManufacturerModelName": "Biograph 64"}, "MANUFACTURER_MODEL", "Biograph 64"),
    ({"models": ["LightSpeed (1.2+)"]}, {"ManufacturerModelName": "lightspeed (1.2+)"}, "", ""),
    ({"models": ["LightSpeed.*"]}, {"ManufacturerModelName": "LightSpeed16"}, "MANUFACTURER_MODEL", "LightSpeed16"),
    ({"kernels": ["B30f", "B31f"]}, {"ConvolutionKernel": [["B31f"]] * 3}, "", ""),
    ({"kernels": ["Br40d"]}, {"ConvolutionKernel": [["Br40d", "3"]] * 3}, "", ""),
    ({"kernels": ["B3*"]}, {"ConvolutionKernel": [["B70f"]] * 3}, "CONVOLUTION_KERNEL", "B70f"),
    ({"kernels": ["B30f"]}, {"ConvolutionKernel": [[]] * 3}, "NOT_STATED", "(none)"),
    ({"body_parts": ["CHEST"]}, {"BodyPartExamined": "Chest"}, "", ""),
    ({"body_parts": ["CHEST"]}, {"BodyPartExamined": "CHESTABDOMEN"}, "BODY_PART", "CHESTABDOMEN"),
    ({"body_parts": ["CHEST"]}, {"BodyPartExamined": ["CHEST", "CHEST", "ABDOMEN"]}, "BODY_PART", "ABDOMEN"),
    ({"body_parts": ["CHEST"]}, {"BodyPartExamined": ["CHEST", "CHEST", None]}, "NOT_STATED", "CHEST"),
    ({"positions": ["HFS", "FFS"]}, {"PatientPosition": "HFP"}, "PATIENT_POSITION", "HFP"),
    ({"positions": ["HFS", "FFS"]}, {"PatientPosition": "FFS"}, "", ""),
    ({"descriptions": ["*thorax*"]}, {"SeriesDescription": "CT Thorax 3.0 B30f"}, "", ""),
    ({"descriptions": ["*thorax*"]}, {"SeriesDescription": "Liver | a"}, "SERIES_DESCRIPTION", "Liver | a"),
    ({"contrast": "yes"}, {"ContrastBolusAgent": "ULTRAVIST 370"}, "", ""),
    ({"contrast": "yes"}, {"ContrastBolusAgent": " none"}, "CONTRAST_AGENT", "none"),
    ({"contrast": "yes"}, {}, "CONTRAST_AGENT", "(none)"),
    ({"contrast": "no"}, {}, "", ""),
    ({"contrast": "no"}, {"ContrastBolusAgent": "NO"}, "", ""),
    ({"contrast": "no"}, {"ContrastBolusAgent": "Omnipaque"}, "CONTRAST_AGENT", "Omnipaque"),
    ({"exclude_derived": True}, {"ImageType": [["DERIVED", "PRIMARY", "AXIAL", "AVERAGE"]] * 3}, "DERIVED_IMAGE",
     "DERIVED\\PRIMARY\\AXIAL\\AVERAGE"),
    ({"exclude_derived": True}, {"ImageType": [["ORIGINAL", "SECONDARY", "AXIAL"]] * 3}, "", ""),
    ({"exclude_derived": True}, {"ImageType": [[]] * 3}, "NOT_STATED", "(none)"),
    ({"sexes": ["F"]}, {"PatientSex": "f"}, "", ""),
    ({"sexes": ["F"]}, {"PatientSex": "M"}, "PATIENT_SEX", "M"),
    ({"sexes": ["F"]}, {"PatientSex": ""}, "NOT_STATED", "(none)"),
    ({"age_min": 18}, {"PatientAge": "018Y"}, "", ""),
    ({"age_min": 18}, {"PatientAge": "017Y"}, "PATIENT_AGE", "017Y"),
    ({"age_max": 1}, {"PatientAge": "011M"}, "", ""),
    ({"age_max": 1}, {"PatientAge": "013M"}, "PATIENT_AGE", "013M"),
    ({"age_max": 0.1}, {"PatientAge": "030D"}, "", ""),
    ({"age_max": 0.1}, {"PatientAge": "012W"}, "PATIENT_AGE", "012W"),
    ({"age_min": 18, "age_max": 65}, {"PatientAge": "066Y"}, "PATIENT_AGE", "066Y"),
    ({"age_min": 18}, {"PatientAge": "000Y"}, "NOT_STATED", "000Y"),
    ({"age_min": 18}, {"PatientAge": "61"}, "NOT_STATED", "61"),
    ({"age_min": 18}, {}, "NOT_STATED", "(none)"),
    ({"study_date_min": "2020-01-01", "study_date_max": "20201231"}, {"StudyDate": dt.date(2020, 12, 31)}, "", ""),
    ({"study_date_min": 20210101}, {"StudyDate": dt.date(2020, 12, 31)}, "STUDY_DATE", "2020-12-31"),
    ({"study_date_max": "2019-12-31"}, {"StudyDate": dt.date(2020, 1, 1)}, "STUDY_DATE", "2020-01-01"),
    ({"study_date_max": "2019-12-31"}, {}, "NOT_STATED", "(none)"),
]  # fmt: skip


def documented_attributes() -> dict[str, str]:
    """Parameter -> attribute that its rule judges, as docs/selection.md has it."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "selection.md").read_text("utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `--")]
    return {name.strip(" `@"): row[3].strip() for row in rows if "@" in row[2] for name in row[2].split(",")}


def case_rows() -> list[dict[str, Any]]:
    """A series for each case."""
    return [row for n, (_, changes, _, _) in enumerate(CASES) for row in stack(f"1.{n}", HEIGHTS, **changes)]


def wrong_cases(catalog: Catalog, dataset: str = "idc_v25") -> dict[int, object]:
    """Cases whose reason or detail is another than the expected one; one query for cases with the same rules."""
    attributes = documented_attributes()
    wrong: dict[int, object] = {}
    by_rules: dict[str, list[int]] = {}
    for n, (rules, _, _, _) in enumerate(CASES):
        by_rules.setdefault(repr(rules), []).append(n)
    for numbers in by_rules.values():
        rules = CASES[numbers[0]][0]
        given = {name: str(value) if "date" in name else value for name, value in rules.items()}
        given["series"] = [f"1.{n}" for n in numbers]
        query = parse_query("rules", load_query("select_ct_series").text.replace("idc_v25", dataset))
        table = catalog.run(query, given).table
        found = {row["SeriesInstanceUID"]: row for row in table.to_pylist()}
        for n in numbers:
            _, _, reason, shown = CASES[n]
            expected = ([reason] if reason else [], f"{attributes[min(rules)]}: {shown}" if reason else None)
            row = found[f"1.{n}"]
            if (row["failed"], row["detail"]) != expected:
                wrong[n] = (rules, row["failed"], row["detail"], expected)
    return wrong


@pytest.mark.long
def test_every_case_has_its_reason() -> None:
    catalog = TableCatalog(case_rows())
    assert not wrong_cases(catalog)
    catalog.close()
    asked = {name for rules, _, _, _ in CASES for name in rules}
    assert asked == set(RuleOptions.flags().values()) == set(documented_attributes()), "each has its cases"


ASKED: Rules = {
    "manufacturers": ["siemens*"], "models": ["one"], "kernels": ["B3*"], "body_parts": ["CHEST"], "positions": ["HFS"],
    "descriptions": ["*thorax*"], "contrast": "yes", "exclude_derived": True, "sexes": ["F"], "age_min": 18,
    "age_max": 65, "study_date_min": "2020-01-01", "study_date_max": "20201231",
}  # fmt: skip
FITS: dict[str, Any] = {
    "Manufacturer": "Siemens Healthineers", "ManufacturerModelName": " One", "ConvolutionKernel": [["B30f", "3"]] * 3,
    "BodyPartExamined": "Chest", "PatientPosition": "HFS", "SeriesDescription": "CT Thorax 3.0",
    "ContrastBolusAgent": "ULTRAVIST", "ImageType": [["ORIGINAL", "SECONDARY", "AXIAL"]] * 3, "PatientSex": "f",
    "PatientAge": "065Y", "StudyDate": dt.date(2020, 12, 31),
}  # fmt: skip
OTHER: list[tuple[str, Any, str]] = [
    ("Manufacturer", "GE", "MANUFACTURER"), ("ManufacturerModelName", "One more", "MANUFACTURER_MODEL"),
    ("ConvolutionKernel", [["B70f"]] * 3, "CONVOLUTION_KERNEL"), ("BodyPartExamined", "CHESTABDOMEN", "BODY_PART"),
    ("BodyPartExamined", ["CHEST", "CHEST", "HEAD"], "BODY_PART"), ("PatientPosition", "HFP", "PATIENT_POSITION"),
    ("SeriesDescription", "Abdomen", "SERIES_DESCRIPTION"), ("ContrastBolusAgent", None, "CONTRAST_AGENT"),
    ("ContrastBolusAgent", "none ", "CONTRAST_AGENT"),
    ("ImageType", [["DERIVED", "PRIMARY", "AXIAL"]] * 3, "DERIVED_IMAGE"),
    ("PatientSex", "M", "PATIENT_SEX"), ("PatientAge", "066Y", "PATIENT_AGE"), ("PatientAge", "018M", "PATIENT_AGE"),
    ("StudyDate", dt.date(2021, 1, 1), "STUDY_DATE"), ("StudyDate", dt.date(2019, 12, 31), "STUDY_DATE"),
    ("Manufacturer", None, "NOT_STATED"), ("ManufacturerModelName", " ", "NOT_STATED"),
    ("ConvolutionKernel", [[]] * 3, "NOT_STATED"), ("BodyPartExamined", ["CHEST", "CHEST", None], "NOT_STATED"),
    ("PatientPosition", None, "NOT_STATED"), ("SeriesDescription", "", "NOT_STATED"),
    ("ImageType", [[]] * 3, "NOT_STATED"),
    ("PatientSex", None, "NOT_STATED"), ("PatientAge", "000Y", "NOT_STATED"), ("PatientAge", "61", "NOT_STATED"),
    ("PatientAge", None, "NOT_STATED"), ("StudyDate", None, "NOT_STATED"),
]  # fmt: skip


def test_every_rule_has_its_reason() -> None:
    rows = stack("1.99", HEIGHTS, **FITS)
    for n, (name, value, _) in enumerate(OTHER):
        rows += stack(f"1.{n}", HEIGHTS, **{**FITS, name: value})
    catalog = TableCatalog(rows)
    table = catalog.run(load_query("select_ct_series"), ASKED).table
    found = {row["SeriesInstanceUID"]: row for row in table.to_pylist()}
    catalog.close()
    assert found["1.99"]["failed"] == []
    for n, (name, _, reason) in enumerate(OTHER):
        assert found[f"1.{n}"]["failed"] == [reason], (name, n)
        assert found[f"1.{n}"]["detail"].startswith(f"{name}: "), (name, n)


def test_several_rules_are_all_listed() -> None:
    failed, detail = verdict(
        {"sexes": ["F"], "age_min": 60, "body_parts": ["CHEST"]}, PatientSex="M", BodyPartExamined="HEAD"
    )
    assert failed == ["BODY_PART", "PATIENT_SEX", "NOT_STATED"]
    assert detail == "BodyPartExamined: HEAD; PatientSex: M; PatientAge: (none)"


def test_rules_that_nobody_asked_for_exclude_nothing() -> None:
    empty: Rules = {"body_parts": [], "contrast": None, "age_min": None, "exclude_derived": False}
    assert verdict(empty, BodyPartExamined="HEAD", PatientAge="x") == ([], None)


def test_values_are_bound_and_no_patterns() -> None:
    given = ["x' OR '1'='1", "%", ".*x", "(", "a|b", "\\", "[", "é*"]
    rows = [row for n, text in enumerate(given) for row in stack(f"1.{n}", HEIGHTS, BodyPartExamined=text)]
    rows += [
        row for n, text in enumerate(["CHEST", "a", "b"]) for row in stack(f"2.{n}", HEIGHTS, BodyPartExamined=text)
    ]
    catalog = TableCatalog(rows)
    table = catalog.run(load_query("select_ct_series"), {"body_parts": given}).table
    failed = dict(zip(table["SeriesInstanceUID"].to_pylist(), table["failed"].to_pylist(), strict=True))
    catalog.close()
    assert failed == {uid: ["BODY_PART"] if uid.startswith("2.") else [] for uid in failed}
    assert len(failed) == len(given) + 3


def test_ages_are_the_same_in_python() -> None:
    texts = ["061Y", "61y", "018M", "012W", "030D", "000Y", "000D", "61", "0061Y", "", "Y", "06 Y", " 061Y "]
    rows = [row for n, text in enumerate(texts) for row in stack(f"1.{n}", HEIGHTS, PatientAge=text)]
    catalog = TableCatalog(rows)
    for limit in (0.1, 1.5):
        table = catalog.run(load_query("select_ct_series"), {"age_max": limit}).table
        in_sql = dict(zip(table["SeriesInstanceUID"].to_pylist(), table["failed"].to_pylist(), strict=True))
        for n, text in enumerate(texts):
            years = age_in_years(text)
            expected = ["NOT_STATED"] if years is None else ["PATIENT_AGE"] if years > limit else []
            assert in_sql[f"1.{n}"] == expected, (text, limit)
    assert age_in_years("061Y") == 61.0
    assert age_in_years("018M") == 1.5


def test_the_series_index_has_the_rules_that_it_can_judge(tmp_path: Path) -> None:
    base = {"collection_id": "c", "analysis_result_id": None, "PatientID": "P", "StudyInstanceUID": "1.9",
            "source_DOI": "d", "Modality": "CT", "Manufacturer": "ACME", "instanceCount": 3, "license_short_name": "CC",
            "crdc_series_uuid": "u", "series_aws_url": "s3://b/u/*", "series_size_MB": 1.5,
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ManufacturerModelName": "One", "BodyPartExamined": "CHEST",
            "SeriesDescription": "", "StudyDate": dt.date(2020, 1, 2), "PatientAge": "061Y",
            "PatientSex": "F"}  # fmt: skip
    rows = [
        {**base, "SeriesInstanceUID": "1.1"},
        {**base, "SeriesInstanceUID": "1.2", "PatientSex": None, "BodyPartExamined": "HEAD"},
        {**base, "SeriesInstanceUID": "1.3", "PatientAge": "017Y"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "idc_index.parquet")
    catalog = IdcIndexCatalog(tmp_path)
    rules = {"sexes": ["F"], "age_min": 18, "body_parts": ["chest"], "study_date_min": "2020-01-01"}
    selection = select_cohort("select_idc_series", catalog, rules)
    (entry,) = selection.cohort.series
    assert entry.facts.patient_age == "061Y"
    assert entry.facts.convolution_kernel is None
    excluded = selection.excluded.select(["series_instance_uid", "reasons", "detail"]).to_pylist()
    assert [tuple(row.values()) for row in excluded] == [
        ("1.2", ["BODY_PART", "NOT_STATED"], "BodyPartExamined: HEAD; PatientSex: (none)"),
        ("1.3", ["PATIENT_AGE"], "PatientAge: 017Y"),
    ]
    with pytest.raises(UsageError, match="has no parameter 'kernels'"):
        select_cohort("select_idc_series", catalog, {"kernels": ["B30f"]})


SAID = {
    "Manufacturer": "ACME", "ManufacturerModelName": "One", "ConvolutionKernel": "B30f", "BodyPartExamined": "CHEST",
    "PatientPosition": "HFS", "SeriesDescription": "Thorax", "PatientAge": "061Y", "PatientSex": "F",
    "ContrastBolusAgent": "ULTRAVIST",
}  # fmt: skip
FACTS = SeriesFacts(
    image_type="ORIGINAL\\PRIMARY\\AXIAL", manufacturer="ACME", manufacturer_model_name="One",
    convolution_kernel="B30f", contrast_bolus_agent="ULTRAVIST", body_part_examined="CHEST", patient_position="HFS",
    series_description="Thorax", study_date="2020-01-02", patient_age="061Y", patient_sex="F", slice_thickness=3.0,
)  # fmt: skip


@pytest.fixture
def catalog_file(tmp_path: Path) -> Path:
    write_series(tmp_path / "in", series="1", **SAID)
    write_series(tmp_path / "in", series="2")
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    return tmp_path / "c.duckdb"


def test_attributes_are_in_the_cohort_file(catalog_file: Path, tmp_path: Path) -> None:
    steps.select("select_ct_series", f"folder:{catalog_file}", tmp_path / "cohort.parquet")
    first, second = read_cohort(tmp_path / "cohort.parquet").series
    assert first.facts == FACTS
    assert second.facts == SeriesFacts(
        image_type="ORIGINAL\\PRIMARY\\AXIAL", study_date="2020-01-02", slice_thickness=3.0
    )


def test_attributes_are_in_the_table_of_series(catalog_file: Path, tmp_path: Path) -> None:
    steps.select("select_ct_series", f"folder:{catalog_file}", tmp_path / "cohort.parquet")
    steps.tables(steps.start(tmp_path / "cohort.parquet", tmp_path / "run", segmenters=["expert"]))
    first, second = pq.read_table(tmp_path / "run" / "tables" / "series.parquet").to_pylist()
    expected = {**SAID, "ImageType": "ORIGINAL\\PRIMARY\\AXIAL", "StudyDate": "2020-01-02", "SliceThickness": 3.0}
    assert {name: first[name] for name in expected} == expected
    assert first["age_years"] == 61.0
    assert (second["PatientSex"], second["age_years"], second["SliceThickness"]) == (None, None, 3.0)


def test_the_command_has_an_option_for_each_rule(catalog_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort.parquet"
    command = ["select", "select_ct_series", "--catalog", f"folder:{catalog_file}", "--out", str(out)]
    fits = ["--manufacturer", "ac*", "--model", "one", "--kernel", "B30f,B31f", "--body-part", "CHEST", "--position",
            "HFS", "--description", "tho*", "--contrast", "yes", "--exclude-derived", "--sex", "F", "--sex", "M",
            "--min-age", "18", "--max-age", "70", "--from-date", "2020-01-02", "--to-date", "20200102"]  # fmt: skip
    done = CliRunner().invoke(app, [*command, *fits])
    assert done.exit_code == 0, done.output
    assert len(read_cohort(out).series) == 1
    assert set(RuleOptions.flags()) == {part for part in fits if part.startswith("--")}
    none = CliRunner().invoke(app, [*command, "--contrast", "yes", "--max-age", "60"])
    assert none.exit_code == 2
    assert "EMPTY_COHORT" in none.stderr
    wrong = CliRunner().invoke(app, [*command, "--contrast", "maybe"])
    assert "contrast is one of yes, no" in wrong.stderr


def test_what_describes_patients_is_not_shared_with_their_identifiers() -> None:
    entry = SeriesEntry("c", "p", "1.2", "1.2.3", instances=(), facts=FACTS)
    (found,) = without_patients(Cohort("c", (entry,))).series
    assert found.facts.manufacturer == "ACME"
    assert (found.patient_id, found.facts.patient_age, found.facts.patient_sex) == ("", None, None)
    assert (found.facts.study_date, found.facts.series_description) == (None, None)


def test_a_cohort_without_attributes_is_still_read(catalog_file: Path, tmp_path: Path) -> None:
    from ctenrich.catalog import open_catalog

    selection = select_cohort("select_ct_series", open_catalog(f"folder:{catalog_file}"), {})
    path = tmp_path / "old.parquet"
    write_cohort(selection, path)
    table = pq.read_table(path)
    rows = table.drop_columns(["facts", "num_instances", "size_bytes", "storage"])
    import hashlib
    import json

    digest = hashlib.sha256()
    for row in rows.to_pylist():
        digest.update(json.dumps(row, sort_keys=True).encode())
    metadata = {**pq.read_metadata(path).metadata, b"ctenrich.rows_sha256": digest.hexdigest().encode()}
    del metadata[b"ctenrich.values_sha256"]
    pq.write_table(rows.replace_schema_metadata(metadata), path)
    assert {s.facts for s in read_cohort(path).series} == {SeriesFacts()}
    assert Reason.NOT_STATED.sentence

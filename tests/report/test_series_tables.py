"""Tables of a series page: units and digits, landmarks from the head down, folded checks."""

from __future__ import annotations

import pytest

from ctenrich.records import Check, Proof
from ctenrich.report.series_tables import (
    facts_of,
    finding_rows,
    folded_issues,
    folded_proof,
    landmark_table,
    measurement_table,
    sensible,
)

ABOVE = "above the scan"
NUMBERS = {
    None: "", 0.0: "0", 0.07123: "0.0712", 0.7123: "0.712", 0.99999: "1.00", 7.123: "7.12", 71.23: "71.2",
    99.99: "100", 712.3: "712", 7123.4: "7,123", -71.23: "-71.2", 0.44: "0.440",
}  # fmt: skip


@pytest.mark.parametrize(("value", "text"), NUMBERS.items())
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert sensible(value) == text


def test_measurements_are_organ_by_quantity() -> None:
    rows = [
        {"product": "p", "segment": "heart", "quantity": "Sphericity", "unit": "1", "value": 0.71234},
        {"product": "p", "segment": "heart", "quantity": "Volume", "unit": "mm3", "value": 651_234.0},
        {"product": "p", "segment": "aorta", "quantity": "Volume", "unit": "mm3", "value": 9_876.0},
        {"product": "p", "segment": "heart", "quantity": "Surface", "unit": "mm2", "value": 45_678.0},
        {"product": "p", "segment": "heart", "quantity": "Diameter", "unit": "mm", "value": 123.45},
        {"product": "p", "segment": "heart", "quantity": "Ratio", "unit": "/mm", "value": 0.1944},
        {"product": "other", "segment": "liver", "quantity": "Volume", "unit": "mm3", "value": 1.0},
    ]
    table = measurement_table(rows, "p")
    units = [(c["quantity"], c["unit"]) for c in table["columns"]]
    assert units == [
        ("Volume", "mL"), ("Surface", "cm²"), ("Diameter", "mm"), ("Ratio", "mm⁻¹"), ("Sphericity", "")
    ]  # fmt: skip
    assert [(r["organ"], r["numbers"]) for r in table["groups"][0]["rows"]] == [
        ("aorta", ["9.88", "", "", "", ""]),
        ("heart", ["651", "457", "123", "0.194", "0.712"]),
    ]


def test_landmarks_begin_at_the_head_and_absent_ones_are_summed_up() -> None:
    rows = [
        {"landmark": "lung_start", "score": 44.1, "slice_index": 0, "confidence": 0.914, "absent_reason": None},
        {"landmark": "Th8", "score": 56.9, "slice_index": 21, "confidence": None, "absent_reason": None},
        {"landmark": "C2", "score": 87.2, "slice_index": None, "confidence": None, "absent_reason": ABOVE},
        {
            "landmark": "C3",
            "score": 85.0,
            "slice_index": None,
            "confidence": None,
            "absent_reason": f"above_range: {ABOVE}",
        },
    ]
    table = landmark_table(rows, {0: -60.0, 21: 108.0})
    assert [(m["name"], m["slice"], m["mm"], m["confidence"]) for m in table["found"]] == [
        ("Th8", 22, "108.0", ""),
        ("lung start", 1, "-60.0", "0.91"),
    ]
    assert table["absent"] == [(ABOVE, ["C2", "C3"])]
    assert table["missing"] == 2


def test_facts_that_are_not_known_are_left_out() -> None:
    spacing = {"slice_spacing": 3.0, "pixel_spacing_row": 0.9765625, "pixel_spacing_column": 0.9765625}
    first, further = facts_of({"PatientSex": "F", "age_years": None, "SeriesInstanceUID": "1.2", **spacing})
    assert first == [("Age and sex", "female"), ("Spacing (slices, rows, columns)", "3 × 0.9766 × 0.9766 mm")]
    assert further == [("Series Instance UID", "1.2")]


def test_errors_stay_open() -> None:
    proof = folded_proof(Proof("p", (Check("voxels", True), Check("references", False, "39 of 40"))))
    assert proof is not None
    assert ([c.name for c in proof["failed"]], [c.name for c in proof["passed"]]) == (["references"], ["voxels"])
    assert folded_proof(None) is None
    rows = [{"severity": s, "rule": str(n)} for n, s in enumerate(("note", "warning", "error", "warning"))]
    issues = folded_issues(rows)
    assert issues is not None
    assert [row["rule"] for row in issues["errors"]] == ["2"]
    assert issues["line"] == "2 warnings and 1 note"
    assert [row["rule"] for row in issues["others"]] == ["1", "3", "0"]


def test_findings_are_ordered_by_weight() -> None:
    keys = ("severity", "weight", "product", "organ", "slice_index", "sentence")
    values = [
        ("note", 0.0, "p", None, None, "c"),
        ("warning", 3.0, "p", "heart", 4, "b"),
        ("error", 20.0, "p", "aorta", None, "a"),
    ]
    rows = [dict(zip(keys, row, strict=True)) for row in values]
    found = finding_rows(rows)
    assert [row["sentence"] for row in found["grave"]] == ["a", "b"]
    assert [row["sentence"] for row in found["notes"]] == ["c"]

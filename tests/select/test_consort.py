"""The flow of exclusions: from cohort files, and from the published numbers of others."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.select.test_rules_agree import stack
from tests.support.generated_cohorts import TableCatalog

from ctenrich.errors import UsageError
from ctenrich.select.consort import Consort, consort_of, consort_svg, consort_text, load_consort
from ctenrich.select.files import write_cohort
from ctenrich.select.selection import select_cohort

CORDIAL = {
    "levels": ["patients"],
    "stages": [
        {
            "label": "In the registry",
            "counts": {"patients": 9100},
            "exclusions": [
                {"label": "Not matching", "counts": {"patients": 246}},
                {"label": "Not collected", "counts": {"patients": 826}},
            ],
        },
        {
            "label": "Collected",
            "counts": {"patients": 8028},
            "exclusions": [
                {"label": "Excluded", "counts": {"patients": 219}},
                {"label": "Incomplete", "counts": {"patients": 334}},
            ],
        },
        {"label": "Analysed", "counts": {"patients": 7448}},
    ],
}


@pytest.fixture
def cordial(tmp_path: Path) -> Consort:
    (tmp_path / "cordial.json").write_text(json.dumps(CORDIAL))
    return load_consort(tmp_path / "cordial.json")


def test_published_numbers_leave_27_unaccounted_for(cordial: Consort) -> None:
    assert cordial.unaccounted() == (("Collected", "patients", 27),)
    assert not cordial.balanced
    text = consort_text(cordial)
    assert "UNACCOUNTED FOR: 27 patients" in text
    assert "The numbers do not add up: 27 patients unaccounted for after 'Collected'." in text
    picture = consort_svg(cordial)
    assert "27 patients" in picture
    assert ET.fromstring(picture).tag.endswith("svg")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_a_diagram_of_a_cohort_counts_each_level(tmp_path: Path) -> None:
    def series(uid: str, heights: list[float], patient: str, study: str) -> list[dict[str, object]]:
        return stack(uid, list(heights), PatientID=patient, StudyInstanceUID=study)

    rows = [
        *series("1.1", [0, 3, 6], "A", "1.91"),
        *series("1.2", [0, 3, 9], "A", "1.91"),
        *series("1.3", [0], "A", "1.92"),
        *series("1.4", [0, 3, 9, 12], "B", "1.93"),
        *series("1.5", [0], "B", "1.93"),
        *series("1.6", [0, 3, 8, 20], "C", "1.94"),
    ]
    selection = select_cohort("select_ct_series", TableCatalog(rows), {})
    write_cohort(selection, tmp_path / "c.parquet")
    consort = consort_of(tmp_path / "c.parquet")
    assert consort.balanced
    start, end = consort.stages
    assert start.counts == {"patients": 3, "studies": 4, "series": 6}
    assert end.counts == {"patients": 1, "studies": 1, "series": 1}
    assert {e.label: e.counts for e in start.exclusions} == {
        "ONE_SLICE": {"patients": 0, "studies": 1, "series": 2},
        "MISSING_SLICE": {"patients": 1, "studies": 1, "series": 2},
        "IRREGULAR_SPACING": {"patients": 1, "studies": 1, "series": 1},
    }
    assert "The numbers add up." in consort_text(consort)


def test_labels_are_text_in_the_picture(tmp_path: Path) -> None:
    data = {"levels": ["x"], "stages": [{"label": "<script>alert(1)</script> & co", "counts": {"x": 1}}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    picture = consort_svg(load_consort(tmp_path / "a.json"))
    assert "<script>" not in picture
    ET.fromstring(picture)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"levels": ["a"], "stages": [{"label": "x"}]}'])
def test_wrong_numbers_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match="BAD_COHORT"):
        load_consort(tmp_path / "a.json")

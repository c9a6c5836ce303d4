"""The JSON document as bpreg writes it, as valid JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.bodypart_cases import make_scores

from ctenrich.bodypart.bpreg_json import write_bodypart_json


def test_the_document_is_json_and_counts_from_the_feet(tmp_path: Path) -> None:
    scores = make_scores([77.0, 60.0, None], 9.0, feet_to_head=False)
    path = tmp_path / "bodypart.json"
    write_bodypart_json(path, scores)
    text = path.read_text()
    assert "NaN" not in text
    document = json.loads(text)
    assert document["cleaned slice scores"] == [None, 60.0, 77.0]
    assert document["sop instance uids"] == ["2.25.1002", "2.25.1001", "2.25.1000"]
    assert document["z"] == [0.0, 9.0, 18.0]
    assert document["unprocessed slice scores"] == [None, pytest.approx(60.0), pytest.approx(77.0)]
    assert document["observed slope"] == pytest.approx(-scores.observed_slope)  # type: ignore[operator]
    assert document["body part examined"]["chest"] == [1.0]
    assert document["settings"]["body part examined dict"]["head"] == ["C5", None]
    assert set(document) >= {
        "cleaned slice scores", "z", "unprocessed slice scores", "body part examined", "body part examined tag",
        "look-up table", "reverse z-ordering", "valid z-spacing", "expected slope", "observed slope", "slope ratio",
        "expected z-spacing", "z-spacing", "settings",
    }  # fmt: skip

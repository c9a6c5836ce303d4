"""Regions and the summary of examined body parts, worked out by hand and compared with bpreg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.bodypart_cases import LOOKUP, SERIES, make_scores

from ctenrich.bodypart.bpreg_json import bodypart_document, write_bodypart_json
from ctenrich.bodypart.regions import examined_tag, find_regions, region_bounds, regions_of_score
from ctenrich.codes.mappings import load_landmarks, load_regions
from ctenrich.records import Regions, SliceScores
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "bodypart.json").read_text())
PUBLISHED = {name: (code.score_mean, code.score_sd) for name, code in load_landmarks().items()}


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (-40.0, ("legs",)),
        (-0.001, ("legs",)),
        (0.0, ("pelvis",)),
        (25.531, ("pelvis",)),
        (25.532, ("pelvis", "abdomen")),
        (28.824, ("abdomen",)),
        (44.952, ("abdomen", "chest")),
        (56.856, ("chest",)),
        (70.973, ("chest", "shoulder-neck")),
        (75.794, ("shoulder-neck",)),
        (81.826, ("shoulder-neck",)),  # head begins above its lower end
        (81.827, ("shoulder-neck", "head")),
        (87.206, ("head",)),
        (120.0, ("head",)),
        (None, ()),
    ],
)
def test_intervals(score: float | None, expected: tuple[str, ...]) -> None:
    assert regions_of_score(score, region_bounds(LOOKUP)) == expected


def test_a_model_with_its_own_table_has_its_own_bounds() -> None:
    bounds = region_bounds({"Th12": (40.0, 1.0), "Th1": (80.0, 1.0)})
    assert bounds["chest"] == (40.0, 80.0)
    assert bounds["pelvis"] == (0.0, 28.824)  # from the mapping: the model does not know these landmarks
    assert bounds["head"] == (81.826, None)


def test_the_mapping_holds_the_published_scores() -> None:
    table = {name: code.score_mean for name, code in load_landmarks().items()}
    assert len(table) == 35
    for region in load_regions().values():
        assert region.score_from == table.get(region.from_landmark)
        assert region.score_to == table.get(region.to_landmark)


def test_every_slice_is_there() -> None:
    line = [None, 20.0, 26.0, 50.0, 72.0, None]
    regions = find_regions(make_scores(line, 40.0))
    assert [s.regions for s in regions.slices] == [
        (), ("pelvis",), ("pelvis", "abdomen"), ("abdomen", "chest"), ("chest", "shoulder-neck"), (),
    ]  # fmt: skip
    assert [s.slice_index for s in regions.slices] == list(range(6))
    assert regions.slices[4].sop_instance_uid == "2.25.1004"


def test_descending_by_geometry_gives_the_same_instances_the_same_regions() -> None:
    line = [30.0 + 2 * k for k in range(30)]
    uids = tuple(f"2.25.{50 + k}" for k in range(30))
    up = find_regions(make_scores(line, 15.0, uids=uids))
    down = find_regions(make_scores(line[::-1], 15.0, uids=uids[::-1], feet_to_head=False))
    assert {s.sop_instance_uid: s.regions for s in up.slices} == {s.sop_instance_uid: s.regions for s in down.slices}
    assert up.examined == down.examined != "NONE"


# One score a slice, 40 + k at slice k: abdomen ends below 56.856, chest is 44.952..75.794, the neck begins at 70.973.
RISING: list[float | None] = [40.0 + k for k in range(41)]
ON_PAPER = {"abdomen": (0, 16), "chest": (5, 35), "shoulder-neck": (31, 40)}


def extents(regions: Regions) -> dict[str, tuple[int, int]]:
    """Region -> first and last slice; each is one stretch."""
    out: dict[str, tuple[int, int]] = {}
    for name in sorted({name for item in regions.slices for name in item.regions}):
        here = [item.slice_index for item in regions.slices if name in item.regions]
        assert here == list(range(here[0], here[-1] + 1))
        out[name] = (here[0], here[-1])
    return out


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param(make_scores(RISING, 8.0), ON_PAPER, id="ascending"),
        pytest.param(
            make_scores(RISING[::-1], 8.0, feet_to_head=False),
            {"abdomen": (24, 40), "chest": (5, 35), "shoulder-neck": (0, 9)},
            id="descending",
        ),
        pytest.param(
            make_scores([None] * 5 + RISING[5:35] + [None] * 6, 8.0),
            {"abdomen": (5, 16), "chest": (5, 34), "shoulder-neck": (31, 34)},
            id="tails without a score",
        ),
        pytest.param(make_scores([56.0, 57.0], 8.0), {"abdomen": (0, 0), "chest": (0, 1)}, id="two slices"),
        pytest.param(make_scores([None], 8.0), {}, id="no score"),
        pytest.param(make_scores(RISING, 4.0, valid_z_spacing=False), ON_PAPER, id="wrong spacing"),
        pytest.param(make_scores(RISING[::-1], 8.0, reverse=True), {}, id="against the geometry"),
    ],
)
def test_slices_of_each_region_as_on_paper(scores: SliceScores, expected: dict[str, tuple[int, int]]) -> None:
    assert extents(find_regions(scores)) == expected


def test_a_contradiction_of_the_direction_gives_none() -> None:
    regions = find_regions(make_scores([80.0, 60.0, 40.0], 100.0, reverse=True))
    assert {s.regions for s in regions.slices} == {()}
    assert regions.examined == "NONE"
    assert [issue.rule for issue in regions.issues] == ["reversed_or_invalid"]


@pytest.mark.parametrize(
    ("low", "high", "spacing", "expected"),
    [
        (-5.0, 110.0, 5.0, "HEAD-NECK-CHEST-ABDOMEN-PELVIS"),
        (24.0, 60.0, 5.0, "ABDOMEN"),
        (43.0, 77.0, 5.0, "CHEST"),
        (43.0, 88.0, 5.0, "NECK-CHEST"),
        (24.0, 77.0, 5.0, "CHEST-ABDOMEN"),
        (-5.0, 40.0, 5.0, "PELVIS"),  # 6 of the 7 abdominal landmarks that are wanted
        (-5.0, 50.0, 5.0, "ABDOMEN-PELVIS"),
        (80.0, 105.0, 5.0, "HEAD"),
        (-60.0, -10.0, 5.0, "NONE"),
        (57.0, 62.0, 5.0, "CHEST"),  # too short for any: the most frequent one
        (43.0, 77.0, 1.0, "CHEST"),
        (68.0, 90.0, 1.0, "NECK"),  # under 100 mm: 5.4 points lie in the chest, 12.2 in the neck, 4.4 in the head
    ],
)
def test_examined(low: float, high: float, spacing: float, expected: str) -> None:
    count = 40
    line: list[float | None] = [low + (high - low) * k / (count - 1) for k in range(count)]
    tag = examined_tag(replace_table(make_scores(line, spacing)))
    assert tag == expected


def replace_table(scores: SliceScores) -> SliceScores:
    from dataclasses import replace

    return replace(scores, lookup_table=PUBLISHED)


def test_invalid_spacing_gives_no_summary_but_keeps_the_regions() -> None:
    scores = make_scores([43.0 + 0.9 * k for k in range(40)], 5.0, valid_z_spacing=False)
    regions = find_regions(scores)
    assert regions.examined == "NONE"
    assert regions.slices[20].regions == ("chest",)


# ---------------------------------------------------------------- JSON


def from_golden(name: str) -> SliceScores:
    """A record with bpreg's own cleaned scores."""
    golden = GOLDEN["lines"][name]
    valid, reverse = golden["valid z-spacing"], golden["reverse z-ordering"]
    return replace_table(
        make_scores(
            golden["cleaned slice scores"], golden["z-spacing"], valid_z_spacing=bool(valid), reverse=bool(reverse)
        )
    )


@pytest.mark.parametrize("name", sorted(GOLDEN["lines"]))
def test_lists_and_summary_as_bpreg_writes_them(name: str) -> None:
    document = bodypart_document(from_golden(name))
    golden = GOLDEN["lines"][name]
    for key in ("body part examined", "body part examined tag", "cleaned slice scores", "valid z-spacing"):
        assert document[key] == golden[key], key
    assert document["reverse z-ordering"] == golden["reverse z-ordering"]


def test_regions_survive_saving_and_agree_with_the_bpreg_document(workspace: Workspace) -> None:
    scores, store = make_scores([43.0 + k for k in range(30)], 8.0), SeriesStore(workspace)
    regions = find_regions(scores)
    store.save(regions, SERIES, scores.product)
    assert store.regions(SERIES, scores.product) == regions
    write_bodypart_json(store.bpreg_json(SERIES, scores.product), scores)
    document = json.loads(store.bpreg_json(SERIES, scores.product).read_text())
    assert document["body part examined tag"] == regions.examined

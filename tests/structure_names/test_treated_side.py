"""The treated side by targets and doses, and the names of organs relative to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import encode_cases as cases

from ctenrich.codes.mappings import load_segments, use_mappings
from ctenrich.masks import masks_from_segments
from ctenrich.records import DoseMeasurements, DoseValue, Product, SegmentDoses, SegmentMasks
from ctenrich.results.series_rows import RECORD_TABLES, add_record_rows
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.evidence import OrganEvidence
from ctenrich.structure_names.parse import parse_name
from ctenrich.structure_names.propose import propose_name
from ctenrich.structure_names.run_masks import evidence_of_run
from ctenrich.structure_names.standard import Side, standard_name_of
from ctenrich.structure_names.table import check_names, read_names, write_mapping
from ctenrich.structure_names.treated_side import (
    TreatedSide,
    combine_sides,
    dose_side,
    find_treated_side,
    name_columns,
)
from ctenrich.workspace import Workspace

WIDE = cases.Grid(spacing=(2.0, 2.0), columns=80)
FROM_FEET = cases.Grid(spacing=(2.0, 2.0), columns=80, row=(-1.0, 0.0, 0.0))
"""Columns that run to the patient's right."""
BOXES = {"lung_right": (5, 30), "lung_left": (50, 75), "PTV-1": (52, 64), "GTV-1": (36, 46), "Lung ipsi": (50, 75)}
"""Segment -> columns."""


def draw(folder: Path, workspace: Workspace, names: dict[str, str], grid: cases.Grid = WIDE) -> SegmentMasks:
    """Boxes as the masks of an expert, segment -> name of its ROI; the series and the masks are kept in the run."""
    series, volume = cases.make_series(folder, grid)
    store = SeriesStore(workspace)
    uid = series.series_instance_uid
    store.save(series, uid)
    store.save(volume, uid)
    parts = []
    for number, (segment, roi) in enumerate(names.items(), start=1):
        mask = np.zeros(volume.shape, bool)
        first, last = BOXES[roi]
        mask[3:9, 10:30, first:last] = True
        parts.append((number, segment, roi, mask))
    template = SegmentMasks(cases.EXPERT, uid, series.shape, (), None, "")
    masks = masks_from_segments(parts, template, workspace.product_dir(uid, cases.EXPERT) / "masks", workspace)
    store.save(masks, uid, cases.EXPERT)
    return masks


def doses(means: dict[str, float], product: Product = cases.EXPERT, uid: str = "1.2") -> DoseMeasurements:
    segments = tuple(
        SegmentDoses(
            number=number, name=name, coverage=1.0, samples=9, step=(1.0, 1.0, 1.0),
            values=(DoseValue(metric="Mean[Gy]", unit="Gy", value=mean),),
        )
        for number, (name, mean) in enumerate(means.items(), start=1)
    )  # fmt: skip
    return DoseMeasurements(product=product, series_instance_uid=uid, segments=segments)


@pytest.mark.parametrize(
    ("target", "dose", "side", "source"),
    [("L", "L", "L", "target and dose"), ("R", "", "R", "target"), ("", "L", "L", "dose"), ("", "", "", ""),
     ("L", "R", "", "target and dose differ")],
)  # fmt: skip
def test_target_and_dose_must_not_differ(target: str, dose: str, side: str, source: str) -> None:
    assert combine_sides(target, dose) == TreatedSide(side=Side(side), source=source)


@pytest.mark.parametrize(
    ("means", "side"),
    [
        ({"lung_left": 3.0, "lung_right": 1.0}, "L"),
        ({"lung_left": 1.1, "lung_right": 1.0}, ""),  # both sides
        (
            {"lung_left": 1.0, "lung_right": 12.0, "kidney_left": 0.2, "kidney_right": 0.1},
            "R",
        ),  # the higher pair decides
        ({"Breast_L": 40.0, "Breast_R": 1.0}, "L"),  # ROIs by their accepted names
        ({"lung_left": 3.0, "heart": 1.0}, ""),
        ({"lung_left": 0.0, "lung_right": 0.0}, ""),
    ],
)
def test_the_pair_with_the_highest_dose_shows_its_side(means: dict[str, float], side: str) -> None:
    assert dose_side([doses(means)]) == side


def test_organs_of_two_products_are_no_pair() -> None:
    assert dose_side([doses({"lung_left": 3.0}), doses({"lung_right": 1.0}, cases.NNUNET)]) == ""


@pytest.mark.parametrize(("grid", "side"), [(WIDE, "L"), (FROM_FEET, "R")])
def test_the_targets_show_the_side(tmp_path: Path, workspace: Workspace, grid: cases.Grid, side: str) -> None:
    names = {"gtv_1": "GTV-1", "PTV-1": "PTV-1", "lung_left": "lung_left", "lung_right": "lung_right"}
    masks = draw(tmp_path / "ct", workspace, names, grid)
    store = SeriesStore(workspace)
    found = find_treated_side(store, masks.series_instance_uid, [cases.EXPERT])
    assert found == TreatedSide(side=Side(side), source="target"), "the PTV decides, the GTV is at the midline"
    store.save(replace(masks, segments=masks.segments[2:]), masks.series_instance_uid, cases.EXPERT)
    assert find_treated_side(store, masks.series_instance_uid, [cases.EXPERT]) == TreatedSide()


def test_tables_have_relative_sides_beside_left_and_right(tmp_path: Path, workspace: Workspace) -> None:
    names = {"PTV-1": "PTV-1", "lung_left": "lung_left", "lung_right": "lung_right", "Lung^Ipsi": "Lung ipsi"}
    masks = draw(tmp_path / "ct", workspace, names)
    uid = masks.series_instance_uid
    means = {"lung_left": 20.0, "lung_right": 2.0}
    SeriesStore(workspace).save(doses(means, uid=uid), uid, cases.EXPERT)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in RECORD_TABLES}
    add_record_rows(workspace, uid, {}, rows)
    assert (rows["series"][0]["treated_side"], rows["series"][0]["treated_side_source"]) == ("Left", "target and dose")
    columns = ("standard_name", "laterality", "relative_side")
    assert {row["organ"]: tuple(row[name] for name in columns) for row in rows["organs"]} == {
        "PTV-1": (None, None, None),
        "lung_left": ("Lung_L", "Left", "ipsilateral"),
        "lung_right": ("Lung_R", "Right", "contralateral"),
        "Lung^Ipsi": ("Lung^Ipsi", "Left", "ipsilateral"),
    }
    assert [row["standard_name"] for row in rows["segments"]] == [None, "Lung_L", "Lung_R", "Lung^Ipsi"]


def test_without_a_treated_side_a_relative_name_has_no_side() -> None:
    unknown = {"standard_name": "Lung^Contra", "laterality": None, "relative_side": "contralateral"}
    assert name_columns("Lung^Contra", TreatedSide()) == unknown
    right = TreatedSide(side=Side.RIGHT, source="dose")
    assert name_columns("Lung^Contra", right)["laterality"] == "Left"
    assert name_columns("heart", right) == {"standard_name": "Heart", "laterality": None, "relative_side": None}


@pytest.mark.parametrize(
    ("segment", "name"),
    [("lung_left", "Lung_L"), ("gtv_1", "GTV1"), ("Heart^alt", "Heart^alt"), ("heart_l", ""), ("Heart_old", ""),
     ("SpinalCord_PRV07", "SpinalCord_PRV07"), ("PTV_5000", "PTV_5000"), ("Lungs-PTV", "Lungs-PTV"), ("roi 7", ""),
     ("Heart^Ipsi", "Heart^Ipsi"), ("V_Azygos", "V_Azygos")],
)  # fmt: skip
def test_standard_names_of_segments(segment: str, name: str) -> None:
    assert standard_name_of(segment) == name


# ---------------------------------------------------------------- proposals


@pytest.mark.parametrize(
    ("name", "relative", "proposal"),
    [
        ("Lung ipsi", "ipsilateral", "Lung^Ipsi"),
        ("contralateral lung", "contralateral", "Lung^Contra"),
        ("Lunge_kontralateral", "contralateral", "Lung^Contra"),
        ("poumon homolatéral", "ipsilateral", "Lung^Ipsi"),
        ("Parotis Contra", "contralateral", "Parotid^Contra"),
        ("heart ipsi", "ipsilateral", ""),  # one of a kind
        ("contrast", "", ""),
        ("lung ipsi contra", "", "Lungs"),
    ],
)
def test_relative_names_are_proposed_without_a_side(name: str, relative: str, proposal: str) -> None:
    assert parse_name(name).relative == relative
    candidates = propose_name(name).candidates
    assert (candidates[0].name if candidates else "") == proposal
    assert not any(one.name.endswith(("_L", "_R")) for one in candidates)


def test_a_relative_name_on_the_wrong_side_is_found() -> None:
    left = OrganEvidence(side="L", organs=(("lung_left", 0.95),), treated="R")
    found = propose_name("Lung ipsi", left)
    assert found.warnings == (
        "the name states ipsilateral, the ROI is on the left and the treated side is right",
    )  # fmt: skip
    assert [one.name for one in found.candidates[:2]] == ["Lung^Ipsi", "Lung_L"]
    assert propose_name("Lung contra", left).warnings == ()
    unknown = OrganEvidence(side="L", organs=(("lung_left", 0.95),))
    assert propose_name("Lung ipsi", unknown).warnings == ()


def test_the_masks_of_a_run_show_the_treated_side(tmp_path: Path, workspace: Workspace) -> None:
    masks = draw(tmp_path / "ct", workspace, {"PTV-1": "PTV-1", "Lung^Ipsi": "Lung ipsi"})
    labels = np.zeros(masks.shape, np.uint8)
    labels[3:9, 10:30, 50:75] = 2
    series = SeriesStore(workspace).sorted_series(masks.series_instance_uid)
    network = cases.make_masks(series, workspace, labels)
    SeriesStore(workspace).save(network, masks.series_instance_uid, network.product)
    found = {one.name: one.evidence for one in evidence_of_run(workspace.root)}
    assert (found["Lung ipsi"].side, found["Lung ipsi"].treated) == ("L", "L")


def test_an_accepted_relative_name_has_the_code_of_the_organ_and_no_side(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("name,accept\nLung ipsi,Lung^Ipsi\nheart ipsi,Heart^Ipsi\nroi 7,Lng^Ipsi\n")
    rows = read_names(path)
    assert [(one.name, one.severity) for one in check_names(rows)] == [("roi 7", "error")]
    assert write_mapping(rows[:1], tmp_path / "own") == 1
    use_mappings(tmp_path / "own")
    try:
        row = load_segments()["Lung^Ipsi"]
        assert (row.type.value, row.laterality, row.labels) == ("39607008", None, ("Lung ipsi",))
    finally:
        use_mappings("")

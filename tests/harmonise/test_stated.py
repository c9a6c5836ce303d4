"""Measurements of other programs are matched with segments and compared with masks; what is no number is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctenrich.errors import CtenrichError
from ctenrich.harmonise.request import HarmoniseRequest, MaskForm, RequestedSegment
from ctenrich.harmonise.stated import check_stated, read_stated
from ctenrich.reasons import Reason
from ctenrich.records import Product, Segment, SegmentMasks, StatedMeasurements, Volume

SIZES = {"heart": 500, "liver": 1200, "spleen": 0}
VOXEL = 27.0
PRODUCT = Product("harmonised", "theirs")
SETTINGS = "{'binWidth': 25, 'normalize': False, 'resampledPixelSpacing': None, 'voxelArrayShift': 0, 'label': 1}"


def masks() -> SegmentMasks:
    segments = tuple(Segment(n, name, name, size) for n, (name, size) in enumerate(SIZES.items(), 1))
    return SegmentMasks(PRODUCT, "1.2.3", (30, 40, 50), segments, None, "x")


def volume() -> Volume:
    eye = tuple(tuple(float(r == c) for c in range(4)) for r in range(4))
    return Volume("1.2.3", "ct.npy", (30, 40, 50), eye, (3.0, 3.0, 3.0), "1.2", "y")  # type: ignore[arg-type]


def read(*paths: Path) -> StatedMeasurements:
    segments = tuple(
        RequestedSegment(number=n, name=name, source_label=name, file="labels.nii.gz", value=10 * n)
        for n, name in enumerate(SIZES, 1)
    )
    request = HarmoniseRequest(
        name="theirs",
        folder="/",
        form=MaskForm.LABEL_MAP,
        segments=segments,
        algorithm_type="AUTOMATIC",
        algorithm_name="TotalSegmentator",
        measurements=tuple(map(str, paths)),
    )
    found = read_stated(request, masks())
    assert found is not None
    return found


def values(found: StatedMeasurements, segment: str) -> dict[tuple[str, str], float]:
    group = next(g for g in found.groups if g.name == segment)
    return {(v.quantity[0], v.unit[0]): v.value for v in group.values}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def refused(call: Callable[[], object], reason: Reason, text: str) -> None:
    with pytest.raises(CtenrichError, match=text) as caught:
        call()
    assert caught.value.reason is reason


def statistics(**changes: Any) -> dict[str, Any]:
    stated = {name: {"volume": size * VOXEL, "intensity": 40.5} for name, size in SIZES.items()}
    return {name: stated[name] | changes.get(name, {}) for name in stated}


def test_totalsegmentators_statistics(tmp_path: Path) -> None:
    found = read(write(tmp_path / "statistics.json", statistics()))
    assert values(found, "heart") == {("YEKZ", "mm3"): 13500.0, ("Q4LE", "[hnsf'U]"): 40.5}
    assert values(found, "spleen") == {}, "an absent organ has no measurements"
    assert check_stated(found, masks(), volume()) != []
    assert found.files.keys() == {"statistics.json"}


def test_a_zero_of_an_organ_at_the_border_is_no_measurement(tmp_path: Path) -> None:
    """TotalSegmentator writes 0 for organs that touch the border of the image."""
    found = read(write(tmp_path / "s.json", statistics(heart={"volume": 0.0, "intensity": 0.0})))
    group = next(g for g in found.groups if g.name == "heart")
    assert group.values == ()
    assert set(group.omitted.values()) == {"0 stands for a structure that was not measured"}


def test_volumes_of_other_masks_are_refused(tmp_path: Path) -> None:
    found = read(write(tmp_path / "s.json", statistics(liver={"volume": 2 * 1200 * VOXEL})))
    refused(lambda: check_stated(found, masks(), volume()), Reason.BAD_MEASUREMENTS, "liver: volume is 64800 mm3")
    near = read(write(tmp_path / "n.json", statistics(liver={"volume": 1.05 * 1200 * VOXEL})))
    issues = check_stated(near, masks(), volume())
    assert [i.object for i in issues if i.rule == "harmonise.volume"] == ["liver"]


@pytest.mark.parametrize(
    ("content", "reason", "text"),
    [
        (statistics(heart={"intensity": math.nan}), Reason.BAD_MEASUREMENTS, "heart: intensity is nan"),
        (statistics(heart={"intensity": "high"}), Reason.BAD_MEASUREMENTS, "'high', not a number"),
        ({"gizzard": {"volume": 1.0}}, Reason.BAD_MEASUREMENTS, "gizzard is none of the segments"),
        ([1, 2], Reason.BAD_MEASUREMENTS, "no object of values"),
        ({"heart": {"colour": 1.0}}, Reason.BAD_MEASUREMENTS, "none of the measurements has a code"),
        ("{", Reason.BAD_MEASUREMENTS, "neither JSON nor CSV"),
        ({"@schema": "https://example.org/other#"}, Reason.BAD_DESCRIPTION, "follows https://example.org"),
    ],
)
def test_what_is_no_measurement_is_refused(tmp_path: Path, content: Any, reason: Reason, text: str) -> None:
    refused(lambda: read(write(tmp_path / "s.json", content)), reason, text)


def table(*rows: dict[str, Any]) -> str:
    names = list(rows[0])
    lines = [",".join(f'"{name}"' for name in names)]
    return "\n".join([*lines, *(",".join(f'"{row[name]}"' for name in names) for row in rows)]) + "\n"


def test_pyradiomics_table_by_label_and_by_mask(tmp_path: Path) -> None:
    row = {
        "Image": "/a/ct.nii.gz",
        "Mask": "/a/liver.nii.gz",
        "Label": 20,
        "diagnostics_Configuration_Settings": SETTINGS,
        "original_shape_VoxelVolume": 1200 * VOXEL,
        "original_shape_Sphericity": 0.5,
        "original_firstorder_Kurtosis": 3.5,
        "original_glcm_Contrast": 7.0,
    }
    found = read(write(tmp_path / "features.csv", table(row)))
    assert values(found, "liver") == {("YEKZ", "mm3"): 32400.0, ("QCFX", "1"): 0.5, ("IPH6", "1"): 0.5}
    assert found.groups[0].omitted == {"original_glcm_Contrast": "it has no code"}
    by_label = {k: v for k, v in row.items() if k != "Mask"} | {"Label": 10, "original_shape_VoxelVolume": 13500}
    assert values(read(write(tmp_path / "b.csv", table(by_label))), "heart")["YEKZ", "mm3"] == 13500


@pytest.mark.parametrize("settings", ["", "{'normalize': True}", "{'resampledPixelSpacing': [3, 3, 3]}"])
def test_first_order_features_need_settings_that_leave_their_meaning(tmp_path: Path, settings: str) -> None:
    row = {
        "Label": 10,
        "diagnostics_Configuration_Settings": settings,
        "original_shape_Sphericity": 0.5,
        "original_firstorder_Mean": 41.0,
    }
    found = read(write(tmp_path / "features.csv", table(row)))
    assert [v.name for v in found.groups[0].values] == ["original_shape_Sphericity"]
    assert "settings of pyradiomics" in found.groups[0].omitted["original_firstorder_Mean"]


def test_broken_tables_are_refused(tmp_path: Path) -> None:
    nan = table({"Label": 10, "original_shape_Sphericity": "nan"})
    refused(
        lambda: read(write(tmp_path / "a.csv", nan)),
        Reason.BAD_MEASUREMENTS,
        "line 2: original_shape_Sphericity is nan",
    )
    twice = table(*[{"Label": 10, "original_shape_Sphericity": 0.5}] * 2)
    refused(lambda: read(write(tmp_path / "b.csv", twice)), Reason.BAD_MEASUREMENTS, "heart is measured twice")
    refused(lambda: read(write(tmp_path / "c.csv", "a,b\n1\n")), Reason.BAD_MEASUREMENTS, "number of columns")


def test_dcmqis_report_keeps_its_codes(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    example = real_data("dcmqi") / "dcmqi/examples/sr-tid1500-ct-liver-example.json"
    content = json.loads(example.read_text("utf-8"))
    content["Measurements"][0]["ReferencedSegment"] = 20
    found = read(write(tmp_path / "sr.json", content))
    (group,) = found.groups
    items = content["Measurements"][0]["measurementItems"]
    assert [v.value for v in group.values] == [float(item["value"]) for item in items]
    assert [v.quantity[0] for v in group.values] == [item["quantity"]["CodeValue"] for item in items]
    assert [v.derivation[0] if v.derivation else None for v in group.values] == [
        item.get("derivationModifier", {}).get("CodeValue") for item in items
    ]
    nan = real_data("dcmqi") / "dcmqi/examples/sr-tid1500-example-nan.json"
    refused(lambda: read(nan), Reason.BAD_MEASUREMENTS, "(?i)nan|none of the segments")

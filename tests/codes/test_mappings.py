"""Mappings: every row checked, labels found, and a linter that finds what is planted and nothing else."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctenrich.codes.mappings import (
    check_mappings,
    codes_of,
    find_segment,
    general_name,
    general_sha256,
    load_concepts,
    load_features,
    load_landmarks,
    load_regions,
    load_segments,
    mappings_sha256,
    normalise_label,
    numbered_name,
    use_mappings,
)
from ctenrich.codes.terminology import (
    code_fault,
    dictionary_meanings,
    nearest_code,
    ucum_fault,
    verhoeff_valid,
)
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Severity
from ctenrich.resources import folder

TOTAL_SEGMENTATOR = [
    *[
        "spleen",
        "kidney_right",
        "kidney_left",
        "gallbladder",
        "liver",
        "stomach",
        "pancreas",
        "adrenal_gland_right",
        "adrenal_gland_left",
    ],
    *["lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_middle_lobe_right"],
    *[
        "lung_lower_lobe_right",
        "esophagus",
        "trachea",
        "thyroid_gland",
        "small_bowel",
        "duodenum",
        "colon",
        "urinary_bladder",
    ],
    *["prostate", "kidney_cyst_left", "kidney_cyst_right", "sacrum", "vertebrae_S1"],
    *(f"vertebrae_L{n}" for n in range(1, 6)),
    *(f"vertebrae_T{n}" for n in range(1, 13)),
    *(f"vertebrae_C{n}" for n in range(1, 8)),
    *["heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk", "subclavian_artery_right", "subclavian_artery_left"],
    *["common_carotid_artery_right", "common_carotid_artery_left", "brachiocephalic_vein_left"],
    *["brachiocephalic_vein_right", "atrial_appendage_left", "superior_vena_cava", "inferior_vena_cava"],
    *["portal_vein_and_splenic_vein", "iliac_artery_left", "iliac_artery_right", "iliac_vena_left", "iliac_vena_right"],
    *[
        "humerus_left",
        "humerus_right",
        "scapula_left",
        "scapula_right",
        "clavicula_left",
        "clavicula_right",
        "femur_left",
    ],
    *["femur_right", "hip_left", "hip_right", "spinal_cord", "gluteus_maximus_left", "gluteus_maximus_right"],
    *[
        "gluteus_medius_left",
        "gluteus_medius_right",
        "gluteus_minimus_left",
        "gluteus_minimus_right",
        "autochthon_left",
    ],
    *["autochthon_right", "iliopsoas_left", "iliopsoas_right", "brain", "skull", "sternum", "costal_cartilages"],
    *(f"rib_left_{n}" for n in range(1, 13)),
    *(f"rib_right_{n}" for n in range(1, 13)),
]


def test_all_of_totalsegmentator_is_mapped() -> None:
    assert len(TOTAL_SEGMENTATOR) == len(set(TOTAL_SEGMENTATOR)) == 117
    missing = [name for name in TOTAL_SEGMENTATOR if find_segment(name) is None]
    assert not missing
    assert all(find_segment(name).name == name for name in TOTAL_SEGMENTATOR)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Lung-Left", "lung_left"),
        ("Lung-Right", "lung_right"),
        ("Lung L", "lung_left"),
        ("Lt Lung", "lung_left"),
        ("Spinal-Cord", "spinal_cord"),
        ("Spinal cord", "spinal_cord"),
        ("GTV-1", "gtv_1"),
        ("gtv 2", "gtv_2"),
        ("Esophagus", "esophagus"),
        ("  HEART ", "heart"),
        ("Th4", "vertebrae_T4"),
        ("lung_left", "lung_left"),
    ],
)
def test_names_of_models_and_experts_are_found(label: str, name: str) -> None:
    segment = find_segment(label)
    assert segment is not None
    assert segment.name == name


@pytest.mark.parametrize("label", ["", "PTV-1", "Isocenter 1", "Patient", "lung_leftish", "hear"])
def test_unknown_names_stay_unknown(label: str) -> None:
    assert find_segment(label) is None


def test_every_side_and_colour_is_coded() -> None:
    segments = load_segments()
    for name, code in segments.items():
        words = name.split("_")
        for side in ("left", "right"):
            if side in words:
                codes = [code.laterality, code.region_modifier]
                stated = [c.meaning.casefold() for c in codes if c] or [code.type.meaning.casefold()]
                assert any(side in text for text in stated), name
    assert segments["esophagus"].type.value == "32849002"
    assert segments["heart"].colour == (5, 183, 61)
    assert segments["gtv_1"].finding_site.meaning == "Lung"
    assert segments["kidney_cyst_left"].finding_site_laterality is not None


def test_shape_features_have_quantity_and_unit() -> None:
    features = load_features()
    shape = {name: code for name, code in features.items() if code.feature_class == "shape"}
    assert len([c for c in shape.values() if c.quantity.scheme == "IBSI"]) == 14
    assert {name for name, c in shape.items() if c.quantity.scheme == "99CTENRICH"} == {
        "Maximum2DDiameterSlice",
        "Maximum2DDiameterColumn",
        "Maximum2DDiameterRow",
    }
    known = dictionary_meanings("IBSI")
    for code in shape.values():
        if code.quantity.scheme == "IBSI":
            assert code.quantity.meaning in known[code.quantity.value]
    assert {features[name].unit.value for name in ("Elongation", "Flatness", "Sphericity")} == {"1"}
    assert features["MeshVolume"].unit.value == features["VoxelVolume"].unit.value == "mm3"
    assert features["SurfaceVolumeRatio"].unit.value == "/mm"


def test_own_mappings_have_no_error() -> None:
    issues = check_mappings(folder("mappings"))
    assert [i for i in issues if i.severity is Severity.ERROR] == []
    assert [i.object for i in issues if i.severity is Severity.WARNING] in ([], ["regions.csv:6"])
    assert len(load_landmarks()) == 35
    assert len(load_regions()) == 6
    assert load_concepts()["slice_score"].code.scheme == "99CTENRICH"


@pytest.mark.data
def test_published_mappings_give_exactly_the_known_findings(published: Path) -> None:
    issues = check_mappings(published / "mappings")
    errors = [i for i in issues if i.severity is Severity.ERROR]
    found = [(i.object.split(":")[1], i.message.split("did you mean ")[1].split(" ")[0]) for i in errors]
    assert found == [("26", "816092008"), ("26", "421610009"), ("28", "816092008"), ("34", "421610009")]
    assert {i.object.split(":")[0] for i in errors} == {"bpr_landmarks_code_mapping.csv"}
    warnings = Counter((i.object.split(":")[0], i.rule) for i in issues if i.severity is not Severity.ERROR)
    assert warnings == {
        ("bpr_landmarks_code_mapping.csv", "LITERAL_NONE"): 1,
        ("bpr_landmarks_code_mapping.csv", "SEVERAL_CODES"): 1,
        ("bpr_regions_code_mapping.csv", "CONCEPT"): 5,
        ("bpr_regions_code_mapping.csv", "SEVERAL_CODES"): 1,
        ("nnunet_shape_features_code_mapping.csv", "BLANK"): 1,
    }


def plant(tmp_path: Path, file: str, line: int, **cells: str) -> Path:
    """A copy of our mappings with one row changed (line as a text editor counts)."""
    target = tmp_path / "mappings"
    shutil.copytree(folder("mappings"), target)
    with (target / file).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows[line - 2].update(cells)
    with (target / file).open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return target


@pytest.mark.parametrize(
    ("file", "line", "cells", "rule", "severity"),
    [
        ("segments.csv", 3, {"type_code": "80891008"}, "IMPOSSIBLE_CODE", Severity.ERROR),
        ("segments.csv", 3, {"type_code": "10200004"}, "WRONG_CODE", Severity.ERROR),
        ("segments.csv", 3, {"type_meaning": "Pump"}, "MEANING", Severity.WARNING),
        ("segments.csv", 3, {"type_meaning": ""}, "INCOMPLETE", Severity.ERROR),
        ("segments.csv", 3, {"name": "esophagus"}, "DUPLICATE", Severity.ERROR),
        ("segments.csv", 3, {"name": "heart "}, "BLANK", Severity.WARNING),
        ("segments.csv", 3, {"type_meaning": "Heart\u00a0"}, "BLANK", Severity.WARNING),
        (
            "segments.csv",
            6,
            {"laterality_code": "None", "laterality_scheme": "", "laterality_meaning": ""},
            "LITERAL_NONE",
            Severity.WARNING,
        ),
        (
            "segments.csv",
            6,
            {"laterality_code": "", "laterality_scheme": "", "laterality_meaning": ""},
            "LATERALITY",
            Severity.WARNING,
        ),
        ("features.csv", 2, {"unit_code": "mmm"}, "IMPOSSIBLE_CODE", Severity.ERROR),
        ("features.csv", 2, {"quantity_code": "Q3C"}, "IMPOSSIBLE_CODE", Severity.ERROR),
        ("features.csv", 2, {"quantity_code": "ZZZZ"}, "UNKNOWN_IBSI", Severity.WARNING),
        ("features.csv", 2, {"quantity_code": "N17B"}, "WRONG_CODE", Severity.ERROR),
        ("regions.csv", 3, {"site_code": "12921003"}, "CONCEPT", Severity.WARNING),
        ("regions.csv", 3, {"site_code": "12921003"}, "SEVERAL_CODES", Severity.WARNING),
    ],
)
def test_what_is_planted_is_found_at_its_line(
    file: str, line: int, cells: dict[str, str], rule: str, severity: Severity, tmp_path: Path
) -> None:
    issues = check_mappings(plant(tmp_path, file, line, **cells))
    assert any(i.rule == rule and i.severity is severity and i.object == f"{file}:{line}" for i in issues), issues


def test_a_faulty_row_is_refused_with_its_line(tmp_path: Path) -> None:
    target = plant(tmp_path, "segments.csv", 4, type_code="44567002")
    with pytest.raises(UsageError) as caught:
        load_segments(target / "segments.csv")
    assert caught.value.reason is Reason.BAD_MAPPING
    assert "segments.csv:4" in str(caught.value)
    (target / "segments.csv").write_text("name,labels\nheart,\n")
    with pytest.raises(UsageError, match="missing"):
        load_segments(target / "segments.csv")
    with pytest.raises(UsageError, match="no mapping file"):
        load_segments(target / "nothing.csv")


def test_nearest_codes_are_offered() -> None:
    known = dictionary_meanings("SCT")
    assert nearest_code("SCT", "8106092008", "Pelvis", known) == "816092008"
    assert nearest_code("SCT", "80891008", "Heart", known) == "80891009"
    assert nearest_code("SCT", "12345", "Flux capacitor", known) == ""
    assert nearest_code("SCT", "816029008", "Pelvis", known) == "816092008", "two digits exchanged"


def test_identity_of_the_mappings() -> None:
    assert len(mappings_sha256()) == 64


def test_snomed_ids_of_dicom_pass_the_check_digit() -> None:
    values = [v for v in dictionary_meanings("SCT") if v.isdigit()]
    assert len(values) > 8000
    # one entry of the dictionary is itself mistyped: no SNOMED CT identifier
    assert [v for v in values if code_fault("SCT", v)] in ([], ["115347700"])


@given(st.integers(min_value=100000, max_value=10**17), st.data())
def test_check_digit_catches_every_single_error_and_transposition(number: int, data: st.DataObject) -> None:
    digits = next(f"{number}{c}" for c in "0123456789" if verhoeff_valid(f"{number}{c}"))
    place = data.draw(st.integers(0, len(digits) - 1))
    other = data.draw(st.sampled_from([c for c in "0123456789" if c != digits[place]]))
    assert not verhoeff_valid(digits[:place] + other + digits[place + 1 :])
    if place + 1 < len(digits) and digits[place] != digits[place + 1]:
        swapped = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
        assert not verhoeff_valid(swapped)


@pytest.mark.parametrize(
    "unit", ["1", "mm", "mm2", "mm3", "/mm", "1/mm", "[hnsf'U]", "[hnsf'U]2", "cm", "g/ml{SUVbw}", "10*23/ml"]
)
def test_units_that_are_ucum(unit: str) -> None:
    assert ucum_fault(unit) == ""


@pytest.mark.parametrize("unit", ["", "mmm", "kg m", "[foo]", "mm^3", "HU", "mm 3", "cubic mm", "1e3"])
def test_units_that_are_not(unit: str) -> None:
    assert ucum_fault(unit)


def test_every_unit_of_dicom_is_accepted() -> None:
    assert [v for v in dictionary_meanings("UCUM") if ucum_fault(v)] == []


@given(st.text(max_size=30))
def test_labels_normalise_to_a_fixed_point(label: str) -> None:
    once = normalise_label(label)
    assert normalise_label(once) == once


# ---------------------------------------------------------------- the user's own folder


@pytest.fixture
def own_folder(tmp_path: Path) -> Iterator[Path]:
    """A row of its own, and one that replaces the package's heart; the package's mappings again afterwards."""
    with (folder("mappings") / "segments.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    spleen = next(row for row in rows if row["name"] == "spleen")
    heart = next(row for row in rows if row["name"] == "heart")
    with (tmp_path / "segments.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerow(spleen | {"name": "spare_organ", "labels": "organ 7|trachea"})
        writer.writerow(heart | {"labels": "pump", "colour": "#010203"})
    yield tmp_path
    use_mappings("")


def test_rows_of_the_user_are_added_and_replace_those_of_the_same_name(own_folder: Path) -> None:
    before = mappings_sha256()
    use_mappings(own_folder)
    assert find_segment("Organ-7") == load_segments()["spare_organ"]
    assert find_segment("trachea") == load_segments()["spare_organ"]
    assert find_segment("windpipe") == load_segments()["trachea"]
    assert find_segment("pump") == load_segments()["heart"]
    assert load_segments()["heart"].colour == (1, 2, 3)
    assert find_segment("whole heart") is None
    changed = mappings_sha256()
    assert changed != before
    use_mappings("")
    assert mappings_sha256() == before
    assert find_segment("pump") is None
    assert find_segment("whole heart") == load_segments()["heart"]


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, own_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no segments\.csv") as caught:
        use_mappings(tmp_path / "empty")
    assert caught.value.reason is Reason.BAD_MAPPING
    path = own_folder / "segments.csv"
    path.write_text(path.read_text().replace("78961009", "78961008"))
    with pytest.raises(UsageError, match=r"segments\.csv:2"):
        use_mappings(own_folder)


def test_numbered_and_general_names_have_codes() -> None:
    assert codes_of(numbered_name("heart", 1)) == codes_of(numbered_name("heart", 3)) == load_segments()["heart"]
    assert numbered_name("heart", 3) == "heart#3"
    assert general_name("PTV 70 Gy") == "roi:ptv_70_gy"
    found = codes_of("roi:ptv_70_gy#2")
    assert found is not None
    assert (found.type.scheme, found.type.value, found.region and found.region.value) == ("DCM", "111099", "123037004")
    assert len(general_name("x" * 300)) <= 48
    assert codes_of("nothing") is None


def test_the_general_code_is_no_part_of_what_makes_models_run_again(own_folder: Path) -> None:
    before, general = mappings_sha256(), general_sha256()
    (own_folder / "segments.csv").unlink()
    (own_folder / "rois.csv").write_text((folder("mappings") / "rois.csv").read_text().replace("9AA0A6", "000000"))
    use_mappings(own_folder)
    assert mappings_sha256() == before
    assert general_sha256() != general
    found = codes_of("roi:x")
    assert found is not None
    assert found.colour == (0, 0, 0)

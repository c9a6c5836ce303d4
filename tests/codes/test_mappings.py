"""Mappings: every row checked, labels found, and a linter that finds what is planted and nothing else."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctenrich.codes.lint import check_mappings
from ctenrich.codes.mappings import (
    CODES_REVISION,
    codes_of,
    codes_sha256,
    find_segment,
    general_name,
    general_sha256,
    labels_sha256,
    load_concepts,
    load_features,
    load_landmarks,
    load_regions,
    load_segments,
    newer_codes,
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
                whole = [c.meaning.casefold() for c in (code.type, code.region) if c]
                stated = [c.meaning.casefold() for c in codes if c] or whole
                assert any(side in text for text in stated), name
        assert code.system, name
    assert segments["esophagus"].type.value == "32849002"
    assert segments["heart"].colour == (5, 183, 61)
    sites = {row.finding_site.meaning for name, row in segments.items() if name.startswith("gtv_")}
    assert sites == {"Anatomical Structure"}, "the name of a target does not state where it is"
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


SCT_LEFT = {"laterality_scheme": "SCT", "laterality_code": "7771000", "laterality_meaning": "Left"}
NO_SIDE = {"laterality_scheme": "", "laterality_code": "", "laterality_meaning": ""}


def line_of(file: str, name: str) -> int:
    """Line of a row, as a text editor counts."""
    with (folder("mappings") / file).open(newline="") as handle:
        return next(n for n, row in enumerate(csv.reader(handle), start=1) if row[0] == name)


@pytest.mark.parametrize(
    ("name", "cells", "rule", "severity", "message"),
    [
        (
            "subclavian_artery_left",
            {"type_code": "29700009"},
            "SIDE",
            Severity.ERROR,
            "means 'Right Subclavian Artery', but its modifier is left",
        ),
        ("subclavian_artery_right", {"type_code": "29700009"}, "SIDE", Severity.WARNING, "states the side twice"),
        ("kidney_right", SCT_LEFT, "SIDE", Severity.ERROR, "names right, but 7771000 (Left) is its modifier"),
        (
            "atrial_appendage_left",
            {"type_code": "68300000", "type_meaning": "Right auricular appendage"},
            "SIDE",
            Severity.ERROR,
            "names left, but 68300000 means 'Right auricular appendage'",
        ),
        ("kidney_cyst_left", {"region_code": "29700009"}, "SIDE", Severity.ERROR, "but its modifier is left"),
        ("gluteus_maximus_left", {"type_code": "181674001"}, "ENTIRE", Severity.WARNING, "use the structure 206007"),
        ("breast", {"type_code": "181131000"}, "ENTIRE", Severity.WARNING, "an organ as a whole"),
        (
            "spleen",
            {"type_code": "361097006", "type_meaning": "Entire Vessel"},
            "ENTIRE",
            Severity.WARNING,
            "structure",
        ),
    ],
)
def test_contradictory_sides_and_entireties_are_found(
    name: str, cells: dict[str, str], rule: str, severity: Severity, message: str, tmp_path: Path
) -> None:
    line = line_of("segments.csv", name)
    issues = check_mappings(plant(tmp_path, "segments.csv", line, **cells))
    found = [i for i in issues if i.rule == rule and i.object == f"segments.csv:{line}"]
    assert [i.severity for i in found] == [severity], issues
    assert message in found[0].message


def test_left_and_right_with_equal_codes_are_found(tmp_path: Path) -> None:
    left, right = (line_of("segments.csv", f"kidney_{side}") for side in ("left", "right"))
    target = plant(tmp_path, "segments.csv", left, **NO_SIDE)
    assert not [i for i in check_mappings(target) if i.rule == "EQUAL_SIDES"], "the other one has its modifier"
    rows = (target / "segments.csv").read_text().splitlines()
    rows[right - 1] = rows[left - 1].replace("kidney_left", "kidney_right")
    (target / "segments.csv").write_text("\n".join(rows) + "\n")
    found = [i for i in check_mappings(target) if i.rule == "EQUAL_SIDES"]
    assert [(i.severity, i.object) for i in found] == [(Severity.ERROR, f"segments.csv:{max(left, right)}")]


def test_one_concept_for_two_labels_of_a_task_is_found(tmp_path: Path) -> None:
    line = line_of("segments.csv", "stomach")
    target = plant(tmp_path, "segments.csv", line, type_code="78961009", type_meaning="Spleen")
    found = [i for i in check_mappings(target) if i.rule == "SAME_CONCEPT"]
    assert {i.severity for i in found} == {Severity.WARNING}
    assert "tasks.csv:7" in {i.object for i in found}
    assert "'stomach' has the codes of 'spleen' of the same task" in {i.message for i in found}
    tasks = target / "tasks.csv"
    tasks.write_text(tasks.read_text().replace("totalsegmentator:total,6,stomach,,", "totalsegmentator:total,6,crop,,"))
    found = [i for i in check_mappings(target) if i.rule == "UNKNOWN_SEGMENT"]
    assert [(i.severity, i.object) for i in found] == [(Severity.ERROR, "tasks.csv:7")]


def test_tables_of_several_models_are_checked_model_by_model(tmp_path: Path) -> None:
    columns = [
        f"Segmented{part}CodeSequence.{name}"
        for part in ("PropertyType", "PropertyTypeModifier")
        for name in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
    ]
    rows = [
        ["organs", "spleen", "SCT", "78961009", "Spleen", "", "", ""],
        ["fast", "spleen", "SCT", "78961009", "Spleen", "", "", ""],
        ["fast", "milt", "SCT", "78961009", "Spleen", "", "", ""],
        ["fast", "subclavian", "SCT", "29700009", "Subclavian artery", "SCT", "7771000", "Left"],
    ]
    with (tmp_path / "table.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["model", "label_name", *columns], *rows])
    found = [(i.rule, i.object) for i in check_mappings(tmp_path)]
    assert found == [("SAME_CONCEPT", "table.csv:4"), ("SIDE", "table.csv:5")]


def test_structures_without_a_concept_share_the_general_one() -> None:
    generic = {
        name for name, code in load_segments().items() if (code.type.scheme, code.type.value) == ("DCM", "111099")
    }
    assert {"rectus_abdominis_left", "ventricle_trigone_right", "lingual_canal", "aorta_true_lumen"} <= generic
    assert all(load_segments()[name].region for name in generic)
    assert not [i for i in check_mappings(folder("mappings")) if i.rule == "SAME_CONCEPT"]


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


def published_rows() -> str:
    """The rows of the first revision that objects carry, as version 0.1.0 had them, without other names."""
    with (folder("mappings") / "segments.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if not row.pop("revision")]
    for row in rows:
        del row["labels"], row["system"]
    lines = [",".join(row.values()) for row in rows]
    for name in ("features.csv", "landmarks.csv", "regions.csv"):
        lines += [
            line
            for line in (folder("mappings") / name).read_text().splitlines()
            if not line.startswith(TEXTURES)  # newer: no object of 0.1.0 has them
        ]
    with (folder("mappings") / "concepts.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["name"] not in NEWER_CONCEPTS]
    used = [row for row in rows if row["scheme"] != "SCT" or row["name"] in USED_CONCEPTS]
    return "\n".join([*lines, *(",".join(row.values()) for row in used)])


TEXTURES = ("glcm_", "glrlm_", "glszm_", "gldm_", "ngtdm_")
USED_CONCEPTS = {"top", "bottom", "anatomical_structure", "organ", "finding_category"}
READ_CONCEPTS = {"older_laterality", "older_measurement_method", "activity_session", "time_point"}
VECTOR_CONCEPTS = {f"feature_{n}" for n in ("length", "norm", "outside", "sha256", "input", "crop", "table")}
NEWER_CONCEPTS = READ_CONCEPTS | VECTOR_CONCEPTS
"""Only read in reports of other makers, or in a kind of object that 0.1.0 did not have."""


def test_rows_of_the_first_revision_are_those_of_0_1_0() -> None:
    """Objects get other bytes when one of these rows changes: raise its revision, or CODES_REVISION for other files."""
    assert CODES_REVISION == "bff15f79c207d176074a86d4f554566ed32bd65a00098386d7e2d4abb137aa41"
    digest = hashlib.sha256(published_rows().encode()).hexdigest()
    assert digest == "4da96f828ef5a4ebccf13a11495f26ef9e4b9901fcd569df9c87122d06ec6d21"


def test_newer_codes_are_part_of_the_identity_only_where_they_are_used() -> None:
    assert newer_codes(["heart", "lung_left#2", "roi:ptv", "vertebrae_L5"]) == ()
    left = newer_codes(["heart", "gluteus_maximus_left"])
    assert len(left) == 1
    assert len(left[0]) == 64
    assert newer_codes(["gluteus_maximus_left#2", "heart", "spleen"]) == left
    assert newer_codes(["gluteus_maximus_right"]) != left
    assert newer_codes(["gluteus_maximus_left", "mandible"]) != left


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
    before, labels = codes_sha256(), labels_sha256()
    assert before == CODES_REVISION
    use_mappings(own_folder)
    assert find_segment("Organ-7") == load_segments()["spare_organ"]
    assert find_segment("trachea") == load_segments()["spare_organ"]
    assert find_segment("windpipe") == load_segments()["trachea"]
    assert find_segment("pump") == load_segments()["heart"]
    assert load_segments()["heart"].colour == (1, 2, 3)
    assert find_segment("whole heart") is None
    assert codes_sha256() != before
    assert labels_sha256() != labels
    assert len(newer_codes(["heart"])) == 1
    assert newer_codes(["spleen"]) == ()
    use_mappings("")
    assert (codes_sha256(), labels_sha256()) == (before, labels)
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
    before, general = codes_sha256(), general_sha256()
    (own_folder / "segments.csv").unlink()
    (own_folder / "rois.csv").write_text((folder("mappings") / "rois.csv").read_text().replace("9AA0A6", "000000"))
    use_mappings(own_folder)
    assert codes_sha256() == before
    assert general_sha256() != general
    found = codes_of("roi:x")
    assert found is not None
    assert found.colour == (0, 0, 0)


def test_textures_have_the_codes_and_meanings_of_the_dictionary() -> None:
    known = dictionary_meanings("IBSI")
    textures = {name: code for name, code in load_features().items() if name.startswith(TEXTURES)}
    assert len(textures) == 74
    assert len({code.quantity.value for code in textures.values()}) == 74
    for code in textures.values():
        assert code.quantity.meaning in known[code.quantity.value]
        assert code.unit.value == "1"
    assert textures["gldm_GrayLevelVariance"].full_name == "original_gldm_GrayLevelVariance"
    assert load_features()["Mean"].full_name == "original_firstorder_Mean"

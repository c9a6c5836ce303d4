"""Standard names: the mapping, proposals for spellings of four languages, evidence from masks, the table of names."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import test_data_root as data_root
from tests.support.treatment_cases import Patient, make

from ctenrich.codes.lint import check_mappings
from ctenrich.codes.mappings import codes_of, load_segments, use_mappings
from ctenrich.errors import UsageError
from ctenrich.resources import folder
from ctenrich.structure_names.evidence import OrganEvidence, Overlap, find_evidence, midline
from ctenrich.structure_names.parse import parse_name
from ctenrich.structure_names.propose import propose_name, similarity
from ctenrich.structure_names.standard import Side, find_standard, segment_of, standard_name_of, standard_names
from ctenrich.structure_names.table import check_names, name_rows, read_names, write_mapping, write_names
from ctenrich.structure_names.targets import check_target


def first(name: str) -> str:
    found = propose_name(name).candidates
    return found[0].name if found else ""


# ---------------------------------------------------------------- the mapping


def test_every_name_of_the_published_list_is_mapped_or_listed_without_a_code() -> None:
    with (data_root() / "data" / "tg263_names.csv").open(encoding="utf-8-sig", newline="") as handle:
        published = [row[0] for row in csv.reader(handle) if row]
    known = standard_names()
    assert len(published) == 717
    assert set(published) == set(known)
    assert sum(one.code is not None for one in known.values()) == 337
    assert all(first(name) == name for name in published)


def test_sides_codes_and_segments_of_the_mapping_agree() -> None:
    segments = load_segments()
    for one in standard_names().values():
        if one.segment:
            row = segments[one.segment]
            assert one.code is not None
            assert one.code.value == row.type.value, one.name
            side = {"left": Side.LEFT, "right": Side.RIGHT}.get(one.segment.rpartition("_")[2])
            assert side in {None, one.side}, one.name
        if one.laterality is not None:
            assert one.laterality.meaning == {"L": "Left", "R": "Right", "B": "Right and left"}[one.side.value]
        if one.name.endswith(("_L", "_R")) and one.kind == "anatomy" and not one.name.startswith("VB_"):
            assert one.side.value == one.name[-1]


def test_the_linter_finds_no_error_in_the_mapping() -> None:
    found = [i for i in check_mappings(folder("mappings")) if i.severity.value == "error"]
    assert found == []


# ---------------------------------------------------------------- spelling

ORGANS: dict[str, tuple[str, str, str, str]] = {
    "Lung": ("lung", "Lunge", "long", "poumon"),
    "Kidney": ("kidney", "Niere", "nier", "rein"),
    "Parotid": ("parotid gland", "Ohrspeicheldrüse", "oorspeekselklier", "glande parotide"),
    "Glnd_Submand": ("submandibular gland", "Unterkieferdrüse", "glandula submandibularis", "glande sous-maxillaire"),
    "OpticNrv": ("optic nerve", "Sehnerv", "oogzenuw", "nerf optique"),
    "Eye": ("eyeball", "Auge", "oog", "globe oculaire"),
    "Lens": ("lens", "Augenlinse", "ooglens", "cristallin"),
    "Femur_Head": ("femoral head", "Hüftkopf", "heupkop", "tête fémorale"),
    "Breast": ("breast", "Brust", "borst", "sein"),
    "Cochlea": ("cochlea", "Schnecke", "slakkenhuis", "cochlée"),
    "BrachialPlex": ("brachial plexus", "Plexus brachialis", "armplexus", "plexus brachial"),
    "Hippocampus": ("hippocampus", "Hippokampus", "hippocampus", "hippocampe"),
    "Heart": ("heart", "Herz", "hart", "cœur"),
    "SpinalCord": ("spinal cord", "Rückenmark", "ruggenmerg", "moelle épinière"),
    "Esophagus": ("oesophagus", "Speiseröhre", "slokdarm", "œsophage"),
    "Bladder": ("bladder", "Harnblase", "blaas", "vessie"),
    "Rectum": ("rectum", "Enddarm", "endeldarm", "rectum"),
    "Liver": ("liver", "Leber", "lever", "foie"),
    "Stomach": ("stomach", "Magen", "maag", "estomac"),
    "Brainstem": ("brain stem", "Hirnstamm", "hersenstam", "tronc cérébral"),
    "Larynx": ("larynx", "Kehlkopf", "strottenhoofd", "larynx"),
    "Bone_Mandible": ("mandible", "Unterkiefer", "onderkaak", "mandibule"),
    "Glnd_Thyroid": ("thyroid", "Schilddrüse", "schildklier", "thyroïde"),
    "Trachea": ("trachea", "Luftröhre", "luchtpijp", "trachée"),
    "Spleen": ("spleen", "Milz", "milt", "rate"),
}
SIDES = {"L": (("Left", "lt"), ("links", "li."), ("links", "li"), ("gauche", "G")),
         "R": (("right", "RT"), ("rechts", "re."), ("rechts", "re"), ("droite", "D"))}  # fmt: skip
PAIRED = list(ORGANS)[:12]
FORMS = ("{o} {s}", "{o}_{s}", "{o}-{s}", "{o}.{s}", " {o}  {s} ")


def spellings() -> Iterator[tuple[str, str]]:
    """Made-up names and what they mean: four languages, separators, capitals, slips of the keyboard."""
    number = 0
    for base, words in ORGANS.items():
        for language, word in enumerate(words):
            for side in ("L", "R") if base in PAIRED else ("",):
                number += 1
                text = word
                if number % 5 == 0 and len(word) > 6:  # two neighbouring letters swapped, or one left out
                    at = 2 + number % (len(word) - 4)
                    text = (
                        word[:at] + word[at + 1] + word[at] + word[at + 2 :]
                        if number % 2
                        else word[:at] + word[at + 1 :]
                    )
                if side:
                    text = FORMS[number % len(FORMS)].format(o=text, s=SIDES[side][language][number % 2])
                text = (str, str.upper, str.lower, str.title)[number % 4](text)
                yield text, f"{base}_{side}" if side else base
    for base, words in list(ORGANS.items())[12:]:
        for margin, word in zip((3, 5, 7, 10), words, strict=True):
            yield f"{word} PRV {margin}mm" if margin % 2 else f"{word}_PRV{margin}", f"{base}_PRV{margin:02d}"
        yield f"{words[1]}_alt", f"{base}^alt"


def test_two_hundred_spellings_in_four_languages() -> None:
    cases = list(spellings())
    assert len(cases) >= 200
    missed, wrong_side = [], []
    for text, wanted in cases:
        names = [one.name for one in propose_name(text).candidates]
        if wanted not in names:
            missed.append((text, wanted, names))
        stated = wanted[-1] if wanted.endswith(("_L", "_R")) else ""
        sides = {standard_names()[one.standard].side.value for one in propose_name(text).candidates}
        if sides & ({"L", "R"} - {stated}):
            wrong_side.append((text, wanted, names))
    assert wrong_side == []
    assert len(missed) <= 0.1 * len(cases), missed


@pytest.mark.parametrize(
    ("name", "side"),
    [("Lung L/R", ""), ("lung left right", ""), ("L5", ""), ("th12", ""), ("neck level V", ""), ("Lunge li", "L"),
     ("n.opticus re", "R"), ("poumon d", "R"), ("Kopf der Pankreas", ""), ("lunge højre", "R"),
     ("Nieren beidseits", "B"),
     ("rib r 7", "R"), ("V", ""), ("LungL", "L"), ("colon ascendens", "")],
)  # fmt: skip
def test_a_side_is_read_only_where_it_is_stated(name: str, side: str) -> None:
    assert parse_name(name).side == side


def test_a_structure_without_sides_is_not_proposed_for_a_side() -> None:
    assert first("liver left") == ""
    assert first("Lung") == "Lungs"
    assert propose_name("Lung L/R").warnings == ("the name states left and right",)


@pytest.mark.parametrize(
    ("names", "standard"),
    [
        ("LLL|lll|left lower lobe|Left_Lower_Lobe", "Lung_LLL"),
        ("RUL|right upper lobe", "Lung_RUL"),
        ("RML", "Lung_RML"),
        ("polmone sx|Polmone sinistro|pulmon izq", "Lung_L"),
        ("rene dx|riñón derecho", "Kidney_R"),
        ("ojo izquierdo|occhio sinistro", "Eye_L"),
        ("cervello|cerebro", "Brain"),  # not the cerebellum
        ("fegato|hígado", "Liver"),
        ("midollo spinale", "SpinalCord"),
        ("retto|recto", "Rectum"),
    ],
)
def test_lobes_and_further_languages(names: str, standard: str) -> None:
    assert {first(name) for name in names.split("|")} == {standard}


def test_qualifiers_keep_two_rois_apart() -> None:
    assert [first(n) for n in ("Heart", "Heart_old", "heart copy", "Herz neu")] == [
        "Heart", "Heart^old", "Heart^copy", "Heart^neu",
    ]  # fmt: skip
    assert first("optic nerve left PRV") == "OpticNrv_PRV_L"
    assert first("Lungs-PTV") == "Lungs-PTV"
    assert first("poumons - GTV") == "Lungs-GTV"


def test_names_that_mean_nothing_have_no_proposal() -> None:
    assert [first(n) for n in ("roi 7", "contrast", "", "12", "xyz", "Isocenter 1")] == [""] * 6


def test_similarity_counts_letters() -> None:
    # by hand: one swapped pair of 5, one missing of 6, short texts only if equal
    assert similarity("leber", "lebre") == 0.8
    assert similarity("rectum", "rctum") == pytest.approx(5 / 6)
    assert (similarity("eye", "rye"), similarity("eye", "eye")) == (0.0, 1.0)


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "name", ["PTV", "GTVp1", "CTVn_High", "PTV_5000", "PTVp1_5000", "PTV_Liver", "GTV_CT1", "ITV^ab"]
)
def test_names_of_targets_that_follow_the_rules(name: str) -> None:
    assert check_target(name) == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [("PTV-1", "PTV1"), ("PTV 1", "blank"), ("ptv1", "capitals"), ("PTV_5000_Liver_long", "longer"), ("XPTV", "begin"),
     ("PTV_5000p", "order")],
)  # fmt: skip
def test_names_of_targets_that_do_not(name: str, fault: str) -> None:
    assert fault in check_target(name)


def test_targets_are_proposed_by_the_rules() -> None:
    assert [first(n) for n in ("PTV-1", "gtvp", "ptv_5000", "CTV n 2", "zPTV1")] == [
        "PTV1", "GTVp", "PTV_5000", "CTVn2", "PTV1",
    ]  # fmt: skip


# ---------------------------------------------------------------- evidence from masks

ORGAN_NAMES = ("lung", "kidney", "parotid_gland", "femur", "eye")


def phantom() -> dict[str, np.ndarray]:
    """Organs as boxes, the left ones at high columns (x grows to the left), two in the middle."""
    organs = {}
    for k, name in enumerate(ORGAN_NAMES):
        for side, columns in (("right", slice(8, 24)), ("left", slice(56, 72))):
            mask = np.zeros((25, 20, 80), bool)
            mask[5 * k : 5 * k + 5, 4:14, columns] = True
            organs[f"{name}_{side}"] = mask
    for k, name in enumerate(("spinal_cord", "liver")):
        mask = np.zeros((25, 20, 80), bool)
        mask[10 * k : 10 * k + 10, 8:16, 36:44] = True
        organs[name] = mask
    return organs


def evidence(roi: np.ndarray, organs: dict[str, np.ndarray], step: float = 2.0) -> OrganEvidence | None:
    centres = {name: float(np.nonzero(mask)[2].mean()) for name, mask in organs.items()}
    overlaps = {n: Overlap(int((roi & mask).sum()), int(mask.sum())) for n, mask in organs.items()}
    return find_evidence(roi, overlaps, column_step=step, middle=midline(centres, roi.shape[2]))


def test_masks_name_rois_and_every_swapped_side_is_found() -> None:
    """360 ROIs, each an organ moved by up to a voxel that lacks up to 15 % of its voxels; 300 have the other name."""
    organs = phantom()
    by_segment = {one.segment: one.name for one in standard_names().values() if one.segment}
    generator = np.random.default_rng(1)
    missed = []
    for name, organ in organs.items():
        wanted = by_segment[name]
        for _ in range(30):
            roi = np.roll(organ, tuple(generator.integers(-1, 2, 3)), axis=(0, 1, 2))
            roi &= generator.random(organ.shape) > generator.uniform(0, 0.15)
            found = evidence(roi, organs)
            candidates = propose_name("roi 7", found).candidates
            if not candidates or candidates[0].name != wanted:
                missed.append((name, candidates))
            if wanted.endswith(("_L", "_R")):
                other = {"L": "rechts", "R": "links"}[wanted[-1]]
                planted = propose_name(f"{wanted[:-2]} {other}", found)
                assert any("the ROI is on the" in text for text in planted.warnings), (name, planted)
                assert planted.candidates[0].name == wanted
                assert propose_name(wanted, found).warnings == ()
    assert len(organs) * 30 == 360
    assert len(missed) <= 0.02 * 360, missed


def test_the_side_follows_the_direction_of_the_columns() -> None:
    organs = phantom()
    sides = [one.side for step in (2.0, -2.0) if (one := evidence(organs["lung_left"], organs, step)) is not None]
    assert sides == ["L", "R"]
    middle = evidence(organs["spinal_cord"], organs)
    assert middle is not None
    assert middle.side == ""
    assert evidence(np.zeros((25, 20, 80), bool), organs) is None


def test_an_organ_inside_another_organ_is_found() -> None:
    organs = phantom()
    part = organs["liver"].copy()
    part[part.shape[0] // 2 :] = False
    part[:, : part.shape[1] // 2] = False
    assert part.any()
    inside = evidence(part, organs)
    assert inside is not None
    assert inside.contained[0] == ("liver", 1.0)
    assert propose_name("Heart", inside).warnings == ("the name states Heart, 100% of the ROI is inside liver",)
    assert propose_name("Liver", inside).warnings == propose_name("GTV", inside).warnings == ()


def test_a_name_of_another_organ_is_found() -> None:
    organs = phantom()
    liver = evidence(organs["liver"], organs)
    found = propose_name("Rückenmark", liver)
    assert found.warnings == ("the name states SpinalCord, the ROI is Liver (Dice 1.00 with liver)",)
    assert found.candidates[0].name == "Liver"
    assert all(
        propose_name(name, liver).warnings == () for name in ("Liver", "roi 7", "Heart_old", "PTV liver", "Long Q")
    )
    part = evidence(organs["liver"] & (np.arange(25) < 14)[:, None, None], organs)
    assert part is not None
    (warning,) = propose_name("SpinalCord", part).warnings
    assert warning == "the name states SpinalCord, 100% of the ROI is inside liver", (
        "a part of an organ is no other name"
    )


def test_geometry_gives_a_side_to_a_name_without_one() -> None:
    organs = phantom()
    roi = organs["kidney_left"] & (np.arange(80) < 60)  # a part: its Dice is low
    assert propose_name("Niere", evidence(roi, organs)).candidates[0].name == "Kidney_L"


# ---------------------------------------------------------------- the table


def test_the_table_of_names(tmp_path: Path) -> None:
    for number, names in enumerate((("Herz", "Lunge li", "Heart_old", "PTV-1"), ("Herz", "Niere re")), start=1):
        patient = Patient(tmp_path / "in", f"P{number}", str(number))
        patient.ct()
        patient.dose(patient.plan(structures=patient.structures(names)))
    treatments = make(tmp_path / "in").treatments
    rows = name_rows(treatments)
    assert [(r.name, r.structure_sets, r.proposal_1, r.accept) for r in rows] == [
        ("Herz", 2, "Heart", ""), ("Heart_old", 1, "Heart^old", ""), ("Lunge li", 1, "Lung_L", ""),
        ("Niere re", 1, "Kidney_R", ""), ("PTV-1", 1, "PTV1", ""),
    ]  # fmt: skip
    path = tmp_path / "names.csv"
    write_names(rows, path)
    assert write_mapping(read_names(path), tmp_path / "none") == 0, "nothing is renamed without a person"
    accepted = {"Herz": "Heart", "Heart_old": "Heart", "Lunge li": "Lung_R", "PTV-1": "PTV-1", "Niere re": "Kidny_R"}
    path.write_text(
        "name,accept\n" + "".join(f"{name},{value}\n" for name, value in accepted.items()), encoding="utf-8"
    )
    found = {(one.name, one.severity): one.message for one in check_names(read_names(path), treatments)}
    assert "would have one name in 1 structure sets" in found["Heart_old", "error"]
    assert "another side" in found["Lunge li", "error"]
    assert "Kidney_R" in found["Niere re", "error"]
    assert "PTV1" in found["PTV-1", "warning"]
    with pytest.raises(UsageError, match="names check"):
        write_mapping(read_names(path), tmp_path / "bad")
    write_names(rows, path, keep=[type(rows[0])(name="Herz", structure_sets=0, patients=0, accept="=")])
    assert read_names(path)[0].accept == "="


def test_accepted_names_become_a_mapping_that_runs_use(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("name,accept\nmyel um,SpinalCord\nHerz alt,Heart^alt\nSchnecke re,Cochlea_R\nAzygos,V_Azygos\n")
    assert write_mapping(read_names(path), tmp_path / "own") == 4
    use_mappings(tmp_path / "own")
    try:
        segments = load_segments()
        assert "myel um" in segments["spinal_cord"].labels
        assert segments["V_Azygos"].type.meaning == "Azygos vein"
        assert segments["Cochlea_R"].type.meaning == "Selected region", "TG-263's name without a code of its own"
        assert segments["Heart^alt"].labels == ("Herz alt",)
        assert segments["heart"].labels == ("cor", "whole heart"), "the heart and its old version stay apart"
    finally:
        use_mappings("")


def test_a_side_is_kept_where_the_package_has_a_row_without_sides(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("name,accept\nlobe li,Lobe_Frontal_L\nlobe re,Lobe_Frontal_R\nTumor prostate,GTV1\nTumor,GTV\n")
    write_mapping(read_names(path), tmp_path / "own")
    rows = load_segments(tmp_path / "own" / "segments.csv")
    sides = {name: row.laterality.meaning for name, row in rows.items() if row.laterality is not None}
    assert sides == {"Lobe_Frontal_L": "Left", "Lobe_Frontal_R": "Right"}
    region = rows["GTV1"].region
    assert region is not None
    assert region.meaning == "Anatomical Structure", "the name of a target does not state that it is in the lung"
    assert rows["GTV"].region == region


def test_every_standard_name_is_that_of_its_segment_and_has_codes() -> None:
    derived = ("Heart^old", "Lung^Ipsi", "PTV_5000", "GTV1", "GTVp1", "SpinalCord_PRV05", "OpticNrv_PRV03_L")
    for name in (*standard_names(), *derived):
        assert standard_name_of(segment_of(name)) == name
        assert codes_of(segment_of(name)) is not None, name
    assert codes_of("nothing of the kind") is None


def test_find_standard_ignores_case() -> None:
    one = find_standard("lung_l")
    assert one is not None
    assert (one.name, one.side, one.segment) == ("Lung_L", Side.LEFT, "lung_left")

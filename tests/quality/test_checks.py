"""Checks on a phantom whose masks are its truth: nothing is found; each planted fault is found by the check for it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.quality import FAULTS, masks_of, phantom_case, recall_in_mixes, with_masks
from benchmarks.quality import Judged as Case
from scipy import ndimage

from ctenrich.quality.case import QualityCase, organ_mask
from ctenrich.quality.cohort import OrganValues, compare_with_cohort
from ctenrich.quality.finding import Finding
from ctenrich.quality.limits import load_limits
from ctenrich.quality.other_checks import check_products
from ctenrich.quality.ranking import rank_cases, score_of
from ctenrich.quality.registry import CHECKS, run_checks
from ctenrich.quality.shape_checks import check_holes
from ctenrich.records import Severity

LIMITS = load_limits()


@pytest.fixture(scope="module")
def clean() -> QualityCase:
    case = phantom_case(41)
    assert case.lungs is not None
    return case


def grave(case: QualityCase) -> dict[str, Finding]:
    """Findings that are not notes, by check."""
    return {f.check: f for f in reversed(run_checks(case, LIMITS)) if f.weight > 0}


def moved(case: QualityCase, name: str, axis: int, mm: float) -> QualityCase:
    masks = masks_of(case)
    masks[name] = np.roll(masks[name], round(mm / case.spacing[axis]), axis=axis)
    return with_masks(case, masks)


def test_the_truth_of_a_phantom_has_no_finding(clean: QualityCase) -> None:
    found = run_checks(clean, LIMITS)
    assert [f for f in found if f.weight > 0] == []
    assert score_of(found) == 0
    assert len(CHECKS) == len(set(CHECKS))


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_of_fault_is_found(clean: QualityCase, kind: str) -> None:
    other = masks_of(phantom_case(42)) if "another series" in kind else masks_of(clean)
    masks = FAULTS[kind](masks_of(clean), clean, random.Random(kind), other)
    assert score_of(run_checks(with_masks(clean, masks), LIMITS)) > 0


def test_an_island_has_its_size_distance_and_slice(clean: QualityCase) -> None:
    masks = masks_of(clean)
    z, y, x = (int(v) for v in clean.organs["heart"].centre / clean.spacing)
    masks["heart"][z + 20 : z + 25, y + 5 : y + 10, x : x + 5] = True
    found = grave(with_masks(clean, masks))["islands"]
    assert found.sentence.startswith("heart: 1 island with ")
    assert "the largest 5.1 mL" in found.sentence
    assert (found.slice_index, found.severity) == (z + 22, Severity.ERROR)
    masks["heart"][z + 20 : z + 40, y + 5 : y + 30, x : x + 30] = True
    assert "the largest 595 mL" in grave(with_masks(clean, masks))["islands"].sentence
    masks = masks_of(clean)
    masks["heart"][z + 20 : z + 25, y + 5 : y + 10, x : x + 5] = True
    upside_down = replace(with_masks(clean, masks), upside_down=True)
    assert grave(upside_down)["islands"].slice_index == clean.shape[0] - 1 - (z + 22)
    masks = masks_of(clean)
    masks["heart"][z + 20 : z + 22, y + 5 : y + 8, x : x + 2] = True
    found = grave(with_masks(clean, masks))["islands"]
    assert found.severity is Severity.WARNING, "a small island of a large organ deserves a look"
    masks["heart"] = masks["heart"] & False
    masks["heart"][z, y, x] = masks["heart"][z + 9, y, x] = True
    assert "islands" not in grave(with_masks(clean, masks)), "single voxels are not counted"


@pytest.mark.parametrize(("axis", "side"), [(1, 0), (1, 1), (2, 0), (2, 1)])
def test_half_of_a_spinal_cord(clean: QualityCase, axis: int, side: int) -> None:
    """Cut lengthwise in every slice: half as wide as deep, or twice."""
    masks = masks_of(clean)
    for plane in masks["spinal_cord"]:
        places = np.flatnonzero(plane.any(axis=2 - axis))
        if places.size:
            middle = round(float(places.mean()) + 0.5)
            cut = plane if axis == 1 else plane.T
            cut[middle:] &= side == 0
            cut[:middle] &= side == 1
    found = grave(with_masks(clean, masks))
    assert found.keys() & {"width_by_depth", "depth_in_the_body"}
    if axis == 2:
        assert found["width_by_depth"].value is not None
        assert found["width_by_depth"].value < 0.8


@pytest.mark.parametrize(("kept", "check"), [("upper", "carina"), ("lower", "upper_end")])
def test_half_of_a_trachea(clean: QualityCase, kept: str, check: str) -> None:
    """The upper half ends above the carina, the lower half below the top of the lungs."""
    masks, organ = masks_of(clean), clean.organs["trachea"]
    middle = organ.start[0] + organ.mask.shape[0] // 2
    masks["trachea"][slice(None, middle) if kept == "upper" else slice(middle, None)] = False
    assert check in grave(with_masks(clean, masks))


def test_a_trachea_that_the_scan_cuts_is_no_half(clean: QualityCase) -> None:
    """A scan that begins above the carina, or ends below the top of the lungs, shows part of the trachea."""
    assert clean.lungs is not None
    assert clean.lungs.top is not None
    masks, middle = masks_of(clean), round(clean.lungs.top / clean.spacing[0]) - 5
    for part in (slice(middle, None), slice(None, middle)):
        assert clean.ct is not None
        cut = replace(clean, ct=np.ascontiguousarray(clean.ct[part]), shape=clean.ct[part].shape)
        cut.__dict__.pop("lungs", None)
        found = grave(with_masks(cut, {"trachea": masks["trachea"][part]}))
        assert found.keys().isdisjoint({"carina", "upper_end"})


@pytest.mark.parametrize("seed", range(5))
def test_cavities_are_those_of_scipy(clean: QualityCase, seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 10, 11)) < 0.8
    heart = organ_mask("heart", mask, (1.0, 1.0, 1.0))
    assert heart is not None
    share = 1 - heart.voxels / np.count_nonzero(ndimage.binary_fill_holes(heart.mask))
    assert share > 0.03
    (found,) = [f for f in check_holes(clean.with_organs({"heart": heart}), LIMITS) if f.check == "holes"]
    assert found.value == pytest.approx(share, abs=1e-12)


def test_holes_and_missing_slices(clean: QualityCase) -> None:
    masks = masks_of(clean)
    z, y, x = (int(v) for v in clean.organs["heart"].centre / clean.spacing)
    masks["heart"][z - 4 : z + 4, y - 5 : y + 5, x - 5 : x + 5] = False
    assert "enclosed cavities" in grave(with_masks(clean, masks))["holes"].sentence
    masks["heart"][z + 5] = False
    found = grave(with_masks(clean, masks))["missing_slices"]
    assert (found.value, found.slice_index) == (1.0, z + 5)


def test_organs_in_wrong_places(clean: QualityCase) -> None:
    assert "are exchanged" in grave(with_masks(clean, _exchanged(clean)))["sides"].sentence
    assert {"height_in_the_lungs", "distance_of_aorta"} & set(grave(moved(clean, "heart", 0, -120)))
    assert "left_of_the_middle" in grave(moved(clean, "heart", 2, -60))
    assert "in_front_of_cord" in grave(moved(clean, "esophagus", 1, 60))
    assert "median_attenuation" in grave(moved(clean, "trachea", 1, 60))
    assert "above_the_heart" in grave(moved(clean, "trachea", 0, -120))
    masks = masks_of(clean)
    masks["kidney_left"] = np.roll(masks["spinal_cord"], round(60 / clean.spacing[2]), axis=2)
    masks["kidney_right"] = np.roll(masks["spinal_cord"], round(60 / clean.spacing[2]), axis=2)
    beside = [f for f in run_checks(with_masks(clean, masks), LIMITS) if f.check == "beside_the_spine"]
    assert [(f.organ, round(f.value or 0, -1)) for f in beside] == [("kidney_right", -60)]
    masks = masks_of(clean)
    masks["spinal_cord"][: clean.shape[0] // 2] = False
    assert "spans" in grave(with_masks(clean, masks))["length"].sentence


def _exchanged(case: QualityCase) -> dict[str, np.ndarray]:
    masks = masks_of(case)
    return masks | {"lung_left": masks["lung_right"], "lung_right": masks["lung_left"]}


def test_slices_off_are_counted_in_words(clean: QualityCase) -> None:
    masks = {name: np.roll(mask, -1, axis=0) for name, mask in masks_of(clean).items()}
    assert "better 1 slice higher" in grave(with_masks(clean, masks))["moved_along_z"].sentence
    masks = {name: np.roll(mask, 2, axis=0) for name, mask in masks_of(clean).items()}
    assert "better 2 slices lower" in grave(with_masks(clean, masks))["moved_along_z"].sentence


def test_volumes_by_sex_and_at_the_edge_of_the_scan(clean: QualityCase) -> None:
    masks = masks_of(clean)
    heart = clean.organs["heart"]
    low, high = heart.start[0], heart.start[0] + heart.mask.shape[0]
    part = {"heart": masks["heart"][(low + high) // 2 :]}
    assert clean.ct is not None
    cut = QualityCase(series_instance_uid="1", product="p", shape=part["heart"].shape, spacing=clean.spacing, ct=None)
    found = run_checks(with_masks(cut, part), LIMITS)
    assert [(f.check, f.severity) for f in found] == [("at_edge", Severity.NOTE)]
    assert "the lowest slice" in found[0].sentence
    assert LIMITS.organ("heart").volume_of("F") == (220, 1400)
    assert LIMITS.organ("heart").volume_of(None) == LIMITS.organ("heart").volume_of("O") == (250, 1600)


def test_landmarks_against_the_lungs_by_threshold(clean: QualityCase) -> None:
    lungs = clean.lungs
    assert lungs is not None
    assert lungs.bottom is not None
    assert lungs.top is not None
    union = clean.organs["lung_left"].volume + clean.organs["lung_right"].volume
    assert lungs.volume == pytest.approx(union, rel=0.1)
    assert lungs.top - lungs.bottom == pytest.approx(float(clean.organs["lung_right"].extent[0]), abs=12)
    marks = {"lung_start": lungs.bottom + 5, "lung_end": lungs.top + 60}
    found = grave(_known(clean, lung_landmarks=marks))
    assert list(found) == ["lung_end"]
    assert "60 mm above the end of the lungs" in found["lung_end"].sentence


def _known(case: QualityCase, **facts: object) -> QualityCase:
    other = replace(case, **facts)  # type: ignore[arg-type]
    other.__dict__["lungs"] = case.lungs
    return other


def test_facts_of_the_series(clean: QualityCase) -> None:
    leg = grave(_known(clean, body_part_examined="LEG"))
    assert leg["body_part"].sentence.endswith("the header states LEG as body part, where this organ is not")
    assert grave(_known(clean, body_part_examined="CHEST_TO_PELVIS")) == {}
    assert "region" in grave(_known(clean, body_parts=("LEGS",)))
    assert grave(_known(clean, body_parts=("NECK", "CHEST"))) == {}
    high = _known(clean, scores=tuple(90.0 for _ in range(clean.shape[0])))
    assert grave(high)["slice_score"].severity is Severity.ERROR
    wrong = grave(_known(clean, spacing_valid=False, order_reversed=True))
    assert set(wrong) == {"spacing", "reversed_order"}
    assert "may be reversed" in wrong["reversed_order"].sentence
    thin = QualityCase(series_instance_uid="1", product="p", shape=(5, 9, 9), spacing=(12.0, 1, 1))
    assert set(grave(thin)) == {"slice_spacing", "slices"}


def test_other_products_and_folds(clean: QualityCase) -> None:
    other = moved(clean, "heart", 2, 64).organs
    found = grave(_known(clean, others={"b": other}, agreement={"aorta": 0.5, "heart": 0.9}))
    assert found["disagreement"].sentence.startswith("heart: Dice 0.")
    assert found["folds"].organ == "aorta"


def test_lungs_of_one_product_are_compared_with_the_lobes_of_another(clean: QualityCase) -> None:
    """TotalSegmentator has lobes, lungmask's R231 lungs: with no organ in common neither told anything of the other."""
    lung = clean.organs["lung_left"]
    halves = [lung.mask.copy(), lung.mask.copy()]
    halves[0][lung.mask.shape[0] // 2 :] = halves[1][: lung.mask.shape[0] // 2] = False
    whole = []
    for half in halves:
        whole.append(np.zeros(clean.shape, bool))
        whole[-1][lung.box] = half
    names = ("lung_lower_lobe_left", "lung_upper_lobe_left")
    masks = [organ_mask(name, mask, clean.spacing) for name, mask in zip(names, whole, strict=True)]
    lobes = {mask.name: mask for mask in masks if mask is not None}
    assert [*check_products(_known(clean, others={"lobes": lobes}), LIMITS)] == []
    shifted = {name: replace(lobe, start=(lobe.start[0], lobe.start[1], 0)) for name, lobe in lobes.items()}
    [found] = check_products(_known(clean, others={"lobes": shifted}), LIMITS)
    assert (found.organ, found.check) == ("lung_left", "disagreement")
    assert "Dice 0." in found.sentence
    [other] = check_products(_known(clean, organs=shifted, others={"lungs": {"lung_left": lung}}), LIMITS)
    assert other.organ in lobes
    only_one = {"lung_upper_lobe_left": shifted["lung_upper_lobe_left"]}
    assert [*check_products(_known(clean, others={"lobes": only_one}), LIMITS)] == []


def test_lungs_where_the_ct_shows_none(clean: QualityCase) -> None:
    assert clean.ct is not None
    flat = replace(clean, ct=np.full(clean.shape, 40, np.int16))
    found = grave(flat)
    assert "the CT shows 0 mL of lung by threshold" in found["lungs_by_threshold"].sentence
    assert "median_attenuation" in found
    no_ct = replace(clean, ct=None)
    assert no_ct.lungs is None
    assert grave(no_ct) == {}


def test_an_empty_mask_is_no_organ() -> None:
    assert organ_mask("heart", np.zeros((3, 4, 5), bool), (1, 1, 1)) is None


def test_values_far_from_the_cohort() -> None:
    def rows(values: list[float]) -> list[OrganValues]:
        return [
            OrganValues(series_instance_uid=f"1.{n}", product="p", organ="heart", values={"volume": v})
            for n, v in enumerate(values)
        ]

    found = compare_with_cohort(rows([600.0, 610, 620, 630, 640, 650, 660, 670, 1200]), LIMITS)
    assert list(found) == [("1.8", "p")]
    (one,) = found["1.8", "p"]
    assert "volume 1200 mL is far from the median of the cohort, 640 mL" in one.sentence
    assert compare_with_cohort(rows([600.0] * 8), LIMITS) == {}
    assert compare_with_cohort(rows([600.0, 610, 1200]), LIMITS) == {}, "a small cohort"


def test_the_ranked_list() -> None:
    def finding(check: str, severity: Severity, value: float | None = None) -> Finding:
        return Finding(organ="heart", check=check, value=value, high=1.0, severity=severity, sentence=check)

    twice = [finding("a", Severity.WARNING), finding("a", Severity.WARNING)]
    assert score_of(twice) == score_of(twice[:1]), "a check counts once"
    assert finding("a", Severity.WARNING, 1.5).weight > finding("a", Severity.WARNING, 1.1).weight
    error = [finding("b", Severity.NOTE), finding("c", Severity.ERROR)]
    ranked = rank_cases([("1.1", "p", twice), ("1.2", "p", error), ("1.3", "p", [])])
    assert [case.series_instance_uid for case in ranked] == ["1.2", "1.1", "1.3"]
    assert [f.check for f in ranked[0].findings] == ["c", "b"]


def test_recall_counts_the_first_tenth() -> None:
    clean_cases = [Case("g", "", f"c{n}", 0.0 if n else 50.0, "") for n in range(40)]
    faulty = [Case("g", "seen", "f", 9.0, ""), Case("g", "missed", "f", 0.0, "")]
    found = recall_in_mixes([*clean_cases, *faulty])
    assert found["seen"] == 1.0
    assert found["missed"] < 0.3

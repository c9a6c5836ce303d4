"""Sums and multiples of doses: grids, order, quantisation, the written object, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.dose.choice import ScaledDose, choose_doses, parse_factor
from ctenrich.dose.combine import combine_doses, quantise
from ctenrich.dose.grid import DoseSampler, Lattice
from ctenrich.dose.plan import PlanFacts, read_plan
from ctenrich.dose.reader import Dose, read_dose
from ctenrich.dose.write import write_dose as write_sum
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Severity
from ctenrich.treatments.records import BeamDose, FractionGroup
from ctenrich.validate.dciodvfy import run_dciodvfy
from tests.support.doses import write_dose

PLAN_CLASS = "1.2.840.10008.5.1.4.1.1.481.5"
STORED = np.zeros((8, 10, 12), np.uint16)
STORED[2:6, 3:7, 3:9] = 20000
X, Y = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])


def plan_item(uid: str, beam: int | None = None, group: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = PLAN_CLASS, uid
    if beam is not None or group is not None:
        part = Dataset()
        part.ReferencedFractionGroupNumber = group or 1
        if beam is not None:
            reference = Dataset()
            reference.ReferencedBeamNumber = beam
            part.ReferencedBeamSequence = [reference]
        item.ReferencedFractionGroupSequence = [part]
    return item


def dose(folder: Path, number: int, stored: np.ndarray = STORED, **attributes: object) -> Dose:
    attributes.setdefault("ReferencedRTPlanSequence", [plan_item(f"2.25.50.{number}")])
    attributes.setdefault("SOPInstanceUID", f"2.25.60.{number}")
    return read_dose(write_dose(folder / f"{number}.dcm", stored, **attributes))


def plan(number: int, groups: tuple[FractionGroup, ...] = (), structures: tuple[str, ...] = ()) -> PlanFacts:
    return PlanFacts(
        sop_instance_uid=f"2.25.50.{number}",
        label="",
        intent="",
        groups=groups,
        fractions=None,
        prescription=None,
        structure_set_uids=structures,
    )


def refused(doses: list[Dose], plans: tuple[PlanFacts, ...] = ()) -> Reason:
    with pytest.raises(CtenrichError) as caught:
        combine_doses(choose_doses([ScaledDose(dose=one) for one in doses], plans))
    return caught.value.reason


def at(combined: Dose, x: float, y: float, z: float) -> float:
    return float(DoseSampler(combined.grid, X, Y).plane(z, Lattice(np.array([x]), np.array([y])))[0, 0])


def summed(folder: Path, *parts: ScaledDose, plans: tuple[PlanFacts, ...] = ()) -> Dose:
    path = folder / "sum.dcm"
    write_sum(combine_doses(choose_doses(parts, plans)), path)
    return read_dose(path)


def test_a_plus_b_is_b_plus_a_byte_for_byte(tmp_path: Path) -> None:
    a = ScaledDose(dose=dose(tmp_path, 1), factor=Fraction(25, 23))
    fine = STORED.repeat(2, axis=1).repeat(2, axis=2)
    b = ScaledDose(dose=dose(tmp_path, 2, fine, PixelSpacing=[1.3, 1.2], ImagePositionPatient=[-18.3, -29.1, -101.7]))
    files = []
    for name, parts in (("ab", (a, b)), ("ba", (b, a))):
        write_sum(combine_doses(choose_doses(parts)), tmp_path / f"{name}.dcm")
        files.append((tmp_path / f"{name}.dcm").read_bytes())
    assert files[0] == files[1]


def test_the_sum_has_the_union_of_the_extents_and_the_finest_spacing(tmp_path: Path) -> None:
    """Rows and columns have different spacings; dicompyler-core placed the columns by the spacing of the rows."""
    a = dose(tmp_path, 1, PixelSpacing=[2.0, 3.0])
    b = dose(tmp_path, 2, PixelSpacing=[2.5, 2.5], ImagePositionPatient=[-2.5, -30, -91])
    found = summed(tmp_path, ScaledDose(dose=a), ScaledDose(dose=b))
    assert found.grid.spacing == (3.0, 2.0, 2.5)
    z, y, x = found.grid.coordinates
    assert (z[0], z[-1]) == (-100.0, -70.0)
    assert (y[0], y[-1]) == (-30.0, -8.0)
    assert x[0] == -20.0
    assert x[-1] == pytest.approx(25.0)
    # in the middle of a alone, and of b alone
    assert at(found, -5, -22, -94) == pytest.approx(20.0, abs=1e-6)
    assert at(found, 15, -20, -77.5) == pytest.approx(20.0, abs=1e-6)
    both = resampled(a, found) + resampled(b, found)
    assert (np.minimum(resampled(a, found), resampled(b, found)) > 1).any(), "they overlap"
    assert np.abs(found.grid.values() - both).max() < 1e-6


def resampled(one: Dose, on: Dose) -> np.ndarray:
    """A dose on the grid of another by SimpleITK, 0 outside its own grid."""
    images = []
    for dose in (one, on):
        grid = dose.grid
        image = SimpleITK.GetImageFromArray(grid.values())
        image.SetSpacing((grid.pixel_spacing[1], grid.pixel_spacing[0], grid.spacing[0]))
        image.SetOrigin(grid.origin)
        images.append(image)
    found = SimpleITK.Resample(images[0], images[1], SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0)
    return np.asarray(SimpleITK.GetArrayFromImage(found))


def test_integral_dose_is_kept_whatever_the_order(tmp_path: Path) -> None:
    a, b = dose(tmp_path, 1), dose(tmp_path, 2, ImagePositionPatient=[-7.5, -20, -94])
    found = summed(tmp_path, ScaledDose(dose=a), ScaledDose(dose=b))
    assert found.grid.values().sum() == pytest.approx(a.grid.values().sum() + b.grid.values().sum(), rel=1e-6)


def test_doses_of_one_grid_are_added_voxel_by_voxel(tmp_path: Path) -> None:
    a, b = dose(tmp_path, 1), dose(tmp_path, 2, (STORED // 2).astype(np.uint16))
    found = summed(tmp_path, ScaledDose(dose=a), ScaledDose(dose=b))
    assert found.grid.origin == a.grid.origin
    assert np.abs(found.grid.values() - (a.grid.values() + b.grid.values())).max() <= found.grid.scaling


def test_a_factor_is_a_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    a = dose(tmp_path, 1, rng.integers(0, 60000, (5, 6, 7)).astype(np.uint16))
    found = summed(tmp_path, ScaledDose(dose=a, factor=Fraction(25, 23)))
    expected = a.grid.values() * 25 / 23
    assert np.abs(found.grid.values() - expected).max() <= 0.5001 * found.grid.scaling
    assert found.summation == "PLAN"
    comment = str(pydicom.dcmread(tmp_path / "sum.dcm").DoseComment)
    assert "25/23 x 2.25.60.1" in comment


def test_the_maximum_of_lung1_002_times_25_over_23(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """75.6118396 Gy; dicompyler-core's multiplication gives 82.18678 Gy."""
    folder = real_data("LUNG1-002-RT")
    path = next(p for p in folder.rglob("*.dcm") if pydicom.dcmread(p, specific_tags=["Modality"]).Modality == "RTDOSE")
    found = summed(tmp_path, ScaledDose(dose=read_dose(path), factor=Fraction(25, 23)))
    assert found.grid.maximum == pytest.approx(82.18678, abs=1e-5)
    assert len(str(pydicom.dcmread(tmp_path / "sum.dcm").DoseGridScaling)) <= 16


@pytest.mark.parametrize("top", [1e-3, 1.0, 75.6118396, 82.18678, 1 / 3, 999.999])
def test_quantised_values_fit_and_err_by_half_a_step_at_most(top: float) -> None:
    doses = np.linspace(0, top, 1001)
    stored, scaling = quantise(doses)
    assert len(scaling) <= 16
    assert int(stored.max()) <= 2**32 - 1
    assert np.abs(stored * float(scaling) - doses).max() <= 0.5001 * float(scaling)
    assert int(stored.max()) > 2**31


def test_the_object_is_valid_and_read_by_others(tmp_path: Path) -> None:
    a, b = dose(tmp_path, 1), dose(tmp_path, 2, DVHSequence=[Dataset()])
    found = summed(tmp_path, ScaledDose(dose=a, factor=Fraction(25, 23)), ScaledDose(dose=b))
    path = tmp_path / "sum.dcm"
    assert [one for one in run_dciodvfy(path, "sum") if one.severity is Severity.ERROR] == []
    data = pydicom.dcmread(path)
    assert "DVHSequence" not in data
    assert data.DoseSummationType == "MULTI_PLAN"
    assert [item.ReferencedSOPInstanceUID for item in data.ReferencedRTPlanSequence] == ["2.25.50.1", "2.25.50.2"]
    assert [item.ReferencedSOPInstanceUID for item in data.ReferencedInstanceSequence] == ["2.25.60.1", "2.25.60.2"]
    assert data.ReferencedInstanceSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121372"
    assert data.DerivationCodeSequence[0].CodeValue == "121378"
    expected = a.grid.values() * 25 / 23 + b.grid.values()
    assert np.abs(data.pixel_array * float(data.DoseGridScaling) - expected).max() < 1e-6
    image = SimpleITK.ReadImage(str(path))
    assert image.GetSize() == (12, 10, 8)
    assert image.GetOrigin() == pytest.approx(a.grid.origin)
    stored = SimpleITK.GetArrayFromImage(image)  # GDCM does not apply Dose Grid Scaling
    assert np.abs(stored * float(data.DoseGridScaling) - expected).max() < 1e-6
    assert found.grid.maximum == pytest.approx(20 * 25 / 23 + 20)


def test_a_plain_sum_has_the_code_of_a_composition(tmp_path: Path) -> None:
    summed(tmp_path, ScaledDose(dose=dose(tmp_path, 1)), ScaledDose(dose=dose(tmp_path, 2)))
    assert pydicom.dcmread(tmp_path / "sum.dcm").DerivationCodeSequence[0].CodeValue == "121370"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"FrameOfReferenceUID": "2.25.9"}, Reason.DOSE_OTHER_FRAME),
        ({"DoseUnits": "RELATIVE"}, Reason.DOSE_UNITS),
        ({"DoseType": "EFFECTIVE"}, Reason.DOSE_TYPE),
        ({"DoseType": "ERROR"}, Reason.DOSE_TYPE),
        ({"DoseSummationType": "CONTROL_POINT"}, Reason.DOSE_SUMMATION),
        ({"DoseSummationType": "RECORD"}, Reason.DOSE_SUMMATION),
        ({"DoseSummationType": "BRACHY"}, Reason.DOSE_SUMMATION),
        ({"DoseSummationType": "BEAM"}, Reason.DOSE_SUMMATION),  # without its plan
        ({"DoseSummationType": "FRACTION"}, Reason.DOSE_SUMMATION),
        ({"ReferencedRTPlanSequence": [plan_item("2.25.50.1")]}, Reason.DOSE_SUMMATION),  # a second PLAN dose
        ({"ReferencedRTPlanSequence": [plan_item("2.25.50.1")], "PixelSpacing": [2.0, 2.0]}, Reason.DOSE_SUMMATION),
        ({"SOPInstanceUID": "2.25.60.1"}, Reason.DOSE_SUMMATION),  # the same dose twice
        ({"DoseSummationType": "FRACTION_SESSION"}, Reason.DOSE_SUMMATION),
        ({"DoseSummationType": None}, Reason.DOSE_SUMMATION),
        (
            {"DoseSummationType": "MULTI_PLAN",
             "ReferencedRTPlanSequence": [plan_item("2.25.50.1"), plan_item("2.25.50.2")]},
            Reason.DOSE_SUMMATION,
        ),
    ],
)  # fmt: skip
def test_what_is_not_added(tmp_path: Path, attributes: dict[str, object], reason: Reason) -> None:
    assert refused([dose(tmp_path, 1), dose(tmp_path, 2, **attributes)]) is reason


def test_another_image_set_with_a_copied_frame_of_reference(tmp_path: Path) -> None:
    plans = (plan(1, structures=("2.25.70.1",)), plan(2, structures=("2.25.70.2",)))
    assert refused([dose(tmp_path, 1), dose(tmp_path, 2)], plans) is Reason.DOSE_OTHER_FRAME
    same = (plan(1, structures=("2.25.70.1",)), plan(2, structures=("2.25.70.1",)))
    chosen = choose_doses([ScaledDose(dose=dose(tmp_path, n)) for n in (1, 2)], same)
    assert chosen.notes == ()


def beams(tmp_path: Path, numbers: tuple[int, ...]) -> list[Dose]:
    return [
        dose(tmp_path, 10 + n, DoseSummationType="BEAM", ReferencedRTPlanSequence=[plan_item("2.25.50.1", beam=n)])
        for n in numbers
    ]


TWO_BEAMS = (FractionGroup(number=1, fractions=20, beams=(BeamDose(number=1, dose=1.0), BeamDose(number=2, dose=1.0))),)


def test_the_dose_of_a_plan_beats_those_of_its_beams(tmp_path: Path) -> None:
    whole, parts = dose(tmp_path, 1), beams(tmp_path, (1, 2))
    chosen = choose_doses([ScaledDose(dose=one) for one in (*parts, whole)])
    assert [one.uid for one in chosen.doses] == [whole.sop_instance_uid]
    assert len([note for note in chosen.notes if "left out" in note]) == 2


def test_beams_are_added_where_all_are_there(tmp_path: Path) -> None:
    chosen = choose_doses([ScaledDose(dose=one) for one in beams(tmp_path, (1, 2))], (plan(1, TWO_BEAMS),))
    assert len(chosen.doses) == 2
    assert refused(beams(tmp_path, (1,)), (plan(1, TWO_BEAMS),)) is Reason.DOSE_SUMMATION
    assert refused(beams(tmp_path, (1, 2))) is Reason.DOSE_SUMMATION


def test_a_sum_of_plans_beats_the_beams_of_one_of_them(tmp_path: Path) -> None:
    """They refer to different lists of plans, and contain the same dose."""
    both = [plan_item("2.25.50.1"), plan_item("2.25.50.2")]
    whole = dose(tmp_path, 1, DoseSummationType="MULTI_PLAN", ReferencedRTPlanSequence=both)
    assert refused([whole, *beams(tmp_path, (1, 2))], (plan(1, TWO_BEAMS),)) is Reason.DOSE_SUMMATION


def test_a_beam_below_one_gray_is_not_left_out(tmp_path: Path) -> None:
    parts = beams(tmp_path, (1,))
    parts.append(
        dose(tmp_path, 12, (STORED // 40).astype(np.uint16), DoseSummationType="BEAM",
             ReferencedRTPlanSequence=[plan_item("2.25.50.1", beam=2)])
    )  # fmt: skip
    combined = combine_doses(choose_doses([ScaledDose(dose=one) for one in parts], (plan(1, TWO_BEAMS),)))
    assert combined.grid.maximum == pytest.approx(20.5)


def test_a_fraction_below_one_gray_is_multiplied_and_not_left_out(tmp_path: Path) -> None:
    reference = [plan_item("2.25.50.1", group=1)]
    little = (STORED // 40).astype(np.uint16)
    one = dose(tmp_path, 1, little, DoseSummationType="FRACTION", ReferencedRTPlanSequence=reference)
    combined = combine_doses(choose_doses([ScaledDose(dose=one)], (plan(1, TWO_BEAMS),)))
    assert combined.grid.maximum == pytest.approx(10.0)
    none = (FractionGroup(number=1, fractions=0, beams=TWO_BEAMS[0].beams),)
    assert refused([one], (plan(1, none),)) is Reason.DOSE_SUMMATION, "no fraction is planned"


def test_doses_without_a_frame_of_reference_are_not_added(tmp_path: Path) -> None:
    assert refused([dose(tmp_path, n, FrameOfReferenceUID="") for n in (1, 2)]) is Reason.DOSE_OTHER_FRAME


def test_doses_in_tissue_and_in_water_are_noted(tmp_path: Path) -> None:
    kinds = {1: ["ROI_OVERRIDE", "IMAGE"], 2: "WATER"}
    given = [ScaledDose(dose=dose(tmp_path, n, TissueHeterogeneityCorrection=kind)) for n, kind in kinds.items()]
    assert any("IMAGE/ROI_OVERRIDE and WATER" in note for note in choose_doses(given).notes)


def test_the_dose_of_a_fraction_is_multiplied(tmp_path: Path) -> None:
    reference = [plan_item("2.25.50.1", group=1)]
    one = dose(tmp_path, 1, DoseSummationType="FRACTION", ReferencedRTPlanSequence=reference)
    chosen = choose_doses([ScaledDose(dose=one)], (plan(1, TWO_BEAMS),))
    assert chosen.doses[0].factor == 20
    assert "20 planned fractions" in chosen.notes[0]


def test_a_dose_below_one_gray_is_left_out_with_a_note(tmp_path: Path) -> None:
    little = dose(tmp_path, 2, (STORED // 40).astype(np.uint16))
    chosen = choose_doses([ScaledDose(dose=dose(tmp_path, 1)), ScaledDose(dose=little)])
    assert [one.uid for one in chosen.doses] == ["2.25.60.1"]
    assert "0.500 Gy" in chosen.notes[0]
    assert refused([little]) is Reason.DOSE_VALUES


def test_a_dose_that_is_cut_at_its_boundary_cuts_the_sum(tmp_path: Path) -> None:
    """Beyond such a grid the dose is not known: the sum must not pretend that it is zero there."""
    cut = np.full((4, 5, 6), 15000, np.uint16)
    a, b = dose(tmp_path, 1), dose(tmp_path, 2, cut)
    combined = combine_doses(choose_doses([ScaledDose(dose=a), ScaledDose(dose=b)]))
    assert combined.grid.shape == (4, 5, 6)
    assert "100.0 % of its maximum at the boundary" in combined.notes[-1]


def test_grids_that_do_not_overlap(tmp_path: Path) -> None:
    full = np.full((4, 5, 6), 15000, np.uint16)
    far = dose(tmp_path, 2, full, ImagePositionPatient=[500, 0, 0])
    assert refused([dose(tmp_path, 1, full), far]) is Reason.DOSE_OTHER_FRAME


def test_different_fraction_sizes_are_warned_of(tmp_path: Path) -> None:
    other = (FractionGroup(number=1, fractions=10, beams=(BeamDose(number=1, dose=3.08),)),)
    chosen = choose_doses([ScaledDose(dose=dose(tmp_path, n)) for n in (1, 2)], (plan(1, TWO_BEAMS), plan(2, other)))
    assert any("2.00 and 3.08 Gy" in note for note in chosen.notes)


@pytest.mark.parametrize("text", ["0", "-1", "1/0", "a", "", "nan", "1e9"])
def test_factors_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_factor(text)


def test_the_plan_of_lung1_002_has_35_fractions_of_70_gray(real_data: Callable[[str], Path]) -> None:
    folder = real_data("LUNG1-002-RT")
    path = next(p for p in folder.rglob("*.dcm") if pydicom.dcmread(p, specific_tags=["Modality"]).Modality == "RTPLAN")
    facts = read_plan(path)
    assert [round(group.dose or 0, 4) for group in facts.groups] == [68.6, 1.4]
    assert facts.fractions == 35
    assert facts.prescription is not None
    assert facts.prescription.dose == pytest.approx(70.0)
    assert facts.prescription.source.value == "beam_doses"
    printed = CliRunner().invoke(app, ["dose", "plan", str(path)]).stdout
    assert "fractions that treat: 35" in printed
    assert "45" not in printed


def test_pydicoms_plans() -> None:
    facts = read_plan(Path(str(get_testdata_file("rtplan.dcm"))))
    assert facts.fractions == 30
    assert facts.prescription is not None
    assert facts.prescription.dose == pytest.approx(30.826203)
    with pytest.raises(InputError) as caught:
        read_plan(Path(str(get_testdata_file("rtplan_truncated.dcm"))))
    assert caught.value.reason is Reason.TRUNCATED
    with pytest.raises(InputError) as caught:
        read_plan(Path(str(get_testdata_file("rtdose.dcm"))))
    assert caught.value.reason is Reason.NOT_RT_PLAN


def test_the_largest_target_dose_is_prescribed_and_all_are_kept(tmp_path: Path) -> None:
    """A boost's own dose reference comes last: taking the last one gave 14 Gy instead of 70."""
    data = pydicom.dcmread(str(get_testdata_file("rtplan.dcm")))
    references = []
    for kind, dose_of in (("TARGET", 70), ("ORGAN_AT_RISK", 80), ("TARGET", 14), ("TARGET", None)):
        reference = Dataset()
        reference.DoseReferenceType, reference.TargetPrescriptionDose = kind, dose_of
        references.append(reference)
    data.DoseReferenceSequence = references
    data.save_as(tmp_path / "rp.dcm")
    found = read_plan(tmp_path / "rp.dcm").prescription
    assert found is not None
    assert (found.dose, found.stated, found.source.value) == (70.0, (70.0, 14.0), "dose_reference")


def test_commands(tmp_path: Path) -> None:
    for n in (1, 2):
        dose(tmp_path, n)
    one, two, out = str(tmp_path / "1.dcm"), str(tmp_path / "2.dcm"), str(tmp_path / "o.dcm")

    def run(*arguments: str) -> int:
        return CliRunner().invoke(app, ["dose", *arguments, "--out", out]).exit_code

    assert run("sum", one, two, "--scale", "25/23", "--scale", "1") == 0
    assert read_dose(Path(out)).grid.maximum == pytest.approx(20 * 25 / 23 + 20)
    assert run("scale", one, "--intended", "25", "--delivered", "23") == 0
    assert read_dose(Path(out)).grid.maximum == pytest.approx(20 * 25 / 23)
    assert run("sum", one, two, "--scale", "2") == 2
    assert run("scale", one) == 2
    assert run("scale", one, "--factor", "2", "--intended", "2", "--delivered", "1") == 2
    assert run("scale", one, "--intended", "2") == 2
    assert run("sum", one, one) == 1

"""The SR of doses: codes, bounds, references, evidence; read by other software; the proof finds what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from ctenrich.codes.dose_metrics import dose_metric_code
from ctenrich.dose.metrics import STANDARD_METRICS
from ctenrich.encode.dose_sr import encode_dose_sr, why_no_doses
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import EncodingError
from ctenrich.proof import SegmentationResult, prove, prove_dose_sr, prove_seg, prove_shape_sr
from ctenrich.records import DoseMeasurements, EncodedObject, Proof, SegmentMasks
from ctenrich.settings import Settings
from ctenrich.shape.measure import measure_shape
from ctenrich.tools import find_tool, run_tool
from ctenrich.validate import validate_objects
from ctenrich.workspace import sha256_of_file
from tests.support import encode_cases as cases
from tests.support.dose_cases import DoseCase

OTHER_STUDY = "2.25.4000.2"
"""Study of the RT Dose, which is not that of the CT."""


class Made(DoseCase):
    """The objects of the expert, with doses."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.give_dose()
        self.doses = self.measure(cases.EXPERT)
        self.masks = self.store.load(SegmentMasks, self.uid, cases.EXPERT)
        both = {"settings": Settings(), "workspace": self.workspace}
        self.shape = measure_shape(self.masks, self.volume, **both)  # type: ignore[arg-type]
        self.seg = encode_seg(self.masks, self.volume, self.series, **both)  # type: ignore[arg-type]
        self.shape_sr = encode_shape_sr(self.shape, self.masks, self.seg, self.series, **both)  # type: ignore[arg-type]
        self.sr = self.encode(self.doses)

    def encode(self, doses: DoseMeasurements) -> EncodedObject:
        return encode_dose_sr(doses, self.masks, self.seg, self.series, settings=Settings(), workspace=self.workspace)

    @property
    def path(self) -> Path:
        return self.workspace.resolve(self.uid, self.sr.path)

    def prove(self) -> Proof:
        result = SegmentationResult(
            masks=self.masks, shape=self.shape, volume=self.volume, series=self.series, doses=self.doses
        )
        provers = {"seg": prove_seg, "shape_sr": prove_shape_sr, "dose_sr": prove_dose_sr}
        objects = (self.seg, self.shape_sr, self.sr)
        return prove(result, objects, provers, settings=Settings(), workspace=self.workspace)

    def change(self, edit: Callable[[Dataset], None]) -> None:
        """Edit the SR, and its hash in the record with it: only the content can give the fault away."""
        ds = pydicom.dcmread(self.path)
        edit(ds)
        ds.save_as(self.path)
        self.sr = replace(self.sr, sha256=sha256_of_file(self.path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("doses"))


@pytest.fixture
def made(whole: Made) -> Iterator[Made]:
    """The objects as they were written, whatever a test before has changed."""
    content, sr = whole.path.read_bytes(), whole.sr
    yield whole
    whole.path.write_bytes(content)
    whole.sr = sr
    whole.give_dose()


def groups(ds: Dataset) -> list[Dataset]:
    (found,) = [item for item in ds.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return list(found.ContentSequence)


def numbers(group: Dataset) -> dict[tuple[str, str], Dataset]:
    items = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    names = [item.ConceptNameCodeSequence[0] for item in items]
    found = {(n.CodeValue, n.CodingSchemeDesignator): i for n, i in zip(names, items, strict=True)}
    assert len(found) == len(items)
    return found


def test_metrics_have_codes_of_dicom_or_of_the_declared_scheme(made: Made) -> None:
    ds = pydicom.dcmread(made.path)
    assert [scheme.CodingSchemeDesignator for scheme in ds.CodingSchemeIdentificationSequence] == ["99CTENRICH"]
    found = groups(ds)
    assert len(found) == 3, "heart, left lung and tumour; the cord is absent"
    heart = numbers(found[0])
    one = made.doses.segments[0]
    values = {value.metric: value for value in one.values}
    for (code, scheme), metric, unit in (
        (("128533", "DCM"), "Mean[Gy]", "Gy"),
        (("128531", "DCM"), "Max[Gy]", "Gy"),
        (("128532", "DCM"), "Min[Gy]", "Gy"),
        (("128539", "DCM"), "D50%[Gy]", "Gy"),
        (("D95%", "99CTENRICH"), "D95%[Gy]", "Gy"),
        (("D0.03cc", "99CTENRICH"), "D0.03cc[Gy]", "Gy"),
        (("V20Gy[%]", "99CTENRICH"), "V20Gy[%]", "%"),
        (("V20Gy[cc]", "99CTENRICH"), "V20Gy[cc]", "cm3"),
    ):
        item = heart[code, scheme]
        measured = item.MeasuredValueSequence[0]
        assert measured.FloatingPointValue == values[metric].value
        assert measured.MeasurementUnitsCodeSequence[0].CodeValue == unit
        bounds = [child.MeasuredValueSequence[0].FloatingPointValue for child in item.ContentSequence]
        value, lower, upper = values[metric].value, values[metric].lower, values[metric].upper
        assert bounds == [value - lower, upper - value]  # type: ignore[operator]
    assert heart["DOSE_COVERAGE", "99CTENRICH"].MeasuredValueSequence[0].FloatingPointValue == 100.0
    assert len(heart) == len([v for v in one.values if v.value is not None]) - 1 + 1, "no volume, but the coverage"


def test_the_dose_is_referred_to_and_in_the_evidence_of_its_study(made: Made) -> None:
    ds = pydicom.dcmread(made.path)
    for group in groups(ds):
        composites = [item for item in group.ContentSequence if item.ValueType == "COMPOSITE"]
        assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in composites] == ["2.25.4000.20"]
    studies = {item.StudyInstanceUID: item for item in ds.CurrentRequestedProcedureEvidenceSequence}
    assert set(studies) == {made.series.study_instance_uid, OTHER_STUDY}
    (series,) = studies[OTHER_STUDY].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.481.2"
    assert ds.SeriesDescription == "Manual_segmentations_Doses"


def test_dcmtk_and_the_validators_accept_it(made: Made) -> None:
    path = find_tool("dsrdump")
    if path is None:
        pytest.skip("dsrdump (DCMTK) is not installed")
    printed = run_tool([str(path), str(made.path)], timeout=60)
    assert printed.returncode == 0, printed.stderr
    paths = [made.workspace.resolve(made.uid, one.path) for one in (made.seg, made.shape_sr, made.sr)]
    assert [issue for issue in validate_objects(paths, settings=Settings()) if issue.severity == "error"] == []


def test_a_second_encoding_has_the_same_bytes(made: Made) -> None:
    first = made.path.read_bytes()
    assert made.encode(made.doses) == made.sr
    assert made.path.read_bytes() == first
    scaled = replace(made.doses, origins=(replace(made.doses.origins[0], factor="25/23"),))
    assert made.encode(scaled).sop_instance_uid != made.sr.sop_instance_uid


def test_what_was_written_is_proven(made: Made) -> None:
    proof = made.prove()
    assert proof.passed, [check for check in proof.checks if not check.passed]


def swap_values(ds: Dataset) -> None:
    first, second = (numbers(group)["128533", "DCM"].MeasuredValueSequence[0] for group in groups(ds)[:2])
    for name in ("FloatingPointValue", "NumericValue"):
        one, other = getattr(first, name), getattr(second, name)
        setattr(first, name, other)
        setattr(second, name, one)


def loosen_bound(ds: Dataset) -> None:
    numbers(groups(ds)[0])["D95%", "99CTENRICH"].ContentSequence[0].MeasuredValueSequence[0].FloatingPointValue = 0.0


def other_segment(ds: Dataset) -> None:
    (image,) = [item for item in groups(ds)[0].ContentSequence if item.ValueType == "IMAGE"]
    image.ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def other_dose(ds: Dataset) -> None:
    (item,) = [item for item in groups(ds)[0].ContentSequence if item.ValueType == "COMPOSITE"]
    item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.9"


def drop_metric(ds: Dataset) -> None:
    group = groups(ds)[0]
    group.ContentSequence.remove(numbers(group)["V20Gy[%]", "99CTENRICH"])


@pytest.mark.parametrize(
    ("edit", "failed"),
    [
        (swap_values, {"dose_sr.values"}),
        (loosen_bound, {"dose_sr.values"}),
        (drop_metric, {"dose_sr.values"}),
        (other_segment, {"dose_sr.groups", "dose_sr.values", "dose_sr.places"}),
        (other_dose, {"dose_sr.references", "dose_sr.sources"}),
    ],
)
def test_a_fault_in_the_object_is_found(made: Made, edit: Callable[[Dataset], None], failed: set[str]) -> None:
    made.change(edit)
    assert {check.name for check in made.prove().checks if not check.passed} == failed


def test_a_dose_that_was_replaced_on_disk_is_found(made: Made) -> None:
    """The metrics were those of a dose with four times the scaling; or the dose has another frame of reference now."""
    made.give_dose(DoseGridScaling=0.00025)
    assert [check.name for check in made.prove().checks if not check.passed] == ["dose_sr.sources"]
    made.give_dose(FrameOfReferenceUID="2.25.7")
    assert [check.name for check in made.prove().checks if not check.passed] == ["dose_sr.sources"]


def test_a_sum_of_doses_is_measured_referred_to_and_proven(tmp_path: Path) -> None:
    """1 and 0.5 Gy per mm along x, on grids of 2 and 4 mm; both begin at 0 Gy, and end within the dose grids."""
    case = Made(tmp_path)
    plain = {one.name: one.values for one in case.doses.segments}
    case.give_two_doses()
    case.doses = case.measure(cases.EXPERT)
    assert case.doses.doses == "1 x 2.25.4000.20 + 1 x 2.25.4000.22"
    for one in case.doses.segments:
        (before,) = [value.value for value in plain[one.name] if value.metric == "Mean[Gy]"]
        (mean,) = [value for value in one.values if value.metric == "Mean[Gy]"]
        assert mean.value == pytest.approx(1.5 * before, rel=1e-5)
        assert mean.second == pytest.approx(mean.value, abs=0.5)
    case.sr = case.encode(case.doses)
    for group in groups(pydicom.dcmread(case.path)):
        composites = [item for item in group.ContentSequence if item.ValueType == "COMPOSITE"]
        found = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in composites}
        assert found == {"2.25.4000.20", "2.25.4000.22"}
    assert case.prove().passed


def test_doses_of_another_segment_are_refused(made: Made) -> None:
    heart, *others = made.doses.segments
    with pytest.raises(EncodingError, match="not of"):
        made.encode(replace(made.doses, segments=(replace(heart, name="aorta"), *others)))
    with pytest.raises(EncodingError, match="different products"):
        made.encode(replace(made.doses, product=cases.NNUNET))
    nan = replace(heart.values[1], value=float("nan"))
    with pytest.raises(EncodingError, match="not a finite number"):
        made.encode(replace(made.doses, segments=(replace(heart, values=(nan,)), *others)))


def test_doses_without_a_value_have_no_object(made: Made) -> None:
    assert why_no_doses(made.doses) is None
    made.give_dose(ImagePositionPatient=[400, -101, -313])
    assert why_no_doses(made.measure(cases.EXPERT)) == "DOSE_INCOMPLETE"
    made.give_dose(DoseType="EFFECTIVE")
    assert why_no_doses(made.measure(cases.EXPERT)) == "DOSE_TYPE"


def test_every_standard_metric_has_a_code() -> None:
    named = [metric.name for metric in STANDARD_METRICS if metric.name != "Volume[cc]"]
    found = [dose_metric_code(name) for name in named]
    assert len({(code.quantity.scheme, code.quantity.value) for code in found}) == len(named)
    assert dose_metric_code("D99.5%[Gy]").quantity.meaning == "Minimum dose to the hottest 99.5 % of the volume"
    with pytest.raises(EncodingError, match="no metric"):
        dose_metric_code("Lung[Gy]")
    with pytest.raises(EncodingError, match="too many digits"):
        dose_metric_code("V0.000123456Gy[cc]")

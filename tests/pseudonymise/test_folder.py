"""A folder of radiotherapy under pseudonyms: references, patients, refusals, continuation, equal bytes."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
)
from tests.support.catalog_cases import header, write_series
from tests.support.treatment_cases import Patient, item, make, reference

from ctenrich.errors import UsageError
from ctenrich.pseudonymise.folder import FolderResult, pseudonymise_folder
from ctenrich.pseudonymise.key import Key
from ctenrich.pseudonymise.object_file import Rules
from ctenrich.pseudonymise.patients import read_pseudonyms
from ctenrich.pseudonymise.profile import Clean, Dates, Options, Retain
from ctenrich.pseudonymise.review import write_review
from ctenrich.pseudonymise.words import vocabulary
from ctenrich.reasons import Reason

KEY = Key(secret=bytes(32))
RULES = Rules(key=KEY, words=vocabulary())
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"


def run(folder: Path, out: Path, rules: Rules = RULES, **more: Any) -> FolderResult:
    return pseudonymise_folder(folder, out, rules, **more)


def results(out: Path) -> dict[str, Dataset]:
    """Results by modality; of several the last."""
    found = {}
    for path in sorted(out.rglob("*.dcm")):
        data = pydicom.dcmread(path)
        found[str(data.Modality)] = data
    return found


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.dcm"))}


def reasons(result: FolderResult) -> dict[str, int]:
    return dict(result.summary.refused)


@pytest.fixture
def treatment(tmp_path: Path) -> Path:
    """CT, structure set, plan and dose of one patient, and a file of another kind."""
    folder = tmp_path / "dicom"
    patient = Patient(folder, "MRN 4711")
    patient.whole(ReferringPhysicianName="House^Greg")
    (folder / "notes.txt").write_text("text")
    return folder


@pytest.mark.long
def test_treatments_are_linked_as_before(treatment: Path, tmp_path: Path) -> None:
    run(treatment, tmp_path / "out")
    linked = [
        sorted(
            (link.source_modality, link.target_modality, str(link.method), str(link.state))
            for link in make(folder).links
        )
        for folder in (treatment, tmp_path / "out")
    ]
    assert linked[0] == linked[1]
    assert len(linked[0]) > 2


def test_references_resolve_as_before(treatment: Path, tmp_path: Path) -> None:
    before, result = results(treatment), run(treatment, tmp_path / "out")
    after = results(tmp_path / "out")
    assert (result.summary.written, result.summary.other, result.summary.patients) == (7, 1, 1)
    assert reasons(result) == {}
    dose, plan, structures, image = (after[name] for name in ("RTDOSE", "RTPLAN", "RTSTRUCT", "CT"))
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
    of_frame = structures.ReferencedFrameOfReferenceSequence[0]
    assert of_frame.FrameOfReferenceUID == image.FrameOfReferenceUID == KEY.uid(before["CT"].FrameOfReferenceUID)
    of_series = of_frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert of_series.SeriesInstanceUID == image.SeriesInstanceUID
    assert structures.StructureSetROISequence[0].ROIName == "Heart"
    assert image.SOPClassUID == before["CT"].SOPClassUID
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPClassUID == plan.SOPClassUID


def test_what_an_object_states_about_itself(treatment: Path, tmp_path: Path) -> None:
    run(treatment, tmp_path / "out")
    for data in results(tmp_path / "out").values():
        assert data.PatientIdentityRemoved == "YES"
        assert data.LongitudinalTemporalInformationModified == "MODIFIED"
        codes = [code.CodeValue for code in data.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113104", "113105", "113107"]
        assert data.PatientID == data.PatientName == KEY.pseudonym("MRN 4711")
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID


def test_dates_move_together(treatment: Path, tmp_path: Path) -> None:
    run(treatment, tmp_path / "out")
    found = results(tmp_path / "out")
    days = {
        (pydicom.valuerep.DA(old) - pydicom.valuerep.DA(new)).days
        for old, new in (
            ("20200102", found["CT"].StudyDate),
            ("20200105", found["RTSTRUCT"].StructureSetDate),
            ("20200110", found["RTPLAN"].RTPlanDate),
        )
    }
    assert days == {-KEY.shift(KEY.pseudonym("MRN 4711"))}
    assert found["CT"].StudyTime == "131415.5"


def test_segmentations_and_reports_refer_to_their_images(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    write_series(folder, 2)
    image = pydicom.dcmread(next(folder.glob("*.dcm")))
    instance = reference(str(image.SOPInstanceUID), image.SOPClassUID)
    of_series = item(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedInstanceSequence=Sequence([instance]))
    segmentation = header(1, series="50", Modality="SEG")
    segmentation.SOPClassUID = segmentation.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    segmentation.ReferencedSeriesSequence = Sequence([of_series])
    segmentation.SegmentSequence = Sequence([item(SegmentNumber=1, SegmentLabel="Heart of Smith")])
    segmentation.save_as(folder / "seg.dcm")
    report = header(1, series="60", Modality="SR", PixelData=None)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = COMPREHENSIVE_SR
    concept = Sequence([item(CodeValue="121071", CodingSchemeDesignator="DCM", CodeMeaning="Finding")])
    local = Sequence([item(CodeValue="X1", CodingSchemeDesignator="99HOSP", CodeMeaning="Smith protocol")])
    report.ContentSequence = Sequence([
        item(ValueType="TEXT", TextValue="Seen by Smith: nodule in the right lung", ConceptNameCodeSequence=concept),
        item(ValueType="PNAME", PersonName="Smith^John", ConceptNameCodeSequence=concept),
        item(ValueType="UIDREF", UID=image.SeriesInstanceUID, ConceptNameCodeSequence=local),
        item(ValueType="IMAGE", ReferencedSOPSequence=Sequence([instance])),
    ])  # fmt: skip
    report.save_as(folder / "sr.dcm")
    assert reasons(run(folder, tmp_path / "out")) == {}
    found = results(tmp_path / "out")
    mapped = KEY.uid(image.SOPInstanceUID)
    of_series = found["SEG"].ReferencedSeriesSequence[0]
    assert of_series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == mapped
    assert of_series.SeriesInstanceUID == KEY.uid(image.SeriesInstanceUID) == found["CT"].SeriesInstanceUID
    assert found["SEG"].SegmentSequence[0].SegmentLabel.startswith("Heart of x")
    text, person, uid, picture = found["SR"].ContentSequence
    assert text.TextValue.endswith("nodule in the right lung")
    assert "Smith" not in text.TextValue
    assert text.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
    assert person.PersonName == "REMOVED"
    assert found["CT"].SeriesInstanceUID == uid.UID
    assert "Smith" not in uid.ConceptNameCodeSequence[0].CodeMeaning
    assert picture.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == mapped


def test_uids_of_the_standard_are_never_mapped(tmp_path: Path) -> None:
    atlas = "1.2.840.10008.1.4.1.1"
    write_series(tmp_path / "dicom", 2, FrameOfReferenceUID=atlas)
    run(tmp_path / "dicom", tmp_path / "out")
    assert results(tmp_path / "out")["CT"].FrameOfReferenceUID == atlas


def test_the_same_key_gives_the_same_bytes_in_any_number_of_processes(treatment: Path, tmp_path: Path) -> None:
    run(treatment, tmp_path / "one")
    moved = tmp_path / "elsewhere"
    shutil.copytree(treatment, moved)
    (moved / "notes.txt").unlink()
    run(moved, tmp_path / "two", processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    run(treatment, tmp_path / "three", Rules(key=Key(secret=bytes(31) + b"1"), words=vocabulary()))
    assert not set(contents(tmp_path / "one")) & set(contents(tmp_path / "three"))


def test_a_second_call_writes_only_what_is_missing_or_changed(treatment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(treatment, out)
    before = contents(out)
    written = {path: (out / path).stat().st_mtime_ns for path in before}
    gone, *_ = before
    (out / gone).unlink()
    with (out / "pseudonymise" / "journal.jsonl").open("ab") as handle:
        handle.write(b'{"source": "cut by a ki')
    result = run(treatment, out)
    assert (result.summary.written, result.summary.skipped) == (7, 6)
    assert contents(out) == before
    assert {path for path in before if (out / path).stat().st_mtime_ns != written[path]} == {gone}
    report = json.loads((out / "pseudonymise" / "report.json").read_bytes())
    assert report["files"]["written"] == 7


def test_a_file_that_is_refused_later_loses_its_result(treatment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(treatment, out)
    changed = next(treatment.glob("RTPLAN*"))
    data = pydicom.dcmread(changed)
    data.PatientBirthDate = "19500102"
    data.save_as(changed)
    assert len(contents(out)) == 7
    other = next(treatment.glob("RTDOSE*"))
    data = pydicom.dcmread(other)
    data.PatientBirthDate = "19600102"
    data.save_as(other)
    assert reasons(run(treatment, out)) == {"AMBIGUOUS_PATIENT": 7}
    assert contents(out) == {}


def test_a_folder_of_another_key_or_other_options_is_not_continued(treatment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(treatment, out)
    for rules, named in (
        (Rules(key=Key(secret=bytes(31) + b"1"), words=vocabulary()), "key"),
        (Rules(key=KEY, words=vocabulary(), options=Options(dates=Dates.REMOVE)), "options"),
        (Rules(key=KEY, words=vocabulary() | {"mueller"}), "words"),
    ):
        with pytest.raises(UsageError, match=named):
            run(treatment, out, rules)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="holds other files"):
        run(treatment, tmp_path / "full")


def test_one_folder_inside_the_other_is_refused(treatment: Path) -> None:
    for out in (treatment, treatment / "out", treatment.parent):
        with pytest.raises(UsageError, match="inside"):
            run(treatment, out)


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "a.txt").write_text("text")
    with pytest.raises(UsageError, match="EMPTY_INPUT"):
        run(tmp_path / "dicom", tmp_path / "out")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pdf": ({"SOPClassUID": EncapsulatedPDFStorage, "EncapsulatedDocument": b"%PDF"}, "ENCAPSULATED_DOCUMENT"),
    "document in an image": ({"EncapsulatedDocument": b"%PDF"}, "ENCAPSULATED_DOCUMENT"),
    "capture": ({"SOPClassUID": SecondaryCaptureImageStorage}, "BURNED_IN_TEXT"),
    "multi-frame capture": ({"SOPClassUID": SecondaryCaptureImageStorage + ".2"}, "BURNED_IN_TEXT"),
    "burned in": ({"BurnedInAnnotation": "YES"}, "BURNED_IN_TEXT"),
    "screen": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "BURNED_IN_TEXT"),
    "protocol page": ({"ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "CT_SOM5 PROT"]}, "BURNED_IN_TEXT"),
    "scanned": ({"ConversionType": "SD"}, "BURNED_IN_TEXT"),
    "colour": ({"SamplesPerPixel": 3}, "BURNED_IN_TEXT"),
    "ultrasound": ({"SOPClassUID": UltrasoundImageStorage}, "CLASS_NOT_CLEANED"),
    "unknown class": ({"SOPClassUID": "1.2.3.4"}, "CLASS_NOT_CLEANED"),
    "no patient": ({"PatientID": ""}, "NO_PATIENT_ID"),
    "no patient attribute": ({"PatientID": None}, "NO_PATIENT_ID"),
    "no pixels": ({"PixelData": None}, "TRUNCATED"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_have_a_reason_and_the_others_go_on(tmp_path: Path, name: str) -> None:
    changes, reason = REFUSED[name]
    folder = tmp_path / "dicom"
    write_series(folder, 2)
    bad = header(1, series="9", **changes)
    bad.save_as(folder / "bad.dcm")
    result = run(folder, tmp_path / "out")
    assert (reasons(result), result.summary.written) == ({reason: 1}, 2)
    with (tmp_path / "out" / "pseudonymise" / "files.csv").open(newline="") as handle:
        assert Counter(row["reason"] for row in csv.DictReader(handle)) == {"": 2, reason: 1}


def test_reports_and_presentation_states_need_their_options(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    for number, sop_class in enumerate((COMPREHENSIVE_SR, "1.2.840.10008.5.1.4.1.1.11.1"), 1):
        header(number, SOPClassUID=sop_class, PixelData=None).save_as(
            folder.mkdir(exist_ok=True) or folder / f"{number}.dcm"
        )
    for clean, written in ((frozenset(), 0), (frozenset({Clean.STRUCTURED_CONTENT}), 1), (frozenset(Clean), 2)):
        rules = Rules(key=KEY, options=Options(clean=frozenset(clean)))
        assert run(folder, tmp_path / f"out{written}", rules).summary.written == written


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    whole, cut, short, *_ = write_series(folder, 4)
    cut.write_bytes(cut.read_bytes()[:-4])
    short.write_bytes(short.read_bytes()[:600])
    (folder / "noise.dcm").write_bytes(bytes(range(256)) * 4)
    result = run(folder, tmp_path / "out")
    assert result.summary.written == 2
    assert {path.name for path in result.refused} == {cut.name, short.name, "noise.dcm"}
    found = {path.name: refusal.reason for path, refusal in result.refused.items()}
    assert found == {cut.name: Reason.TRUNCATED, short.name: Reason.TRUNCATED, "noise.dcm": Reason.NOT_DICOM}
    assert whole.is_file()


@pytest.mark.parametrize("missing", [1, 3, 9, 20, 60, 150])
def test_a_structure_set_that_was_cut_is_refused(treatment: Path, tmp_path: Path, missing: int) -> None:
    path = next(treatment.glob("RTSTRUCT*"))
    path.write_bytes(path.read_bytes()[:-missing])
    assert reasons(run(treatment, tmp_path / "out")) == {"TRUNCATED": 1}


def test_an_identifier_in_compressed_pixels_is_found(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate

    folder = tmp_path / "dicom"
    folder.mkdir()
    for number, extra in ((1, b""), (2, b" CANARY "), (3, b"MRN-471100")):
        data = header(number, patient="MRN-471100")
        data.file_meta.TransferSyntaxUID = RLELossless
        data.PixelData = encapsulate([bytes(64) + extra + bytes(len(extra) % 2)])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.save_as(folder / f"{number}.dcm")
    result = run(folder, tmp_path / "out")
    assert (result.summary.written, reasons(result)) == (1, {"IDENTITY_NOT_REMOVED": 2})
    kept = results(tmp_path / "out")["CT"]
    assert kept.file_meta.TransferSyntaxUID == RLELossless
    assert kept.PixelData == pydicom.dcmread(folder / "1.dcm").PixelData
    assert list((tmp_path / "out").rglob("*.tmp")) == []


def test_a_deflated_file_is_inflated(tmp_path: Path) -> None:
    data = header(1)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (tmp_path / "dicom").mkdir()
    data.save_as(tmp_path / "dicom" / "1.dcm")
    assert run(tmp_path / "dicom", tmp_path / "out").summary.written == 1
    kept = results(tmp_path / "out")["CT"]
    assert kept.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert kept.PixelData == bytes(8)


TWO_IN_ONE = {
    "birth dates": ({"PatientBirthDate": "19500102"}, {"PatientBirthDate": "19500103"}),
    "sexes": ({"PatientSex": "F"}, {"PatientSex": "M"}),
    "names": ({"PatientName": "Meier^Anna"}, {"PatientName": "Huber^Eva"}),
    "issuers": ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}),
    "names with a common part": ({"PatientName": "Meier^Anna"}, {"PatientName": "Huber^Anna"}),
}
ONE = {
    "spelling": ({"PatientName": "MEIER^ANNA"}, {"PatientName": "Meier Anna"}),
    "accent": ({"PatientName": "Andre^Rene", "SpecificCharacterSet": "ISO_IR 100"},
               {"PatientName": "André^René", "SpecificCharacterSet": "ISO_IR 100"}),
    "missing": ({"PatientName": "Meier^Anna", "PatientSex": "F"}, {"PatientName": "", "PatientSex": ""}),
    "married": ({"PatientName": "Meier^Anna", "PatientBirthDate": "19500102"},
                {"PatientName": "Huber^Anna", "PatientBirthDate": "19500102"}),
    "the ID as a name": ({"PatientName": "2281064277"}, {"PatientName": "P1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TWO_IN_ONE, *ONE])
def test_two_patients_under_one_id(tmp_path: Path, name: str) -> None:
    for number, changes in enumerate((TWO_IN_ONE | ONE)[name], 1):
        write_series(tmp_path / "dicom", 2, series=str(number), study=str(number), **changes)
    write_series(tmp_path / "dicom", 2, series="8", study="8", patient="P2", PatientName="X")
    result = run(tmp_path / "dicom", tmp_path / "out")
    assert reasons(result) == ({"AMBIGUOUS_PATIENT": 4} if name in TWO_IN_ONE else {})
    assert result.summary.written == (2 if name in TWO_IN_ONE else 6)


@pytest.mark.parametrize("name", ["one study", "one person"])
def test_one_patient_under_two_ids(tmp_path: Path, name: str) -> None:
    folder, person = tmp_path / "dicom", {"PatientName": "Meier^Anna", "PatientBirthDate": "19500102"}
    for number, patient in enumerate(("A1", "A2"), 1):
        study = "1" if name == "one study" else str(number)
        write_series(folder, 2, series=str(number), study=study, patient=patient, **person)
    assert reasons(run(folder, tmp_path / "out")) == {"AMBIGUOUS_PATIENT": 4}
    stated = read_pseudonyms("patient_id,pseudonym\nA1,S-01\nA2,S-01\n")
    result = run(folder, tmp_path / "stated", pseudonyms=stated)
    assert (result.summary.written, result.summary.patients) == (4, 1)
    dates = {str(pydicom.dcmread(path).StudyDate) for path in (tmp_path / "stated").rglob("*.dcm")}
    assert len(dates) == 1
    assert (tmp_path / "stated" / "S-01").is_dir()


@pytest.mark.parametrize(
    "text",
    [
        "", "a,b\n1,2\n", "patient_id,pseudonym\nA1,../x\n", "patient_id,pseudonym\nA1,A1\n",
        "patient_id,pseudonym\nA1,\n", "patient_id,pseudonym\nA1,S1\nA1,S2\n", "patient_id,pseudonym\nA1,.hidden\n",
        "patient_id,pseudonym\nA1,A2\nA2,S\n",
    ],
)  # fmt: skip
def test_wrong_tables_of_pseudonyms(text: str) -> None:
    with pytest.raises(UsageError, match="BAD_PARAMETER"):
        read_pseudonyms(text)


def test_copies_of_an_object(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    first, second, third = write_series(folder, 3)
    shutil.copy(first, folder / "again.dcm")
    data = pydicom.dcmread(second)
    data.SliceThickness = "5"
    data.save_as(folder / "other.dcm")
    result = run(folder, tmp_path / "out")
    assert (result.summary.written, result.summary.copies) == (2, 1)
    assert reasons(result) == {"CONFLICTING_DUPLICATE": 2}
    assert third.is_file()


def test_options_decide_what_stays(tmp_path: Path) -> None:
    values = {
        "PatientAge": "093Y", "PatientSex": "F", "StationName": "CT1", "InstitutionName": "Clinic",
        "StudyDescription": "Thorax Smith", "SOPInstanceUID": "1.2.3", "DeviceSerialNumber": "998877",
    }  # fmt: skip
    folder = tmp_path / "dicom"
    folder.mkdir()
    data = header(1, **values)
    for creator, number in (("Philips PET Private Group", 0x7053), ("ACME", 0x0019)):
        block = data.private_block(number, creator, create=True)
        block.add_new(0x00, "DS", "0.5")
        block.add_new(0x01, "LO", "Smith")
    data.save_as(folder / "1.dcm")
    everything = Options(dates=Dates.KEEP, retain=frozenset(Retain), clean=frozenset())
    private = frozenset({_philips()})
    for number, (options, expected) in enumerate((
        (everything, ("090Y", "F", "CT1", "Clinic", None, "1.2.3", "20200102", 2)),
        (
            Options(dates=Dates.REMOVE, clean=frozenset()),
            (None, "", "REMOVED", "REMOVED", None, KEY.uid("1.2.3"), "", 0),
        ),
    )):  # fmt: skip
        run(folder, tmp_path / str(number), Rules(key=KEY, options=options, private=private, words=vocabulary()))
        kept = results(tmp_path / str(number))["CT"]
        names = (
            "PatientAge",
            "PatientSex",
            "StationName",
            "InstitutionName",
            "StudyDescription",
            "SOPInstanceUID",
            "StudyDate",
        )
        found = tuple(None if name not in kept else str(kept[name].value or "") for name in names)
        assert (*found, sum(element.tag.is_private for element in kept)) == expected


def _philips() -> Any:
    from ctenrich.pseudonymise.profile import PrivateAttribute

    return PrivateAttribute(creator="Philips PET Private Group", group=0x7053, element=0)


def test_the_report_names_no_one_and_the_review_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "Canary Name"
    write_series(folder, 2, SeriesDescription="Thorax Zebulon", OperatorsName="Zebulon^Q")
    header(1, series="9", BurnedInAnnotation="YES").save_as(folder / "canary.dcm")
    out, review = tmp_path / "out", tmp_path / "private"
    result = run(folder, out)
    for path in out.rglob("*"):
        assert "canary" not in str(path.relative_to(out)).lower()
        if path.is_file():
            data = path.read_bytes().lower()
            assert b"canary" not in data
            assert b"zebulon" not in data
    assert "anary" not in repr(result)
    write_review(result, review)
    assert "canary.dcm" in (review / "refused.csv").read_text()
    assert "Zebulon" in (review / "words.csv").read_text()
    write_review(run(folder, out), review)
    assert "Zebulon" in (review / "words.csv").read_text(), "nothing was written, and no word replaced, by this call"
    assert {path.stat().st_mode & 0o777 for path in review.iterdir()} == {0o600}
    with (out / "pseudonymise" / "attributes.csv").open(newline="") as handle:
        rows = {(row["attribute"], row["outcome"]): int(row["files"]) for row in csv.DictReader(handle)}
    assert rows["PatientName", "replaced"] == rows["SeriesDescription", "cleaned"] == rows["StudyDate", "shifted"] == 2

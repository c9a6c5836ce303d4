"""What objects take from their source: an allow-list with valid values, nothing of people or machines besides."""

from __future__ import annotations

import dataclasses
import getpass
import socket
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from ctenrich import RELEASE_DATE, __version__
from ctenrich.encode.context import PATIENT_AND_STUDY, clean_attributes, content_description, series_description
from ctenrich.encode.landmarks_sr import encode_landmarks_sr
from ctenrich.encode.regions_sr import encode_regions_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, Product, ProductKind, Severity
from ctenrich.settings import EncodeSettings, Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace
from tests.support.encode_cases import (
    MODEL,
    make_landmarks,
    make_masks,
    make_regions,
    make_scores,
    make_series,
    make_shape,
)

CANARY = "ZZCANARY"


def all_objects(
    tmp_path: Path, workspace: Workspace, settings: Settings | None = None, **attributes: object
) -> tuple[list[Path], list[EncodedObject]]:
    series, volume = make_series(tmp_path / "ct", **attributes)
    settings = settings or Settings()
    masks, scores = make_masks(series, workspace), make_scores(series)
    seg = encode_seg(masks, volume, series, settings=settings, workspace=workspace)
    written = [
        seg,
        encode_shape_sr(make_shape(masks), masks, seg, series, settings=settings, workspace=workspace),
        encode_landmarks_sr(make_landmarks(series), scores, series, settings=settings, workspace=workspace),
        encode_regions_sr(make_regions(series), scores, series, settings=settings, workspace=workspace),
    ]
    return [workspace.resolve(series.series_instance_uid, o.path) for o in written], written


def descriptions(model: str, *, demo: bool = False, configuration: str = "3d_fullres") -> tuple[str, str]:
    """Series and Content Description of the SEG of an nnU-Net model."""
    product = Product(ProductKind.NNUNET, model, configuration, ("0",))
    info = dataclasses.replace(MODEL, name=model, demo=demo)
    series = series_description("{title}_Segmentation", product, info)
    return series, content_description("Image segmentation", product, info)


def test_descriptions_name_the_model_after_the_published_pattern() -> None:
    assert descriptions("lung1-demo") == (
        "3d_fullres-tta_nnU-Net_Segmentation lung1-demo",
        "Image segmentation by lung1-demo",
    )
    assert descriptions("chest", demo=True) == (
        "3d_fullres-tta_nnU-Net_Segmentation chest DEMONSTRATION",
        "Image segmentation by chest DEMONSTRATION",
    )
    task = Product("totalsegmentator", "total-fast")
    assert series_description("{title}_Segmentation", task, MODEL) == "total-fast_TotalSegmentator_Segmentation"
    assert series_description("{title}_Segmentation", Product(ProductKind.EXPERT), None) == (
        "Manual_segmentations_Segmentation"
    )


@pytest.mark.parametrize("demo", [False, True])
def test_long_model_names_can_still_be_told_apart(demo: bool) -> None:
    names = [f"Dataset{n}_ThoracicOrgansAtRiskOfManyHospitals_v{n}" for n in (101, 102)]
    first, second = (descriptions(name, demo=demo) for name in names)
    assert all(len(text) <= 64 for text in (*first, *second))
    assert first[0] != second[0]
    assert first[0].startswith("3d_fullres-tta_nnU-Net_Segmentation Data")
    assert all(text.endswith(" DEMONSTRATION") == demo for text in (*first, *second))
    long = Product("totalsegmentator", "m" * 100)
    assert series_description("{title}_Measurements", long, MODEL).endswith("_Measurements")


def test_every_object_of_a_demonstration_model_says_so(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks, scores = make_masks(series, workspace), make_scores(series)
    assert masks.model is not None
    masks = dataclasses.replace(masks, model=dataclasses.replace(masks.model, demo=True))
    scores = dataclasses.replace(scores, model=dataclasses.replace(scores.model, demo=True))
    rest = {"settings": Settings(), "workspace": workspace}
    seg = encode_seg(masks, volume, series, **rest)
    shape = encode_shape_sr(make_shape(masks), masks, seg, series, **rest)
    landmarks = encode_landmarks_sr(make_landmarks(series), scores, series, **rest)
    regions = encode_regions_sr(make_regions(series), scores, series, **rest)
    for item in (seg, shape, landmarks, regions):
        data = pydicom.dcmread(workspace.resolve(series.series_instance_uid, item.path))
        assert "DEMONSTRATION" in data.SeriesDescription
        assert "DEMONSTRATION" in data.ContentDescription


def test_no_canary_and_nothing_of_this_machine(tmp_path: Path, workspace: Workspace) -> None:
    extra = Dataset()
    extra.add_new(0x00091001, "LO", f"{CANARY}-private")
    keywords = (
        *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "OperatorsName"),
        *("PhysiciansOfRecord", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "RequestingPhysician"),
        *("AdditionalPatientHistory", "PatientComments", "ImageComments", "OtherPatientNames", "PatientAddress"),
        *("OtherPatientIDs", "PatientTelephoneNumbers", "MedicalAlerts", "Occupation", "SeriesDescription"),
        *("ProtocolName", "DeviceSerialNumber", "Manufacturer", "RequestedProcedureDescription", "AdmissionID"),
    )
    canaries = {k: f"{CANARY}{n}" for n, k in enumerate(keywords)}
    paths, written = all_objects(tmp_path, workspace, **canaries)
    secrets = [CANARY, socket.gethostname(), str(tmp_path), str(Path.home()), getpass.getuser() + "@"]
    for path in paths:
        content = path.read_bytes().decode("latin-1")
        for secret in secrets:
            if len(secret) > 3:
                assert secret not in content
    for item in written:
        assert CANARY not in repr(item)


def test_only_the_allow_list_is_copied(tmp_path: Path, workspace: Workspace) -> None:
    paths, _ = all_objects(tmp_path, workspace, StudyDescription="Chest", PatientWeight="70.5")
    for path in paths:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert (dataset.PatientName, dataset.PatientID) == ("Test^Case", "case-1")
        assert (dataset.StudyDate, dataset.StudyID, dataset.AccessionNumber) == ("20200304", "7", "8")
        assert (dataset.PatientAge, dataset.PatientWeight, dataset.StudyDescription) == ("071Y", 70.5, "Chest")
        assert dataset.ContentDate == RELEASE_DATE
        patient = {e.keyword for e in dataset if e.tag.group in {0x0010, 0x0012, 0x0032, 0x0038}}
        assert patient <= set(PATIENT_AND_STUDY)


def test_provenance_is_stated(tmp_path: Path, workspace: Workspace) -> None:
    paths, _ = all_objects(tmp_path, workspace)
    for path in paths:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert dataset.Manufacturer == "ctenrich"
        assert dataset.SoftwareVersions == __version__
        (item,) = dataset.ContributingEquipmentSequence
        assert item.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
        for fact in (MODEL.sha256, "Apache-2.0", "Nobody et al., Example 2026", "not a medical device"):
            assert fact in item.ContributionDescription
        assert dataset.file_meta.ImplementationVersionName.startswith("CTENRICH")


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientAge", "63", "063Y"),
        ("PatientAge", "old", None),
        ("PatientAge", "1234Y", None),
        ("PatientBirthDate", "1950-01-02", "19500102"),
        ("PatientBirthDate", "1950", ""),
        ("PatientBirthDate", "19501332", ""),
        ("StudyDate", "not a date", ""),
        ("StudyTime", "10:11:12", "101112"),
        ("StudyTime", "noon", ""),
        ("PatientSex", "f", "F"),
        ("PatientSex", "female", ""),
        ("PatientWeight", "70,5", None),
        ("PatientSize", "NaN", None),
        ("StudyDescription", "y" * 90, None),
        ("PatientIdentityRemoved", "MAYBE", None),
    ],
)
def test_invalid_values_are_repaired_or_dropped(keyword: str, value: str, expected: str | None) -> None:
    tag, data = Tag(keyword), value.encode()
    header = Dataset({tag: RawDataElement(tag, dictionary_VR(tag), len(data), data, 0, False, True)})
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        clean, issues = clean_attributes(header, "1.2.3")
    if expected is None:
        assert keyword not in clean
    else:
        assert str(clean[keyword].value) == expected
    assert [i.rule for i in issues] == ["SOURCE_ATTRIBUTE"]
    assert keyword in issues[0].message
    assert len(value) < 3 or value not in issues[0].message
    assert issues[0].severity is Severity.NOTE


@pytest.mark.parametrize(
    ("keyword", "name", "value"),
    [
        ("PatientID", "Patient ID", "x" * 70),
        ("PatientID", "Patient ID", "SITE\\0001"),
        ("PatientID", "Patient ID", "a\x07b"),
        ("IssuerOfPatientID", "Issuer of Patient ID", "x" * 65),
        ("StudyID", "Study ID", "x" * 17),
        ("StudyID", "Study ID", "1\\2"),
        ("AccessionNumber", "Accession Number", "a\x07b"),
        ("AccessionNumber", "Accession Number", "A" * 20),
    ],
)
def test_identity_is_kept_or_refused_never_dropped(keyword: str, name: str, value: str) -> None:
    tag = Tag(keyword)
    header = Dataset({tag: RawDataElement(tag, dictionary_VR(tag), len(value), value.encode(), 0, False, True)})
    with pytest.raises(EncodingError, match=name) as caught:
        clean_attributes(header, "1.2.3")
    assert caught.value.reason is Reason.UNSAFE_IDENTIFIER
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("IssuerOfPatientID", "x" * 64),
        ("StudyID", "x" * 16),
        ("AccessionNumber", "A 1/2-3"),
        ("PatientID", "\u5c71" * 64),
    ],
)
def test_identity_at_its_longest_is_kept(keyword: str, value: str) -> None:
    header = Dataset()
    setattr(header, keyword, value)
    clean, issues = clean_attributes(header, "1.2.3")
    assert clean[keyword].value == value
    assert issues == []


def test_objects_of_a_bad_header_are_valid(tmp_path: Path, workspace: Workspace) -> None:
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        paths, written = all_objects(
            tmp_path,
            workspace,
            PatientAge="63",
            PatientBirthDate="unknown",
            StudyDate=None,
            StudyID=None,
            PatientSex="X",
            AccessionNumber=None,
            PatientName="M\u00fcller^J\u00f6rg",
            PatientIdentityRemoved="YES",
            SpecificCharacterSet="ISO_IR 100",
        )
    for path, item in zip(paths, written, strict=True):
        said = run_tool([find_tool("dciodvfy"), path], check=False)
        assert "Error" not in said.stdout + said.stderr, said.stderr
        assert {i.message.split()[0] for i in item.issues if i.rule == "SOURCE_ATTRIBUTE"} == {
            "PatientAge",
            "PatientBirthDate",
            "PatientSex",
        }
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert dataset.PatientAge == "063Y"
        assert str(dataset.PatientName) == "M\u00fcller^J\u00f6rg"


def test_names_beyond_latin_1_are_kept(tmp_path: Path, workspace: Workspace) -> None:
    name = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"
    paths, _ = all_objects(tmp_path, workspace, PatientName=name, SpecificCharacterSet="ISO_IR 192")
    for path in paths:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == name


def test_clinical_trial_attributes_go_whole_or_not_at_all() -> None:
    header = Dataset()
    header.ClinicalTrialProtocolID = "ABC"
    clean, _ = clean_attributes(header, "1.2.3")
    assert "ClinicalTrialProtocolID" not in clean
    header.ClinicalTrialSponsorName = "Sponsor"
    header.ClinicalTrialSubjectID = "S1"
    clean, _ = clean_attributes(header, "1.2.3")
    assert (clean.ClinicalTrialProtocolID, clean.ClinicalTrialSiteID) == ("ABC", "")


def test_a_deflated_copy_for_the_archive(tmp_path: Path, workspace: Workspace) -> None:
    settings = Settings(encode=EncodeSettings(deflated_copy=True))
    paths, written = all_objects(tmp_path, workspace, settings)
    plain = dataclasses.replace(settings, encode=EncodeSettings())
    for path, item in zip(paths, written, strict=True):
        copy = path.parents[1] / "archive" / path.name
        packed, original = pydicom.dcmread(copy), pydicom.dcmread(path)
        assert packed.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99"
        assert copy.stat().st_size < path.stat().st_size
        assert packed == original
        assert packed.SOPInstanceUID == item.sop_instance_uid
    again, _ = all_objects(tmp_path, Workspace(tmp_path / "other"), plain)
    assert not (again[0].parents[1] / "archive").exists()
    # the copy is no other object: identifiers do not depend on it
    assert pydicom.dcmread(again[0]).SOPInstanceUID == written[0].sop_instance_uid

"""Our objects are valid; objects with a planted fault are not, and the fault is named."""

from __future__ import annotations

from dataclasses import replace

import pydicom
import pytest

from ctenrich.records import Severity
from ctenrich.settings import Settings, ValidateSettings
from ctenrich.validate import validate_objects
from ctenrich.validate.dciodvfy import _without_values
from tests.support.validators import edited, errors, write_four

OWN = replace(Settings(), validate=ValidateSettings(dciodvfy=False))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    from ctenrich.workspace import Workspace

    folder = tmp_path_factory.mktemp("four")
    return write_four(folder, Workspace(folder / "run"))


def test_our_four_objects_have_no_error(four):
    series, paths = four
    issues = validate_objects(list(paths.values()), settings=Settings(), sources=series.sop_instance_uids)
    assert errors(issues) == []
    assert {i.checker for i in issues} <= {"dciodvfy", "ctenrich"}


def test_expert_objects_with_overlaps_have_no_error(tmp_path, workspace):
    series, paths = write_four(tmp_path, workspace, expert=True)
    assert errors(validate_objects(list(paths.values()), settings=Settings(), sources=series.sop_instance_uids)) == []


def test_reports_on_a_label_map_have_no_error(tmp_path, workspace):
    """dciodvfy does not know the SOP class, and calls the segment number of every reference to it an error."""
    settings = replace(Settings(), encode=replace(Settings().encode, seg_type="LABELMAP"))
    series, paths = write_four(tmp_path, workspace, settings=settings)
    both = [paths["seg"], paths["shape_sr"]]
    found = validate_objects(both, settings=Settings(), sources=series.sop_instance_uids)
    assert errors(found) == []
    assert any(i.severity.value == "note" and "Label Map Segmentation Storage" in i.message for i in found)

    def number_of_an_image(ds):
        reference = next(iter(items(groups(ds)[0], "IMAGE"))).ReferencedSOPSequence[0]
        reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"

    planted = edited(paths["shape_sr"], tmp_path / "planted.dcm", number_of_an_image)
    found = errors(validate_objects([planted], settings=Settings()))
    assert any("ReferencedSegmentNumber" in i.message and i.checker == "dciodvfy" for i in found)


def groups(ds):
    return ds.ContentSequence[-1].ContentSequence


def items(group, kind):
    return [i for i in group.ContentSequence if i.ValueType == kind]


def without(group, wanted):
    group.ContentSequence = [i for i in group.ContentSequence if not wanted(i)]


def named(meaning):
    return lambda item: "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeMeaning == meaning


def no_template(ds):
    del ds.ContentTemplateSequence


def no_language(ds):
    without(ds, named("Language of Content Item and Descendants"))


def no_procedure(ds):
    without(ds, named("Procedure Reported"))
    without(ds, named("Procedure reported"))


def no_measurements(ds):
    without(ds, named("Imaging Measurements"))


def bad_relationship(ds):
    items(groups(ds)[0], "NUM")[0].RelationshipType = "HAS PROPERTIES"


def modifier_that_is_a_number(ds):
    items(groups(ds)[0], "NUM")[0].RelationshipType = "HAS CONCEPT MOD"


def unknown_relationship(ds):
    items(groups(ds)[0], "NUM")[0].RelationshipType = "BELONGS TO"


def unknown_value_type(ds):
    items(groups(ds)[0], "NUM")[0].ValueType = "NUMBER"


def no_unit(ds):
    del items(groups(ds)[0], "NUM")[0].MeasuredValueSequence[0].MeasurementUnitsCodeSequence


def empty_number(ds):
    items(groups(ds)[0], "NUM")[0].MeasuredValueSequence = []


def not_finite(ds):
    items(groups(ds)[0], "NUM")[0].MeasuredValueSequence[0].FloatingPointValue = float("nan")


def two_numbers(ds):
    items(groups(ds)[0], "NUM")[0].MeasuredValueSequence[0].FloatingPointValue = 7.25


def no_concept_name(ds):
    del items(groups(ds)[0], "NUM")[0].ConceptNameCodeSequence


def no_meaning(ds):
    del items(groups(ds)[0], "CODE")[0].ConceptCodeSequence[0].CodeMeaning


def no_tracking_uid(ds):
    without(groups(ds)[0], lambda i: i.ValueType == "UIDREF" and i.RelationshipType == "HAS OBS CONTEXT")


def two_tracking_ids(ds):
    group = groups(ds)[0]
    group.ContentSequence = [*group.ContentSequence, items(group, "TEXT")[0]]


def contained_site(ds):
    next(filter(named("Finding Site"), groups(ds)[0].ContentSequence)).RelationshipType = "CONTAINS"


def no_source_series(ds):
    without(groups(ds)[0], lambda i: i.ValueType == "UIDREF" and i.RelationshipType == "CONTAINS")


def no_segment_number(ds):
    del items(groups(ds)[0], "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber


def no_segment(ds):
    without(groups(ds)[0], lambda i: i.ValueType == "IMAGE")


def algorithm_without_version(ds):
    without(groups(ds)[0], named("Algorithm Version"))


def undeclared_scheme(ds):
    items(groups(ds)[0], "NUM")[0].ConceptNameCodeSequence[0].CodingSchemeDesignator = "99NOBODY"


def bad_uid(ds):
    next(i for i in groups(ds)[0].ContentSequence if i.ValueType == "UIDREF").UID = "1.2.notauid"


def no_evidence(ds):
    del ds.CurrentRequestedProcedureEvidenceSequence


def segment_that_is_not_there(ds):
    items(groups(ds)[0], "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber = 77


SR_FAULTS = {
    no_template: "tid1500.template",
    no_language: "tid1500.row",
    no_procedure: "tid1500.row",
    no_measurements: "tid1500.row",
    bad_relationship: "sr.relationship",
    modifier_that_is_a_number: "sr.relationship",
    unknown_relationship: "sr.relationship",
    unknown_value_type: "sr.value_type",
    no_unit: "sr.number",
    empty_number: "sr.number",
    not_finite: "sr.number",
    two_numbers: "sr.number",
    no_concept_name: "sr.concept_name",
    no_meaning: "sr.code",
    no_tracking_uid: "tid1500.tracking",
    two_tracking_ids: "tid1500.tracking",
    contained_site: "tid1500.site",
    no_source_series: "tid1500.segment",
    no_segment_number: "tid1500.segment",
    no_segment: "tid1500.segment",
    algorithm_without_version: "tid1500.algorithm",
    undeclared_scheme: "sr.coding_scheme",
    bad_uid: "sr.uid",
    no_evidence: "references.unlisted",
    segment_that_is_not_there: "references.segment",
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("plant", SR_FAULTS, ids=lambda f: f.__name__)
def test_a_fault_in_a_report_is_named(four, tmp_path, plant):
    _, paths = four
    path = edited(paths["shape_sr"], tmp_path / "x.dcm", plant)
    issues = validate_objects([path, paths["seg"]], settings=OWN)
    assert SR_FAULTS[plant] in {i.rule for i in errors(issues)}


def test_only_groups_of_one_segment_may_share_a_tracking_uid(four, tmp_path):
    """Two groups about one segment measure the same thing; two segments are two things."""
    _, paths = four

    def warnings(other_segment):
        def change(ds):
            first, second = groups(ds)[:2]
            uid = items(first, "UIDREF")[0].UID
            items(second, "UIDREF")[0].UID = uid
            if not other_segment:
                number = items(first, "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
                items(second, "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber = number

        path = edited(paths["shape_sr"], tmp_path / "x.dcm", change)
        return [i.rule for i in validate_objects([path, paths["seg"]], settings=OWN) if i.rule == "tid1500.tracking"]

    assert warnings(other_segment=True) == ["tid1500.tracking"]
    assert warnings(other_segment=False) == []


def frame_of_no_segment(ds):
    for item in ds.PerFrameFunctionalGroupsSequence:
        item.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def too_few_frames(ds):
    ds.PerFrameFunctionalGroupsSequence = list(ds.PerFrameFunctionalGroupsSequence)[:-1]


def short_pixels(ds):
    ds.PixelData = ds.PixelData[:-8]


def a_number_twice(ds):
    ds.SegmentSequence[1].SegmentNumber = 1


def no_segments(ds):
    ds.SegmentSequence = []


SEG_FAULTS = {
    frame_of_no_segment: "seg.segment",
    too_few_frames: "seg.frames",
    short_pixels: "seg.pixels",
    a_number_twice: "seg.segments",
    no_segments: "seg.segments",
}


@pytest.mark.parametrize("plant", SEG_FAULTS, ids=lambda f: f.__name__)
def test_a_fault_in_a_seg_is_named(four, tmp_path, plant):
    path = edited(four[1]["seg"], tmp_path / "x.dcm", plant)
    assert SEG_FAULTS[plant] in {i.rule for i in errors(validate_objects([path], settings=OWN))}


def missing_type_1(ds):
    del ds.SOPClassUID


def missing_completion_flag(ds):
    del ds.CompletionFlag


def wrong_modality(ds):
    ds.Modality = "CT"


def wrong_vr(ds):
    ds["SeriesNumber"].VR = "LO"
    ds["SeriesNumber"].value = "x" * 90


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("plant", [missing_completion_flag, wrong_modality, wrong_vr], ids=lambda f: f.__name__)
def test_dciodvfy_catches_what_the_header_lacks(four, tmp_path, plant):
    path = edited(four[1]["regions_sr"], tmp_path / "x.dcm", plant)
    found = errors(validate_objects([path], settings=Settings()))
    assert found
    assert {i.checker for i in found} == {"dciodvfy"}
    assert all(i.checker_version for i in found)


def test_references_are_counted_where_it_is_known_what_exists(four):
    series, paths = four
    some = series.sop_instance_uids[:5]
    (issue,) = errors(validate_objects([paths["regions_sr"]], settings=OWN, sources=some))
    assert issue.rule == "references.resolve"
    assert issue.message == f"5 of {len(series.slices)} references resolve"
    assert errors(validate_objects([paths["regions_sr"]], settings=OWN)) == []


@pytest.mark.parametrize("content", [b"", b"not DICOM at all" * 50])
def test_what_is_not_dicom_is_an_error_not_a_crash(tmp_path, content):
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    (issue,) = validate_objects([path], settings=Settings())
    assert (issue.rule, issue.severity, issue.object) == ("file.unreadable", Severity.ERROR, "x.dcm")


def test_a_cut_report_is_an_error(four, tmp_path):
    whole = four[1]["shape_sr"].read_bytes()
    for share in (0.3, 0.6, 0.95):
        path = tmp_path / "cut.dcm"
        path.write_bytes(whole[: int(len(whole) * share)])
        assert errors(validate_objects([path], settings=Settings()))


def test_another_report_is_only_checked_as_a_tree(four, tmp_path):
    def other_title(ds):
        ds.ConceptNameCodeSequence[0].CodeValue = "18748-4"
        ds.ConceptNameCodeSequence[0].CodingSchemeDesignator = "LN"

    path = edited(four[1]["shape_sr"], tmp_path / "x.dcm", other_title)
    issues = validate_objects([path], settings=OWN)
    assert [(i.rule, i.severity) for i in issues] == [("tid1500.title", Severity.NOTE)]


def test_issues_carry_no_names(four, tmp_path):
    def name(ds):
        ds.PatientName = "CANARY^BIRD^^^^^^too^many"
        ds.PatientID = "CANARY-1"

    path = edited(four[1]["regions_sr"], tmp_path / "x.dcm", name)
    issues = validate_objects([path], settings=Settings())
    assert "CANARY" not in "".join(f"{i.message}{i.object}" for i in issues).upper()
    line = "Warning - Value dubious for this VR - (0x0010,0x0010) PN Patient's Name  PN [1] = <CANARY> - Retired"
    assert "CANARY" not in _without_values(line)


def test_objects_of_others(real_data):
    """Good ones pass; the SEG whose references point to another study is told, with the count."""
    folder = real_data("ref_objects")
    names = ("liver.dcm", "partial_overlaps.dcm", "seg_image_ct_binary.dcm", "sr_document.dcm")
    paths = [p for p in sorted(folder.rglob("*.dcm")) if p.name in names]
    assert len(paths) == len(names)
    assert errors(validate_objects(paths, settings=OWN)) == []
    lung = real_data("LUNG1-005")
    known, segs = set(), []
    for path in sorted(lung.rglob("*.dcm")):
        ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality", "SOPInstanceUID"])
        known.add(str(ds.SOPInstanceUID))
        segs += [path] if ds.Modality == "SEG" else []
    issues = errors(validate_objects(segs, settings=OWN, sources=known))
    assert [i.message for i in issues if i.rule == "references.resolve"] == ["0 of 91 references resolve"]


@pytest.mark.parametrize("kind", ["seg", "shape_sr"])
def test_a_deflated_object_is_checked_like_the_one_it_was_made_of(four, kind, tmp_path):
    series, paths = four
    path = next(path for name, path in paths.items() if name.startswith(kind.split("_")[0]))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    packed = tmp_path / "packed.dcm"
    data.save_as(packed)
    plain = validate_objects([path], settings=Settings(), sources=series.sop_instance_uids)
    found = validate_objects([packed], settings=Settings(), sources=series.sop_instance_uids)
    assert [(i.rule, i.message) for i in found] == [(i.rule, i.message) for i in plain]
    del data.StudyInstanceUID
    data.save_as(packed)
    assert any("StudyInstanceUID" in i.message for i in errors(validate_objects([packed], settings=Settings())))

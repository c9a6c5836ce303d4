"""The three SRs: structure, references, values, same bytes; read back by other libraries."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich.codes.mappings import load_features, load_landmarks, load_regions
from ctenrich.encode.landmarks_sr import encode_landmarks_sr
from ctenrich.encode.regions_sr import encode_regions_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import EncodingError
from ctenrich.records import EncodedObject, SegmentMasks, SegmentShape, ShapeMeasurements, SortedSeries
from ctenrich.settings import Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace
from tests.support.encode_cases import (
    make_expert_masks,
    make_landmarks,
    make_masks,
    make_regions,
    make_scores,
    make_series,
    make_shape,
)

KINDS = ("shape", "expert", "landmarks", "regions")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("objects")
    series, volume = make_series(folder / "ct")
    return write_all(series, volume, Workspace(folder / "run"))


def write_all(series: SortedSeries, volume: object, workspace: Workspace) -> dict[str, Path]:
    out = {}
    objects = {}
    for name, masks in (("shape", make_masks(series, workspace)), ("expert", make_expert_masks(series, workspace))):
        seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)  # type: ignore[arg-type]
        objects[name] = encode_shape_sr(make_shape(masks), masks, seg, series, settings=Settings(), workspace=workspace)
        out[f"{name}_seg"] = workspace.resolve(series.series_instance_uid, seg.path)
    scores = make_scores(series)
    both = {"settings": Settings(), "workspace": workspace}
    objects["landmarks"] = encode_landmarks_sr(make_landmarks(series), scores, series, **both)  # type: ignore[arg-type]
    objects["regions"] = encode_regions_sr(make_regions(series), scores, series, **both)  # type: ignore[arg-type]
    return out | {k: workspace.resolve(series.series_instance_uid, o.path) for k, o in objects.items()}


def groups(path: Path) -> list[Dataset]:
    root = pydicom.dcmread(path)
    measurements = [i for i in root.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
    assert len(measurements) == 1
    return list(measurements[0].ContentSequence)


def children(item: Dataset, value: str) -> list[Dataset]:
    named = [c for c in item.get("ContentSequence", []) if "ConceptNameCodeSequence" in c]
    return [c for c in named if c.ConceptNameCodeSequence[0].CodeValue == value]


def test_shape_groups_have_what_queries_join_on(written: dict[str, Path], tmp_path: Path) -> None:
    seg = pydicom.dcmread(written["shape_seg"], stop_before_pixels=True)
    found = groups(written["shape"])
    assert len(found) == 4
    for number, group in enumerate(found, start=1):
        assert group.ValueType == "CONTAINER"
        assert group.ConceptNameCodeSequence[0].CodeMeaning == "Measurement Group"
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"
        assert children(group, "112039")[0].TextValue == f"Measurements group {number}"
        assert seg.SegmentSequence[number - 1].TrackingUID == children(group, "112040")[0].UID
        (finding,) = children(group, "121071")
        assert finding.ConceptCodeSequence[0].CodeValue == "113343008"
        (site,) = children(group, "363698007")
        kind = seg.SegmentSequence[number - 1].SegmentedPropertyTypeCodeSequence[0]
        assert site.ConceptCodeSequence[0].CodeValue == kind.CodeValue
        (reference,) = children(group, "121191")
        assert reference.ReferencedSOPSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
        assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSOPSequence[0].ReferencedSegmentNumber == number
        (source,) = children(group, "121232")
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.UID
    root = pydicom.dcmread(written["shape"])
    assert root.SeriesDescription == "3d_fullres-tta_nnU-Net_Measurements small-organs"
    assert root.ContentDescription == "Measurements by small-organs"
    assert root.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert root.ContentTemplateSequence[0].MappingResource == "DCMR"
    schemes = {i.CodingSchemeDesignator: i for i in root.CodingSchemeIdentificationSequence}
    assert set(schemes) == {"99CTENRICH", "IBSI"}
    assert schemes["IBSI"].CodingSchemeUID == "1.2.840.10008.2.16.13"


def test_values_are_exact_and_absent_ones_stated(written: dict[str, Path]) -> None:
    features = load_features()
    found = groups(written["shape"])
    for number in (1, 2, 4):
        nums = [c for c in found[number - 1].ContentSequence if c.ValueType == "NUM"]
        names = [f for f in features if features[f].feature_class == "shape" and (number, f) != (1, "Flatness")]
        assert len(nums) == len(names)
        for item, name in zip(nums, names, strict=True):
            quantity, measured = item.ConceptNameCodeSequence[0], item.MeasuredValueSequence[0]
            code = features[name]
            assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == (code.quantity.value, code.quantity.scheme)
            unit = measured.MeasurementUnitsCodeSequence[0]
            assert (unit.CodeValue, unit.CodingSchemeDesignator) == (code.unit.value, "UCUM")
            order = [f for f in features if features[f].feature_class == "shape"].index(name)
            expected = (number + 1 / 3) * 10.0 ** (order % 7 - 2)
            assert measured.FloatingPointValue == expected
            assert float(measured.NumericValue) == pytest.approx(expected, rel=1e-12)
            assert len(str(measured.NumericValue.original_string or measured.NumericValue)) <= 16
    absent = found[2]
    assert not [c for c in absent.ContentSequence if c.ValueType == "NUM"]
    (presence,) = children(absent, "121052")
    assert presence.ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert features["Elongation"].unit.value == features["Flatness"].unit.value == "1"


def test_sides_come_first_below_the_finding_site(written: dict[str, Path]) -> None:
    found = groups(written["expert"])
    (site,) = children(found[1], "363698007")
    assert site.ConceptCodeSequence[0].CodeMeaning == "Lung"
    first = site.ContentSequence[0]
    assert first.ConceptNameCodeSequence[0].CodeValue == "272741003"
    assert first.ConceptCodeSequence[0].CodeMeaning == "Left"
    tumour = found[2]
    assert children(tumour, "121071")[0].ConceptCodeSequence[0].CodeMeaning == "Neoplasm"
    assert children(tumour, "363698007")[0].ConceptCodeSequence[0].CodeMeaning == "Anatomical Structure"
    assert pydicom.dcmread(written["expert"]).SeriesDescription == "Manual_segmentations_Measurements"


def test_landmark_groups(written: dict[str, Path], tmp_path: Path, workspace: Workspace) -> None:
    series, _ = make_series(tmp_path / "ct")
    mapped, landmarks = load_landmarks(), make_landmarks(series)
    found = groups(written["landmarks"])
    present = [item for item in landmarks.items if item.slice_index is not None]
    assert len(found) == len(present) == 4
    uids = set()
    for number, (group, item) in enumerate(zip(found, present, strict=True), start=1):
        assert children(group, "112039")[0].TextValue == f"Annotations group landmarks {number}"
        uids.add(children(group, "112040")[0].UID)
        (site,) = children(group, "363698007")
        code = mapped[item.name]
        assert site.ConceptCodeSequence[0].CodeValue == code.site.value
        if code.modifier is None:
            assert "ContentSequence" not in site
        else:
            first = site.ContentSequence[0]
            assert first.ConceptNameCodeSequence[0].CodeValue == "106233006"
            assert first.RelationshipType == "HAS CONCEPT MOD"
            assert first.ConceptCodeSequence[0].CodeValue == code.modifier.value
        (source,) = [c for c in group.ContentSequence if c.ValueType == "IMAGE"]
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == item.sop_instance_uid
        values = {c.ConceptNameCodeSequence[0].CodeValue: c for c in group.ContentSequence if c.ValueType == "NUM"}
        assert set(values) == {"SLICE_SCORE", "LANDMARK_SCORE", "LANDMARK_DIST", "LANDMARK_CONF"}
        assert values["LANDMARK_SCORE"].MeasuredValueSequence[0].FloatingPointValue == item.score
    assert len(uids) == 4
    root = pydicom.dcmread(written["landmarks"])
    assert root.SeriesDescription == "BPR landmark annotations"
    assert root.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99CTENRICH"
    assert root.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"


def test_region_groups_are_all_slices(written: dict[str, Path], tmp_path: Path) -> None:
    series, _ = make_series(tmp_path / "ct")
    mapped, regions = load_regions(), make_regions(series)
    found = groups(written["regions"])
    assert len(found) == len(series.slices)
    assert {len(item.regions) for item in regions.slices} == {0, 1, 2}
    for k, (group, item) in enumerate(zip(found, regions.slices, strict=True)):
        assert children(group, "112039")[0].TextValue == f"Annotations group {k + 1}"
        sites = [s.ConceptCodeSequence[0].CodeValue for s in children(group, "363698007")]
        assert sites == [mapped[name].site.value for name in item.regions]
        (source,) = [c for c in group.ContentSequence if c.ValueType == "IMAGE"]
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == series.sop_instance_uids[k]
        scores = children(group, "SLICE_SCORE")
        assert [s.MeasuredValueSequence[0].FloatingPointValue for s in scores] == [
            v for v in (item.score,) if v is not None
        ]
    assert pydicom.dcmread(written["regions"]).SeriesDescription == "BPR region annotations"


def uids_in(item: Dataset) -> Iterator[str]:
    for element in item:
        if element.VR == "SQ":
            for child in element.value:
                yield from uids_in(child)
        elif element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_reference_is_evidence_and_resolves(kind: str, written: dict[str, Path], tmp_path: Path) -> None:
    series, _ = make_series(tmp_path / "ct")
    root = pydicom.dcmread(written[kind])
    (study,) = root.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == root.StudyInstanceUID == series.study_instance_uid
    evidence = set(uids_in(study))
    content = {u for item in root.ContentSequence for u in uids_in(item)}
    expected = set(series.sop_instance_uids)
    if kind in {"shape", "expert"}:
        expected.add(pydicom.dcmread(written[f"{kind}_seg"], specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    assert content == evidence == expected
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == series.series_instance_uid


@pytest.mark.parametrize("kind", KINDS)
def test_highdicom_reads_the_groups(kind: str, written: dict[str, Path]) -> None:
    report = hd.sr.srread(written[kind])
    content = report.content
    if kind in {"shape", "expert"}:
        found = content.get_volumetric_roi_measurement_groups()
        assert len(found) == 4
        assert found[0].referenced_segment is not None
        assert found[0].finding_type is not None
        assert len(found[1].get_measurements()) == 17
        absent = found[2 if kind == "shape" else 3]
        assert absent.get_qualitative_evaluations()[0].value == codes.SCT.Absent
    else:
        found = content.get_image_measurement_groups()
        assert len(found) == (4 if kind == "landmarks" else 14)
        assert found[-1].get_measurements()[0].name.value == "SLICE_SCORE"
        assert found[0].tracking_uid != found[1].tracking_uid
    assert content.get_observer_contexts()[0].observer_type == codes.DCM.Device


@pytest.mark.parametrize("kind", KINDS)
def test_other_programs_read_them(kind: str, written: dict[str, Path], tmp_path: Path) -> None:
    said = run_tool([find_tool("dciodvfy"), written[kind]], check=False)
    assert "Error" not in said.stdout + said.stderr, said.stderr
    out = tmp_path / "sr.json"
    run_tool([find_tool("tid1500reader"), "--inputDICOM", written[kind], "--outputMetadata", out])
    read = json.loads(out.read_text())["Measurements"]
    assert len(read) == {"shape": 4, "expert": 4, "landmarks": 4, "regions": 14}[kind]
    if kind == "shape":
        assert read[1]["FindingSite"]["CodeMeaning"] == "Heart"
        assert read[1]["ReferencedSegment"] == 2
        assert len(read[1]["measurementItems"]) == 17
        assert read[1]["measurementAlgorithmIdentification"]["AlgorithmName"] == "ctenrich shape"
        volume = next(m for m in read[1]["measurementItems"] if m["quantity"]["CodeValue"] == "RNU0")
        assert float(volume["value"]) == pytest.approx((2 + 1 / 3) * 10.0**3, rel=1e-12)
        assert volume["units"]["CodeValue"] == "mm3"


def test_the_same_bytes_twice(written: dict[str, Path], tmp_path: Path) -> None:
    series, volume = make_series(tmp_path / "ct")
    again = write_all(series, volume, Workspace(tmp_path / "again"))
    for kind, path in written.items():
        assert path.read_bytes() == again[kind].read_bytes(), kind


def test_values_without_code_or_not_finite_are_refused(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks = make_masks(series, workspace)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    shape = make_shape(masks)

    def encode(item: SegmentShape) -> EncodedObject:
        changed: ShapeMeasurements = dataclasses.replace(shape, segments=(item, *shape.segments[1:]))
        return encode_shape_sr(changed, masks, seg, series, settings=Settings(), workspace=workspace)

    first = shape.segments[0]
    for values in ({"Roundness": 1.0}, {"Sphericity": float("nan")}, {"Sphericity": float("inf")}):
        with pytest.raises(EncodingError):
            encode(dataclasses.replace(first, values=values))
    with pytest.raises(EncodingError, match="not of"):
        encode(dataclasses.replace(first, name="heart"))
    done = encode(first)
    assert any(i.rule == "OMITTED_FEATURE" and "Flatness" in i.message for i in done.issues)


def test_a_slice_of_another_series_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    series, _ = make_series(tmp_path / "ct")
    scores, landmarks, regions = make_scores(series), make_landmarks(series), make_regions(series)
    moved = dataclasses.replace(landmarks.items[0], slice_index=7)
    with pytest.raises(EncodingError):
        encode_landmarks_sr(
            dataclasses.replace(landmarks, items=(moved,)), scores, series, settings=Settings(), workspace=workspace
        )
    odd = dataclasses.replace(regions.slices[0], regions=("tail",))
    with pytest.raises(EncodingError, match="tail"):
        encode_regions_sr(
            dataclasses.replace(regions, slices=(odd,)), scores, series, settings=Settings(), workspace=workspace
        )


def test_masks_record_is_untouched(tmp_path: Path, workspace: Workspace) -> None:
    series, volume = make_series(tmp_path / "ct")
    masks: SegmentMasks = make_masks(series, workspace)
    before = repr(masks)
    encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    assert repr(masks) == before

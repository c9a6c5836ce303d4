"""SEGs that other programs wrote on the CT of a run, or of a folder, are compared with products and with each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.dicom.seg import DecodedSegment
from ctenrich.errors import UsageError
from ctenrich.evaluate.other_segs import structure_name
from ctenrich.evaluate.products import compare_objects
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, SortedSeries
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace, save_record
from tests.support.encode_cases import Grid, make_expert_masks, make_series

LEFT_LUNG = ("Left lung", Code("T-28000", "SRT", "Lung"), Code("G-A101", "SRT", "Left"))
HEART = ("2", codes.SCT.Heart, None)


@dataclass
class Case:
    """A run with an expert's masks of one series, and its CT."""

    workspace: Workspace
    series: SortedSeries
    masks: SegmentMasks
    ct: Path


def make_case(folder: Path) -> Case:
    workspace = Workspace(folder / "run")
    pixels = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16}
    pixels |= {"HighBit": 15, "PixelRepresentation": 1, "PixelData": bytes(2 * Grid().rows * Grid().columns)}
    series, _ = make_series(folder / "ct", **pixels)
    masks = make_expert_masks(series, workspace)
    save_record(workspace.series_dir(series.series_instance_uid) / "sorted.json", series)
    save_record(workspace.product_dir(series.series_instance_uid, masks.product) / "masks.json", masks)
    return Case(workspace, series, masks, folder / "ct")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        return make_case(tmp_path_factory.mktemp("others"))


def by_highdicom(
    path: Path, case: Case, masks: NDArray[np.bool_], segments: list[tuple[str, Code, Code | None]]
) -> Path:
    """A SEG that highdicom writes on the CT; masks [k, j, i, segment], turned so that its frames are in file order."""
    images = [pydicom.dcmread(p) for p in sorted(case.ct.glob("*.dcm"))]
    algorithm = hd.AlgorithmIdentificationSequence("others", codes.DCM.ArtificialIntelligence, "1")
    described = [
        hd.seg.SegmentDescription(
            number,
            label,
            codes.SCT.Organ,
            kind,
            hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, (label, kind, _) in enumerate(segments, 1)
    ]
    for item, (_, _, side) in zip(described, segments, strict=True):
        if side is not None:
            item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
                hd.sr.CodedConcept(side.value, side.scheme_designator, side.meaning)
            ]
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=masks.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="others",
        manufacturer_model_name="others",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(path)
    return path


def by_dcmqi(path: Path, case: Case, mask: NDArray[np.bool_]) -> Path:
    """A SEG of the heart that dcmqi writes on the CT, from a NIfTI file."""
    nibabel = pytest.importorskip("nibabel")
    image = path.with_suffix(".nii.gz")
    affine = np.diag([-0.7, -0.8, 2.5, 1])
    affine[:3, 3] = [120.25, 99.5, -310.75]
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8).transpose(2, 1, 0), affine), image)
    heart = {"CodeValue": "80891009", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Heart"}
    category = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    segment = {"labelID": 1, "SegmentLabel": "1", "SegmentDescription": "1", "SegmentAlgorithmType": "MANUAL"}
    segment |= {"SegmentedPropertyCategoryCodeSequence": category, "SegmentedPropertyTypeCodeSequence": heart}
    meta = path.with_suffix(".json")
    meta.write_text(json.dumps({"SeriesDescription": "x", "segmentAttributes": [[segment]]}))
    arguments = ["--inputImageList", image, "--inputDICOMDirectory", case.ct, "--outputDICOM", path]
    run_tool([find_tool("itkimage2segimage"), *arguments, "--inputMetadata", meta, "--skip", "1"])
    return path


def dice(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_a_seg_of_highdicom_against_the_expert_of_a_run(case: Case, tmp_path: Path) -> None:
    """Its left lung, one slice too high, is found by its SRT codes, its heart by its code: the label is a number."""
    lung, heart = (full_mask(case.masks, number, case.workspace) for number in (2, 1))
    moved = np.roll(lung, 1, axis=0)
    path = by_highdicom(tmp_path / "theirs.dcm", case, np.stack([moved, heart], -1), [LEFT_LUNG, HEART])
    found = compare_objects([tmp_path], workspace=case.workspace)
    by_name = {o.structure_name: o for o in found.overlaps}
    assert set(by_name) == {"heart", "lung_left"}
    assert by_name["heart"].dice_score == 1
    assert by_name["lung_left"].dice_score == pytest.approx(dice(lung, moved))
    assert by_name["lung_left"].hausdorff_distance == 2.5, "one slice"
    assert {(o.reference, o.model) for o in found.overlaps} == {("expert", path.as_posix())}
    assert {o.series_instance_uid for o in found.overlaps} == {case.series.series_instance_uid}
    assert [(o.name, o.reason, o.issues) for o in found.objects] == [(path.as_posix(), None, ())]


def test_segs_of_two_makers_on_a_folder_of_ct(case: Case, tmp_path: Path) -> None:
    heart = full_mask(case.masks, 1, case.workspace)
    smaller = heart.copy()
    smaller[2:4] = False
    theirs = by_dcmqi(tmp_path / "theirs.dcm", case, smaller)
    mine = by_highdicom(tmp_path / "mine.dcm", case, heart[..., None], [HEART])
    (overlap,) = compare_objects([theirs, mine], source=case.ct, reference=str(theirs)).overlaps
    assert (overlap.structure_name, overlap.model) == ("heart", str(mine))
    assert overlap.dice_score == pytest.approx(dice(heart, smaller))
    assert overlap.series_instance_uid == case.series.series_instance_uid


def test_every_seg_has_an_outcome(case: Case, tmp_path: Path) -> None:
    """A damaged one, one of another CT, one off the grid and one that is fine; text and CT beside them are left out."""
    heart = full_mask(case.masks, 1, case.workspace)
    fine = by_highdicom(tmp_path / "fine.dcm", case, heart[..., None], [HEART])
    (tmp_path / "damaged.dcm").write_bytes(fine.read_bytes()[:-1000])
    elsewhere = pydicom.dcmread(fine)
    elsewhere.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"
    for item in elsewhere.ReferencedSeriesSequence[0].ReferencedInstanceSequence:
        item.ReferencedSOPInstanceUID = f"1.2.3.{item.ReferencedSOPInstanceUID[-5:].lstrip('0.')}"
    elsewhere.save_as(tmp_path / "elsewhere.dcm")
    off = pydicom.dcmread(fine)
    for frame in off.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 5
    off.save_as(tmp_path / "off.dcm")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "ct.dcm").write_bytes((case.ct / "000.dcm").read_bytes())
    found = compare_objects([tmp_path], workspace=case.workspace)
    assert {Path(o.name).name: o.reason for o in found.objects} == {
        "damaged.dcm": Reason.TRUNCATED,
        "elsewhere.dcm": Reason.NO_REFERENCE,
        "fine.dcm": None,
        "off.dcm": Reason.NO_REFERENCE,
    }
    assert [o.dice_score for o in found.overlaps] == [1]


def test_wrong_requests(case: Case, tmp_path: Path) -> None:
    fine = by_highdicom(tmp_path / "fine.dcm", case, full_mask(case.masks, 1, case.workspace)[..., None], [HEART])
    for changes, reason, words in (
        ({"model": "nobody"}, Reason.NOT_FOUND, f"there are {fine}, expert"),
        ({"reference": "expart"}, Reason.NOT_FOUND, "did you mean expert?"),
        ({"source": case.ct}, Reason.BAD_PARAMETER, "name either a run's folder or --source FOLDER"),
        ({"workspace": None}, Reason.BAD_PARAMETER, "name either a run's folder or --source FOLDER"),
    ):
        with pytest.raises(UsageError) as caught:
            compare_objects([fine], **({"workspace": case.workspace} | changes))  # type: ignore[arg-type]
        assert (caught.value.reason, caught.value.exit_code) == (reason, 2)
        assert words in caught.value.hint
    (tmp_path / "empty").mkdir()
    for paths in ([tmp_path / "none"], [tmp_path / "empty"]):
        with pytest.raises(UsageError) as caught:
            compare_objects(paths, workspace=case.workspace)
        assert caught.value.reason is Reason.NOT_FOUND


def test_the_command_reads_segs_of_others(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heart = full_mask(case.masks, 1, case.workspace)
    by_highdicom(Path("one.dcm"), case, heart[..., None], [HEART])
    by_highdicom(Path("two.dcm"), case, np.roll(heart, 1, axis=2)[..., None], [HEART])
    start = ["evaluate-segmentations", "one.dcm", "two.dcm"]
    done = CliRunner().invoke(app, [*start, "--source", str(case.ct), "--reference", "one.dcm", "--csv"])
    assert done.exit_code == 0, done.output
    header, row = done.stdout.splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert (values["structure_name"], values["reference"], values["model"]) == ("heart", "one.dcm", "two.dcm")
    assert float(values["dice_score"]) == pytest.approx(dice(heart, np.roll(heart, 1, axis=2)))
    unknown = CliRunner().invoke(app, [*start, "--source", str(case.ct), "--reference", "three.dcm"])
    assert unknown.exit_code == 2
    assert "did you mean two.dcm or one.dcm?" in unknown.stderr
    assert "there are one.dcm, two.dcm" in unknown.stderr
    assert CliRunner().invoke(app, start).exit_code == 2
    Path("two.dcm").write_bytes(b"nothing")
    broken = CliRunner().invoke(app, [*start, "--source", str(case.ct), "--reference", "one.dcm"])
    assert broken.exit_code == 1
    assert "not compared: two.dcm: NOT_DICOM" in broken.stderr


@pytest.mark.parametrize(
    ("label", "kind", "side", "name"),
    [
        ("Left Lung", ("39607008", "SCT"), None, "lung_left"),
        ("Lung", ("39607008", "SCT"), ("7771000", "SCT"), "lung_left"),
        ("Lung", ("T-28000", "SRT"), ("G-A100", "SRT"), "lung_right"),
        ("heart", ("113343008", "SCT"), None, "heart"),
        ("heart", ("15825003", "SCT"), None, "aorta"),
        ("Widget 7", ("113343008", "SCT"), None, "roi:widget_7"),
        ("", None, None, "roi:unnamed"),
        ("Segment 3", ("89546000", "SCT"), None, "skull"),
        ("Segment 4", ("81040000", "SCT"), None, "roi:segment_4"),
        ("lung_arteries", ("81040000", "SCT"), None, "lung_arteries"),
        ("gluteus_maximus_left", ("181674001", "SCT"), ("7771000", "SCT"), "gluteus_maximus_left"),
    ],
)
def test_structures_by_label_and_codes(
    label: str, kind: tuple[str, str] | None, side: tuple[str, str] | None, name: str
) -> None:
    from ctenrich.codes.mappings import Code as Coded

    segment = DecodedSegment(
        number=1,
        label=label,
        description="",
        category=None,
        type=Coded(*kind, "") if kind else None,
        laterality=Coded(*side, "") if side else None,
        region=None,
        region_modifier=None,
        algorithm_type="",
        algorithm_name="",
        tracking_id="",
        tracking_uid="",
        voxels=1,
    )
    assert structure_name(segment) == name

"""Masks of others on the grid of the CT: every form and direction gives the same voxels, and what does not fit ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from ctenrich.codes.tasks import task_classes
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.phantom import SEGMENTS, PhantomOptions
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks
from tests.support.harmonise_cases import (
    SMALL,
    Case,
    axis_variants,
    image_of,
    make_case,
    write_labels,
    write_masks,
    write_table,
)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("harmonise"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "map.csv")


def refused(read: Callable[[], SegmentMasks], reason: Reason, *texts: str) -> None:
    with pytest.raises(CtenrichError) as caught:
        read()
    assert caught.value.reason is reason
    for text in texts:
        assert text in caught.value.message, caught.value.message


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", ["labels.nii.gz", "labels.nii", "labels.nrrd", "labels.mha"])
def test_label_maps_of_every_format_are_the_truth(case: Case, table: Path, tmp_path: Path, name: str) -> None:
    masks = case.harmonise(write_labels(case, tmp_path / name), labels=table)
    assert [s.name for s in masks.segments] == list(SEGMENTS)
    assert case.differing(masks) == 0
    assert masks.algorithm_type == "MANUAL"


def test_label_maps_in_every_direction_are_the_truth(case: Case, table: Path, tmp_path: Path) -> None:
    for code, image in axis_variants(image_of(case, case.labels)).items():
        path = tmp_path / f"{code}.nii"
        nibabel.save(image, path)
        assert case.differing(case.harmonise(path, labels=table)) == 0, code


@pytest.mark.parametrize("orientation", ["axial_RA", "coronal_LI", "coronal_RS", "sagittal_PI"])
def test_cts_in_other_directions_get_the_same_patient(tmp_path: Path, table: Path, orientation: str) -> None:
    """Reversed stacks, coronal and sagittal: positions count, not the order of slices."""
    case = make_case(tmp_path, SMALL.oriented(orientation, voxel=(9.0, 9.0, 9.0)))
    variants = axis_variants(image_of(case, case.labels))
    for code, image in ((code, variants[code]) for code in ("RAS", "LPI", "SRA")):
        path = tmp_path / f"{code}.nii"
        nibabel.save(image, path)
        assert case.differing(case.harmonise(path, labels=table)) == 0, code


def test_an_oblique_ct(tmp_path: Path, table: Path) -> None:
    angle = np.radians(17)
    options = replace(
        SMALL, row_cosines=(float(np.cos(angle)), float(np.sin(angle)), 0.0),
        column_cosines=(-float(np.sin(angle)), float(np.cos(angle)), 0.0),
    )  # fmt: skip
    case = make_case(tmp_path, options)
    assert case.differing(case.harmonise(write_labels(case, tmp_path / "a.nii.gz"), labels=table)) == 0
    assert case.differing(case.harmonise(write_labels(case, tmp_path / "a.nrrd"), labels=table)) == 0


def test_a_folder_of_masks_is_the_truth(case: Case, tmp_path: Path) -> None:
    folder = write_masks(case, tmp_path / "masks", {"lung_left": "Left Lung"})
    (folder / "readme.txt").write_text("not a mask")
    masks = case.harmonise(folder)
    assert {s.source_label for s in masks.segments} >= {"heart", "Left Lung"}
    assert case.differing(masks) == 0


def test_3d_slicers_file_names_its_labels(case: Case, tmp_path: Path) -> None:
    path = write_labels(case, tmp_path / "plain.nrrd")
    image = SimpleITK.ReadImage(str(path))
    for n, name in enumerate(SEGMENTS):
        for key, value in {"Name": name, "LabelValue": str(n + 1), "Layer": "0"}.items():
            image.SetMetaData(f"Segment{n}_{key}", value)
    SimpleITK.WriteImage(image, str(tmp_path / "Segmentation.seg.nrrd"))
    assert case.differing(case.harmonise(tmp_path / "Segmentation.seg.nrrd")) == 0


def test_totalsegmentators_label_map_by_its_table(case: Case, tmp_path: Path) -> None:
    classes = {c.class_name: c.label for c in task_classes("totalsegmentator:total")}
    heart, aorta = SEGMENTS.index("heart") + 1, SEGMENTS.index("aorta") + 1

    def as_theirs(labels: np.ndarray) -> np.ndarray:
        return np.select([labels == heart, labels == aorta], [classes["heart"], classes["aorta"]], 0).astype(np.uint8)

    path = write_labels(case, tmp_path / "seg.nii.gz", as_theirs)
    masks = case.harmonise(path, maker="totalsegmentator", algorithm_type="")
    assert len(masks.segments) == 117
    assert [s.number for s in masks.segments if not s.absent] == sorted((classes["heart"], classes["aorta"]))
    truth = {s.name: np.zeros(case.labels.shape, bool) for s in masks.segments}
    assert case.differing(masks, truth | {"heart": case.labels == heart, "aorta": case.labels == aorta}) == 0
    assert masks.algorithm_type == "AUTOMATIC"
    assert masks.model is not None
    assert (masks.model.name, masks.model.learned) == ("TotalSegmentator", True)


@pytest.mark.parametrize(
    ("maker", "task", "names", "program"),
    [
        ("lungmask", "lungmask:R231", ("lung_left", "lung_right"), "lungmask"),
        ("moose:clin_ct_cardiac", "moose:clin_ct_cardiac", ("aorta",), "MOOSE"),
    ],
)
def test_label_maps_of_other_programs_by_their_tables(
    case: Case, tmp_path: Path, maker: str, task: str, names: tuple[str, ...], program: str
) -> None:
    labels = {c.segment: c.label for c in task_classes(task)}

    def as_theirs(array: np.ndarray) -> np.ndarray:
        own = [array == SEGMENTS.index(name) + 1 for name in names]
        return np.select(own, [labels[name] for name in names], 0).astype(np.uint8)

    masks = case.harmonise(write_labels(case, tmp_path / "seg.nii.gz", as_theirs), maker=maker, algorithm_type="")
    assert [s.number for s in masks.segments] == sorted(labels.values())
    assert sorted(s.name for s in masks.segments if not s.absent) == sorted(names)
    truth = {name: np.zeros(case.labels.shape, bool) for name in labels}
    truth |= {name: case.labels == SEGMENTS.index(name) + 1 for name in names}
    assert case.differing(masks, truth) == 0
    assert masks.model is not None
    assert masks.model.name == program


def test_a_label_that_is_left_out_is_no_segment(case: Case, tmp_path: Path) -> None:
    rows: dict[object, str] = dict(enumerate(SEGMENTS, 1))
    rows[3] = ""
    masks = case.harmonise(
        write_labels(case, tmp_path / "labels.nii.gz"), labels=write_table(tmp_path / "map.csv", rows)
    )
    assert [s.number for s in masks.segments] == list(range(1, len(SEGMENTS)))
    assert SEGMENTS[2] not in {s.name for s in masks.segments}
    assert case.differing(masks) == 0


def test_resampling_is_by_the_nearest_voxel_as_itk_does_it(case: Case, table: Path, tmp_path: Path) -> None:
    """The label map on a finer, shifted grid; SimpleITK's nearest neighbour is the golden value."""
    fine = PhantomOptions(seed=5, rows=96, columns=90, pixel_spacing=(4.3, 4.1), slices=60, slice_spacing=5.2)
    other = make_case(tmp_path / "fine", fine)
    path = write_labels(other, tmp_path / "fine.nrrd")
    refused(lambda: case.harmonise(path, labels=table), Reason.OTHER_GRID, "90 x 96 x 60", "44 x 40 x 34")
    masks = case.harmonise(path, labels=table, resample=True)
    target = SimpleITK.ReadImage(str(write_labels(case, tmp_path / "ct.nrrd")))
    theirs = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(SimpleITK.ReadImage(str(path)), target, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    )
    assert case.differing(masks, {name: theirs == n for n, name in enumerate(SEGMENTS, 1)}) == 0
    assert [i.rule for i in masks.issues] == ["harmonise.resampled"]


# ---------------------------------------------------------------- what is refused


def test_a_shifted_grid_is_refused_with_its_distance(case: Case, table: Path, tmp_path: Path) -> None:
    image = image_of(case, case.labels)
    moved = image.affine.copy()
    moved[2, 3] += 4.5
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), moved), tmp_path / "moved.nii")
    refused(lambda: case.harmonise(tmp_path / "moved.nii", labels=table), Reason.OTHER_GRID, "4.5 mm")


def test_a_sheared_affine_is_refused(case: Case, table: Path, tmp_path: Path) -> None:
    """A scanner affine whose sform is sheared: qform cannot express it, whatever its code is."""
    image = image_of(case, case.labels)
    sheared = image.affine.copy()
    sheared[1, 2] += 1.5
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), sheared), tmp_path / "sheared.nii")
    refused(lambda: case.harmonise(tmp_path / "sheared.nii", labels=table), Reason.NOT_ORTHOGONAL, "9.5 degrees")


def test_affines_that_disagree_or_lack_are_refused(case: Case, table: Path, tmp_path: Path) -> None:
    image = image_of(case, case.labels)
    image.set_sform(image.affine, 1)
    other = image.affine.copy()
    other[0, 3] += 30
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "two.nii")
    refused(lambda: case.harmonise(tmp_path / "two.nii", labels=table), Reason.MISSING_GEOMETRY, "30 mm apart")
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "none.nii")
    refused(lambda: case.harmonise(tmp_path / "none.nii", labels=table), Reason.MISSING_GEOMETRY, "code 0")


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda a: a.astype(np.float32) * 0.5, "not whole numbers, e.g. "),
        (lambda a: np.where(a == 2, np.nan, a.astype(np.float32)), "NaN"),
        (lambda a: a.astype(np.int16) - 1, "-1 to"),
    ],
)
def test_values_that_are_no_labels_are_refused(
    case: Case, table: Path, tmp_path: Path, edit: Callable[[Any], Any], text: str
) -> None:
    path = write_labels(case, tmp_path / "labels.nii", edit)
    refused(lambda: case.harmonise(path, labels=table), Reason.BAD_MASK, text)


def test_whole_floats_are_labels(case: Case, table: Path, tmp_path: Path) -> None:
    path = write_labels(case, tmp_path / "labels.nii.gz", lambda a: a.astype(np.float64))
    assert case.differing(case.harmonise(path, labels=table)) == 0


def test_several_volumes_are_refused(case: Case, table: Path, tmp_path: Path) -> None:
    image = image_of(case, case.labels)
    data = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.stack([data, data], 3), image.affine), tmp_path / "two.nii")
    refused(lambda: case.harmonise(tmp_path / "two.nii", labels=table), Reason.BAD_MASK, "44 x 40 x 34 x 2")
    nibabel.save(nibabel.Nifti1Image(data[..., None], image.affine), tmp_path / "one.nii")
    assert case.differing(case.harmonise(tmp_path / "one.nii", labels=table)) == 0


def test_unknown_labels_are_refused(case: Case, tmp_path: Path) -> None:
    path = write_labels(case, tmp_path / "labels.nii.gz")
    few = write_table(tmp_path / "few.csv", {1: "esophagus", 2: "heart"})
    refused(lambda: case.harmonise(path, labels=few), Reason.UNMAPPED_LABEL, "3 (", "voxels")
    wrong = write_table(tmp_path / "wrong.csv", {1: "gizzard"})
    refused(lambda: case.harmonise(path, labels=wrong), Reason.UNMAPPED_LABEL, "'gizzard'", "line 2")
    refused(lambda: case.harmonise(path), Reason.UNMAPPED_LABEL, "nothing names the labels")
    folder = write_masks(case, tmp_path / "masks", {"heart": "gizzard"})
    refused(lambda: case.harmonise(folder), Reason.UNMAPPED_LABEL, "'gizzard'")
    refused(lambda: case.harmonise(folder, maker="totalsegmentator"), Reason.UNMAPPED_LABEL, "gizzard")


def test_half_a_folder_is_refused(case: Case, tmp_path: Path) -> None:
    folder = write_masks(case, tmp_path / "masks")
    for name in ("lung_left", "lung_right"):
        (folder / f"{name}.nii.gz").unlink()
    read = lambda **more: case.harmonise(folder, maker="totalsegmentator", **more)  # noqa: E731
    refused(read, Reason.MISSING_MASKS, "112 of 117")
    assert case.differing(read(incomplete=True)) == 0


def test_a_mask_with_several_values_is_refused(case: Case, tmp_path: Path) -> None:
    folder = write_masks(case, tmp_path / "masks")
    write_labels(case, folder / "heart.nii.gz")
    refused(lambda: case.harmonise(folder), Reason.BAD_MASK, "heart.nii.gz has several label values")


def test_labels_of_another_task_are_seen_where_the_file_names_them(case: Case, tmp_path: Path) -> None:
    image = image_of(case, (case.labels == 2).astype(np.uint8))
    text = b'<CaretExtension><LabelTable><Label Key="1">liver</Label></LabelTable></CaretExtension>'
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    nibabel.save(image, tmp_path / "theirs.nii.gz")
    read = lambda: case.harmonise(tmp_path / "theirs.nii.gz", maker="totalsegmentator")  # noqa: E731
    refused(read, Reason.UNMAPPED_LABEL, "calls label 1 'liver'", "'spleen'")


def test_several_forms_and_options_that_exclude_each_other(case: Case, table: Path, tmp_path: Path) -> None:
    path = write_labels(case, tmp_path / "labels.nii.gz")
    with pytest.raises(UsageError, match="one of --as"):
        case.harmonise(path, labels=table, maker="totalsegmentator")
    with pytest.raises(UsageError, match="no task"):
        case.harmonise(path, maker="totalsegmentator:nothing")
    with pytest.raises(UsageError, match="how the masks were made"):
        case.harmonise(path, labels=table, algorithm_type="")
    with pytest.raises(UsageError, match="names the program"):
        case.harmonise(path, labels=table, algorithm_type="AUTOMATIC")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        case.harmonise(tmp_path / "empty")
    assert caught.value.reason is Reason.NOT_FOUND


# ---------------------------------------------------------------- place


MIRRORS = [(2, "left"), (1, "front"), (0, "head")]


@pytest.mark.parametrize(("axis", "text"), MIRRORS)
def test_mirrored_masks_are_refused_where_lungs_or_sides_tell(
    case: Case, table: Path, tmp_path: Path, axis: int, text: str
) -> None:
    path = write_labels(case, tmp_path / "mirrored.nii.gz", lambda a: np.flip(a, axis).copy())
    refused(lambda: case.harmonise(path, labels=table), Reason.WRONG_PLACE)
    masks = case.harmonise(path, labels=table, accept_position=True)
    assert {i.rule.partition(".")[0] for i in masks.issues} == {"place"}
    assert any(text in i.message for i in masks.issues)


def test_exchanged_sides_are_refused(case: Case, tmp_path: Path) -> None:
    swap = {"lung_left": "lung_right", "lung_right": "lung_left"}
    rows: dict[object, str] = {n: swap.get(name, name) for n, name in enumerate(SEGMENTS, 1)}
    path = write_labels(case, tmp_path / "labels.nii.gz")
    refused(
        lambda: case.harmonise(path, labels=write_table(tmp_path / "map.csv", rows)),
        Reason.WRONG_PLACE,
        "lung_left: its centre is",
        "to the right of lung_right",
    )


def test_one_lung_on_the_wrong_side_is_refused(case: Case, tmp_path: Path) -> None:
    right = SEGMENTS.index("lung_right") + 1
    path = write_labels(case, tmp_path / "one.nii.gz", lambda a: (a == right).astype(np.uint8))
    wrong = write_table(tmp_path / "map.csv", {1: "lung_left"})
    refused(lambda: case.harmonise(path, labels=wrong), Reason.WRONG_PLACE, "to the right of the middle")


def test_a_symmetric_organ_alone_cannot_be_judged(case: Case, tmp_path: Path) -> None:
    """The documented limit: a cord in the middle of the body, mirrored left to right, is as plausible as the truth."""
    cord = SEGMENTS.index("spinal_cord") + 1
    path = write_labels(case, tmp_path / "cord.nii.gz", lambda a: np.flip(a == cord, 2).astype(np.uint8))
    masks = case.harmonise(path, labels=write_table(tmp_path / "map.csv", {1: "spinal_cord"}))
    assert masks.issues == ()


def test_masks_without_a_voxel_are_refused(case: Case, table: Path, tmp_path: Path) -> None:
    path = write_labels(case, tmp_path / "empty.nii.gz", np.zeros_like)
    refused(lambda: case.harmonise(path, labels=table), Reason.EMPTY_SEGMENTATION)


# ---------------------------------------------------------------- dcmqi's description


def description(*segments: dict[str, Any], schema: str = "seg-schema.json#") -> dict[str, Any]:
    base = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/"
    return {"@schema": base + schema, "segmentAttributes": [list(segments)]}


def described(label: int, name: str, kind: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {
        "labelID": label,
        "SegmentLabel": name,
        "SegmentAlgorithmType": "SEMIAUTOMATIC",
        "SegmentAlgorithmName": "editor",
        "SegmentedPropertyCategoryCodeSequence": {
            "CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure",
        },
        "SegmentedPropertyTypeCodeSequence": {
            "CodeValue": kind[0], "CodingSchemeDesignator": "SCT", "CodeMeaning": kind[1],
        },
        **more,
    }  # fmt: skip


def test_dcmqis_description_names_labels_by_codes(case: Case, tmp_path: Path) -> None:
    heart = SEGMENTS.index("heart") + 1
    path = write_labels(case, tmp_path / "labels.nii.gz", lambda a: (a == heart).astype(np.uint8) * 7)
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps(description(described(7, "the pump", ("80891009", "Heart")))))
    masks = case.harmonise(path, meta=meta, algorithm_type="")
    assert [(s.name, s.source_label, s.number) for s in masks.segments] == [("heart", "the pump", 1)]
    assert case.differing(masks) == 0
    assert (masks.algorithm_type, masks.model.name if masks.model else "") == ("SEMIAUTOMATIC", "editor")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (description(described(1, "a", ("80891009", "Heart")), schema="seg-schema-2.json#"), "follows https"),
        ({"segmentAttributes": []}, "no segment"),
        ({"labels": []}, "no segmentAttributes"),
        (description(), "no segment"),
        (description({"labelID": 1}), "not as the schema requires"),
        (description(described(1, "a", ("", ""))), "a code lacks"),
    ],
)
def test_other_descriptions_are_refused(case: Case, tmp_path: Path, content: dict[str, Any], text: str) -> None:
    path = write_labels(case, tmp_path / "labels.nii.gz")
    (tmp_path / "meta.json").write_text(json.dumps(content))
    refused(lambda: case.harmonise(path, meta=tmp_path / "meta.json"), Reason.BAD_DESCRIPTION, text)


def test_errors_carry_what_was_found(case: Case, table: Path, tmp_path: Path) -> None:
    """A product that fails keeps the findings of its files."""
    fine = make_case(tmp_path / "fine", replace(SMALL, rows=44, columns=40))
    path = write_labels(fine, tmp_path / "other.nii.gz", np.zeros_like)
    with pytest.raises(InputError) as caught:
        case.harmonise(path, labels=table, resample=True)
    assert [i.rule for i in caught.value.issues] == ["harmonise.resampled"]

"""Label tables of published models: numbers, parts, and what makes a table unusable."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.codes.describe import describe_classes, describe_task
from ctenrich.codes.mappings import load_segments
from ctenrich.codes.tasks import load_parts, load_tasks, task_classes, task_parts
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

COUNTS = {
    "totalsegmentator:total": 117,
    "totalsegmentator:total_v3": 117,
    "totalsegmentator:total_v1": 104,
    "totalsegmentator:teeth": 77,
    "totalsegmentator:headneck_muscles": 23,
    "totalsegmentator:oculomotor_muscles": 19,
    "moose:clin_ct_ribs": 27,
    "moose:clin_ct_peripheral_bones": 31,
    "lungmask:R231": 2,
    "lungmask:LTRCLobes": 5,
    "monai:wholeBody_ct_segmentation": 104,
}


def test_every_task_numbers_its_classes_from_one_without_a_gap() -> None:
    tasks = load_tasks()
    assert {task: len(tasks[task]) for task in COUNTS} == COUNTS
    assert sum(task.startswith("moose:clin_ct_") for task in tasks) == 20
    for task, classes in tasks.items():
        assert sorted(item.label for item in classes) == list(range(1, len(classes) + 1)), task


@pytest.mark.parametrize(
    ("task", "label", "class_name", "segment"),
    [
        ("totalsegmentator:total", 90, "brain", "brain"),
        ("totalsegmentator:total", 26, "vertebrae_S1", "vertebrae_S1"),
        ("totalsegmentator:total_v3", 26, "vertebrae_L6", "vertebrae_L6"),
        ("totalsegmentator:total_v1", 93, "face", "face"),
        ("totalsegmentator:lung_nodules", 1, "lung", "lungs"),
        ("totalsegmentator:oculomotor_muscles", 7, "medial_rectus_muscle_left", "medial_rectus_muscle_left"),
        ("moose:clin_ct_vertebrae", 25, "vertebra_L6", "vertebrae_L6"),
        ("lungmask:R231", 1, "Right lung", "lung_right"),
    ],
)
def test_numbers_are_those_of_the_published_tables(task: str, label: int, class_name: str, segment: str) -> None:
    item = next(item for item in task_classes(task) if item.label == label)
    assert (item.class_name, item.segment, item.auxiliary) == (class_name, segment, False)


def test_auxiliary_classes_have_a_number_and_no_segment() -> None:
    auxiliary = {(i.task, i.label, i.class_name) for task in load_tasks().values() for i in task if i.auxiliary}
    assert ("totalsegmentator:kidney_cysts", 3, "kidney_left") in auxiliary
    assert ("totalsegmentator:renal_arteries", 4, "aorta") in auxiliary
    assert len(auxiliary) == 7
    assert all(not i.segment for task in load_tasks().values() for i in task if i.auxiliary)


def test_parts_cover_their_task_once() -> None:
    assert {task: list(parts) for task, parts in load_parts().items()} == {
        "totalsegmentator:total": [291, 292, 293, 294, 295],
        "totalsegmentator:total_v3": [831, 832, 833, 834, 835],
        "totalsegmentator:total_v1": [251, 252, 253, 254, 255],
        "totalsegmentator:headneck_muscles": [778, 779],
    }
    for task in load_parts():
        numbers = sorted(number for labels in task_parts(task).values() for number in labels.values())
        assert numbers == [item.label for item in task_classes(task)], task
    assert task_parts("totalsegmentator:total")[292][1] == 25, "sacrum"
    assert task_parts("totalsegmentator:body") == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a:b,0,spleen,,", r"tasks\.csv:3: '0' is not a number"),
        ("a:b,x,spleen,,", "'x' is not a number"),
        ("a:b,1,spleen,,", r"tasks\.csv:3: label 1 of a:b occurs twice"),
        ("a:b,2,spleen,,extra", "unknown role 'extra'"),
        ("a:b,2,spleen", "column segment is missing"),
    ],
)
def test_a_wrong_row_of_a_label_table_is_refused_with_its_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text(f"task,label,class_name,segment,role\na:b,1,liver,,\n{line}\n")
    with pytest.raises(UsageError, match=message) as caught:
        load_tasks(path)
    assert caught.value.reason is Reason.BAD_MAPPING


def test_an_unknown_task_is_reported_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="totalsegmentator:totl") as caught:
        task_classes("totalsegmentator:totl")
    assert caught.value.reason is Reason.NOT_FOUND
    assert "totalsegmentator:total" in caught.value.hint


def test_every_class_of_every_task_has_codes() -> None:
    segments = load_segments()
    assert [i for task in load_tasks().values() for i in task if not i.auxiliary and i.segment not in segments] == []


@pytest.mark.parametrize(
    ("task", "label", "code", "side", "region"),
    [
        ("totalsegmentator:total", "gluteus_maximus_left", "SCT 206007 Gluteus maximus muscle", "Left", ""),
        ("totalsegmentator:total", "subclavian_artery_left", "SCT 36765005 Subclavian artery", "Left", ""),
        ("totalsegmentator:total", "lung_middle_lobe_right", "SCT 72481006 Middle lobe of right lung", "Right", ""),
        ("totalsegmentator:total", "kidney_cyst_left", "SCT 367643001 Cyst", "Left", "SCT 64033007 Kidney"),
        ("totalsegmentator:total_v3", "vertebrae_L6", "SCT 1156198008 L6 vertebra", "", ""),
        ("totalsegmentator:liver_segments", "liver_segment_4", "SCT 277958008 Couinaud hepatic segment IV", "", ""),
        (
            "totalsegmentator:teeth",
            "upper_left_canine_pulp_fdi123",
            "SCT 26671000 Pulp of tooth",
            "Left",
            "SCT 860780009 Permanent maxillary left canine tooth",
        ),
        ("moose:clin_ct_organs", "bladder", "SCT 89837001 Bladder", "", ""),
        ("moose:clin_ct_ribs", "rib_right_13", "SCT 1193560003 Thirteenth rib", "Right", ""),
        ("lungmask:R231", "Left lung", "SCT 39607008 Lung", "Left", ""),
    ],
)
def test_classes_are_described_with_code_side_and_region(
    task: str, label: str, code: str, side: str, region: str
) -> None:
    found = next(item for item in describe_task(task) if item.label == label)
    assert (found.code, found.side, found.region, found.note) == (code, side, region, "")


def test_notes_of_descriptions() -> None:
    notes = {item.label: item.note for item in describe_task("totalsegmentator:abdominal_muscles")}
    assert notes["rectus_abdominis_left"] == "generic"
    assert notes["psoas_major_left"] == ""
    cysts = {item.label: item.note for item in describe_task("totalsegmentator:kidney_cysts")}
    assert cysts["kidney_left"] == "auxiliary"
    found = describe_classes([(2, "flux_capacitor"), (0, "background"), (1, "Heart")])
    assert [(item.number, item.segment, item.note) for item in found] == [(1, "heart", ""), (2, "", "no code")]

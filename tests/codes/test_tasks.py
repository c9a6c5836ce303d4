"""Label tables of published models: numbers, parts, and what makes a table unusable."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.codes.mappings import check_mappings, mappings_sha256
from ctenrich.codes.tasks import load_parts, load_tasks, task_classes, task_parts
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.resources import folder

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


def test_label_tables_are_no_part_of_the_identity_of_codes() -> None:
    assert mappings_sha256() == "bff15f79c207d176074a86d4f554566ed32bd65a00098386d7e2d4abb137aa41"
    assert not [i for i in check_mappings(folder("mappings")) if i.object.startswith(("tasks.csv", "parts.csv"))]

"""A SEG of the 117 classes of TotalSegmentator: fixed numbers, sides that tell left from right, absent ones stated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctenrich.codes.describe import describe_task
from ctenrich.codes.tasks import task_classes
from ctenrich.encode.seg import encode_seg
from ctenrich.masks import masks_from_label_map
from ctenrich.records import SegmentMasks
from ctenrich.settings import EncodeSettings, Settings
from ctenrich.workspace import Workspace
from tests.support.encode_cases import MODEL, NNUNET, make_series

TASK = "totalsegmentator:total"
ABSENT = (5, 117)


def codes_in(item: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(code.CodeValue) for code in item.get(keyword, ()))


@pytest.mark.parametrize("seg_type", ["BINARY", "LABELMAP"])
def test_every_class_has_its_number_code_and_side(tmp_path: Path, seg_type: str) -> None:
    workspace = Workspace(tmp_path / "run")
    series, volume = make_series(tmp_path / "ct")
    uid = series.series_instance_uid
    labels = np.zeros(series.shape, np.uint8)
    numbers = [item.label for item in task_classes(TASK) if item.label not in ABSENT]
    for place, number in enumerate(numbers):
        labels[place % 13 : place % 13 + 2, 3 * (place // 13), 1 + place % 40] = number
    names = [(item.label, item.segment, item.class_name) for item in task_classes(TASK)]
    template = SegmentMasks(NNUNET, uid, series.shape, (), None, "", MODEL)
    path = workspace.product_dir(uid, NNUNET) / "masks" / "labels.npy"
    masks = masks_from_label_map(labels, names, template, path, workspace)
    settings = replace(Settings(), encode=EncodeSettings(seg_type=seg_type))
    seg = encode_seg(masks, volume, series, settings=settings, workspace=workspace)
    dataset = pydicom.dcmread(workspace.resolve(uid, seg.path))

    items = [item for item in dataset.SegmentSequence if item.SegmentNumber > 0]
    assert [item.SegmentNumber for item in items] == list(range(1, 118))
    sides = {"7771000": "Left", "24028007": "Right"}
    seen = set()
    for item, described in zip(items, describe_task(TASK), strict=True):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        assert f"SCT {kind.CodeValue} {kind.CodeMeaning}" == described.code
        region = item.get("AnatomicRegionSequence") or [pydicom.Dataset()]
        modifiers = codes_in(kind, "SegmentedPropertyTypeModifierCodeSequence")
        of_region = codes_in(region[0], "AnatomicRegionModifierSequence")
        if described.label.endswith(("_left", "_right")) and described.side not in f"{kind.CodeMeaning}".title():
            assert [sides[code] for code in (*modifiers, *of_region)] == [described.side], described.label
        seen.add((kind.CodeValue, modifiers, str(region[0].get("CodeValue", "")), of_region))
    assert len(seen) == 117, "no two structures have the same codes"
    assert len({item.TrackingUID for item in items}) == 117
    if seg_type == "BINARY":
        frames = dataset.PerFrameFunctionalGroupsSequence
        found = {frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber for frame in frames}
        assert found == set(numbers), "an absent class keeps its number and has no frame"

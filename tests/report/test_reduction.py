"""Reduced volumes lie in the patient as their source does, whatever the orientation of the slices."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from ctenrich.masks import masks_from_label_map, masks_from_segments
from ctenrich.records import Product, SegmentMasks, Volume
from ctenrich.report.reduction import Reduction, reduce_masks, reduce_volume, reduction_of, scale_of
from ctenrich.workspace import Workspace
from tests.support.bodypart_cases import affine, make_volume

OBLIQUE = np.deg2rad(25)
ORIENTATIONS = {
    "axial, feet first index": ((1, 0, 0), (0, 1, 0)),
    "axial, index from head to feet": ((-1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "axial, turned in the plane by 90 degrees": ((0, 1, 0), (-1, 0, 0)),
    "oblique": ((np.cos(OBLIQUE), np.sin(OBLIQUE), 0), (-np.sin(OBLIQUE), np.cos(OBLIQUE), 0)),
    "oblique towards the head": ((1, 0, 0), (0, np.cos(OBLIQUE), np.sin(OBLIQUE))),
}
SPACING = (3.0, 1.5, 2.0)
SHAPE = (20, 30, 40)
BALLS = {1: (12.0, -9.0, 15.0), 2: (-14.0, 6.0, -12.0)}
"""Label -> LPS of its centre relative to the middle of the volume: left front above, right back below."""


def centred(row: Any, column: Any) -> np.ndarray:
    """Affine whose middle voxel is at the origin of LPS."""
    out = np.array(affine(row=row, column=column, spacing=SPACING))
    middle = out @ [*(np.array(SHAPE[::-1]) - 1) / 2, 1]
    out[:3, 3] -= middle[:3]
    return out


def balls(matrix: np.ndarray) -> np.ndarray:
    """Label map with a ball of 6 mm around each centre, placed by the affine alone."""
    k, j, i = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1], 0 : SHAPE[2]]
    places = np.einsum("ab,b...->a...", matrix, np.stack([i, j, k, np.ones_like(i)]))[:3]
    labels = np.zeros(SHAPE, np.uint8)
    for label, centre in BALLS.items():
        labels[np.linalg.norm(places - np.reshape(centre, (3, 1, 1, 1)), axis=0) < 6] = label
    return labels


def make(workspace: Workspace, name: str) -> tuple[Volume, SegmentMasks, np.ndarray]:
    matrix = centred(*ORIENTATIONS[name])
    labels = balls(matrix)
    hu = np.where(labels > 0, 1000, -1000).astype(np.int16)
    volume = make_volume(workspace, hu, tuple(map(tuple, matrix.tolist())))
    uid = volume.series_instance_uid
    template = SegmentMasks(Product("nnunet", "m"), uid, SHAPE, (), None, "")
    path = workspace.series_dir(uid) / "labels.npy"
    return volume, masks_from_label_map(labels, [(1, "a", "a"), (2, "b", "b")], template, path, workspace), matrix


def patient_place(reduction: Reduction, sample: Any, matrix: np.ndarray) -> np.ndarray:
    """LPS of a sample, through the index of the source array."""
    index = [0.0, 0.0, 0.0]
    for axis, at in zip(reduction.axes, sample, strict=True):
        index[axis.array_axis] = axis.first + axis.step * at
    return (matrix @ [*index[::-1], 1])[:3]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_samples_lie_where_the_geometry_says(workspace: Workspace, name: str) -> None:
    """Both balls are where the affine puts them: the first axis runs to the feet, then to the back and the left."""
    volume, masks, matrix = make(workspace, name)
    reduction = reduction_of(volume, most=12_000)
    assert np.prod(reduction.shape) <= 12_000
    levels = reduce_volume(volume, reduction, scale_of(volume, workspace), workspace)
    labels = reduce_masks(masks, reduction, workspace)
    assert levels.shape == reduction.shape == labels.layers[0].shape
    bright = levels > 128
    assert (bright & (labels.layers[0] > 0)).sum() > 0.7 * (bright | (labels.layers[0] > 0)).sum()
    centre = {n: np.argwhere(labels.layers[0] == n).mean(axis=0) for n in BALLS}
    for label, place in BALLS.items():
        assert patient_place(reduction, centre[label], matrix) == pytest.approx(place, abs=2.5)
    first, second = centre[1], centre[2]
    assert first[0] < second[0], "the upper ball is nearer to the head, which is at the top"
    assert first[1] < second[1], "the front ball is nearer to the front"
    assert first[2] > second[2], "the left ball is on the right of the picture"


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_letters_and_positions_follow_the_geometry(workspace: Workspace, name: str) -> None:
    volume, _, matrix = make(workspace, name)
    reduction = reduction_of(volume)
    for number, axis in enumerate(reduction.axes):
        corner = [0, 0, 0]
        start = patient_place(reduction, corner, matrix)
        corner[number] = axis.count - 1
        towards = patient_place(reduction, corner, matrix) - start
        strongest = int(np.argmax(np.abs(towards)))
        assert strongest == 2 - number
        letters = (("R", "L"), ("A", "P"), ("F", "H"))[strongest]
        assert axis.ends[1][0] == letters[int(towards[strongest] > 0)]
        assert axis.ends[0][0] == letters[int(towards[strongest] < 0)]
        unit = towards / np.linalg.norm(towards) * np.sign(towards[strongest])
        assert axis.position == pytest.approx(start @ unit, abs=1e-6)
        assert axis.position_step * (axis.count - 1) == pytest.approx(towards @ unit, abs=1e-6)
        assert axis.spacing == pytest.approx(np.linalg.norm(towards) / (axis.count - 1))


def test_an_oblique_end_has_two_letters(workspace: Workspace) -> None:
    volume, _, _ = make(workspace, "oblique")
    assert [axis.ends for axis in reduction_of(volume).axes] == [("H", "F"), ("AL", "PR"), ("RA", "LP")]


def test_sizes_of_a_chest_of_300_slices() -> None:
    shape = (300, 512, 512)
    matrix = tuple(map(tuple, affine(row=(1, 0, 0), column=(0, 1, 0), spacing=(1.0, 0.7, 0.7))))
    volume = Volume("1.2", "ct.npy", shape, matrix, (1.0, 0.7, 0.7), "", "")
    reduction = reduction_of(volume)
    assert reduction.shape == (300, 256, 256)
    assert reduction.axes[1].indices[[0, -1]].tolist() == [1, 511]
    long = reduction_of(Volume("1.2", "ct.npy", (900, 512, 512), matrix, (1.0, 0.7, 0.7), "", ""))
    assert long.shape == (300, 256, 256)
    assert (long.axes[0].first, long.axes[0].step) == (898, -3)


def test_masks_that_overlap_need_more_layers(workspace: Workspace) -> None:
    volume, _, matrix = make(workspace, "axial, feet first index")
    inner = balls(matrix) == 1
    outer = inner.copy()
    outer[:, :, 1:] |= inner[:, :, :-1]
    apart = balls(matrix) == 2
    uid = volume.series_instance_uid
    template = SegmentMasks(Product("expert"), uid, SHAPE, (), None, "")
    parts = [(1, "inner", "", inner), (2, "outer", "", outer), (3, "apart", "", apart), (4, "none", "", inner & apart)]
    masks = masks_from_segments(parts, template, workspace.series_dir(uid) / "masks", workspace)
    reduction = reduction_of(volume)
    found = reduce_masks(masks, reduction, workspace)
    assert len(found.layers) == 2
    for number, (segment, mask) in enumerate(zip(masks.segments, (inner, outer, apart), strict=False), 1):
        place = found.places[segment.number - 1]
        assert place is not None
        assert np.array_equal(found.layers[place[0]] == number, reduction.turn(mask))
        assert found.layers[place[0]][place[1][0]].any()
    assert found.places[3] is None
    assert found.most[0].max() == 2


def test_values_between_samples_are_means(workspace: Workspace) -> None:
    """A one-voxel line halves its contrast in a neighbourhood of (1 2 1) / 4, and keeps its place."""
    hu = np.zeros((4, 600, 8), np.int16)
    hu[:, 301] = 200
    matrix = affine(row=(1, 0, 0), column=(0, 1, 0), spacing=(1, 1, 1))
    volume = make_volume(workspace, hu, matrix)
    reduction = reduction_of(volume, most=4 * 300 * 4)
    levels = reduce_volume(volume, reduction, scale_of(volume, workspace), workspace)
    axis = reduction.axes[1]
    column = levels[0, :, 0]
    assert axis.indices[int(column.argmax())] == 301
    scale = scale_of(volume, workspace)
    assert column.max() == scale.table[100]
    assert column.min() == scale.table[0]


def test_every_level_of_soft_tissue_is_a_few_hu() -> None:
    from ctenrich.report.reduction import ValueScale

    table = ValueScale(knots=((-1024, 0), (3000, 255)), unit="HU").table
    values = [int(table[np.int16(v).view(np.uint16)]) for v in (-2000, -1024, 0, 3000, 5000)]
    assert values == [0, 0, round(1024 / 4024 * 255), 255, 255]


def test_letters_of_all_right_angles(workspace: Workspace) -> None:
    """Whatever the directions of rows and columns, the picture has H at the top, A in front and R on its left."""
    units = [tuple(v) for v in (*np.eye(3), *-np.eye(3))]
    for row, column in product(units, units):
        if np.dot(row, column):
            continue
        matrix = affine(row=row, column=column, spacing=(3, 2, 1))
        volume = Volume("1.2", "", (4, 5, 6), tuple(map(tuple, matrix)), (3.0, 2.0, 1.0), "", "")
        assert [axis.ends for axis in reduction_of(volume).axes] == [("H", "F"), ("A", "P"), ("R", "L")]

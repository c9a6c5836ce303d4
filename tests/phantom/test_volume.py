"""The phantom's arrays, truth and landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from ctenrich.phantom import ORIENTATIONS, SEGMENTS, Phantom, PhantomOptions, Quirk, make_phantom

SMALL = PhantomOptions(rows=100, columns=100, pixel_spacing=(4.0, 4.0), slices=66, slice_spacing=5.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(PhantomOptions(noise=0.0))


def centroid(phantom: Phantom, segment: str) -> np.ndarray:
    k, j, i = np.nonzero(phantom.masks[segment])
    return (phantom.affine_lps @ [i.mean(), j.mean(), k.mean(), 1.0])[:3]


def test_every_segment_is_there_and_none_overlap(phantom: Phantom) -> None:
    masks = phantom.masks
    assert tuple(masks) == SEGMENTS
    assert all(mask.any() for mask in masks.values())
    assert sum(mask.astype(int) for mask in masks.values()).max() == 1


def test_sizes_are_those_of_an_adult(phantom: Phantom) -> None:
    voxel = 2.5 * 2.5 * 3.0 / 1000
    millilitres = {name: mask.sum() * voxel for name, mask in phantom.masks.items()}
    assert 1800 < millilitres["lung_left"] < 4000
    assert millilitres["lung_right"] > millilitres["lung_left"]
    assert 350 < millilitres["heart"] < 900
    assert 80 < millilitres["aorta"] < 300
    assert 20 < millilitres["trachea"] < 80
    assert 20 < millilitres["esophagus"] < 120


def test_tissue_has_its_density(phantom: Phantom) -> None:
    median = {name: np.median(phantom.array[mask]) for name, mask in phantom.masks.items()}
    assert -900 < median["lung_left"] < -790
    assert 40 < median["heart"] < 130
    assert 110 < median["aorta"] < 200
    assert median["trachea"] < -900
    assert phantom.array.max() > 350
    assert phantom.array[:, :10].mean() < -980


def test_organs_lie_where_anatomy_has_them(phantom: Phantom) -> None:
    place = {name: centroid(phantom, name) for name in SEGMENTS}
    assert place["lung_left"][0] > 40
    assert place["lung_right"][0] < -40
    assert place["heart"][0] > 0
    assert place["heart"][1] < place["esophagus"][1] < place["spinal_cord"][1]
    assert place["trachea"][2] > place["heart"][2]
    aorta = phantom.masks["aorta"]
    parts = aorta.any(axis=0).nonzero()[0]
    assert np.ptp(parts) * 2.5 > 60, "the arch spans front to back"


def test_trachea_divides_at_the_carina(phantom: Phantom) -> None:
    z = phantom.positions[:, 2]
    mask = phantom.masks["trachea"]
    above, below = int(np.argmin(abs(z - 30))), int(np.argmin(abs(z + 22)))
    columns = mask[above].any(axis=0).nonzero()[0]
    assert np.ptp(columns) == len(columns) - 1, "one tube above"
    columns = mask[below].any(axis=0).nonzero()[0]
    assert np.ptp(columns) > len(columns), "two tubes below"


def test_noise_is_what_was_asked_for() -> None:
    quiet, loud = make_phantom(SMALL.changed(noise=0.0)), make_phantom(SMALL.changed(noise=15.0))
    heart = quiet.masks["heart"]
    difference = loud.array[heart].astype(float) - quiet.array[heart]
    assert difference.std() == pytest.approx(15.0, rel=0.05)
    assert abs(difference.mean()) < 1.0


def test_equal_options_give_equal_arrays_and_seeds_give_other_patients() -> None:
    first, again, other = make_phantom(SMALL), make_phantom(SMALL), make_phantom(SMALL.changed(seed=1))
    assert np.array_equal(first.array, again.array)
    assert not np.array_equal(first.labels, other.labels)
    volumes = {int(make_phantom(SMALL.changed(seed=s)).masks["heart"].sum()) for s in range(6)}
    assert len(volumes) >= 5
    assert max(volumes) > 1.1 * min(volumes)


def test_lung_landmarks_are_the_ends_of_the_lungs(phantom: Phantom) -> None:
    z = phantom.positions[:, 2]
    lungs = (phantom.masks["lung_left"] | phantom.masks["lung_right"]).any(axis=(1, 2))
    assert abs(z[lungs].min() - phantom.landmarks["lung_start"]) <= 3.0
    assert abs(z[lungs].max() - phantom.landmarks["lung_end"]) <= 6.0


def test_vertebra_landmarks_are_centres_of_separate_bones(phantom: Phantom) -> None:
    z = phantom.positions[:, 2]
    middle = int(np.rint((0.0 - phantom.grid.origin[0]) / 2.5))
    cord = phantom.masks["spinal_cord"]
    column = np.full(len(z), np.nan)
    for k in np.nonzero(cord.any(axis=(1, 2)))[0]:
        front = int(cord[k].any(axis=1).nonzero()[0].min())
        column[k] = phantom.array[k, front - 8 : front - 5, middle - 1 : middle + 2].mean()
    for name in ("Th9", "Th8", "Th7", "Th6", "Th5"):
        k = int(np.argmin(abs(z - phantom.landmarks[name])))
        assert column[k] > 180, name
    between = (phantom.landmarks["Th8"] + phantom.landmarks["Th7"]) / 2
    assert column[int(np.argmin(abs(z - between)))] < 150


def test_score_is_that_of_the_look_up_table_at_each_landmark(phantom: Phantom) -> None:
    assert phantom.score(phantom.landmarks["lung_start"]) == pytest.approx(44.143)
    assert phantom.score(phantom.landmarks["Th4"]) == pytest.approx(68.499)
    scores = phantom.score(phantom.positions[:, 2])
    assert (np.diff(scores) > 0).all()
    slope = (scores[-1] - scores[0]) / (phantom.positions[-1, 2] - phantom.positions[0, 2])
    assert slope == pytest.approx(0.118, rel=0.08)


def test_landmarks_outside_the_field_of_view_are_not_given() -> None:
    short = make_phantom(SMALL.changed(slices=10, centre=(0.0, 5.0, 0.0)))
    assert "lung_start" not in short.landmarks
    assert {"Th5", "Th4"} <= set(short.landmarks)


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_every_orientation_holds_the_same_patient(name: str) -> None:
    voxel = (5.0, 5.0, 5.0)
    usual = make_phantom(SMALL.oriented("axial_LP", voxel=voxel).changed(noise=0.0))
    other = make_phantom(SMALL.oriented(name, voxel=voxel).changed(noise=0.0))
    for segment in SEGMENTS:
        assert np.allclose(centroid(usual, segment), centroid(other, segment), atol=0.5), segment
    k, j, i = np.nonzero(usual.labels)
    places = (usual.affine_lps @ np.stack([i, j, k, np.ones_like(i)]))[:3]
    back = np.linalg.inv(other.affine_lps) @ np.vstack([places, np.ones(len(i))])
    io, jo, ko = np.rint(back[:3]).astype(int)
    assert (other.labels[ko, jo, io] == usual.labels[k, j, i]).mean() > 0.999


def test_slices_run_along_the_normal() -> None:
    for name, (row, column) in ORIENTATIONS.items():
        phantom = make_phantom(SMALL.changed(rows=8, columns=8, slices=4, row_cosines=row, column_cosines=column))
        step = phantom.positions[1] - phantom.positions[0]
        assert np.allclose(step, np.cross(row, column) * 5.0), name


def test_oblique_grid_holds_the_same_patient() -> None:
    angle = np.deg2rad(20)
    row = (float(np.cos(angle)), float(np.sin(angle)), 0.0)
    column = (-float(np.sin(angle)), float(np.cos(angle)), 0.0)
    fine = SMALL.changed(rows=180, columns=180, pixel_spacing=(2.2, 2.2), noise=0.0)
    turned = make_phantom(fine.changed(row_cosines=row, column_cosines=column))
    usual = make_phantom(fine)
    for segment in ("heart", "aorta", "esophagus"):
        assert np.allclose(centroid(turned, segment), centroid(usual, segment), atol=1.0)


def test_gantry_tilt_shears_the_grid_and_keeps_the_patient() -> None:
    tilted = make_phantom(SMALL.changed(gantry_tilt=15.0, noise=0.0))
    normal = np.cross(tilted.affine_lps[:3, 0], tilted.affine_lps[:3, 1])
    step = tilted.affine_lps[:3, 2]
    cosine = normal @ step / np.linalg.norm(normal) / np.linalg.norm(step)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(15.0)
    usual = make_phantom(SMALL.changed(noise=0.0))
    assert np.allclose(centroid(tilted, "heart"), centroid(usual, "heart"), atol=1.0)


def test_moved_slices_are_sampled_where_they_lie() -> None:
    uneven = make_phantom(SMALL.with_quirks(Quirk.ALTERNATING_SPACING).changed(noise=0.0))
    gaps = np.diff(uneven.positions[:, 2])
    assert set(np.round(gaps, 6)) == {3.75, 6.25}
    lungs = (uneven.masks["lung_left"] | uneven.masks["lung_right"]).any(axis=(1, 2))
    assert abs(uneven.positions[lungs, 2].min() - uneven.landmarks["lung_start"]) <= 6.3

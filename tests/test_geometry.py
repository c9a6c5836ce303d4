from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctenrich.dicom.sop_classes import LEGACY_CONVERTED_CT_IMAGE
from ctenrich.geometry import (
    SliceHeader,
    SliceMarks,
    StackGeometry,
    affine_lps,
    apply_affine,
    check_stack_geometry,
    find_splits,
    lps_to_ras,
    match_array,
    ras_to_lps,
    slice_marks,
    slice_normal,
)
from ctenrich.reasons import Reason
from ctenrich.settings import GeometrySettings

SETTINGS = GeometrySettings()
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def stack(
    z: Sequence[float], orientation: Sequence[float] = AXIAL, lateral: Sequence[float] | None = None
) -> list[SliceHeader]:
    """Headers at the distances `z` along the normal, pushed along the rows by `lateral`."""
    row = np.array(orientation[:3])
    normal = np.array(slice_normal(orientation[:3], orientation[3:]))
    lateral = lateral or [0.0] * len(z)
    return [
        SliceHeader(
            sop_instance_uid=f"1.2.{n}",
            position=tuple((np.array([-250.0, -240.0, 0.0]) + normal * d + row * s).tolist()),
            orientation=tuple(orientation),
            pixel_spacing=(0.97, 0.97),
            rows=512,
            columns=512,
            frame_of_reference_uid="1.2.3",
        )
        for n, (d, s) in enumerate(zip(z, lateral, strict=True))
    ]


def judge(headers: Sequence[SliceHeader]) -> StackGeometry:
    return check_stack_geometry(headers, SETTINGS)


def test_every_offset_of_a_stack_that_crosses_zero_is_accepted() -> None:
    for offset in range(125):
        z = [-50 + 0.01 * offset + 1.25 * n for n in range(80)]
        assert judge(stack(z)).reasons == ()


def test_rounded_thin_slices_are_accepted_with_the_true_spacing() -> None:
    verdict = judge(stack([round(-100 + 0.625 * n, 2) for n in range(300)]))
    assert verdict.ok
    assert verdict.spacing == pytest.approx(0.625, abs=1e-4)


def test_jitter_of_two_decimals_is_accepted() -> None:
    rng = np.random.default_rng(1)
    verdict = judge(stack([2.5 * n + x for n, x in enumerate(rng.uniform(-0.02, 0.02, 60))]))
    assert verdict.ok
    assert verdict.spacing == pytest.approx(2.5, abs=1e-3)


def test_alternating_gaps_are_irregular() -> None:
    z = list(itertools.accumulate([0.0] + [3.0, 5.0] * 20))
    assert judge(stack(z)).reasons == (Reason.IRREGULAR_SPACING,)


@pytest.mark.parametrize("missing", [1, 7, 28])
def test_one_missing_slice_is_named(missing: int) -> None:
    z = [2.5 * n for n in range(30) if n != missing]
    assert judge(stack(z)).reasons == (Reason.MISSING_SLICE,)


def test_slow_growth_of_the_gaps_leaves_the_line() -> None:
    z = list(itertools.accumulate(1.0 + 0.0009 * (n - 40) for n in range(80)))
    assert judge(stack(z)).reasons == (Reason.IRREGULAR_SPACING,)


def test_written_forms_of_one_orientation_are_one_orientation() -> None:
    headers = stack([0.0, 2.0, 4.0])
    forms = ["1/0/0/0/1/0", "1.0/0.0/0.0/0.0/1.0/0.0", "1.000000/0/-0/0/1E0/0.00"]
    headers = [replace(h, orientation=tuple(map(float, f.split("/")))) for h, f in zip(headers, forms, strict=True)]
    assert judge(headers).ok


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)}, Reason.MULTI_ORIENTATION),
        ({"pixel_spacing": (0.98, 0.97)}, Reason.MULTI_PIXEL_SPACING),
        ({"rows": 256}, Reason.MULTI_MATRIX),
        ({"position": None}, Reason.MISSING_GEOMETRY),
        ({"position": (0.0, math.nan, 0.0)}, Reason.MISSING_GEOMETRY),
        ({"position": (0.0, math.inf, 0.0)}, Reason.MISSING_GEOMETRY),
        ({"position": (0.0, 1e300, 0.0)}, Reason.MISSING_GEOMETRY),
        ({"pixel_spacing": (0.97,)}, Reason.MISSING_GEOMETRY),
        ({"rows": 0}, Reason.MISSING_GEOMETRY),
        ({"modality": "MR"}, Reason.NOT_CT),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, Reason.NOT_CT),
        ({"sop_class_uid": LEGACY_CONVERTED_CT_IMAGE}, Reason.MULTIFRAME),
        ({"number_of_frames": 2}, Reason.MULTIFRAME),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Reason.LOCALIZER),
        ({"image_type": ("DERIVED", "SECONDARY", "CSA MPR")}, Reason.DERIVED_REFORMATTED),
        ({"image_type": ("DERIVED", "SECONDARY", "PROJECTION IMAGE")}, Reason.DERIVED_REFORMATTED),
        ({"frame_of_reference_uid": "1.2.4"}, Reason.MULTI_FRAME_OF_REFERENCE),
    ],
)
def test_one_odd_slice_rejects_the_series(change: dict[str, object], reason: Reason) -> None:
    headers = stack([2.5 * n for n in range(30)])
    headers[11] = replace(headers[11], **change)  # type: ignore[arg-type]
    assert judge(headers).reasons == (reason,)


@pytest.mark.parametrize(
    "image_type",
    [
        (),
        ("ORIGINAL", "SECONDARY", "AXIAL"),
        ("DERIVED", "PRIMARY", "AXIAL"),
        ("DERIVED", "SECONDARY", "COMPRESSED"),
        ("ORIGINAL", "PRIMARY", "MPR"),
    ],
)
def test_image_types_that_stay(image_type: tuple[str, ...]) -> None:
    assert judge([replace(h, image_type=image_type) for h in stack([0.0, 1.0, 2.0])]).ok


def test_zero_spacings_are_reasons() -> None:
    headers = stack([0.0, 1.0, 2.0])
    assert judge([replace(h, pixel_spacing=(0.0, 0.0)) for h in headers]).reasons == (Reason.ZERO_SPACING,)
    assert judge([replace(h, pixel_spacing=(-1.0, -1.0)) for h in headers]).reasons == (Reason.ZERO_SPACING,)
    assert judge(stack([5.0, 5.0, 5.0])).reasons == (Reason.ZERO_SPACING, Reason.DUPLICATE_POSITION)


def test_counts() -> None:
    assert judge([]).reasons == (Reason.TOO_FEW_SLICES,)
    assert judge(stack([1.0])).reasons == (Reason.ONE_SLICE,)
    three = GeometrySettings(minimum_slices=3)
    assert check_stack_geometry(stack([0.0, 1.0]), three).reasons == (Reason.TOO_FEW_SLICES,)
    assert judge(stack([0.0, 1.0])).ok


def test_gantry_tilt_is_lateral_drift() -> None:
    tilt = math.radians(15)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(tilt), -math.sin(tilt))
    headers = stack([0.0] * 20, orientation)
    headers = [replace(h, position=(-250.0, -240.0, 2.5 * n)) for n, h in enumerate(headers)]
    assert judge(headers).reasons == (Reason.LATERAL_DRIFT,)


def test_not_orthogonal() -> None:
    headers = [replace(h, orientation=(1.0, 0.0, 0.0, 0.1, 0.995, 0.0)) for h in stack([0.0, 1.0])]
    assert judge(headers).reasons == (Reason.NOT_ORTHOGONAL,)
    headers = [replace(h, orientation=(0.0,) * 6) for h in headers]
    assert judge(headers).reasons == (Reason.NOT_ORTHOGONAL,)


def test_two_phases_share_positions() -> None:
    z = [2.5 * n for n in range(20)]
    headers = stack(z) + [replace(h, sop_instance_uid=h.sop_instance_uid + ".9") for h in stack(z)]
    assert judge(headers).reasons[0] is Reason.DUPLICATE_POSITION


def test_reasons_come_in_the_order_of_the_enum() -> None:
    headers = stack([0.0, 2.0, 5.0, 5.0])
    headers[0] = replace(headers[0], modality="PT", frame_of_reference_uid="9")
    headers[1] = replace(headers[1], image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    reasons = judge(headers).reasons
    assert list(reasons) == sorted(reasons, key=list(Reason).index)
    assert reasons[0] is Reason.NOT_CT
    assert reasons[-1] is Reason.MULTI_FRAME_OF_REFERENCE


orientations = st.tuples(
    st.floats(-math.pi, math.pi), st.floats(-math.pi / 2, math.pi / 2), st.floats(-math.pi, math.pi)
).map(lambda a: _rotation(*a))


def _rotation(a: float, b: float, c: float) -> np.ndarray:
    def turn(x: float, i: int, j: int) -> np.ndarray:
        m = np.eye(3)
        m[i, i] = m[j, j] = math.cos(x)
        m[i, j], m[j, i] = -math.sin(x), math.sin(x)
        return m

    return turn(a, 0, 1) @ turn(b, 0, 2) @ turn(c, 1, 2)


@given(orientations, st.integers(2, 60), st.floats(0.3, 8), st.randoms(use_true_random=False))
def test_any_orientation_and_order_gives_the_same_verdict(turned: np.ndarray, n: int, spacing: float, rng) -> None:
    headers = stack([spacing * k for k in range(n)], tuple(turned[:, :2].T.ravel().tolist()))
    verdict = judge(headers)
    assert verdict.ok
    assert verdict.order == tuple(range(n))
    assert verdict.spacing == pytest.approx(spacing, rel=1e-9)
    shuffled = list(headers)
    rng.shuffle(shuffled)
    again = judge(shuffled)
    assert [shuffled[x].sop_instance_uid for x in again.order] == [h.sop_instance_uid for h in headers]
    assert replace(again, order=()) == replace(verdict, order=())


@given(orientations, st.floats(-500, 500), st.floats(0.1, 3), st.floats(0.1, 3), st.floats(0.1, 8))
def test_affine_puts_pixel_centres_where_dicom_says(
    turned: np.ndarray, origin: float, dr: float, dc: float, dk: float
) -> None:
    row, col = turned[:, 0], turned[:, 1]
    affine = affine_lps((origin, 1.0, -origin), row, col, (dr, dc), dk)
    point = apply_affine(affine, [[7.0, 5.0, 3.0]])[0]
    expected = np.array([origin, 1.0, -origin]) + 7 * dc * row + 5 * dr * col + 3 * dk * np.cross(row, col)
    np.testing.assert_allclose(point, expected, atol=1e-9)
    ras = apply_affine(lps_to_ras(affine), [[7.0, 5.0, 3.0]])[0]
    np.testing.assert_allclose(ras, point * [-1, -1, 1], atol=1e-12)
    assert ras_to_lps(lps_to_ras(affine)) == affine


@given(orientations, st.permutations([0, 1, 2]), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_match_array_undoes_any_flip_and_exchange(turned: np.ndarray, axes: list[int], flips: tuple[bool, ...]) -> None:
    target = affine_lps((3.0, 4.0, 5.0), turned[:, 0], turned[:, 1], (0.8, 0.7), 2.0)
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    other = array.transpose(axes)
    m = np.asarray(target)[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            m[:3, 3] += m[:3, axis] * (other.shape[axis] - 1)
            m[:3, axis] *= -1
            other = np.flip(other, axis)
    back, affine = match_array(other, m, target)
    np.testing.assert_array_equal(back, array)
    np.testing.assert_allclose(affine, target, atol=1e-9)


def test_slice_normal_refuses_parallel_directions() -> None:
    assert slice_normal((1, 0, 0), (0, 1, 0)) == (0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="parallel"):
        slice_normal((1, 0, 0), (2, 0, 0))


@pytest.mark.parametrize(
    ("sop_class_uid", "reason"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", None),  # CT Image Storage, PS3.4 B.5
        ("1.2.840.10008.5.1.4.1.1.2.1", Reason.MULTIFRAME),  # Enhanced CT
        ("1.2.840.10008.5.1.4.1.1.2.2", Reason.MULTIFRAME),  # Legacy Converted Enhanced CT
        ("1.2.840.10008.5.1.4.1.1.4", Reason.NOT_CT),  # MR
        ("1.2.840.10008.5.1.4.1.1.128", Reason.NOT_CT),  # PET
        ("1.2.840.10008.5.1.4.1.1.7", Reason.NOT_CT),  # Secondary Capture
        ("", Reason.NOT_CT),
    ],
)
def test_sop_classes(sop_class_uid: str, reason: Reason | None) -> None:
    headers = [replace(h, sop_class_uid=sop_class_uid) for h in stack([0.0, 1.0, 2.0])]
    assert judge(headers).reasons == ((reason,) if reason else ())


def test_positions_a_thousandth_of_a_millimetre_apart_are_one_position() -> None:
    assert Reason.DUPLICATE_POSITION in judge(stack([0.0, 1.0, 1.000999, 2.0])).reasons
    assert Reason.DUPLICATE_POSITION not in judge(stack([0.0, 1.0, 1.002, 2.0])).reasons


def test_tolerances_are_bounded_by_a_quarter_of_the_spacing() -> None:
    for spacing in (0.01, 0.04, 0.1):
        whole = [spacing * n for n in range(20)]
        assert judge(stack(whole)).reasons == ()
        holes = [z for n, z in enumerate(whole) if n not in (8, 12)]
        assert judge(stack(holes)).reasons == (Reason.MISSING_SLICE,)
        uneven = [z + spacing * 0.4 * (n % 2) for n, z in enumerate(whole)]
        assert Reason.IRREGULAR_SPACING in judge(stack(uneven)).reasons
    tilted = [replace(h, pixel_spacing=(0.04, 0.04)) for h in stack([0.0, 0.04, 0.08], lateral=[0.0, 0.02, 0.04])]
    assert judge(tilted).reasons == (Reason.LATERAL_DRIFT,)


def marked(*values: str, name: str = "ConvolutionKernel") -> list[SliceMarks]:
    return [slice_marks({name: value}, (), {}) for value in values]


def timed(*seconds: float | None) -> list[SliceMarks]:
    return [slice_marks({}, (), {} if s is None else {"ContentTime": round(s * 1e6)}) for s in seconds]


def mixed(slices: Sequence[SliceMarks]) -> list[bool]:
    return [split.interleaved for split in find_splits(slices)]


def test_groups_interleave_where_a_value_comes_back() -> None:
    assert mixed(marked(*"ABABAB")) == [True]
    assert mixed(marked(*"AAABAA")) == [True], "one stray slice"
    assert mixed(marked(*"AAABBB")) == [False], "one acquisition after the other"
    assert mixed(marked("A", "", "A", "")) == [True], "a missing value is a value"
    assert mixed(marked(*"ABCDEF")) == [], "a value for each slice makes no groups"
    assert mixed(marked(*"AAAAAA")) == []
    assert mixed(marked("120", "120.0", "120.0000001", name="KVP")) == [], "numbers, not texts"
    assert mixed(marked("b30F ", "B30f", "B30F")) == []


def test_times_count_only_where_they_part_acquisitions() -> None:
    assert mixed(timed(*(k // 5 for k in range(50)))) == [], "blocks one after the other"
    assert mixed(timed(*range(50))) == []
    assert mixed(timed(*range(50, 0, -1))) == []
    assert mixed(timed(*((k * 37) % 50 for k in range(50)))) == [], "a time for each slice, in any order"
    jitter = [0, 0, 1, 0, 1, 2, 1, 2, 2, 3, 2, 3, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 10]
    assert mixed(timed(*jitter)) == [], "slices that were ready in another order, in whole seconds"
    assert mixed(timed(*(300 * (k % 2) for k in range(20)))) == [True]
    assert mixed(timed(*(0.35 * (k % 2) for k in range(20)))) == [True], "gated phases"
    assert mixed(timed(*(300 * (k % 2) + k for k in range(20)))) == [True], "two acquisitions, a time for each slice"
    assert mixed(timed(*(k % 10 for k in range(40)))) == [True], "ten phases"
    assert mixed(timed(0, 0, 0, 300, 0, 0)) == [True], "one stray slice"
    assert mixed(timed(0, None, 0, None, 0, None)) == [True]
    assert mixed(timed(None, None, 0, 0, 1, 1)) == []

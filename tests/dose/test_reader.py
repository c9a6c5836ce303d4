"""Reading RT Dose objects: values, geometry, and what is refused with which reason."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from ctenrich.dose.grid import DoseSampler, Lattice
from ctenrich.dose.reader import Dose, join_planes, read_dose
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from tests.support.doses import write_dose

STORED = (np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6) * 100).astype(np.uint16)
X, Y, Z = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])


def at(dose: Dose, x: float, y: float, z: float) -> float:
    """Dose at a point of the patient, sampled on a transverse plane."""
    sampler = DoseSampler(dose.grid, X, Y)
    return float(sampler.plane(z, Lattice(np.array([x]), np.array([y])))[0, 0])


def refused(path: Path) -> Reason:
    with pytest.raises(InputError) as caught:
        read_dose(path)
    return caught.value.reason


def test_values_and_grid(tmp_path: Path) -> None:
    dose = read_dose(write_dose(tmp_path / "d.dcm", STORED, PixelSpacing=[2.0, 3.0]))
    assert (dose.units, dose.type, dose.summation) == ("GY", "PHYSICAL", "PLAN")
    assert dose.grid.maximum == pytest.approx(11.9)
    # rows are 2 mm apart and columns 3 mm: not the other way round
    assert at(dose, -20 + 3 * 2, -30 + 2 * 3, -100 + 3 * 1) == pytest.approx(STORED[1, 3, 2] * 0.001)
    assert at(dose, -20 + 3 * 2.25, -30 + 2 * 3, -97) == pytest.approx((STORED[1, 3, 2] + 25) * 0.001)


def test_outside_the_grid_there_is_no_dose(tmp_path: Path) -> None:
    dose = read_dose(write_dose(tmp_path / "d.dcm", STORED))
    assert np.isnan(at(dose, -20.1, -30, -100))
    assert np.isnan(at(dose, -20, -30, -100.1))
    assert at(dose, -20, -30, -100) == 0.0


@pytest.mark.parametrize(
    ("offsets", "heights"),
    [
        ([0, 3, 6, 9], [-100, -97, -94, -91]),
        ([0, -3, -6, -9], [-100, -103, -106, -109]),
        ([-100, -97, -94, -91], [-100, -97, -94, -91]),
        ([-100, -103, -106, -109], [-100, -103, -106, -109]),
        ([0, 2, 7, 8], [-100, -98, -93, -92]),
    ],
)
def test_frame_offsets_of_both_forms_in_both_directions(
    tmp_path: Path, offsets: list[float], heights: list[float]
) -> None:
    dose = read_dose(write_dose(tmp_path / "d.dcm", STORED, GridFrameOffsetVector=offsets))
    for frame, height in enumerate(heights):
        assert at(dose, -20, -30, height) == pytest.approx(STORED[frame, 0, 0] * 0.001)
    between = 0.5 * (heights[1] + heights[2])
    assert at(dose, -20, -30, between) == pytest.approx(0.5 * (STORED[1, 0, 0] + STORED[2, 0, 0]) * 0.001)


@pytest.mark.parametrize(
    ("orientation", "point"),
    [
        ([1, 0, 0, 0, 1, 0], (-20 + 2.5 * 2, -30 + 2.5 * 3, -100 + 3.0)),  # head first supine
        ([-1, 0, 0, 0, -1, 0], (-20 - 2.5 * 2, -30 - 2.5 * 3, -100 + 3.0)),  # prone
        ([-1, 0, 0, 0, 1, 0], (-20 - 2.5 * 2, -30 + 2.5 * 3, -100 - 3.0)),  # feet first supine
        ([0, 1, 0, -1, 0, 0], (-20 - 2.5 * 3, -30 + 2.5 * 2, -100 + 3.0)),  # decubitus
        ([1, 0, 0, 0, 0, -1], (-20 + 2.5 * 2, -30 + 3.0, -100 - 2.5 * 3)),  # coronal
    ],
)
def test_the_orientation_places_the_voxels(
    tmp_path: Path, orientation: list[float], point: tuple[float, float, float]
) -> None:
    """Voxel (frame 1, row 3, column 2); Patient Position is not used."""
    path = write_dose(tmp_path / "d.dcm", STORED, ImageOrientationPatient=orientation, PatientPosition="HFS")
    assert at(read_dose(path), *point) == pytest.approx(STORED[1, 3, 2] * 0.001)


def test_a_turned_dose_is_interpolated_point_by_point(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    row = [float(np.cos(angle)), float(np.sin(angle)), 0.0]
    column = [float(-np.sin(angle)), float(np.cos(angle)), 0.0]
    path = write_dose(tmp_path / "d.dcm", STORED, ImageOrientationPatient=row + column)
    place = np.array([-20, -30, -100]) + 2.5 * 2 * np.array(row) + 2.5 * 3.5 * np.array(column) + 1.5 * Z
    expected = STORED[:2, 3:5, 2].astype(float).mean() * 0.001
    assert at(read_dose(path), *place) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"GridFrameOffsetVector": [5, 8, 11, 14]}, Reason.DOSE_OFFSETS),
        ({"GridFrameOffsetVector": [0, 3, 6]}, Reason.DOSE_OFFSETS),
        ({"GridFrameOffsetVector": [0, 3, 3, 6]}, Reason.DOSE_OFFSETS),
        ({"GridFrameOffsetVector": [0, 3, 2, 6]}, Reason.DOSE_OFFSETS),
        ({"GridFrameOffsetVector": None}, Reason.DOSE_OFFSETS),
        # z coordinates are allowed for transverse frames alone
        ({"GridFrameOffsetVector": [-100, -97, -94, -91], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
         Reason.DOSE_OFFSETS),
        ({"DoseUnits": ""}, Reason.DOSE_UNITS),
        ({"DoseType": "WRONG"}, Reason.DOSE_TYPE),
        ({"DoseGridScaling": None}, Reason.DOSE_VALUES),
        ({"DoseGridScaling": 0}, Reason.DOSE_VALUES),
        ({"DoseGridScaling": -0.001}, Reason.DOSE_VALUES),
        ({"ImagePositionPatient": None}, Reason.MISSING_GEOMETRY),
        ({"ImageOrientationPatient": None}, Reason.MISSING_GEOMETRY),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, Reason.NOT_ORTHOGONAL),
        ({"PixelSpacing": None}, Reason.MISSING_GEOMETRY),
        ({"PixelSpacing": [0, 2]}, Reason.ZERO_SPACING),
        ({"NumberOfFrames": 5, "GridFrameOffsetVector": [0, 3, 6, 9, 12]}, Reason.TRUNCATED),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.5"}, Reason.NOT_RT_DOSE),
        ({"NumberOfFrames": 2**20, "Rows": 60000, "GridFrameOffsetVector": None}, Reason.DOSE_OFFSETS),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, attributes: dict[str, object], reason: Reason) -> None:
    assert refused(write_dose(tmp_path / "d.dcm", STORED, **attributes)) is reason


@pytest.mark.parametrize(
    ("written", "damaged", "reason"),
    [
        (b"0.001", b"nan", Reason.DOSE_VALUES),
        (b"0.001", b"inf", Reason.DOSE_VALUES),
        (b"0.001", b"0,001", Reason.DOSE_VALUES),
        (b"0.0\\3.0\\6.0\\9.0", b"0.0\\nan\\6.0\\9.0", Reason.DOSE_OFFSETS),
        (b"-20.0\\-30.0\\-100.0", b"nan\\-30.0\\-100.0", Reason.MISSING_GEOMETRY),
        (b"2.5\\2.5", b"nan\\2.5", Reason.MISSING_GEOMETRY),
    ],
)
def test_numbers_that_are_none(tmp_path: Path, written: bytes, damaged: bytes, reason: Reason) -> None:
    path = write_dose(tmp_path / "d.dcm", STORED, ImagePositionPatient=["-20.0", "-30.0", "-100.0"])
    content = path.read_bytes()
    assert content.count(written) == 1
    path.write_bytes(content.replace(written, damaged.ljust(len(written))))
    assert refused(path) is reason


def test_bits_beyond_those_stated_are_not_dropped(tmp_path: Path) -> None:
    """12 of 16 bits would make 4.0 Gy of 11.9 Gy; PS3.3 C.8.8.3 asks for all of them."""
    assert refused(write_dose(tmp_path / "d.dcm", STORED, BitsStored=12, HighBit=11)) is Reason.DOSE_VALUES
    assert read_dose(write_dose(tmp_path / "e.dcm", STORED, BitsStored=14, HighBit=13)).grid.maximum == 11.9


WIDE = STORED.astype(np.uint32) * 70000


@pytest.mark.parametrize(
    ("form", "stored"),
    [("little", STORED), ("little", WIDE), ("big", STORED), ("big", WIDE), ("RLE", STORED), ("deflated", WIDE)],
)
def test_one_dose_in_every_encoding(tmp_path: Path, form: str, stored: np.ndarray) -> None:
    """RLE of 32 bits, which pydicom does not write, is in one of its test files, below."""
    path = write_dose(tmp_path / "d.dcm", stored)
    data = pydicom.dcmread(path)
    if form == "RLE":
        data.compress(RLELossless)
    elif form == "big":
        data.PixelData = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    elif form == "deflated":
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if form != "little":
        encoded = pydicom.Dataset(data)
        encoded.file_meta = data.file_meta
        pydicom.dcmwrite(path, encoded, enforce_file_format=True)
    dose = read_dose(path)
    assert dose.grid.stored.dtype == stored.dtype
    assert np.array_equal(dose.grid.stored, stored)
    assert at(dose, -15, -22.5, -97) == pytest.approx(int(stored[1, 3, 2]) * 0.001)


def test_a_grid_larger_than_any_dose(tmp_path: Path) -> None:
    attributes = {"Rows": 60000, "Columns": 60000}
    assert refused(write_dose(tmp_path / "d.dcm", STORED, **attributes)) is Reason.DECOMPRESSION_BOMB


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_is_that_of_the_file_and_of_its_values(tmp_path: Path, compressed: bool) -> None:
    """Never that of float64 values: eight bytes for each of two."""
    stored = np.random.default_rng(1).integers(0, 60000, (32, 128, 128)).astype(np.uint16)
    path = write_dose(tmp_path / "d.dcm", stored)
    if compressed:
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        data.save_as(path)
    read_dose(path)  # what is loaded at the first time
    tracemalloc.start()
    try:
        assert read_dose(path).grid.stored.nbytes == stored.nbytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < stored.nbytes + 1.2 * path.stat().st_size + 1_000_000


def test_unsigned_values_stay_unsigned(tmp_path: Path) -> None:
    stored = STORED.copy()
    stored[0, 0, 0] = 65535
    assert read_dose(write_dose(tmp_path / "d.dcm", stored)).grid.maximum == pytest.approx(65.535)


def test_negative_values_are_for_doses_of_type_error_alone(tmp_path: Path) -> None:
    stored = -STORED.astype(np.int16)
    assert refused(write_dose(tmp_path / "d.dcm", stored)) is Reason.DOSE_VALUES
    assert read_dose(write_dose(tmp_path / "e.dcm", stored, DoseType="ERROR")).type == "ERROR"


def test_a_rescale_is_ignored(tmp_path: Path) -> None:
    dose = read_dose(write_dose(tmp_path / "d.dcm", STORED, RescaleSlope=2, RescaleIntercept=5))
    assert dose.grid.maximum == pytest.approx(11.9)
    assert [issue.rule for issue in dose.issues] == ["dose.rescale"]


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"])
def test_pydicoms_doses_in_32_bits_big_endian_and_rle(name: str) -> None:
    """pydicom's own decoding of its test files is the reference."""
    path = Path(str(get_testdata_file(name)))
    dose = read_dose(path)
    data = pydicom.dcmread(path)
    assert dose.grid.stored.dtype == np.uint32
    assert np.array_equal(dose.grid.stored, data.pixel_array.reshape(dose.grid.shape))
    assert dose.units == "RELATIVE"
    with pytest.raises(InputError) as caught:
        dose.check_physical()
    assert caught.value.reason is Reason.DOSE_UNITS


def test_one_frame_with_fifteen_offsets() -> None:
    assert refused(Path(str(get_testdata_file("rtdose_1frame.dcm")))) is Reason.DOSE_OFFSETS


def test_an_effective_dose_is_not_a_physical_one(tmp_path: Path) -> None:
    dose = read_dose(write_dose(tmp_path / "d.dcm", STORED, DoseType="EFFECTIVE"))
    with pytest.raises(InputError) as caught:
        dose.check_physical()
    assert caught.value.reason is Reason.DOSE_TYPE


def test_a_file_without_preamble_and_meta_information(tmp_path: Path) -> None:
    """Exports of some systems have no transfer syntax; the first bytes decide."""
    path = write_dose(tmp_path / "d.dcm", STORED)
    data = pydicom.dcmread(path)
    bare = tmp_path / "bare.dcm"
    pydicom.dcmwrite(bare, pydicom.Dataset(data), implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert read_dose(bare).grid.maximum == pytest.approx(11.9)


def planes(tmp_path: Path, **changed: object) -> list[Dose]:
    out = []
    for k in range(4):
        attributes: dict[str, object] = {
            "ImagePositionPatient": [-20, -30, -100 + 3 * k],
            "GridFrameOffsetVector": None,
            "NumberOfFrames": None,
            "SOPInstanceUID": f"2.25.4000.20.{k}",
        }
        if k == 2:
            attributes |= changed
        out.append(read_dose(write_dose(tmp_path / f"{k}.dcm", STORED[k : k + 1], **attributes)))
    return out


def test_one_file_per_plane_is_joined_in_any_order(tmp_path: Path) -> None:
    joined = join_planes(planes(tmp_path)[::-1])
    whole = read_dose(write_dose(tmp_path / "d.dcm", STORED))
    assert np.array_equal(joined.grid.values(), whole.grid.values())
    assert joined.grid.offsets == whole.grid.offsets


def test_planes_with_their_own_scaling(tmp_path: Path) -> None:
    joined = join_planes(planes(tmp_path, DoseGridScaling=0.002))
    assert joined.grid.values()[2] == pytest.approx(STORED[2] * 0.002)
    assert joined.grid.values()[1] == pytest.approx(STORED[1] * 0.001)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ImagePositionPatient": [-20, -30, -97]}, Reason.DOSE_OFFSETS),
        ({"ImagePositionPatient": [-15, -30, -94]}, Reason.DOSE_OFFSETS),
        ({"PixelSpacing": [2.5, 3]}, Reason.DOSE_OFFSETS),
        ({"SeriesInstanceUID": "2.25.1"}, Reason.MIXED_SERIES),
        ({"DoseSummationType": "BEAM"}, Reason.MIXED_SERIES),
    ],
)
def test_planes_that_are_no_dose(tmp_path: Path, changed: dict[str, object], reason: Reason) -> None:
    with pytest.raises(InputError) as caught:
        join_planes(planes(tmp_path, **changed))
    assert caught.value.reason is reason


@pytest.mark.parametrize("spacing", [2.02265, 1 / 3, 5.0])
def test_any_spacing_is_interpolated(tmp_path: Path, spacing: float) -> None:
    """dicompyler-core refuses spacings that its finer grid does not divide, 2.02265 mm among them."""
    x, y, z = (np.arange(n) for n in (6, 5, 4))
    stored = (100 * (z[:, None, None] + 2 * y[None, :, None] + 3 * x[None, None, :])).astype(np.uint16)
    dose = read_dose(write_dose(tmp_path / "d.dcm", stored, PixelSpacing=[f"{spacing:.6f}"] * 2))
    found = at(dose, -20 + 1.3 * spacing, -30 + 2.6 * spacing, -100 + 3 * 0.4)
    assert found == pytest.approx(0.1 * (0.4 + 2 * 2.6 + 3 * 1.3), rel=1e-4)

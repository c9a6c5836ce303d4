from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from tests.support.small_series import SERIES, Edit, Small, folder_entry, save, small_pixels, small_slice, write_small

from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.geometry import apply_affine, lps_to_ras
from ctenrich.reasons import Reason
from ctenrich.records import Quantity, Severity, SortedSeries, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.settings import ConvertSettings, GeometrySettings, Settings
from ctenrich.stages import dcm2niix as nifti
from ctenrich.stages.convert import compress_nifti, convert_series
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace, load_array

QUICK = Settings(convert=ConvertSettings(nifti=False))
ANY_VALUES = Settings(geometry=GeometrySettings(allow_not_hu=True))


def sort_folder(folder: Path, workspace: Workspace, settings: Settings = QUICK) -> SortedSeries:
    fetched = fetch_series(folder_entry(folder), settings=settings, workspace=workspace)
    return sort_series(fetched, settings=settings, workspace=workspace)


def convert_folder(folder: Path, workspace: Workspace, settings: Settings | None = None) -> tuple[Volume, np.ndarray]:
    series = sort_folder(folder, workspace, settings or QUICK)
    volume = convert_series(series, settings=settings or Settings(), workspace=workspace)
    return volume, load_array(workspace.resolve(SERIES, volume.array_path))


def truth(small: Small) -> np.ndarray:
    intercept = 0 if small.signed else -1024
    return np.stack([small_pixels(small, k).astype(np.int32) + intercept for k in range(small.count)])


def test_volume_is_the_slices_in_order_with_the_right_affine(tmp_path: Path, workspace: Workspace) -> None:
    small = Small()
    write_small(tmp_path / "in", small)
    volume, array = convert_folder(tmp_path / "in", workspace)
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, truth(small))
    assert volume.shape == (6, 14, 18)
    assert volume.spacing == (2.5, 0.9, 0.8)
    corners = apply_affine(volume.affine_lps, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    expected = [[-100, -120, -5.5], [-99.2, -120, -5.5], [-100, -119.1, -5.5], [-100, -120, -3]]
    np.testing.assert_allclose(corners, expected)
    store = SeriesStore(workspace)
    store.save(volume, SERIES)
    saved = store.volume(SERIES)
    assert saved == volume
    slices = json.loads((workspace.series_dir(SERIES) / "volume" / "slices.json").read_text())
    assert [s["sop_instance_uid"] for s in slices] == [f"1.2.3.4.{k + 1}" for k in range(6)]
    leftovers = [p.name for p in (workspace.series_dir(SERIES) / "volume").iterdir()]
    assert sorted(leftovers) == ["ct.nii", "ct.npy", "slices.json"]


def check_nifti(volume: Volume, array: np.ndarray, workspace: Workspace) -> nibabel.Nifti1Image:
    """Every voxel of the NIfTI lies, in the world, where the volume has the same value."""
    assert volume.nifti_path is not None
    image = nibabel.load(workspace.resolve(SERIES, volume.nifti_path))
    assert image.get_data_dtype() == np.int16
    data = np.asarray(image.dataobj)
    for i, j, k in [(0, 0, 0), (3, 5, 1), (17, 13, 2)]:
        world = apply_affine(lps_to_ras(volume.affine_lps), [[i, j, k]])
        x, y, z = np.rint(apply_affine(np.linalg.inv(image.affine), world)[0]).astype(int)
        assert data[x, y, z] == array[k, j, i]
    assert sorted(data.ravel()) == sorted(array.ravel())
    return image


@pytest.mark.parametrize(
    "orientation",
    [
        (1, 0, 0, 0, 1, 0),
        (-1, 0, 0, 0, -1, 0),
        (1, 0, 0, 0, -1, 0),
        (1, 0, 0, 0, 0, -1),
        (0, 1, 0, 0, 0, -1),
        (0.984808, 0.173648, 0, -0.173648, 0.984808, 0),
        (0.939693, 0, 0.34202, 0, 1, 0),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_both_readers_agree_in_any_orientation(
    tmp_path: Path, workspace: Workspace, orientation: tuple[float, ...], signed: bool
) -> None:
    small = Small(count=4, orientation=orientation, signed=signed)
    write_small(tmp_path / "in", small)
    volume, array = convert_folder(tmp_path / "in", workspace)
    np.testing.assert_array_equal(array, truth(small))
    check_nifti(volume, array, workspace)


def test_instance_numbers_that_run_downwards_change_nothing(tmp_path: Path, workspace: Workspace) -> None:
    def downwards(data: Dataset, k: int) -> None:
        data.InstanceNumber = 100 - k

    write_small(tmp_path / "in", Small(), downwards)
    volume, array = convert_folder(tmp_path / "in", workspace)
    np.testing.assert_array_equal(array, truth(Small()))
    check_nifti(volume, array, workspace)


def test_rounded_positions_get_the_affine_of_all_slices(tmp_path: Path, workspace: Workspace) -> None:
    def rounded(data: Dataset, k: int) -> None:
        data.ImagePositionPatient = [-100, -120, round(-5.0 + 0.625 * k, 2)]

    write_small(tmp_path / "in", Small(count=41), rounded)
    volume, array = convert_folder(tmp_path / "in", workspace)
    assert volume.spacing[0] == pytest.approx(0.625, abs=1e-9)
    image = check_nifti(volume, array, workspace)
    assert image.header.get_zooms()[2] == pytest.approx(0.625, abs=1e-6)
    assert any(i.rule == "convert.nifti_affine" for i in volume.issues)


SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_lossless_transfer_syntax_gives_the_same_volume(
    tmp_path: Path, workspace: Workspace, syntax: str
) -> None:
    small = Small(count=3, rows=32, columns=48, syntax=syntax)
    write_small(tmp_path / "in", small)
    _, array = convert_folder(tmp_path / "in", workspace)
    np.testing.assert_array_equal(array, truth(small))


def test_rescale_is_taken_per_slice(tmp_path: Path, workspace: Workspace) -> None:
    def late(data: Dataset, k: int) -> None:
        data.RescaleIntercept = -1024 if k < 3 else 0

    write_small(tmp_path / "in", Small(), late)
    volume, array = convert_folder(tmp_path / "in", workspace)
    expected = truth(Small())
    expected[3:] += 1024
    np.testing.assert_array_equal(array, expected)
    check_nifti(volume, array, workspace)


@pytest.mark.parametrize(("slope", "noted"), [(2, False), (0.5, True)])
def test_slope(tmp_path: Path, workspace: Workspace, slope: float, noted: bool) -> None:
    write_small(tmp_path / "in", Small(count=3, elements={"RescaleSlope": slope}))
    volume, array = convert_folder(tmp_path / "in", workspace, ANY_VALUES)
    stored = np.stack([small_pixels(Small(), k).astype(int) for k in range(3)])
    np.testing.assert_array_equal(array, np.rint(stored * slope - 1024))
    assert any("rounded" in i.message for i in volume.issues) is noted


def rescaled(values: np.ndarray, **elements: Any) -> Edit:
    """Replace the stored values and elements of a slice; an element that is None is removed."""

    def change(data: Dataset, _: int) -> None:
        data.PixelRepresentation = int(values.min() < 0)
        data.PixelData = values.astype("<i2" if values.min() < 0 else "<u2").tobytes()
        for name, value in elements.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)

    return change


TISSUE = np.linspace(24, 1100, 14 * 18).reshape(14, 18).astype(int)
LUNG = np.linspace(-900, 60, 14 * 18).reshape(14, 18).astype(int)
UNDECLARED = np.where(TISSUE < 100, -2000, TISSUE)
"""Tissue with a padding of -2000 that no element declares."""
NOTHING: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None}


@pytest.mark.parametrize(
    "change",
    [
        rescaled(TISSUE, **NOTHING),
        rescaled(TISSUE, RescaleIntercept=0, RescaleType=None),
        rescaled(TISSUE, RescaleIntercept=0, RescaleType="US"),
        rescaled(UNDECLARED, RescaleIntercept=0, RescaleType=None),
        rescaled(np.where(TISSUE < 100, -1100, TISSUE), PixelPaddingValue=-1100, **NOTHING),
    ],
)
def test_values_without_air_are_no_hounsfield_units(tmp_path: Path, workspace: Workspace, change: Edit) -> None:
    write_small(tmp_path / "in", Small(count=3), change)
    with pytest.raises(InputError, match="no voxel has the value of air") as caught:
        convert_folder(tmp_path / "in", workspace)
    assert caught.value.reason is Reason.NOT_HU
    volume, _ = convert_folder(tmp_path / "in", workspace, ANY_VALUES)
    assert volume.quantity is Quantity.UNKNOWN
    assert [i.severity for i in volume.issues if i.rule == "convert.not_hu"] == [Severity.WARNING]


@pytest.mark.parametrize(
    "change",
    [
        rescaled(LUNG, **NOTHING),
        rescaled(LUNG, RescaleIntercept=0, RescaleType=None),
        rescaled(LUNG, RescaleIntercept=0, RescaleType="US"),
        rescaled(LUNG + 1024, RescaleIntercept=-1024, RescaleType=None),
        rescaled(TISSUE, RescaleIntercept=0, RescaleType="HU"),
        rescaled(LUNG, RescaleIntercept=0, RescaleSlope="1.00000000001"),
    ],
)
def test_values_with_air_are_hounsfield_units(tmp_path: Path, workspace: Workspace, change: Edit) -> None:
    write_small(tmp_path / "in", Small(count=3), change)
    volume, _ = convert_folder(tmp_path / "in", workspace)
    assert volume.quantity is Quantity.HU


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"RescaleType": "MGML"}, Reason.NOT_HU),
        ({"RescaleType": "Z_EFF", "RescaleSlope": "0.01"}, Reason.NOT_HU),
        ({"RescaleType": "PCT"}, Reason.NOT_HU),
        ({"RescaleSlope": "0.25"}, Reason.NOT_HU),
        ({"RescaleIntercept": "-1000.5"}, Reason.NOT_HU),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"]}, Reason.NOT_HU),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "IODINE MAP"]}, Reason.NOT_HU),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]}, Reason.DERIVED_REFORMATTED),
        ({"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "MIN_IP"]}, Reason.DERIVED_REFORMATTED),
        ({"ImageType": ["DERIVED", "SECONDARY", "VRT"]}, Reason.DERIVED_REFORMATTED),
    ],
)
def test_maps_fractions_and_projections_are_refused_by_their_header(
    tmp_path: Path, workspace: Workspace, elements: dict[str, Any], reason: Reason
) -> None:
    write_small(tmp_path / "in", Small(count=3, elements=elements))
    with pytest.raises(InputError) as caught:
        sort_folder(tmp_path / "in", workspace)
    assert caught.value.reason is reason


def test_padding_becomes_air_in_both_products(tmp_path: Path, workspace: Workspace) -> None:
    def padded(data: Dataset, _: int) -> None:
        pixels = np.frombuffer(data.PixelData, np.int16).reshape(14, 18).copy()
        pixels[:2] = -2000
        data.PixelData = pixels.tobytes()
        data.PixelPaddingValue = -2000

    small = Small(signed=True)
    write_small(tmp_path / "in", small, padded)
    volume, array = convert_folder(tmp_path / "in", workspace)
    assert (array[:, :2] == -1024).all()
    np.testing.assert_array_equal(array[:, 2:], truth(small)[:, 2:])
    check_nifti(volume, array, workspace)
    assert any("216 padding voxels" in i.message for i in volume.issues)


def test_a_padding_value_in_the_range_of_tissue_is_left_alone(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in", Small(signed=True, elements={"PixelPaddingValue": 40}))
    volume, array = convert_folder(tmp_path / "in", workspace)
    np.testing.assert_array_equal(array, truth(Small(signed=True)))
    assert any("tissue" in i.message for i in volume.issues)


def test_twelve_bits_are_sign_extended(tmp_path: Path, workspace: Workspace) -> None:
    def twelve(data: Dataset, _: int) -> None:
        data.BitsStored, data.HighBit = 12, 11
        pixels = np.frombuffer(data.PixelData, np.int16)
        data.PixelData = (pixels & 0x0FFF).astype(np.int16).tobytes()

    small = Small(signed=True)
    write_small(tmp_path / "in", small, twelve)
    volume, array = convert_folder(tmp_path / "in", workspace, QUICK)
    np.testing.assert_array_equal(array, truth(small))
    assert any("bits above" in i.message for i in volume.issues)


def set_on(k: int, **elements: object) -> Edit:
    def edit(data: Dataset, index: int) -> None:
        if index == k:
            for keyword, value in elements.items():
                setattr(data, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"BitsStored": 12, "HighBit": 11}, Reason.MIXED_PIXEL_FORMAT),
        ({"PixelRepresentation": 1}, Reason.MIXED_PIXEL_FORMAT),
        ({"PhotometricInterpretation": "MONOCHROME1"}, Reason.MIXED_PIXEL_FORMAT),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, Reason.DECODE_ERROR),
        ({"BitsStored": 17}, Reason.DECODE_ERROR),
        ({"RescaleSlope": 0}, Reason.HU_RANGE),
        ({"RescaleSlope": 100}, Reason.HU_RANGE),
        ({"RescaleIntercept": 40000}, Reason.HU_RANGE),
        ({"PixelData": b"\0" * 100}, Reason.TRUNCATED),
        ({"PixelData": b"\1" * 10000}, Reason.DECODE_ERROR),
    ],
)
def test_one_odd_slice_stops_the_volume(
    tmp_path: Path, workspace: Workspace, elements: dict[str, object], reason: Reason
) -> None:
    write_small(tmp_path / "in", Small(), set_on(3, **elements))
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "in", workspace)
    assert caught.value.reason is reason
    assert not SeriesStore(workspace).volume_array(SERIES).exists()
    assert not list((workspace.series_dir(SERIES) / "volume").glob("*"))


def test_a_padding_value_that_changes_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    def padded(data: Dataset, k: int) -> None:
        data.PixelPaddingValue = -2000 if k < 3 else -2048

    write_small(tmp_path / "in", Small(signed=True), padded)
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "in", workspace)
    assert caught.value.reason is Reason.MIXED_PIXEL_FORMAT


def test_a_slope_that_is_no_number(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in", Small(elements={"RescaleSlope": "1.0000"}))
    paths[2].write_bytes(paths[2].read_bytes().replace(b"1.0000", b"1E400 "))
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "in", workspace)
    assert caught.value.reason is Reason.HU_RANGE


@pytest.mark.parametrize("value", [0, 1023])
def test_constant_images_are_defined_results(tmp_path: Path, workspace: Workspace, value: int) -> None:
    def constant(data: Dataset, _: int) -> None:
        data.PixelData = np.full((14, 18), value, np.uint16).tobytes()

    write_small(tmp_path / "in", Small(count=2), constant)
    _, array = convert_folder(tmp_path / "in", workspace)
    assert (array == value - 1024).all()


def test_a_file_that_changed_after_sorting_is_noticed(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    save(small_slice(Small(), 4), tmp_path / "in" / "1.dcm")
    with pytest.raises(InputError) as caught:
        convert_series(series, settings=QUICK, workspace=workspace)
    assert caught.value.reason is Reason.READERS_DISAGREE


def test_readers_that_disagree_are_a_reason(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    wrong = replace(series, slice_spacing=series.slice_spacing * 1.1)
    with pytest.raises(InputError) as caught:
        convert_series(wrong, settings=Settings(), workspace=workspace)
    assert caught.value.reason is Reason.READERS_DISAGREE
    assert "mm from its own position" in caught.value.message


def test_elements_that_make_dcm2niix_part_the_series(tmp_path: Path, workspace: Workspace) -> None:
    def dates(data: Dataset, k: int) -> None:
        data.StudyDate, data.StudyTime = "20200101", f"1{k}0000"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", f"X{k}"]
        data.ProtocolName = f"P{k}"

    write_small(tmp_path / "in", Small(), dates)
    volume, array = convert_folder(tmp_path / "in", workspace)
    np.testing.assert_array_equal(array, truth(Small()))
    check_nifti(volume, array, workspace)


def test_what_a_killed_run_left_is_swept(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    folder = workspace.series_dir(SERIES) / "volume"
    (folder / ".dcm2niix-x.tmp" / "out").mkdir(parents=True)
    (folder / ".ct.npy.77.abcd.tmp").write_bytes(b"half")
    convert_series(series, settings=QUICK, workspace=workspace)
    assert sorted(p.name for p in folder.iterdir()) == ["ct.npy", "slices.json"]


def test_compressed_nifti_holds_the_same(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    settings = Settings(convert=ConvertSettings(compress_nifti=True))
    volume, array = convert_folder(tmp_path / "in", workspace, settings)
    plain = workspace.series_dir(SERIES) / "volume" / "ct.nii"
    content = plain.read_bytes()
    packed = compress_nifti(volume, workspace=workspace)
    assert volume.nifti_path == "volume/ct.nii.gz"
    assert packed == workspace.resolve(SERIES, volume.nifti_path)
    assert gzip.decompress(packed.read_bytes()) == content
    check_nifti(volume, array, workspace)
    assert not plain.exists()
    with pytest.raises(InputError) as caught:
        compress_nifti(volume, workspace=workspace)
    assert caught.value.reason is Reason.NOT_PREPARED


def test_a_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_small(tmp_path / "in")
    found = []
    for name in ("a", "b"):
        workspace = Workspace(tmp_path / name)
        store, (volume, _) = SeriesStore(workspace), convert_folder(tmp_path / "in", workspace)
        record = store.save(volume, SERIES)
        found.append({p.name: p.read_bytes() for p in [*store.volume_dir(SERIES).iterdir(), record]})
    assert found[0] == found[1]


@pytest.mark.parametrize("side", [(65535, 65535), (0, 0), (16385, 1)])
def test_absurd_matrices_are_refused_before_memory_is_asked_for(
    tmp_path: Path, workspace: Workspace, side: tuple[int, int]
) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    data = small_slice(Small(), 2)
    data.Rows, data.Columns = side
    save(data, tmp_path / "in" / "2.dcm")
    with pytest.raises((UnsafeInputError, InputError)) as caught:
        convert_series(series, settings=QUICK, workspace=workspace)
    assert caught.value.reason in {Reason.DECOMPRESSION_BOMB, Reason.DECODE_ERROR}


def test_nothing_names_the_patient(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    convert_folder(tmp_path / "in", workspace)
    for path in workspace.root.rglob("*"):
        assert "canary" not in path.name.lower()
        if path.is_file():
            assert b"canary" not in path.read_bytes().lower()


def test_nan_in_positions_is_a_reason(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in", Small(spacing=2.5))
    content = paths[3].read_bytes()
    at = content.index(b"-100.0")
    paths[3].write_bytes(content[:at] + b"nan   " + content[at + 6 :])
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "in", workspace)
    assert caught.value.reason is Reason.MISSING_GEOMETRY


def test_a_volume_that_would_be_absurd_is_refused_before_a_slice_is_decoded(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Small(count=40, rows=2048, columns=2048, syntax=RLELossless)
    blank = np.zeros((2048, 2048), np.uint16).tobytes()

    def empty(data: Dataset, _: int) -> None:
        data.PixelData = blank

    paths = write_small(tmp_path / "in", small, empty)
    assert sum(p.stat().st_size for p in paths) < 12_000_000
    series = sort_folder(tmp_path / "in", workspace)
    decoded: list[Path] = []
    monkeypatch.setattr("ctenrich.stages.convert.read_slice", decoded.append)
    limit = Settings(convert=ConvertSettings(nifti=False, max_volume=40 * 2048 * 2048 * 2 - 1))
    with pytest.raises(UnsafeInputError) as caught:
        convert_series(series, settings=limit, workspace=workspace)
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB
    assert decoded == []
    assert not list((workspace.series_dir(SERIES) / "volume").glob("*"))


def test_a_volume_that_has_no_room_on_the_disk(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    full = shutil._ntuple_diskusage(10**9, 10**9 - 3000, 3000)
    monkeypatch.setattr("ctenrich.stages.convert.shutil.disk_usage", lambda _: full)
    with pytest.raises(InputError) as caught:
        convert_series(series, settings=QUICK, workspace=workspace)
    assert caught.value.reason is Reason.DISK_FULL


def test_decoding_ends_in_bounded_time(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    hurried = Settings(convert=ConvertSettings(nifti=False, decode_timeout=0.0))
    with pytest.raises(InputError) as caught:
        convert_series(series, settings=hurried, workspace=workspace)
    assert caught.value.reason is Reason.TIMEOUT
    assert not list((workspace.series_dir(SERIES) / "volume").glob("*"))


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _garbage(path: Path) -> None:
    path.write_bytes(b"\0" * 400)


def _flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-777] ^= 1
    path.write_bytes(content)


def _changed(change: Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        image = nibabel.load(path)
        other = change(nibabel.Nifti1Image(np.asarray(image.dataobj).copy(), image.affine.copy(), image.header))
        path.unlink()
        nibabel.save(other, path)

    return damage


def _moved(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    affine = image.affine.copy()
    affine[0, 3] += 1.0
    return nibabel.Nifti1Image(image.dataobj, affine)


@pytest.mark.parametrize(
    "damage",
    [
        _shorter,
        _garbage,
        _flipped_bit,
        _changed(_moved),
        _changed(lambda i: nibabel.Nifti1Image(i.dataobj[:, :, 1:], i.affine)),
        _changed(lambda i: nibabel.Nifti1Image(np.asarray(i.dataobj).transpose(1, 0, 2), i.affine)),
    ],
    ids=["half-written", "garbage", "one bit", "affine", "shape", "axes"],
)
def test_a_nifti_that_is_not_the_volume_is_never_taken(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    (workspace.series_dir(SERIES) / "volume").mkdir(parents=True)
    (workspace.series_dir(SERIES) / "volume" / "ct.nii.gz").write_bytes(b"left by another version")
    real = nifti._run_dcm2niix

    def damaged(folder: Path, paths: Sequence[Path], copy: Callable[[int, Path], object] | None = None) -> Path | None:
        made = real(folder, paths, copy)
        assert made is not None
        damage(made)
        return made

    monkeypatch.setattr(nifti, "_run_dcm2niix", damaged)
    with pytest.raises(InputError) as caught:
        convert_series(series, settings=Settings(), workspace=workspace)
    assert caught.value.reason is Reason.READERS_DISAGREE
    assert not SeriesStore(workspace).volume_array(SERIES).exists()
    assert not list((workspace.series_dir(SERIES) / "volume").glob("*"))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"0.9\\0.8 ", b"nan\\0.8 ", Reason.MISSING_GEOMETRY),
        (b"0.9\\0.8 ", b"inf\\0.8 ", Reason.MISSING_GEOMETRY),
        (b"0.9\\0.8 ", b"1E999\\1 ", Reason.MISSING_GEOMETRY),
        (b"0.9\\0.8 ", b"1e5\\abc ", Reason.MISSING_GEOMETRY),
        (b"0.9\\0.8 ", b"0.0\\0.8 ", Reason.ZERO_SPACING),
        (b"0.9\\0.8 ", b"-.9\\0.8 ", Reason.ZERO_SPACING),
        (b"0.0\\1.0\\0.0 ", b"0.0\\1.0\\inf ", Reason.MISSING_GEOMETRY),
        (b"0.0\\1.0\\0.0 ", b"1.0\\0.0\\0.0 ", Reason.NOT_ORTHOGONAL),
        (b"-1024.0 ", b"-1E400  ", Reason.HU_RANGE),
        (b"-1024.0 ", b"NaN     ", Reason.HU_RANGE),
        (b"-1024.0 ", b"32767   ", Reason.HU_RANGE),
    ],
)
def test_numbers_that_are_none_are_reasons(
    tmp_path: Path, workspace: Workspace, old: bytes, new: bytes, reason: Reason
) -> None:
    for path in write_small(tmp_path / "in"):
        content = path.read_bytes()
        assert content.count(old) == 1
        assert len(old) == len(new)
        path.write_bytes(content.replace(old, new))
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "in", workspace)
    assert caught.value.reason is reason


@pytest.mark.parametrize("thickness", ["-2.5", "0", ""])
def test_slice_thickness_decides_nothing(tmp_path: Path, workspace: Workspace, thickness: str) -> None:
    def edit(data: Dataset, _: int) -> None:
        data.SliceThickness = "9.25"

    paths = write_small(tmp_path / "in", Small(), edit)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"9.25", thickness.ljust(4).encode()))
    volume, array = convert_folder(tmp_path / "in", workspace)
    assert volume.spacing[0] == pytest.approx(2.5)
    np.testing.assert_array_equal(array, truth(Small()))


def test_a_thickness_that_is_no_number_misleads_one_reader_and_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    for path in write_small(tmp_path / "in", Small(elements={"SliceThickness": "9.25"})):
        path.write_bytes(path.read_bytes().replace(b"9.25", b"nan "))
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "in", workspace)
    assert caught.value.reason is Reason.READERS_DISAGREE


def test_saturated_metal_is_a_defined_result(tmp_path: Path, workspace: Workspace) -> None:
    def metal(data: Dataset, _: int) -> None:
        pixels = np.frombuffer(data.PixelData, np.uint16).copy()
        pixels[:9] = 32767 + 1024
        data.PixelData = pixels.tobytes()

    write_small(tmp_path / "in", Small(), metal)
    volume, array = convert_folder(tmp_path / "in", workspace)
    assert (array[:, 0, :9] == 32767).all()
    check_nifti(volume, array, workspace)

"""Voxels of NIfTI files in gzip: those of nibabel, in whatever form the file was packed."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ctenrich.errors import InputError
from ctenrich.harmonise import images
from ctenrich.harmonise.images import open_image
from ctenrich.reasons import Reason


def write(path: Path, dtype: str, scaling: tuple[float, float] | None = None, member: int = 1 << 30) -> bytes:
    """Write voxels; returns the bytes of the file before they were packed in members of at most `member` bytes."""
    voxels = np.random.default_rng(1).integers(0, 9, (7, 6, 5)).astype(dtype)
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header.set_data_dtype(dtype)
    if scaling:
        image.header.set_slope_inter(*scaling)
    data = image.to_bytes()
    path.write_bytes(b"".join(gzip.compress(data[k : k + member]) for k in range(0, len(data), member)))
    return data


def by_nibabel(path: Path, scaled: bool = True) -> np.ndarray:
    proxy = nibabel.load(path).dataobj
    return np.asarray(proxy if scaled else proxy.get_unscaled()).transpose(2, 1, 0)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each file that is opened was unpacked by libdeflate."""
    found: list[bool] = []
    own = images._unpacked

    def watched(*given: object) -> object:
        array = own(*given)  # type: ignore[arg-type]
        found.append(array is not None)
        return array

    monkeypatch.setattr(images, "_unpacked", watched)
    return found


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "<u2", "float32", ">f8", "int32"])
@pytest.mark.parametrize("scaling", [None, (2.0, -1.0)])
def test_voxels_are_those_of_nibabel(
    tmp_path: Path, unpacked: list[bool], dtype: str, scaling: tuple[float, float] | None
) -> None:
    path = tmp_path / "a.nii.gz"
    write(path, dtype, scaling)
    for scaled in (True, False):
        array = open_image(path, scaled=scaled).array
        expected = by_nibabel(path, scaled)
        assert array.dtype == expected.dtype
        assert array.flags.writeable
        np.testing.assert_array_equal(array, expected)
    assert unpacked == ([True] if scaling else [True, True]), "scaled voxels are computed by nibabel"


def test_members_and_further_bytes_are_left_to_zlib(tmp_path: Path, unpacked: list[bool]) -> None:
    path = tmp_path / "a.nii.gz"
    data = write(path, "uint8", member=300)
    np.testing.assert_array_equal(open_image(path).array, by_nibabel(path))
    path.write_bytes(gzip.compress(data + bytes(5)))
    np.testing.assert_array_equal(open_image(path).array, by_nibabel(path))
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data))
    with pytest.raises(AssertionError):  # the size at the end is right, and the first member is not the file
        np.testing.assert_array_equal(open_image(path).array.ravel(), np.frombuffer(data[352:], np.uint8))
    np.testing.assert_array_equal(open_image(path).array, by_nibabel(path))
    assert unpacked == [False] * 4


def test_members_that_unpack_to_much_more_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    data = write(path, "uint8")
    path.write_bytes(gzip.compress(data + bytes(200 << 20)) + gzip.compress(data))
    tracemalloc.start()
    open_image(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 << 20


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    write(path, "uint8")
    whole = path.read_bytes()
    wrong_sum = bytes([whole[-8] ^ 1])
    for damaged in (whole[:-40], whole[:90], whole[:80] + bytes(60) + whole[140:], whole[:-8] + wrong_sum + whole[-7:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            open_image(path)
        assert caught.value.reason is Reason.DECODE_ERROR

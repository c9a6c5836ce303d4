"""Damage to gzip files that reading their first bytes does not show."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from ctenrich.gzip_files import check_gzip, check_nifti_gzip

CONTENT = bytes(range(256)) * 50


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return path


def test_a_whole_file(packed: Path) -> None:
    check_gzip(packed, len(CONTENT))
    check_nifti_gzip(packed, 352, len(CONTENT) - 352, 1)


@pytest.mark.parametrize("change", ["checksum", "length", "cut", "voxel"])
def test_a_damaged_file(packed: Path, change: str) -> None:
    raw = bytearray(packed.read_bytes())
    place = {"checksum": -8, "length": -1, "cut": -3, "voxel": len(raw) // 2}[change]
    raw = raw[:place] if change == "cut" else raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 or len(raw) :]
    packed.write_bytes(raw)
    with pytest.raises((zlib.error, OSError, EOFError)):
        check_gzip(packed, len(CONTENT))


def test_no_more_is_unpacked_than_the_header_states(tmp_path: Path) -> None:
    """A file that would unpack to much more is left after what its header states; its end is not reached."""
    path = tmp_path / "large.nii.gz"
    raw = bytearray(gzip.compress(bytes(1 << 26)))
    raw[-8] ^= 1
    path.write_bytes(raw)
    check_gzip(path, 1000)


def test_a_file_that_is_not_packed(tmp_path: Path) -> None:
    check_nifti_gzip(tmp_path / "missing.nii", 352, 10, 1)

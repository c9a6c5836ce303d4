"""Compare the checksum of a gzip file, which nibabel does not look at when it reads an image."""

from __future__ import annotations

import gzip
from pathlib import Path

__all__ = ["check_gzip", "check_nifti_gzip"]

_PART = 1 << 20


def check_gzip(path: Path, size: int) -> None:
    """Raise what is wrong with a gzip file, if anything is, without unpacking more than its content should be.

    Parameters
    ----------
    path : Path
    size : int
        Bytes of the content, as its own header states them; more are not looked at.

    Raises
    ------
    zlib.error, OSError, EOFError
        If it is damaged or ends early, or a checksum is wrong.
    """
    with gzip.open(path) as stream:
        left = size + 1  # one more, so that the checksum at the end is read
        while left > 0 and (part := stream.read(min(left, _PART))):
            left -= len(part)


def check_nifti_gzip(path: Path, offset: int, voxels: int, bytes_each: int) -> None:
    """Check a NIfTI file, if it is packed.

    Parameters
    ----------
    path : Path
        ``.nii.gz``; nothing is done with another name.
    offset : int
        Of the first voxel in the unpacked file.
    voxels : int
        Number of voxels.
    bytes_each : int
        Of a voxel.

    Raises
    ------
    zlib.error, OSError, EOFError
        As `check_gzip`.
    """
    if path.name.lower().endswith(".gz"):
        check_gzip(path, offset + voxels * bytes_each)

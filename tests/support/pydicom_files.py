"""The test files that pydicom installs with itself, and damaged copies of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom.data

__all__ = ["damaged", "pydicom_files"]


def pydicom_files() -> list[Path]:
    """Installed test files, DICOM or not, in every transfer syntax and character set that pydicom tests."""
    root = Path(pydicom.data.__file__).parent
    found = (p for folder in ("test_files", "charset_files") for p in (root / folder).rglob("*"))
    return sorted(p for p in found if p.is_file() and p.suffix not in {".py", ".pyc", ".json"})


def damaged(content: bytes, rng: np.random.Generator, first: int = 132, last: int = 6000) -> bytes:
    """A copy with some bytes of its header changed, inserted or removed, or cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(first, max(min(len(data), last), first + 1)))
        kind = rng.integers(0, 10)
        if kind < 6:
            data[at : at + 1] = rng.bytes(1)
        elif kind < 8:
            data[at:at] = rng.bytes(int(rng.integers(1, 5)))
        elif kind < 9:
            del data[at : at + int(rng.integers(1, 5))]
        else:
            del data[at:]
    return bytes(data)

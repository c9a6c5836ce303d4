"""Where the queries, mappings and models that travel with the package are, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

__all__ = ["folder"]

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Folder of the package's data: ``queries`` or ``mappings`` (top level of a checkout, ``_data`` in a wheel)."""
    packed = _PACKAGE / "_data" / name
    return packed if packed.is_dir() else _PACKAGE.parents[1] / name

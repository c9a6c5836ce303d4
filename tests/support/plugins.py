"""Packages with entry points, installed into a folder on the path for the time of a test."""

from __future__ import annotations

from pathlib import Path

__all__ = ["install_plugin"]


def install_plugin(site: Path, package: str, group: str, entry_points: str, **modules: str) -> None:
    """Write a package's metadata and modules (name -> source) into `site`, as pip would."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")
    for name, source in modules.items():
        (site / f"{name}.py").write_text(source)

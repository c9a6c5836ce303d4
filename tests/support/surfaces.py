"""Planar contours in VTK's XML format, and doses in NRRD: test data of SlicerRT."""

from __future__ import annotations

import base64
import gzip
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ctenrich.contours.rtstruct import Contour
from ctenrich.dose.grid import DoseGrid

__all__ = ["read_nrrd_dose", "read_vtk_contours"]

_KINDS = {"Float32": "<f4", "Float64": "<f8", "Int64": "<i8", "Int32": "<i4", "UInt8": "u1"}


def _array(element: Any) -> np.ndarray:
    """Array of zlib blocks in base64, the header apart (vtkZLibDataCompressor)."""
    text = "".join((element.text or "").split())
    count = struct.unpack("<I", base64.b64decode(text[:8])[:4])[0]
    header_bytes = 4 * (3 + count)
    encoded = 4 * -(-header_bytes // 3)
    sizes = struct.unpack(f"<{3 + count}I", base64.b64decode(text[:encoded])[:header_bytes])[3:]
    data, at, out = base64.b64decode(text[encoded:]), 0, b""
    for size in sizes:
        out += zlib.decompress(data[at : at + size])
        at += size
    return np.frombuffer(out, _KINDS[element.get("type")])


def read_vtk_contours(path: Path) -> tuple[str, list[Contour]]:
    """Name of a segment, and its contours in mm, LPS."""
    root = ET.parse(path).getroot()
    name = "".join((next(e for e in root.iter("Array") if e.get("Name") == "Segment_Name").text or "").split())
    title = zlib.decompress(base64.b64decode(name[24:])).decode().strip("\0")
    points = _array(root.find(".//Points/DataArray")).reshape(-1, 3) * np.array([-1.0, -1.0, 1.0])  # from RAS
    parts = {e.get("Name"): _array(e) for e in root.findall(".//Lines/DataArray")}
    lines = np.split(parts["connectivity"], parts["offsets"][:-1])
    return title, [Contour(points[line[:-1] if line[0] == line[-1] else line]) for line in lines]


def read_nrrd_dose(path: Path) -> DoseGrid:
    """A dose in Gy as float, gzip, without rotation."""
    header, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
    columns, rows, frames = (int(v) for v in fields["sizes"].split())
    steps = [tuple(float(v) for v in part.strip("()").split(",")) for part in fields["space directions"].split()]
    x, y, z = (float(v) for v in fields["space origin"].strip("()").split(","))
    values = np.frombuffer(gzip.decompress(data), "<f4").reshape(frames, rows, columns)
    return DoseGrid(
        stored=values, scaling=1.0, origin=(x, y, z), row=(1, 0, 0), column=(0, 1, 0),
        pixel_spacing=(steps[1][1], steps[0][0]), offsets=tuple((steps[2][2] * np.arange(frames)).tolist()),
    )  # fmt: skip

"""Read the frames of a SEG with pydicom: pixels, position in mm, references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

__all__ = ["Frame", "read_frames"]

Floats = NDArray[np.float64]
FrameGeometry = tuple[Floats, Floats, Floats, tuple[float, float], float, tuple[str, ...]]


@dataclass(frozen=True)
class Frame:
    """One frame: the part of one segment on one plane."""

    segment: int
    size: tuple[int, int]
    """(rows, columns)."""
    bits: NDArray[np.uint8]
    """The mask, eight pixels per byte: all frames of a large SEG are in memory at once."""
    voxels: int
    position: Floats
    """Centre of pixel (0, 0), mm, LPS."""
    row: Floats
    column: Floats
    spacing: tuple[float, float]
    """(between rows, between columns), mm."""
    slice_spacing: float
    """mm; 0 if the object does not state it."""
    sources: tuple[str, ...]
    """SOP Instance UIDs that the frame was derived from."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask as [row, column]."""
        rows, columns = self.size
        return np.unpackbits(self.bits, count=rows * columns).view(np.bool_).reshape(rows, columns)


def read_frames(dataset: Dataset) -> Iterator[Frame]:
    """Iterate over the frames of a BINARY, FRACTIONAL or LABELMAP segmentation (PS3.3 C.8.20).

    A label map frame gives one :class:`Frame` per segment in it. A fractional pixel belongs to the segment if it has at
    least half of the largest value.
    """
    shared = dataset.SharedFunctionalGroupsSequence[0]
    pixels = _pixel_reader(dataset)
    labelled = str(dataset.SegmentationType) == "LABELMAP"
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        place = _frame_geometry(group, shared)
        plane = pixels(number)
        if not labelled:
            identification = _frame_or_shared_macro(group, shared, "SegmentIdentificationSequence")
            yield _make_frame(int(identification.ReferencedSegmentNumber), plane != 0, place)
            continue
        for value in np.unique(plane[plane > 0]).tolist():
            yield _make_frame(int(value), plane == value, place)


def _make_frame(segment: int, mask: NDArray[np.bool_], place: FrameGeometry) -> Frame:
    rows, columns = mask.shape
    return Frame(segment, (rows, columns), np.packbits(mask), int(np.count_nonzero(mask)), *place)


def _frame_or_shared_macro(group: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """Return the first item of a functional group macro: of the frame if it has one, else the shared one."""
    item: Dataset = (group if keyword in group else shared)[keyword].value[0]
    return item


def _frame_geometry(group: Dataset, shared: Dataset) -> FrameGeometry:
    position = np.array(_frame_or_shared_macro(group, shared, "PlanePositionSequence").ImagePositionPatient, np.float64)
    orientation = np.array(
        _frame_or_shared_macro(group, shared, "PlaneOrientationSequence").ImageOrientationPatient, np.float64
    )
    measures = _frame_or_shared_macro(group, shared, "PixelMeasuresSequence")
    rows, columns = (float(v) for v in measures.PixelSpacing)
    between = measures.get("SpacingBetweenSlices", None) or measures.get("SliceThickness", None) or 0.0
    sources: list[str] = []
    for derivation in group.get("DerivationImageSequence", None) or ():
        for source in derivation.get("SourceImageSequence", None) or ():
            sources.append(str(source.ReferencedSOPInstanceUID))  # noqa: PERF401  two levels read better as loops
    return position, orientation[:3], orientation[3:], (rows, columns), float(between), tuple(sources)


def _pixel_reader(dataset: Dataset) -> Any:
    """Return a function that maps a frame number (from 0) to its pixels, [row, column]."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if int(dataset.BitsAllocated) == 1:
        size = rows * columns
        bits = np.frombuffer(dataset.PixelData, np.uint8)

        def binary(number: int) -> NDArray[np.uint8]:
            first, last = number * size, (number + 1) * size
            part = np.unpackbits(bits[first // 8 : -(-last // 8)], bitorder="little")
            return part[first % 8 : first % 8 + size].reshape(rows, columns)

        return binary
    from pydicom.pixels.utils import pixel_array

    threshold = 0
    if str(dataset.SegmentationType) == "FRACTIONAL":
        threshold = -(-int(dataset.MaximumFractionalValue) // 2)

    def whole(number: int) -> NDArray[Any]:
        plane = pixel_array(dataset, index=number)
        return plane >= threshold if threshold else plane

    return whole

"""Checks of Parametric Maps and FRACTIONAL segmentations: values by position, codes, references to images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich.codes.mappings import Code
from ctenrich.proof.checks import Report

__all__ = ["ExpectedEntropy", "ExpectedValues", "prove_fractional", "prove_map"]

Floats = NDArray[np.float64]
_POSITION = 0.01
"""mm between the position of a frame and that of its source, or of a voxel (and a thousandth of its size)."""
_FULL = 255
"""Largest value of a FRACTIONAL segmentation."""
_STEP = 0.5 / _FULL + 1e-6
"""Smallest fraction that certainly does not round to 0."""
_RELATIVE = 1e-6
"""Largest difference of a value of a map, as a share of the largest value."""


@dataclass(frozen=True, kw_only=True)
class ExpectedValues:
    """What an object must hold: an image, read by another reader than that of the encoder where there is one."""

    array: NDArray[Any] = field(repr=False)
    """[k, j, i] of the image, real values."""
    affine_lps: Floats
    """(i, j, k, 1) -> mm, LPS, of the image."""
    owner: object = field(default=None, repr=False)
    """Whatever owns the memory of `array`, where the array is only a view of it."""

    def plane(self, corner: Floats, along: Floats, down: Floats, size: tuple[int, int]) -> NDArray[Any] | None:
        """Values at the pixels of a frame, [row, column]; None where its pixels are not voxels of the image.

        Parameters
        ----------
        corner : array, (3,)
            Centre of the first pixel, mm, LPS.
        along, down : array, (3,)
            From a pixel to the next of its row, and of its column, mm.
        size : (int, int)
            Rows and columns.
        """
        inverse = np.linalg.inv(self.affine_lps)
        exact = np.stack([(inverse @ [*corner, 1])[:3], inverse[:3, :3] @ along, inverse[:3, :3] @ down])
        start, column, row = whole = np.rint(exact).astype(int)
        reach = np.abs(exact - whole) * [[1], [size[1] - 1], [size[0] - 1]]
        lengths = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        if (reach.sum(axis=0) * lengths > _POSITION + 1e-3 * lengths).any():
            return None
        if sorted(map(abs, column)) != [0, 0, 1] or sorted(map(abs, row)) != [0, 0, 1]:
            return None
        rows, columns = np.arange(size[0])[:, None], np.arange(size[1])[None, :]
        index = [start[axis] + column[axis] * columns + row[axis] * rows for axis in range(3)]
        if any(i.min() < 0 or i.max() >= n for i, n in zip(index, self.array.shape[::-1], strict=True)):
            return None
        found: NDArray[Any] = self.array[index[2], index[1], index[0]]
        return found


@dataclass(frozen=True, kw_only=True)
class ExpectedEntropy(ExpectedValues):
    """The normalised entropy of classes, computed frame by frame with SciPy; `array` is one of the classes."""

    classes: NDArray[Any] = field(repr=False)
    """[class, k, j, i], probabilities without the background's."""
    overlap: bool
    """Whether each class has a probability of its own; else they and the background add up to 1."""

    def plane(self, corner: Floats, along: Floats, down: Floats, size: tuple[int, int]) -> NDArray[Any] | None:
        """Entropy at the pixels of a frame; see `ExpectedValues.plane`.

        Parameters
        ----------
        corner, along, down, size : see `ExpectedValues.plane`
            Of the frame.
        """
        from scipy.special import entr

        found: list[NDArray[Any]] = []
        for one in self.classes:
            part = ExpectedValues(array=one, affine_lps=self.affine_lps).plane(corner, along, down, size)
            if part is None:
                return None
            found.append(part.astype(np.float64))
        stack = np.stack(found)
        if self.overlap:
            shares = np.stack([stack, 1 - stack])
            largest = len(stack) * math.log(2)
        else:
            shares = np.concatenate([stack, np.maximum(1 - stack.sum(axis=0, keepdims=True), 0)])
            largest = math.log(len(stack) + 1)
        total: NDArray[Any] = np.minimum(entr(shares).reshape(-1, *size).sum(axis=0) / largest, 1)
        return total


@dataclass(frozen=True)
class _Frame:
    pixels: NDArray[Any]
    groups: Dataset
    corner: Floats
    along: Floats
    down: Floats


def prove_map(path: Path, expected: ExpectedValues, codes: tuple[Code, Code], sources: Sequence[Path]) -> Report:
    """Check that a Parametric Map has the values of an image at the same positions.

    Parameters
    ----------
    path : Path
        The object.
    expected : ExpectedValues
        The image.
    codes : (Code, Code)
        Quantity and unit.
    sources : sequence of Path
        Files of the source images.

    Returns
    -------
    Report
        The contents of a file never cause an exception.
    """
    report = Report("parametric map")
    with report.guard("map.read"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        named = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
        found = (_code(named), _code(mapping.MeasurementUnitsCodeSequence[0]))
        report.add("map.codes", found == tuple((c.value, c.scheme) for c in codes), f"quantity and unit: {found}")
        slope, intercept = float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)
        padding = next((e.value for e in dataset if "PixelPaddingValue" in e.keyword), None)
        peak, worst, off, absent = 0.0, 0.0, 0, 0
        for frame in _frames(path, dataset):
            wanted = expected.plane(frame.corner, frame.along, frame.down, frame.pixels.shape)
            if wanted is None:
                off += 1
                continue
            values = frame.pixels.astype(np.float64) * slope + intercept
            empty = np.isnan(wanted)
            if padding is not None:
                empty |= frame.pixels == frame.pixels.dtype.type(padding)
                unstated = np.isnan(wanted) & (frame.pixels != frame.pixels.dtype.type(padding))
                off += int(unstated.any())
            elif empty.any():
                off += 1
            differences = np.abs(values - wanted)[~empty]
            worst = max(worst, float(differences.max(initial=0.0)))
            peak = max(peak, float(np.abs(values[~empty]).max(initial=0.0)))
            absent += int(empty.sum())
        good = off == 0 and math.isfinite(worst) and worst <= _RELATIVE * peak
        detail = f"largest difference {worst:.3g} of values up to {peak:.6g}; {absent} voxels without a value"
        report.add("map.values", good, f"{off} frames are not on the image" if off else detail)
        _check_references(report, "map", path, dataset, sources)
    return report


def prove_fractional(
    path: Path, expected: Callable[[int], ExpectedValues], segments: Mapping[int, Code], sources: Sequence[Path]
) -> Report:
    """Check that a FRACTIONAL segmentation has the fractions of images, to half a step of its largest value.

    Parameters
    ----------
    path : Path
        The object, whose frames are in the order of their segments.
    expected : function
        Segment number -> its image; called once for each, so that one image is in memory at a time.
    segments : mapping
        Segment number -> code of its type.
    sources : sequence of Path
        Files of the source images.

    Returns
    -------
    Report
        The contents of a file never cause an exception.
    """
    report = Report("fractional segmentation")
    with report.guard("seg.read"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        found = {int(s.SegmentNumber): _code(s.SegmentedPropertyTypeCodeSequence[0]) for s in dataset.SegmentSequence}
        wanted = {number: (code.value, code.scheme) for number, code in segments.items()}
        report.add("seg.codes", found == wanted, f"{len(found)} segments with their types")
        full = int(dataset.MaximumFractionalValue)
        report.add("seg.maximum", full == _FULL, f"largest value {full}")
        for number in segments:
            with report.guard(f"seg.fractions.{number}"):
                _check_fractions(report, (path, dataset), number, expected(number))
        _check_references(report, "seg", path, dataset, sources)
    return report


def _check_fractions(report: Report, opened: tuple[Path, Dataset], number: int, image: ExpectedValues) -> None:
    """Fractions of the frames of a segment, and that no frame is missing: what is left rounds to 0."""
    worst, off, seen, above = 0.0, 0, 0, 0
    for frame in _frames(*opened):
        if int(frame.groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber) != number:
            continue
        wanted = image.plane(frame.corner, frame.along, frame.down, frame.pixels.shape)
        if wanted is None:
            off += 1
            continue
        worst = max(worst, float(np.abs(frame.pixels / _FULL - wanted.astype(np.float64)).max()))
        seen += int(np.count_nonzero(wanted > _STEP))
    for part in image.array:
        above += int(np.count_nonzero(part > _STEP))
    good = off == 0 and worst <= 0.5 / _FULL + 1e-6 and seen == above
    detail = f"largest difference {worst:.3g}, half a step is {0.5 / _FULL:.3g}"
    detail += f"; {above - seen} voxels without a frame; {off} frames are not on the image" if not good else ""
    report.add(f"seg.fractions.{number}", good, detail)


def _code(item: Dataset) -> tuple[str, str]:
    return str(item.CodeValue), str(item.CodingSchemeDesignator)


def _frames(path: Path, dataset: Dataset) -> Iterator[_Frame]:
    """Frames of native pixels, mapped from the end of the file: nothing is read twice or held."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), int(dataset.NumberOfFrames)
    bits = int(dataset.BitsAllocated)
    letter = "f" if "BitsStored" not in dataset else ("i" if int(dataset.PixelRepresentation) else "u")
    kind = np.dtype(f"<{letter}{bits // 8}")
    size = count * rows * columns * kind.itemsize
    offset = path.stat().st_size - size - size % 2
    pixels = np.memmap(path, kind, "r", offset, (count, rows, columns))
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    turn = np.array([float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    for n, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        corner = np.array([float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient])
        yield _Frame(pixels[n], groups, corner, turn[:3] * spacing[1], turn[3:] * spacing[0])


def _check_references(report: Report, name: str, path: Path, dataset: Dataset, sources: Sequence[Path]) -> None:
    """Every frame refers to images or frames of the source at its own position."""
    places = dict(_places(sources))
    wrong, count = 0, 0
    for frame in _frames(path, dataset):
        items = frame.groups.DerivationImageSequence[0].SourceImageSequence
        count += len(items)
        for item in items:
            key = (str(item.ReferencedSOPInstanceUID), int(item.get("ReferencedFrameNumber", 0)))
            there = places.get(key)
            wrong += there is None or bool(np.abs(there - frame.corner).max() > _POSITION)
        wrong += not items
    report.add(f"{name}.references", wrong == 0, f"{count} references, {wrong} of them elsewhere or missing")
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for series in dataset.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    known = listed <= {uid for uid, _ in places}
    report.add(f"{name}.series", known, f"{len(listed)} images of the referenced series")


def _places(sources: Sequence[Path]) -> Iterator[tuple[tuple[str, int], Floats]]:
    for path in sources:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        groups = header.get("PerFrameFunctionalGroupsSequence")
        if not groups:
            yield (str(header.SOPInstanceUID), 0), np.array([float(v) for v in header.ImagePositionPatient])
            continue
        for n, item in enumerate(groups, 1):
            plane = item.PlanePositionSequence[0].ImagePositionPatient
            yield (str(header.SOPInstanceUID), n), np.array([float(v) for v in plane])

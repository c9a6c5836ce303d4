"""Checks of a SEG: voxels and their positions, codes of the segments, references to the source slices."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich.codes.mappings import Code, codes_of
from ctenrich.masks import Mask, crop_of
from ctenrich.proof.checks import ObjectFile, Report
from ctenrich.proof.frames import Frame, read_frames
from ctenrich.proof.session import ProofSession, SegmentationResult
from ctenrich.proof.source import TOLERANCE, SourceSlice, SourceSlices, tolerance
from ctenrich.records import Segment, SegmentMasks, Volume
from ctenrich.workspace import Workspace

__all__ = ["prove_seg"]

Floats = NDArray[np.float64]


def prove_seg(session: ProofSession, seg: ObjectFile) -> None:
    """Check that the SEG equals the masks voxel for voxel on the CT grid, with the codes of the segments.

    The centroid of each segment (mm, LPS) by the SEG's own positions must equal the one by the volume's affine
    (tolerance of :func:`ctenrich.proof.source.tolerance`), and every frame must refer to the slice of its position.
    Fills ``session.segment_sizes``.

    Parameters
    ----------
    session : ProofSession
        The result, the source slices and the report, which receives the checks.
    seg : ObjectFile
        The SEG, read again.
    """
    assert isinstance(session.result, SegmentationResult)
    report, source, workspace = session.report, session.source, session.workspace
    masks, volume = session.result.masks, session.result.volume
    _description_checks(report, seg.dataset, masks, source)
    frames: dict[int, list[Frame]] = defaultdict(list)
    for frame in read_frames(seg.dataset):
        frames[frame.segment].append(frame)
    _reference_checks(report, seg.dataset, frames, source)
    grid = _CtGrid(source, masks.shape)
    wrong: list[str] = []
    worst = 0.0
    sizes: dict[int, tuple[int, float]] = {}
    for segment in masks.segments:
        own = frames.pop(segment.number, [])
        different = grid.differences(own, crop_of(masks, segment.number, workspace))
        if different:
            wrong.append(f"{segment.name}: {different} voxels differ")
        worst = max(worst, _centroid_error(own, segment, masks, volume, workspace))
        sizes[segment.number] = (
            sum(f.voxels for f in own),
            sum(f.voxels * f.spacing[0] * f.spacing[1] * f.slice_spacing for f in own),
        )
    if frames:
        wrong.append(f"{len(frames)} unexpected segments")
    total = sum(voxels for voxels, _ in sizes.values())
    detail = "; ".join(wrong) or f"{total} voxels of {len(masks.segments)} segments are equal on the CT grid"
    report.add("seg.voxels", not wrong, detail)
    session.segment_sizes.update(sizes)
    text = f"from the SEG's positions and from the affine: {worst:.6f} mm apart at most"
    report.add("seg.centroids", worst < tolerance(session.result.series, session.settings.geometry), text)


# ---------------------------------------------------------------- voxels


class _CtGrid:
    """Maps frames to the CT grid by their positions in mm."""

    def __init__(self, source: SourceSlices, shape: tuple[int, int, int]) -> None:
        self.slices = [source.slices[uid] for uid in source.uids_in_order()]
        self.normal = source.normal
        self.heights = np.array([s.position @ self.normal for s in self.slices])
        self.shape = shape

    def differences(self, frames: list[Frame], expected: tuple[Mask, object] | None) -> int:
        """Count voxels that are only in the frames, only in the mask, or off the CT grid."""
        planes: dict[int, Mask] = {}
        astray = 0
        for frame in frames:
            astray += self._add_frame(frame, planes)
        if expected is None:
            return astray + sum(int(np.count_nonzero(p)) for p in planes.values())
        mask, box = expected
        k0, k1, j0, j1, i0, i1 = (getattr(box, name) for name in ("k0", "k1", "j0", "j1", "i0", "i1"))
        for k in range(k0, k1):
            plane = planes.pop(k, None)
            part = mask[k - k0]
            if plane is None:
                astray += int(np.count_nonzero(part))
                continue
            outside = int(np.count_nonzero(plane)) - int(np.count_nonzero(plane[j0:j1, i0:i1]))
            astray += outside + int(np.count_nonzero(plane[j0:j1, i0:i1] != part))
        return astray + sum(int(np.count_nonzero(p)) for p in planes.values())

    def _add_frame(self, frame: Frame, planes: dict[int, Mask]) -> int:
        """Add a frame's pixels to the planes of the CT grid; returns the number of pixels that are off the grid."""
        k = int(np.argmin(np.abs(self.heights - frame.position @ self.normal)))
        if k < self.shape[0] and _is_on_slice(frame, self.slices[k]):
            planes[k] = planes[k] | frame.mask if k in planes else frame.mask
            return 0
        return self._add_pixels(frame, planes)

    def _add_pixels(self, frame: Frame, planes: dict[int, Mask]) -> int:
        """Add every pixel by its own position in mm, for frames that are not on the plane of a slice."""
        j, i = np.nonzero(frame.mask)
        along, down = frame.row * frame.spacing[1], frame.column * frame.spacing[0]
        points = frame.position + np.outer(i, along) + np.outer(j, down)
        nearest = np.abs(self.heights[None, :] - (points @ self.normal)[:, None]).argmin(axis=1)
        beside = 0
        for k in np.unique(nearest).tolist():
            item = self.slices[k]
            relative = points[nearest == k] - item.position
            u, v = relative @ item.row / item.spacing[1], relative @ item.column / item.spacing[0]
            ci, cj = np.rint(u).astype(np.int64), np.rint(v).astype(np.int64)
            back = np.outer(ci * item.spacing[1], item.row) + np.outer(cj * item.spacing[0], item.column)
            fits = (np.abs(back - relative).max(axis=1) < TOLERANCE) & (k < self.shape[0])
            fits &= (ci >= 0) & (ci < self.shape[2]) & (cj >= 0) & (cj < self.shape[1])
            beside += int(np.count_nonzero(~fits))
            plane = planes.get(k, np.zeros(self.shape[1:], bool)).copy()
            plane[cj[fits], ci[fits]] = True
            planes[k] = plane
        return beside


def _is_on_slice(frame: Frame, item: SourceSlice) -> bool:
    """Whether pixel (r, c) of the frame is pixel (r, c) of the slice, by the positions of three corners."""
    if frame.size != item.size:
        return False
    rows, columns = item.size
    for j, i in ((0, 0), (rows - 1, 0), (0, columns - 1)):
        here = frame.position + frame.row * (i * frame.spacing[1]) + frame.column * (j * frame.spacing[0])
        there = item.position + item.row * (i * item.spacing[1]) + item.column * (j * item.spacing[0])
        if np.abs(here - there).max() >= TOLERANCE:
            return False
    return True


def _centroid_error(
    frames: list[Frame], segment: Segment, masks: SegmentMasks, volume: Volume, workspace: Workspace
) -> float:
    """Distance in mm between the centroid by the SEG's own positions and the one by voxel index and affine."""
    found = crop_of(masks, segment.number, workspace)
    count = sum(f.voxels for f in frames)
    if found is None or count == 0:
        return 0.0 if found is None and count == 0 else float("inf")
    mask, box = found
    n = np.count_nonzero(mask)
    index = [
        float((mask.sum(axis=tuple(a for a in range(3) if a != axis)) @ np.arange(mask.shape[axis])) / n)
        for axis in (2, 1, 0)
    ]
    expected = (np.array(volume.affine_lps) @ (index[0] + box.i0, index[1] + box.j0, index[2] + box.k0, 1))[:3]
    total = np.zeros(3)
    for frame in frames:
        plane = frame.mask
        across, down = plane.sum(axis=0), plane.sum(axis=1)
        total += frame.position * float(across.sum())
        total += frame.row * (frame.spacing[1] * float(across @ np.arange(len(across))))
        total += frame.column * (frame.spacing[0] * float(down @ np.arange(len(down))))
    return float(np.linalg.norm(total / count - expected))


# ---------------------------------------------------------------- description, references


def _description_checks(report: Report, dataset: Dataset, masks: SegmentMasks, source: SourceSlices) -> None:
    wrong: list[str] = []
    items = {int(item.SegmentNumber): item for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0}
    if sorted(items) != sorted(s.number for s in masks.segments):
        wrong.append(f"{len(items)} segments, not {len(masks.segments)}")
    for segment in masks.segments:
        item = items.get(segment.number)
        code = codes_of(segment.name)
        if item is None:
            continue
        if code is None:
            wrong.append(f"segment {segment.number}: mappings have no codes of {segment.name}")
            continue
        modifier = item.SegmentedPropertyTypeCodeSequence[0].get("SegmentedPropertyTypeModifierCodeSequence", None)
        if (
            not _has_code(item.SegmentedPropertyTypeCodeSequence[0], code.type)
            or not _has_code(item.SegmentedPropertyCategoryCodeSequence[0], code.category)
            or not _has_code(modifier[0] if modifier else None, code.laterality)
            or str(item.SegmentLabel) != segment.name
        ):
            wrong.append(f"segment {segment.number} is not described as {segment.name}")
    report.add("seg.segments", not wrong, "; ".join(wrong) or f"{len(items)} segments under their numbers and codes")
    frames = {s.frame_of_reference_uid for s in source.slices.values()}
    same = frames == {str(dataset.get("FrameOfReferenceUID", ""))}
    report.add("seg.frame_of_reference", same, "frame of reference of the SEG and of its source slices")


def _has_code(item: Dataset | None, code: Code | None) -> bool:
    if item is None or code is None:
        return item is None and code is None
    return (str(item.CodeValue), str(item.CodingSchemeDesignator)) == (code.value, code.scheme)


def _reference_checks(report: Report, dataset: Dataset, frames: dict[int, list[Frame]], source: SourceSlices) -> None:
    named: set[str] = set()
    for series in dataset.ReferencedSeriesSequence:
        named |= {str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence}
    used = [frame for group in frames.values() for frame in group]
    lost = len({uid for frame in used for uid in frame.sources} | named) - len(
        ({uid for frame in used for uid in frame.sources} | named) & source.slices.keys()
    )
    text = f"{len(named)} instances are referenced, {lost} of them do not exist"
    report.add("seg.references", lost == 0 and bool(named), text)
    normal = source.normal
    astray = 0
    for frame in used:
        own = [source.slices[uid] for uid in frame.sources if uid in source.slices]
        on_plane = [abs(float((s.position - frame.position) @ normal)) < TOLERANCE for s in own]
        astray += not on_plane or not all(on_plane)
    text = (
        f"{len(used)} frames name the slice that they lie on"
        if not astray
        else f"{astray} frames refer to a different slice"
    )
    report.add("seg.frame_references", astray == 0, text)

"""A generated CT with true masks, and the same masks as other programs write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ctenrich.geometry import lps_to_ras
from ctenrich.harmonise.plan import HarmoniseOptions, plan_request
from ctenrich.harmonise.request import identity_of
from ctenrich.harmonise.segmenter import HarmonisedSegmenter
from ctenrich.masks import full_mask
from ctenrich.phantom import SEGMENTS, PhantomOptions, as_records, make_phantom
from ctenrich.phantom.volume import Phantom
from ctenrich.records import SegmentMasks, SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["SMALL", "Case", "axis_variants", "make_case", "write_labels", "write_masks", "write_table"]

SMALL = PhantomOptions(seed=5, rows=40, columns=44, pixel_spacing=(9.0, 9.0), slices=34, slice_spacing=9.0)


@dataclass(frozen=True)
class Case:
    """One CT and its true label map."""

    workspace: Workspace
    phantom: Phantom
    volume: Volume
    series: SortedSeries

    @property
    def labels(self) -> NDArray[np.uint8]:
        """True labels, [k, j, i]; n + 1 is SEGMENTS[n]."""
        return np.asarray(self.phantom.labels, np.uint8)

    def harmonise(self, folder: Path, settings: Settings | None = None, **options: Any) -> SegmentMasks:
        """The masks that the files become."""
        stated = {"algorithm_type": "MANUAL"} | options
        request = plan_request(folder, HarmoniseOptions(**stated), settings or Settings()).request
        segmenter = HarmonisedSegmenter(request, identity_of(request))
        return segmenter.segment(
            {"CT": self.volume}, self.series, settings=settings or Settings(), workspace=self.workspace
        )

    def differing(self, masks: SegmentMasks, truth: Mapping[str, NDArray[np.bool_]] | None = None) -> int:
        """Voxels of all segments that differ from the truth."""
        true = truth or {name: self.labels == n for n, name in enumerate(SEGMENTS, 1)}
        return sum(
            int(np.count_nonzero(full_mask(masks, s.number, self.workspace) != true[s.name])) for s in masks.segments
        )


def make_case(folder: Path, options: PhantomOptions = SMALL) -> Case:
    """A CT below a folder."""
    workspace = Workspace(folder)
    phantom = make_phantom(options)
    return Case(workspace, phantom, *as_records(phantom, workspace))


def image_of(case: Case, array: NDArray[Any]) -> nibabel.Nifti1Image:
    """An array [k, j, i] as NIfTI along the axes of the CT."""
    affine = np.array(lps_to_ras(np.array(case.volume.affine_lps)))
    return nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)


def axis_variants(image: nibabel.Nifti1Image) -> dict[str, nibabel.Nifti1Image]:
    """The same image in the eight combinations of flipped axes, and with its axes exchanged."""
    found = {}
    for code in ("RAS", "LAS", "RPS", "LPS", "RAI", "LAI", "RPI", "LPI", "SRA", "PIL"):
        wanted = nibabel.orientations.axcodes2ornt(tuple(code))
        turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted)
        found[code] = image.as_reoriented(turn)
    return found


def write_labels(case: Case, path: Path, edit: Callable[[NDArray[Any]], NDArray[Any]] = lambda a: a) -> Path:
    """The true label map as NIfTI or, by the ending, as NRRD or MetaImage; `edit` changes the array [k, j, i]."""
    array = edit(case.labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.as_closest_canonical(image_of(case, array)), path)
        return path
    affine = np.array(case.volume.affine_lps)
    image = SimpleITK.GetImageFromArray(array)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def write_masks(case: Case, folder: Path, names: Mapping[str, str] | None = None) -> Path:
    """One NIfTI per structure; `names` are other names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(SEGMENTS, 1):
        image = nibabel.as_closest_canonical(image_of(case, (case.labels == n).astype(np.uint8)))
        nibabel.save(image, folder / f"{(names or {}).get(name, name)}.nii.gz")
    return folder


def write_table(path: Path, rows: Mapping[object, str] | None = None) -> Path:
    """A table of labels; without rows that of the true label map."""
    chosen = rows or dict(enumerate(SEGMENTS, 1))
    path.write_text("label,name\n" + "".join(f"{label},{name}\n" for label, name in chosen.items()), "utf-8")
    return path

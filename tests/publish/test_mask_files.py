"""Files of masks are written slice by slice, and hold what other writers would have written at once."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from ctenrich.dicom.frames import Grid
from ctenrich.dicom.seg import MAX_BYTES, DecodedSeg, DecodedSegment, SegmentPlanes
from ctenrich.geometry import affine_lps, lps_to_ras
from ctenrich.publish.mask_files import write_masks


def segment(number: int) -> DecodedSegment:
    return DecodedSegment(
        number=number, label=f"organ {number}", description="", category=None, type=None, laterality=None, region=None,
        region_modifier=None, algorithm_type="MANUAL", algorithm_name="", tracking_id="", tracking_uid="", voxels=1,
    )  # fmt: skip


def decoded(shape: tuple[int, int, int], kind: str = "BINARY") -> DecodedSeg:
    planes = SegmentPlanes(MAX_BYTES)
    for number in (1, 2):
        plane = np.zeros(shape[1:], np.float32 if kind == "FRACTIONAL" else bool)
        plane[3 * number : 3 * number + 2, 1:4] = 0.75 if kind == "FRACTIONAL" else 1
        for k in (1, shape[0] - 1):
            planes.add(number, k, plane)
    row, column = (0.8, 0.6, 0.0), (-0.6, 0.8, 0.0)
    affine = affine_lps((-10.0, 5.0, 100.0), row, column, (0.7, 0.9), 2.5)
    positions = tuple((-10.0, 5.0, 100.0 + 2.5 * k) for k in range(shape[0]))
    return DecodedSeg(
        sop_instance_uid="1.2", series_instance_uid="1.3", study_instance_uid="1.4", frame_of_reference_uid="1.5",
        source_series_uid="1.6", series_description="", segmentation_type=kind,
        grid=Grid(shape, affine, (2.5, 0.7, 0.9), positions), segments=(segment(1), segment(2)), referenced=(),
        on_source_grid=False, issues=(), planes=planes,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_nifti_is_what_nibabel_writes(tmp_path: Path, kind: str) -> None:
    seg = decoded((6, 12, 9), kind)
    write_masks(seg, "nifti", tmp_path)
    array = seg.fraction(2) if kind == "FRACTIONAL" else seg.mask(2).astype(np.uint8)
    affine = np.array(lps_to_ras(np.array(seg.grid.affine_lps)))
    expected = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)  # type: ignore[no-untyped-call]
    expected.header.set_xyzt_units("mm")
    expected.header["descrip"] = b"ctenrich"
    assert gzip.decompress((tmp_path / "002_organ_2.nii.gz").read_bytes()) == expected.to_bytes()


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_nrrd_is_read_by_simpleitk(tmp_path: Path, kind: str) -> None:
    seg = decoded((6, 12, 9), kind)
    write_masks(seg, "nrrd", tmp_path)
    image = SimpleITK.ReadImage(str(tmp_path / "001_organ_1.nrrd"))
    array = seg.fraction(1) if kind == "FRACTIONAL" else seg.mask(1).astype(np.uint8)
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), array)
    affine = np.array(seg.grid.affine_lps)
    assert np.allclose(image.GetOrigin(), affine[:3, 3])
    assert np.allclose(np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing(), affine[:3, :3])
    if kind == "BINARY":
        labels = SimpleITK.ReadImage(str(tmp_path / "labels.seg.nrrd"))
        assert np.array_equal(SimpleITK.GetArrayFromImage(labels), seg.label_map())
        assert labels.GetMetaData("Segment1_Name") == "organ_2"


@pytest.mark.parametrize("fmt", ["nifti", "nrrd"])
def test_one_slice_at_a_time_is_in_memory(tmp_path: Path, fmt: str) -> None:
    seg = decoded((2000, 128, 128))
    tracemalloc.start()
    write_masks(seg, fmt, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 1024**2 < 2000 * 128 * 128

"""Every archive of real data through fetch, sort and convert: the verdict that its description implies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.support.small_series import folder_entry

from ctenrich.dicom.ct_slice import HEADER_TAGS, read_slice
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.values import text
from ctenrich.errors import CtenrichError, InputError
from ctenrich.geometry import apply_affine, lps_to_ras
from ctenrich.records import SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.stages.convert import convert_series
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace, load_array

pytestmark = pytest.mark.data
RealData = Callable[[str], Path]

EXPECTED = {
    "LUNG1-001": {"712563382046": (134, 512, 512)},
    "LUNG1-002-RT": {"941323261228": (111, 512, 512)},
    "LUNG1-005": {"477428468747": (91, 512, 512)},
    "4D-Lung-113": {"995936229543": (99, 512, 512)},
    "ibsi": {"841519593982": (60, 201, 204)},
    "awkward": {
        "871369966444": "LOCALIZER",
        "151607525240": "LOCALIZER",
        "620677418685": (30, 512, 512),
        "150714813892": "LATERAL_DRIFT",
        "503286111321": "NOT_CT",
    },
    "ref_objects": {
        "424112888259": "LOCALIZER",
        ".3.3456.3456": "MULTIFRAME",
        "902700569139": "NOT_HU",  # crops of soft tissue without air, and no Rescale Type
        "3.10.23430.1": (3, 512, 512),
        "069050794718": "NOT_HU",
        "241703565.43": "ONE_SLICE",
        "072730.12322": "NOT_CT",
    },
    "totalseg": {"": "UNSAFE_IDENTIFIER"},
}


def ct_series(root: Path) -> dict[str, tuple[str, set[Path]]]:
    """Series with a CT image: UID -> (study, folders)."""
    found: dict[str, tuple[str, set[Path]]] = defaultdict(lambda: ("", set()))
    with quiet():
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            try:
                with open_dicom(path, tags=HEADER_TAGS) as parsed:
                    data = parsed.dataset
                    if text(data, "Modality") == "CT":
                        uid = text(data, "SeriesInstanceUID")
                        found[uid] = (text(data, "StudyInstanceUID"), found[uid][1] | {path.parent})
            except InputError:
                continue
    return dict(found)


def through(root: Path, uid: str, workspace: Workspace) -> tuple[SortedSeries, Volume]:
    study, folders = ct_series(root)[uid]
    entry = folder_entry(*sorted(folders), study_instance_uid=study, series_instance_uid=uid)
    fetched = fetch_series(entry, settings=Settings(), workspace=workspace)
    series = sort_series(fetched, settings=Settings(), workspace=workspace)
    return series, convert_series(series, settings=Settings(), workspace=workspace)


def check_by_a_third_reader(series: SortedSeries, volume: Volume, workspace: Workspace) -> None:
    """SimpleITK, which is no part of convert, on the files in our order: the same voxels at the same places."""
    import SimpleITK

    uid = series.series_instance_uid
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(workspace.resolve(uid, s.path)) for s in series.slices])
    image = reader.Execute()
    ours, theirs = load_array(workspace.resolve(uid, volume.array_path)), SimpleITK.GetArrayViewFromImage(image)
    padded = any(i.rule == "convert.padding" for i in volume.issues)
    assert np.array_equal(ours, theirs) or (padded and ((ours == theirs) | (ours == -1024)).all())
    ends = [(i, j, k) for i in (0, ours.shape[2] - 1) for j in (0, ours.shape[1] - 1) for k in (0, ours.shape[0] - 1)]
    there = [image.TransformIndexToPhysicalPoint(end) for end in ends]
    assert float(np.abs(apply_affine(volume.affine_lps, np.array(ends, float)) - there).max()) < 0.05


@pytest.mark.long
@pytest.mark.parametrize("archive", sorted(EXPECTED))
def test_every_series_has_the_verdict_that_its_description_implies(
    real_data: RealData, workspace: Workspace, archive: str
) -> None:
    root = real_data(archive)
    verdicts: dict[str, object] = {}
    for uid in ct_series(root):
        try:
            series, volume = through(root, uid, workspace)
        except CtenrichError as error:
            verdicts[uid[-12:]] = error.reason.value
        else:
            # dcm2niix agreed on every voxel, or there would be no volume
            assert volume.nifti_path is not None
            assert volume.shape == series.shape
            check_by_a_third_reader(series, volume, workspace)
            verdicts[uid[-12:]] = volume.shape
    assert verdicts == EXPECTED[archive]


def test_the_ibsi_phantom_equals_its_reference_nifti(real_data: RealData, workspace: Workspace) -> None:
    root = real_data("ibsi")
    uid = next(iter(ct_series(root)))
    _, volume = through(root, uid, workspace)
    ours = load_array(workspace.resolve(uid, volume.array_path))
    (path,) = root.rglob("ct_phantom/nifti/image/*.nii*")
    image = nibabel.load(path)
    theirs = np.asarray(image.dataobj)
    k, j, i = np.meshgrid(*(np.arange(0, n, 7) for n in ours.shape), indexing="ij")
    world = apply_affine(lps_to_ras(volume.affine_lps), np.stack([i, j, k], -1).astype(float))
    x, y, z = np.moveaxis(np.rint(apply_affine(np.linalg.inv(image.affine), world)).astype(int), -1, 0)
    np.testing.assert_array_equal(theirs[x, y, z], ours[k, j, i])
    assert sorted(theirs.shape) == sorted(ours.shape)
    np.testing.assert_array_equal(np.sort(theirs.ravel()), np.sort(ours.ravel()))
    placed = apply_affine(image.affine, np.stack([x, y, z], -1).astype(float))
    assert float(np.abs(placed - world).max()) < 1e-3


def test_jpeg_2000_slices_of_a_ct_without_identifiers_are_decoded(real_data: RealData) -> None:
    from pydicom import dcmread

    paths = sorted(p for p in (real_data("totalseg") / "totalseg" / "example_ct_dicom").iterdir() if p.is_file())
    compared = 0
    for path in paths[:5]:
        with quiet():
            pixels = read_slice(path)
            data = dcmread(path)
            expected = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        np.testing.assert_array_equal(pixels.hu, expected)
        compared += 1
    assert compared == 5


def test_companions_in_a_flat_folder_are_found_by_frame_of_reference(real_data: RealData, workspace: Workspace) -> None:
    root = real_data("LUNG1-002-RT")
    ((uid, (study, folders)),) = ct_series(root).items()
    entry = folder_entry(*folders, study_instance_uid=study, series_instance_uid=uid)
    fetched = fetch_series(entry, settings=Settings(), workspace=workspace)
    series = sort_series(fetched, settings=Settings(), workspace=workspace)
    assert len(series.slices) == 111
    assert len(series.companions) == 1
    with quiet(), open_dicom(Path(series.companions[0])) as parsed:
        assert text(parsed.dataset, "Modality") == "RTSTRUCT"

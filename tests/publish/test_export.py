"""Export: masks on the full grid of the CT in NIfTI and NRRD, measurements in CSV; others' objects too."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from tests.support.encode_cases import Grid, make_expert_masks, make_masks, make_series, make_shape, volume_of

from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import InputError, UsageError
from ctenrich.masks import full_mask
from ctenrich.publish.export import export_objects, export_run
from ctenrich.records import SegmentMasks, SortedSeries
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, save_record

OBLIQUE = Grid(row=(0.8, 0.6, 0.0), column=(-0.6, 0.8, 0.0))


def run(tmp_path: Path, workspace: Workspace, grid: Grid | None = None) -> tuple[SortedSeries, list[SegmentMasks]]:
    series, volume = make_series(tmp_path / "ct", grid)
    save_record(workspace.series_dir(series.series_instance_uid) / "sorted.json", series)
    out = []
    for masks in (make_masks(series, workspace), make_expert_masks(series, workspace)):
        seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
        encode_shape_sr(make_shape(masks), masks, seg, series, settings=Settings(), workspace=workspace)
        out.append(masks)
    return series, out


@dataclass(frozen=True)
class Made:
    """A run with two products, exported by nobody yet."""

    workspace: Workspace
    series: SortedSeries
    products: list[SegmentMasks]
    ct: Path


@pytest.fixture(scope="module")
def axial(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("axial")
    workspace = Workspace(folder / "run")
    return Made(workspace, *run(folder, workspace), folder / "ct")


@pytest.fixture(scope="module")
def oblique(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("oblique")
    workspace = Workspace(folder / "run")
    return Made(workspace, *run(folder, workspace, OBLIQUE), folder / "ct")


def centroid(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    k, j, i = np.argwhere(mask).mean(axis=0)
    return (affine @ np.array([i, j, k, 1.0]))[:3]


@pytest.mark.parametrize("fmt", ["nifti", "nrrd"])
@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_masks_have_the_shape_and_place_of_the_ct(
    fmt: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(name)
    workspace, series, products = made.workspace, made.series, made.products
    files = export_run(workspace, fmt, tmp_path / "out")
    affine = np.array(volume_of(series).affine_lps)
    for masks in products:
        folder = tmp_path / "out" / series.series_instance_uid / masks.product.folder
        for segment in masks.segments:
            (path,) = folder.glob(f"{segment.number:03d}_{segment.name}.*")
            assert path in files
            if fmt == "nifti":
                image = nibabel.load(path)
                array = np.asarray(image.dataobj).transpose(2, 1, 0)
                lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
            else:
                image = SimpleITK.ReadImage(str(path))
                array = SimpleITK.GetArrayFromImage(image)
                turn = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
                lps = np.eye(4)
                lps[:3, :3], lps[:3, 3] = turn, image.GetOrigin()
            expected = full_mask(masks, segment.number, workspace)
            assert array.shape == series.shape
            assert np.array_equal(array > 0, expected)
            assert np.allclose(lps, affine, atol=1e-4 if fmt == "nifti" else 1e-9)
            if not segment.absent:
                assert np.allclose(centroid(array > 0, lps), centroid(expected, affine), atol=0.01)
        described = json.loads((folder / "segments.json").read_text())
        assert described["on_source_grid"]
        assert not described["issues"]
        assert described["label_map"] is (masks.label_map_path is not None)


def test_label_map_names_its_segments(tmp_path: Path, axial: Made) -> None:
    workspace, series, masks = axial.workspace, axial.series, axial.products[0]
    export_run(workspace, "nrrd", tmp_path / "out")
    path = tmp_path / "out" / series.series_instance_uid / masks.product.folder / "labels.seg.nrrd"
    image = SimpleITK.ReadImage(str(path))
    labels = SimpleITK.GetArrayFromImage(image)
    assert np.array_equal(labels == 2, full_mask(masks, 2, workspace))
    assert image.GetMetaData("Segment1_Name") == "heart"
    assert image.GetMetaData("Segment1_LabelValue") == "2"
    expert = tmp_path / "out" / series.series_instance_uid / "expert"
    assert not list(expert.glob("labels*"))


def test_the_same_bytes_twice(tmp_path: Path, axial: Made) -> None:
    for fmt in ("nifti", "nrrd", "csv"):
        one = export_run(axial.workspace, fmt, tmp_path / "one")
        two = export_run(axial.workspace, fmt, tmp_path / "two")
        assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_csv_has_every_number(tmp_path: Path, axial: Made) -> None:
    series, products = axial.series, axial.products
    (path,) = export_run(axial.workspace, "csv", tmp_path / "out")
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    expected = [v for m in products for s in make_shape(m).segments for v in s.values.values()]
    assert sorted(float(r["value"]) for r in rows if r["value"]) == sorted(expected)
    assert [r["evaluation"] for r in rows if r["evaluation"]] == ["Absent", "Absent"]
    assert {r["series_instance_uid"] for r in rows} == {series.series_instance_uid}
    assert {r["laterality"] for r in rows if r["finding_site"] == "Lung" and r["finding"] == "Organ"} == {"Left"}


def test_unknown_format_and_empty_run(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(UsageError):
        export_run(workspace, "mat", tmp_path)
    with pytest.raises(InputError):
        export_run(workspace, "nifti", tmp_path)


def test_objects_beside_a_ct_folder(tmp_path: Path, axial: Made) -> None:
    workspace, series, masks = axial.workspace, axial.series, axial.products[0]
    folder = workspace.product_dir(series.series_instance_uid, masks.product) / "objects"
    files, issues = export_objects([folder], "nifti", tmp_path / "out", source=axial.ct)
    assert not issues
    heart = next(p for p in files if p.name == "002_heart.nii.gz")
    assert np.array_equal(
        np.asarray(nibabel.load(heart).dataobj).transpose(2, 1, 0) > 0, full_mask(masks, 2, workspace)
    )
    table, _ = export_objects([folder], "csv", tmp_path / "out")
    assert table[0].name == "measurements.csv"
    with pytest.raises(InputError):
        export_objects([axial.ct], "csv", tmp_path / "none")


@pytest.mark.data
def test_others_objects(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = real_data("LUNG1-005")
    (seg,) = folder.rglob("300-Segmentation*/*.dcm")
    files, issues = export_objects([seg], "nifti", tmp_path / "out", source=folder)
    assert any("0 of 91 referenced instances" in i.message for i in issues)
    mask = next(p for p in files if p.name.startswith("001_"))
    image = nibabel.load(mask)
    assert image.shape == (512, 512, 91)
    assert int(np.count_nonzero(np.asarray(image.dataobj))) == 29176
    others = real_data("ref_objects") / "ref_objects"
    files, _ = export_objects([others / "dcmqi_data/segmentations"], "nrrd", tmp_path / "dcmqi")
    assert len([p for p in files if p.name == "segments.json"]) >= 6

"""Images beside masks, pyradiomics' table of cases, and data sets for nnU-Net, read by those programs."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from tests.support.encode_cases import EXPERT, Grid, make_expert_masks, make_masks, make_series
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.encode.seg import encode_seg
from ctenrich.errors import InputError, UsageError
from ctenrich.masks import full_mask
from ctenrich.publish.export import export_run
from ctenrich.publish.images import export_images
from ctenrich.publish.nnunet_raw import RawDatasetOptions, export_nnunet_raw
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, SortedSeries
from ctenrich.settings import Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.workspace import Workspace, save_array, save_record

OBLIQUE = Grid(row=(0.8, 0.6, 0.0), column=(-0.6, 0.8, 0.0))


@dataclass(frozen=True)
class Case:
    """A series of the run."""

    series: SortedSeries
    ct: np.ndarray
    network: SegmentMasks
    expert: SegmentMasks


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Case]]:
    """Two series, each with masks of a network and with those of an expert."""
    root = tmp_path_factory.mktemp("training")
    workspace = Workspace(root / "run")
    cases = []
    for number, grid in enumerate((Grid(), OBLIQUE)):
        series, volume = make_series(root / str(number), grid)
        folder = workspace.series_dir(series.series_instance_uid)
        ct = np.random.default_rng(number).integers(-1000, 1500, series.shape, np.int16)
        save_array(folder / volume.array_path, ct)
        save_record(folder / "sorted.json", series)
        save_record(folder / "volume.json", volume)
        products = (make_masks(series, workspace), make_expert_masks(series, workspace))
        for masks in products:
            encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
            save_record(workspace.product_dir(series.series_instance_uid, masks.product) / "masks.json", masks)
        cases.append(Case(series, ct, *products))
    return workspace, cases


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("fmt", ["nifti", "nrrd"])
def test_the_image_is_on_the_grid_of_the_masks(fmt: str, made: tuple[Workspace, list[Case]], tmp_path: Path) -> None:
    workspace, cases = made
    export_images(workspace, export_run(workspace, fmt, tmp_path), fmt, tmp_path)
    found = rows(tmp_path / "pyradiomics.csv")
    for case in cases:
        present = [s for m in (case.network, case.expert) for s in m.segments if not s.absent]
        own = [row for row in found if row["SeriesInstanceUID"] == case.series.series_instance_uid]
        assert len(own) == len(present)
        for row in own:
            image, mask = (SimpleITK.ReadImage(str(tmp_path / row[key])) for key in ("Image", "Mask"))
            assert np.array_equal(SimpleITK.GetArrayFromImage(image), case.ct)
            assert SimpleITK.GetArrayFromImage(mask).any()
            for one, other in (
                (image.GetOrigin(), mask.GetOrigin()),
                (image.GetSpacing(), mask.GetSpacing()),
                (image.GetDirection(), mask.GetDirection()),
            ):
                assert one == other
            position = image.TransformIndexToPhysicalPoint((0, 0, 0))
            assert np.allclose(position, case.series.slices[0].position, atol=1e-4)


@pytest.mark.long
def test_pyradiomics_reads_its_table(made: tuple[Workspace, list[Case]], tmp_path: Path) -> None:
    """Its batch mode measures the mean intensity under every mask; the table's paths are relative to the table."""
    workspace, cases = made
    export_images(workspace, export_run(workspace, "nrrd", tmp_path), "nrrd", tmp_path)
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("imageType: {Original: {}}\nfeatureClass: {firstorder: [Mean], shape: [VoxelVolume]}\n")
    arguments = [tmp_path / "pyradiomics.csv", "-o", tmp_path / "out.csv", "-f", "csv", "-p", parameters, "-v", "1"]
    run_tool([find_tool("pyradiomics"), *arguments])
    found = rows(tmp_path / "out.csv")
    case = cases[0]
    mine = {
        (r["Product"], int(r["SegmentNumber"])): r
        for r in found
        if r["SeriesInstanceUID"] == case.series.series_instance_uid
    }
    for masks in (case.network, case.expert):
        for segment in masks.segments:
            if segment.absent:
                continue
            inside = full_mask(masks, segment.number, workspace)
            row = mine[(masks.product.folder, segment.number)]
            assert float(row["original_firstorder_Mean"]) == pytest.approx(case.ct[inside].mean())
            assert float(row["original_shape_VoxelVolume"]) > 0


def test_a_volume_that_was_removed(made: tuple[Workspace, list[Case]], tmp_path: Path) -> None:
    workspace, _ = made
    found = export_run(workspace, "nrrd", tmp_path)
    empty = Workspace(tmp_path / "other")
    with pytest.raises(InputError, match="no volume") as caught:
        export_images(empty, found, "nrrd", tmp_path)
    assert caught.value.reason is Reason.NOT_PREPARED
    with pytest.raises(UsageError, match="nifti or nrrd"):
        export_images(workspace, found, "csv", tmp_path)


# ---------------------------------------------------------------- nnU-Net


@pytest.mark.long
def test_nnunet_finds_no_fault_in_the_data_set(made: tuple[Workspace, list[Case]], tmp_path: Path) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    workspace, cases = made
    product = str(cases[0].network.product)
    found = export_nnunet_raw(workspace, tmp_path, RawDatasetOptions(product=product, name="Dataset701_Organs"))
    assert [c.case for c in found] == ["case_0001", "case_0002"]
    folder = tmp_path / "Dataset701_Organs"
    verify_dataset_integrity(str(folder), num_processes=1)
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "aorta": 1, "esophagus": 2, "heart": 3, "trachea": 4}
    by_uid = {row["SeriesInstanceUID"]: row["case"] for row in rows(folder / "cases.csv")}
    for case in cases:
        name = by_uid[case.series.series_instance_uid]
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "labelsTr" / f"{name}.nii.gz")))
        image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "imagesTr" / f"{name}_0000.nii.gz")))
        assert np.array_equal(image, case.ct)
        for segment in case.network.segments:
            expected = full_mask(case.network, segment.number, workspace)
            assert np.array_equal(labels == described["labels"][segment.name], expected)


def test_structures_that_overlap_are_refused(made: tuple[Workspace, list[Case]], tmp_path: Path) -> None:
    workspace, _ = made
    with pytest.raises(InputError, match="overlap: a label map cannot hold both"):
        export_nnunet_raw(workspace, tmp_path, RawDatasetOptions(product="expert", name="Dataset702_All"))
    assert not (tmp_path / "Dataset702_All").exists()
    options = RawDatasetOptions(product="expert", name="Dataset702_All", structures=("lung_left",))
    assert len(export_nnunet_raw(workspace, tmp_path, options)) == 2
    described = json.loads((tmp_path / "Dataset702_All" / "dataset.json").read_text())
    assert (described["labels"], described["numTraining"]) == ({"background": 0, "lung_left": 1}, 2)


def test_a_series_without_a_structure_is_no_case(tmp_path: Path) -> None:
    """Its voxels would be trained as background."""
    workspace = Workspace(tmp_path / "run")
    for grid in (Grid(), OBLIQUE):
        series, volume = make_series(tmp_path / "ct", grid)
        folder = workspace.series_dir(series.series_instance_uid)
        save_array(folder / volume.array_path, np.zeros(series.shape, np.int16))
        save_record(folder / "sorted.json", series)
        save_record(folder / "volume.json", volume)
        masks = make_expert_masks(series, workspace)
        if grid is OBLIQUE:
            masks = replace(masks, segments=masks.segments[:-1])
        encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
        save_record(workspace.product_dir(series.series_instance_uid, EXPERT) / "masks.json", masks)
    options = RawDatasetOptions(product="expert", name="Dataset703_Heart", structures=("heart", "spinal_cord"))
    found = export_nnunet_raw(workspace, tmp_path / "out", options)
    assert sorted((c.case, c.reason, c.message) for c in found) == [
        ("", Reason.MISSING_MASKS, "not segmented: spinal_cord"),
        ("case_0001", None, ""),
    ]
    arguments = ["nnunet-raw", "--product", "expert", "--dataset", "Dataset704_Heart", "--structure", "heart"]
    (workspace.root / "run.json").write_text("{}")
    result = CliRunner().invoke(app, ["export", str(workspace.root), *arguments[:3]])
    assert result.exit_code == 2
    assert "--dataset" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RawDatasetOptions(product="expert", name="Lungs"), "not a name of a data set"),
        (RawDatasetOptions(product="experts", name="Dataset701_A"), "no SEG of 'experts'"),
        (RawDatasetOptions(product="expert", name="Dataset701_A", structures=("lungs",)), "no SEG has a segment"),
    ],
)
def test_wrong_requests(
    options: RawDatasetOptions, message: str, made: tuple[Workspace, list[Case]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export_nnunet_raw(made[0], tmp_path, options)


def test_a_data_set_is_not_added_to(made: tuple[Workspace, list[Case]], tmp_path: Path) -> None:
    (tmp_path / "Dataset701_A").mkdir()
    with pytest.raises(UsageError, match="exists"):
        export_nnunet_raw(made[0], tmp_path, RawDatasetOptions(product="expert", name="Dataset701_A"))

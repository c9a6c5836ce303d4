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
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from tests.support.encode_cases import Grid, make_expert_masks, make_masks, make_series, make_shape, volume_of
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import InputError, UsageError
from ctenrich.masks import full_mask
from ctenrich.publish.export import export_objects, export_run
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, Severity, SortedSeries, State
from ctenrich.settings import SegSettings, Settings
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
    files = export_run(workspace, fmt, tmp_path / "out").files
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
        one = export_run(axial.workspace, fmt, tmp_path / "one").files
        two = export_run(axial.workspace, fmt, tmp_path / "two").files
        assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_csv_has_every_number(tmp_path: Path, axial: Made) -> None:
    series, products = axial.series, axial.products
    (path,) = export_run(axial.workspace, "csv", tmp_path / "out").files
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
    found = export_objects([folder], "nifti", tmp_path / "out", source=axial.ct)
    assert not found.issues
    heart = next(p for p in found.files if p.name == "002_heart.nii.gz")
    assert np.array_equal(
        np.asarray(nibabel.load(heart).dataobj).transpose(2, 1, 0) > 0, full_mask(masks, 2, workspace)
    )
    (table,) = export_objects([folder], "csv", tmp_path / "out").files
    assert table.name == "measurements.csv"
    with pytest.raises(InputError):
        export_objects([axial.ct], "csv", tmp_path / "none")


@pytest.mark.data
def test_others_objects(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = real_data("LUNG1-005")
    (seg,) = folder.rglob("300-Segmentation*/*.dcm")
    found = export_objects([seg], "nifti", tmp_path / "out", source=folder)
    assert any("0 of 91 referenced instances" in i.message for i in found.issues)
    mask = next(p for p in found.files if p.name.startswith("001_"))
    image = nibabel.load(mask)
    assert image.shape == (512, 512, 91)
    assert int(np.count_nonzero(np.asarray(image.dataobj))) == 29176
    others = real_data("ref_objects") / "ref_objects"
    found = export_objects([others / "dcmqi_data/segmentations"], "nrrd", tmp_path / "dcmqi")
    assert [item.name for item in found.objects if item.state is State.DONE] == [
        "23x38x3/seg/label.seg",
        "24x38x3/seg/label.seg",
        "liver.dcm",
        "partial_overlaps.dcm",
        "sparse-labelmap-noppv.dcm",
        "sparse-labelmap-ppv5.dcm",
    ]
    assert found.count(State.SKIPPED) == 11
    maps = export_objects([others / "dcmqi_data"], "nifti", tmp_path / "all")
    assert any(
        item.message.startswith("Real World Value Mapping Storage: its values are those of images")
        for item in maps.objects
    )


def seg_of(made: Made) -> Path:
    """The model's SEG of a run."""
    folder = made.workspace.product_dir(made.series.series_instance_uid, made.products[0].product) / "objects"
    return next(p for p in folder.glob("*.dcm") if dcmread(p).Modality == "SEG")


def on_disk(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if p.is_file()}


def test_objects_of_one_name_do_not_overwrite_each_other(tmp_path: Path, axial: Made) -> None:
    """In two folders; in one folder with two suffixes, in two spellings, and as a copy of the same object."""
    seg, given = seg_of(axial), tmp_path / "given"
    other = dcmread(seg)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.10.9.1"
    for name in ("a/seg.dcm", "b/seg.dcm", "b/seg", "b/SEG.dcm"):
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).write_bytes(seg.read_bytes())
    other.save_as(given / "b" / "seg.dicom")
    found = export_objects([given, seg], "nifti", tmp_path / "out")
    assert (len(found.objects), found.count(State.DONE)) == (6, 6)
    assert len({item.files[0].parent for item in found.objects}) == 6
    assert set(found.files) == on_disk(tmp_path / "out")
    assert len(found.files) == 6 * len(found.objects[0].files)
    assert (tmp_path / "out" / "a" / "seg" / "segments.json").is_file()
    names = {path.parent.relative_to(tmp_path / "out").as_posix().casefold() for path in found.files}
    assert len(names) == 6, "also where file systems do not tell upper from lower case"


def test_what_is_damaged_is_named_and_ends_nothing_else(tmp_path: Path, axial: Made) -> None:
    seg, given = seg_of(axial), tmp_path / "given"
    given.mkdir()
    content = seg.read_bytes()
    (given / "b_good.dcm").write_bytes(content)
    (given / "a_short.dcm").write_bytes(content[:-200])
    (given / "c_noise.dcm").write_bytes(b"no DICOM at all")
    (given / "d_header.dcm").write_bytes(content[:300])
    (given / "e_text.txt").write_text("a note beside the objects")
    strange = dcmread(seg)
    del strange.PerFrameFunctionalGroupsSequence
    strange.save_as(given / "f_groups.dcm")
    found = export_objects([given], "nifti", tmp_path / "out")
    states = {item.name: (item.state, item.reason) for item in found.objects}
    assert states.pop("b_good.dcm") == (State.DONE, None)
    assert states["a_short.dcm"] == (State.FAILED, Reason.TRUNCATED)
    assert states["c_noise.dcm"] == (State.FAILED, Reason.NOT_DICOM)
    assert states["d_header.dcm"] == (State.FAILED, Reason.NOT_DICOM)
    assert states["f_groups.dcm"] == (State.FAILED, Reason.MISSING_GEOMETRY)
    assert set(states) == {"a_short.dcm", "c_noise.dcm", "d_header.dcm", "f_groups.dcm"}
    assert set(found.files) == on_disk(tmp_path / "out")
    result = CliRunner().invoke(app, ["export", str(given), "nrrd", "--out", str(tmp_path / "again")])
    assert result.exit_code == 1
    assert "5 objects: 1 done, 0 skipped, 4 failed" in result.output
    assert all(name in result.output for name in states)


def test_a_damaged_object_of_a_run_is_its_own_outcome(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run")
    run(tmp_path, workspace)
    paths = sorted(workspace.root.glob("series/*/*/objects/*.dcm"))
    bad = next(p for p in paths if dcmread(p).Modality == "SEG")
    bad.write_bytes(bad.read_bytes()[:-100])
    found = export_run(workspace, "nifti", tmp_path / "out")
    assert [item.name for item in found.objects if item.state is State.FAILED] == [
        bad.relative_to(workspace.root).as_posix()
    ]
    assert found.count(State.DONE) == 1
    reports = [p for p in paths if dcmread(p).Modality == "SR"]
    reports[0].write_bytes(b"")
    table = export_run(workspace, "csv", tmp_path / "out")
    assert (table.count(State.DONE), table.count(State.FAILED)) == (1, 1)


def other_class(path: Path, sop_class: str) -> None:
    """A file with nothing but identifiers."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = sop_class, "1.2.826.0.1.3680043.10.9.2"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = sop_class, data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("sop_class", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "12-lead ECG Waveform Storage"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set Storage"),
        ("1.2.840.10008.5.1.4.1.1.66.5", "Surface Segmentation Storage"),
    ],
)
def test_an_object_of_another_kind_is_named(sop_class: str, name: str, tmp_path: Path, axial: Made) -> None:
    other_class(tmp_path / "given" / "one.dcm", sop_class)
    with pytest.raises(InputError) as caught:
        export_objects([tmp_path / "given"], "nifti", tmp_path / "out")
    assert caught.value.reason is Reason.NOT_FOUND
    assert f"1 {name}" in caught.value.message
    (tmp_path / "given" / "seg.dcm").write_bytes(seg_of(axial).read_bytes())
    found = export_objects([tmp_path / "given"], "nifti", tmp_path / "out")
    assert [(item.name, item.state) for item in found.objects] == [("one.dcm", State.SKIPPED), ("seg.dcm", State.DONE)]
    assert found.objects[0].message == f"{name}: not a SEG or parametric map"


def test_paths_that_do_not_exist(tmp_path: Path, axial: Made) -> None:
    for paths, source in (([tmp_path / "none"], None), ([seg_of(axial)], tmp_path / "none")):
        with pytest.raises(UsageError) as caught:
            export_objects(paths, "nifti", tmp_path / "out", source=source)
        assert caught.value.reason is Reason.NOT_FOUND
        assert "none" in caught.value.message


# ---------------------------------------------------------------- sources


def changed_source(folder: Path, made: Made, **attributes: object) -> Path:
    """The CT of a run with other attributes."""
    folder.mkdir(parents=True)
    for number, one in enumerate(made.series.slices):
        data = dcmread(made.ct / Path(one.path).name if not Path(one.path).is_absolute() else one.path)
        for keyword, value in attributes.items():
            setattr(data, keyword, value[number] if isinstance(value, list) else value)
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.save_as(folder / f"{number}.dcm")
    return folder


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [("MR", "1.2.840.10008.5.1.4.1.1.4"), ("PT", "1.2.840.10008.5.1.4.1.1.128")],
)
def test_sources_of_other_modalities(modality: str, sop_class: str, tmp_path: Path, axial: Made) -> None:
    source = changed_source(tmp_path / "source", axial, Modality=modality, SOPClassUID=sop_class)
    found = export_objects([seg_of(axial)], "nifti", tmp_path / "out", source=source)
    assert not found.issues
    described = json.loads((tmp_path / "out" / seg_of(axial).stem / "segments.json").read_text())
    assert described["on_source_grid"]
    assert tuple(described["shape_kji"]) == axial.series.shape


def multi_frame(folder: Path, made: Made, sop_class: str, modality: str) -> Path:
    """The CT of a run as one multi-frame image, its frames in reverse order."""
    other_class(folder / "image.dcm", sop_class)
    data = dcmread(folder / "image.dcm")
    series = made.series
    data.Modality, data.SeriesInstanceUID = modality, series.series_instance_uid
    data.StudyInstanceUID, data.FrameOfReferenceUID = series.study_instance_uid, series.frame_of_reference_uid
    data.Rows, data.Columns, data.NumberOfFrames = series.rows, series.columns, len(series.slices)
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(series.pixel_spacing), series.slice_spacing
    turn.ImageOrientationPatient = [*series.row_cosines, *series.column_cosines]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    frames = []
    for one in reversed(series.slices):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = list(one.position)
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    data.save_as(folder / "image.dcm")
    return folder


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1.2.840.10008.5.1.4.1.1.2.1", "CT"),
        ("1.2.840.10008.5.1.4.1.1.2.2", "CT"),
        ("1.2.840.10008.5.1.4.1.1.4.1", "MR"),
        ("1.2.840.10008.5.1.4.1.1.130", "PT"),
    ],
)
def test_multi_frame_sources(sop_class: str, modality: str, tmp_path: Path, axial: Made) -> None:
    source = multi_frame(tmp_path / "source", axial, sop_class, modality)
    found = export_objects([seg_of(axial)], "nifti", tmp_path / "out", source=source)
    described = json.loads((tmp_path / "out" / seg_of(axial).stem / "segments.json").read_text())
    assert described["on_source_grid"]
    assert tuple(described["shape_kji"]) == axial.series.shape
    heart = next(p for p in found.files if p.name == "002_heart.nii.gz")
    expected = full_mask(axial.products[0], 2, axial.workspace)
    assert np.array_equal(np.asarray(nibabel.load(heart).dataobj).transpose(2, 1, 0) > 0, expected)
    assert [i.rule for i in found.issues] == ["SEG_REFERENCES"], "the SEG refers to single slices, which are not there"


def test_several_images_at_one_position(tmp_path: Path, axial: Made) -> None:
    """Echoes of one MR series: those that the SEG refers to are its source."""
    uids = [f"1.2.826.0.1.3680043.10.9.3.{n}" for n in range(len(axial.series.slices))]
    source = changed_source(tmp_path / "source" / "a", axial, Modality="MR", SOPInstanceUID=uids).parent
    changed_source(source / "b", axial, Modality="MR")
    found = export_objects([seg_of(axial)], "nifti", tmp_path / "out", source=source)
    assert not found.issues


@pytest.mark.parametrize("fault", ["empty", "two others", "irregular", "no position"])
def test_a_source_that_does_not_fit_is_a_warning(fault: str, tmp_path: Path, axial: Made) -> None:
    source = tmp_path / "source"
    if fault == "empty":
        source.mkdir()
    elif fault == "two others":
        for number in (1, 2):
            changed_source(source / str(number), axial, SeriesInstanceUID=f"1.2.826.0.1.3680043.10.9.4.{number}")
    else:
        places: list[object] = [list(one.position) for one in axial.series.slices]
        places[1] = [*axial.series.slices[1].position[:2], 1000.0] if fault == "irregular" else None
        changed_source(source, axial, ImagePositionPatient=places)
    found = export_objects([seg_of(axial)], "nifti", tmp_path / "out", source=source)
    assert found.count(State.DONE) == 1
    assert [(i.rule, i.severity) for i in found.issues] == [("SEG_SOURCE", Severity.WARNING)]
    described = json.loads((tmp_path / "out" / seg_of(axial).stem / "segments.json").read_text())
    assert not described["on_source_grid"]
    arguments = ["export", str(seg_of(axial)), "nifti", "--out", str(tmp_path / "cli"), "--source", str(source)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "the source does not fit" in result.output


def test_no_cell_of_the_table_is_a_formula(tmp_path: Path, axial: Made) -> None:
    folder = axial.workspace.product_dir(axial.series.series_instance_uid, axial.products[0].product) / "objects"
    report = dcmread(next(p for p in folder.glob("*.dcm") if dcmread(p).Modality == "SR"))
    report.SeriesDescription = '=HYPERLINK("http://example.org";"open")'
    (tmp_path / "given").mkdir()
    report.save_as(tmp_path / "given" / "@sum(1).dcm")
    (table,) = export_objects([tmp_path / "given"], "csv", tmp_path / "out").files
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["series_description"] for row in rows} == {f"'{report.SeriesDescription}"}
    assert {row["product"] for row in rows} == {"'@sum(1)"}
    assert all(float(row["value"]) for row in rows if row["value"]), "numbers stay numbers"


def test_the_largest_grid_is_a_setting_and_an_option(tmp_path: Path, axial: Made) -> None:
    seg = seg_of(axial)
    for limits in (SegSettings(max_voxels=10), SegSettings(max_bytes=10)):
        (item,) = export_objects([seg], "nifti", tmp_path / "out", limits=limits).objects
        assert (item.state, item.reason) == (State.FAILED, Reason.DECOMPRESSION_BOMB)
        assert "seg.max_" in item.message
    settings = tmp_path / "settings.toml"
    settings.write_text("[seg]\nmax_voxels = 10\n")
    line = ["export", str(seg), "nifti", "--out", str(tmp_path / "cli"), "--settings", str(settings)]
    refused = CliRunner().invoke(app, line)
    assert refused.exit_code == 1
    assert "--max-voxels" in refused.output.replace("\n", "")
    assert CliRunner().invoke(app, [*line, "--max-voxels", "1000000"]).exit_code == 0

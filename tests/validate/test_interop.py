"""Other people's readers on our objects, and ours on theirs: the matrix that docs/validation.md shows is made here.

Every test ends with its row. With CTENRICH_UPDATE_DOCS=1 it is written into the page (in one process); without it the
page must already say the same, whichever tests run and in whatever process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.sr import read_sr
from ctenrich.errors import ToolError
from ctenrich.masks import full_mask
from ctenrich.records import SortedSeries
from ctenrich.tools import find_tool, run_tool
from tests.conftest import skip_or_fail
from tests.support import encode_cases as cases
from tests.support.contours import sorted_real
from tests.support.dcmjs import read_by_dcmjs
from tests.support.validators import write_four

PAGE = Path(__file__).parents[2] / "docs" / "validation.md"
BEGIN, END = "<!-- interop matrix -->", "<!-- end of interop matrix -->"
READERS = (
    "dcmjs",
    "dcmqi reads ours",
    "dcmtk",
    "highdicom",
    "OHIF",
    "PixelMed",
    "pydicom-seg",
    "SimpleITK, GDCM",
    "we read dcmqi's",
)


def rows_of_page() -> dict[str, str]:
    """Rows of the matrix in the page: {reader: line}."""
    lines = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()[2:]
    return {line.split("|")[1].strip(): line for line in lines}


def says(reader: str, seg: str, sr: str) -> None:
    """The page has this row."""
    line = f"| {reader} | {seg} | {sr} |"
    if os.environ.get("CTENRICH_UPDATE_DOCS"):
        rows = rows_of_page() | {reader: line}
        ordered = [rows[name] for name in sorted(rows, key=str.lower)]
        table = "\n".join([BEGIN, "| reader | SEG | SRs |", "|---|---|---|", *ordered, END])
        text = re.sub(f"{BEGIN}.*?{END}", lambda _: table, PAGE.read_text("utf-8"), flags=re.DOTALL)
        PAGE.write_text(text, "utf-8")
    assert rows_of_page().get(reader) == line


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from ctenrich.workspace import Workspace

    folder = tmp_path_factory.mktemp("interop")
    workspace = Workspace(folder / "run")
    series, paths = write_four(folder, workspace)
    masks = cases.make_masks(series, workspace)
    voxels = {s.name: int(full_mask(masks, s.number, workspace).sum()) for s in masks.segments}
    numbers = sum(1 for item in pydicom.dcmread(paths["shape_sr"]).iterall() if item.keyword == "NumericValue")
    return series, paths, voxels, numbers


def program(component: str, name: str) -> Path:
    try:
        return find_tool(name)
    except ToolError:
        skip_or_fail(component, f"{name} is not installed")
        raise


def test_highdicom(made):
    import highdicom

    _, paths, voxels, numbers = made
    seg = highdicom.seg.segread(paths["seg"])
    volume = seg.get_volume(combine_segments=False)
    counts = volume.array.sum(axis=(0, 1, 2))
    labels = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    assert {label: int(n) for label, n in zip(labels, counts, strict=True)} == voxels
    report = highdicom.sr.srread(paths["shape_sr"])
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert sum(len(g.get_measurements()) for g in groups) == numbers
    for kind in ("landmarks_sr", "regions_sr"):
        content = highdicom.sr.srread(paths[kind]).content
        assert len(content.get_image_measurement_groups()) > 0
    says("highdicom", "every segment, voxel for voxel", "all groups and numbers of the three SRs")


def test_dcmqi_reads_ours(made, tmp_path):
    import SimpleITK

    _, paths, voxels, _ = made
    arguments = ["--outputDirectory", tmp_path, "--outputType", "nrrd", "--prefix", "s"]
    run_tool([program("dcmqi", "segimage2itkimage"), "--inputDICOM", paths["seg"], *arguments])
    total = sum(
        int(np.count_nonzero(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(p))))) for p in tmp_path.glob("*.nrrd")
    )
    assert total == sum(voxels.values())
    out = tmp_path / "sr.json"
    run_tool([program("dcmqi", "tid1500reader"), "--inputDICOM", paths["shape_sr"], "--outputMetadata", out])
    assert len(json.loads(out.read_text())["Measurements"]) == len(voxels)
    says("dcmqi reads ours", "every present segment, all voxels", "all groups of the shape SR")


def test_we_read_dcmqis(real_data, tmp_path):
    """dcmqi writes a SEG from a label map of a real series; our reader gives its segments back."""
    import SimpleITK

    series = sorted_real(real_data("LUNG1-005"))
    labels = cases.label_map(series.shape)
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing((series.pixel_spacing[1], series.pixel_spacing[0], series.slice_spacing))
    image.SetOrigin(series.slices[0].position)
    SimpleITK.WriteImage(image, str(tmp_path / "labels.nrrd"))
    names = {1: "Esophagus", 2: "Heart", 4: "Aorta"}
    segments = [
        {
            "labelID": number,
            "SegmentLabel": name,
            "SegmentAlgorithmType": "MANUAL",
            "SegmentedPropertyCategoryCodeSequence": _json_code("123037004", "Anatomical Structure"),
            "SegmentedPropertyTypeCodeSequence": _json_code("80891009", name),
            "recommendedDisplayRGBValue": [10 * number, 20, 30],
        }
        for number, name in names.items()
    ]
    meta = {"ContentCreatorName": "Test", "SeriesDescription": "Test", "segmentAttributes": [segments]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    sources = ",".join(item.path for item in series.slices)
    arguments = ["--inputImageList", tmp_path / "labels.nrrd", "--inputDICOMList", sources]
    arguments += ["--inputMetadata", tmp_path / "meta.json", "--outputDICOM", tmp_path / "seg.dcm"]
    run_tool([program("dcmqi", "itkimage2segimage"), *arguments])
    decoded = read_seg(tmp_path / "seg.dcm")
    assert sorted(s.label for s in decoded.segments) == sorted(names.values())
    for number, name in names.items():
        found = next(s for s in decoded.segments if s.label == name)
        assert np.array_equal(decoded.mask(found.number), labels == number), name
    seg_uid = str(pydicom.dcmread(tmp_path / "seg.dcm", stop_before_pixels=True).SOPInstanceUID)
    values = {name: 10.0 * number + 1 / 3 for number, name in names.items()}
    groups = read_sr(written_by_dcmqi(tmp_path, seg_uid, values, series)).groups
    assert [g.segment_instance_uid for g in groups] == [seg_uid] * len(names)
    assert {g.sites[0].code.meaning: g.values[0].value for g in groups} == pytest.approx(values, rel=1e-9)
    says("we read dcmqi's", "every segment under its label, voxel for voxel", "every group, value and segment")


def written_by_dcmqi(folder: Path, seg_uid: str, values: dict[str, float], series: SortedSeries) -> Path:
    """A report of tid1500writer with one volume a segment."""
    groups = [
        {
            "TrackingIdentifier": f"Measurements group {n}",
            "ReferencedSegment": n,
            "SourceSeriesForImageSegmentation": series.series_instance_uid,
            "segmentationSOPInstanceUID": seg_uid,
            "Finding": _json_code("113343008", "Organ"),
            "FindingSite": _json_code("80891009", name),
            "measurementItems": [
                {
                    "value": f"{value:.12g}",
                    "quantity": {"CodeValue": "RNU0", "CodingSchemeDesignator": "IBSI", "CodeMeaning": "Volume"},
                    "units": {"CodeValue": "mm3", "CodingSchemeDesignator": "UCUM", "CodeMeaning": "cubic millimeter"},
                }
            ],
        }
        for n, (name, value) in enumerate(values.items(), 1)
    ]
    meta = {
        "SeriesDescription": "Measurements",
        "SeriesNumber": "1001",
        "InstanceNumber": "1",
        "compositeContext": ["seg.dcm"],
        "imageLibrary": [Path(item.path).name for item in series.slices],
        "observerContext": {"ObserverType": "DEVICE", "DeviceObserverName": "Test", "DeviceObserverUID": "1.2.3"},
        "VerificationFlag": "UNVERIFIED",
        "CompletionFlag": "COMPLETE",
        "activitySession": "1",
        "timePoint": "1",
        "Measurements": groups,
    }
    (folder / "sr.json").write_text(json.dumps(meta))
    out = folder / "sr.dcm"
    arguments = [
        "--inputMetadata",
        folder / "sr.json",
        "--outputDICOM",
        out,
        "--inputCompositeContextDirectory",
        folder,
    ]
    ct = Path(series.slices[0].path).parent
    run_tool([program("dcmqi", "tid1500writer"), *arguments, "--inputImageLibraryDirectory", ct])
    return out


def _json_code(value: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


def test_simpleitk_and_gdcm(made):
    import SimpleITK

    _, paths, voxels, _ = made
    image = SimpleITK.ReadImage(str(paths["seg"]))
    frames = SimpleITK.GetArrayFromImage(image)
    assert frames.shape[0] == pydicom.dcmread(paths["seg"]).NumberOfFrames
    assert int(np.count_nonzero(frames)) == sum(voxels.values())
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(paths["seg"]))
    reader.SetImageIO("GDCMImageIO")
    reader.ReadImageInformation()
    assert reader.GetMetaData("0008|0016").strip("\0 ") == "1.2.840.10008.5.1.4.1.1.66.4"
    says("SimpleITK, GDCM", "all frames and voxels, as one stack without segments", "not meant for SRs")


def test_dcmtk(made):
    _, paths, _, numbers = made
    text = run_tool([program("dcmtk", "dsrdump"), "+Pl", paths["shape_sr"]]).stdout
    assert text.count(" NUM:") == numbers
    for kind in ("landmarks_sr", "regions_sr"):
        assert "Imaging Measurement Report" in run_tool([program("dcmtk", "dsrdump"), paths[kind]]).stdout
    dump = run_tool([program("dcmtk", "dcmdump"), "+P", "SegmentLabel", paths["seg"]]).stdout
    assert dump.count("SegmentLabel") == 4
    says("dcmtk", "dcmdump lists every segment", "dsrdump shows every number of the three SRs")


@pytest.mark.long
def test_dcmjs(made, tmp_path):
    _, paths, voxels, numbers = made
    seg, sr = read_by_dcmjs([paths["seg"], paths["shape_sr"]], tmp_path)
    assert seg["labels"] == list(voxels)
    assert seg["voxels"] == sum(voxels.values())
    assert sr["numbers"] == numbers
    says("dcmjs", "every segment label, all voxels", "all numbers")


@pytest.mark.long
def test_pydicom_seg(made, tmp_path):
    """It wants older numpy and pydicom than ours, so it gets an environment of its own."""
    _, paths, voxels, _ = made
    python = tmp_path / "venv" / "bin" / "python"
    code = (
        "import pydicom, pydicom_seg, json, sys\n"
        "r = pydicom_seg.SegmentReader().read(pydicom.dcmread(sys.argv[1]))\n"
        "names = {n: r.segment_infos[n].SegmentLabel for n in r.available_segments}\n"
        "print(json.dumps({names[n]: int(r.segment_data(n).sum()) for n in names}))\n"
    )
    make = [
        ["python3", "-m", "venv", tmp_path / "venv"],
        [python, "-m", "pip", "install", "-q", "pydicom-seg", "pydicom<3"],
    ]
    for command in make:
        if subprocess.run([str(c) for c in command], capture_output=True, check=False, timeout=300).returncode:
            skip_or_fail("pypi", "pydicom-seg cannot be installed here")
    found = json.loads(run_tool([python, "-c", code, paths["seg"]]).stdout.splitlines()[-1])
    assert {name: count for name, count in found.items() if count} == {n: v for n, v in voxels.items() if v}
    says("pydicom-seg", "every segment, voxel for voxel", "not meant for SRs")


@pytest.mark.long
def test_pixelmed(made):
    from ctenrich.records import Severity
    from ctenrich.validate.pixelmed import find_jar, run_pixelmed

    _, paths, _, _ = made
    program("java", "java")
    try:
        find_jar()
    except ToolError:
        skip_or_fail("java", "pixelmed.jar is not installed")
    issues = run_pixelmed(paths["shape_sr"], "x")
    assert [i for i in issues if i.severity is Severity.ERROR] == []
    assert issues
    assert all(i.message.endswith("Content Item not in template") or "not in template" in i.message for i in issues)
    says("PixelMed", "not meant for SEG", "no error; warnings explained below")


def test_the_page_lists_every_reader_and_no_other():
    """OHIF's row is what tests/view/test_ohif.py looks at in a browser."""
    assert list(rows_of_page()) == sorted(READERS, key=str.lower)
    says(
        "OHIF", "every segment on its slices, with its label", "not shown by OHIF; `ctenrich view` has a page for them"
    )

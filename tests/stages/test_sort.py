from __future__ import annotations

import io
import shutil
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from tests.support.small_series import FRAME, SERIES, Edit, Small, folder_entry, save, small_slice, write_small

from ctenrich.errors import CtenrichError, GeometryError, IncompleteError, InputError, UnsafeInputError
from ctenrich.reasons import Reason
from ctenrich.records import Instance, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import ConvertSettings, Settings
from ctenrich.stages.convert import convert_series
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace

QUICK = Settings(convert=ConvertSettings(nifti=False))


def sort_folder(folder: Path, workspace: Workspace, **changes: object) -> SortedSeries:
    fetched = fetch_series(folder_entry(folder, **changes), settings=QUICK, workspace=workspace)
    return sort_series(fetched, settings=QUICK, workspace=workspace)


def refused(folder: Path, workspace: Workspace, **changes: object) -> CtenrichError:
    with pytest.raises(CtenrichError) as caught:
        sort_folder(folder, workspace, **changes)
    assert "canary" not in str(caught.value).lower()
    return caught.value


def set_on(k: int, **elements: object) -> Edit:
    def edit(data: Dataset, index: int) -> None:
        if index == k:
            for keyword, value in elements.items():
                setattr(data, keyword, value)

    return edit


def test_slices_come_in_order_with_their_uids(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    series = sort_folder(tmp_path / "in", workspace)
    assert series.sop_instance_uids == tuple(f"1.2.3.4.{k + 1}" for k in range(6))
    assert [s.distance for s in series.slices] == pytest.approx([-5.5 + 2.5 * k for k in range(6)])
    assert (series.slice_spacing, series.pixel_spacing, series.shape) == (2.5, (0.9, 0.8), (6, 14, 18))
    assert series.frame_of_reference_uid == FRAME
    store = SeriesStore(workspace)
    store.save(series, SERIES)
    assert store.sorted_series(SERIES) == series


def test_a_folder_of_everything(tmp_path: Path, workspace: Workspace) -> None:
    folder = tmp_path / "in"
    write_small(folder / "ct")
    write_small(folder / "other", Small(count=3, elements={"SeriesInstanceUID": "1.2.3.99"}), _other_uid)
    (folder / "README").write_text("not an image\n")
    (folder / "notes.json").write_text("{}")
    (folder / "ä.txt").write_text("Grüße")
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("../../evil.dcm", b"x")
    save(_companion("RTSTRUCT", reference="1.2.3.4.2"), folder / "rs.dcm")
    save(_companion("RTSTRUCT", reference="9.9.9"), folder / "another.dcm")
    save(_companion("SEG", reference="1.2.3.4.3"), folder / "seg.dcm")
    save(_companion("RTDOSE", frame=FRAME), folder / "dose.dcm")
    series = sort_folder(folder, workspace)
    assert len(series.slices) == 6
    assert sorted(Path(p).name for p in series.companions) == ["rs.dcm", "seg.dcm"]
    rules = [i.rule for i in series.issues]
    assert rules.count("sort.other_file") == 4
    assert any("archive" in i.message for i in series.issues)
    assert any("5 files of other series" in i.message for i in series.issues)
    assert not (tmp_path.parent / "evil.dcm").exists()


@pytest.mark.parametrize(
    ("reference", "count", "rules"),
    [
        ("1.2.3.4.2", 3, []),
        ("1.2.3.5.1", 3, ["companion.other_series"]),
        ("9.9.9", 3, ["companion.several"]),
        ("9.9.9", 1, []),
    ],
)
def test_a_structure_set_of_the_folder_belongs_to_one_of_its_phases(
    tmp_path: Path, workspace: Workspace, reference: str, count: int, rules: list[str]
) -> None:
    folder = tmp_path / "in"
    write_small(folder / "ct")
    write_small(folder / "other", Small(count=count, elements={"SeriesInstanceUID": "1.2.3.99"}), _other_uid)
    save(_companion("RTSTRUCT", reference=reference, frame=FRAME), folder / "rs.dcm")
    series = sort_folder(folder, workspace)
    assert [Path(p).name for p in series.companions] == ([] if rules else ["rs.dcm"])
    assert [i.rule for i in series.issues if i.rule.startswith("companion")] == rules


@pytest.mark.parametrize("left_out", [20, 60, 100])
def test_a_structure_set_of_the_folder_with_unreadable_references_is_handed_on(
    tmp_path: Path, workspace: Workspace, left_out: int
) -> None:
    folder = tmp_path / "in"
    write_small(folder / "ct")
    save(_companion("RTSTRUCT", reference="1.2.3.4.2"), folder / "rs.dcm")
    (folder / "rs.dcm").write_bytes((folder / "rs.dcm").read_bytes()[:-left_out])
    series = sort_folder(folder, workspace)
    assert [Path(p).name for p in series.companions] == ["rs.dcm"]
    assert [i.rule for i in series.issues] == ["sort.companion"]


def _other_uid(data: Dataset, k: int) -> None:
    data.SOPInstanceUID = f"1.2.3.5.{k + 1}"


def _companion(modality: str, reference: str = "", frame: str = "") -> Dataset:
    data = small_slice(Small(), 0)
    for keyword in ("PixelData", "ImagePositionPatient", "Rows", "Columns", "FrameOfReferenceUID"):
        delattr(data, keyword)
    data.Modality, data.SOPClassUID = modality, "1.2.840.10008.5.1.4.1.1.481.3"
    data.SeriesInstanceUID, data.SOPInstanceUID = (
        f"1.2.8.{len(modality)}.{len(reference)}",
        f"1.9.{hash(modality) % 97}",
    )
    if frame:
        data.FrameOfReferenceUID = frame
    if reference:
        image, series = Dataset(), Dataset()
        image.ReferencedSOPInstanceUID = reference
        series.ContourImageSequence = [image]
        study, item = Dataset(), Dataset()
        study.RTReferencedSeriesSequence = [series]
        item.RTReferencedStudySequence = [study]
        data.ReferencedFrameOfReferenceSequence = [item]
    return data


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("AccessionNumber", "A" * 17), ("StudyID", "1\\2"), ("IssuerOfPatientID", "x" * 65), ("StudyID", "a\x1fb")],
)
def test_identity_that_no_object_may_have_is_refused_before_any_work(
    tmp_path: Path, workspace: Workspace, keyword: str, value: str
) -> None:
    write_small(tmp_path / "in", Small(elements={keyword: value}))
    error = refused(tmp_path / "in", workspace)
    assert (type(error), error.reason) == (UnsafeInputError, Reason.UNSAFE_IDENTIFIER)
    assert value not in str(error)


@pytest.mark.parametrize(
    ("keyword", "value"), [("AccessionNumber", "A" * 16), ("StudyID", " 1 "), ("PatientName", "x" * 70 + "^Y")]
)
def test_other_values_are_left_to_the_encoder(tmp_path: Path, workspace: Workspace, keyword: str, value: str) -> None:
    write_small(tmp_path / "in", Small(elements={keyword: value}))
    assert len(sort_folder(tmp_path / "in", workspace).slices) == 6


def test_an_identical_copy_is_dropped_with_a_note(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in")
    shutil.copy(paths[2], tmp_path / "in" / "copy.dcm")
    data = small_slice(Small(), 4)
    data.PatientComments = "the same image, saved again"
    save(data, tmp_path / "in" / "again.dcm", RLELossless)
    series = sort_folder(tmp_path / "in", workspace)
    assert len(series.slices) == 6
    assert [i.object for i in series.issues if i.rule == "sort.duplicate"] in (
        ["1.2.3.4.3", "1.2.3.4.5"],
        ["1.2.3.4.5", "1.2.3.4.3"],
    )


def test_two_images_under_one_uid_are_refused(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in")
    data = small_slice(Small(), 4)
    pixels = np.frombuffer(data.PixelData, np.uint16).copy()
    pixels[7] += 1
    data.PixelData = pixels.tobytes()
    save(data, tmp_path / "in" / "x.dcm")
    assert refused(tmp_path / "in", workspace).reason is Reason.CONFLICTING_DUPLICATE


@pytest.mark.parametrize("content", [b"", b"\0" * 9000, bytes(range(256)) * 40, b"\0" * 128 + b"DICM"])
def test_a_file_that_may_have_been_a_slice_is_never_dropped(
    tmp_path: Path, workspace: Workspace, content: bytes
) -> None:
    write_small(tmp_path / "in")
    (tmp_path / "in" / "CANARY_NAME_7.dcm").write_bytes(content)
    assert refused(tmp_path / "in", workspace).reason in {Reason.NOT_DICOM, Reason.TRUNCATED, Reason.NO_CT}


@pytest.mark.parametrize("keep", [140, 300, 600, -1, -200])
def test_a_truncated_slice_stops_the_series(tmp_path: Path, workspace: Workspace, keep: int) -> None:
    paths = write_small(tmp_path / "in")
    paths[5].write_bytes(paths[5].read_bytes()[:keep])
    error = refused(tmp_path / "in", workspace)
    assert error.reason in {Reason.TRUNCATED, Reason.NOT_DICOM}
    assert "sha256:" in error.message


@pytest.mark.parametrize(
    ("elements", "kind", "reason"),
    [
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, InputError, Reason.NOT_CT),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, InputError, Reason.LOCALIZER),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, InputError, Reason.DERIVED_REFORMATTED),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, InputError, Reason.MULTIFRAME),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.2"}, InputError, Reason.MULTIFRAME),
        ({"NumberOfFrames": 3}, InputError, Reason.MULTIFRAME),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, GeometryError, Reason.MULTI_ORIENTATION),
        ({"PixelSpacing": [0.7, 0.7]}, GeometryError, Reason.MULTI_PIXEL_SPACING),
        ({"Rows": 7, "Columns": 36}, GeometryError, Reason.MULTI_MATRIX),
        ({"ImagePositionPatient": None}, GeometryError, Reason.MISSING_GEOMETRY),
        ({"FrameOfReferenceUID": "1.9"}, GeometryError, Reason.MULTI_FRAME_OF_REFERENCE),
        ({"Rows": 65535, "Columns": 65535}, GeometryError, Reason.MULTI_MATRIX),
        ({"SeriesInstanceUID": "../../../x"}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"SOPInstanceUID": "../../../x"}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"SOPInstanceUID": ""}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"SOPInstanceUID": "1.2.03.4"}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"SOPInstanceUID": "1.2..4"}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"PatientID": "SITE\\7"}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"PatientID": "7" * 81}, UnsafeInputError, Reason.UNSAFE_IDENTIFIER),
        ({"PatientID": "another"}, InputError, Reason.MIXED_SERIES),
        ({"StudyInstanceUID": "1.2.77"}, InputError, Reason.MIXED_SERIES),
        ({"RescaleSlope": "0"}, InputError, Reason.HU_RANGE),
        ({"RescaleIntercept": None}, InputError, Reason.HU_RANGE),
    ],
)
def test_one_odd_slice_is_refused_with_its_reason(
    tmp_path: Path, workspace: Workspace, elements: dict[str, object], kind: type[CtenrichError], reason: Reason
) -> None:
    write_small(tmp_path / "in", Small(), set_on(3, **elements))
    error = refused(tmp_path / "in", workspace)
    assert error.reason is reason
    assert type(error) is kind


def alternating(name: str, *values: object) -> Edit:
    return lambda data, k: setattr(data, name, values[k % len(values)])


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (alternating("ConvolutionKernel", "B30f", "B70f"), "ConvolutionKernel: B30F (3), B70F (3)"),
        (alternating("KVP", "80", "140"), "KVP: 80 (3), 140 (3)"),
        (alternating("AcquisitionTime", "120000", "120500"), "AcquisitionTime: 12:00:00 (3), 12:05:00 (3)"),
        (alternating("ContrastBolusAgent", "Ultravist", ""), "ContrastBolusAgent: ULTRAVIST (3), (none) (3)"),
        (alternating("SliceThickness", "1.5", "3.00"), "SliceThickness: 1.50 (3), 3.00 (3)"),
        (alternating("SeriesNumber", "2", "3"), "SeriesNumber: 2 (3), 3 (3)"),
        (alternating("PatientPosition", "HFS", "FFS"), "PatientPosition: HFS (3), FFS (3)"),
        (alternating("IrradiationEventUID", "1.2.3", "1.2.4"), "IrradiationEventUID: 1.2.3 (3), 1.2.4 (3)"),
        (alternating("TriggerTime", "0", "400"), "TriggerTime: 0 (3), 400 (3)"),
        (set_on(2, SeriesDescription="other"), "SeriesDescription: (none) (5), OTHER (1)"),
    ],
)
def test_acquisitions_that_alternate_are_refused_with_their_groups(
    tmp_path: Path, workspace: Workspace, edit: Edit, names: str
) -> None:
    write_small(tmp_path / "in", Small(), edit)
    error = refused(tmp_path / "in", workspace)
    assert error.reason is Reason.MIXED_ACQUISITIONS
    assert names in error.message


def test_acquisitions_that_follow_one_another_are_accepted_with_a_note(tmp_path: Path, workspace: Workspace) -> None:
    def step(data: Dataset, k: int) -> None:
        data.AcquisitionNumber, data.AcquisitionTime = k // 2 + 1, f"12000{k // 2}"

    write_small(tmp_path / "in", Small(), step)
    series = sort_folder(tmp_path / "in", workspace)
    notes = [i.message for i in series.issues if i.rule == "sort.acquisitions"]
    assert notes == ["groups of slices follow one another: AcquisitionNumber: 1 (2), 2 (2), 3 (2)"]


def test_a_series_without_a_frame_of_reference_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    write_small(tmp_path / "in", Small(elements={"FrameOfReferenceUID": ""}))
    assert refused(tmp_path / "in", workspace).reason is Reason.MISSING_FRAME_OF_REFERENCE


@pytest.mark.parametrize(
    ("remove", "reason"),
    [((3,), Reason.MISSING_SLICE), ((1, 2, 3, 4, 5), Reason.ONE_SLICE), ((0, 1, 2, 3, 4, 5), Reason.EMPTY_INPUT)],
)
def test_missing_slices(tmp_path: Path, workspace: Workspace, remove: tuple[int, ...], reason: Reason) -> None:
    paths = write_small(tmp_path / "in")
    for k in remove:
        paths[k].unlink()
    assert refused(tmp_path / "in", workspace).reason is reason


def test_a_slice_missing_at_the_end_shows_where_the_count_is_known(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in")
    paths[5].unlink()
    assert len(sort_folder(tmp_path / "in", workspace).slices) == 5
    error = refused(tmp_path / "in", Workspace(tmp_path / "again"), expected_instances=6)
    assert error.reason is Reason.INCOMPLETE
    assert "1 of 6" in error.message


def test_a_file_that_holds_another_instance_than_listed(tmp_path: Path, workspace: Workspace) -> None:
    paths = write_small(tmp_path / "in")
    listed = tuple(Instance(f"1.2.3.4.{k + 1}", p.as_uri()) for k, p in enumerate(paths))
    assert len(sort_folder(tmp_path, workspace, instances=listed).slices) == 6
    swapped = (replace(listed[0], url=listed[1].url), replace(listed[1], url=listed[0].url), *listed[2:])
    error = refused(tmp_path, Workspace(tmp_path / "again"), instances=swapped)
    assert type(error) is IncompleteError


def test_no_ct(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "README").write_text("nothing here")
    assert refused(tmp_path / "in", workspace).reason is Reason.NO_CT
    write_small(tmp_path / "in", Small(elements={"SeriesInstanceUID": "1.2.77"}))
    error = refused(tmp_path / "in", workspace)
    assert error.reason is Reason.NO_CT
    assert "no file of this series" in error.message


def test_links_inside_the_input_are_not_followed(tmp_path: Path, workspace: Workspace) -> None:
    outside = write_small(tmp_path / "outside")
    (tmp_path / "in").mkdir()
    for path in outside[:5]:
        shutil.copy(path, tmp_path / "in")
    (tmp_path / "in" / "5.dcm").symlink_to(outside[5])
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "outside")
    assert len(sort_folder(tmp_path / "in", workspace).slices) == 5
    listed = tuple(Instance(f"1.2.3.4.{k + 1}", (tmp_path / "in" / f"{k}.dcm").as_uri()) for k in range(6))
    error = refused(tmp_path, Workspace(tmp_path / "again"), instances=listed)
    assert error.reason is Reason.UNSAFE_PATH


def test_files_without_preamble_or_meta_are_read(tmp_path: Path, workspace: Workspace) -> None:
    folder = tmp_path / "in"
    paths = write_small(folder)
    for path in paths[:3]:
        content = path.read_bytes()
        path.write_bytes(content[132:])  # group 2 stays
    for k, path in enumerate(paths[3:], 3):
        data = small_slice(Small(), k)
        buffer = io.BytesIO()
        del data.file_meta
        data.save_as(buffer, implicit_vr=k % 2 == 0, little_endian=True, enforce_file_format=False)
        path.write_bytes(buffer.getvalue())
    series = sort_folder(folder, workspace)
    assert len(series.slices) == 6
    assert convert_series(series, settings=QUICK, workspace=workspace).shape == (6, 14, 18)


def _content(series: SortedSeries) -> SortedSeries:
    """What a series says, its paths left out."""
    slices = tuple(replace(s, path="") for s in series.slices)
    return replace(series, slices=slices, companions=tuple("" for _ in series.companions))


def test_a_dicomdir_is_not_obeyed(tmp_path: Path, workspace: Workspace) -> None:
    from pydicom.fileset import FileSet

    paths = write_small(tmp_path / "in")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = FileSet()
        for k, path in enumerate(paths):
            data = dcmread(path)
            data.StudyDate, data.StudyTime, data.StudyID, data.SeriesNumber = "20200101", "120000", "1", k
            files.add(data)
        files.write(tmp_path / "set")
    content = (tmp_path / "set" / "DICOMDIR").read_bytes()
    assert b"PT000000" in content
    shutil.copy(tmp_path / "set" / "DICOMDIR", tmp_path / "in" / "DICOMDIR")
    evil = content.replace(b"PT000000", b"..\\..\\..\\")
    (tmp_path / "in" / "DICOMDIR2").write_bytes(evil)
    series = sort_folder(tmp_path / "in", workspace)
    assert len(series.slices) == 6
    assert [i.rule for i in series.issues] == ["sort.dicomdir", "sort.dicomdir"]


@pytest.mark.long
@pytest.mark.parametrize(("count", "side"), [(2500, 8), (3, 1024), (29, 64)])
def test_long_thin_and_wide_series(tmp_path: Path, workspace: Workspace, count: int, side: int) -> None:
    write_small(tmp_path / "in", Small(count=count, rows=side, columns=side, spacing=0.5))
    series = sort_folder(tmp_path / "in", workspace)
    volume = convert_series(series, settings=Settings(), workspace=workspace)
    assert volume.shape == (count, side, side)


names = st.lists(
    st.tuples(st.lists(st.sampled_from(["a", "b b", "ü", "$(x)"]), max_size=3), st.text("abcXYZ019_- '", min_size=1)),
    min_size=6,
    max_size=6,
    unique_by=lambda item: ("/".join(item[0]), item[1].strip().lower()),
)


@given(names, st.permutations(range(6)))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_order_and_depth_never_change_the_result(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[list[str], str]], order: list[int]
) -> None:
    base = tmp_path_factory.mktemp("order")
    write_small(base / "plain")
    for (folders, name), k in zip(places, order, strict=True):
        target = base / "mixed" / Path(*folders, f"{name}.{k}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / "plain" / f"{k}.dcm", target)
    found = []
    for folder, run in (("plain", "a"), ("mixed", "b")):
        workspace = Workspace(base / run)
        series = sort_folder(base / folder, workspace)
        found.append((_content(series), convert_series(series, settings=QUICK, workspace=workspace)))
    assert found[0] == found[1]

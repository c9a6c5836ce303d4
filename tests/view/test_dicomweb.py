from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from ctenrich import steps
from ctenrich.errors import CtenrichError
from ctenrich.view.contents import RunView
from ctenrich.view.dicomweb import Answer, DicomWeb, frame_of
from tests.support.cohorts import make_cohort


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> DicomWeb:
    folder = tmp_path_factory.mktemp("web")
    made = steps.start(make_cohort(folder, 2), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    return DicomWeb(RunView(made.workspace))


def rows(answer: Answer) -> list[Dataset]:
    assert answer.kind == "application/dicom+json"
    return [Dataset.from_json(row) for row in json.loads(answer.content)]


def split(answer: Answer) -> list[tuple[bytes, bytes]]:
    """(header, body) of each part."""
    boundary = answer.kind.rpartition("boundary=")[2].encode()
    found = answer.content.split(b"--" + boundary)[1:-1]
    return [(h, b) for h, _, b in (p.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n") for p in found)]


def test_studies_and_series_of_the_run_only(web: DicomWeb) -> None:
    studies = rows(web.answer(["studies"], {}))
    assert len(studies) == 2
    assert studies[0].ModalitiesInStudy == ["CT", "SEG"]
    study = studies[0].StudyInstanceUID
    assert [s.StudyInstanceUID for s in rows(web.answer(["studies"], {"StudyInstanceUID": [study]}))] == [study]
    assert len(rows(web.answer(["studies"], {"limit": ["1"], "offset": ["1"]}))) == 1
    ct, seg = rows(web.answer(["studies", study, "series"], {}))
    assert (ct.Modality, ct.NumberOfSeriesRelatedInstances) == ("CT", 16)
    assert (seg.Modality, seg.NumberOfSeriesRelatedInstances) == ("SEG", 1)
    only = rows(web.answer(["studies", study, "series"], {"0020000E": [seg.SeriesInstanceUID]}))
    assert [s.Modality for s in only] == ["SEG"]
    assert rows(web.answer(["studies"], {"StudyInstanceUID": ["1.2.3"]})) == []


def test_slices_are_described_as_they_are_without_names(web: DicomWeb) -> None:
    uid = web.view.series[0]
    record = web.view.record(uid)
    found = rows(web.answer(["studies", record.study_instance_uid, "series", uid, "metadata"], {}))
    assert [d.SOPInstanceUID for d in found] == list(record.sop_instance_uids)
    assert [float(d.ImagePositionPatient[2]) for d in found] == pytest.approx([s.position[2] for s in record.slices])
    assert all("PatientName" not in d and "PixelData" not in d for d in found)
    one = ["studies", record.study_instance_uid, "series", uid, "instances", record.slices[3].sop_instance_uid]
    assert rows(web.answer([*one, "metadata"], {}))[0].SOPInstanceUID == record.slices[3].sop_instance_uid
    assert len(rows(web.answer(one[:-1], {}))) == 16


def test_a_window_is_added_to_metadata_alone_and_only_where_none_is_stated(tmp_path: Path, web: DicomWeb) -> None:
    uid = web.view.series[0]
    path = web.view.slices(uid)[0]
    before = path.read_bytes()
    series = ["studies", web.view.record(uid).study_instance_uid, "series", uid]
    one = [*series, "instances", web.view.record(uid).slices[0].sop_instance_uid]
    data = pydicom.dcmread(path)
    try:
        for stated, shown in (((-600, 1500), (-600, 1500)), ((None, None), (40, 400)), ((50, None), (40, 400))):
            data.WindowCenter, data.WindowWidth = stated
            data.save_as(path)
            stored = path.read_bytes()
            (found,) = rows(web.answer([*one, "metadata"], {}))
            assert (found.WindowCenter, found.WindowWidth) == shown
            ((_, body),) = split(web.answer(one, {}))
            assert body == stored
    finally:
        path.write_bytes(before)


def test_segmentations_are_listed_under_the_name_of_their_product(web: DicomWeb) -> None:
    uid = web.view.series[0]
    study, seg = web.view.record(uid).study_instance_uid, web.view.segmentations(uid)[0]
    listed = rows(web.answer(["studies", study, "series"], {"0020000E": [seg.item.series_instance_uid]}))
    assert [row.SeriesDescription for row in listed] == ["Expert contours (RTSTRUCT)"]
    series = ["studies", study, "series", seg.item.series_instance_uid]
    ((_, body),) = split(web.answer([*series, "instances", seg.item.sop_instance_uid], {}))
    assert body == seg.path.read_bytes()


def test_frames_and_instances_of_ct(web: DicomWeb) -> None:
    uid = web.view.series[0]
    record, path = web.view.record(uid), web.view.slices(uid)[5]
    data = pydicom.dcmread(path)
    one = ["studies", record.study_instance_uid, "series", uid, "instances", data.SOPInstanceUID]
    ((head, body),) = split(web.answer([*one, "frames", "1"], {}))
    assert f"transfer-syntax={data.file_meta.TransferSyntaxUID}".encode() in head
    assert body == data.PixelData
    ((head, body),) = split(web.answer(one, {}))
    assert b"application/dicom" in head
    assert body == path.read_bytes()


def test_frames_of_a_seg_are_cut_by_bit(web: DicomWeb) -> None:
    uid = web.view.series[0]
    shown = web.view.segmentations(uid)[0]
    data = pydicom.dcmread(shown.path)
    study, item = web.view.record(uid).study_instance_uid, shown.item
    words = ["studies", study, "series", item.series_instance_uid, "instances", item.sop_instance_uid, "frames"]
    found = split(web.answer([*words, "2,1"], {}))
    for (_, body), plane in zip(found, (data.pixel_array[1], data.pixel_array[0]), strict=True):
        bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")[: plane.size]
        assert (bits.reshape(plane.shape) == plane).all()


def binary(rows: int, columns: int, frames: np.ndarray) -> Dataset:
    made = Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.Rows, made.Columns, made.NumberOfFrames = rows, columns, len(frames)
    made.SamplesPerPixel, made.BitsAllocated, made.BitsStored, made.HighBit = 1, 1, 1, 0
    made.PixelRepresentation, made.PhotometricInterpretation = 0, "MONOCHROME2"
    made.PixelData = pack_bits(frames)
    return made


def test_a_frame_may_start_within_a_byte() -> None:
    frames = np.random.default_rng(1).integers(0, 2, (7, 3, 5), dtype=np.uint8)
    data = binary(3, 5, frames)
    for n in range(7):
        bits = np.unpackbits(np.frombuffer(frame_of(data, n + 1), np.uint8), bitorder="little")
        assert (bits[:15].reshape(3, 5) == frames[n]).all()
        assert bits[15] == 0
    for wrong in (0, 8):
        with pytest.raises(CtenrichError):
            frame_of(data, wrong)


def test_compressed_slices_stay_compressed(tmp_path: Path, web: DicomWeb) -> None:
    data = pydicom.dcmread(web.view.slices(web.view.series[0])[8])
    plain = data.pixel_array
    data.compress(RLELossless)
    data.save_as(tmp_path / "c.dcm")
    read = pydicom.dcmread(tmp_path / "c.dcm")
    frame = frame_of(read, 1)
    assert len(frame) < plain.nbytes
    again = pydicom.dcmread(tmp_path / "c.dcm")
    again.PixelData = pydicom.encaps.encapsulate([frame])
    assert (again.pixel_array == plain).all()


def test_what_the_run_does_not_have(web: DicomWeb) -> None:
    uid = web.view.series[0]
    study = web.view.record(uid).study_instance_uid
    series = ["studies", study, "series", uid]
    report = next(o for o in web.view.objects(uid) if o.item.kind == "shape_sr")
    for words in (
        [],
        ["x"],
        ["studies", "..", "series"],
        ["studies", study, "series", "1.2.3", "metadata"],
        [*series, "instances", "1.2.3"],
        [*series, "instances", "1.2.3", "metadata"],
        [*series, "instances", report.item.sop_instance_uid],
        [*series, "instances", web.view.record(uid).slices[0].sop_instance_uid, "frames", "2"],
        [*series, "instances", web.view.record(uid).slices[0].sop_instance_uid, "frames", "x"],
        ["studies", study, "nothing"],
    ):
        with pytest.raises(CtenrichError):
            web.answer(words, {})

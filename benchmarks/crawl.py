"""A folder of generated radiotherapy files crawled into links: rate and largest memory, beside reading headers alone.

``python -m benchmarks.crawl [--files 100000] [--slices 97] [--folder DIR]``. Each patient has a CT of that many slices
of 2 x 2 pixels, and a structure set, a plan and a dose. UIDs from plan to structure set and from dose to plan lead
nowhere. The files are deleted afterwards. ``--rows 1000000`` stores that many rows without files: the headers of 2,560
generated files again and again, under other UIDs and paths. It prints the largest memory for every 122,880 of them,
DuckDB's group of rows.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

_PATIENT, _IMAGE, _HEIGHT = b"100000000", b"200000000", b"0300.00"
"""Numbers in the templates that differ from file to file, of one length."""
_ROOT = f"1.2.826.0.1.3680043.{_PATIENT.decode()}"
_OWN_VALUES = (
    "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "local_path",
    "gcs_url",
)  # fmt: skip
_GROUP = 122_880
_CLASSES = {"CT": "2", "RTSTRUCT": "481.3", "RTPLAN": "481.5", "RTDOSE": "481.2"}


def _template(modality: str, **values: Any) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{_CLASSES[modality]}"
    meta.MediaStorageSOPInstanceUID = f"{_ROOT}.{list(_CLASSES).index(modality)}.{_IMAGE.decode()}"
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = _ROOT, f"{_ROOT}.9"
    dataset.SeriesInstanceUID = f"{_ROOT}.{list(_CLASSES).index(modality)}"
    dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = f"P{_PATIENT.decode()}", "19500203", "F"
    dataset.Modality, dataset.StudyDate = modality, "20200102"
    for name, value in values.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _item(**values: Any) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _templates() -> dict[str, bytes]:
    image = {
        "ImagePositionPatient": ["0", "0", _HEIGHT.decode()], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1], "Rows": 2, "Columns": 2, "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SliceThickness": "3", "PixelData": bytes(8),
    }  # fmt: skip
    series = _item(SeriesInstanceUID=f"{_ROOT}.0", ContourImageSequence=Sequence([]))
    study = _item(ReferencedSOPInstanceUID=_ROOT, RTReferencedSeriesSequence=Sequence([series]))
    frame = _item(FrameOfReferenceUID=f"{_ROOT}.9", RTReferencedStudySequence=Sequence([study]))
    rois = [_item(ROINumber=n, ReferencedFrameOfReferenceUID=f"{_ROOT}.9", ROIName=f"roi {n}") for n in range(20)]
    nowhere = _item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID=f"9.9.{_PATIENT.decode()}")
    return {
        "CT": _template("CT", **image),
        "RTSTRUCT": _template(
            "RTSTRUCT",
            ReferencedFrameOfReferenceSequence=Sequence([frame]),
            StructureSetROISequence=Sequence(rois),
        ),
        "RTPLAN": _template("RTPLAN", RTPlanLabel="A", ReferencedStructureSetSequence=Sequence([nowhere])),
        "RTDOSE": _template(
            "RTDOSE",
            DoseUnits="GY",
            DoseType="PHYSICAL",
            DoseSummationType="PLAN",
            DoseGridScaling="0.001",
            ReferencedRTPlanSequence=Sequence([nowhere]),
        ),
    }


def make_files(folder: Path, files: int, slices: int) -> int:
    """Write the files of whole patients; returns their number."""
    templates = _templates()
    patients = max(1, files // (slices + 3))
    for patient in range(patients):
        own = {name: one.replace(_PATIENT, b"%09d" % (100000001 + patient)) for name, one in templates.items()}
        place = folder / f"{patient // 1000:04d}" / f"{patient:08d}"
        place.mkdir(parents=True)
        for number in range(slices):
            image = own["CT"].replace(_IMAGE, b"%09d" % (200000001 + number)).replace(_HEIGHT, b"%07.2f" % (3 * number))
            (place / f"{number:05d}.dcm").write_bytes(image)
        for name in ("RTSTRUCT", "RTPLAN", "RTDOSE"):
            (place / f"{name}.dcm").write_bytes(own[name])
    return patients * (slices + 3)


def _headers(folder: Path, _catalog: Path) -> int:
    from ctenrich.catalog.headers import read_header

    return sum(read_header(path).row is not None for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    return (path for place in sorted(folder.glob("*/*")) for path in place.iterdir())


def _crawl(folder: Path, catalog: Path) -> int:
    from ctenrich.catalog.folder import index_folders

    return index_folders([folder], catalog, processes=1).instances


def _links(_folder: Path, catalog: Path) -> int:
    from ctenrich.treatments.exports import load_links

    return int(load_links(catalog).num_rows)


def _measured(task: Callable[[Path, Path], int], folder: Path, catalog: Path, out: Any) -> None:
    start = time.process_time()
    number = task(folder, catalog)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.put((number, time.process_time() - start, peak))


class _Peak(threading.Thread):
    """Watches the memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0

    def run(self) -> None:
        import psutil

        process = psutil.Process()
        while True:
            self.bytes = max(self.bytes, process.memory_info().rss)
            time.sleep(0.02)


def store_rows(folder: Path, catalog: Path, rows: int) -> None:
    """Store the headers of the files of a folder again and again, under other UIDs and paths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ctenrich.catalog import folder as folders
    from ctenrich.catalog.crawl import FoundFile, find_files, read_batches

    found = sorted(find_files([folder]), key=lambda entry: entry.path)
    batches = list(read_batches([FoundFile(one.path, one.size, one.mtime_ns) for one in found], "local", 1))
    tables = [pa.ipc.open_stream(batch.instances).read_all() for batch in batches]
    connection = folders._open(catalog, read_only=False)
    folders._create(connection)
    peak, done, groups, turn = _Peak(), 0, 0, 0
    peak.start()
    while done < rows:
        batch, table = batches[turn % len(batches)], tables[turn % len(batches)]
        for name in _OWN_VALUES:
            at = table.schema.get_field_index(name)
            values = pc.binary_join_element_wise(table[name].combine_chunks(), str(turn), ".")
            table = table.set_column(at, table.schema.field(at), values)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        files = tuple(replace(file, path=f"{file.path}.{turn}") for file in batch.files)
        folders._store(connection, replace(batch, files=files, instances=sink.getvalue().to_pybytes()))
        done, turn = done + table.num_rows, turn + 1
        if done // _GROUP > groups:
            print(f"  {done:,} rows: largest memory {peak.bytes / 2**20:.0f} MB since the last line", flush=True)
            groups, peak.bytes = done // _GROUP, 0
    folders._mark_copies(connection)
    print(f"  {done:,} rows with the search for copies: {peak.bytes / 2**20:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--slices", type=int, default=97)
    parser.add_argument("--folder", type=Path, help="where the files are made; default: the folder of temporary files")
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    parser.add_argument("--rows", type=int, default=0, help="store rows without files instead")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder, catalog = Path(scratch) / "rt", Path(scratch) / "catalog.duckdb"
        folder.mkdir()
        if given.rows:
            make_files(folder, 2560, 253)
            store_rows(folder, catalog, given.rows)
            return
        files = make_files(folder, given.files // (10 if given.quick else 1), given.slices)
        print(f"{files:,} files")
        seconds: dict[str, float] = {}
        for title, task in (("headers alone", _headers), ("crawl", _crawl), ("links", _links)):
            out = context.Queue()
            process = context.Process(target=_measured, args=(task, folder, catalog, out))
            process.start()  # each in a process of its own, for its own largest memory
            number, seconds[title], peak = out.get()
            process.join()
            print(f"  {title}: {number:,} in {seconds[title]:.1f} s of CPU, largest memory {peak:.0f} MB", flush=True)
        ratio = (seconds["crawl"] + seconds["links"]) / seconds["headers alone"]
        print(f"  crawl and links take {ratio:.2f} times as long as headers alone")


if __name__ == "__main__":
    main()
